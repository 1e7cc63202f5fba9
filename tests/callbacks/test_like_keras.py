"""Callbacks behave like Keras's for the same logs, also when resumed at any point."""

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

import seqnet
import seqnet.callbacks as cb
from seqnet.layers import Dense

STORED = json.loads(
    (Path(__file__).parent.parent / "reference" / "keras_callbacks.json").read_text()
)
SCHEDULES = {
    "halve": lambda epoch, rate: rate / 2 if epoch else rate,
    "tenth after three": lambda epoch, rate: rate * 0.1 if epoch == 3 else rate,
    "of the epoch": lambda epoch: 1.0 / (epoch + 1),
}


def cases(name):
    return [pytest.param(case, id=str(k)) for k, case in enumerate(STORED[name])]


def make_model():
    model = seqnet.Model([Dense(1, use_bias=False, input_shape=(1,))])
    model.compile(seqnet.optimizers.SGD(1.0), "mse")
    return model


def mark(model, number):
    model.set_weights([np.full((1, 1), number)])


def weight(model):
    return float(model.get_weights()[0][0, 0])


class Run:
    """Calls hooks as fit does; can resume with another callback after any epoch or batch."""

    def __init__(self, make, case, batches=0):
        self.make, self.batches = make, batches
        names = list(case["logs"])
        rows = zip(*case["logs"].values(), strict=True)
        self.epochs = [dict(zip(names, row, strict=True)) for row in rows]
        self.model = make_model()
        self.rates, self.entered, self.marks = [], [], 0
        self.start()

    def start(self):
        self.callback = self.make()
        params = {"epochs": len(self.epochs), "steps": self.batches, "metrics": None}
        self.calls = cb.CallbackList([self.callback])
        self.calls.set_up(self.model, params)
        self.calls.on_train_begin()

    def resume(self):
        """Continue with a new model and a new callback that has the state of the old one."""
        state = self.callback.state_dict()
        arrays = {k: v.copy() for k, v in state.items() if isinstance(v, np.ndarray)}
        text = json.dumps({k: v for k, v in state.items() if k not in arrays})
        before, self.model = self.model, make_model()
        self.model.set_weights(before.get_weights())
        self.model.optimizer.learning_rate = before.optimizer.learning_rate
        self.start()
        self.callback.load_state_dict(json.loads(text) | arrays)

    def all(self, resume_after=None):
        for epoch, logs in enumerate(self.epochs):
            self.calls.on_epoch_begin(epoch)
            self.rates.append(self.model.optimizer.learning_rate)
            for batch in range(self.batches):
                self.marks += 1
                for hook in self.calls.at_batch_begin:
                    hook(batch)
                mark(self.model, self.marks)
                for hook in self.calls.at_batch_end:
                    hook(batch, {"loss": logs["loss"]})
            if not self.batches:
                mark(self.model, epoch)
            logs = dict(logs)
            self.calls.on_epoch_end(epoch, logs)
            self.entered.append(logs.get("learning_rate"))
            if self.model.stop_training:
                break
            if epoch == resume_after:
                self.resume()
        self.calls.on_train_end()
        return self


def every_way(make, case, batches=0):
    """Yield finished runs: uninterrupted, and resumed after each epoch."""
    for resume_after in (None, *range(len(next(iter(case["logs"].values()))))):
        yield Run(make, case, batches).all(resume_after)


@pytest.mark.parametrize("case", cases("EarlyStopping"))
def test_early_stopping(case):
    for run in every_way(lambda: cb.EarlyStopping(**case["options"]), case):
        assert case["result"] == {
            "epochs": len(run.rates),
            "stopped_epoch": run.callback.stopped_epoch,
            "best": run.callback.best,
            "best_epoch": run.callback.best_epoch,
            "weight": weight(run.model),
        }


@pytest.mark.parametrize("case", cases("ReduceLROnPlateau"))
def test_reduce_lr_on_plateau(case):
    for run in every_way(lambda: cb.ReduceLROnPlateau(**case["options"]), case):
        assert run.rates == pytest.approx(case["result"]["rates"], rel=1e-6)
        assert run.entered == pytest.approx(case["result"]["entered"], rel=1e-6)


@pytest.mark.parametrize("case", cases("LearningRateScheduler"))
def test_learning_rate_scheduler(case):
    schedule = SCHEDULES[case["options"]["schedule"]]
    for run in every_way(lambda: cb.LearningRateScheduler(schedule), case):
        assert run.rates == pytest.approx(case["result"]["rates"], rel=1e-6)
        assert run.entered == pytest.approx(case["result"]["entered"], rel=1e-6)


@pytest.mark.parametrize("case", cases("ModelCheckpoint"))
def test_model_checkpoint(case, tmp_path):
    options = case["options"]
    for resume_after in (None, 0, 1, 2, 5):
        folder = tmp_path / str(resume_after)
        folder.mkdir()
        chosen = options | {"filepath": folder / options["filepath"]}
        run = Run(lambda o=chosen: cb.ModelCheckpoint(**o), case, case["batches"])
        run.all(resume_after)
        found = {}
        for file in folder.iterdir():
            model = make_model()
            model.load_weights(file)
            found[file.name] = weight(model)
        assert found == case["result"]["files"]
        assert run.callback.best == case["result"]["best"]


@pytest.mark.parametrize("case", cases("CSVLogger"))
def test_csv_logger(case, tmp_path):
    options = case["options"]
    for resume_after in (None, 0, 4, 11):
        path = tmp_path / f"{resume_after}.csv"
        for _ in range(2):
            run = Run(lambda p=path: cb.CSVLogger(p, **options), case)
            run.all(resume_after)
        with path.open(newline="") as file:
            rows = list(csv.reader(file, delimiter=options["separator"]))
        assert rows == case["result"]["rows"]


def test_history():
    case = {"logs": {"loss": [3.0, 2.0, 1.0]}}
    for run in every_way(cb.History, case):
        assert (run.callback.epoch, run.callback.history) == ([0, 1, 2], case["logs"])


def test_the_stored_cases_cover_all_outcomes():
    stopping = STORED["EarlyStopping"]
    assert any(case["options"]["baseline"] is not None for case in stopping)
    assert any(math.isnan(v) for case in stopping for c in case["logs"].values() for v in c)
    assert len({case["result"]["stopped_epoch"] for case in stopping}) > 5
    assert {case["options"]["monitor"] for case in stopping} == {
        "loss", "val_loss", "accuracy", "val_accuracy",
    }  # fmt: skip
    assert any(len(set(case["result"]["rates"])) > 3 for case in STORED["ReduceLROnPlateau"])
