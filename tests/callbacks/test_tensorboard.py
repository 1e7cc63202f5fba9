import sys

import pytest
from helpers import X, Y

from seqnet.callbacks import TensorBoard

needs_tensorboard = pytest.mark.optional("tensorboardX")


def test_without_tensorboardx_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(ImportError, match=r'pip install "seqnet\[tensorboard\]"'):
        TensorBoard()


def events(folder):
    """Return {tag: [(step, value)]} of a folder of event files."""
    from tensorboardX.proto import event_pb2

    found = {}
    for path in sorted(folder.iterdir()):
        data = path.read_bytes()
        while data:
            length = int.from_bytes(data[:8], "little")
            event = event_pb2.Event.FromString(data[12 : 12 + length])
            data = data[16 + length :]
            for value in event.summary.value:
                kind = value.WhichOneof("value")
                number = value.simple_value if kind == "simple_value" else kind
                found.setdefault(value.tag, []).append((event.step, number))
    return found


@needs_tensorboard
def test_logs_are_written_for_epochs_and_batches(model, tmp_path):
    board = TensorBoard(tmp_path, update_freq=2, histogram_freq=1, write_steps_per_second=True)
    model.optimizer.learning_rate = 0.5
    history = model.fit(
        X, Y, batch_size=2, epochs=2, callbacks=[board], validation_data=(X, Y), verbose=0
    ).history
    train, validation = events(tmp_path / "train"), events(tmp_path / "validation")
    assert train["epoch_loss"] == [(k, pytest.approx(v)) for k, v in enumerate(history["loss"])]
    assert validation == {
        "epoch_loss": [(k, pytest.approx(v)) for k, v in enumerate(history["val_loss"])]
    }
    assert train["epoch_learning_rate"] == [(0, 0.5), (1, 0.5)]
    assert [step for step, _ in train["batch_loss"]] == [1, 3, 4, 6]
    assert train["dense/kernel/histogram"] == [(0, "histo"), (1, "histo")]
    assert len(train["epoch_steps_per_second"]) == 2
    assert board.state_dict() == {"batches": 6}


@needs_tensorboard
def test_batches_are_counted_across_epochs(model, tmp_path):
    board = TensorBoard(tmp_path, update_freq="batch")
    board.set_model(model)
    board.load_state_dict({"batches": 10})
    board.on_train_batch_end(0, {"loss": 1.0})
    board.on_train_end()
    assert events(tmp_path / "train") == {"batch_loss": [(11, 1.0)]}


@needs_tensorboard
def test_a_second_training_within_the_same_second_overwrites_nothing(model, tmp_path):
    for first in (0, 1):
        board = TensorBoard(tmp_path)
        model.fit(X, Y, initial_epoch=first, epochs=first + 1, callbacks=[board], verbose=0)
    assert sorted(step for step, _ in events(tmp_path / "train")["epoch_loss"]) == [0, 1]
