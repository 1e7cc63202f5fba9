"""Layers that draw random numbers."""

from __future__ import annotations

from typing import Any

from seqnet.common.checks import check_count
from seqnet.layers.layer import Layer


class Seeded(Layer):
    """The base of layers that draw random numbers while training.

    Parameters
    ----------
    seed : int, optional
        Where the random numbers of the layer start, the same in each model that is made. By default
        they follow from `seqnet.set_random_seed`.
    """

    def __init__(self, *args: Any, seed: int | None = None, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.seed = None if seed is None else check_count(seed, "seed", minimum=0)

    def next_seed(self) -> int | list[int]:
        return super().next_seed() if self.seed is None else [self.seed, len(self._generators)]
