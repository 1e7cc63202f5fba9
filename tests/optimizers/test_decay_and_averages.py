"""Weight decay, averages of weights, and weights in `change`: models, files, table rows."""

import numpy as np
import pytest

import seqnet
from seqnet import optimizers
from seqnet.callbacks import Callback
from seqnet.layers import Dense, Embedding
from seqnet.ops import lookup
from seqnet.optimizers import Optimizer

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(12, 2)), RNG.normal(size=(12, 1))
ROWS = 2000


def model_with(optimizer, dtype="float64"):
    seqnet.set_random_seed(1)
    model = seqnet.Model([Dense(3, "tanh", dtype=dtype), Dense(1, dtype=dtype)])
    model.compile(optimizer, "mse")
    return model


def table_model(optimizer, **options):
    seqnet.set_random_seed(0)
    model = seqnet.Model(
        [Embedding(ROWS, 2, dtype="float64", **options), Dense(1, dtype="float64")]
    )
    model.compile(optimizer, "mse")
    return model


def table_batches(count):
    rng = np.random.default_rng(3)
    for _ in range(count):
        x = rng.integers(0, ROWS, (4, 5))
        yield np.where(rng.random(x.shape) < 0.7, x % 5, x), rng.normal(size=(4, 5, 1))


def by_rows(model):
    """Return whether the last function that was compiled updates single rows."""
    function = list(model.steps.functions.values())[-1]
    nodes = function.maker.fgraph.apply_nodes
    return any(isinstance(getattr(n.op, "op", n.op), lookup.SumRows) for n in nodes)


@pytest.mark.parametrize(
    "make",
    [
        lambda **o: optimizers.Nadam(0.01, **o),
        lambda **o: optimizers.Adam(0.01, amsgrad=True, **o),
        lambda **o: optimizers.RMSprop(0.01, momentum=0.9, centered=True, **o),
    ],
)
def test_the_next_update_of_a_loaded_model_is_the_same(make, tmp_path):
    model = model_with(make(weight_decay=0.1, use_ema=True, ema_overwrite_frequency=3))
    model.build((None, 2))
    model.optimizer.exclude_from_weight_decay([model.layers[0].bias], ["dense_1/kernel"])
    model.fit(X, Y, 4, verbose=0)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.optimizer.get_config() == model.optimizer.get_config()
    for _ in range(2):
        assert again.train_on_batch(X, Y) == model.train_on_batch(X, Y)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)


# ------------------------------------------------------------------- decay of some weights


def test_excluded_weights_do_not_decay():
    def trained(choose):
        optimizer = optimizers.SGD(0.5, weight_decay=0.5)
        model = model_with(optimizer)
        model.build((None, 2))
        for layer in model.layers:
            layer.bias.set_value(np.ones_like(layer.bias.get_value()))
        choose(optimizer, model)
        before = model.get_weights()
        model.train_on_batch(X, Y, sample_weight=np.zeros(12))  # no gradient
        pairs = zip(before, model.get_weights(), strict=True)
        ratios = [float((new / old).mean()) for old, new in pairs]
        return ratios

    assert trained(lambda o, m: None) == [0.75] * 4
    for choice in (
        {"var_names": ["bias"]},
        {"var_names": ["^bias$"]},
        {"var_list": "biases"},
    ):

        def choose(optimizer, model, choice=choice):
            if "var_list" in choice:
                choice = {"var_list": [layer.bias for layer in model.layers]}
            optimizer.exclude_from_weight_decay(**choice)

        assert trained(choose) == [0.75, 1.0, 0.75, 1.0]
    assert trained(lambda o, m: o.exclude_from_weight_decay(var_names=["dense_1/"])) == [
        *(0.75, 0.75, 1.0, 1.0)
    ]


def test_excluded_weights_can_change_at_any_time(compiled):
    model = model_with(optimizers.SGD(0.5, weight_decay=0.5))
    for names in (None, ["bias"], None):
        model.optimizer.exclude_from_weight_decay(var_names=names)
        model.train_on_batch(X, Y)
    model.optimizer.weight_decay = 0.25
    model.train_on_batch(X, Y)
    assert compiled == ["training", "training"]


@pytest.mark.parametrize(
    ("choice", "error", "message"),
    [
        ({"var_names": "bias"}, TypeError, r"a list of names, such as \['bias'\]"),
        ({"var_names": [3]}, TypeError, "var_names takes text, got 3"),
        ({"var_names": ["("]}, ValueError, "no regular expression"),
        ({"var_list": ["bias"]}, TypeError, "weights of layers, such as layer.bias"),
    ],
)
def test_a_wrong_choice_of_excluded_weights_is_refused(choice, error, message):
    with pytest.raises(error, match=message):
        optimizers.AdamW().exclude_from_weight_decay(**choice)


# -------------------------------------------------------------------------------- averages


class Weights(Callback):
    def __init__(self):
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append(self.model.get_weights())


def test_fit_ends_with_the_averages_as_weights():
    model, seen = model_with(optimizers.SGD(0.1, use_ema=True, ema_momentum=0.75)), Weights()
    model.fit(X, Y, 4, epochs=2, verbose=0, callbacks=[seen])
    for number, found in enumerate(model.get_weights()):
        average = seen.seen[0][number]
        for weights in seen.seen[1:]:
            average = 0.75 * average + 0.25 * weights[number]
        np.testing.assert_allclose(found, average, rtol=1e-12)
        assert not np.array_equal(found, seen.seen[-1][number])


def test_an_interrupted_fit_keeps_the_weights():
    class Fail(Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise RuntimeError("stopped")

    model, seen = model_with(optimizers.SGD(0.1, use_ema=True)), Weights()
    with pytest.raises(RuntimeError, match="stopped"):
        model.fit(X, Y, 4, verbose=0, callbacks=[seen, Fail()])
    for found, expected in zip(model.get_weights(), seen.seen[-1], strict=True):
        np.testing.assert_array_equal(found, expected)


def test_frozen_weights_have_no_average():
    model = model_with(optimizers.SGD(0.1, use_ema=True))
    model.layers[0].trainable = False
    model.build((None, 2))
    before = model.layers[0].get_weights()
    model.fit(X, Y, 4, verbose=0)
    assert set(model.optimizer.state_dict()["slots"]["weight_average"]) == {
        *("dense_1/kernel", "dense_1/bias")
    }
    for found, expected in zip(model.layers[0].get_weights(), before, strict=True):
        np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"use_ema": 3}, TypeError, "use_ema"),
        ({"ema_momentum": 1.5}, ValueError, "ema_momentum must be at least 0 and below 1"),
        ({"ema_overwrite_frequency": 0}, ValueError, "ema_overwrite_frequency"),
        ({"weight_decay": -0.1}, ValueError, "weight_decay must be at least 0 or None"),
        ({"clipnorm": 0}, ValueError, "clipnorm must be above 0 or None"),
        ({"weightdecay": 0.1}, TypeError, "Did you mean 'weight_decay'"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        optimizers.SGD(0.1, **options)


def test_wrong_numbers_of_one_optimizer_are_refused():
    with pytest.raises(ValueError, match="AdamW is a number; use Adam"):
        optimizers.AdamW(weight_decay=None)
    with pytest.raises(ValueError, match="beta_1 must be above 0 and below 1"):
        optimizers.Lion(beta_1=0.0)
    assert optimizers.AdamW(weight_decay=0.0).weight_decay == 0.0


# --------------------------------------------------------------------------- rows of tables


@pytest.mark.parametrize("options", [{"weight_decay": 0.1}, {"use_ema": True}], ids=str)
def test_a_table_of_which_all_rows_change_is_updated_as_a_whole(options, monkeypatch):
    def trained():
        model = table_model(optimizers.RMSprop(0.01, centered=True, **options))
        for x, y in table_batches(5):
            model.train_on_batch(x, y)
        assert not by_rows(model)
        slots = model.optimizer.state_dict()["slots"]
        return [*model.get_weights(), *(v for s in slots.values() for v in s.values())]

    found = trained()
    monkeypatch.setattr(lookup, "FEW_ROWS", 10**9)
    for mine, theirs in zip(found, trained(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


def test_a_table_that_does_not_decay_is_updated_by_rows():
    model = table_model(optimizers.SGD(0.1, weight_decay=0.1))
    model.optimizer.exclude_from_weight_decay(var_names=["embeddings"])
    model.train_on_batch(*next(table_batches(1)))
    assert by_rows(model)


def test_idle_rows_are_correct_after_decay_is_switched_on(monkeypatch):
    def trained():
        model = table_model(optimizers.RMSprop(0.01, centered=True))
        for number, (x, y) in enumerate(table_batches(9)):
            model.optimizer.weight_decay = 0.1 if number in (3, 4, 6) else None
            if number == 5:
                model.optimizer.momentum = 0.5
            if number == 7:
                model.optimizer.rho = 0.8
            model.train_on_batch(x, y)
        return model.get_weights()

    found = trained()
    monkeypatch.setattr(lookup, "FEW_ROWS", 10**9)
    for mine, theirs in zip(found, trained(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-9, atol=1e-12)


# ---------------------------------------------------------------------- weights in `change`


class Proximal(Optimizer):
    """A custom optimizer with the weight as an argument of `change`."""

    slots = ("m",)

    def supports_sparse_rows(self):
        return True

    def change(self, gradient, h, weight, m):
        m = 0.5 * m + gradient
        return -h.learning_rate * (gradient + 0.1 * weight), {"m": m}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_change_gets_the_weight(dtype):
    model = model_with(Proximal(0.5), dtype)
    model.build((None, 2))
    before = model.get_weights()
    model.train_on_batch(X, Y, sample_weight=np.zeros(12))
    for old, new in zip(before, model.get_weights(), strict=True):
        assert new.dtype == dtype
        np.testing.assert_allclose(new, 0.95 * old, rtol=1e-6)


def test_change_gets_the_weight_after_its_decay():
    model = model_with(Proximal(0.5, weight_decay=1.0))
    model.build((None, 2))
    before = model.get_weights()
    model.train_on_batch(X, Y, sample_weight=np.zeros(12))
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_allclose(new, 0.95 * 0.5 * old, rtol=1e-12)


def test_change_gets_the_rows_that_were_looked_up():
    model = table_model(Proximal(0.5))
    model.build((None, 5))
    before = model.get_weights()[0]
    x, y = next(table_batches(1))
    model.train_on_batch(x, y, sample_weight=np.zeros(4))
    assert by_rows(model)
    rows = np.isin(np.arange(ROWS), x)
    np.testing.assert_allclose(model.get_weights()[0], np.where(rows[:, None], 0.95, 1) * before)


@pytest.mark.parametrize("name", ["weight", "weight_average"])
def test_reserved_names_of_slots_are_refused(name):
    class Own(Optimizer):
        slots = (name,)

        def change(self, gradient, h, **slots):
            return -gradient, slots

    with pytest.raises(ValueError, match=f"Own cannot have a slot named '{name}'"):
        Own(0.1)


@pytest.mark.parametrize(
    ("name", "near"),
    [("adamww", "AdamW"), ("nadamm", "Nadam"), ("adamx", "Adamax"), ("lyon", "Lion")],
)
def test_an_unknown_name_suggests_the_nearest(name, near):
    with pytest.raises(ValueError, match=rf"(?i)Did you mean '{near}'"):
        optimizers.get(name)
    assert type(optimizers.get(near.lower())).__name__ == near
