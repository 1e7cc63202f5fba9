"""The fused recurrence and its gradient against the same equations in NumPy."""

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytensor.tensor as pt
import pytest

sys.path.insert(0, str(Path(__file__).parent))
import numpy_cells

from seqnet import native

TOLERANCE = {"float32": 2e-5, "float64": 1e-12}
KERNELS = {}


def program_of(name, units, dtype):
    """Return the kernel of any step, with the products of a cell as products of its own."""
    if (name, units, dtype) not in KERNELS:
        step, gates, states, _, _ = numpy_cells.CELLS[name]
        kinds, operands = numpy_cells.OTHERS.get(name, ((), None))[:2]
        x, r, before, others = (
            [pt.matrix(dtype=dtype) for _ in range(count)]
            for count in (gates, gates, states, len(kinds))
        )
        more = (tuple(others),) if kinds else ()
        given = [before[0]] * gates if operands is None else operands(tuple(before), tuple(others))
        products = [
            native.StepProduct(given[g], 0, g * units, [r[g]], [units]) for g in range(gates)
        ]
        graph = native.StepGraph(
            *(x, [units] * gates, before, [units] * states),
            *(others, list(kinds), [units] * len(kinds), products),
            list(step(tuple(x), tuple(r), tuple(before), *more)),
        )
        KERNELS[name, units, dtype] = native.ProgramKernel(graph, dtype)
    return KERNELS[name, units, dtype]


def kernel_of(name, dtype):
    if (name, dtype) not in KERNELS:
        step, gates, states, _, _ = numpy_cells.CELLS[name]
        others, operands = numpy_cells.OTHERS.get(name, ((), None))[:2]
        KERNELS[name, dtype] = native.RecurrenceKernel(step, gates, states, dtype, others, operands)
    return KERNELS[name, dtype]


def problem(name, dtype, units, batch, time, *, bias, initial, mask, seed=0):
    """Return arguments for forward and backward, with or without the optional ones."""
    _, gates, states, _, _ = numpy_cells.CELLS[name]
    random = np.random.default_rng(seed)

    def normal(*shape, scale=1.0):
        return (random.normal(size=shape) * scale).astype(dtype)

    given = {
        "projected": normal(time, batch, gates * units),
        "kernel": normal(units, gates * units, scale=0.7 / np.sqrt(units)),
        "bias": normal(gates * units) if bias else None,
        "initial": [normal(batch, units) for _ in range(states)] if initial else None,
        "mask": random.random((time, batch)) > 0.4 if mask else None,
        "grads": [normal(time, batch, units) if (seed + s) % 3 else None for s in range(states)],
        "final": [normal(batch, units) if (seed + s) % 4 else None for s in range(states)],
    }
    shapes = {"vector": (units,), "batch": (batch, units), "sequence": (time, batch, units)}
    kinds = numpy_cells.OTHERS[name][0] if name in numpy_cells.OTHERS else ()
    given["others"] = [normal(*shapes[other.kind]) for other in kinds]
    if mask:
        given["mask"][0, 0] = False  # a masked first step
        given["mask"][:, -1] = False  # a row of only padding
    return given


def expected(name, given):
    """Return states and gradients by NumPy, in double precision."""

    def double(a):
        return None if a is None else a.astype("float64")

    states = numpy_cells.CELLS[name][2]
    time, batch, _ = given["projected"].shape
    units = given["kernel"].shape[0]
    zeros = np.zeros((batch, units))
    kernel, bias = double(given["kernel"]), double(given["bias"])
    initial = [double(s) for s in given["initial"]] if given["initial"] else [zeros] * states
    others = [double(a) for a in given["others"]]
    sequences, tape = numpy_cells.recurrence(
        name, double(given["projected"]), kernel, bias, initial, given["mask"], others
    )
    grads = [np.zeros((time, batch, units)) if g is None else double(g) for g in given["grads"]]
    final = [zeros if g is None else double(g) for g in given["final"]]
    return sequences, numpy_cells.recurrence_gradients(
        name, tape, kernel, grads, final, given["mask"], others
    )


def run(name, dtype, given, as_program=False):
    """Return states and gradients by the compiled kernel."""
    units = given["projected"].shape[2] // numpy_cells.CELLS[name][1]
    program = as_program or name in numpy_cells.PROGRAMS
    kernel = program_of(name, units, dtype) if program else kernel_of(name, dtype)
    optional = {
        "recurrent_bias": given["bias"],
        "initial_states": given["initial"],
        "mask": given["mask"],
        "others": given["others"],
    }
    states, saved = kernel.forward(given["projected"], given["kernel"], **optional)
    projected = given["projected"] if program or kernel.needs_projected else None
    gradients = kernel.backward(
        given["kernel"],
        states,
        saved,
        given["grads"],
        projected=projected,
        final_grads=given["final"],
        **optional,
    )
    return states, gradients


def assert_close(got, wanted, dtype, what):
    error = np.abs(got - wanted).max(initial=0) / max(1.0, np.abs(wanted).max(initial=0))
    assert error < TOLERANCE[dtype], f"{what}: {error}"


def check(name, dtype, given, as_program=False):
    wanted_states, (d_projected, d_kernel, d_bias, d_initial, d_others) = expected(name, given)
    states, gradients = run(name, dtype, given, as_program)
    for got, wanted in zip(states, wanted_states, strict=True):
        assert_close(got, wanted, dtype, "states")
    assert_close(gradients.projected, d_projected, dtype, "gradient of projected")
    assert_close(gradients.recurrent_kernel, d_kernel, dtype, "gradient of the recurrent kernel")
    if given["bias"] is None:
        assert gradients.recurrent_bias is None
    else:
        assert_close(gradients.recurrent_bias, d_bias, dtype, "gradient of the bias")
    kinds = numpy_cells.OTHERS[name][0] if given["others"] else ()
    d_others = [d for d, other in zip(d_others, kinds, strict=True) if other.gradient]
    for got, wanted in zip(gradients.others, d_others, strict=True):
        assert_close(got, wanted, dtype, "gradient of another array")
    if given["initial"] is None:
        assert gradients.initial_states is None
    else:
        for got, wanted in zip(gradients.initial_states, d_initial, strict=True):
            assert_close(got, wanted, dtype, "gradient of the initial states")


def check_grid(name, dtype, all_units):
    """Return sizes near every vector width, with all combinations of the optional arguments."""
    for n, (units, batch, time) in enumerate(itertools.product(all_units, (1, 3, 8), (1, 2, 7))):
        native.set_num_threads(1 + n % 3)
        check(
            name,
            dtype,
            problem(name, dtype, units, batch, time, bias=n & 1, initial=n & 2, mask=n & 4, seed=n),
        )


@pytest.fixture(autouse=True)
def restore_threads():
    before = native.get_num_threads()
    yield
    native.set_num_threads(before)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", numpy_cells.CELLS)
def test_every_size_agrees_with_numpy(name, dtype):
    program = name in numpy_cells.PROGRAMS  # it is made for each number of units
    check_grid(name, dtype, (1, 2, 7, 8, 9, 16, 17, 40) if program else range(1, 41))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", numpy_cells.CELLS)
def test_the_kernel_of_any_step_agrees_with_numpy_too(name, dtype):
    for n, units in enumerate((1, 7, 8, 17, 33)):
        options = {"bias": n & 1, "initial": n & 2, "mask": n % 3}
        given = problem(name, dtype, units, 1 + 9 * n, 1 + n, seed=n, **options)
        check(name, dtype, given, as_program=True)


@pytest.mark.parametrize("variant", range(8))
@pytest.mark.parametrize("name", numpy_cells.CELLS)
def test_sizes_of_several_panels_and_blocks_agree_with_numpy(name, variant):
    options = {"bias": variant & 1, "initial": variant & 2, "mask": variant & 4}
    check(name, "float64", problem(name, "float64", 150, 19, 4, seed=variant, **options))


def test_more_than_one_block_of_depth_agrees_with_numpy():
    check(
        "lstm",
        "float32",
        problem("lstm", "float32", 300, 13, 60, bias=True, initial=True, mask=True),
    )


@pytest.mark.parametrize(
    "width", [32, *(pytest.param(width, marks=pytest.mark.slow) for width in (16, 64))]
)
def test_every_vector_width_agrees_with_numpy(width):
    script = (
        "from test_recurrence import *\n"
        f"width = {width}\n"
        "assert native.vector_bytes() == width\n"
        "for number, name in enumerate(numpy_cells.CELLS):\n"
        "    for dtype in list(TOLERANCE)[number % 2 :: 2] if width == 32 else TOLERANCE:\n"
        "        check_grid(name, dtype, (1, 2, 3, 7, 8, 9, 15, 16, 17, 33, 70))\n"
    )
    run_python(script, SEQNET_VECTOR_BYTES=str(width))


def run_python(script, **environment):
    here = Path(__file__).parent
    path = os.pathsep.join([str(here), str(here.parents[1])])
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": path, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("batch", [3, 9, 21])  # threads divide units, either, or rows
@pytest.mark.parametrize("name", numpy_cells.CELLS)
def test_results_do_not_depend_on_the_number_of_threads(name, batch):
    given = problem(name, "float32", 100, batch, 20, bias=True, initial=True, mask=True)
    results = []
    for threads in (1, 2, 3, 5):
        native.set_num_threads(threads)
        states, gradients = run(name, "float32", given)
        results.append([*states, *gradients[:3], *gradients.initial_states, *gradients.others])
    for other in results[1:]:
        for a, b in zip(results[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


def test_any_strides_of_time_and_batch_are_read_and_written_in_place():
    given = problem("gru", "float32", 24, 5, 6, bias=True, initial=False, mask=True)
    states, gradients = run("gru", "float32", given)
    turned = dict(given)
    turned["projected"] = np.ascontiguousarray(given["projected"].transpose(1, 0, 2)[:, ::-1])[
        :, ::-1
    ].transpose(1, 0, 2)
    turned["mask"] = np.asfortranarray(given["mask"])
    turned["grads"] = [
        np.repeat(g, 2, axis=0)[::2] if g is not None else None for g in given["grads"]
    ]
    out = np.full((5, 12, 72), 7.0, "float32").transpose(1, 0, 2)[::-2]
    kernel = kernel_of("gru", "float32")
    options = {"recurrent_bias": given["bias"], "mask": turned["mask"]}
    again, saved = kernel.forward(turned["projected"], given["kernel"], **options)
    other = kernel.backward(
        given["kernel"],
        again,
        saved,
        turned["grads"],
        final_grads=given["final"],
        out=out,
        **options,
    )
    assert other.projected is out
    np.testing.assert_array_equal(again[0], states[0])
    np.testing.assert_array_equal(other.projected, gradients.projected)
    np.testing.assert_array_equal(other.recurrent_kernel, gradients.recurrent_kernel)
    assert (out.base.transpose(1, 0, 2)[::-2] == gradients.projected).all()


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_a_cell_without_a_product_reads_and_writes_rows_of_steps_and_takes_no_kernel(batch):
    given = problem("decaying", "float32", 37, batch, 6, bias=False, initial=True, mask=True)
    kernel = kernel_of("decaying", "float32")
    assert not kernel.has_products
    assert not kernel.saved_values
    states, gradients = run("decaying", "float32", given)
    rows = np.ascontiguousarray(given["projected"].transpose(1, 0, 2)).transpose(1, 0, 2)
    options = {name: given[name] for name in ("mask", "others")}
    options["initial_states"] = given["initial"]
    again, saved = kernel.forward(rows, **options)
    more = {"projected": rows, "final_grads": given["final"]}
    other = kernel.backward(None, again, saved, given["grads"], **more, **options)
    assert other.recurrent_kernel is None
    for array in (*again, other.projected):
        assert array.transpose(1, 0, 2).flags.c_contiguous
    found = [*again, other.projected, *other.initial_states, *other.others]
    expected = [*states, gradients.projected, *gradients.initial_states, *gradients.others]
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_product_without_a_recurrent_kernel_is_an_error():
    given = problem("gru", "float32", 3, 2, 2, bias=False, initial=False, mask=False)
    with pytest.raises(ValueError, match="multiplies by recurrent_kernel"):
        kernel_of("gru", "float32").forward(given["projected"])


def test_without_saving_the_states_are_the_same():
    given = problem("lstm", "float32", 20, 4, 5, bias=False, initial=False, mask=False)
    kernel = kernel_of("lstm", "float32")
    out = [np.empty((5, 4, 20), "float32") for _ in range(2)]
    plain, saved = kernel.forward(given["projected"], given["kernel"], save=False, out=out)
    assert saved is None
    assert plain[0] is out[0]
    np.testing.assert_array_equal(
        plain[1], kernel.forward(given["projected"], given["kernel"])[0][1]
    )


@pytest.mark.parametrize("as_program", [False, True])
def test_masked_input_has_no_effect_even_if_it_is_nan(as_program):
    given = problem("lstm", "float32", 17, 4, 6, bias=True, initial=True, mask=True)
    states, gradients = run("lstm", "float32", given, as_program)
    given["projected"][~given["mask"]] = np.nan
    again, other = run("lstm", "float32", given, as_program)
    np.testing.assert_array_equal(again[0], states[0])
    np.testing.assert_array_equal(other.recurrent_kernel, gradients.recurrent_kernel)
    np.testing.assert_array_equal(other.projected, gradients.projected)
    assert not gradients.projected[~given["mask"]].any()


@pytest.mark.parametrize("name", ["simple_rnn", "lstm", "gru"])
def test_nan_is_propagated(name):
    given = problem(name, "float32", 9, 3, 4, bias=False, initial=False, mask=False)
    given["projected"][1, 2, 4] = np.nan
    states, _ = run(name, "float32", given)
    assert not np.isnan(states[0][0]).any()
    assert not np.isnan(states[0][:, :2]).any()
    assert np.isnan(states[0][1, 2, 4])
    assert np.isnan(states[0][2:, 2]).all()


@pytest.mark.parametrize(
    ("name", "saved", "needs_projected"),
    [("simple_rnn", 0, False), ("lstm", 5, False), ("gru", 4, False), ("relu", 1, True)],
)
def test_only_what_the_gradient_needs_is_saved(name, saved, needs_projected):
    kernel = kernel_of(name, "float32")
    assert (kernel.saved_values, kernel.needs_projected) == (saved, needs_projected)


def test_a_state_that_only_copies_another_has_a_gradient():
    """h' = tanh(x + r + d), d' = h: the second state is the first, delayed by one step."""
    kernel = native.RecurrenceKernel(
        lambda x, r, s: (pt.tanh(x[0] + r[0] + s[1]), s[0]), 1, 2, "float64"
    )
    random = np.random.default_rng(0)
    x, u = random.normal(size=(5, 2, 3)), random.normal(size=(3, 3)) * 0.3
    weight = [random.normal(size=(5, 2, 3)) for _ in range(2)]
    initial = [random.normal(size=(2, 3)) for _ in range(2)]

    def loss(x):
        states, _ = kernel.forward(x, u, initial_states=initial)
        return sum((w * s).sum() for w, s in zip(weight, states, strict=True))

    states, saved = kernel.forward(x, u, initial_states=initial)
    np.testing.assert_array_equal(states[1][1:], states[0][:-1])
    slope = kernel.backward(u, states, saved, weight, initial_states=initial).projected
    for place in np.ndindex(x.shape):
        step = np.zeros_like(x)
        step[place] = 1e-6
        assert abs((loss(x + step) - loss(x - step)) / 2e-6 - slope[place]) < 1e-8


def test_an_empty_batch_or_sequence_has_empty_states_and_zero_gradients():
    for time, batch in ((0, 3), (3, 0)):
        given = problem("lstm", "float32", 5, batch, time, bias=True, initial=False, mask=False)
        states, gradients = run("lstm", "float32", given)
        assert states[0].shape == (time, batch, 5)
        assert not gradients.recurrent_kernel.any()
        assert not gradients.recurrent_bias.any()


def test_calls_are_counted():
    before = native.calls().get("recurrence.forward", 0)
    test_without_saving_the_states_are_the_same()
    assert native.calls()["recurrence.forward"] == before + 2


def test_wrong_arguments_are_named():
    kernel = kernel_of("lstm", "float32")
    x, u = np.zeros((2, 3, 16), "float32"), np.zeros((4, 16), "float32")
    with pytest.raises(ValueError, match="recurrent_kernel"):
        kernel.forward(x, u[:, :8])
    with pytest.raises(ValueError, match="projected"):
        kernel.forward(x[..., :8], u)
    with pytest.raises(ValueError, match="projected must be float32"):
        kernel.forward(x.astype("float64"), u)
    with pytest.raises(ValueError, match="mask"):
        kernel.forward(x, u, mask=np.ones((3, 2), bool))
    with pytest.raises(ValueError, match="initial_states must be 2 arrays"):
        kernel.forward(x, u, initial_states=[np.zeros((3, 4), "float32")])
    states, saved = kernel.forward(x, u)
    with pytest.raises(ValueError, match=r"grads\[0\]"):
        kernel.backward(u, states, saved, [x, None])


def test_a_step_with_an_unknown_operation_is_refused_by_name():
    with pytest.raises(native.KernelUnavailable, match="Psi"):
        native.RecurrenceKernel(lambda x, r, s: (pt.psi(x[0] + r[0]),), 1, 1)
    with pytest.raises(native.KernelUnavailable, match="not elementwise"):
        native.RecurrenceKernel(lambda x, r, s: (pt.cumsum(x[0] + r[0], axis=1),), 1, 1)
    with pytest.raises(native.KernelUnavailable, match="float32 or float64"):
        native.RecurrenceKernel(numpy_cells.simple_rnn_step, 1, 1, "float16")
