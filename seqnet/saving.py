"""HDF5 files: a JSON header and named arrays, written beside and renamed.

A file is data: nothing in it is run. Its header says what it is; arrays are found by name. A write
that fails or is cut off leaves the earlier file as it was.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import h5py
import numpy as np

FORMAT = "seqnet"
VERSION = 1
HEADER = "header"
ARRAYS = "arrays"


def write(path: str | os.PathLike, header: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a header and arrays to `path`, whole or not at all.

    Parameters
    ----------
    path : path
        Its folder must exist.
    header : mapping
        What JSON can hold.
    arrays : mapping of str to array
        Names may have slashes, which make HDF5 groups.
    """
    text = json.dumps({"format": FORMAT, "version": VERSION, **header}, ensure_ascii=False)
    with replacing(Path(path)) as beside, h5py.File(beside, "w") as file:
        file.create_dataset(HEADER, data=np.frombuffer(text.encode(), dtype="uint8"))
        group = file.create_group(ARRAYS)
        for name, value in arrays.items():
            group.create_dataset(name, data=np.asarray(value))


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; rename it to `path` if the block ends well."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"The folder {path.parent} to save {path.name} in does not exist.")
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(handle)
    beside = Path(name)
    try:
        yield beside
        with open(beside, "rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes files for the owner alone; give the mode an ordinary new file has.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(beside, 0o666 & ~umask)
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


def read(path: str | os.PathLike) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `write` made.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no HDF5 file, a damaged one, or not one of seqnet's.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory, not a file.")
    try:
        with h5py.File(path, "r") as file:
            if not isinstance(file.get(HEADER), h5py.Dataset) or not isinstance(
                file.get(ARRAYS), h5py.Group
            ):
                raise ValueError(f"{path} is an HDF5 file, but was not written by seqnet.")
            header = json.loads(file[HEADER][()].tobytes().decode())
            arrays: dict[str, np.ndarray] = {}
            file[ARRAYS].visititems(
                lambda name, item: (
                    arrays.__setitem__(name, item[()]) if isinstance(item, h5py.Dataset) else None
                )
            )
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} cannot be read: it is no HDF5 file, or it is damaged or cut short ({error})."
        ) from None
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise ValueError(f"{path} is an HDF5 file, but was not written by seqnet.")
    if header.get("version") != VERSION:
        raise ValueError(
            f"{path} has version {header.get('version')} of the format; this seqnet reads version "
            f"{VERSION}."
        )
    return header, arrays
