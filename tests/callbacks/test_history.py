import sys

import pytest
from helpers import X, Y

from seqnet.callbacks import History


@pytest.fixture
def history():
    made = History()
    for epoch in range(30):
        logs = {"loss": 1 / (epoch + 1)}
        if epoch % 3 == 2:
            logs |= {"val_loss": 2 / (epoch + 1)}
        made.on_epoch_end(epoch, logs)
    return made


def test_the_repr_of_a_history_has_its_last_logs(history):
    assert repr(history) == "<History: 30 epochs, loss: 0.03333, val_loss: 0.06667>"
    assert repr(History()) == "<History: 0 epochs>"


def test_the_html_of_a_history_shows_the_first_and_the_last_epochs(history):
    html = history._repr_html_()
    assert html.count("<tr>") == 1 + 20 + 1
    assert ">...<" in html
    assert ">0.6667<" in html  # the first validation, in the third epoch
    assert History()._repr_html_().count("<tr>") == 1


def test_a_resumed_history_keeps_the_epochs_of_its_values(history):
    again = History()
    again.load_state_dict(history.state_dict())
    assert again.epochs == history.epochs
    assert again.epochs["val_loss"] == list(range(2, 30, 3))


@pytest.mark.optional("matplotlib")
def test_plot_draws_the_history(model, history, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "Agg")
    (axes,) = history.plot()
    training, validation = axes.get_lines()
    assert list(training.get_xdata()) == list(range(1, 31))
    assert list(validation.get_xdata()) == list(range(3, 31, 3))
    assert list(validation.get_ydata()) == history.history["val_loss"]
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["training", "validation"]
    assert history.plot(["loss"], axes) == [axes]
    model.compile("sgd", "mse", ["mae"])
    both = model.fit(X, Y, verbose=0).plot()
    assert [place.get_ylabel() for place in both] == ["loss", "mae"]
    with pytest.raises(ValueError, match="pass 2 axes, not 1"):
        model.history.plot(axes=axes)


def test_names_and_epochs_are_checked_before_plotting(history):
    with pytest.raises(ValueError, match=r"has no 'los', only loss. Did you mean 'loss'\?"):
        history.plot(["los"])
    with pytest.raises(TypeError, match=r"such as \['loss'\]"):
        history.plot("loss")
    with pytest.raises(ValueError, match="no epochs yet"):
        History().plot()


def test_plot_without_matplotlib_is_an_error(history, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(ImportError, match=r'pip install "seqnet\[plot\]"'):
        history.plot()
