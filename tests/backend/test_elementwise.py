"""Elementwise nodes computed by NumPy agree with PyTensor."""

import warnings

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import numpy_mode
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pytensor.tensor.elemwise import Elemwise

from seqnet.backend.elementwise import NumpyElemwise, NumpySum

# PyTensor's own modes search for a BLAS library.
pytestmark = pytest.mark.filterwarnings("ignore:PyTensor could not link to a BLAS")


def run_both(inputs, outputs, values):
    """Return the results of seqnet's mode and of FAST_COMPILE, and seqnet's graph."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore", RuntimeWarning)  # from PyTensor's evaluation
        ours = pytensor.function(inputs, outputs, mode=numpy_mode())
        theirs = pytensor.function(inputs, outputs, mode="FAST_COMPILE")
        return ours(*values), theirs(*values), ours.maker.fgraph.toposort()


def assert_equal(ours, theirs, tolerance=1e-6):
    for one, other in zip(ours, theirs, strict=True):
        assert np.asarray(one).dtype == np.asarray(other).dtype
        assert np.shape(one) == np.shape(other)
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


def is_lowered(nodes):
    """Return whether the graph has elementwise nodes and NumPy computes all of them."""
    return any(isinstance(n.op, NumpyElemwise) for n in nodes) and not any(
        isinstance(n.op, Elemwise) for n in nodes
    )


A = np.array([[-2.5, -1.0, -0.5, 0.0], [0.5, 1.0, 1.5, 30.0]], dtype="float32")
B = np.array([[2.0], [-0.75]], dtype="float32")

UNARY = {
    "neg": lambda x: -x,
    "abs": pt.abs,
    "exp": pt.exp,
    "expm1": pt.expm1,
    "log": pt.log,
    "log1p": pt.log1p,
    "sqrt": pt.sqrt,
    "sqr": pt.sqr,
    "tanh": pt.tanh,
    "sigmoid": pt.sigmoid,
    "softplus": pt.softplus,
    "sign": pt.sign,
    "floor": pt.floor,
    "ceil": pt.ceil,
    "round": pt.round,
    "sin": pt.sin,
    "cos": pt.cos,
    "arctan": pt.arctan,
    "reciprocal": pt.reciprocal,
    "isnan": pt.isnan,
    "isinf": pt.isinf,
    "to float64": lambda x: pt.cast(x, "float64"),
    "to int32": lambda x: pt.cast(x, "int32"),
    "to bool": lambda x: pt.cast(x, "bool"),
    "copy": pt.tensor_copy,
    "clip": lambda x: pt.clip(x, np.float32(-1), np.float32(1.25)),
    "erf": pt.erf,
}
BINARY = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: x - y,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floor div": lambda x, y: x // y,
    "mod": lambda x, y: x % y,
    "pow": lambda x, y: pt.abs(x) ** y,
    "maximum": pt.maximum,
    "minimum": pt.minimum,
    "less": lambda x, y: x < y,
    "less or equal": lambda x, y: x <= y,
    "greater": lambda x, y: x > y,
    "greater or equal": lambda x, y: x >= y,
    "equal": pt.eq,
    "not equal": pt.neq,
    "switch": lambda x, y: pt.switch(x > y, x, y),
    "second": lambda x, y: pt.second(x, y),
    "and": lambda x, y: (x > 0) & (y > 0),
    "or": lambda x, y: (x > 0) | (y > 0),
    "xor": lambda x, y: (x > 0) ^ (y > 0),
    "not": lambda x, y: ~(x > y),
    "arctan2": pt.arctan2,
    "sum of four": lambda x, y: pt.add(x, y, x, y),
    "product of three": lambda x, y: pt.mul(x, y, x),
    "largest of three": lambda x, y: pt.maximum(pt.maximum(x, y), 0.25),
}


@pytest.mark.parametrize("name", UNARY)
def test_unary_functions_agree(name):
    x = pt.fmatrix("x")
    ours, theirs, nodes = run_both([x], [UNARY[name](x)], [A])
    assert_equal(ours, theirs)
    assert is_lowered(nodes) or name in ("erf", "copy")


@pytest.mark.parametrize("name", BINARY)
def test_binary_functions_with_broadcasting_agree(name):
    x, y = pt.fmatrix("x"), pt.tensor("y", dtype="float32", shape=(None, 1))
    ours, theirs, nodes = run_both([x, y], [BINARY[name](x, y)], [A, B])
    assert_equal(ours, theirs)
    assert is_lowered(nodes) or name == "second"  # "second" is replaced by an Alloc


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64", "bool", "float64"])
@pytest.mark.parametrize("name", ["sigmoid", "exp", "sqrt", "neg", "abs", "sqr", "tanh", "floor"])
def test_functions_of_other_dtypes_agree(name, dtype):
    if dtype == "bool" and name == "neg":
        pytest.skip("There is no negative of a boolean.")
    x = pt.tensor("x", dtype=dtype, shape=(None,))
    value = np.array([0, 1, 3, 7]).astype(dtype)
    ours, theirs, _ = run_both([x], [UNARY[name](x)], [value])
    assert_equal(ours, theirs)


@pytest.mark.parametrize("first", ["int8", "int32", "bool", "float32"])
@pytest.mark.parametrize("second", ["uint8", "int64", "float32", "float64"])
@pytest.mark.parametrize("name", ["add", "mul", "div", "floor div", "maximum", "less", "switch"])
def test_mixed_dtypes_agree(name, first, second):
    x = pt.tensor("x", dtype=first, shape=(None,))
    y = pt.tensor("y", dtype=second, shape=(None,))
    values = [np.array([0, 1, 3, 5]).astype(first), np.array([1, 2, 2, 7]).astype(second)]
    ours, theirs, _ = run_both([x, y], [BINARY[name](x, y)], values)
    assert_equal(ours, theirs)


def test_fused_nodes_with_several_results_agree():
    x, y = pt.fmatrix("x"), pt.fvector("y")
    gate = pt.sigmoid(x + y)
    outputs = [gate, gate * x, pt.tanh(gate * x) + y, pt.switch(gate > 0.5, x, y) * 2]
    values = [A, np.arange(4, dtype="float32")]
    ours, theirs, nodes = run_both([x, y], outputs, values)
    assert_equal(ours, theirs)
    assert is_lowered(nodes)


@pytest.mark.parametrize("value", [-3.5, 0.0, 2.25])
def test_scalars_agree(value):
    x = pt.fscalar("x")
    outputs = [pt.sigmoid(x) * 2 + 1, pt.maximum(x, 0), pt.softplus(x), pt.switch(x > 0, x, -x)]
    ours, theirs, _ = run_both([x], outputs, [np.float32(value)])
    assert_equal(ours, theirs)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0)])
def test_empty_arrays_agree(shape):
    x = pt.tensor("x", dtype="float32", shape=(None,) * len(shape))
    outputs = [pt.sigmoid(x) * x + 1, pt.exp(x).sum(), pt.switch(x > 0, x, 2 * x)]
    ours, theirs, _ = run_both([x], outputs, [np.zeros(shape, "float32")])
    assert_equal(ours, theirs)


def test_extreme_numbers_agree_without_a_warning():
    x = pt.dvector("x")
    outputs = [pt.sigmoid(x), pt.softplus(x), pt.tanh(x), pt.exp(x), pt.log(x), 1 / x]
    value = np.array([-1e4, -750.0, -0.0, 0.0, 750.0, 1e4, np.inf, -np.inf, np.nan])
    ours, theirs, _ = run_both([x], outputs, [value])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pytensor.function([x], outputs, mode=numpy_mode())(value)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-12, atol=1e-300)


def test_a_result_is_not_a_view_of_the_input():
    x = pt.fvector("x")
    f = pytensor.function([x], [pt.tensor_copy(x), pt.second(x, x)], mode=numpy_mode())
    value = np.arange(3, dtype="float32")
    for result in f(value):
        assert not np.shares_memory(result, value)


def test_results_share_no_memory_with_each_other_or_with_shared_variables():
    state = pytensor.shared(np.zeros(3))
    x = pt.dvector("x")
    f = pytensor.function(
        [x], [state + x, pt.second(x, state)], updates=[(state, state + x)], mode=numpy_mode()
    )
    first, before = f(np.ones(3))
    state.get_value(borrow=True)[:] = 99.0
    np.testing.assert_array_equal(first, 1.0)
    np.testing.assert_array_equal(before, 0.0)


def test_changing_a_result_in_place_does_not_change_the_input():
    x = pt.dvector("x")
    copied = pt.tensor_copy(x)
    f = pytensor.function([x], [pt.inc_subtensor(copied[0], 5.0)], mode=numpy_mode())
    value = np.zeros(3)
    np.testing.assert_array_equal(f(value)[0], [5.0, 0.0, 0.0])
    np.testing.assert_array_equal(value, 0.0)


def test_the_inner_graph_of_a_scan_is_lowered():
    x = pt.dmatrix("x")
    result = pytensor.scan(
        lambda v, s: pt.tanh(v * 2 + s) * pt.sigmoid(s),
        sequences=[x],
        outputs_info=[pt.zeros((3,))],
        return_updates=False,
    )
    f = pytensor.function([x], result, mode=numpy_mode())
    scans = [n.op for n in f.maker.fgraph.toposort() if hasattr(n.op, "fgraph")]
    value = np.linspace(-1, 1, 12).reshape(4, 3)
    state, expected = np.zeros(3), []
    for row in value:
        state = np.tanh(row * 2 + state) / (1 + np.exp(-state))
        expected.append(state)
    np.testing.assert_allclose(f(value), expected, rtol=1e-12)
    assert is_lowered(scans[0].fn.maker.fgraph.toposort())


x, y, z = pt.dvector("x"), pt.dvector("y"), pt.bvector("z")
numbers = st.lists(st.floats(-50, 50), min_size=3, max_size=3)


@pytest.fixture(scope="module")
def mixture():
    """A graph with many kinds of nodes, compiled once in both modes."""
    outputs = [
        pt.switch(z > 0, pt.sigmoid(x) * y, pt.tanh(y) - x),
        pt.clip(x * y, -3, 3) + pt.cast(z, "float64"),
        pt.grad(pt.sum(pt.softplus(x * y) + pt.log1p(pt.sqr(y))), y),
    ]
    return [pytensor.function([x, y, z], outputs, mode=m) for m in (numpy_mode(), "FAST_COMPILE")]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(a=numbers, b=numbers, c=st.lists(st.integers(-128, 127), min_size=3, max_size=3))
def test_a_mixed_graph_agrees_for_arbitrary_numbers(mixture, a, b, c):
    ours, theirs = mixture
    values = np.array(a), np.array(b), np.array(c, "int8")
    assert_equal(ours(*values), theirs(*values), tolerance=1e-10)


@pytest.mark.parametrize(
    "dtypes", [("float32", "float32"), ("float64", "float32"), ("int32", "float64")]
)
def test_single_numbers_agree_with_pytensor(dtypes):
    x, y = pt.scalar("x", dtype=dtypes[0]), pt.scalar("y", dtype=dtypes[1])
    outputs = [
        pt.cast(3 * x * y - x / 4 + 1, dtypes[1]),
        pt.sqrt(1 - y**x) / (1 - pt.cast(x, "float32") * y),
        pt.cast(x * y, "int64") + pt.cast(y > 0, "int8"),
        pt.switch(pt.gt(x, y), x + y, x * y) / (y - y),  # divided by zero
    ]
    values = np.asarray(3, dtypes[0]), np.asarray(0.25, dtypes[1])
    ours, theirs, nodes = run_both([x, y], outputs, values)
    assert is_lowered(nodes)
    assert_equal(ours, theirs)


@pytest.mark.parametrize("axis", [None, 0, -1, (0, 2)])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "float64"])
def test_sums_are_those_of_pytensor_without_a_copy_of_their_input(axis, dtype):
    x = pt.tensor3("x", dtype=dtype)
    values = np.random.default_rng(0).normal(scale=20, size=(3, 4, 5)).astype(dtype)
    for value in (values, values.transpose(1, 0, 2)[::-1], values[:, :0]):
        ours, theirs, nodes = run_both([x], [pt.sum(x, axis=axis)], [value])
        assert_equal(ours, theirs)
        assert ours[0].dtype == theirs[0].dtype
        assert any(isinstance(node.op, NumpySum) for node in nodes) or dtype == "float64"
