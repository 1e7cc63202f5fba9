"""Files that are replaced whole or not at all: written beside, flushed to the disk, renamed."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from io import BufferedRandom
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows: leftovers of killed processes stay
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".seqnet-", ".part"


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BufferedRandom]:
    """Give an open file beside `path`, which becomes `path` if the block ends well.

    A link stays a link: what it points to is replaced. A file keeps its permissions.

    Raises
    ------
    OSError
        If the file cannot be written, with the reason; an earlier file is then as it was.
    """
    path = Path(os.path.realpath(path))
    check_place(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is a device or the like; give the name of a file.")
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o666
    if not mode & 0o222:
        raise PermissionError(f"{path} is read-only; make it writable or give another name.")
    remove_leftovers(path.parent)
    try:
        with create(path.parent, mode) as file:
            try:
                yield file
                file.flush()
                os.fsync(file.fileno())
                with suppress(FileNotFoundError):
                    shutil.copymode(path, file.name)
                if fcntl is None:  # Windows renames closed files only
                    file.close()
                os.replace(file.name, path)
            except BaseException:
                with suppress(OSError):  # it flushes, and Windows removes closed files only
                    file.close()
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        reason = f"{error.strerror or error}; nothing was saved, and an earlier file is as it was"
        raise OSError(error.errno, reason, str(path)) from error
    sync_folder(path.parent)


def check_place(path: Path) -> None:
    """Raise if there can be no file at `path`: it is a folder, or its folder is missing."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {path.parent} to save {path.name} in does not exist; make it first."
        )


def create(folder: Path, mode: int) -> BufferedRandom:
    """Create and lock a file of a name of its own, which goes when this process does."""
    while True:
        name = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        file = open(name, "x+b", opener=lambda path, flags: os.open(path, flags, mode))
        if fcntl is None:
            return file
        with suppress(OSError):  # file systems without locks: nobody can take the file for stale
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # it was taken for stale before it was locked


def remove_leftovers(folder: Path) -> None:
    """Remove what killed processes left: files of `create` that nobody has locked."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            ours = entry.name.startswith(PREFIX) and entry.name.endswith(SUFFIX)
            if ours and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "r+b") as file:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    os.unlink(entry.path)


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, where the system can."""
    if os.name != "posix":
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES, errno.ENOTSUP):
            raise
