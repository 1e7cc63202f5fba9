"""Stacks and graphs are restored from configurations and files."""

import copy
import json
import logging
import pickle

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet.callbacks import BackupAndRestore, Callback
from seqnet.layers import LSTM, Dense, Dropout, Embedding, Lambda, Layer, SimpleRNN, TimeDistributed
from seqnet.saving import operations

RNG = np.random.default_rng(0)
DATA = {
    "source": RNG.normal(size=(6, 5, 3)).astype("float32"),
    "target": RNG.normal(size=(6, 4, 3)).astype("float32"),
}
LABELS = {"last": RNG.normal(size=(6, 1)), "words": RNG.integers(0, 2, (6, 4))}


def translation():
    """Return a compiled model with all features of a graph."""
    inputs = {name: seqnet.Input((None, 3), name=name) for name in ("source", "target")}
    x = seqnet.Input((None, 3))
    shared = seqnet.Model(x, Dropout(0.5)(Dense(3)(x * 0.5)))
    h, *states = LSTM(4, return_state=True)(shared(inputs["source"]))
    steps = LSTM(4, return_sequences=True)(shared(inputs["target"]), initial_state=states)
    outputs = {
        "words": Dense(2, activation="softmax")(steps),
        "last": Dense(1)(pt.concatenate([pt.tanh(h), 1 - states[1][:, 1:]], axis=-1)),
    }
    model = seqnet.Model(inputs, outputs, name="translation")
    losses = {"words": "sparse_categorical_crossentropy", "last": "mse"}
    metrics = {"words": ["accuracy"]}
    model.compile(seqnet.optimizers.Adam(0.01), losses, metrics, {"last": 0.5})
    return model


@pytest.fixture(scope="module")
def trained():
    seqnet.set_random_seed(1)
    model = translation()
    model.train_on_batch(DATA, LABELS)
    return model


def saved(model, path):
    model.save(path)
    return seqnet.load_model(path)


def pickled(model, path):
    return pickle.loads(pickle.dumps(model))


def copied(model, path):
    return copy.deepcopy(model)


@pytest.mark.parametrize("through", [saved, pickled, copied])
def test_a_graph_is_restored_with_the_same_next_update(trained, through, tmp_path):
    original = copy.deepcopy(trained)
    again = through(original, tmp_path / "model.h5")
    results = [m.train_on_batch(DATA, LABELS, return_dict=True) for m in (original, again)]
    assert results[0] == results[1]
    assert "words_accuracy" in results[1]
    for first, second in zip(original.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert list(again.predict(DATA)) == ["words", "last"]
    assert again.loss_weights == {"last": 0.5}
    assert again.name == "translation"


def test_a_configuration_is_json_and_makes_an_equal_one(trained):
    text = trained.to_json()
    again = seqnet.model_from_json(text)
    assert again.get_config() == json.loads(json.dumps(trained.get_config()))
    assert again.input_names == ("source", "target")
    assert again.optimizer is None
    again.set_weights(trained.get_weights())
    for name, value in again.predict(DATA).items():
        np.testing.assert_allclose(value, trained.predict(DATA)[name], rtol=1e-6)


def test_a_stack_keeps_its_input_and_what_is_not_built_stays_so():
    stack = seqnet.Model([seqnet.Input((4, 2), name="steps"), SimpleRNN(3)])
    again = seqnet.Model.from_config(stack.get_config())
    assert (again.input_names, again.input_shape) == (("steps",), (None, 4, 2))
    assert not seqnet.Model.from_config(seqnet.Model([Dense(2)]).get_config()).built


class Doubled(Layer):
    def call(self, inputs):
        return 2 * inputs


def test_a_clone_has_layers_and_weights_of_its_own():
    x = seqnet.Input((3,))
    inner = seqnet.Model([Dense(3, input_shape=(3,)), Doubled()])
    model = seqnet.Model(x, Doubled()(inner(x)))
    clone = seqnet.clone_model(model)
    assert not set(clone.weights) & set(model.weights)
    clone.set_weights(model.get_weights())
    values = np.ones((2, 3), "float32")
    np.testing.assert_array_equal(clone.predict(values), model.predict(values))


def test_models_inside_models_have_names_of_their_own(tmp_path):
    x = seqnet.Input((None, 3))
    parts = [seqnet.Model([Dense(3, input_shape=(None, 3))]) for _ in range(2)]
    model = seqnet.Model(x, TimeDistributed(Dense(2))(parts[1](parts[0](x))))
    assert [layer.name for layer in model.layers[:2]] == ["model", "model_1"]
    again = saved(model, tmp_path / "model.h5")
    for first, second in zip(model.weights, again.weights, strict=True):
        assert first.name == second.name
        np.testing.assert_array_equal(first.get_value(), second.get_value())


def test_a_model_that_was_trained_inside_another_is_saved_alone(tmp_path):
    x = seqnet.Input((3,))
    inner = seqnet.Model([Dense(3, input_shape=(3,))], name="inner")
    seqnet.Model(x, inner(x))
    inner.compile("adam", "mse")
    values = np.ones((2, 3), "float32")
    inner.train_on_batch(values, values)
    again = saved(inner, tmp_path / "inner.h5")
    assert inner.train_on_batch(values, 0 * values) == again.train_on_batch(values, 0 * values)


def test_states_of_layers_with_one_name_are_kept_apart(tmp_path):
    x = seqnet.Input(batch_shape=(2, 3, 1))
    inner = seqnet.Model([SimpleRNN(2, stateful=True, return_sequences=True, name="rnn")], name="m")
    model = seqnet.Model(x, SimpleRNN(2, stateful=True, name="rnn")(inner(x)))
    values = np.ones((2, 3, 1), "float32")
    model.predict_on_batch(values)
    again = saved(model, tmp_path / "model.h5")
    np.testing.assert_array_equal(again.predict_on_batch(values), model.predict_on_batch(values))


def triple(x):
    return 3 * x


def test_functions_are_found_by_name_and_operations_only_in_the_list(tmp_path):
    x = seqnet.Input((3,))
    good = seqnet.Model(x, Dense(1)(Lambda(triple)(x)))
    good.save(tmp_path / "good.h5")
    again = seqnet.load_model(tmp_path / "good.h5", {"triple": triple})
    np.testing.assert_array_equal(again.predict(np.ones((1, 3))), good.predict(np.ones((1, 3))))
    bad = seqnet.Model(x, Dense(1)(pt.cumsum(x, axis=1)))
    with pytest.raises(ValueError, match=r"(?i)cumsum.* cannot be written to a file.* Lambda"):
        bad.save(tmp_path / "bad.h5")
    assert not (tmp_path / "bad.h5").exists()
    bad.save_weights(tmp_path / "weights.h5")
    bad.load_weights(tmp_path / "weights.h5")


def test_a_shared_variable_outside_of_layers_is_trained_and_not_saved(tmp_path):
    x = seqnet.Input((3,))
    scale = pytensor.shared(np.float32(2), name="scale")
    model = seqnet.Model(x, Dense(1)(x) * scale)
    with pytest.raises(ValueError, match=r"scale.*add_weight"):
        model.save(tmp_path / "model.h5")
    model.save_weights(tmp_path / "weights.h5")
    scale.set_value(np.float32(5))
    model.load_weights(tmp_path / "weights.h5")
    assert scale.get_value() == 2


def test_a_layer_in_two_places_is_not_saved(tmp_path):
    x, dense = seqnet.Input((3,)), Dense(3)
    inner = seqnet.Model(x, dense(x))
    y = seqnet.Input((3,))
    model = seqnet.Model(y, inner(dense(y)))
    with pytest.raises(ValueError, match="'dense' is used in two places"):
        model.save(tmp_path / "model.h5")


@pytest.mark.parametrize(
    "make",
    [
        lambda x: pt.exp(x) / (1 + abs(x)),
        lambda x: pt.switch(x > 0, x**2, pt.minimum(x, -1.5)),
        lambda x: x.max(axis=1) + x.sum(axis=1),
        lambda x: x.dimshuffle(1, 0, "x"),
        lambda x: x[:, 0:2],
        lambda x: x[0, ::2],
        lambda x: pt.special.log_softmax(x, axis=-1),
        lambda x: pt.cast(pt.stack([x, x], axis=1), "float64"),
    ],
)
def test_operations_are_the_same_after_json(make):
    x = pt.matrix("x", dtype="float32")
    output = make(x)
    text = {}
    for node in pytensor.graph.traversal.io_toposort([x], [output]):
        text[node] = json.loads(json.dumps(operations.encode(node.op)))
    values = {x: x}
    for node, found in text.items():
        given = [values.get(v, v) for v in node.inputs]
        values.update(zip(node.outputs, operations.decode(found, given), strict=True))
    assert pytensor.graph.basic.equal_computations([values[output]], [output])


def test_weights_that_do_not_fit_can_be_skipped(tmp_path, caplog):
    first = seqnet.Model([Embedding(5, 3, input_shape=(4,)), Dense(2)])
    first.save_weights(tmp_path / "weights.h5")
    second = seqnet.Model([Embedding(5, 3, input_shape=(4,)), Dense(7)])
    before = second.get_weights()
    with caplog.at_level(logging.WARNING, logger="seqnet"):
        second.load_weights(tmp_path / "weights.h5", skip_mismatch=True)
    assert "dense/bias, dense/kernel" in caplog.text
    np.testing.assert_array_equal(second.get_weights()[0], first.get_weights()[0])
    np.testing.assert_array_equal(second.get_weights()[1], before[1])


class Stop(Callback):
    """Interrupts training at the beginning of the second epoch, if enabled."""

    armed = False

    def on_epoch_begin(self, epoch, logs=None):
        if self.armed and epoch == 1:
            raise KeyboardInterrupt


def train(model, data, targets, path, interrupt=False):
    stop = Stop()
    stop.armed = interrupt
    callbacks = [BackupAndRestore(path), stop]
    if interrupt:
        with pytest.raises(KeyboardInterrupt):
            model.fit(data, targets, 3, 2, verbose=0, callbacks=callbacks)
    else:
        model.fit(data, targets, 3, 2, verbose=0, callbacks=callbacks)
    return model


def test_a_graph_resumes_to_the_same_weights(tmp_path):
    found = []
    for path, interrupt in (("whole.h5", False), ("run.h5", True), ("run.h5", False)):
        seqnet.set_random_seed(3)
        found.append(train(translation(), DATA, LABELS, tmp_path / path, interrupt))
    for first, second in zip(found[0].get_weights(), found[2].get_weights(), strict=True):
        np.testing.assert_array_equal(first, second)


def test_a_training_of_another_graph_is_not_resumed(tmp_path):
    def run(factor, interrupt):
        seqnet.set_random_seed(3)
        x = seqnet.Input((3,))
        values = np.ones((4, 3))
        model = seqnet.Model(x, Dense(1)(x * np.float32(factor)))
        train(model, values, values[:, :1], tmp_path / "run.h5", interrupt)

    run(2, interrupt=True)
    with pytest.raises(ValueError, match=r"graph\.constants.* was 2.0 and is 3.0"):
        run(3, interrupt=False)
