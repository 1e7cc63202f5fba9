"""Turns C into a loaded library, once per machine.

A source text is compiled by the first compiler found (``CC``, ``cc``, ``gcc``, ``clang``, then
PyTensor's own) into a library in the user's cache directory. The file is named after everything
that its contents depend on: the source, the flags, the compiler and the processor. It is written
beside its place and renamed, so two processes may race, and it is loaded only from a directory that
no other user could have written to.

Anything that goes wrong is a `KernelUnavailable` with the reason in words, so that a caller can go
another way.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

FLAGS = ("-O3", "-std=gnu11", "-fPIC", "-shared", "-pthread", "-fno-math-errno")
FLAGS += ("-fno-trapping-math", "-ffp-contract=fast", "-Wno-psabi")
TUNINGS = (
    "-march=native",
    "-mcpu=native",
    "",
)  # x86 and Arm spell it differently; older compilers know neither


class KernelUnavailable(RuntimeError):  # noqa: N818 -- a state of the machine or the request, not a mistake
    """There is no compiled kernel for this request; the text says why."""


def cache_directory() -> Path:
    """Where compiled libraries live; the environment variable ``SEQNET_CACHE_DIR`` moves it."""
    if "SEQNET_CACHE_DIR" in os.environ:
        return Path(os.environ["SEQNET_CACHE_DIR"]).expanduser() / "kernels"
    if sys.platform == "darwin":
        return Path("~/Library/Caches/seqnet.native").expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "seqnet" / "kernels"


def find_compiler() -> list[str]:
    """The command that starts the C compiler.

    Raises
    ------
    KernelUnavailable
        If there is none.
    """
    import pytensor  # here because its configuration looks for a compiler, which takes time

    asked = os.environ.get("CC", "")
    candidates = [shlex.split(asked), ["cc"], ["gcc"], ["clang"], shlex.split(pytensor.config.cxx)]
    for command in candidates:
        path = shutil.which(command[0]) if command else None
        if path:
            return [path, *command[1:]]
    raise KernelUnavailable(
        "no C compiler was found: looked for CC="
        + (repr(asked) if asked else "(not set)")
        + ", cc, gcc and clang on PATH, and pytensor.config.cxx. "
        + "Install gcc or clang, or set CC to a compiler."
    )


def load(*sources: str) -> list[ctypes.CDLL]:
    """Libraries of these C texts, in order; those not yet compiled are compiled side by side.

    Raises
    ------
    KernelUnavailable
        If there is no compiler or a text does not compile.
    """
    results: list[ctypes.CDLL | BaseException | None] = [None] * len(sources)

    def one(i: int) -> None:
        try:
            results[i] = _load_one(sources[i])
        except BaseException as error:  # handed to the caller's thread below
            results[i] = error

    threads = [threading.Thread(target=one, args=(i,)) for i in range(1, len(sources))]
    for thread in threads:
        thread.start()
    one(0)
    for thread in threads:
        thread.join()
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results  # type: ignore[return-value]


def _load_one(source: str) -> ctypes.CDLL:
    compiler = find_compiler()
    directory = _safe_directory()
    path = directory / f"{_fingerprint(source, compiler)}.so"
    if not (path.exists() and path.stat().st_uid == os.getuid()):
        _compile(source, compiler, path)
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise KernelUnavailable(f"the compiled library {path} does not load: {error}") from error


def _compile(source: str, compiler: list[str], path: Path) -> None:
    """Try the tunings in turn; the first that compiles is kept."""
    with tempfile.TemporaryDirectory(dir=path.parent) as work:
        text, built = Path(work, "kernel.c"), Path(work, "kernel.so")
        text.write_text(source)
        for tuning in TUNINGS:
            command = [*compiler, *FLAGS, *filter(None, [tuning]), *_defines()]
            command += ["-x", "c", str(text), "-o", str(built), "-lm"]
            try:
                done = subprocess.run(command, capture_output=True, text=True, check=False)
            except OSError as error:
                raise KernelUnavailable(
                    f"the C compiler {compiler[0]} does not start: {error}"
                ) from error
            if done.returncode == 0:
                os.replace(built, path)
                return
    complaint = "\n".join(done.stderr.strip().splitlines()[:8])
    raise KernelUnavailable(
        f"the C compiler {compiler[0]} could not compile a kernel:\n{complaint}"
    )


def _defines() -> list[str]:
    """``SEQNET_VECTOR_BYTES`` (16, 32 or 64) overrides the width that the compiler chooses."""
    asked = os.environ.get("SEQNET_VECTOR_BYTES")
    if asked is None:
        return []
    if asked not in ("16", "32", "64"):
        raise ValueError(f"SEQNET_VECTOR_BYTES must be 16, 32 or 64, got {asked!r}")
    return [f"-DVECTOR_BYTES={asked}"]


def _fingerprint(source: str, compiler: list[str]) -> str:
    binary = os.stat(os.path.realpath(compiler[0]))
    parts = [
        source,
        *FLAGS,
        *TUNINGS,
        *_defines(),
        *compiler,
        str(binary.st_size),
        str(binary.st_mtime_ns),
    ]
    return hashlib.sha256("\0".join([*parts, _processor()]).encode()).hexdigest()[:32]


@functools.cache
def _processor() -> str:
    """What the compiler's "native" depends on: a home directory may serve several machines."""
    said = [platform.machine(), platform.system()]
    if sys.platform == "darwin":
        size, libc = ctypes.c_size_t(256), ctypes.CDLL(None)
        text = ctypes.create_string_buffer(size.value)
        libc.sysctlbyname(b"machdep.cpu.brand_string", text, ctypes.byref(size), None, 0)
        said.append(text.value.decode(errors="replace"))
    elif os.path.exists("/proc/cpuinfo"):
        wanted = ("model name", "flags", "Features", "CPU part", "CPU implementer")
        first = Path("/proc/cpuinfo").read_text(errors="replace").split("\n\n", 1)[0]
        said += [line for line in first.splitlines() if line.startswith(wanted)]
    return "\n".join(said)


_private: list[
    tempfile.TemporaryDirectory
] = []  # used where the cache cannot be, until the process ends
_private_lock = threading.Lock()


def _safe_directory() -> Path:
    """The cache directory if it is ours alone, else a temporary one.

    A library that somebody else may have written must not be loaded.
    """
    directory = cache_directory()
    try:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = directory.stat()
        if (
            found.st_uid == os.getuid()
            and not found.st_mode & 0o022
            and os.access(directory, os.W_OK | os.X_OK)
        ):
            return directory
    except OSError:
        pass
    with _private_lock:
        if not _private:
            _private.append(tempfile.TemporaryDirectory(prefix="seqnet-"))
        return Path(_private[0].name)
