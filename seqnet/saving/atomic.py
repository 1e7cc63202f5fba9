"""Atomic replacement of files: write a temporary file, flush it to the disk, and rename it."""

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
except ImportError:  # Windows: leftovers of killed processes are not removed
    fcntl = None  # type: ignore[assignment]

PREFIX, SUFFIX = ".seqnet-", ".part"


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[BufferedRandom]:
    """Open a temporary file that replaces `path` if the block succeeds.

    A symbolic link is kept: the file it points to is replaced. Permissions are kept.

    Raises
    ------
    OSError
        If the file cannot be written, with the reason; an existing file is not changed.
    """
    path = Path(os.path.realpath(path))
    check_place(path)
    if path.exists() and not path.is_file():
        raise OSError(f"{path} is not a regular file; give the name of a file.")
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
                if fcntl is None:  # Windows only renames closed files
                    file.close()
                os.replace(file.name, path)
            except BaseException:
                with suppress(OSError):  # closing flushes; Windows only removes closed files
                    file.close()
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        reason = f"{error.strerror or error}; nothing was saved, and an existing file is unchanged"
        raise OSError(error.errno, reason, str(path)) from error
    sync_folder(path.parent)


def check_place(path: Path) -> None:
    """Raise an error if `path` cannot be a file: it is a folder, or its folder is missing."""
    if path.is_dir():
        raise IsADirectoryError(f"{path} is a directory; give the name of a file in it.")
    if not path.parent.is_dir():
        raise FileNotFoundError(
            f"The folder {path.parent} to save {path.name} in does not exist; create it first."
        )


def create(folder: Path, mode: int) -> BufferedRandom:
    """Create and lock a file with a unique name; the lock ends with this process."""
    while True:
        name = folder / f"{PREFIX}{secrets.token_hex(8)}{SUFFIX}"
        file = open(name, "x+b", opener=lambda path, flags: os.open(path, flags, mode))  # noqa: SIM115
        if fcntl is None:
            return file
        with suppress(OSError):  # without locks, no process can regard the file as a leftover
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process removed it as a leftover before it was locked


def remove_leftovers(folder: Path) -> None:
    """Remove files of `create` that killed processes left: those that are not locked."""
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
    """Flush the entries of a folder to the disk, if the system supports it."""
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
