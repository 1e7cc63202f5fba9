"""The thread team: forks, several callers, more threads than processors, no cost when idle."""

import os
import threading
import time

import numpy as np
import pytest

from seqnet import native

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
    time.sleep(0.05)  # let the helper notice
    before = time.process_time()
    time.sleep(0.4)
    assert time.process_time() - before < 0.1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_child_computes_the_same():
    wanted = native.gemm(A, B).copy()
    child = os.fork()
    if child == 0:
        same = all((native.gemm(A, B) == wanted).all() for _ in range(20))
        os._exit(0 if same else 1)
    deadline = time.monotonic() + 20
    while (done := os.waitpid(child, os.WNOHANG))[0] == 0 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert done[0] == child and os.waitstatus_to_exitcode(done[1]) == 0
    np.testing.assert_array_equal(native.gemm(A, B), wanted)


def test_several_callers_at_once_get_their_own_results():
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


def test_more_threads_than_processors_and_fewer_again():
    wanted = native.gemm(A, B).copy()
    for threads in (9, 1, 4, 2):
        native.set_num_threads(threads)
        assert native.get_num_threads() == threads
        for _ in range(5):
            np.testing.assert_array_equal(native.gemm(A, B), wanted)


@pytest.mark.parametrize("wrong", [0, -1, 1.5, 1000])
def test_a_number_of_threads_that_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="number of threads"):
        native.set_num_threads(wrong)
