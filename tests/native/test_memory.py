"""Reuse of memory: when, its limit, and safety with threads, forks and exits."""

import gc
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from seqnet import native
from seqnet.native import memory

MEGABYTE = (1 << 18,), "float32"


@pytest.fixture(scope="module", autouse=True)
def nothing_left():
    gc.collect()  # the models of earlier tests; slow where there are many


@pytest.fixture(autouse=True)
def nothing_unused(nothing_left):
    native.free_memory()
    yield
    native.free_memory()


def test_memory_is_reused_only_when_it_has_no_references():
    first = memory.empty((100, 1000), "float32")
    view, place = first[3:], first.ctypes.data
    del first
    second = memory.empty((100, 1000), "float32")
    assert second.ctypes.data != place
    assert place % 64 == 0
    del view
    third = memory.empty((100, 999), "float32")
    assert third.ctypes.data == place


@pytest.mark.parametrize("shape", [(70_000,), (0,), (), (3, 0, 5), (300, 2, 200)])
@pytest.mark.parametrize("dtype", ["float32", "float64", "bool", np.int64])
def test_arrays_behave_like_ordinary_arrays(shape, dtype):
    array = memory.empty(shape, dtype)
    assert type(array) is np.ndarray
    assert array.shape == shape
    assert array.dtype == np.dtype(dtype)
    assert array.flags.c_contiguous
    assert array.flags.writeable
    assert array.flags.aligned
    array[...] = 1
    assert (array == 1).all()
    assert (array.copy() == array).all()


def test_unused_memory_is_bounded_as_soon_as_arrays_are_deleted(monkeypatch):
    monkeypatch.setattr(memory._pool, "max_unused", 10 << 20)
    arrays = [memory.empty(*MEGABYTE) for _ in range(30)]
    assert memory._pool.unused_bytes == 0
    del arrays
    assert 8 << 20 < memory._pool.unused_bytes <= 10 << 20
    assert memory._pool.unused_bytes == real_unused_bytes()


def test_least_recently_used_sizes_are_freed_first(monkeypatch):
    monkeypatch.setattr(memory._pool, "max_unused", 10 << 20)
    old = memory.empty((1 << 20,), "float32")
    del old
    arrays = [memory.empty(*MEGABYTE) for _ in range(8)]
    del arrays
    assert {size for size, blocks in memory._pool.unused.items() if blocks} == {(1 << 20) + 64}


def test_an_array_beyond_the_limit_is_freed(monkeypatch):
    monkeypatch.setattr(memory._pool, "max_unused", 1 << 19)
    array = memory.empty(*MEGABYTE)
    del array
    assert memory._pool.unused_bytes == 0


def test_free_memory_leaves_nothing():
    array = memory.empty(*MEGABYTE)
    del array
    assert memory._pool.unused_bytes > 0
    native.free_memory()
    assert memory._pool.unused_bytes == 0
    assert not any(memory._pool.unused.values())


def lines_of_a_call():
    lines = 0

    def trace(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    memory.empty((1 << 15,), "float32")
    sys.settrace(before)
    return lines


def test_the_cost_of_a_call_does_not_depend_on_the_arrays_in_use():
    lines_of_a_call()
    alone = lines_of_a_call()
    kept = [memory.empty((1 << 15,), "float32") for _ in range(500)]
    lines_of_a_call()
    assert lines_of_a_call() == alone
    del kept


def real_unused_bytes():
    return sum(b.memory.nbytes for blocks in memory._pool.unused.values() for b in blocks)


def test_threads_that_release_and_free_respect_the_limit(monkeypatch):
    monkeypatch.setattr(memory._pool, "max_unused", 3 << 20)

    def work(number):
        random = np.random.default_rng(number)
        kept = []
        for _ in range(1500):
            kept.append(memory.empty((int(random.integers(1 << 14, 1 << 17)),), "float32"))
            if len(kept) > 5:
                del kept[int(random.integers(5))]
            if random.integers(100) == 0:
                native.free_memory()

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sys.setswitchinterval(interval)
    assert real_unused_bytes() <= 4 << 20
    native.free_memory()
    assert real_unused_bytes() == 0


def test_threads_never_get_the_same_memory_at_the_same_time():
    wrong = []

    def work(number):
        for i in range(2000):
            array = memory.empty((1 << 14,), "float32")
            array[::4096] = number
            if i % 7 == 0:
                time.sleep(0)
            if (array[::4096] != number).any():
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_arrays_that_live_until_python_exits_cause_no_error():
    script = (
        "import sys, types; from seqnet.native import memory\n"
        "other = sys.modules['other'] = types.ModuleType('other')\n"
        "other.kept = kept = memory.empty((100000,), 'float32')\n"
        "kept_cycle = [memory.empty((100000,), 'float32')]; kept_cycle.append(kept_cycle)\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", script],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Exception ignored" not in done.stderr, done.stderr
