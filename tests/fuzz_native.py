"""Random calls of compiled kernels, from several threads, with forks, optionally under a sanitizer.

Every result is compared with NumPy's in double precision. While several threads call the same
functions, another one changes the number of threads and frees memory, and the main thread forks
children that also compute. Examples::

    python3 tests/fuzz_native.py --seconds 60
    python3 tests/fuzz_native.py --sanitizer address --seconds 300

A sanitizer (``address``, ``undefined`` or ``thread``) needs gcc and its libraries. The C sources
are then compiled with it, and the first error that it finds ends the program with its report. The
thread sanitizer does not support threads in forked children, so it runs without them.

The test suite runs a short form (``tests/native/test_fuzz.py``).
"""

# ruff: noqa: E402 -- some settings must be made before NumPy is imported
from __future__ import annotations

import argparse
import ctypes
import faulthandler
import os
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Callable
from functools import cache
from pathlib import Path

# NumPy's OpenBLAS can wait forever when a process forks while its threads compute.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np
import pytensor.tensor as pt

sys.path[:0] = [str(Path(__file__).parent / "native"), str(Path(__file__).parents[1])]
import numpy_cells
import test_recurrence

from seqnet import native
from seqnet.native import cache as library_cache
from seqnet.native import memory

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
CHILD_SECONDS = 120
PROGRAM_UNITS = (1, 13, 16, 70)  # of the kernels of any step
PRELOADED = {"address": "libasan.so", "thread": "libtsan.so"}


# ---- random calls ---------------------------------------------------------------------------
def random_size(random: np.random.Generator, most: int) -> int:
    """Sizes near the widths of vectors and tiles are as frequent as all others."""
    near = random.choice([1, 4, 6, 8, 16, 32, 64]) + random.integers(-1, 2)
    return int(min(most, max(1, random.choice([near, random.integers(1, most + 1)]))))


def random_dtype(random: np.random.Generator) -> str:
    return str(random.choice(list(TOLERANCE)))


def normal(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> np.ndarray:
    return random.normal(size=shape).astype(dtype)


def random_layout(random: np.random.Generator, array: np.ndarray) -> np.ndarray:
    """Return the same matrix with other strides."""
    match random.integers(4):
        case 0:
            return np.asfortranarray(array)
        case 1:
            wide = np.zeros((array.shape[0], array.shape[1] + 5), array.dtype)
            wide[:, 2:-3] = array
            return wide[:, 2:-3]
        case 2:
            return np.repeat(np.repeat(array, 2, 0), 3, 1)[::2, ::3]
        case _:
            return array


def assert_close(got: np.ndarray, wanted: np.ndarray, what: str) -> None:
    assert got.shape == wanted.shape, f"{what}: {got.shape} instead of {wanted.shape}"
    scale = max(1.0, np.abs(wanted).max(initial=0))
    error = np.abs(got - wanted).max(initial=0) / scale
    assert error <= TOLERANCE[got.dtype.name], f"{what}: {error}"


def call_gemm(random: np.random.Generator) -> None:
    dtype = random_dtype(random)
    m, n, k = (random_size(random, 200) for _ in range(3))
    a, b, bias = normal(random, (m, k), dtype), normal(random, (k, n), dtype), None
    wanted, sums = a.astype("float64") @ b.astype("float64"), b.sum(0, dtype="float64")
    if random.integers(2):
        bias = normal(random, (n,), dtype)
        wanted = wanted + bias
    a, b = random_layout(random, a), random_layout(random, b)
    out = None
    if random.integers(2):
        out = random_layout(random, normal(random, (m, n), dtype))
        if out.strides[1] != out.itemsize:
            out = np.ascontiguousarray(out)
    accumulate = out is not None and bool(random.integers(2))
    if accumulate:
        wanted = wanted + out
    got, got_sums = native.gemm(a, b, bias=bias, out=out, accumulate=accumulate, column_sums=True)
    assert_close(got, wanted, f"gemm {m} {n} {k}")
    assert_close(got_sums, sums, f"column sums {m} {n} {k}")


def call_recurrence(random: np.random.Generator) -> None:
    name, dtype = str(random.choice(list(numpy_cells.CELLS))), random_dtype(random)
    sizes = random_size(random, 90), random_size(random, 24), int(random.integers(1, 9))
    if random.integers(4) == 0:  # enough work to be divided among several threads
        sizes = (int(random.integers(64, 130)), int(random.integers(16, 40)), 6)
    options = {key: bool(random.integers(2)) for key in ("bias", "initial", "mask")}
    seed = int(random.integers(1 << 30))
    program = random.integers(3) == 0 or name in numpy_cells.PROGRAMS
    if program:  # it is made for each number of units
        sizes = (int(random.choice(PROGRAM_UNITS)), *sizes[1:])
    given = test_recurrence.problem(name, dtype, *sizes, seed=seed, **options)
    test_recurrence.check(name, dtype, given, as_program=bool(program))


@cache
def elementwise_kernel(dtype: str, ndim: int) -> native.ElementwiseKernel:
    x, y = (pt.tensor(name, shape=(None,) * ndim, dtype=dtype) for name in "xy")
    rate = pt.scalar("rate", dtype=dtype)
    first = pt.tanh(x) * pt.sigmoid(y) + pt.exp(-abs(x)) - rate * pt.sqrt(abs(y))
    return native.ElementwiseKernel([x, y, rate], [first, pt.switch(x > y, x, rate)])


def call_elementwise(random: np.random.Generator) -> None:
    dtype, ndim = random_dtype(random), int(random.integers(1, 4))
    shape = tuple(random_size(random, (30_000, 300, 30)[ndim - 1]) for _ in range(ndim))
    x, y, rate = normal(random, shape, dtype), normal(random, shape, dtype), np.dtype(dtype).type(2)
    a, b = x.astype("float64"), y.astype("float64")
    wanted = np.tanh(a) / (1 + np.exp(-b)) + np.exp(-abs(a)) - 2 * np.sqrt(abs(b))
    switched, out = np.where(a > b, a, 2.0), None
    if ndim == 2 and random.integers(2):
        x, y = random_layout(random, x), random_layout(random, y)
    elif random.integers(2):
        out = [y, x]
    got = elementwise_kernel(dtype, ndim)(x, y, rate, out=out)
    assert_close(got[0], wanted, f"elementwise {shape}")
    assert_close(got[1], switched, f"switch {shape}")


def call_softmax(random: np.random.Generator) -> None:
    dtype, rows, classes = random_dtype(random), random_size(random, 300), random_size(random, 200)
    logits = normal(random, (rows, classes), dtype) * 5
    targets = random.integers(classes, size=rows)
    shifted = logits.astype("float64") - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    softmax, loss = np.exp(log_softmax), -log_softmax[np.arange(rows), targets]
    logits = random_layout(random, logits)
    assert_close(native.softmax(logits), softmax, f"softmax {rows} {classes}")
    assert_close(native.log_softmax(logits), log_softmax, f"log_softmax {rows} {classes}")
    got, slope = native.softmax_cross_entropy(logits, targets)
    softmax[np.arange(rows), targets] -= 1
    assert_close(got, loss, f"cross-entropy {rows} {classes}")
    assert_close(slope, softmax, f"gradient of cross-entropy {rows} {classes}")


def call_embedding(random: np.random.Generator) -> None:
    dtype, vocabulary, width = (
        random_dtype(random),
        random_size(random, 300),
        random_size(random, 90),
    )
    ids = random.integers(vocabulary, size=(random_size(random, 60), random_size(random, 9)))
    table = normal(random, (vocabulary, width), dtype)
    rows = native.gather(random_layout(random, table), ids)
    assert (rows == table[ids]).all(), "gather"
    wanted = np.zeros(table.shape)
    np.add.at(wanted, ids, rows.astype("float64"))
    assert_close(native.scatter_add(rows, ids, vocabulary), wanted, "scatter_add")


def call_norms(random: np.random.Generator) -> None:
    dtype = random_dtype(random)
    arrays = [normal(random, (random_size(random, 9000),), dtype) for _ in range(3)]
    wanted = [(a.astype("float64") ** 2).sum() for a in arrays]
    assert np.abs(native.squared_norms(arrays) - wanted).max() <= 1e-5 * max(wanted), "norms"


CALLS = (call_gemm, call_recurrence, call_elementwise, call_softmax, call_embedding, call_norms)


def random_call(random: np.random.Generator) -> None:
    CALLS[random.integers(len(CALLS))](random)


# ---- threads and forks ----------------------------------------------------------------------
class Fuzz:
    """Several threads that make random calls until stopped or until one fails.

    Parameters
    ----------
    seed
        The seed of all random choices. The order in which threads run is not part of it.
    threads
        Threads that make calls. One more changes the settings.
    """

    def __init__(self, seed: int, threads: int) -> None:
        self.seed, self.calls, self.children = seed, 0, 0
        self.stopped = threading.Event()
        self.error: BaseException | None = None
        workers = [self.call] * threads + [self.change_settings]
        self.threads = [
            threading.Thread(target=self.guard, args=(work, np.random.default_rng([seed, n])))
            for n, work in enumerate(workers)
        ]

    def guard(self, work: Callable, random: np.random.Generator) -> None:
        try:
            work(random)
        except BaseException as error:  # raised in the main thread
            self.error = error
            self.stopped.set()

    def call(self, random: np.random.Generator) -> None:
        while not self.stopped.is_set():
            random_call(random)
            self.calls += 1

    def change_settings(self, random: np.random.Generator) -> None:
        while not self.stopped.wait(random.exponential(0.0002)):
            native.set_num_threads(int(random.integers(1, 9)))
            if random.integers(20) == 0:
                native.free_memory()

    def fork(self) -> None:
        """Make some calls in a forked child, with one thread and with several."""
        with warnings.catch_warnings():  # a fork with running threads is intended
            warnings.simplefilter("ignore", DeprecationWarning)
            child = os.fork()
        if child == 0:
            status = 1
            try:
                faulthandler.dump_traceback_later(CHILD_SECONDS, exit=True)  # if it hangs
                random = np.random.default_rng([self.seed, os.getpid()])
                for _ in range(4):
                    native.set_num_threads(int(random.integers(1, 5)))
                    random_call(random)
                status = 0
            finally:
                os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        self.children += 1
        assert status == 0, f"a forked child ended with exit status {status}"

    def run(self, go_on: Callable[[], bool], forks: bool) -> None:
        """Run while `go_on` returns True."""
        before, interval = native.get_num_threads(), sys.getswitchinterval()
        sys.setswitchinterval(1e-5)  # more variation in the order in which threads run
        for thread in self.threads:
            thread.start()
        try:
            while not self.stopped.is_set() and go_on():
                if forks:
                    self.fork()
                self.stopped.wait(0.05)
        finally:
            self.stopped.set()
            for thread in self.threads:
                thread.join()
            native.set_num_threads(before)
            sys.setswitchinterval(interval)
        if self.error is not None:
            raise self.error


def prepare() -> None:
    """Compile all sources that the calls need."""
    for dtype in TOLERANCE:
        for name in numpy_cells.CELLS:
            if name not in numpy_cells.PROGRAMS:
                test_recurrence.kernel_of(name, dtype)
            for units in PROGRAM_UNITS:
                test_recurrence.program_of(name, units, dtype)
        for ndim in (1, 2, 3):
            elementwise_kernel(dtype, ndim)


# ---- sanitizers -----------------------------------------------------------------------------
def start_again_with(sanitizer: str) -> None:
    """Restart this process with compiled kernels that use a sanitizer."""
    flags = f"-fsanitize={sanitizer} -fno-sanitize-recover=all -fno-omit-frame-pointer -g"
    environment = {
        **os.environ,
        "FUZZ_SANITIZER": sanitizer,
        "CC": f"gcc {flags}",
        "ASAN_OPTIONS": "detect_leaks=0",
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "TSAN_OPTIONS": "halt_on_error=1",
    }
    if sanitizer in PRELOADED:
        command = ["gcc", f"-print-file-name={PRELOADED[sanitizer]}"]
        library = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
        if not os.path.isabs(library):
            sys.exit(f"gcc has no {library}; install it first")
        environment["LD_PRELOAD"] = library
    if sanitizer == "thread" and sys.platform == "linux":
        # It needs memory at fixed addresses, so address randomization is disabled.
        ctypes.CDLL(None).personality(0x0040000)
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)


def load_from_file(library: bytes) -> ctypes.CDLL:
    """Load a library from a file that is kept, so that reports can name functions and lines."""
    with tempfile.NamedTemporaryFile(suffix=".so", dir=LIBRARIES.name, delete=False) as file:
        file.write(library)
    return ctypes.CDLL(file.name)


def exact_scratch(size: int) -> int:
    """Return the address of a buffer, which is valid until the next call in this thread."""
    memory._scratch.memory = np.empty(size + memory.ALIGNMENT, np.uint8)
    return memory._aligned(memory._scratch.memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sanitizer", choices=("address", "undefined", "thread"))
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--calls", type=int, help="end after so many calls, if that is sooner")
    parser.add_argument("--threads", type=int, default=4, help="threads that call kernels")
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--no-forks", action="store_true", help="leave out forked children")
    arguments = parser.parse_args()
    if arguments.sanitizer:
        if os.environ.get("FUZZ_SANITIZER") != arguments.sanitizer:
            start_again_with(arguments.sanitizer)
        os.environ.pop("LD_PRELOAD", None)  # already loaded, and not for the compiler
        library_cache.load_copy = load_from_file
        # Allocate memory of the exact size, so that the sanitizer knows its bounds.
        memory.SMALLEST = sys.maxsize
        memory.scratch = exact_scratch
    print(f"seed {arguments.seed}, compiling ...", flush=True)
    prepare()
    fuzz = Fuzz(arguments.seed, arguments.threads)
    end = time.monotonic() + arguments.seconds
    most = sys.maxsize if arguments.calls is None else arguments.calls
    forks = not arguments.no_forks and arguments.sanitizer != "thread"
    fuzz.run(lambda: time.monotonic() < end and fuzz.calls < most, forks)
    print(f"{fuzz.calls} calls and {fuzz.children} forked children, no error")


if __name__ == "__main__":
    LIBRARIES = tempfile.TemporaryDirectory()
    main()
