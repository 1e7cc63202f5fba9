"""Values and gradients of layers and activations equal those of Keras 3, in both float types."""

import json

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import short
from reference import load_arrays

import seqnet
from seqnet import activations, backend, registry
from seqnet.layers import CallContext

STORED = load_arrays("keras_layers")
LAYERS = [name for name, arrays in STORED.items() if "layer" in arrays]
ACTIVATIONS = [name for name, arrays in STORED.items() if "activation" in arrays]
TOLERANCE = {"float64": 1e-9, "float32": 3e-4}
MASKED_EPSILON = 1e-7  # Keras adds it to the number of unmasked steps


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", LAYERS)
def test_layers_equal_those_of_keras(name, dtype):
    arrays, tolerance = STORED[name], TOLERANCE[dtype]
    seqnet.config.set_floatx(dtype)
    config = json.loads(str(arrays["config"]))
    layer = registry.get("layer", {"name": str(arrays["layer"]), "config": config})
    x = pt.tensor("x", dtype=dtype, shape=(None, *arrays["x"].shape[1:]))
    mask = pt.matrix("mask", dtype="bool") if "mask" in arrays else None
    context = CallContext(training="training" in arrays)
    y = layer(x, mask=mask, context=context)
    assert [short(weight) for weight in layer.weights] == [
        key for key in arrays if f"d_{key}" in arrays or f"after_{key}" in arrays if key != "x"
    ]
    layer.set_weights([arrays[short(weight)] for weight in layer.weights])
    cotangent = arrays["cotangent"].astype(dtype)
    trained = layer.trainable_weights
    outputs = {"y": y}
    gradients = pytensor.grad((y * cotangent).sum(), [x, *trained], disconnected_inputs="ignore")
    outputs |= dict(zip(["d_x", *(f"d_{short(w)}" for w in trained)], gradients, strict=True))
    outputs |= {"loss": sum(context.losses)} if context.losses else {}
    inputs = [x] if mask is None else [x, mask]
    f = backend.compile(inputs, list(outputs.values()), context.updates, name="test")
    given = [arrays["x"].astype(dtype), *([] if mask is None else [arrays["mask"]])]
    found = dict(zip(outputs, f(*given), strict=True))
    assert found["y"].shape[1:] == layer.compute_output_shape(arrays["x"].shape)[1:]
    found |= {f"after_{short(w)}": w.get_value() for w in layer.non_trainable_weights}
    if "mask" in arrays and dtype == "float64":
        tolerance = 2 * MASKED_EPSILON
    expected = {k: v for k, v in arrays.items() if k in found}
    assert "d_x" in expected
    for key, value in expected.items():
        assert found[key].dtype == dtype, key
        np.testing.assert_allclose(found[key], value, rtol=tolerance, atol=tolerance, err_msg=key)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_equal_those_of_keras(name):
    arrays = STORED[name]
    config = json.loads(str(arrays["config"]))
    function = activations.get(str(arrays["activation"]))
    variables = [pt.matrix("x", dtype=dtype) for dtype in TOLERANCE]
    outputs = []
    for x in variables:
        y = function(x, **config)
        weights = np.arange(1.0, 21.0).reshape(4, 5).astype(x.dtype)
        outputs += [y, pytensor.grad((y * weights).sum(), x)]
    f = backend.compile(variables, outputs, name="test")
    found = f(*[arrays["x"].astype(dtype) for dtype in TOLERANCE])
    for k, (dtype, tolerance) in enumerate(TOLERANCE.items()):
        for key, value in zip(("y", "d_x"), found[2 * k : 2 * k + 2], strict=True):
            assert value.dtype == dtype
            np.testing.assert_allclose(
                value, arrays[key], rtol=tolerance, atol=tolerance, err_msg=f"{key} {dtype}"
            )


def test_aliases_equal_those_of_keras():
    assert activations.get("swish") is activations.silu
    assert activations.get("hard_swish") is activations.hard_silu
