"""Rows outside memory: same batches as from arrays, lazy reading, errors with row numbers."""

import mmap

import h5py
import numpy as np
import pytest

import seqnet
from seqnet.data import Batch, Epoch
from seqnet.data.adapters import Adapter
from seqnet.data.arrays import ArrayDataset
from seqnet.data.out_of_core import Rows, is_out_of_core
from seqnet.layers import GRU, Dense, Embedding, SimpleRNN, Softmax

ROWS = 23
RNG = np.random.default_rng(5)
TOKENS = RNG.integers(0, 6, (ROWS, 4)).astype("int32")
CLASSES = RNG.integers(0, 3, ROWS).astype("int32")
WEIGHTS = RNG.uniform(0.5, 2, ROWS).astype("float32")


class Sliced:
    """An object that only has a length and slices; it records which rows were read."""

    def __init__(self, values):
        self.values, self.read = values, []

    def __len__(self):
        return len(self.values)

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            raise TypeError("slices only")
        self.read += range(*rows.indices(len(self)))
        return self.values[rows]


class Shaped(Sliced):
    """The same with a shape and a dtype, like chunked arrays on disk."""

    @property
    def shape(self):
        return self.values.shape

    @property
    def dtype(self):
        return self.values.dtype

    def __array__(self, *args, **options):
        raise AssertionError("the whole was read at once")


@pytest.fixture
def kept(tmp_path):
    """A function that stores an array in the form that a kind of source reads."""
    files = []

    def keep(array, kind):
        name = f"{len(list(tmp_path.iterdir()))}"
        if kind == "memmap":
            target = np.lib.format.open_memmap(tmp_path / name, "w+", array.dtype, array.shape)
            target[:] = array
            return target
        if kind == "h5py":
            files.append(h5py.File(tmp_path / name, "w"))
            return files[-1].create_dataset("data", data=array)
        return {"array": np.array, "sliced": Sliced, "shaped": Shaped}[kind](array)

    yield keep
    for file in files:
        file.close()


def classifier(**options):
    seqnet.set_random_seed(3)
    model = seqnet.Model([Embedding(6, 4, **options), GRU(4), Dense(3, activation="softmax")])
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def bits(model):
    return [w.tobytes() for w in model.get_weights()]


@pytest.mark.parametrize("shuffle", [True, "batch", pytest.param(False, marks=pytest.mark.slow)])
def test_training_does_not_depend_on_where_rows_are_stored_bit_for_bit(kept, shuffle):
    results = []
    for kind in ("array", "memmap", "h5py", "sliced", "shaped"):
        model = classifier()
        x, y, w = (kept(a, kind) for a in (TOKENS, CLASSES, WEIGHTS))
        history = model.fit(
            x, y, batch_size=5, epochs=2, shuffle=shuffle, sample_weight=w, verbose=0,
            validation_split=0.2, class_weight={1: 3.0},
        )  # fmt: skip
        evaluated = model.evaluate(x, y, batch_size=5, sample_weight=w)
        predicted = model.predict(x, batch_size=5).tobytes()
        results.append((bits(model), history.history, evaluated, predicted))
    assert all(result == results[0] for result in results[1:])


def test_parts_in_memory_and_in_files_can_be_combined(kept):
    expected = classifier()
    expected.fit(TOKENS, CLASSES, batch_size=5, verbose=0)
    model = classifier()
    model.fit(kept(TOKENS, "h5py"), CLASSES.tolist(), batch_size=5, verbose=0)
    assert bits(model) == bits(expected)


def test_lengths_and_masks_for_rows_outside_memory(kept):
    x = RNG.normal(size=(9, 4, 2)).astype("float32")
    lengths = np.array([1, 4, 2, 3, 4, 1, 2, 3, 4])
    mask = np.arange(4) < lengths[:, None]
    model = seqnet.Model([SimpleRNN(3)])
    expected = model.predict(x, mask=mask)
    np.testing.assert_array_equal(model.predict(kept(x, "memmap"), lengths=lengths), expected)
    np.testing.assert_array_equal(model.predict(kept(x, "h5py"), mask=kept(mask, "h5py")), expected)


def test_sources_and_arrays_in_memory_are_distinguished(kept):
    memmap = kept(TOKENS, "memmap")
    assert all(map(is_out_of_core, (memmap, memmap[3:], memmap[:, ::2], np.asarray(memmap))))
    assert is_out_of_core(kept(TOKENS, "h5py"))
    assert is_out_of_core(Sliced(TOKENS))
    for values in (TOKENS, [[1]], (1, 2), "text", 3.0, {"a": 1}, None, memmap[[1, 2]]):
        assert not is_out_of_core(values)


def test_a_contiguous_dataset_is_memory_mapped(tmp_path):
    with h5py.File(tmp_path / "data.h5", "w", userblock_size=512) as file:
        file["whole"] = TOKENS
        file["big_endian"] = TOKENS.astype(">i8")
        file.create_dataset("chunks", data=TOKENS, chunks=(3, 4), compression="gzip")
        assert Rows(file["whole"], "X").values == file["whole"]  # a copy would be writable
    with h5py.File(tmp_path / "data.h5", "r") as file:
        for name, dataset in file.items():
            rows = Rows(dataset, "X")
            assert isinstance(rows.values, np.memmap) == (name != "chunks")
            np.testing.assert_array_equal(rows[np.array([22, 0, 5])], TOKENS[[22, 0, 5]])


@pytest.mark.parametrize("kind", ["memmap", "h5py", "sliced", "shaped"])
def test_rows_are_returned_in_the_requested_order(kept, kind):
    rows = Rows(kept(TOKENS, kind), "X")
    for asked in ([4, 0, 22, 1, 2], [7], list(range(22, -1, -1)), [3, 3, 4]):
        np.testing.assert_array_equal(rows[np.array(asked)], TOKENS[asked])
    np.testing.assert_array_equal(rows[5:9], TOKENS[5:9])
    assert type(rows[5:9]) is type(rows[np.array([1])]) is np.ndarray


@pytest.mark.skipif(not hasattr(mmap, "MADV_WILLNEED"), reason="the system has no such call")
def test_slow_rows_are_requested_at_the_same_time(tmp_path, monkeypatch):
    class Noted(mmap.mmap):
        def madvise(self, *arguments):
            asked.append(arguments)
            return super().madvise(*arguments)

    asked: list[tuple] = []
    values = np.arange(300 * 512, dtype="int32").reshape(300, 512)
    header = b"x" * 100
    (tmp_path / "rows").write_bytes(header + values.tobytes())
    with (tmp_path / "rows").open("rb") as file:
        whole = Noted(file.fileno(), 0, access=mmap.ACCESS_READ)
    source = np.ndarray(values.shape, "int32", whole, offset=len(header))[10:].view(np.memmap)
    monkeypatch.setattr("seqnet.data.out_of_core.FAST_ROW_S", 60)
    rows, order = Rows(source, "X"), np.array([7, 289, 7, 0])
    for _ in range(2):
        assert (rows[order] == values[10:][order]).all()
        assert not asked
    monkeypatch.setattr("seqnet.data.out_of_core.FAST_ROW_S", 0)
    assert (rows[order] == values[10:][order]).all()
    assert not asked
    assert (rows[order] == values[10:][order]).all()
    size = values[0].nbytes
    assert [advice for advice, _, _ in asked] == [mmap.MADV_WILLNEED] * 4
    for (_, start, length), row in zip(asked, order, strict=True):
        first = len(header) + (10 + row) * size
        assert start % mmap.PAGESIZE == 0
        assert first - mmap.PAGESIZE < start <= first
        assert start + length == first + size
    asked.clear()
    wide = Rows(source[:, ::2], "X")  # each row is in many pieces
    for _ in range(3):
        assert (wide[order] == values[10:][order, ::2]).all()
        assert not asked


def test_neighbouring_rows_are_read_together_in_increasing_order():
    asked = []

    class Watched(Sliced):
        def __getitem__(self, rows):
            asked.append((rows.start, rows.stop))
            return super().__getitem__(rows)

    rows = Rows(Watched(TOKENS), "X")
    asked.clear()
    rows[np.array([9, 2, 8, 3, 20])]
    assert asked == [(2, 4), (8, 10), (20, 21)]


def test_only_the_first_batch_is_read_before_training():
    read_at_start = []

    class Note(seqnet.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            read_at_start.append(set(x.read))

    x = Shaped(TOKENS)
    classifier().fit(x, CLASSES, batch_size=5, shuffle=False, verbose=0, callbacks=[Note()])
    assert read_at_start[0] <= set(range(5))  # the first batch, needed to compile
    assert set(x.read) == set(range(ROWS))


def test_batches_before_the_first_are_not_read():
    x = Shaped(np.arange(20.0).reshape(20, 1))
    model = seqnet.Model([Dense(1)])
    dataset = Adapter(model, targets=False).dataset(x)
    x.read.clear()
    found = [batch.inputs.ravel().tolist() for batch in dataset.batches(Epoch(4, first=3))]
    assert found == [[12, 13, 14, 15], [16, 17, 18, 19]]
    assert sorted(x.read) == list(range(12, 20))


@pytest.mark.parametrize("contiguous", [False, True])
def test_the_order_is_drawn_before_rows_are_read(contiguous):
    x = Shaped(np.zeros((20, 1)))
    dataset = Adapter(seqnet.Model([Dense(1)]), targets=False).dataset(x)
    rng, other = np.random.default_rng(1), np.random.default_rng(1)
    x.read.clear()
    batches = dataset.batches(Epoch(4, rng, contiguous=contiguous))
    other.permutation(5 if contiguous else 20)
    assert rng.bit_generator.state == other.bit_generator.state
    assert not x.read
    batches.close()


def test_shuffle_batch_reads_neighbouring_rows_in_random_order():
    x = np.arange(22).reshape(22, 1)
    dataset = ArrayDataset(Batch(x))
    order = np.random.default_rng(0)
    found = [b.inputs.ravel().tolist() for b in dataset.batches(Epoch(5, order, contiguous=True))]
    expected = [x.ravel()[k : k + 5].tolist() for k in range(0, 22, 5)]
    assert found != expected
    assert sorted(found) == expected


@pytest.mark.parametrize("shuffle", [True, False, "batch"])
@pytest.mark.parametrize(
    ("part", "value", "parts"),
    [
        ("x", 6, ["X holds 6 at (17, 2)", "input_dim=6"]),
        ("x", 2**40, [f"Row 17: X holds {2**40}", "32-bit"]),
        ("y", 3, ["y holds class 3 at (17,)", "0 to 2"]),
        ("w", np.nan, ["sample_weight", "nan at (17,)"]),
    ],
)
def test_a_wrong_value_is_refused_by_row_before_the_update(shuffle, part, value, parts):
    arrays = {"x": TOKENS.astype("int64"), "y": CLASSES.copy(), "w": WEIGHTS.copy()}
    arrays[part][(17, 2) if part == "x" else 17] = value
    model = classifier()
    model.fit(TOKENS[:2], CLASSES[:2], verbose=0, sample_weight=WEIGHTS[:2])
    x, y, w = (Shaped(a) for a in arrays.values())
    updates = []

    class Note(seqnet.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            updates.append(bits(self.model))

    before = bits(model)
    with pytest.raises(ValueError) as caught:
        model.fit(
            x, y, batch_size=4, sample_weight=w, shuffle=shuffle, verbose=0, callbacks=[Note()]
        )
    assert all(p in str(caught.value) for p in parts), str(caught.value)
    assert bits(model) == (updates or [before])[-1]
    if not shuffle:
        assert len(updates) == 4
    with pytest.raises(ValueError) as caught:
        model.evaluate(x, y, batch_size=4, sample_weight=w)
    assert all(p in str(caught.value) for p in parts)


def test_targets_that_a_loss_does_not_allow_are_refused_by_row():
    model = seqnet.Model([Embedding(6, 3), GRU(3), Dense(1, "sigmoid")])
    model.compile("sgd", "binary_crossentropy")
    y = (CLASSES[:, None] > 0).astype("float32")
    y[17] = -1
    for verb in (model.fit, model.evaluate):
        with pytest.raises(ValueError, match=r"y holds -1.0 at \(17, 0\), .* from 0 to 1"):
            verb(Shaped(TOKENS), Shaped(y), batch_size=4, verbose=0)
    model = seqnet.Model([Embedding(6, 3), GRU(3), Dense(3, "softmax")])
    model.compile("sgd", "categorical_crossentropy")
    y = np.eye(3)[CLASSES]
    y[17] = 0
    with pytest.raises(ValueError, match=r"y has a row at \(17,\) that adds up to 0"):
        model.fit(Shaped(TOKENS), Shaped(y), batch_size=4, verbose=0)
    weights = np.where(np.arange(len(y)) == 17, 0.0, 1.0)
    model.fit(Shaped(TOKENS), Shaped(y), sample_weight=weights, batch_size=4, verbose=0)


def test_masked_rows_and_float_masks_outside_memory_are_refused():
    with pytest.raises(TypeError, match=r"X\[0:4\] is a masked array"):
        classifier().fit(Sliced(np.ma.masked_equal(TOKENS, TOKENS[2, 0])), CLASSES, batch_size=4)
    with pytest.raises(TypeError, match="mask must hold bools"):
        classifier().fit(Shaped(TOKENS), CLASSES, mask=Shaped(np.ones(TOKENS.shape)), verbose=0)


def test_invalid_values_without_weight_are_accepted():
    x, y = TOKENS % 5 + 1, np.repeat(CLASSES[:, None], 4, 1)
    x[17, 2:] = 0
    y[17, 2:] = 99
    layers = [Embedding(6, 3, mask_zero=True), GRU(3, return_sequences=True), Dense(3), Softmax()]
    model = seqnet.Model(layers)
    assert np.isfinite(model.evaluate(Shaped(x), Shaped(y), batch_size=4))


def test_a_wrong_value_in_validation_data_is_named_by_row():
    x = np.ones((20, 3, 2))
    x[18, 1, 0] = np.inf
    model = seqnet.Model([SimpleRNN(2)])
    with pytest.raises(ValueError, match=r"X holds inf at \(18, 1, 0\)"):
        model.fit(Shaped(x), Shaped(np.ones((20, 2))), validation_split=0.25, verbose=0)


@pytest.mark.parametrize(
    ("x", "y", "error", "parts"),
    [
        (Shaped(TOKENS), CLASSES[:5], ValueError, ["same number", "23 in X", "5 in y"]),
        (Shaped(TOKENS + 0.5), CLASSES, ValueError, ["X holds", "whole numbers"]),
        (Shaped(TOKENS), CLASSES.astype(float), TypeError, ["y", "integer class numbers"]),
        (Shaped(TOKENS[:0]), CLASSES[:0], ValueError, ["X is empty"]),
        (Sliced(["ab"] * 23), CLASSES, TypeError, ["X must be an array of numbers"]),
        (Shaped(TOKENS), None, ValueError, ["y is missing", "Shaped"]),
        (Shaped(TOKENS[:, :, None, None]), CLASSES, ValueError, ["gru", "rank"]),
    ],
)
def test_invalid_arguments_are_refused_before_compiling(compiled, x, y, error, parts):
    with pytest.raises(error) as caught:
        classifier().fit(x, y, verbose=0)
    assert all(p in str(caught.value) for p in parts), str(caught.value)
    assert not compiled


def test_slices_of_the_wrong_shape_are_refused():
    class Stuck(Sliced):
        def __getitem__(self, rows):
            return self.values[0:1]

    with pytest.raises(ValueError, match=r"X\[0:5\] has the shape \(1, 4\), expected \(5, 4\)"):
        classifier().fit(Stuck(TOKENS), CLASSES, batch_size=5, shuffle=False, verbose=0)


@pytest.mark.parametrize("kind", ["array", "sliced"])
def test_unshuffled_rows_continue_in_the_next_epoch(kept, kind):
    x = kept(np.arange(10.0).reshape(10, 1), kind)
    dataset = Adapter(seqnet.Model([Dense(1)]), targets=False).dataset(x)

    def rows(**options):
        batches = dataset.batches(Epoch(4, **options))
        return [batch.inputs.ravel().astype(int).tolist() for batch in batches]

    assert rows(steps=2) == [[0, 1, 2, 3], [4, 5, 6, 7]]
    assert rows(steps=2, before=2) == [[8, 9], [0, 1, 2, 3]]
    assert rows(steps=2, before=2, first=1) == [[0, 1, 2, 3]]
    assert len(rows(steps=5, rng=np.random.default_rng(0))) == 5


def test_steps_per_epoch_limits_the_batches_of_rows():
    model = classifier()
    seen = []

    class Note(seqnet.callbacks.Callback):
        def on_batch_end(self, batch, logs=None):
            seen.append(batch)

    model.fit(
        TOKENS, CLASSES, batch_size=4, epochs=2, steps_per_epoch=2, verbose=0, callbacks=[Note()],
        validation_data=(TOKENS, CLASSES), validation_steps=1, validation_batch_size=7,
    )  # fmt: skip
    assert seen == [0, 1, 0, 1]
    expected = model.evaluate(TOKENS[:7], CLASSES[:7])[0]
    assert model.history.history["val_loss"][-1] == pytest.approx(expected, rel=1e-6)
    assert model.predict(TOKENS, batch_size=4, steps=2).shape == (8, 3)


@pytest.mark.parametrize(
    ("options", "parts"),
    [
        ({"shuffle": "rows"}, ["shuffle", "'batch'", "'rows'"]),
        ({"steps_per_epoch": 0}, ["steps_per_epoch", "at least 1"]),
        ({"validation_batch_size": 0}, ["validation_batch_size"]),
    ],
)
def test_wrong_options_are_refused(compiled, options, parts):
    with pytest.raises(ValueError) as caught:
        classifier().fit(TOKENS, CLASSES, verbose=0, **options)
    assert all(p in str(caught.value) for p in parts)
    assert not compiled
