"""Merge and attention layers: values and gradients of Keras 3, masks, padding, invalid input."""

import json

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from helpers import numpy_mode
from reference import load_arrays

import seqnet
from seqnet import backend, layers
from seqnet.layers import (
    AdditiveAttention,
    Attention,
    CallContext,
    Concatenate,
    Dot,
    MultiHeadAttention,
)

STORED = load_arrays("keras_merging")
MERGES = ["Add", "Multiply", "Average", "Maximum", "Minimum"]
NAMES = ("query", "value", "key")


def numbered(arrays, kind):
    """Return the arrays ``kind_0``, ``kind_1``, ... of a case, None where one is missing."""
    found = [arrays.get(f"{kind}_{k}") for k in range(8)]
    while found and found[-1] is None:
        found.pop()
    return found


def apply(layer, inputs, masks=(), context=None, **options):
    """Return the outputs of a layer, as a list."""
    masks = [*masks, *[None] * (len(inputs) - len(masks))]
    if isinstance(layer, MultiHeadAttention):
        named = {f"{n}_mask": m for n, m in zip(NAMES, masks, strict=False) if m is not None}
        found = layer(*inputs, context=context, **named, **options)
    else:
        found = layer(inputs, mask=masks, context=context, **options)
    return found if isinstance(found, list) else [found]


def compare(name, dtype, tolerance):
    arrays = STORED[name]
    options = json.loads(str(arrays["options"]))
    if "attention_mask" in arrays:
        options["attention_mask"] = arrays["attention_mask"]
    layer = getattr(layers, str(arrays["layer"]))(dtype=dtype, **json.loads(str(arrays["config"])))
    values = [x.astype(dtype) for x in numbered(arrays, "input")]
    variables = [
        pt.tensor(dtype=dtype, shape=(None, *[1 if n == 1 else None for n in x.shape[1:-1]], n))
        for x in values
        for n in x.shape[-1:]
    ]
    y, *scores = apply(layer, variables, numbered(arrays, "mask"), **options)
    assert y.dtype == dtype
    layer.set_weights([w.astype(dtype) for w in numbered(arrays, "weight")])
    total = pt.sum(y * arrays["cotangent"].astype(dtype))
    gradients = pytensor.grad(total, [*variables, *layer.weights])
    found = backend.compile(variables, [y, *scores, *gradients], name="test")(*values)
    expected = [arrays["y"], *([arrays["scores"]] if scores else [])]
    expected += [*numbered(arrays, "d_input"), *numbered(arrays, "d_weight")]
    for a, b in zip(found, expected, strict=True):
        assert a.shape == b.shape
        assert a.dtype == dtype
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance)
    if not isinstance(layer, MultiHeadAttention):
        shapes = [v.type.shape for v in variables]
        known = layer.compute_output_shape(shapes)
        assert all(n in (None, size) for n, size in zip(known, arrays["y"].shape, strict=True))


@pytest.mark.parametrize("name", STORED)
def test_values_and_gradients_equal_those_of_keras(name):
    compare(name, "float64", 1e-10)


@pytest.mark.parametrize(
    "name", ["average", "dot_cosine", "attention_concat", "additive", "heads_masked"]
)
def test_float32_is_close_to_keras(name):
    compare(name, "float32", 2e-5)


# ---------------------------------------------------------------------------------- masks

RNG = np.random.default_rng(0)
MASK = np.array([[1, 0, 1, 1, 0], [0, 0, 1, 0, 0]], bool)
OTHER = np.array([[1, 1, 0, 1, 0], [1, 1, 1, 0, 0]], bool)
A, B, C = (RNG.normal(size=(2, 5, 3)) for _ in range(3))
SHORT = RNG.normal(size=(2, 4, 3))
SHORT_MASK = np.array([[1, 1, 0, 1], [1, 0, 0, 1]], bool)


def evaluate(*outputs):
    return backend.compile([], list(outputs), name="test")()


def test_a_merged_step_is_unmasked_if_it_is_unmasked_in_every_input():
    a, b, mask, other = map(pt.as_tensor_variable, (A, B, MASK, OTHER))
    add, dot = layers.Add(), Dot(axes=2)
    masks = [
        add.compute_mask([a, b], [mask, other]),
        add.compute_mask([a, b], [None, other]),
        add.compute_mask([a, b[:, :1]], [mask, other[:, :1]]),
        Concatenate().compute_mask([a, b], [mask, other]),
        Concatenate(axis=1).compute_mask([a, b], [None, other]),
        dot.compute_mask([a, b], [mask, other]),
    ]
    expected = [
        MASK & OTHER,
        OTHER,
        MASK & OTHER[:, :1],
        MASK & OTHER,
        np.concatenate([np.ones_like(OTHER), OTHER], axis=1),
        MASK,
    ]
    for found, wanted in zip(evaluate(*masks), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert add.compute_mask([a, b], None) is None
    assert Dot(axes=1).compute_mask([a, b], [mask, other]) is None
    assert Dot(axes=(1, 2)).compute_mask([a[:, 0], b], [None, other]) is not None
    assert Dot(axes=(1, 1)).compute_mask([a[:, :, 0], b], [None, other]) is None


CASES = {
    **{name: (getattr(layers, name)(), [A, B], [MASK, OTHER], {}) for name in MERGES},
    "concatenate": (Concatenate(), [A, B], [MASK, None], {}),
    "concatenate time": (Concatenate(axis=1), [A, SHORT], [MASK, SHORT_MASK], {}),
    "dot": (Dot(axes=2), [A, SHORT], [MASK, SHORT_MASK], {}),
    "dot time": (Dot(axes=1, normalize=True), [A, B], [MASK, OTHER], {}),
    "attention": (Attention(use_scale=True), [SHORT, A, B], [SHORT_MASK, MASK, None], {}),
    "attention key": (Attention(), [SHORT, A, B], [None, MASK, OTHER], {}),
    "causal": (Attention(), [A, B], [OTHER, MASK], {"use_causal_mask": True}),
    "concat": (Attention(score_mode="concat"), [SHORT, A], [SHORT_MASK, MASK], {}),
    "additive": (AdditiveAttention(), [SHORT, A], [SHORT_MASK, MASK], {}),
    "heads": (MultiHeadAttention(2, 3), [SHORT, A, B], [SHORT_MASK, MASK, OTHER], {}),
    "heads causal": (MultiHeadAttention(2, 3), [A, A], [MASK, MASK], {"use_causal_mask": True}),
}


@pytest.mark.parametrize("name", CASES)
def test_padding_changes_nothing(name):
    """Other values at masked steps change no unmasked output and no gradient; all are finite."""
    layer, arrays, masks, options = CASES[name]
    variables = [pt.tensor(dtype="float32", shape=(None, None, x.shape[-1])) for x in arrays]
    y, *_ = apply(layer, variables, masks, **options)
    mask = layer.compute_mask(
        variables[0] if isinstance(layer, MultiHeadAttention) else variables,
        masks[0] if isinstance(layer, MultiHeadAttention) else masks,
    )
    if mask is not None:
        mask = pt.as_tensor_variable(mask)
        y = pt.switch(mask[:, :, None], y, np.float32(0))
    cotangent = np.random.default_rng(1).normal(size=(1, 1, 20)).astype("float32")
    gradients = pytensor.grad(
        pt.sum(pt.sin(y) * cotangent[:, :, : y.type.shape[-1] or 1]), [*variables, *layer.weights]
    )
    function = backend.compile(variables, [y, *gradients], name="test")
    found = []
    for filler in (0.0, 7.0, -1e4):
        given = [
            x if m is None else np.where(m[:, :, None], x, filler)
            for x, m in zip(arrays, masks, strict=True)
        ]
        result = function(*[x.astype("float32") for x in given])
        for k, m in enumerate(masks):
            if m is not None and given[k] is not None:
                assert not result[1 + k][~m].any(), "a masked step has a gradient"
        found.append(result)
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            assert np.isfinite(b).all()
            np.testing.assert_allclose(b, a, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("layer", [Attention, AdditiveAttention, MultiHeadAttention])
def test_attention_weights_are_zero_if_all_steps_are_masked(layer, dtype):
    options = {"num_heads": 2, "key_dim": 2} if layer is MultiHeadAttention else {}
    layer = layer(dtype=dtype, **options)
    query, value = (pt.tensor(dtype=dtype, shape=(None, None, 3)) for _ in range(2))
    masks = [None, np.array([[0] * 5, [0, 1, 0, 0, 0]], bool)]
    y, weights = apply(layer, [query, value], masks, return_attention_scores=True)
    gradients = pytensor.grad(pt.sum(pt.sqr(y)), [query, value, *layer.weights])
    function = backend.compile([query, value], [y, weights, *gradients], name="test")
    y, weights, *gradients = function(1e3 * SHORT.astype(dtype), 1e3 * A.astype(dtype))
    assert not weights[0].any()
    np.testing.assert_allclose(weights[1].sum(axis=-1), 1)
    assert not y[0].any()  # the biases are zero
    assert all(np.isfinite(g).all() for g in [y, *gradients])
    assert not gradients[1][0].any()


def test_dropout_of_attention_weights_is_active_only_in_training():
    layer = Attention(dropout=0.5, dtype="float64")
    query, value = np.ones((50, 1, 2)), np.ones((50, 8, 2))
    context = CallContext(training=True)
    trained = apply(layer, [query, value], context=context)[0]
    y = backend.compile([], [trained], context.updates, name="test")()[0]
    assert y.std() > 0.05
    assert y.mean() == pytest.approx(1, abs=0.1)
    np.testing.assert_allclose(apply(layer, [query, value])[0], 1)


def test_additive_scores_are_the_same_with_and_without_the_kernel():
    layer = AdditiveAttention(dtype="float64")
    query, value = (pt.tensor(dtype="float64", shape=(None, None, 3)) for _ in range(2))
    y = layer([query.transpose(1, 0, 2), value])
    outputs = [y, *pytensor.grad(pt.sum(pt.sqr(y)), [query, value, layer.scale])]
    kernels = backend.compile([query, value], outputs, name="test")
    plain = pytensor.function([query, value], outputs, mode=numpy_mode())
    given = np.ascontiguousarray(SHORT.transpose(1, 0, 2)), A
    for a, b in zip(kernels(*given), plain(*given), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


# ------------------------------------------------------------------------------ invalid input


def shaped(*shape):
    return pt.tensor(dtype="float32", shape=shape)


X, Y = shaped(None, 4, 3), shaped(None, 5, 3)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.add([X, Y]), ValueError, r"'add' \(Add\).*\(None, 4, 3\) and .*axis 1 has"),
        (lambda: layers.add(X), ValueError, "takes a list of inputs, such as layer"),
        (lambda: layers.subtract([X, X, X]), ValueError, "takes two inputs, got 3"),
        (lambda: layers.concatenate([X, Y]), ValueError, "axis 1 has the sizes 4, 5"),
        (lambda: layers.concatenate([X, X], axis=3), ValueError, "joins axis 3 of inputs"),
        (lambda: layers.concatenate([X, shaped(None, 3)]), ValueError, "same number of axes"),
        (lambda: Concatenate(axis=0), ValueError, "not the batch"),
        (lambda: Concatenate(axis="time"), TypeError, "must be an integer"),
        (lambda: layers.dot([X, Y], axes=1), ValueError, "must be equal"),
        (lambda: layers.dot([X, X], axes=4), ValueError, "do not have"),
        (lambda: Dot(axes=(1, 2, 3)), ValueError, "one for each input"),
        (lambda: Attention(score_mode="mean"), ValueError, "'dot' or 'concat'"),
        (lambda: Attention()(X), ValueError, "takes a list of inputs"),
        (lambda: Attention()([X, shaped(None, 5, 4)]), ValueError, "features of the query and"),
        (lambda: Attention()([X, X, Y]), ValueError, "steps of the value and the key"),
        (lambda: Attention()([X, shaped(None, 3)]), ValueError, r"query, value.*\(None, 3\)"),
        (
            lambda: AdditiveAttention()([shaped(None, 4, None)] * 2),
            ValueError,
            "number of features",
        ),
        (lambda: MultiHeadAttention(2, 2)(X), TypeError, "needs value"),
        (lambda: MultiHeadAttention(2, 2)([X, X], X), ValueError, "takes one input"),
        (lambda: MultiHeadAttention(2, 2)(X, shaped(None, 3)), ValueError, "takes a key"),
        (lambda: MultiHeadAttention(2, 2)(X, X, Y), ValueError, "as many steps"),
        (lambda: MultiHeadAttention(0, 2), ValueError, "num_heads must be at least 1"),
        (lambda: MultiHeadAttention(1, 2, attention_axes=(1, 2)), ValueError, "the time axis"),
        (
            lambda: MultiHeadAttention(1, 2)(X, X, attention_mask=MASK),
            ValueError,
            "attention_mask of layer",
        ),
    ],
)
def test_incompatible_inputs_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()


@pytest.mark.parametrize(
    "layer",
    [
        Concatenate(axis=1, name="a"),
        Dot((1, 2), normalize=True),
        Attention(True, "concat", 0.25),
        AdditiveAttention(False, 0.5),
        MultiHeadAttention(2, 3, value_dim=4, output_shape=(5, 2), attention_axes=1),
    ],
)
def test_configurations_round_trip(layer):
    config = json.loads(json.dumps(seqnet.registry.serialize(layer)))
    again = seqnet.registry.get("layer", config)
    assert type(again) is type(layer)
    assert again.get_config() == layer.get_config()


def test_multi_head_attention_may_have_several_output_axes():
    layer = MultiHeadAttention(2, 3, output_shape=(5, 2))
    assert layer(X, Y).type.shape == (None, 4, 5, 2) or layer(X, Y).ndim == 4
    assert layer.compute_output_shape((None, 4, 3)) == (None, 4, 5, 2)


@pytest.mark.parametrize("kind", [Attention, AdditiveAttention])
def test_attention_within_an_outer_axis_equals_that_of_each_part(kind):
    rng = np.random.default_rng(0)
    query, value = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(2, 3, 6, 5))
    inner, outer = rng.random((2, 3, 6)) < 0.6, np.array([[1, 1, 0], [1, 0, 1]], bool)
    layer = kind(use_scale=True, dtype="float64")
    found, weights = layer(
        [query, value], mask=[outer, inner], return_attention_scores=True, use_causal_mask=True
    )
    assert weights.shape == (2, 3, 4, 6)
    for k in range(3):
        steps = np.repeat(outer[:, k, None], 4, axis=1)
        one = layer([query[:, k], value[:, k]], mask=[steps, inner[:, k]], use_causal_mask=True)
        np.testing.assert_allclose(found[:, k], one, rtol=1e-12)
    assert layer.compute_output_shape([(None, 3, 4, 5), (None, 3, 6, 5)]) == (None, 3, 4, 5)
    with pytest.raises(ValueError, match="as many of axis 1 of the inputs, got 3 and 2"):
        layer([query, value[:, :2]])
