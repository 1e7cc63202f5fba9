"""A line that says that a function is compiled, and how long it took."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tqdm.std import tqdm


@contextmanager
def announced(name: str, announce: bool = True) -> Iterator[None]:
    """Print before the block that a function is compiled, and the seconds after it.

    Progress bars are cleared for the time of the block.

    Examples
    --------
    >>> from seqnet.training.announcing import announced
    >>> with announced("training", announce=False):
    ...     pass
    """
    if not announce:
        yield
        return
    with tqdm.external_write_mode(sys.stderr):
        print(f"Compiling the {name} function ...", end="", file=sys.stderr, flush=True)
        start, outcome = time.perf_counter(), "not finished"
        try:
            yield
            outcome = f"{time.perf_counter() - start:.1f} s"
        finally:
            print(f" {outcome}", file=sys.stderr, flush=True)
