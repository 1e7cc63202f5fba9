"""Elementwise compiled kernels: all operations, accuracy, optimizer updates."""

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from scipy import special

from seqnet import native

RANDOM = np.random.default_rng(0)


def numbers(dtype, n=1003):
    special = [0.0, -0.0, 1.0, -1.0, 0.5, np.inf, -np.inf, np.nan]
    return np.concatenate(
        [RANDOM.normal(size=n) * 3, special, np.round(RANDOM.normal(size=40))]
    ).astype(dtype)


OPERATIONS = {
    "add": (lambda x, y: x + y + 1, lambda x, y: x + y + 1),
    "sub": (lambda x, y: x - y, np.subtract),
    "mul": (lambda x, y: x * y * 3, lambda x, y: x * y * 3),
    "div": (lambda x, y: x / y, np.divide),
    "neg": (lambda x, y: -x, lambda x, y: -x),
    "reciprocal": (lambda x, y: pt.reciprocal(x), lambda x, y: 1 / x),
    "sqr": (lambda x, y: pt.sqr(x), lambda x, y: x * x),
    "sqrt": (lambda x, y: pt.sqrt(x), lambda x, y: np.sqrt(x)),
    "abs": (lambda x, y: abs(x), lambda x, y: np.abs(x)),
    "sign": (lambda x, y: pt.sign(x), lambda x, y: np.sign(x)),
    "exp": (lambda x, y: pt.exp(x), lambda x, y: np.exp(x)),
    "tanh": (lambda x, y: pt.tanh(x), lambda x, y: np.tanh(x)),
    "sigmoid": (lambda x, y: pt.sigmoid(x), lambda x, y: 1 / (1 + np.exp(-x))),
    "expm1": (lambda x, y: pt.expm1(x), lambda x, y: np.expm1(x)),
    "log": (lambda x, y: pt.log(x), lambda x, y: np.log(x)),
    "log1p": (lambda x, y: pt.log1p(x), lambda x, y: np.log1p(x)),
    "softplus": (lambda x, y: pt.softplus(x), lambda x, y: np.logaddexp(x, 0)),
    "erf": (lambda x, y: pt.erf(x), lambda x, y: special.erf(x)),
    "round": (lambda x, y: pt.round(x, mode="half_to_even"), lambda x, y: np.round(x)),
    "arctan2": (lambda x, y: pt.arctan2(x, y), np.arctan2),
    "power": (lambda x, y: x**2.5 + x**y, lambda x, y: x**2.5 + x**y),
    "isnan": (lambda x, y: pt.switch(pt.isnan(x), y, x), lambda x, y: np.where(np.isnan(x), y, x)),
    "maximum": (lambda x, y: pt.maximum(x, y), np.maximum),
    "minimum": (lambda x, y: pt.minimum(x, y), np.minimum),
    "clip": (lambda x, y: pt.clip(x, -1, 0.5), lambda x, y: np.clip(x, -1, 0.5)),
    "cube": (lambda x, y: x**3, lambda x, y: x * x * x),
    "power -2": (lambda x, y: x**-2, lambda x, y: 1 / (x * x)),
    "switch": (lambda x, y: pt.switch(x > y, x, 2 * y), lambda x, y: np.where(x > y, x, 2 * y)),
    "switch on a number": (lambda x, y: pt.switch(x, x, y), lambda x, y: np.where(x != 0, x, y)),
    "compared": (lambda x, y: pt.le(x, y) * x + pt.ge(x, 0), lambda x, y: (x <= y) * x + (x >= 0)),
    "equal": (lambda x, y: x * pt.eq(x, 0) + pt.neq(y, 1), lambda x, y: x * (x == 0) + (y != 1)),
    "logic": (
        lambda x, y: pt.switch(pt.or_(pt.and_(x > 0, y > 0), pt.invert(x < 1)), x, y),
        lambda x, y: np.where(((x > 0) & (y > 0)) | ~(x < 1), x, y),
    ),
    "cast": (lambda x, y: x + pt.cast(pt.lt(x, y), x.dtype), lambda x, y: x + (x < y)),
    "second": (
        lambda x, y: pt.second(x, pt.constant(2, dtype=x.dtype)),
        lambda x, y: np.full_like(x, 2),
    ),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_operation_agrees_with_numpy(name, dtype):
    symbolic, numpy = OPERATIONS[name]
    x, y = (pt.vector(n, dtype=dtype) for n in "xy")
    kernel = native.ElementwiseKernel([x, y], [symbolic(x, y)])
    a = numbers(dtype)
    b = np.roll(a, 3)[::-1].copy()
    tolerance = 1e-6 if dtype == "float32" else 1e-14
    wanted = numpy(a.astype("float64"), b.astype("float64")).astype(dtype)
    np.testing.assert_allclose(kernel(a, b)[0], wanted, rtol=tolerance, atol=0)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_functions_of_the_c_library_agree_with_numpy(dtype):
    names = ["exp2", "log2", "log10", "sin", "cos", "tan", "arcsin", "arccos", "arctan", "sinh"]
    names += ["cosh", "arcsinh", "arccosh", "arctanh", "floor", "ceil", "trunc", "erfc"]
    x = pt.vector(dtype=dtype)
    kernel = native.ElementwiseKernel([x], [getattr(pt, name)(x) for name in names])
    values = np.clip(numbers(dtype), -4, 4)
    for name, found in zip(names, kernel(values), strict=True):
        expected = special.erfc if name == "erfc" else getattr(np, name)
        wanted = expected(values.astype("float64"))
        tolerance = 2e-6 if dtype == "float32" else 1e-13
        np.testing.assert_allclose(found, wanted, rtol=tolerance, err_msg=name)


def every_size(dtype):
    """Return numbers of every exponent and both signs, and special values."""
    info = np.finfo(dtype)
    integer = np.dtype(f"i{info.bits // 8}")
    bits = RANDOM.integers(np.iinfo(integer).min, np.iinfo(integer).max, 400_000, dtype=integer)
    near = RANDOM.normal(size=400_000) * np.exp2(RANDOM.uniform(-8, 8, 400_000))
    special = [
        0.0,
        -0.0,
        info.tiny,
        -info.tiny,
        info.smallest_subnormal,
        info.max,
        -info.max,
        np.inf,
        -np.inf,
    ]
    found = np.concatenate([bits.view(dtype), near.astype(dtype), np.array(special, dtype)])
    return found[~np.isnan(found)]


EXACT = {
    "exp": (pt.exp, np.exp),
    "tanh": (pt.tanh, np.tanh),
    "sigmoid": (
        pt.sigmoid,
        lambda x: np.where(x < 0, np.exp(np.minimum(x, 0)), 1) / (1 + np.exp(-np.abs(x))),
    ),
    "expm1": (pt.expm1, np.expm1),
    "log": (pt.log, np.log),
    "log1p": (pt.log1p, np.log1p),
    "softplus": (pt.softplus, lambda x: np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))),
    "erf": (pt.erf, lambda x: special.erf(x.astype("float64")).astype(x.dtype)),
}


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", EXACT)
def test_transcendental_functions_are_within_four_units_in_the_last_place(name, dtype):
    wide = "float64" if dtype == "float32" else "longdouble"
    if np.finfo(wide).eps >= np.finfo(dtype).eps / 100:
        pytest.skip("no wider floats here to compare with")
    symbolic, exact = EXACT[name]
    x = pt.vector(dtype=dtype)
    values = every_size(dtype)
    got = native.ElementwiseKernel([x], [symbolic(x)])(values)[0]
    wanted = exact(values.astype(wide))
    rounded = wanted.astype(dtype)
    finite = np.isfinite(rounded)
    np.testing.assert_array_equal(got[~finite], rounded[~finite])
    units = np.abs(got[finite] - wanted[finite]) / np.spacing(np.abs(rounded[finite])).astype(wide)
    assert units.max() <= 4, f"{units.max()} at {values[finite][units.argmax()]!r}"
    if name == "tanh":
        np.testing.assert_array_equal(np.signbit(got), np.signbit(values))


@pytest.mark.parametrize("name", EXACT)
def test_nan_is_propagated(name):
    x = pt.vector(dtype="float32")
    assert np.isnan(
        native.ElementwiseKernel([x], [EXACT[name][0](x)])(np.full(19, np.nan, "float32"))[0]
    ).all()


@pytest.mark.parametrize("shape", [(1,), (3, 5), (64,), (7, 11, 13), (300, 257)])
def test_an_optimizer_update_is_one_compiled_kernel_that_writes_in_place(shape):
    """Adadelta: Zeiler (2012), algorithm 1."""
    weight, gradient, squares, changes = (
        pt.tensor(n, shape=(None,) * len(shape), dtype="float32") for n in "wgsc"
    )
    rate, rho, epsilon = pt.scalar("rate", dtype="float32"), np.float32(0.95), np.float32(1e-6)
    new_squares = rho * squares + (1 - rho) * pt.sqr(gradient)
    change = -pt.sqrt(changes + epsilon) / pt.sqrt(new_squares + epsilon) * gradient
    new_changes = rho * changes + (1 - rho) * pt.sqr(change)
    kernel = native.ElementwiseKernel(
        [weight, gradient, squares, changes, rate],
        [weight + rate * change, new_squares, new_changes],
    )
    w, g, s, c = (RANDOM.random(shape).astype("float32") for _ in range(4))
    wanted_s = 0.95 * s.astype("float64") + 0.05 * g**2
    wanted_change = -np.sqrt(c + 1e-6) / np.sqrt(wanted_s + 1e-6) * g
    wanted = [w + 0.5 * wanted_change, wanted_s, 0.95 * c + 0.05 * wanted_change**2]
    results = kernel(w, g, s, c, np.float32(0.5), out=[w, s, c])
    assert results[0] is w
    for got, expected in zip(results, wanted, strict=True):
        np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)


def test_results_do_not_depend_on_the_number_of_threads():
    x = pt.vector(dtype="float64")
    kernel = native.ElementwiseKernel([x], [pt.tanh(x) * pt.exp(x)])
    values = RANDOM.normal(size=100_003)
    results = []
    for threads in (1, 2, 3):
        native.set_num_threads(threads)
        results.append(kernel(values)[0])
    native.set_num_threads(2)
    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_common_subexpressions_are_computed_once():
    from seqnet.native import emit
    from seqnet.native.expression import Expressions

    x, y = (pt.vector(n, dtype="float32") for n in "xy")
    expressions = Expressions("float32")
    values = [expressions.add("input", "array", i) for i in range(2)]
    out = pt.tanh(x + y)
    outputs = expressions.read(
        [out * 1 + 0, *pytensor.grad(None, [x], known_grads={out: y})],
        dict(zip([x, y], values, strict=True)),
    )
    source = emit.block_function("function", expressions, values, outputs)
    assert source.count("v_tanh") == 1
    assert source.count("*") < 10


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        (lambda x: pt.psi(x), "Psi"),
        (lambda x: pt.cumsum(x), "not elementwise"),
        (lambda x: x[:, None] + x, "axes"),
        (lambda x: x + pt.arange(3).astype("float32"), "not elementwise"),
        (lambda x: pt.cast(pt.cast(x, "int32"), "float32"), "int32"),
        (lambda x: pt.cast(pt.cast(x, "float64") * 2, "float32"), "float64"),
        (lambda x: x + pt.constant(np.arange(3, dtype="float32")), "more than one number"),
        (lambda x: x + pt.vector("other", dtype="float32"), "other"),
    ],
)
def test_unsupported_expressions_are_refused_with_the_reason(expression, reason):
    x = pt.vector("x", dtype="float32")
    with pytest.raises(native.KernelUnavailable, match=reason):
        native.ElementwiseKernel([x], [expression(x)])


def test_wrong_arguments_are_named():
    x, y = (pt.vector(n, dtype="float32") for n in "xy")
    kernel = native.ElementwiseKernel([x, y], [x + y])
    a = np.zeros(3, "float32")
    with pytest.raises(ValueError, match=r"input 1 is float32\(4,\)"):
        kernel(a, np.zeros(4, "float32"))
    with pytest.raises(ValueError, match="takes 2 arrays, got 1"):
        kernel(a)
    with pytest.raises(ValueError, match="takes 2 arrays, got 0"):
        kernel()
    with pytest.raises(ValueError, match="returns 1 array, got 2"):
        kernel(a, a, out=[a, a])
    with pytest.raises(ValueError, match="contiguous"):
        kernel(a, a, out=[np.zeros(6, "float32")[::2]])


def test_rows_with_gaps_are_read_without_a_copy():
    x, y = pt.matrix(dtype="float64"), pt.matrix(dtype="float64")
    kernel = native.ElementwiseKernel([x, y], [pt.tanh(x) + y, x * y])
    wide = np.random.default_rng(0).normal(size=(7, 40))
    a, b = wide[:, 3:22], wide[:, 20:39]
    total, product = kernel(a, b)
    np.testing.assert_allclose(total, np.tanh(a) + b, rtol=1e-14)
    np.testing.assert_array_equal(product, a * b)


def test_an_output_overwrites_the_input_of_a_number_if_it_can():
    x, y = pt.vector(dtype="float32"), pt.vector(dtype="float32")
    kernel = native.ElementwiseKernel([x, y], [x + y, x - y])
    a, b = np.arange(6, dtype="float32"), np.full(3, 2, "float32")
    contiguous = np.arange(3, dtype="float32")
    added, subtracted = kernel(contiguous, b, out=(0, None))
    assert added is contiguous
    assert added.tolist() == [2, 3, 4]
    assert subtracted is not b
    assert subtracted.tolist() == [-2, -1, 0]
    contiguous.flags.writeable = False
    for kept in (contiguous, a[::2]):
        before = kept.copy()
        added, subtracted = kernel(kept, b, out=(0, 1))
        assert added is not kept
        assert subtracted is b
        np.testing.assert_array_equal(kept, before)
        np.testing.assert_array_equal(added, before + 2)
        b[...] = 2
