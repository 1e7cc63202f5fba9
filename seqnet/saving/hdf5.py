"""HDF5 files with a checksum: a JSON header and named arrays.

Loading a file never runs code. For other programs it is an ordinary HDF5 file. The first 512 bytes,
which HDF5 reserves for the user, hold the length of the file, the position of its header and a
checksum of everything; the header has the offset of each array. seqnet uses only these to read a
file. The HDF5 library neither parses files here nor writes them to the disk: damaged or malicious
files can make it read other files, use any amount of memory or return wrong numbers, and a full
disk can make it crash.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import struct
import sys
from collections.abc import Mapping
from io import BufferedRandom, BufferedReader
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from seqnet import registry
from seqnet.saving.atomic import atomic_write
from seqnet.version import __version__

MAGIC = b"seqnet\r\n"
VERSION = 4
FRONT = struct.Struct("<8sQQQQ")  # magic, version, file length, offset and size of the header
FRONT_SIZE, BLOCK = 480, 512  # the rest of the block is the checksum, a SHA-256
WRITER, HEADER = "seqnet", "header"
ARRAYS = "arrays"
ARRAY = "array"
DTYPES = {
    *("bool", "float16", "float32", "float64", "int8", "int16", "int32", "int64"),
    *("uint8", "uint16", "uint32", "uint64"),
}


def write(path: str | os.PathLike, header: Mapping, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a header and arrays to `path` atomically.

    Parameters
    ----------
    path : path
        The path of the file; its folder must exist.
    header : mapping
        Values that JSON can hold.
    arrays : mapping of str to array
        Slashes in names create HDF5 groups.

    Raises
    ------
    TypeError, ValueError
        If a value cannot be stored; nothing is written.
    OSError
        If the file cannot be written, such as on a full disk; an existing file is not changed.
    """
    image, placed, (start, size) = lay_out(header, {n: plain(n, a) for n, a in arrays.items()})
    front = FRONT.pack(MAGIC, VERSION, image.size, start, size).ljust(FRONT_SIZE, b"\0")
    with atomic_write(path) as file:
        for offset, piece in image.pieces:
            file.seek(offset)
            file.write(piece)
        for offset, value in placed:
            file.seek(offset)
            file.write(np.ascontiguousarray(value).reshape(-1).view("uint8").data)
        file.truncate(image.size)
        digest = checksum(file, front)
        file.seek(0)
        file.write(front + digest)


def read(path: str | os.PathLike) -> tuple[dict, dict[str, np.ndarray]]:
    """Return the header and the arrays of a file that `write` wrote.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it was not written by seqnet, or was damaged, truncated or changed after it was saved.
    """
    path = Path(path)
    if not path.exists():
        raise FileNotFoundError(f"There is no file {path}.")
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory, not a file.")
    if not path.is_file():
        raise ValueError(f"{path} is not a regular file.")
    with open(path, "rb") as file:
        try:
            start, size, length = check(file)
        except ValueError as error:
            raise ValueError(f"{path} cannot be read: {error}.") from None
        try:
            return take_out(file, start, size, length)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(
                f"{path} cannot be read: it is complete, but was not written by seqnet ({error!r})."
            ) from None


def below(folder: str, arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the arrays in a folder, by their names without the folder."""
    start = f"{folder}/"
    return {n.removeprefix(start): value for n, value in arrays.items() if n.startswith(start)}


def extract_arrays(state: Any, place: str, arrays: dict[str, np.ndarray]) -> Any:
    """Return a state as JSON can hold it; move its arrays to `arrays`, by their place in it.

    Parameters
    ----------
    state : nested dictionaries and lists of plain values and arrays
    place : str
        The name of the state.
    arrays : dict
        The arrays are added to it.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.saving.hdf5 import extract_arrays, insert_arrays
    >>> arrays = {}
    >>> header = extract_arrays({"wait": 1, "best": [np.zeros(2)]}, "stopping", arrays)
    >>> header, list(arrays)
    ({'wait': 1, 'best': [{'array': 'stopping/best/0'}]}, ['stopping/best/0'])
    >>> insert_arrays(header, arrays)["best"][0].shape
    (2,)
    """
    if isinstance(state, np.ndarray) and state.ndim:
        arrays[place] = state
        return {ARRAY: place}
    if isinstance(state, Mapping):
        found = {str(k): extract_arrays(v, f"{place}/{k}", arrays) for k, v in state.items()}
        if set(found) == {ARRAY}:
            raise ValueError(f"The state of {place} has {ARRAY!r} as its only key; add another.")
        return found
    if isinstance(state, (list, tuple)):
        return [extract_arrays(v, f"{place}/{k}", arrays) for k, v in enumerate(state)]
    return registry.serialize(state)


def insert_arrays(header: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return the state that `extract_arrays` was given."""
    if isinstance(header, dict):
        if set(header) == {ARRAY}:
            return arrays[header[ARRAY]]
        return {name: insert_arrays(value, arrays) for name, value in header.items()}
    if isinstance(header, list):
        return [insert_arrays(value, arrays) for value in header]
    return header


def check(file: BufferedReader) -> tuple[int, int, int]:
    """Check the checksum; return the offset and size of the header and the length of the file."""
    block = file.read(BLOCK)
    if not block.startswith(MAGIC):
        hdf5 = block.startswith(b"\x89HDF\r\n\x1a\n")
        kind = "it is an HDF5 file, but" if hdf5 else "it is not an HDF5 file and"
        raise ValueError(f"{kind} was not written by seqnet")
    there = os.fstat(file.fileno()).st_size
    if len(block) < BLOCK:
        raise ValueError(f"it was truncated to {there} bytes")
    _, version, length, start, size = FRONT.unpack_from(block)
    if version != VERSION:
        raise ValueError(
            f"it has version {version} of the format, and seqnet {__version__} reads version "
            f"{VERSION}: read it with the version of seqnet that wrote it"
        )
    if there < length:
        raise ValueError(f"it was truncated to {there} of {length} bytes")
    if there > length or checksum(file, block[:FRONT_SIZE]) != block[FRONT_SIZE:]:
        raise ValueError("it was damaged or changed after it was saved (the checksum differs)")
    return start, size, length


def checksum(file: BufferedReader | BufferedRandom, front: bytes) -> bytes:
    """Return the SHA-256 of the front and of everything after the first block."""
    file.seek(BLOCK)
    return hashlib.file_digest(file, lambda: hashlib.sha256(front)).digest()


def take_out(file: BufferedReader, start: int, size: int, length: int) -> tuple[dict, dict]:
    """Return the header and the arrays of a file; together they are no larger than the file."""
    left = length

    def take(dtype: str, shape: list[int], offset: int) -> np.ndarray:
        nonlocal left
        if dtype not in DTYPES:
            raise ValueError(f"an array cannot have the dtype {dtype!r}")
        if len(shape) > 32 or not all(type(n) is int and 0 <= n <= sys.maxsize for n in shape):
            raise ValueError(f"an array cannot have the shape {str(shape)[:100]}")
        stored = np.dtype(dtype).newbyteorder("<")
        size = math.prod(shape) * stored.itemsize
        left -= size
        if left < 0 or not 0 <= offset <= length - size:
            raise ValueError("it is too small for its arrays")
        array = np.empty(shape, stored)
        file.seek(offset)
        if size and file.readinto(array.reshape(-1).view("uint8").data) != size:
            raise ValueError("it was truncated while it was read")
        return array.astype(dtype, copy=False)

    contents = json.loads(take("uint8", [size], start).tobytes().decode())
    header, places = contents[HEADER], contents[ARRAYS]
    if not isinstance(header, dict):
        raise ValueError("its header is not a mapping")
    return header, {name: take(**place) for name, place in places.items()}


def plain(name: str, value: Any) -> np.ndarray:
    """Return an array as it is stored: with a plain dtype, little-endian."""
    array = np.asarray(value)
    if array.dtype.name not in DTYPES:
        raise TypeError(f"The array {name} has the dtype {array.dtype}; files hold plain numbers.")
    return array.astype(array.dtype.newbyteorder("<"), copy=False)


def lay_out(header: Mapping, arrays: Mapping[str, np.ndarray]) -> tuple[Image, list, tuple]:
    """Return an image of the file without data, (offset, data) pairs, and (offset, size).

    The last pair is that of the header.
    """
    image = Image()
    placed = []
    early = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    early.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    early.set_fill_time(h5py.h5d.FILL_TIME_NEVER)

    def place(group: h5py.Group, name: str, value: np.ndarray) -> int:
        if "" in name.split("/") or "." in name.split("/") or "\0" in name:
            raise ValueError(f"A file cannot hold an array of the name {name!r}.")
        try:
            dataset = group.create_dataset(name, value.shape, value.dtype, dcpl=early)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(
                f"A file cannot hold an array of the name {name!r}: {error}."
            ) from None
        if not value.ndim:  # h5py allocates space for a scalar when it is written
            dataset[()] = value
        if not value.size:
            return 0
        placed.append((dataset.id.get_offset(), value))
        return placed[-1][0]

    with h5py.File(image, "w", userblock_size=BLOCK) as file:
        group = file.create_group(ARRAYS)
        places: dict[str, Any] = {
            name: {
                "dtype": value.dtype.name,
                "shape": value.shape,
                "offset": place(group, name, value),
            }
            for name, value in arrays.items()
        }
        try:
            contents = {WRITER: __version__, HEADER: header, ARRAYS: places}
            text = json.dumps(contents, ensure_ascii=False).encode()
        except TypeError as error:
            raise TypeError(f"The header of a file cannot be written as JSON: {error}.") from None
        start = place(file, HEADER, np.frombuffer(text, dtype="uint8"))
    return image, placed, (start, len(text))


class Image:
    """A file in memory that only stores the bytes that are written to it."""

    def __init__(self) -> None:
        self.pieces: list[tuple[int, bytes]] = []
        self.size = self.position = 0

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        self.position = offset + (self.size if whence == os.SEEK_END else 0)
        return self.position

    def tell(self) -> int:
        return self.position

    def write(self, data: bytes | bytearray | memoryview) -> int:
        self.pieces.append((self.position, bytes(data)))
        self.position += len(data)
        self.size = max(self.size, self.position)
        return len(data)

    def read(self, size: int) -> bytes:
        start, found = self.position, bytearray(size)
        for offset, piece in self.pieces:
            first, last = max(offset, start), min(offset + len(piece), start + size)
            if first < last:
                found[first - start : last - start] = piece[first - offset : last - offset]
        self.position += size
        return bytes(found)

    def truncate(self, size: int) -> int:
        self.size = size
        return size

    def flush(self) -> None:
        pass
