"""Data of several inputs and outputs, by name, each sequence input with lengths of its own."""

import contextlib
import re

import h5py
import numpy as np
import pytensor.tensor as pt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seqnet
from seqnet.data import Batch, Epoch, RowDataset, pad_sequences
from seqnet.data.adapters import Adapter
from seqnet.data.columns import StepColumn
from seqnet.data.masking import is_padding
from seqnet.data.spec import InputSpec
from seqnet.training.tbptt import check_windows, window_of, windows

RNG = np.random.default_rng(0)
SOURCE, TARGET = (3, 1, 4, 2, 5), (2, 2, 1, 3, 2)
X = {
    "source": [RNG.integers(1, 6, n) for n in SOURCE],
    "target": [RNG.normal(size=(n, 2)) for n in TARGET],
    "flag": RNG.normal(size=(5, 1)),
}
WORDS = [RNG.normal(size=(n, 1)) for n in TARGET]
SCORE = RNG.normal(size=(5, 1))


def Pair(scored=False, unroll=False, loss="mean_squared_error", activation=None):  # noqa: N802
    """Return a model of a source, a target sequence and a flag.

    Its output has the steps of the target. With `scored`, it also has one output for each sample.
    """
    layers = seqnet.layers
    source = seqnet.Input((None,), name="source")
    target = seqnet.Input((None, 2), name="target")
    flag = seqnet.Input((1,), name="flag")
    code = layers.GRU(3, unroll=unroll)(layers.Embedding(6, 3)(source))
    code = layers.Concatenate()([code, flag])
    steps = layers.GRU(2, return_sequences=True, unroll=unroll)(target)
    repeated = code[:, None, :] + pt.zeros_like(steps[:, :, :1])
    out = layers.Dense(1, activation=activation, name="words")
    outputs = {"words": out(pt.concatenate([repeated, steps], axis=2))}
    if scored:
        outputs["score"] = layers.Dense(1, activation=activation)(code)
    inputs = {"source": source, "target": target, "flag": flag}
    model = seqnet.Model(inputs, outputs if scored else outputs["words"])
    model.compile("sgd", loss)
    return model


@contextlib.contextmanager
def says(error, *parts):
    pattern = "".join(f"(?=.*{re.escape(part)})" for part in parts)
    with pytest.raises(error, match=f"(?s){pattern}"):
        yield


def batch_of(*args, model=None, **options):
    """Return all samples as one batch."""
    return Adapter(model or Pair()).dataset(*args, **options).as_batch()


def padded(x=None, words=None, more=0):
    """Return sequences as arrays with padding of arbitrary values, and their lengths."""
    x, words = x or X, words or WORDS
    lengths = {name: np.array([len(row) for row in x[name]]) for name in ("source", "target")}
    time = {name: int(n.max()) + more for name, n in lengths.items()}
    source = pad_sequences(x["source"], time["source"], padding="post", value=5)
    target = pad_sequences(x["target"], time["target"], "float64", padding="post", value=9.0)
    y = pad_sequences(words, time["target"], "float64", padding="post", value=-7.0)
    return {"source": source, "target": target, "flag": x["flag"]}, y, lengths


def masks_of(x, lengths):
    return {name: np.arange(x[name].shape[1]) < n[:, None] for name, n in lengths.items()}


def assert_same_batch(mine, theirs):
    pairs = zip(mine.parts(), theirs.parts(), strict=True)
    for a, b in pairs:
        assert type(a) is type(b)
        if isinstance(a, dict):
            assert list(a) == list(b)
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
        else:
            np.testing.assert_array_equal(a, b)


def scored_targets(words=WORDS):
    return {"words": words, "score": SCORE}


# ----------------------------------------------------------------------------- batches


def test_each_sequence_input_is_padded_to_its_own_longest_sequence():
    batch = batch_of(X, WORDS)
    assert list(batch.inputs) == ["source", "target", "flag"]
    assert batch.inputs["source"].shape == (5, 5)
    assert batch.inputs["target"].shape == (5, 3, 2)
    np.testing.assert_array_equal(batch.inputs["flag"], X["flag"])
    assert list(batch.mask) == ["source", "target"]
    assert batch.mask["source"].sum(axis=1).tolist() == list(SOURCE)
    assert batch.mask["target"].sum(axis=1).tolist() == list(TARGET)
    assert batch.targets.shape == (5, 3, 1)
    assert (batch.targets[~batch.mask["target"]] == 0).all()


def test_inputs_are_a_dictionary_in_any_order_or_a_list():
    batch = batch_of(X, WORDS)
    assert_same_batch(batch_of(dict(reversed(X.items())), {"words": WORDS}), batch)
    assert_same_batch(batch_of(list(X.values()), WORDS), batch)
    assert_same_batch(batch_of(tuple(X.values()), WORDS), batch)


def test_lengths_and_sequences_give_the_same_batch():
    x, y, lengths = padded()
    assert_same_batch(batch_of(x, y, lengths=lengths), batch_of(X, WORDS))
    # One input with lengths, another one as a list.
    mixed = X | {"source": x["source"]}
    batch = batch_of(mixed, WORDS, lengths={"source": lengths["source"]})
    assert_same_batch(batch, batch_of(X, WORDS))
    listed = [lengths["source"], lengths["target"], None]
    assert_same_batch(batch_of(x, y, lengths=listed), batch_of(X, WORDS))


def test_an_array_and_sequences_may_be_mixed():
    x, y, _ = padded()
    batch = batch_of(X | {"target": x["target"]}, y)
    assert list(batch.mask) == ["source"]
    np.testing.assert_array_equal(batch.inputs["target"], x["target"])
    np.testing.assert_array_equal(batch.targets, y)


def test_targets_and_weights_by_output():
    model = Pair(scored=True)
    weights = {"words": [np.arange(1.0, n + 1) for n in TARGET]}
    batch = batch_of(X, scored_targets(), weights, model=model)
    assert list(batch.targets) == ["words", "score"]
    assert batch.targets["words"].shape == (5, 3, 1)
    np.testing.assert_array_equal(batch.targets["score"], SCORE)
    assert list(batch.sample_weight) == ["words"]
    assert batch.sample_weight["words"][3].tolist() == [1, 2, 3]
    assert batch.sample_weight["words"][2].tolist() == [1, 0, 0]
    shared = batch_of(X, [WORDS, SCORE], np.arange(5.0), model=model)
    for name in model.output_names:
        assert shared.sample_weight[name].tolist() == [0, 1, 2, 3, 4]
    partial = batch_of(X, [WORDS, SCORE], [None, np.arange(5.0)], model=model)
    assert list(partial.sample_weight) == ["score"]


def test_batches_have_every_sample_once_and_are_grouped_by_length():
    rng = np.random.default_rng(1)
    source, target = rng.integers(1, 30, 400), rng.integers(1, 30, 400)
    numbers = np.arange(400.0)[:, None]
    x = {
        "source": [np.ones(n, int) for n in source],
        "target": [np.full((n, 2), k) for k, n in enumerate(target)],
        "flag": numbers,
    }
    dataset = Adapter(Pair(), targets=False).dataset(x)
    seen, steps = [], 0
    for batch in dataset.batches(Epoch(8, np.random.default_rng(0))):
        rows = batch.inputs["flag"][:, 0].astype(int)
        seen += rows.tolist()
        assert batch.mask["source"].sum(axis=1).tolist() == source[rows].tolist()
        assert batch.mask["target"].sum(axis=1).tolist() == target[rows].tolist()
        assert (batch.inputs["target"][:, 0, 0] == rows).all()
        steps += batch.mask["source"].size + batch.mask["target"].size
    assert sorted(seen) == list(range(400))
    unsorted = sum(
        8 * (source[k : k + 8].max() + target[k : k + 8].max()) for k in range(0, 400, 8)
    )
    assert steps < unsorted


def test_outputs_are_joined_in_the_order_of_the_samples():
    dataset = Adapter(Pair(scored=True), targets=False).dataset(X).sorted_by_length()
    outputs = [
        {"words": batch.inputs["target"], "score": batch.inputs["flag"]}
        for batch in dataset.batches(Epoch(2))
    ]
    joined = dataset.join(outputs)
    np.testing.assert_array_equal(joined["score"], X["flag"])
    for mine, theirs in zip(joined["words"], X["target"], strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_a_split_and_a_fingerprint_have_all_parts():
    dataset = Adapter(Pair(scored=True)).dataset(X, scored_targets())
    first, last = dataset.split(0.4)
    assert (len(first), len(last)) == (3, 2)
    assert last.as_batch().inputs["source"].shape == (2, 5)
    np.testing.assert_array_equal(last.as_batch().targets["score"], SCORE[3:])
    other = X | {"source": [np.concatenate(X["source"][:2]), *X["source"][1:]]}
    prints = [Adapter(Pair()).dataset(x, WORDS).fingerprint() for x in (X, other)]
    assert prints[0]["X"]["source"] != prints[1]["X"]["source"]
    assert prints[0]["X"]["target"] == prints[1]["X"]["target"]
    x, y, _ = padded()
    prints = [Adapter(Pair()).dataset(x, v).fingerprint() for v in (y, y + 1)]
    assert prints[0]["X"] == prints[1]["X"]
    assert prints[0]["y"] != prints[1]["y"]


def test_a_dictionary_of_one_entry_is_accepted_by_a_stack():
    model = seqnet.Model([seqnet.layers.Dense(1)])
    model.compile("sgd", "mean_squared_error")
    x = np.ones((3, 2))
    batch = batch_of({"input_layer": x}, {"dense": SCORE[:3]}, {"dense": np.ones(3)}, model=model)
    assert_same_batch(batch, Batch(x, SCORE[:3], np.ones(3)))


# ----------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        ({"flag": None}, ["X lacks the input 'flag'", "'source', 'target', 'flag'"]),
        ({"sorce": 1}, ["X has the key 'sorce'", "Did you mean 'source'?"]),
        ({"flag": np.ones((4, 1))}, ["5 in X['source']", "4 in X['flag']"]),
        ({"flag": np.ones((5, 3))}, ["'flag' takes arrays of shape (batch, 1)", "(batch, 3)"]),
        ({"flag": np.full((5, 1), np.nan)}, ["X['flag'] holds nan at (0, 0)"]),
        ({"source": [[1], [9], [2], [3], [4]]}, ["X['source'] holds 9 at (1, 0)", "knows 0 to 5"]),
        ({"source": [[1], [9, 1], [2], [3], [4]]}, ["X['source'][1] holds 9 at (0,)"]),
        ({"target": X["target"][:4]}, ["5 in X['source']", "4 in X['target']"]),
        ({"target": [*X["target"][:4], []]}, ["X['target'][4] is empty"]),
    ],
)
def test_wrong_inputs_are_named(change, parts, no_compile):
    with says(ValueError, *parts):
        Pair().fit(X | change, WORDS, verbose=0)


@pytest.mark.parametrize(
    ("x", "error", "parts"),
    [
        (list(X.values())[:2], ValueError, ["X is a list of 2", "the model has 3 inputs"]),
        (X["flag"], TypeError, ["X is array of shape (5, 1)", "3 inputs", "dictionary"]),
        ([X["source"], X["target"], None], ValueError, ["X has None for the input 'flag'"]),
    ],
)
def test_inputs_without_names_must_be_one_for_each(x, error, parts, no_compile):
    with says(error, *parts):
        Pair().predict(x)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"y": {"words": WORDS}}, ["y lacks the output 'score'"]),
        ({"y": [WORDS]}, ["y is a list of 1", "2 outputs: 'words', 'score'"]),
        ({"y": scored_targets(WORDS[:4])}, ["5 in X['source']", "4 in y['words']"]),
        ({"y": scored_targets([WORDS[1], *WORDS[1:4], WORDS[2]])}, ["y['words'][4] has 1 steps"]),
        ({"y": scored_targets([WORDS[0], *WORDS[:4]])}, ["X['target'][2] has 1"]),
        ({"y": [WORDS, SCORE.repeat(2, 1)]}, ["compares y['score']", "(5, 2)"]),
        ({"y": [WORDS, WORDS]}, ["y['score'] is not rectangular"]),
        ({"y": [WORDS, SCORE * np.nan]}, ["y['score'] holds nan"]),
        ({"sample_weight": {"words": np.ones(4)}}, ["4 in sample_weight['words']"]),
        ({"sample_weight": {"word": np.ones(5)}}, ["the key 'word'", "Did you mean 'words'?"]),
        ({"sample_weight": {"score": -np.ones(5)}}, ["sample_weight['score'] must be finite"]),
        ({"sample_weight": {"score": np.ones((5, 3))}}, ["sample_weight['score']", "(5,)"]),
        ({"mask": {"source": np.ones((5, 2), bool)}}, ["mask['source'][0] has 2 steps"]),
        ({"mask": {"flag": np.ones((5, 2), bool)}}, ["mask['flag'] must have the shape"]),
        ({"mask": {"sauce": 1}}, ["mask has the key 'sauce'", "'source'?"]),
        ({"lengths": {"source": [1] * 5}}, ["lengths['source'] needs an array"]),
        ({"class_weight": {0: 1.0}}, ["class_weight has the key 0"]),
        ({"class_weight": {"words": {0: 1.0}}}, ["needs targets that are classes"]),
    ],
)
def test_wrong_targets_weights_and_masks_are_named(options, parts, no_compile):
    with says(ValueError, *parts):
        Pair(scored=True).fit(**({"X": X, "y": scored_targets(), "verbose": 0} | options))


def test_targets_that_do_not_count_may_be_anything():
    x, y, lengths = padded()
    y[~masks_of(x, lengths)["target"]] = np.nan
    model = Pair(scored=True)
    batch = batch_of(x, [y, SCORE], mask=masks_of(x, lengths), model=model)
    assert np.isfinite(batch.targets["words"]).all()
    score = SCORE.copy()
    score[2] = np.inf
    weights = {"score": np.array([1, 1, 0, 1, 1])}
    batch = batch_of(X, [WORDS, score], weights, model=model)
    assert np.isfinite(batch.targets["score"]).all()
    with says(ValueError, "y['score'] holds inf at (2, 0)"):
        batch_of(X, [WORDS, score], {"words": weights["score"]}, model=model)


# ----------------------------------------------------------------------------- other sources


class Rows(RowDataset):
    """Samples by number whose parts are dictionaries in another order."""

    def __init__(self, x, y):
        self.x, self.y = x, y

    def __len__(self):
        return len(self.y)

    def load(self, rows):
        x = {name: self.x[name][rows] for name in reversed(self.x)}
        return Batch(x, self.y[rows])


def test_rows_outside_memory_and_custom_data_sets(tmp_path):
    x, y, lengths = padded()
    masks = masks_of(x, lengths)
    expected = batch_of(x, y, mask=masks)
    mapped = np.memmap(tmp_path / "target", "float64", "w+", shape=x["target"].shape)
    mapped[:] = x["target"]
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for name, values in x.items():
            file[f"X/{name}"] = values
        mixed = {"source": file["X/source"], "target": mapped, "flag": x["flag"]}
        assert_same_batch(batch_of(mixed, y, mask=masks), expected)
        assert_same_batch(batch_of(mixed, y, lengths=lengths), expected)
        assert_same_batch(batch_of(file["X"], y, mask=masks), expected)
        for wrong in ({"target": X["target"]}, {"flag": x["flag"][:4]}):
            with pytest.raises(ValueError, match=r"X\['target'\] is a list|4 in X\['flag'\]"):
                batch_of(mixed | wrong, y)
    assert_same_batch(batch_of(Rows(x, y)), batch_of(x, y))
    with says(ValueError, "X['flag'] holds nan at (3, 0)"):
        flag = x["flag"].copy()
        flag[3] = np.nan
        batch_of(Rows(x | {"flag": flag}, y))


@pytest.mark.parametrize("form", [dict, list])
def test_streams_of_batches(form):
    def part(rows):
        x = {name: values[rows] for name, values in X.items()}
        return x if form is dict else list(x.values())

    def batches(weights=None):
        for rows in (slice(0, 3), slice(3, 5)):
            yield (part(rows), WORDS[rows], *([] if weights is None else [weights[rows]]))

    dataset = Adapter(Pair()).dataset(list(batches()))
    found = list(dataset.batches(Epoch()))
    assert_same_batch(found[0], batch_of(part(slice(0, 3)), WORDS[:3]))
    weighted = next(Adapter(Pair()).dataset(batches(np.ones(5))).batches(Epoch()))
    assert weighted.sample_weight.tolist() == [1, 1, 1]
    # A prediction takes x alone, or a tuple that begins with x.
    for raw in (part(slice(0, 3)), (part(slice(0, 3)),), [part(slice(0, 3))]):
        dataset = Adapter(Pair(), targets=False).dataset(iter([raw]))
        batch = next(dataset.batches(Epoch()))
        np.testing.assert_array_equal(batch.inputs["flag"], X["flag"][:3])
        (words,) = [dataset.join([batch.inputs["target"]])]
        assert [len(row) for row in words] == list(TARGET[:3])
    with says(ValueError, "Batch 1 of X", "X lacks the input 'flag'"):
        wrong = {"source": X["source"], "target": X["target"]}
        list(Adapter(Pair()).dataset([(X, WORDS), (wrong, WORDS)]).batches(Epoch()))


# ----------------------------------------------------------------------------- windows


def test_windows_cut_only_inputs_with_steps():
    x = {"source": np.ones((5, 7), int), "target": np.ones((5, 7, 2)), "flag": X["flag"]}
    y, mask = np.ones((5, 7, 1)), {"source": np.ones((5, 7), bool)}
    model = Pair()
    batch = batch_of(x, y, np.ones((5, 7)), mask=mask, model=model)
    check_windows(model, batch)
    parts = list(windows(model, batch, 3))
    assert [part.inputs["source"].shape for part in parts] == [(5, 3), (5, 3), (5, 1)]
    assert [part.inputs["target"].shape[1] for part in parts] == [3, 3, 1]
    assert [part.sample_weight.shape[1] for part in parts] == [3, 3, 1]
    assert [part.mask["source"].shape[1] for part in parts] == [3, 3, 1]
    assert all(part.inputs["flag"] is batch.inputs["flag"] for part in parts)
    one = window_of(model, batch_of(X, WORDS), slice(0, 2))
    assert one.inputs["flag"].shape == (5, 1)
    with says(ValueError, "the same number of steps", "5 (source), 3 (target)"):
        check_windows(model, batch_of(X, WORDS))


# ----------------------------------------------------------------------------- known masks


def test_a_mask_is_known_if_all_layers_of_an_input_find_one():
    zero, other = (seqnet.layers.Embedding(6, 3, mask_zero=m) for m in (True, False))
    values = np.array([[1, 0], [0, 0]])
    for layers, expected in (([zero], values != 0), ([zero, zero], values != 0)):
        spec = InputSpec("source", (None, None), "int32", layers)
        np.testing.assert_array_equal(spec.known_mask(values), expected)
    assert InputSpec("source", (None, None), "int32", [zero, other]).known_mask(values) is None
    assert InputSpec("flag", (None, 1), "float32").known_mask(values) is None


def test_a_window_is_padding_if_no_step_of_an_output_is_left():
    arrays = {"source": np.ones((2, 2), int), "target": np.ones((2, 2, 2)), "flag": X["flag"][:2]}
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    for masks, expected in (
        ({"source": empty}, False),
        ({"target": empty}, True),
        ({"source": empty, "target": full}, False),
        (None, False),
    ):
        assert is_padding(Pair(), Batch(arrays, mask=masks)) == expected
    batch = Batch(arrays, mask={"target": empty})
    assert not is_padding(Pair(scored=True), batch)  # the score has no steps


# ----------------------------------------------------------------------------- values


@st.composite
def samples(draw):
    """Return inputs and targets of random lengths."""
    count = draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 1000)))
    source, target = (rng.integers(1, 5, count) for _ in range(2))
    x = {
        "source": [rng.integers(1, 6, n) for n in source],
        "target": [rng.normal(size=(n, 2)) for n in target],
        "flag": rng.normal(size=(count, 1)),
    }
    return x, [rng.normal(size=(n, 1)) for n in target]


@pytest.fixture(scope="module")
def pair():
    return Pair()


@settings(deadline=None, max_examples=8)
@given(data=samples(), more=st.integers(0, 3))
def test_padding_changes_nothing(data, more, pair):
    x, words = data
    arrays, y, lengths = padded(x, words, more)
    before = pair.get_weights()
    losses, updated, outputs = [], [], []
    for inputs, targets, options in (
        (x, words, {}),
        (arrays, y, {"lengths": lengths}),
        (arrays, y, {"mask": masks_of(arrays, lengths)}),
    ):
        losses.append(pair.evaluate(inputs, targets, **options))
        outputs.append(pair.predict(inputs, **options))
        pair.train_on_batch(inputs, targets, **options)
        updated.append(pair.get_weights())
        pair.set_weights(before)
    for loss, weights, output in zip(losses, updated, outputs, strict=True):
        assert loss == pytest.approx(losses[0], rel=1e-5)
        for mine, theirs in zip(weights, updated[0], strict=True):
            np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6)
        for row, one, n in zip(output, outputs[0], lengths["target"], strict=True):
            np.testing.assert_allclose(row[:n], one, rtol=1e-4, atol=1e-5)


def test_the_order_of_names_does_not_matter_for_fit(pair):
    before, logs = pair.get_weights(), []
    for x in (X, dict(reversed(X.items()))):
        seqnet.set_random_seed(1)
        pair.set_weights(before)
        history = pair.fit(x, WORDS, epochs=2, batch_size=2, validation_split=0.4, verbose=0)
        logs.append(history.history)
    assert logs[0] == logs[1]
    assert len(logs[0]["val_loss"]) == 2
    pair.set_weights(before)


def test_unrolled_models_pad_all_inputs_to_known_lengths():
    model = Pair(unroll=True)
    batch = batch_of(X, WORDS, model=model)
    assert model.padded_lengths
    assert batch.inputs["target"].shape[1] in model.padded_lengths
    assert batch.targets.shape[1] == batch.inputs["target"].shape[1]
    assert batch.mask["target"].shape == batch.targets.shape[:2]


def test_class_weights_by_output():
    model = Pair(scored=True, loss="binary_crossentropy", activation="sigmoid")
    words, score = [np.ones((n, 1)) for n in TARGET], np.array([0, 1, 0, 1, 1])[:, None]
    dataset = Adapter(model).dataset(X, [words, score])
    weigh = seqnet.data.class_weight.ClassWeight({"score": {1: 3.0}}, model)
    batch = weigh(dataset.as_batch())
    assert list(batch.sample_weight) == ["score"]
    assert batch.sample_weight["score"].tolist() == [1, 3, 1, 3, 3]


def test_columns_of_the_same_lengths_share_their_places():
    dataset = Adapter(Pair()).dataset(X, WORDS)
    few = dataset.rows(np.array([3, 1]))
    target, words = few.data.inputs["target"], few.data.targets
    assert isinstance(words, StepColumn)
    assert words.layout is target.layout
    assert words.layout.lengths.tolist() == [3, 2]


# ----------------------------------------------------------------------------- other steps


@pytest.mark.parametrize("backwards", [False, True])
def test_outputs_with_other_steps_than_their_input_have_lengths_of_their_own(backwards):
    x = seqnet.Input((None, 4), name="x")
    windows = seqnet.layers.Conv1D(3, 2, strides=2)(x)
    recurrent = seqnet.layers.SimpleRNN(2, return_sequences=True, go_backwards=backwards)
    model = seqnet.Model(x, recurrent(windows))
    model.compile("sgd", "mse")
    lengths = np.array([3, 8, 5, 4])
    data = [RNG.normal(size=(n, 4)) for n in lengths]
    alone = [model.predict_on_batch(row[None])[0] for row in data]
    assert [len(row) for row in alone] == [1, 4, 2, 2]
    for row, one in zip(model.predict(data, batch_size=3), alone, strict=True):
        np.testing.assert_allclose(row, one, rtol=1e-5, atol=1e-6)
    y = [RNG.normal(size=row.shape) for row in alone]
    weights = [np.arange(len(row)) for row in alone]
    expected = np.concatenate([np.square(a - b).mean(-1) for a, b in zip(alone, y, strict=True)])
    assert model.evaluate(data, y, batch_size=3) == pytest.approx(expected.mean(), rel=1e-5)
    average = np.average(expected, weights=np.concatenate(weights))
    assert model.evaluate(data, y, sample_weight=weights) == pytest.approx(average, rel=1e-5)
    padded = pad_sequences(data, dtype="float32", padding="post")
    targets = pad_sequences(y, dtype="float32", padding="pre" if backwards else "post")
    found = model.evaluate(padded, targets, lengths=lengths)
    assert found == pytest.approx(expected.mean(), rel=1e-5)
    with pytest.raises(ValueError, match=r"y\[0\] has 3 steps, but the output for X\[0\] has 1"):
        model.fit(data, data, verbose=0)


def test_sequences_that_meet_step_by_step_have_equal_lengths(no_compile):
    a, b = seqnet.Input((None, 3), name="a"), seqnet.Input((None, 3), name="b")
    model = seqnet.Model([a, b], seqnet.layers.GRU(2)(seqnet.layers.Add()([a, b])))
    short, long = np.ones((2, 3)), np.ones((5, 3))
    message = r"X\['a'\]\[1\] has 5 steps and X\['b'\]\[1\] has 2"
    for order in ([short, long], [long, short]):
        with pytest.raises(ValueError, match="meet step by step"):
            model.predict([order, order[::-1]])
    with pytest.raises(ValueError, match=message):
        model.predict([[short, long], [short, short]])


def test_an_output_with_the_steps_of_several_inputs_takes_no_sequences(no_compile):
    a, b = seqnet.Input((None, 3), name="a"), seqnet.Input((None, 3), name="b")
    model = seqnet.Model([a, b], seqnet.layers.Concatenate(axis=1, name="both")([a, b]))
    data = [np.ones((2, 3)), np.ones((5, 3))]
    with pytest.raises(ValueError, match="'both' has the steps of several inputs"):
        model.predict([data, data])


def test_one_input_and_its_targets_may_be_lists_of_one():
    x = seqnet.Input((None, 3), name="x")
    model = seqnet.Model([x], [seqnet.layers.GRU(2)(x)])
    data, y = np.ones((4, 5, 3)), np.ones((4, 2))
    assert model.predict([data]).shape == (4, 2)
    assert model.predict([data[0]]).shape == (1, 2)  # one sequence
    model.compile("sgd", "mse")
    assert model.evaluate([data], [y]) == model.evaluate(data, y)
