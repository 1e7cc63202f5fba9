import json

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as float_arrays
from reference import cases, load_arrays, numpy_training

import seqnet
from seqnet import backend, optimizers
from seqnet.layers import Dense
from seqnet.optimizers import (
    SGD,
    Adadelta,
    Adagrad,
    Adam,
    Adamax,
    AdamW,
    Hyperparameter,
    Lion,
    Nadam,
    Optimizer,
    RMSprop,
)
from seqnet.registry import register

KERAS = load_arrays("keras")
OLDEST = {"sgd": SGD, "adagrad": Adagrad, "adadelta": Adadelta, "rmsprop": RMSprop, "adam": Adam}
"""Those of which `reference.numpy_training` has the formula."""
CLASSES = OLDEST | {"adamw": AdamW, "adamax": Adamax, "nadam": Nadam, "lion": Lion}
EVERY_OPTIMIZER = pytest.mark.parametrize("cls", list(CLASSES.values()))


def weight(value, name="w", dtype="float64"):
    return pytensor.shared(np.array(value, dtype=dtype), name=name)


def compile_steps(optimizer, *weights):
    """Return a function that makes one update with given gradients: d(sum w g)/dw is g."""
    given = [pt.tensor(f"g{k}", dtype=w.dtype, shape=w.type.shape) for k, w in enumerate(weights)]
    loss = sum(pt.sum(w * g) for w, g in zip(weights, given, strict=True))
    return backend.compile(given, [], optimizer.updates(loss, list(weights)), name="step")


def walk(optimizer, start, gradients):
    """Return the values of a weight after the update with each gradient."""
    w = weight(start)
    step = compile_steps(optimizer, w)
    visited = []
    for gradient in gradients:
        step(gradient)
        visited.append(w.get_value())
    return np.stack(visited)


# ----------------------------------------------------------------- results of Keras and theano_lstm


@pytest.mark.parametrize("name", cases.OPTIMIZERS)
def test_updates_equal_those_of_keras(name):
    stored = KERAS[f"optimizer_{name}"]
    function, hyperparameters = cases.OPTIMIZERS[name]
    assert json.loads(str(stored["hyperparameters"])) == hyperparameters
    visited = walk(CLASSES[function](**hyperparameters), stored["parameter"], stored["gradients"])
    np.testing.assert_allclose(visited, stored["trajectory"], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", cases.THEANO_LSTM)
def test_default_updates_equal_those_of_theano_lstm(name):
    """Its clipping also scales gradients within the limit, by 1e-6 / |g|, hence the tolerance."""
    w = weight([1.0, -2.0])
    optimizer = CLASSES[name](clipnorm=5.0)
    updates = optimizer.updates(0.5 * pt.sum(pt.sqr(w)), [w])
    step = backend.compile([], [], updates, name="step")
    for expected in cases.THEANO_LSTM[name]:
        step()
        np.testing.assert_allclose(w.get_value(), expected, rtol=0, atol=5e-8)


@pytest.mark.parametrize("name", cases.THEANO_LSTM)
def test_updates_with_theano_lstm_clipping_equal_those_of_theano_lstm(name):
    w = weight([1.0, -2.0])
    step = compile_steps(CLASSES[name](), w)
    for expected in cases.THEANO_LSTM[name]:
        gradient = w.get_value()
        norm = np.linalg.norm(gradient)
        step(gradient * min(5.0, norm) / (norm + 1e-6))
        np.testing.assert_allclose(w.get_value(), expected, rtol=0, atol=2e-11)


def test_a_large_gradient_is_clipped_as_in_theano_lstm():
    # theano_lstm gives [27.00000006, 36.00000008]: it divides by 50.000001.
    w = weight([30.0, 40.0])
    optimizer = SGD(1.0, clipnorm=5.0)
    step = backend.compile([], [], optimizer.updates(0.5 * pt.sum(pt.sqr(w)), [w]), name="step")
    step()
    np.testing.assert_allclose(w.get_value(), [27.0, 36.0], rtol=1e-14)


@pytest.mark.parametrize("cls", list(OLDEST.values()))
def test_float32_follows_the_reference_to_its_precision(cls):
    arrays = cases.optimizer_inputs()
    function = next(name for name, known in CLASSES.items() if known is cls)
    w = weight(arrays["parameter"], dtype="float32")
    step = compile_steps(cls(learning_rate=0.05), w)
    for gradient in arrays["gradients"]:
        step(gradient.astype("float32"))
    options = {"epsilon": cls().epsilon} if hasattr(cls, "epsilon") else {}
    expected = numpy_training.trajectory(
        getattr(numpy_training, function),
        arrays["parameter"],
        arrays["gradients"],
        learning_rate=0.05,
        **options,
    )
    assert w.get_value().dtype == np.float32
    np.testing.assert_allclose(w.get_value(), expected[-1], rtol=1e-5, atol=1e-6)


# -------------------------------------------------------------------------------- clipping

CLIPPING = {
    "clip_by_value": "clipvalue",
    "clip_by_norm": "clipnorm",
    "clip_by_global_norm": "global_clipnorm",
}


def clipped(kind, limit, gradients):
    """Return the gradients after clipping: the update of zeros by SGD with rate 1, negated."""
    weights = [weight(np.zeros_like(g), f"w{k}") for k, g in enumerate(gradients)]
    compile_steps(SGD(1.0, **{CLIPPING[kind]: limit}), *weights)(*gradients)
    return [-w.get_value() for w in weights]


@pytest.mark.parametrize("kind", CLIPPING)
def test_clipping_equals_that_of_keras(kind):
    stored = KERAS[kind]
    result = clipped(kind, float(stored["limit"]), [stored["gradient_0"], stored["gradient_1"]])
    np.testing.assert_allclose(result[0], stored["clipped_0"], rtol=1e-12)
    np.testing.assert_allclose(result[1], stored["clipped_1"], rtol=1e-12)


@pytest.fixture(scope="module", params=list(CLIPPING))
def clip_anything(request):
    """Return the name of a clipping, and a compiled function of a limit and two gradients."""
    weights = [weight(np.zeros((2, 2)), "a"), weight(np.zeros(3), "b")]
    optimizer = SGD(1.0, **{CLIPPING[request.param]: 1.0})
    step = compile_steps(optimizer, *weights)

    def clip(limit, *gradients):
        for w in weights:
            w.set_value(np.zeros_like(w.get_value()))
        setattr(optimizer, CLIPPING[request.param], limit)
        step(*gradients)
        return [-w.get_value() for w in weights]

    return request.param, clip


values = st.floats(-1e3, 1e3, width=32)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    first=float_arrays(np.float64, (2, 2), elements=values),
    second=float_arrays(np.float64, (3,), elements=values),
    limit=st.floats(0.01, 100),
)
def test_clipping_equals_the_reference_for_any_gradients(clip_anything, first, second, limit):
    kind, clip = clip_anything
    expected = getattr(numpy_training, kind)([first, second], limit)
    for result, value in zip(clip(limit, first, second), expected, strict=True):
        np.testing.assert_allclose(result, value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", CLIPPING)
def test_a_gradient_within_the_limit_is_not_touched(kind):
    gradients = [np.array([0.3, -0.4]), np.array([0.1])]
    for result, gradient in zip(clipped(kind, 1.0, gradients), gradients, strict=True):
        np.testing.assert_array_equal(result, gradient)


@pytest.mark.parametrize("kind", CLIPPING)
def test_clipping_keeps_a_zero_gradient(kind):
    assert not clipped(kind, 1.0, [np.zeros(3)])[0].any()


def test_clipping_together_keeps_the_direction():
    gradients = [np.array([3.0, 4.0]), np.array([12.0])]
    together = np.concatenate(clipped("clip_by_global_norm", 1.3, gradients))
    np.testing.assert_allclose(together, np.array([3.0, 4.0, 12.0]) / 10)


# ------------------------------------------------------------- hyperparameters that change later


@EVERY_OPTIMIZER
def test_a_new_learning_rate_takes_effect_without_recompiling(cls):
    w = weight([1.0, 2.0])
    optimizer = cls(0.5)
    step = compile_steps(optimizer, w)
    optimizer.learning_rate = 0.0
    step(np.ones(2))
    np.testing.assert_array_equal(w.get_value(), [1.0, 2.0])
    optimizer.learning_rate = 0.5
    step(np.ones(2))
    assert (w.get_value() < [1.0, 2.0]).all()


def small_model(optimizer):
    model = seqnet.Model([Dense(1, dtype="float64")])
    model.compile(optimizer, "mse")
    x = np.array([[1.0, 2.0], [3.0, -1.0], [0.5, 0.5]])
    return model, x, x @ np.array([[2.0], [-1.0]])


def test_changing_numbers_does_not_recompile(compiled):
    optimizer = SGD(0.1, momentum=0.5, clipnorm=1.0)
    model, x, y = small_model(optimizer)
    model.train_on_batch(x, y)
    assert compiled == ["training"]
    optimizer.learning_rate, optimizer.momentum, optimizer.clipnorm = 0.01, 0.9, 0.1
    before = model.get_weights()
    model.train_on_batch(x, y)
    model.fit(x, y, verbose=0)
    assert compiled == ["training"]
    assert not np.array_equal(before[0], model.get_weights()[0])


def test_momentum_switched_on_later_takes_effect():
    optimizer = SGD(0.1)
    model, x, y = small_model(optimizer)
    model.train_on_batch(x, y)
    optimizer.momentum = 0.9
    start = model.get_weights()
    model.train_on_batch(x, y)
    model.train_on_batch(x, y)
    other, _, _ = small_model(SGD(0.1, momentum=0.9))
    other.build((None, 2))
    other.set_weights(start)
    other.train_on_batch(x, y)
    other.train_on_batch(x, y)
    np.testing.assert_allclose(model.get_weights()[0], other.get_weights()[0], rtol=1e-12)
    plain, _, _ = small_model(SGD(0.1))
    plain.build((None, 2))
    plain.set_weights(start)
    plain.train_on_batch(x, y)
    plain.train_on_batch(x, y)
    assert np.abs(model.get_weights()[0] - plain.get_weights()[0]).max() > 1e-3


def test_clipping_switched_on_and_off_later_takes_effect():
    optimizer = SGD(1.0)
    model, x, y = small_model(optimizer)
    model.train_on_batch(x, y)
    optimizer.clipvalue = 1e-3
    before = model.get_weights()[0]
    model.train_on_batch(x, y)
    np.testing.assert_allclose(np.abs(model.get_weights()[0] - before), 1e-3)
    optimizer.clipvalue = None
    before = model.get_weights()[0]
    model.train_on_batch(x, y)
    assert np.abs(model.get_weights()[0] - before).max() > 1e-2


def test_a_second_kind_of_clipping_set_later_is_refused(no_compile):
    optimizer = SGD(1.0, clipvalue=1.0)
    optimizer.clipnorm = 1.0
    model, x, y = small_model(optimizer)
    with pytest.raises(ValueError, match=r"Only one of .* clipvalue and clipnorm"):
        model.train_on_batch(x, y)


# ------------------------------------------------------------------------------- the state


@EVERY_OPTIMIZER
def test_a_restored_state_continues_exactly(cls):
    options = {"momentum": 0.9} if cls is SGD else {}
    arrays = cases.optimizer_inputs()
    gradients = arrays["gradients"]
    whole = walk(cls(0.1, **options), arrays["parameter"], gradients)

    first = cls(0.1, **options)
    half = walk(first, arrays["parameter"], gradients[:3])
    state = first.state_dict()
    assert state["iterations"] == 3
    assert set(state["slots"]) == set(cls.slots)

    second = cls(0.1, **options)
    w = weight(half[-1])
    second.load_state_dict(state, [w])
    step = compile_steps(second, w)
    for gradient in gradients[3:]:
        step(gradient)
    np.testing.assert_array_equal(w.get_value(), whole[-1])


def test_a_state_is_a_copy():
    optimizer = Adam()
    w = weight([1.0])
    step = compile_steps(optimizer, w)
    step(np.ones(1))
    kept = optimizer.state_dict()["slots"]["momentum"]["w"].copy()
    state = optimizer.state_dict()
    step(np.ones(1))
    np.testing.assert_array_equal(state["slots"]["momentum"]["w"], kept)


def test_a_state_of_other_weights_is_refused():
    optimizer = Adam()
    compile_steps(optimizer, weight([1.0]))
    state = optimizer.state_dict()
    with pytest.raises(ValueError, match="belong to w, an unknown weight"):
        Adam().load_state_dict(state, [weight([1.0], "other")])
    with pytest.raises(ValueError, match=r"of w have shape \(1,\), not \(2,\)"):
        Adam().load_state_dict(state, [weight([1.0, 2.0])])


def test_one_optimizer_of_two_models_of_equal_names_is_refused(no_compile):
    optimizer = Adam()
    optimizer.updates(pt.sum(w := weight([1.0, 2.0])), [w])
    with pytest.raises(ValueError, match="another weight named w"):
        optimizer.updates(pt.sum(v := weight([1.0, 2.0, 3.0])), [v])


def test_slots_are_created_when_needed():
    optimizer = SGD(0.1)
    w = weight([1.0])
    compile_steps(optimizer, w)
    assert optimizer.state_dict()["slots"]["velocity"] == {}


# --------------------------------------------------------------------- names and settings


@pytest.mark.parametrize("name", CLASSES)
def test_optimizers_are_found_by_name(name):
    assert type(optimizers.get(name)) is CLASSES[name]
    assert type(optimizers.get(CLASSES[name].__name__)) is CLASSES[name]
    assert type(optimizers.get(CLASSES[name])) is CLASSES[name]


@EVERY_OPTIMIZER
def test_an_optimizer_round_trips_through_its_configuration(cls):
    optimizer = cls(0.123, global_clipnorm=2.5)
    config = optimizer.get_config()
    assert json.loads(json.dumps(config)) == config
    again = cls.from_config(config)
    assert again.get_config() == config
    assert (again.learning_rate, again.global_clipnorm, again.clipnorm) == (0.123, 2.5, None)


def test_defaults_equal_those_of_the_papers_and_of_keras():
    assert Adadelta().get_config() == {
        "learning_rate": 1.0,
        "rho": 0.95,
        "epsilon": 1e-6,
        "weight_decay": None,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
        "use_ema": False,
        "ema_momentum": 0.99,
        "ema_overwrite_frequency": None,
    }
    assert Adagrad().initial_accumulator_value == 0.0
    assert (Adam().learning_rate, Adam().beta_1, Adam().beta_2, Adam().epsilon) == (
        0.001,
        0.9,
        0.999,
        1e-7,
    )
    assert (RMSprop().learning_rate, RMSprop().rho) == (0.001, 0.9)
    assert (SGD().learning_rate, SGD().momentum, SGD().nesterov) == (0.01, 0.0, False)


# ------------------------------------------------------------- custom optimizers


@register("optimizer", "signed_momentum")
class SignedMomentum(Optimizer):
    """The sign of a mean: ``m' = b m + (1 - b) g``, ``w' = w - r sign(m')``."""

    slots = ("mean",)
    beta = Hyperparameter(below=1.0)

    def __init__(self, learning_rate=0.01, beta=0.5, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.beta = beta

    def change(self, gradient, h, mean):
        mean = h.beta * mean + (1 - h.beta) * gradient
        return -h.learning_rate * pt.sign(mean), {"mean": mean}


def test_a_custom_optimizer_class_is_sufficient():
    gradients = np.array([[1.0, -1.0], [-0.5, 3.0], [-2.0, 0.0]])
    visited = walk(SignedMomentum(0.1), np.zeros(2), gradients)
    # Means: [.5, -.5], [0, 1.25], [-1, .625].
    np.testing.assert_allclose(visited, [[-0.1, 0.1], [-0.1, 0.0], [0.0, -0.1]], atol=1e-15)


def test_a_custom_optimizer_clips_trains_and_is_found_by_name():
    model, x, y = small_model("signed_momentum")
    assert isinstance(model.optimizer, SignedMomentum)
    model.optimizer.learning_rate = 0.05
    model.optimizer.global_clipnorm = 1.0
    losses = model.fit(x, y, epochs=40, verbose=0).history["loss"]
    assert losses[-1] < 0.1 * losses[0]
    assert model.optimizer.get_config()["beta"] == 0.5


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("lr", "learning_rate"),
        ("learningrate", "learning_rate"),
        ("learn_rate", "learning_rate"),
        ("clip_norm", "clipnorm"),
        ("beta1", "beta_1"),
    ],
)
def test_a_wrong_name_of_a_hyperparameter_is_an_error(name, meant):
    optimizer = seqnet.optimizers.Adam()
    with pytest.raises(AttributeError, match=f"Adam has no '{name}'. Did you mean '{meant}'"):
        setattr(optimizer, name, 0.5)
    assert name not in vars(optimizer)
