"""The cache of compiled libraries, and private copies to load them from.

A cached file is opened once. It is used only if it belongs to this user or to root, nobody else can
write to it, and its SHA-256 digest is right. The library is loaded from a private copy of the bytes
that were checked. The cache can therefore be read-only, on a file system that does not execute, or
changed at any time by another process.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import logging
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where there are no compiled kernels
    fcntl = None  # type: ignore[assignment]

MAGIC = b"seqnet kernel 1\n"
HEADER_SIZE = len(MAGIC) + hashlib.sha256().digest_size
WORK_PREFIX = ".seqnet-kernel-"

log = logging.getLogger("seqnet")
_copies = itertools.count()


def cache_directory() -> Path:
    """Return the folder of compiled libraries.

    The environment variable ``SEQNET_CACHE_DIR`` changes it. On Linux ``XDG_CACHE_HOME`` is
    followed. An empty variable counts as not set.

    Raises
    ------
    RuntimeError
        If the user has no home directory.
    """
    if os.environ.get("SEQNET_CACHE_DIR"):
        return Path(os.environ["SEQNET_CACHE_DIR"]).expanduser() / "kernels"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/seqnet/kernels").expanduser()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):  # the XDG specification says to ignore relative paths
        cache = "~/.cache"
    return Path(cache).expanduser() / "seqnet" / "kernels"


def read(key: str) -> bytes | None:
    """Return the contents of a cached library, or None if it is missing or not trusted."""
    try:
        data = read_trusted(_cache_folder() / key)
    except (OSError, RuntimeError):  # `write` says why
        return None
    library = data[HEADER_SIZE:]
    if data[:HEADER_SIZE] != _header(key, library):
        log.warning("The cached compiled kernel %s is damaged and is compiled again.", key)
        return None
    return library


def write(key: str, library: bytes) -> None:
    """Keep a library for later processes; log a warning if that is not possible."""
    try:
        folder = _cache_folder()
        with work_folder(folder) as work:
            part = work / "part"
            with open(part, "xb", opener=lambda p, flags: os.open(p, flags, 0o644)) as file:
                file.write(_header(key, library) + library)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, folder / key)
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            with suppress(OSError):  # not every file system can flush a folder
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except (OSError, RuntimeError) as error:
        _warn_once(
            f"Compiled kernels cannot be kept, so that every process compiles them: {error}. "
            "Set SEQNET_CACHE_DIR to a folder that only this user can write to."
        )


def _header(key: str, library: bytes) -> bytes:
    """Return what precedes a library in its file: the digest of its key and its contents."""
    return MAGIC + hashlib.sha256(key.encode() + library).digest()


def _cache_folder() -> Path:
    """Return the cache folder, made if it was missing, if no other user can write to it."""
    folder = cache_directory()
    with suppress(OSError):  # it may exist on a read-only file system
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    _check_owner(folder, os.stat(folder))
    return folder


def read_trusted(path: Path) -> bytes:
    """Read a file that no other user can have written."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    with open(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(f"{path} is not a regular file")
        _check_owner(path, found)
        return file.read()


def _check_owner(path: Path, found: os.stat_result) -> None:
    if found.st_uid not in (0, os.geteuid()) or found.st_mode & 0o022:
        raise PermissionError(f"other users can write to {path}")


@functools.cache
def _warn_once(message: str) -> None:
    log.warning(message)


# ---- private copies -------------------------------------------------------------------------
def load_copy(library: bytes) -> ctypes.CDLL:
    """Load a library from a copy that nobody else can change.

    The copy is a file in memory. Where there are none, it is a temporary file.
    """
    with suppress(AttributeError, OSError):
        return _load_from_memory(library)
    with work_folder(Path(tempfile.gettempdir())) as work:
        path = work / "kernel.so"
        path.write_bytes(library)
        return ctypes.CDLL(str(path))


def _load_from_memory(library: bytes) -> ctypes.CDLL:
    with open(os.memfd_create("seqnet-kernel"), "wb") as file:
        file.write(library)
        file.flush()
        # The loader takes two libraries of one path for the same. A descriptor is used again after
        # it was closed, so every path gets one more `/.`.
        return ctypes.CDLL(f"/proc/self/fd{'/.' * next(_copies)}/{file.fileno()}")


# ---- work folders ---------------------------------------------------------------------------
@contextmanager
def work_folder(parent: Path) -> Iterator[Path]:
    """Make a folder that only this user can read; remove it at the end.

    It is locked meanwhile. The lock ends with the process, so that the next call removes the
    folders of processes that were killed.
    """
    _remove_leftovers(parent)
    descriptor = None
    while descriptor is None:  # another process may remove the folder before it is locked
        path = tempfile.mkdtemp(prefix=WORK_PREFIX, dir=parent)
        descriptor = _lock_folder(path, fcntl.LOCK_EX)
    try:
        yield Path(path)
    finally:
        shutil.rmtree(path, ignore_errors=True)
        os.close(descriptor)


def _remove_leftovers(parent: Path) -> None:
    with suppress(OSError), os.scandir(parent) as entries:
        for entry in entries:
            if not (entry.name.startswith(WORK_PREFIX) and entry.is_dir(follow_symlinks=False)):
                continue
            with suppress(OSError):
                if entry.stat(follow_symlinks=False).st_uid != os.geteuid():
                    continue
                descriptor = _lock_folder(entry.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if descriptor is not None:
                    shutil.rmtree(entry.path, ignore_errors=True)
                    os.close(descriptor)


def _lock_folder(path: str, how: int) -> int | None:
    """Lock a folder; return its descriptor, or None if it is locked or has been removed."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(descriptor, how)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except OSError:  # a file system without locks, whose leftovers stay
        if how & fcntl.LOCK_NB:
            os.close(descriptor)
            return None
    try:
        if os.path.samestat(os.fstat(descriptor), os.stat(path)):
            return descriptor
    except FileNotFoundError:
        pass
    os.close(descriptor)
    return None
