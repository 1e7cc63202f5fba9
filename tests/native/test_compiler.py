"""Compilation and cache of libraries: which files are trusted, and errors of the compiler."""

import fcntl
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest

from seqnet import native
from seqnet.native import cache as library_cache
from seqnet.native import compiler

SOURCE = "int answer(void) { return 42; }\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def new_process(monkeypatch):
    """Clear the libraries of this process, as in a new process."""

    def forget():
        monkeypatch.setattr(compiler, "_libraries", {})
        library_cache._warn_once.cache_clear()

    forget()
    return forget


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def compile_calls(monkeypatch):
    calls, run = [], compiler._compile
    monkeypatch.setattr(compiler, "_compile", lambda *a: calls.append(a) or run(*a))
    return calls


def answer():
    return compiler.load(SOURCE)[0].answer()


def run_python(script, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )


def write_script(path, text):
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return str(path)


# ---- the cache ------------------------------------------------------------------------------
def test_a_source_is_compiled_once_into_a_private_folder(cache, new_process, compile_calls):
    assert answer() == 42
    assert stat.S_IMODE(cache.stat().st_mode) & 0o077 == 0
    new_process()
    assert answer() == 42
    assert len(compile_calls) == len(list(cache.iterdir())) == 1


def test_another_vector_width_or_source_is_another_file(cache, monkeypatch):
    compiler.load(SOURCE, SOURCE.replace("42", "43"))
    monkeypatch.setenv("SEQNET_VECTOR_BYTES", "16")
    compiler.load(SOURCE)
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setenv("SEQNET_VECTOR_BYTES", "17")
    with pytest.raises(ValueError, match="16, 32 or 64"):
        compiler.load(SOURCE)


def test_many_libraries_are_distinct(cache):
    sources = [SOURCE.replace("42", str(i)) for i in range(12)]
    loaded = [compiler.load(source)[0] for source in sources]
    assert [library.answer() for library in loaded] == list(range(12))


@pytest.mark.parametrize("keep", [0, 10, 48, 2000, -1])
def test_a_truncated_cached_library_is_compiled_again(
    cache, new_process, compile_calls, keep, caplog
):
    answer()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    path.write_bytes(whole[:keep])
    new_process()
    assert answer() == 42
    assert len(compile_calls) == 2
    assert path.stat().st_size == len(whole)
    assert "damaged" in caplog.text


def test_a_changed_byte_is_detected(cache, new_process, compile_calls):
    answer()
    (path,) = cache.iterdir()
    whole = path.read_bytes()
    for place in (0, 20, 47, 48, len(whole) // 2, len(whole) - 1):
        damaged = bytearray(path.read_bytes())
        damaged[place] ^= 1
        path.write_bytes(damaged)
        new_process()
        assert answer() == 42
    assert len(compile_calls) == 7


def test_the_library_of_another_source_is_not_used(cache, new_process):
    answer()
    (path,) = cache.iterdir()
    compiler.load(SOURCE.replace("42", "43"))
    (other,) = set(cache.iterdir()) - {path}
    shutil.copy(other, path)
    new_process()
    assert answer() == 42


def test_a_cached_library_that_does_not_load_is_compiled_again(cache, new_process, compile_calls):
    answer()
    (path,) = cache.iterdir()
    path.write_bytes(library_cache._header(path.name, b"no library") + b"no library")
    new_process()
    assert answer() == 42
    assert len(compile_calls) == 2
    new_process()
    assert answer() == 42
    assert len(compile_calls) == 2


@pytest.mark.parametrize("what", ["writable by others", "pipe", "folder"])
def test_a_cached_file_that_cannot_be_trusted_is_not_used(cache, new_process, compile_calls, what):
    answer()
    (path,) = cache.iterdir()
    if what == "writable by others":
        path.chmod(0o666)
    else:
        path.unlink()
        os.mkfifo(path) if what == "pipe" else path.mkdir()
    new_process()
    assert answer() == 42
    assert len(compile_calls) == 2


@pytest.mark.skipif(os.name != "posix" or os.getuid() != 0, reason="only root can give files away")
def test_a_cached_file_of_another_user_is_not_used(cache, new_process, compile_calls):
    answer()
    (path,) = cache.iterdir()
    os.chown(path, 12345, 12345)
    new_process()
    assert answer() == 42
    assert len(compile_calls) == 2
    assert path.stat().st_uid == 0


def test_a_cache_that_others_can_write_to_is_not_used(cache, caplog):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert answer() == 42
    assert not list(cache.iterdir())
    assert "other users can write to" in caplog.text
    assert "SEQNET_CACHE_DIR" in caplog.text


def test_a_complete_cache_that_cannot_be_written_to_is_used(
    cache, new_process, compile_calls, monkeypatch, caplog
):
    answer()
    cache.chmod(0o500)
    monkeypatch.setattr(library_cache, "write", lambda *a: pytest.fail("the cache is written"))
    new_process()
    assert answer() == 42
    assert len(compile_calls) == 1
    assert not caplog.records
    cache.chmod(0o700)


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="no files in memory here")
def test_the_loaded_library_is_a_copy_in_memory(cache, temporary):
    assert answer() == 42
    maps = Path("/proc/self/maps").read_text()
    assert "memfd:seqnet-kernel" in maps
    assert str(cache) not in maps


def test_without_files_in_memory_the_copy_is_a_temporary_file(cache, temporary, monkeypatch):
    monkeypatch.delattr(os, "memfd_create", raising=False)
    assert answer() == 42
    assert not list(temporary.iterdir())


def test_a_cache_folder_that_cannot_be_created_is_not_needed(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQNET_CACHE_DIR", str(tmp_path / "file"))
    assert answer() == 42
    assert "every process compiles them" in caplog.text


def test_without_a_home_directory_sources_are_compiled(monkeypatch, caplog):
    def no_home(path):
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("SEQNET_CACHE_DIR", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "expanduser", no_home)
    assert answer() == 42
    assert "home directory" in caplog.text


@pytest.mark.skipif(sys.platform == "darwin", reason="the cache is in ~/Library there")
@pytest.mark.parametrize("value", ["", "relative/folder"])
def test_empty_variables_and_a_relative_xdg_folder_count_as_not_set(tmp_path, monkeypatch, value):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("SEQNET_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert library_cache.cache_directory() == tmp_path / ".cache" / "seqnet" / "kernels"


def test_processes_that_compile_at_the_same_time_all_get_a_library(tmp_path):
    script = f"from seqnet.native import compiler; print(compiler.load({SOURCE!r})[0].answer())"
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SEQNET_CACHE_DIR": str(tmp_path),
    }
    processes = [
        subprocess.Popen([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE)
        for _ in range(4)
    ]
    assert [p.communicate()[0].strip() for p in processes] == [b"42"] * 4
    assert len(list((tmp_path / "kernels").iterdir())) == 1


# ---- leftovers ------------------------------------------------------------------------------
def test_leftovers_of_killed_processes_are_removed_and_nothing_else(cache, temporary):
    cache.mkdir(parents=True, mode=0o700)
    left, used, other = [], [], []
    for parent in (cache, temporary):
        left.append(Path(tempfile.mkdtemp(prefix=library_cache.WORK_PREFIX, dir=parent)))
        (left[-1] / "kernel.c").write_text("")
        used.append(Path(tempfile.mkdtemp(prefix=library_cache.WORK_PREFIX, dir=parent)))
        other.append(Path(tempfile.mkdtemp(dir=parent)))
    descriptors = [os.open(path, os.O_RDONLY) for path in used]
    for descriptor in descriptors:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
    assert answer() == 42
    for descriptor in descriptors:
        os.close(descriptor)
    assert not any(p.exists() for p in left)
    assert all(p.exists() for p in used + other)


def wait_until_unlocked(*paths):
    for path in paths:
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.close(descriptor)


def test_leftovers_of_a_killed_compilation_are_removed_by_the_next_one(
    temporary, cache, monkeypatch
):
    killer = write_script(temporary.parent / "cc", "kill -9 $PPID")
    environment = {"CC": killer, "TMPDIR": str(temporary), "SEQNET_CACHE_DIR": str(cache.parent)}
    done = run_python("from seqnet import native; native.available()", **environment)
    assert done.returncode == -9
    assert len(list(temporary.iterdir())) > 0
    wait_until_unlocked(
        *temporary.iterdir()
    )  # the compiler may run a little longer than its parent
    assert answer() == 42
    assert not list(temporary.iterdir())
    assert len(list(cache.iterdir())) == 1


# ---- errors of the compiler -----------------------------------------------------------------
def test_the_error_of_a_source_that_does_not_compile_has_the_compiler_output(cache, temporary):
    with pytest.raises(native.KernelUnavailable, match=r"could not compile[^@]*oops"):
        compiler.load(SOURCE, "int oops(void) { return undeclared; }")
    assert len(list(cache.iterdir())) == 1
    assert not list(temporary.iterdir())


def test_the_compiler_is_the_one_in_cc(cache, monkeypatch):
    monkeypatch.setenv("CC", "gcc -DEXTRA=1")
    assert compiler.find_compiler()[1:] == ["-DEXTRA=1"]


TROUBLE = {
    "unbalanced quotes": ('"gcc', "CC='\"gcc' is not a valid command line"),
    "success without a library": ("exit 0", "wrote no library"),
    "failure without a word": ("exit 3", "exit status 3, no output"),
    "output that is not UTF-8": ("printf 'bad \\377\\376 bytes'; exit 1", "bad .* bytes"),
    "an empty library": (
        'while [ "$1" != -o ]; do shift; done; : > "$2"',
        "does not load",
    ),
    "a signal": ("kill -11 $$", "exit status -11"),
    "reading input": ("cat; exit 1", "exit status 1, no output"),
}


@pytest.mark.parametrize("name", TROUBLE)
def test_errors_of_the_compiler_raise_kernel_unavailable(cache, tmp_path, monkeypatch, name):
    command, reason = TROUBLE[name]
    if name != "unbalanced quotes":
        command = write_script(tmp_path / "cc", command)
    monkeypatch.setenv("CC", command)
    with pytest.raises(native.KernelUnavailable, match=reason):
        compiler.load(SOURCE)


def test_an_incomplete_library_raises_kernel_unavailable(tmp_path):
    compile_nothing = write_script(
        tmp_path / "cc",
        'while [ "$1" != -o ]; do shift; done; echo | gcc -shared -x c - -o "$2"',
    )
    done = run_python(
        "from seqnet import native; print(native.available())",
        CC=compile_nothing,
        SEQNET_CACHE_DIR=str(tmp_path),
    )
    assert done.returncode == 0, done.stderr
    assert "(False, 'the library that the C compiler wrote is not complete" in done.stdout


def test_a_compiler_that_hangs_is_killed_with_its_children(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(compiler, "TIMEOUT", 0.5)
    pids = tmp_path / "pids"
    hang = f"sleep 1000 & echo $! >> {pids}; wait"
    monkeypatch.setenv("CC", write_script(tmp_path / "cc", hang))
    for _ in range(2):  # the second time the reason is remembered
        with pytest.raises(native.KernelUnavailable, match=r"did not finish within 0\.5 seconds"):
            compiler.load(SOURCE)
    (pid,) = map(int, pids.read_text().split())
    state = Path(f"/proc/{pid}/stat")

    def ended():
        try:
            return state.read_text().rpartition(")")[2].split()[0] in "ZX"
        except (FileNotFoundError, ProcessLookupError):
            return True

    for _ in range(1000):  # a killed process ends when the system next runs it
        if ended():
            break
        time.sleep(0.01)
    assert ended()


def test_a_full_disk_raises_kernel_unavailable(tmp_path):
    script = (
        "import resource; from seqnet import native\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))\n"
        "print(native.available())\n"
    )
    done = run_python(script, SEQNET_CACHE_DIR=str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "(False, 'a kernel cannot be compiled: [Errno 27] File too large" in done.stdout


def test_a_full_cache_only_logs_a_warning(cache, monkeypatch, caplog):
    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert answer() == 42
    assert not list(cache.iterdir())
    assert "No space left on device" in caplog.text


def test_without_a_temporary_folder_kernel_unavailable_is_raised(cache, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", "/nonexistent/folder")
    with pytest.raises(native.KernelUnavailable, match="/nonexistent/folder"):
        compiler.load(SOURCE)


def test_without_more_threads_sources_are_compiled_one_after_the_other(cache, monkeypatch):
    def no_more(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(compiler.threading.Thread, "start", no_more)
    libraries = compiler.load(SOURCE, SOURCE.replace("42", "43"))
    assert [library.answer() for library in libraries] == [42, 43]


def test_without_a_compiler_the_reason_says_what_to_do(tmp_path):
    script = (
        "from seqnet import native; import numpy as np\n"
        "print(native.available())\n"
        "try: native.gemm(np.ones((2, 2)), np.ones((2, 2)))\n"
        "except native.KernelUnavailable as e: print('refused:', e)\n"
    )
    cache = str(tmp_path / "cache")
    done = run_python(
        script, PATH="", CC="/nonexistent", PYTENSOR_FLAGS="cxx=", SEQNET_CACHE_DIR=cache
    )
    assert done.returncode == 0, done.stderr
    assert '(False, "no C compiler was found' in done.stdout
    assert "refused: no C compiler" in done.stdout
    assert "/nonexistent" in done.stdout
    assert "Install gcc or clang" in done.stdout


def test_importing_compiles_nothing(tmp_path):
    done = run_python("import seqnet.native", SEQNET_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()
