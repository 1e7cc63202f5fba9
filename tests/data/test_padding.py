import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import seqnet
from seqnet.data import Batch, Epoch, dataset, pad_sequences
from seqnet.data.adapters import Adapter
from seqnet.data.arrays import ArrayDataset
from seqnet.data.validation import as_array

lists = st.lists(st.lists(st.integers(1, 9), max_size=5), min_size=1, max_size=5)
sides = st.sampled_from(["pre", "post"])


@given(rows=lists, maxlen=st.one_of(st.none(), st.integers(1, 7)), padding=sides, cut=sides)
def test_padding_keeps_every_step_that_fits(rows, maxlen, padding, cut):
    length = maxlen or max(len(row) for row in rows)
    padded = pad_sequences(rows, maxlen, padding=padding, truncating=cut)
    assert padded.shape == (len(rows), length)
    assert padded.dtype == np.int32
    for row, result in zip(rows, padded.tolist(), strict=True):
        start = max(0, len(row) - length)
        kept = row[start:] if cut == "pre" else row[:length]
        zeros = [0] * (length - len(kept))
        assert result == (zeros + kept if padding == "pre" else kept + zeros)


def test_padding_needs_sequences_not_numbers():
    with pytest.raises(TypeError, match=r"sequences\[1\] is .*2.* a list or an array"):
        pad_sequences([[1], 2])


def test_padding_accepts_vectors_floats_and_another_value():
    padded = pad_sequences([np.ones((1, 2)), np.zeros((3, 2))], value=-1.5, padding="post")
    assert padded.dtype == np.float32
    np.testing.assert_array_equal(padded[0], [[1, 1], [-1.5, -1.5], [-1.5, -1.5]])
    assert pad_sequences([[1], [2]], dtype="int8").dtype == np.int8
    assert pad_sequences([[1], [2, 3]], value=0.5).tolist() == [[0.5, 1.0], [2.0, 3.0]]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"padding": "left"}, "padding must be 'pre' or 'post', got 'left'"),
        ({"truncating": "end"}, "truncating must be 'pre' or 'post', got 'end'"),
        ({"maxlen": 0}, "maxlen must be at least 1, got 0"),
    ],
)
def test_wrong_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        pad_sequences([[1]], **options)


def test_sequences_of_different_steps_are_refused():
    with pytest.raises(ValueError, match="differ in shape"):
        pad_sequences([np.zeros((2, 3)), np.zeros((2, 4))])
    with pytest.raises(ValueError, match="no sequences"):
        pad_sequences([])


def examples(count=10):
    x = np.arange(count)
    return ArrayDataset(Batch(x, 10 * x, 0.5 * x, np.stack([x > 3, x > 5], axis=1)))


@given(count=st.integers(1, 20), size=st.integers(1, 7), seed=st.none() | st.integers(0, 9))
def test_batches_have_every_sample_once_with_its_targets(count, size, seed):
    rng = None if seed is None else np.random.default_rng(seed)
    batches = list(examples(count).batches(Epoch(size, rng)))
    assert [len(b) for b in batches[:-1]] == [size] * (len(batches) - 1)
    assert 1 <= len(batches[-1]) <= size
    x = np.concatenate([b.inputs for b in batches])
    assert sorted(x) == list(range(count))
    if seed is None:
        assert list(x) == list(range(count))
    for batch in batches:
        np.testing.assert_array_equal(batch.targets, 10 * batch.inputs)
        np.testing.assert_array_equal(batch.sample_weight, 0.5 * batch.inputs)
        np.testing.assert_array_equal(
            batch.mask, np.stack([batch.inputs > 3, batch.inputs > 5], axis=1)
        )


def test_a_split_returns_the_end_of_the_data():
    first, last = examples().split(0.25)
    assert list(first.data.inputs) == list(range(7))
    assert list(last.data.inputs) == [7, 8, 9]
    assert list(last.data.targets) == [70, 80, 90]


def test_objects_that_convert_to_arrays_are_arrays():
    class Series:
        shape, dtype = (3,), np.dtype("int64")

        def __array__(self, dtype=None, copy=None):
            return np.array([1, 2, 3])

    assert as_array(Series(), "X").tolist() == [1, 2, 3]


def test_messages_name_the_data_set():
    model = seqnet.Model([seqnet.layers.Dense(1)])
    with pytest.raises(ValueError, match=r"validation X .* validation y"):
        Adapter(model, prefix="validation ").dataset(np.zeros((3, 2)), np.zeros((2, 1)))


def test_a_fingerprint_distinguishes_values_shapes_and_dtypes(monkeypatch):
    array = np.arange(24.0).reshape(6, 4)
    other = array.copy()
    other[2, 1] += 1e-9
    variants = [array, other, array.reshape(4, 6), array.astype("float32"), array[:4], array > 3]
    prints = [str(dataset.fingerprint(variant)) for variant in variants]
    assert len(set(prints)) == len(variants)
    assert dataset.fingerprint(np.asfortranarray(array)) == dataset.fingerprint(array)
    monkeypatch.setattr(dataset, "FINGERPRINT_BYTES", 100)  # of 192 bytes every other row is used
    assert dataset.fingerprint(other) != dataset.fingerprint(array)
    other[2, 1], other[1, 1] = array[2, 1], 7
    assert dataset.fingerprint(other) == dataset.fingerprint(array)
