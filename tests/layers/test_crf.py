"""The CRF layer and its loss in models: paths, masks, transitions that are forbidden, bad input.

Values and gradients are checked in tests/ops/test_chain.py.
"""

import itertools

import numpy as np
import pytest

import seqnet
from seqnet.layers import CRF, LSTM, Bidirectional, Dense, Embedding, Masking
from seqnet.losses import CRFLoss
from seqnet.text import forbidden_transitions

TAGS = ["O", "B-A", "I-A", "B-B", "I-B"]


def sentences():
    """Sequences of words, and tags that depend on the word before."""
    rng = np.random.default_rng(0)
    X = [rng.integers(1, 10, n) for n in (3, 5, 2, 7, 4, 1) * 4]
    return X, [(x + np.append(0, x[:-1])) % 2 for x in X]


def tagger(classes=3, **options):
    encoder = Bidirectional(LSTM(6, return_sequences=True))
    return seqnet.Model([Embedding(10, 6), encoder, Dense(classes), CRF(**options)])


def padded(values):
    return seqnet.data.pad_sequences(values, padding="post")


def test_a_tagger_is_trained_evaluated_and_saved(tmp_path):
    """On lists, and on arrays with lengths and with a mask."""
    X, y = sentences()
    model = tagger(forbidden=[(0, 2), ("start", 2), (2, "end")])
    model.compile(seqnet.optimizers.Adam(0.03), "crf_loss", metrics=["accuracy"])
    history = model.fit(X, y, epochs=5, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    found = model.evaluate(X, y)
    arrays, mask = [padded(X), padded(y)], np.arange(7) < np.array([[len(x)] for x in X])
    arrays[1][~mask] = 99  # tags of padding may be anything
    assert model.evaluate(*arrays, mask=mask) == pytest.approx(found, rel=1e-5)
    assert model.evaluate(arrays[0], padded(y), lengths=mask.sum(axis=1)) == pytest.approx(found)
    paths = model.predict(X)
    assert [p.shape for p in paths] == [(len(x), 3) for x in X]
    assert all((p.sum(axis=1) == 1).all() for p in paths)
    right = [p.argmax(axis=1) == t for p, t in zip(paths, y, strict=True)]
    assert np.concatenate(right).mean() == pytest.approx(found[1], rel=1e-5)
    model.save(tmp_path / "model.h5")
    again = seqnet.load_model(tmp_path / "model.h5")
    assert again.evaluate(X, y) == found
    assert again.layers[-1].forbidden == [(0, 2), ("start", 2), (2, "end")]
    half = model.evaluate(X, y, sample_weight=np.arange(24) < 12)
    assert half == pytest.approx(model.evaluate(X[:12], y[:12]), rel=1e-5)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_padding_and_holes_change_nothing(dtype):
    """Neither the loss nor an update nor the path."""
    seqnet.config.set_floatx(dtype)
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(4, 5, 3)), rng.integers(0, 3, (4, 5))
    places = [1, 2, 5, 6, 9]
    holes, tags = np.full((4, 11, 3), 7.0), np.full((4, 11), 50)
    holes[:, places], tags[:, places] = X, y
    results = []
    for inputs, targets in ((X, y), (holes, tags)):
        seqnet.set_random_seed(1)
        model = seqnet.Model([Masking(7.0), Dense(3), CRF(transitions_initializer="normal")])
        model.compile("sgd", "crf_loss")
        results.append([model.train_on_batch(inputs, targets), *model.get_weights()])
        results[-1].append(model.predict(inputs))
    whole, with_holes = results
    assert (np.delete(with_holes[-1], places, axis=1) == 0).all()
    with_holes[-1] = with_holes[-1][:, places]
    for one, other in zip(whole, with_holes, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_new_layer_is_a_softmax_of_each_step():
    """With zero transitions marginals are softmaxes, the loss is the sum of cross-entropies."""
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(3, 4, 5)), rng.integers(0, 5, (3, 4))
    log_p = X - np.logaddexp.reduce(X, axis=2, keepdims=True)
    model = seqnet.Model([CRF("marginals", dtype="float64")])
    np.testing.assert_allclose(model.predict(X), np.exp(log_p), rtol=1e-10)
    model.compile("sgd", "crf_loss")
    picked = np.take_along_axis(log_p, y[..., None], axis=2)
    assert model.evaluate(X, y) == pytest.approx(-picked.sum() / 3)
    model.compile("sgd", "sparse_categorical_crossentropy")
    assert model.evaluate(X, y) == pytest.approx(-picked.mean(), rel=1e-6)


def test_the_loss_is_chosen():
    model = seqnet.Model([CRF()])
    model.fit(np.zeros((2, 3, 4)), np.zeros((2, 3), int), verbose=0)
    assert isinstance(model.loss, CRFLoss)


def test_without_boundary_and_reduction_sum():
    X, y = np.zeros((2, 3, 4)), np.zeros((2, 3), int)
    model = seqnet.Model([CRF(use_boundary=False)])
    model.compile("sgd", CRFLoss(reduction="sum"), metrics=["crf_loss"])
    loss, metric = model.evaluate(X, y)
    assert loss == pytest.approx(6 * np.log(4), rel=1e-6)
    assert metric == pytest.approx(3 * np.log(4), rel=1e-6)
    assert [w.shape for w in model.get_weights()] == [(4, 4)]


def test_paths_have_no_forbidden_transition():
    forbidden = forbidden_transitions(TAGS)
    assert forbidden == [
        ("start", 2), ("start", 4), (0, 2), (0, 4), (1, 4), (2, 4), (3, 2), (4, 2),
    ]  # fmt: skip
    rng = np.random.default_rng(0)
    X = 5 * rng.normal(size=(50, 8, 5))
    free, held = seqnet.Model([CRF()]), seqnet.Model([CRF(forbidden=forbidden)])
    pairs = [
        {pair for row in model.predict(X).argmax(2) for pair in itertools.pairwise(["start", *row])}
        for model in (free, held)
    ]
    assert set(forbidden) <= pairs[0]
    assert not set(forbidden) & pairs[1]
    marginals = seqnet.Model([CRF("marginals", forbidden=forbidden)]).predict(X)
    assert (marginals[:, 0, [2, 4]] == 0).all()
    np.testing.assert_allclose(marginals.sum(axis=2), 1, rtol=1e-5)


def test_schemes_of_tags():
    """Of BIOES, a transition is allowed if the two tags can follow each other in some sentence."""
    kinds = ["A", "B"]
    tags = ["O", *[f"{p}-{k}" for p in "BIES" for k in kinds]]

    def segments(steps):
        """All taggings of some steps."""
        if steps == 0:
            yield ()
        for n in range(1, steps + 1):
            whole = [[f"S-{k}"] for k in kinds] + [["O"]]
            if n > 1:
                whole = [[f"B-{k}", *[f"I-{k}"] * (n - 2), f"E-{k}"] for k in kinds]
            for rest in segments(steps - n):
                for first in whole:
                    yield (*first, *rest)

    seen = {
        pair
        for tagging in segments(5)
        for pair in itertools.pairwise(["start", *[tags.index(t) for t in tagging], "end"])
    }
    numbers = range(len(tags))
    every = set(itertools.product(["start", *numbers], [*numbers, "end"])) - {("start", "end")}
    assert set(forbidden_transitions(tags, "BIOES")) == every - seen
    other = [t.replace("E-", "L-").replace("S-", "U-") for t in tags]
    assert forbidden_transitions(other, "BILOU") == forbidden_transitions(tags, "BIOES")
    with pytest.raises(ValueError, match=r"tags\[1\] is 'E-A'; in the scheme BIO"):
        forbidden_transitions(["O", "E-A"])
    with pytest.raises(ValueError, match="scheme is one of"):
        forbidden_transitions(["O"], "IO")


@pytest.mark.parametrize("forbidden", [[(0,)], [(0, "start")], [("end", 0)], [(0.5, 1)], [3]])
def test_pairs_are_checked(forbidden):
    with pytest.raises(ValueError, match="forbidden is a list of pairs"):
        CRF(forbidden=forbidden)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="'viterbi' or 'marginals'"):
        CRF("best")
    with pytest.raises(ValueError, match=r"the pair \(0, 3\), but there are 3 classes"):
        tagger(forbidden=[(0, 3)]).build((None, None))
    with pytest.raises(ValueError, match="a sequence has a step"):
        tagger(forbidden=[("start", "end")]).build((None, None))
    with pytest.raises(ValueError, match="batch, time, classes"):
        CRF()(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="needs the scores of a CRF layer"):
        CRFLoss()([[1]], np.zeros((1, 1, 3)))


X2, Y2 = [[1, 2, 3], [4, 5]], [[0, 1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("y", "options", "loss", "message"),
    [
        ([[0, 1, 0], [1, 3]], {}, "crf_loss", r"y\[1\] holds class 3 .* 3 classes, 0 to 2"),
        ([[0, 1, 0], [0, 2]], {}, "crf_loss", r"y\[1\] has the transition \(0, 2\) at step 1"),
        ([[0, 1, 0], [2, 1]], {}, "crf_loss", r"y\[1\] has .* \('start', 2\) at step 0"),
        ([[0, 1, 2], [1, 1]], {}, "crf_loss", r"y\[0\] has the transition \(2, 'end'\) at step 2"),
        ([[0, 1], [1, 1]], {}, "crf_loss", r"y\[0\] has 2 steps, but X\[0\] has 3"),
        ([[0.0, 1, 1], [1, 1]], {}, "crf_loss", "integer class numbers"),
        (Y2, {"sample_weight": [[1, 1, 1], [1, 1]]}, "crf_loss", "one weight for each sequence"),
        (Y2, {"tbptt": 2}, "crf_loss", "loss of whole sequences"),
        (Y2, {}, "sparse_categorical_crossentropy", r"best path.*no gradient.*loss='crf_loss'"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_before_anything_is_compiled(no_compile, y, options, loss, message):
    layers = [Embedding(10, 4), Dense(3), CRF(forbidden=[(0, 2), ("start", 2), (2, "end")])]
    model = seqnet.Model(layers)
    model.compile("adam", loss)
    with pytest.raises((ValueError, TypeError), match=message):
        model.fit(X2, y, verbose=0, **options)


def test_targets_that_do_not_count_may_have_forbidden_transitions():
    model = seqnet.Model([Embedding(10, 4), Dense(3), CRF(forbidden=[(0, 2)])])
    model.compile("adam", "crf_loss")
    X, y = np.array([[1, 2, 3], [4, 5, 6]]), np.array([[0, 1, 0], [0, 2, 0]])
    model.evaluate(X, y, sample_weight=np.array([1, 0]))
    with pytest.raises(ValueError, match=r"y\[1\] has the transition \(0, 2\) at step 1"):
        model.evaluate(X, y)
    mask = np.array([[True, True, True], [True, False, True]])
    model.evaluate(X, y, mask=mask)
    mask[1] = [False, True, True]
    model.evaluate(X, y, mask=mask)
    y[1], mask[1] = [0, 1, 2], [True, False, True]  # 0 and 2 are neighbours
    with pytest.raises(ValueError, match=r"y\[1\] has the transition \(0, 2\) at step 2"):
        model.evaluate(X, y, mask=mask)


def test_the_loss_needs_a_crf_layer():
    model = seqnet.Model([Dense(3)])
    model.compile("adam", "crf_loss")
    with pytest.raises(ValueError, match=r"the model's last layer must be seqnet\.layers\.CRF"):
        model.fit(np.zeros((2, 3, 4)), np.zeros((2, 3), int), verbose=0)
