"""The code in CONTRIBUTING.md works in both precisions."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import seqnet
from seqnet import registry
from seqnet.layers import GRU, Dense

PAGE = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text()
SNIPPETS = {
    title: "\n".join(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL))
    for title, text in re.findall(r"^## (Add .*?)\n(.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S)
}
CHECKS: dict[str, Callable] = {}
X = np.random.default_rng(0).normal(size=(16, 5, 3))
Y = np.tanh(X.sum(axis=(1, 2)))[:, None]  # one output per sequence


def checks(title: str) -> Callable:
    """Register a check for a section: it receives the class of the section and a path."""

    def enter(check: Callable) -> Callable:
        CHECKS[title] = check
        return check

    return enter


def trained(layers, path, *, optimizer="adam", loss="mse", metrics=(), x=X, y=Y):
    """Train a small model, check precision and progress, save it, load it; return the history."""
    model = seqnet.Model(layers)
    model.compile(optimizer, loss, metrics=list(metrics))
    history = model.fit(x, y, batch_size=4, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(path)
    outputs = model.predict(x)
    assert {w.dtype.name for w in [*model.get_weights(), outputs]} == {seqnet.config.floatx()}
    again = seqnet.load_model(path)
    np.testing.assert_array_equal(again.predict(x), outputs)
    assert again.fit(x, y, epochs=1, verbose=0).history["loss"][0] < history["loss"][0]
    return history


@checks("Add a cell")
def check_cell(cls, path):
    outputs = []
    for options in ({}, {"fused": False}, {"unroll": True}):
        seqnet.set_random_seed(0)
        model = seqnet.Model([cls(4, **options), Dense(1)])
        model.compile("adam", "mse")
        model.fit(X, Y, batch_size=4, epochs=2, verbose=0)
        outputs.append(model.predict(X))
    tolerance = 1e-5 if seqnet.config.floatx() == "float32" else 1e-12
    np.testing.assert_allclose(outputs[1], outputs[0], atol=tolerance)
    np.testing.assert_allclose(outputs[2], outputs[0], atol=tolerance)
    trained([cls(4), Dense(1)], path)


@checks("Add a layer")
def check_layer(cls, path):
    layer = cls()
    trained([GRU(4), layer, Dense(1)], path)
    assert (layer.get_weights()[0] != 1).all()


@checks("Add a layer of several inputs")
def check_layer_of_several_inputs(cls, path):
    x = seqnet.Input((None, 3))
    halves = [GRU(4)(x), GRU(4)(x)]
    model = seqnet.Model(x, Dense(1)(cls()(halves)))
    model.compile("adam", "mse")
    history = model.fit(X, Y, batch_size=4, epochs=8, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    model.save(path)
    np.testing.assert_array_equal(seqnet.load_model(path).predict(X), model.predict(X))


@checks("Add an optimizer")
def check_optimizer(cls, path):
    trained([GRU(4), Dense(1)], path, optimizer=cls(0.01, clipnorm=1.0))


@checks("Add a loss")
def check_loss(cls, path):
    history = trained([GRU(4), Dense(1)], path, loss=cls(quantile=0.9))
    by_name = seqnet.Model([GRU(4), Dense(1)])
    by_name.compile("adam", "pinball")
    expected = np.abs(by_name.predict(X) - Y).mean() / 2
    assert by_name.evaluate(X, Y, verbose=0) == pytest.approx(expected, rel=1e-5)
    assert cls()(Y, by_name.predict(X)) == pytest.approx(expected, rel=1e-5)
    assert history["loss"][0] > 0


@checks("Add a metric")
def check_metric(cls, path):
    history = trained([GRU(4), Dense(1)], path, metrics=[cls(), "mae"])
    expected = np.array(history["mae"]) / np.abs(Y).mean()
    np.testing.assert_allclose(history["relative_error"], expected, rtol=1e-5)


@checks("Add a callback")
def check_callback(cls, path):
    model = seqnet.Model([GRU(4), Dense(1)])
    model.compile("adam", "mse")
    backup = seqnet.callbacks.BackupAndRestore(path)
    history = model.fit(X, Y, epochs=9, verbose=0, callbacks=[cls(1e9), backup]).history
    assert len(history["loss"]) == 2


@checks("Add a data source")
def check_data_source(cls, path):
    trained([GRU(4), Dense(1)], path, x=cls(16), y=None)
    batch = cls(16).load(slice(0, 16))
    histories = []
    for data in [(cls(16),), (batch.inputs, batch.targets)]:
        seqnet.set_random_seed(0)
        model = seqnet.Model([GRU(4), Dense(1)])
        model.compile("adam", "mse")
        history = model.fit(*data, batch_size=3, epochs=2, verbose=0, validation_split=0.25)
        histories.append(history.history)
    assert histories[0] == histories[1]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("title", SNIPPETS)
def test_the_code_of_each_section_works(title, dtype, tmp_path, monkeypatch):
    tables = {kind: dict(table) for kind, table in registry._registered.items()}
    monkeypatch.setattr(registry, "_registered", tables)  # unregister the names afterwards
    seqnet.config.set_floatx(dtype)
    names: dict = {"__name__": "contributing"}
    exec(compile(SNIPPETS[title], f"CONTRIBUTING.md, {title}", "exec"), names)
    (cls,) = (v for v in names.values() if getattr(v, "__module__", None) == "contributing")
    CHECKS[title](cls, tmp_path / "saved.h5")


def test_every_section_is_checked():
    assert list(SNIPPETS) == list(CHECKS)
