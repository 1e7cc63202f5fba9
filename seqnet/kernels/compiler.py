"""Compile C source into a loaded library, once for each machine.

The first compiler found compiles a source (``CC``, ``cc``, ``gcc``, ``clang``, then PyTensor's).
The result is kept in the user's cache folder, in a file named after everything it depends on: the
source, the flags, the compiler and the processor.

A cached file is opened once. It is used only if it belongs to this user or to root, nobody else can
write to it, and its SHA-256 digest is right; otherwise the source is compiled again. The library is
loaded from a private copy of the bytes that were checked, so that the cache can be read-only, on a
file system that does not execute, or changed at any time by another process.

Every failure is a `KernelUnavailable` that says why, so that a caller can do without the kernel.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import itertools
import logging
import os
import platform
import shlex
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # Windows, where there are no kernels
    fcntl = None  # type: ignore[assignment]

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-fno-math-errno")
FLAGS += ("-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi")
TUNINGS = ("-march=native", "-mcpu=native", "")
"""Tried in turn: x86 and Arm name the option differently, and older compilers know neither."""

TIMEOUT = 300
"""Seconds after which a compiler that has not finished is killed."""

MAGIC = b"seqnet kernel 1\n"
HEADER_SIZE = len(MAGIC) + hashlib.sha256().digest_size
WORK_PREFIX = ".seqnet-kernel-"

log = logging.getLogger("seqnet")
_libraries: dict[str, ctypes.CDLL | str] = {}
"""By key: the library that this process has loaded, or why the compiler could not make it."""
_copies = itertools.count()


class KernelUnavailable(RuntimeError):  # noqa: N818 -- a property of the machine or the request
    """There is no compiled kernel for this request; the message says why."""


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


def find_compiler() -> list[str]:
    """Return the command that starts the C compiler.

    Raises
    ------
    KernelUnavailable
        If there is none, or ``CC`` is not a valid command line.
    """
    import pytensor  # here because its configuration searches for a compiler, which takes time

    requested = os.environ.get("CC", "")
    candidates = [
        _split("CC", requested),
        ["cc"],
        ["gcc"],
        ["clang"],
        _split("pytensor.config.cxx", pytensor.config.cxx),
    ]
    for command in candidates:
        path = shutil.which(command[0]) if command else None
        if path:
            return [os.path.abspath(path), *command[1:]]
    raise KernelUnavailable(
        "no C compiler was found: looked for CC="
        + (repr(requested) if requested else "(not set)")
        + ", cc, gcc and clang on PATH, and pytensor.config.cxx. "
        + "Install gcc or clang, or set CC to a compiler."
    )


def _split(name: str, command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError as error:
        raise KernelUnavailable(
            f"{name}={command!r} is not a valid command line: {error}. "
            "Set it to a C compiler, with its options if there are any."
        ) from None


def load(*sources: str) -> list[ctypes.CDLL]:
    """Return the libraries of C sources, in order.

    Sources that are not in the cache are compiled in parallel.

    Raises
    ------
    KernelUnavailable
        If there is no compiler, or a source does not compile.
    """
    results: list[ctypes.CDLL | BaseException | None] = [None] * len(sources)

    def load_source(i: int) -> None:
        try:
            results[i] = _load_source(sources[i])
        except BaseException as error:  # raised in the caller's thread below
            results[i] = error

    threads = [threading.Thread(target=load_source, args=(i,)) for i in range(1, len(sources))]
    for i, thread in enumerate(threads, 1):
        try:
            thread.start()
        except RuntimeError:  # the system allows no more threads
            load_source(i)
    if sources:
        load_source(0)
    for thread in threads:
        if thread.ident is not None:
            thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def _load_source(source: str) -> ctypes.CDLL:
    try:
        compiler = find_compiler()
        key = _key(source, compiler)
    except OSError as error:
        raise KernelUnavailable(f"the C compiler cannot be used: {error}") from error
    found = _libraries.get(key)
    if found is None:
        try:
            found = _libraries[key] = _load_or_compile(source, compiler, key)
        except KernelUnavailable as reason:
            # Not tried again in this process: a compiler that hangs takes minutes each time.
            _libraries[key] = str(reason)
            raise
    if isinstance(found, str):
        raise KernelUnavailable(found)
    return found


def _load_or_compile(source: str, compiler: list[str], key: str) -> ctypes.CDLL:
    library = _read_cached(key)
    if library is not None:
        # It may not load, for example because a library that it needs has been removed.
        with suppress(OSError):
            return _load_copy(library)
    library = _compile(source, compiler)
    try:
        loaded = _load_copy(library)
    except OSError as error:
        raise KernelUnavailable(
            f"the library that the C compiler {compiler[0]} wrote does not load: {error}"
        ) from error
    _write_cached(key, library)
    return loaded


# ---- the compiler ---------------------------------------------------------------------------
def _compile(source: str, compiler: list[str]) -> bytes:
    """Return the contents of a library, compiled with the first tuning that works."""
    name, output = compiler[0], b""
    try:
        with _work_folder(Path(tempfile.gettempdir())) as work:
            text, built = work / "kernel.c", work / "kernel.so"
            text.write_bytes(source.encode())
            for tuning in TUNINGS:
                command = [*compiler, *FLAGS, *filter(None, [tuning]), *_defines()]
                command += ["-x", "c", str(text), "-o", str(built), "-lm"]
                code, output = _run(command, work)
                if code == 0 and built.exists():
                    return _read_trusted(built)
                if code == 0:
                    raise KernelUnavailable(
                        f"the C compiler {name} reports success but wrote no library"
                    )
    except OSError as error:
        raise KernelUnavailable(f"a kernel cannot be compiled: {error}") from error
    lines = output.decode(errors="replace").strip().splitlines()
    complaint = "\n".join(lines[:8]) or f"exit status {code}, no output"
    raise KernelUnavailable(f"the C compiler {name} could not compile a kernel:\n{complaint}")


def _run(command: list[str], work: Path) -> tuple[int, bytes]:
    """Run a compiler in a folder; return its exit status and its output.

    The output goes to a file, because a pipe is only at its end when every process that the
    compiler has started has closed it.
    """
    with open(work / "output", "w+b") as output:
        try:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=work,
                env={**os.environ, "TMPDIR": str(work)},
                umask=0o077,
                start_new_session=True,
            )
        except OSError as error:
            raise KernelUnavailable(
                f"the C compiler {command[0]} does not start: {error}"
            ) from error
        try:
            code = process.wait(TIMEOUT)
        except BaseException as error:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise KernelUnavailable(
                    f"the C compiler {command[0]} did not finish within {TIMEOUT} seconds"
                ) from None
            raise
        output.seek(0)
        return code, output.read()


def _defines() -> list[str]:
    """``SEQNET_VECTOR_BYTES`` (16, 32 or 64) overrides the width that the compiler chooses."""
    requested = os.environ.get("SEQNET_VECTOR_BYTES")
    if not requested:
        return []
    if requested not in ("16", "32", "64"):
        raise ValueError(f"SEQNET_VECTOR_BYTES must be 16, 32 or 64, got {requested!r}")
    return [f"-DVECTOR_BYTES={requested}"]


def _key(source: str, compiler: list[str]) -> str:
    """Return a name for everything that the contents of a library depend on."""
    binary = os.stat(os.path.realpath(compiler[0]))
    parts = [source, *FLAGS, *TUNINGS, *_defines(), *compiler]
    parts += [str(binary.st_size), str(binary.st_mtime_ns), _processor()]
    return hashlib.sha256("\0".join(parts).encode(errors="surrogateescape")).hexdigest()[:32]


@functools.cache
def _processor() -> str:
    """Describe what the compiler's "native" depends on: machines may share a home directory."""
    parts = [platform.machine(), platform.system()]
    if sys.platform == "darwin":
        size, libc = ctypes.c_size_t(256), ctypes.CDLL(None)
        text = ctypes.create_string_buffer(size.value)
        libc.sysctlbyname(b"machdep.cpu.brand_string", text, ctypes.byref(size), None, 0)
        parts.append(text.value.decode(errors="replace"))
    elif os.path.exists("/proc/cpuinfo"):
        wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0]
        parts += [line for line in first.splitlines() if line.startswith(wanted)]
    return "\n".join(parts)


# ---- the cache ------------------------------------------------------------------------------
def _read_cached(key: str) -> bytes | None:
    """Return the contents of a cached library, or None if there is none that can be trusted."""
    try:
        data = _read_trusted(_cache_folder() / key)
    except (OSError, RuntimeError):  # `_write_cached` says why
        return None
    library = data[HEADER_SIZE:]
    if data[:HEADER_SIZE] != _header(key, library):
        log.warning("The cached kernel %s is damaged and is compiled again.", key)
        return None
    return library


def _write_cached(key: str, library: bytes) -> None:
    """Keep a library for later processes; log a warning if that is not possible."""
    try:
        folder = _cache_folder()
        with _work_folder(folder) as work:
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


def _read_trusted(path: Path) -> bytes:
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
def _load_copy(library: bytes) -> ctypes.CDLL:
    """Load a library from a copy that nobody else can change.

    The copy is a file in memory. Where there are none, it is a temporary file.
    """
    with suppress(AttributeError, OSError):
        return _load_from_memory(library)
    with _work_folder(Path(tempfile.gettempdir())) as work:
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
def _work_folder(parent: Path) -> Iterator[Path]:
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
