import math

import pytest
from helpers import X, Y

import seqnet
from seqnet.callbacks import Callback, EarlyStopping, ModelCheckpoint, ReduceLROnPlateau
from seqnet.callbacks.monitoring import Monitor, direction
from seqnet.layers import Dense


@pytest.fixture
def model():
    made = seqnet.Model([Dense(1)])
    made.compile("sgd", "mse", metrics=["mae"])
    return made


MONITORS = (EarlyStopping, ReduceLROnPlateau)


@pytest.mark.parametrize("kind", MONITORS)
def test_an_unknown_metric_is_an_error_before_anything_is_compiled(kind, model, no_compile):
    with pytest.raises(ValueError, match=r"'val_los'.*loss, mae.*Did you mean 'val_loss'") as e:
        model.fit(X, Y, validation_split=0.2, callbacks=[kind("val_los", mode="min")], verbose=0)
    assert kind.__name__ in str(e.value)


@pytest.mark.parametrize("kind", MONITORS)
def test_a_validation_metric_without_a_validation_is_an_error(kind, model, no_compile):
    with pytest.raises(ValueError, match=r"'val_loss'.*validation_data or validation_split"):
        model.fit(X, Y, callbacks=[kind()], verbose=0)


def test_an_unknown_name_is_an_error_after_the_first_epoch_if_others_may_add_logs(model):
    ended = []

    class Add(Callback):
        def on_epoch_end(self, epoch, logs=None):
            ended.append(epoch)
            logs["bleu"] = float(epoch)

    stop = EarlyStopping("bleau", mode="max")
    with pytest.raises(ValueError, match=r"'bleau'.*loss, mae, bleu.*'bleu'"):
        model.fit(X, Y, epochs=9, callbacks=[Add(), stop], verbose=0)
    assert ended == [0]
    stop = EarlyStopping("bleu", mode="min", patience=2)
    assert model.fit(X, Y, epochs=9, callbacks=[Add(), stop], verbose=0).epoch == [0, 1, 2]


def test_epochs_without_the_metric_do_not_count():
    stop = EarlyStopping("val_loss", patience=1)
    stop.set_params({"metrics": ["loss", "val_loss"]})
    stop.set_model(seqnet.Model())
    stop.on_train_begin({})
    for epoch, logs in enumerate([{}, {"val_loss": 1.0}, {}, {"val_loss": 0.5}, {}]):
        stop.on_epoch_end(epoch, logs)
    assert not stop.model.stop_training
    assert stop.wait == 0
    stop.on_epoch_end(5, {"val_loss": 0.5})
    assert stop.model.stop_training
    assert stop.stopped_epoch == 5


def test_a_metric_may_be_missing_in_later_epochs():
    stop = EarlyStopping("bleu", mode="max")
    stop.set_model(seqnet.Model())
    stop.on_epoch_end(0, {"bleu": 0.1})
    stop.on_epoch_end(1, {"loss": 0.1})
    fresh = EarlyStopping("bleu", mode="max")
    fresh.load_state_dict(stop.state_dict())
    fresh.on_epoch_end(2, {"loss": 0.1})


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("loss", "min"),
        ("val_loss", "min"),
        ("val_perplexity", "min"),
        ("mean_absolute_error", "min"),
        ("val_mse", "min"),
        ("accuracy", "max"),
        ("acc", "max"),
        ("val_binary_accuracy", "max"),
        ("sparse_categorical_accuracy", "max"),
        ("val_auc", "max"),
    ],
)
def test_the_direction_is_known_by_name(name, expected):
    assert direction(name, "auto", "Somebody") == expected


def test_every_metric_of_seqnet_has_a_direction():
    smaller = ("error", "loss", "entropy", "hinge", "false", "perplexity", "divergence", "poisson")
    smaller += ("mse", "mae", "mape", "msle", "rmse", "logcosh", "log_cosh", "kld", "bce")
    for name in filter(str.islower, seqnet.registry.names("metric")):
        falls = any(part in name for part in smaller)
        assert direction(name, "auto", "Somebody") == ("min" if falls else "max"), name


def test_the_error_for_a_misspelt_metric_suggests_the_closest_name():
    with pytest.raises(ValueError, match=r"'val_los' should .* Did you mean 'val_loss'"):
        EarlyStopping("val_los")


def test_an_unknown_direction_is_an_error():
    with pytest.raises(ValueError, match=r"EarlyStopping.*'bleu'.*mode='max'"):
        EarlyStopping("bleu")
    with pytest.raises(ValueError, match=r"ReduceLROnPlateau.*'min' or 'max', got 'down'"):
        ReduceLROnPlateau("loss", mode="down")
    with pytest.raises(TypeError, match="name of a metric"):
        EarlyStopping(None)


def test_a_checkpoint_without_save_best_only_needs_no_metric(tmp_path):
    ModelCheckpoint(tmp_path / "x.h5", "bleu").check(["loss"])
    with pytest.raises(ValueError, match="'bleu'"):
        ModelCheckpoint(tmp_path / "x.h5", "bleu", save_best_only=True)


def test_nan_is_never_an_improvement_and_anything_improves_on_it():
    monitor = Monitor("loss", "min")
    assert not monitor.improves(math.nan, None)
    assert not monitor.improves(math.nan, 1.0)
    assert monitor.improves(1.0, None)
    stop = EarlyStopping("loss", patience=3)
    stop.set_model(seqnet.Model())
    for epoch, loss in enumerate([math.nan, math.nan, 1.0]):
        stop.on_epoch_end(epoch, {"loss": loss})
    assert (stop.best, stop.best_epoch, stop.wait) == (1.0, 2, 0)
