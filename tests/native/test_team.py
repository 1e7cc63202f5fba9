"""The thread team: forks, several callers, more threads than processors, idle time."""

import os
import signal
import threading
import time

import numpy as np
import pytensor.tensor as pt
import pytest

from seqnet import native
from seqnet.native import core, elementwise, memory

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

RANDOM = np.random.default_rng(0)
A, B = (RANDOM.normal(size=(300, 300)).astype("float32") for _ in range(2))


@pytest.fixture(autouse=True)
def two_threads():
    before = native.get_num_threads()
    native.set_num_threads(2)
    yield
    native.set_num_threads(before)


def test_an_idle_team_uses_no_processor_time():
    native.gemm(A, B)
    time.sleep(0.05)  # let the worker thread sleep
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.1


def exit_status_of_child(function):
    """Call `function` in a forked child; return the exit status, or None if the child hangs."""
    child = os.fork()
    if child == 0:
        try:
            function()
        except BaseException:
            os._exit(1)
        os._exit(0)
    deadline = time.monotonic() + 30
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0:
        if time.monotonic() > deadline:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            return None
        time.sleep(0.01)
    return os.waitstatus_to_exitcode(done[1])


@needs_fork
def test_a_forked_child_computes_the_same():
    wanted = native.gemm(A, B).copy()

    def check():
        for _ in range(20):
            np.testing.assert_array_equal(native.gemm(A, B), wanted)

    assert exit_status_of_child(check) == 0
    np.testing.assert_array_equal(native.gemm(A, B), wanted)


@needs_fork
def test_a_child_that_is_forked_while_another_thread_compiles_does_not_hang():
    held, done = threading.Event(), threading.Event()

    def hold():
        with core._lock:
            held.set()
            done.wait()

    def use_everything():
        x = pt.vector(dtype="float64")
        kernel = native.ElementwiseKernel([x], [x * 2 + 1])
        assert kernel(np.ones(100_000))[0][0] == 3
        place = memory.empty((1 << 18,), "float32").ctypes.data
        assert memory.empty((1 << 18,), "float32").ctypes.data == place
        native.free_memory()
        assert memory._pool.unused_bytes == 0

    use_everything()
    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    try:
        assert exit_status_of_child(use_everything) == 0
    finally:
        done.set()
        thread.join()


@needs_fork
def test_a_child_that_is_forked_while_other_threads_compute_computes_the_same():
    wanted = native.gemm(A, B).copy()
    stop = threading.Event()

    def compute():
        while not stop.is_set():
            native.gemm(A, B)

    def check():
        for _ in range(5):
            np.testing.assert_array_equal(native.gemm(A, B), wanted)

    threads = [threading.Thread(target=compute) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert [exit_status_of_child(check) for _ in range(20)] == [0] * 20
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_concurrent_callers_get_their_own_results():
    inputs = [RANDOM.normal(size=(120, 120)).astype("float32") for _ in range(4)]
    wanted = [native.gemm(x, B[:120, :120]).copy() for x in inputs]
    wrong = []

    def work(i):
        for _ in range(100):
            if not (native.gemm(inputs[i], B[:120, :120]) == wanted[i]).all():
                wrong.append(i)

    workers = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_more_threads_than_processors_and_fewer_afterwards():
    wanted = native.gemm(A, B).copy()
    for threads in (9, 1, 4, 2):
        native.set_num_threads(threads)
        assert native.get_num_threads() == threads
        for _ in range(5):
            np.testing.assert_array_equal(native.gemm(A, B), wanted)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, 1000])
def test_an_invalid_number_of_threads_is_refused(wrong):
    with pytest.raises(ValueError, match="number of threads"):
        native.set_num_threads(wrong)


def test_every_compiled_kernel_reads_the_number_of_threads_once_per_call(monkeypatch):
    """Another thread may change it, and the scratch memory is allocated for the first value."""
    x = pt.matrix(dtype="float32")
    function = native.ElementwiseKernel([x], [pt.tanh(x)])
    cell = native.RecurrenceKernel(lambda x, r, s: (pt.tanh(x[0] + r[0]),), 1, 1)
    projected, kernel = np.ones((7, 12, 64), "float32"), np.ones((64, 64), "float32") / 64
    ids = np.zeros(300, "int64")
    states, saved = cell.forward(projected, kernel)
    reads = []

    def read():
        reads.append(1)
        return len(reads)  # a different number at each call

    for module in (core, elementwise):
        monkeypatch.setattr(module, "get_num_threads", read)
    for call in (
        lambda: native.gemm(A, B),
        lambda: function(A),
        lambda: cell.forward(projected, kernel),
        lambda: cell.backward(kernel, states, saved, states),
        lambda: native.softmax(A),
        lambda: native.softmax_cross_entropy(A, ids),
        lambda: native.gather(A, ids),
        lambda: native.scatter_add(A, ids, 5),
        lambda: native.squared_norms([A]),
    ):
        del reads[:]
        call()
        assert len(reads) <= 1


@pytest.mark.parametrize(
    ("value", "threads"), [("3", 3), ("99999", 255), ("0", None), ("two", None), ("²", None)]
)
def test_the_environment_sets_the_number_of_threads(monkeypatch, value, threads):
    monkeypatch.setenv("SEQNET_NUM_THREADS", value)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    expected = threads or min(core.available_cores(), 255)
    assert core._default_threads.__wrapped__() == expected
