"""Compile C source into a loaded library, once for each machine.

The first compiler found compiles a source (``CC``, ``cc``, ``gcc``, ``clang``, then PyTensor's).
The result is kept in the cache (`cache`) under a key of everything it depends on: the source, the
flags, the compiler and the processor.

Every failure is a `KernelUnavailable` that says why, so that a caller can do without the kernel.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from . import cache

FLAGS = (
    *("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-fno-math-errno"),
    *("-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi"),
)
TUNINGS = ("-march=native", "-mcpu=native", "")
"""Tried in turn: x86 and Arm name the option differently, and older compilers know neither."""

TIMEOUT = 300
"""Seconds after which a compiler that has not finished is killed."""

_libraries: dict[str, ctypes.CDLL | str] = {}
"""By key: the library that this process has loaded, or why the compiler could not make it."""


class KernelUnavailable(RuntimeError):  # noqa: N818 -- a property of the machine or the request
    """There is no compiled kernel for this request; the message says why."""


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
    library = cache.read(key)
    if library is not None:
        # It may not load, for example because a library that it needs has been removed.
        with suppress(OSError):
            return cache.load_copy(library)
    library = _compile(source, compiler)
    try:
        loaded = cache.load_copy(library)
    except OSError as error:
        raise KernelUnavailable(
            f"the library that the C compiler {compiler[0]} wrote does not load: {error}"
        ) from error
    cache.write(key, library)
    return loaded


# ---- the compiler ---------------------------------------------------------------------------
def _compile(source: str, compiler: list[str]) -> bytes:
    """Return the contents of a library, compiled with the first tuning that works."""
    name, output = compiler[0], b""
    try:
        with cache.work_folder(Path(tempfile.gettempdir())) as work:
            text, built = work / "kernel.c", work / "kernel.so"
            text.write_bytes(source.encode())
            for tuning in TUNINGS:
                command = [*compiler, *FLAGS, *filter(None, [tuning]), *_defines()]
                command += ["-x", "c", str(text), "-o", str(built), "-lm"]
                code, output = _run(command, work)
                if code == 0 and built.exists():
                    return cache.read_trusted(built)
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
    """Return the definitions that environment variables ask for.

    ``SEQNET_VECTOR_BYTES`` (16, 32 or 64) overrides the width that the compiler chooses.
    ``SEQNET_BFLOAT16=emulate`` computes products of bfloat16 operands without the instruction.
    """
    found = []
    if requested := os.environ.get("SEQNET_VECTOR_BYTES"):
        if requested not in ("16", "32", "64"):
            raise ValueError(f"SEQNET_VECTOR_BYTES must be 16, 32 or 64, got {requested!r}")
        found.append(f"-DVECTOR_BYTES={requested}")
    if requested := os.environ.get("SEQNET_BFLOAT16"):
        if requested != "emulate":
            raise ValueError(f"SEQNET_BFLOAT16 must be 'emulate' or not set, got {requested!r}")
        found.append("-DEMULATE_BFLOAT16")
    return found


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
