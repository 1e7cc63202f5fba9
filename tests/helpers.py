"""Helpers shared by test files: layers compiled once for values, states and gradients."""

import functools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from cells import ALL

import seqnet
from seqnet import backend
from seqnet.callbacks import Callback
from seqnet.layers import CallContext

# Five points on a line, for models of one `Dense` layer.
X = np.linspace(-1, 1, 10).reshape(5, 2)
Y = X[:, :1]


class Plug(Callback):
    """Ends training after a number of batches, like a power failure."""

    adds = ()

    def __init__(self, pulled_at=None):
        self.pulled_at, self.batches = pulled_at, 0

    def get_config(self):
        return {}

    def on_batch_end(self, batch, logs=None):
        self.batches += 1
        if self.batches == self.pulled_at:
            raise RuntimeError("power failure")


class Compiled:
    """A recurrent layer and a compiled function of its outputs, final states and gradients."""

    def __init__(self, cls, units, features, length, masked, path, dtype="float64", **options):
        self.layer = cls(
            units,
            dtype=dtype,
            return_sequences=True,
            unroll=path == "unroll",
            fused=path == "fused",
            **options,
        )
        x = pt.tensor("x", dtype=dtype, shape=(None, length, features))
        mask = pt.matrix("mask", dtype="bool") if masked else None
        before = [pt.matrix(f"{name}0", dtype=dtype) for name in self.layer.state_names]
        context = CallContext(training=True, initial_states={self.layer: before})
        y = self.layer(x, mask=mask, context=context)
        cotangent = pt.tensor3("cotangent", dtype=dtype)
        inputs = [x, *self.layer.weights, *before]
        self.gradient_names = [
            "d_x",
            *[f"d_{short(w)}" for w in self.layer.weights],
            *[f"d_{name}0" for name in self.layer.state_names],
        ]
        gradients = pytensor.grad(pt.sum(y * cotangent), inputs)
        self.masked = masked
        self.inputs = [x, cotangent, *before, *([mask] if masked else [])]
        self.outputs = [y, *context.final_states[self.layer], *gradients]
        self.function = backend.compile(self.inputs, self.outputs, name="test")

    def __call__(self, arrays):
        """Return y, the final states and all gradients, under the names of the reference."""
        layer = self.layer
        layer.set_weights([arrays[short(w)] for w in layer.weights])
        before = [arrays[f"{name}0"] for name in layer.state_names]
        mask = [arrays["mask"]] if self.masked else []
        y, *others = self.function(arrays["x"], arrays["cotangent"], *before, *mask)
        names = [f"{name}_last" for name in layer.state_names] + self.gradient_names
        return {"y": y} | dict(zip(names, others, strict=True))


@functools.cache
def compiled_layer(cls, units, features, length, masked, path, dtype="float64", options=()):
    """Return a cached `Compiled`; `length` is a number if the layer is unrolled."""
    return Compiled(cls, units, features, length, masked, path, dtype, **dict(options))


def skip_without_kernel(cls, own):
    """Skip a test of the fused path without a compiler, or for a cell without a kernel."""
    mode = example_layer(cls, 2, 3, own).runs_as(backend.execution_mode)
    if mode != "fused":
        pytest.skip(f"There is no kernel: {mode}.")


def example_layer(cls, units, features, own):
    """Return a built float64 layer; the state of seqnet's random generator is restored."""
    source = seqnet.config.random_generator().bit_generator
    state = source.state
    layer = cls(units, **({"dtype": "float64"} | own))
    layer.ensure_built((None, None, features))
    source.state = state
    return layer


def run_cell(cell, arrays, path="scan", dtype="float64", **options):
    """Run a cell of `ALL` on arrays named as in the reference, with scan, unroll or fused."""
    cls, own = ALL[cell]
    if path == "fused":
        skip_without_kernel(cls, own | options)
    _, time, features = arrays["x"].shape
    units = arrays["cotangent"].shape[2]
    kind = tuple(sorted((own | options).items()))
    length = time if path == "unroll" else None
    compiled = compiled_layer(cls, units, features, length, "mask" in arrays, path, dtype, kind)
    if dtype != "float64":
        arrays = {n: a if a.dtype == bool else a.astype(dtype) for n, a in arrays.items()}
    return compiled(arrays)


def random_arrays(cell, batch, time, units, features=3, mask=None, seed=0):
    """Return a random input, weights, states and a cotangent for a cell of `ALL`."""
    cls, own = ALL[cell]
    rng = np.random.default_rng([seed, batch, time, units])
    layer = example_layer(cls, units, features, own)
    shapes = {"x": (batch, time, features)}
    shapes |= {short(w): w.get_value(borrow=True).shape for w in layer.weights}
    shapes |= {"cotangent": (batch, time, units)}
    states = zip(layer.state_names, layer.state_sizes, strict=True)
    shapes |= {f"{name}0": (batch, size) for name, size in states}
    arrays = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    if "n0" in arrays:  # a normaliser is a sum of positive numbers
        arrays["n0"] = 0.5 + abs(arrays["n0"])
    return arrays if mask is None else arrays | {"mask": mask}


def short(weight):
    """Return the name of a weight without the name of its layer."""
    return weight.name.partition("/")[2]


def values_and_gradients(layer, arrays, x_name="x"):
    """Return y and the gradients of sum(y * cotangent), under the names of the reference."""
    x = arrays[x_name]
    dtype = "int32" if x.dtype.kind == "i" else "float64"
    symbolic = pt.tensor("x", dtype=dtype, shape=(None,) * (x.ndim - 1) + x.shape[-1:])
    layer.ensure_built(symbolic.type.shape)
    layer.set_weights([arrays[w.name.rpartition("/")[2]] for w in layer.weights])
    context = CallContext(training=True)
    y = layer(symbolic, context=context)
    wanted = layer.weights + ([symbolic] if dtype == "float64" else [])
    total = pt.sum(y * pt.constant(arrays["cotangent"]))
    f = backend.compile([symbolic], [y, *pytensor.grad(total, wanted)], name="test")
    names = ["y", *[f"d_{w.name.rpartition('/')[2]}" for w in wanted[: len(layer.weights)]], "d_x"]
    return dict(zip(names, f(x.astype(dtype)), strict=False))


def numpy_mode():
    """Return the mode of the backend "numpy": the virtual machine without compiled kernels."""
    chosen = seqnet.config.backend()
    seqnet.config.set_backend("numpy")
    mode = backend.mode()
    seqnet.config.set_backend(chosen)
    return mode


def assert_same(result, expected, tolerance=1e-10):
    """Compare the arrays in `expected` with those in `result` by name."""
    for name, value in expected.items():
        assert result[name].shape == value.shape, name
        np.testing.assert_allclose(
            result[name], value, rtol=tolerance, atol=tolerance, err_msg=name
        )
