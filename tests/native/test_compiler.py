"""Where compiled code comes from, and what is said when there is none."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from seqnet import native
from seqnet.native import compiler, memory

SOURCE = "int answer(void) { return 42; }\n"
ROOT = Path(__file__).parents[2]


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SEQNET_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache" / "kernels"


def run_python(script, **environment):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **environment}
    return subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False
    )


def test_a_text_is_compiled_once_into_a_directory_of_the_user_alone(cache, monkeypatch):
    assert compiler.load(SOURCE)[0].answer() == 42
    assert stat.S_IMODE(cache.stat().st_mode) & 0o077 == 0
    monkeypatch.setattr(compiler, "_compile", lambda *a: pytest.fail("compiled again"))
    assert compiler.load(SOURCE)[0].answer() == 42
    assert len(list(cache.iterdir())) == 1


def test_the_vector_width_and_the_text_make_another_file(cache, monkeypatch):
    compiler.load(SOURCE, SOURCE.replace("42", "43"))
    monkeypatch.setenv("SEQNET_VECTOR_BYTES", "16")
    compiler.load(SOURCE)
    assert len(list(cache.iterdir())) == 3
    monkeypatch.setenv("SEQNET_VECTOR_BYTES", "17")
    with pytest.raises(ValueError, match="16, 32 or 64"):
        compiler.load(SOURCE)


def test_a_directory_that_others_may_write_to_is_not_used(cache):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert compiler.load(SOURCE)[0].answer() == 42
    assert not list(cache.iterdir())


def test_a_directory_that_cannot_be_made_is_not_needed(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("SEQNET_CACHE_DIR", str(tmp_path / "file"))
    assert compiler.load(SOURCE)[0].answer() == 42


def test_a_text_that_does_not_compile_is_refused_with_the_complaint(cache):
    with pytest.raises(native.KernelUnavailable, match="could not compile[^@]*oops"):
        compiler.load(SOURCE, "int oops(void) { return undeclared; }")
    assert not [p for p in cache.iterdir() if p.is_dir()]


def test_the_compiler_is_the_one_in_cc(cache, monkeypatch):
    monkeypatch.setenv("CC", "gcc -DEXTRA=1")
    assert compiler.find_compiler()[1:] == ["-DEXTRA=1"]


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
    assert (
        '(False, "no C compiler was found' in done.stdout
        and "refused: no C compiler" in done.stdout
    )
    assert "/nonexistent" in done.stdout and "Install gcc or clang" in done.stdout


def test_importing_compiles_nothing(tmp_path):
    done = run_python("import seqnet.native", SEQNET_CACHE_DIR=str(tmp_path / "cache"))
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "cache").exists()


def test_large_arrays_use_memory_again_only_when_nothing_refers_to_it():
    first = memory.empty((100, 1000), "float32")
    view, place = first[3:], first.ctypes.data
    del first
    second = memory.empty((100, 1000), "float32")
    assert second.ctypes.data != place and place % 64 == 0
    del view
    third = memory.empty((100, 999), "float32")
    assert third.ctypes.data == place
    del third
    memory.release()
    assert np.isfinite(second.shape[0])
