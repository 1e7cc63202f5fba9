import re
import sys

import pytest

import seqnet
from seqnet.layers import LSTM, Bidirectional, Dense, Embedding
from seqnet.summary import Call, describe, html_of, text_of


class Graph:
    """A stand-in for a model of two inputs that share a layer."""

    name, built, weights, trained = "graph", True, (), ()

    def __init__(self):
        self.shared, self.last = Dense(3, name="shared"), Dense(2, name="last")
        for layer in (self.shared, self.last):
            layer.ensure_built((None, 3))

    def calls(self):
        yield Call("left", None, (), (None, 7, 3))
        yield Call("right", None, (), (None, 9, 3))
        yield Call("shared", self.shared, ("left",), (None, 7, 3), "Dense")
        yield Call("shared_1", self.shared, ("right",), (None, 9, 3), "Dense")
        yield Call("last", self.last, ("shared", "shared_1"), (None, 2), "Dense")

    def count_params(self):
        return 20


@pytest.fixture
def model():
    return seqnet.Model(
        [Embedding(10, 4), Bidirectional(LSTM(8), name="a_rather_long_name"), Dense(2)],
        name="small",
    )


def test_the_repr_of_a_model_has_layers_parameters_and_shapes(model):
    assert repr(model) == "<Model 'small': 3 layers, not built>"
    model.build((None, None))
    expected = "3 layers, 906 parameters, (None, None) -> (None, 2)"
    assert repr(model) == f"<Model 'small': {expected}>"
    assert repr(seqnet.Model()) == "<Model 'model': 0 layers>"
    assert repr(seqnet.Model([Dense(1, input_shape=(2,))])).startswith("<Model 'model': 1 layer, 3")


def test_the_repr_of_a_subclass_has_its_name():
    class Tagger(seqnet.Model):
        pass

    assert repr(Tagger()) == "<Tagger 'model': 0 layers>"


def letters(text):
    """Return the sorted characters of a table, to check that nothing is cut."""
    return sorted(re.sub(r"\s|---+", "", text))


@pytest.mark.parametrize("width", [80, 60, 50])
def test_the_summary_fits_the_width(model, width):
    model.build((None, None))
    lines = []
    model.summary(width, print_fn=lines.append)
    table, totals = lines
    assert max(map(len, table.splitlines())) <= width
    assert letters(table) == letters(text_of(model, 200))
    assert totals == "Weights: 906, of which 906 are trained."


def test_the_summary_has_the_width_of_the_terminal(model, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "45")
    model.summary()
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 45


def test_the_width_of_a_summary_must_be_a_number(model):
    with pytest.raises(ValueError, match="line_length"):
        model.summary(0)


def test_the_summary_of_a_graph_shows_the_inputs_of_each_layer():
    rows = {line.split()[0]: line for line in text_of(Graph(), 100).splitlines()}
    assert rows["left"].split()[:2] == ["left", "(Input)"]
    assert rows["shared_1"].endswith("right")
    assert rows["last"].endswith("shared, shared_1")
    assert rows["Layer"].endswith("Connected to")
    shapes = "[(None, 7, 3), (None, 9, 3)] -> (None, 2)"
    assert describe(Graph()) == f"Graph 'graph': 2 layers, 20 parameters, {shapes}"


def test_the_html_of_a_model_is_a_table(model):
    model.name = "<b>"
    html = model._repr_html_()
    assert html.count("<tr>") == 4
    assert "&lt;b&gt;" in html
    assert "Connected to" not in html
    assert html_of(Graph()).count("<tr>") == 6


def test_only_public_names_are_listed():
    assert set(dir(seqnet)) == {*seqnet.__all__, "__version__"}
    for package in (
        seqnet.layers,
        seqnet.callbacks,
        seqnet.losses,
        seqnet.optimizers,
        seqnet.utils,
    ):
        assert sorted(package.__all__) == dir(package)


def test_the_repr_shows_settings():
    assert repr(seqnet.optimizers.SGD(0.5, momentum=0.25)).startswith(
        "SGD(learning_rate=0.5, momentum=0.25"
    )
    assert repr(seqnet.regularizers.L2(0.5)) == "L2(l2=0.5)"


@pytest.mark.parametrize("name", ["mse", "mae"])
def test_an_unknown_metric_lists_the_losses_with_their_short_names(name):
    with pytest.raises(ValueError, match=rf"Unknown metric 'q'.*Known: .*\b{name}\b"):
        seqnet.Model([Dense(1)]).compile(metrics=["q"])


@pytest.mark.optional("pydot")
def test_plot_model_writes_the_graph(model, tmp_path):
    path = tmp_path / "model.dot"
    seqnet.utils.plot_model(model, path, show_shapes=True)
    text = path.read_text()
    assert '"input_layer" -> "embedding"' in text
    assert '"embedding" -> "a_rather_long_name"' in text
    assert "output: ?" in text
    seqnet.utils.plot_model(Graph(), path, True, True, False, "LR", show_layer_activations=True)
    text = path.read_text()
    assert '"shared_1" -> "last"' in text
    assert (
        r"Dense\nactivation: linear\ninput: (None, 7, 3), (None, 9, 3)\noutput: (None, 2)" in text
    )
    assert "rankdir=LR" in text


@pytest.mark.optional("pydot")
def test_plot_model_without_graphviz_is_an_error(model, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"graphviz\.org"):
        seqnet.utils.plot_model(model, tmp_path / "model.png")
    with pytest.raises(ValueError, match="rankdir is one of TB, LR, BT, RL, got 'up'"):
        seqnet.utils.plot_model(model, rankdir="up")


def test_plot_model_without_pydot_is_an_error(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydot", None)
    with pytest.raises(ImportError, match=r'pip install "seqnet\[plot\]"'):
        seqnet.utils.plot_model(model)
