"""Damaged, rearranged and forged files give either a clear error or the correct model."""

from __future__ import annotations

import copy
import json
import math
import random
import tracemalloc

import h5py
import numpy as np
import pytest

import seqnet
from seqnet.layers import GRU, LSTM, Bidirectional, Dense, Dropout, Embedding, TimeDistributed
from seqnet.regularizers import L2
from seqnet.saving import hdf5
from seqnet.saving.model_format import pack

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def model():
    seqnet.set_random_seed(0)
    model = seqnet.Model(
        [
            Embedding(5, 3, mask_zero=True, name="words"),
            Dropout(0.3, noise_shape=(None, 1, None)),
            Bidirectional(GRU(2, return_sequences=True)),
            LSTM(3, return_sequences=True, stateful=True),
            TimeDistributed(Dense(3, "softmax", kernel_regularizer=L2(0.1))),
        ]
    )
    model.compile(
        seqnet.optimizers.Adadelta(clipnorm=1.0), "sparse_categorical_crossentropy", ["accuracy"]
    )
    x = np.array([[1, 2, 3, 0], [4, 3, 2, 1]])
    model.fit(x, x % 3, epochs=1, verbose=0, shuffle=False)
    model.metadata["words"] = ["a", "ä", None, 1.5]
    return model


@pytest.fixture
def path(model, tmp_path):
    model.save(tmp_path / "model.h5")
    return tmp_path / "model.h5"


def refused(path, function=seqnet.load_model):
    """Check that reading raises a ValueError; return its message."""
    with pytest.raises(ValueError) as caught:
        function(path)
    assert type(caught.value) is ValueError
    assert path.name in str(caught.value)
    return str(caught.value)


def seal(path, **changes):
    """Write the correct length and checksum into a changed file, as an attacker would."""
    data = path.read_bytes()
    names = ("magic", "version", "length", "start", "size")
    values = dict(zip(names, hdf5.FRONT.unpack_from(data), strict=True))
    values |= {"length": len(data)} | changes
    front = hdf5.FRONT.pack(*values.values()).ljust(hdf5.FRONT_SIZE, b"\0")
    body = data[hdf5.BLOCK :]
    path.write_bytes(front + hdf5.hashlib.sha256(front + body).digest() + body)


def contents(path):
    """Return the JSON of a file."""
    data = path.read_bytes()
    *_, start, size = hdf5.FRONT.unpack_from(data)
    return json.loads(data[start : start + size])


def with_contents(path, changed, whole):
    """Write a file with other JSON and a correct checksum."""
    text = changed if isinstance(changed, bytes) else json.dumps(changed).encode()
    path.write_bytes(whole + text)
    seal(path, start=len(whole), size=len(text))


# ---- damage


def test_a_file_cut_at_or_near_any_block_is_refused(path):
    whole = path.read_bytes()
    for end in range(0, len(whole), 512):
        for there in {max(0, end - 1), end, end + 1}:
            path.write_bytes(whole[:there])
            refused(path)
    path.write_bytes(whole + b"\0")
    assert "changed after it was saved" in refused(path)
    path.write_bytes(whole[:8000])
    assert f"truncated to 8000 of {len(whole)} bytes" in refused(path)


def test_a_flipped_bit_in_any_byte_is_refused(path):
    whole, rng = path.read_bytes(), random.Random(0)
    with open(path, "r+b", buffering=0) as file:
        for place, byte in enumerate(whole):
            file.seek(place)
            file.write(bytes([byte ^ 1 << rng.randrange(8)]))
            refused(path, hdf5.read)
            file.seek(place)
            file.write(bytes([byte]))
    hdf5.read(path)


def test_damage_of_any_extent_is_refused(path):
    whole, rng = path.read_bytes(), random.Random(1)
    for _ in range(500):
        data = bytearray(whole)
        first = rng.randrange(len(data))
        last = min(len(data), first + rng.choice([1, 8, 512, 4096]))
        kind = rng.choice(["noise", "zeros", "moved", "gone"])
        if kind == "noise":
            data[first:last] = rng.randbytes(last - first)
        elif kind == "zeros":
            data[first:last] = bytes(last - first)
        elif kind == "moved":
            other = rng.randrange(len(data) - (last - first))
            data[first:last] = data[other : other + last - first]
        else:
            del data[first:last]
        if data != whole:
            path.write_bytes(data)
            refused(path)


def surgery(file, rng, elsewhere):
    """Change an HDF5 file as another program might."""
    names = []
    file.visit(names.append)
    name = rng.choice(names)
    kind = rng.randrange(9)
    if kind == 0:
        del file[name]
    elif kind == 1:
        file.move(name, "moved")
    elif kind == 2:
        file.create_group(name + "_more/below")
    elif kind == 3:
        del file[name]
        file[name] = np.zeros(rng.choice([(), (0,), (3, 3)]), rng.choice(["f8", "S3", "i1"]))
    elif kind == 4:
        del file[name]
        file.create_dataset(name, (2**40,), "f4", chunks=(1024,), compression="gzip")
    elif kind == 5:
        file[name + "_link"] = h5py.SoftLink(rng.choice(["/", "/nowhere", "/" + name]))
    elif kind == 6:
        del file[name]
        file[name] = h5py.ExternalLink(str(elsewhere), "/secret")
    elif kind == 7:
        layout = h5py.VirtualLayout((3,), "f4")
        layout[:] = h5py.VirtualSource(str(elsewhere), "secret", (3,))
        del file[name]
        file.create_virtual_dataset(name, layout)
    else:
        file[name + "_text"] = np.array(["long"] * 5, dtype=h5py.string_dtype())


def test_a_file_that_another_program_changed_is_refused_and_reads_no_other_file(path, tmp_path):
    elsewhere = tmp_path / "elsewhere.h5"
    with h5py.File(elsewhere, "w") as file:
        file["secret"] = np.full(3, 12345, "f4")
    whole, rng = path.read_bytes(), random.Random(2)
    _, before = hdf5.read(path)
    same = 0
    for _ in range(150):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            surgery(file, rng, elsewhere)
        assert "changed after it was saved" in refused(path) or "truncated" in refused(path)
        seal(path)  # made up on purpose, it is read by its index, which the surgery did not reach
        try:
            _, after = hdf5.read(path)
        except ValueError as error:
            assert path.name in str(error)
            continue
        assert list(after) == list(before)
        assert not any((value == 12345).any() for value in after.values())
        same += all(after[name].tobytes() == value.tobytes() for name, value in before.items())
    assert same > 50


# ---- forged files with a correct checksum

PLACE = {"dtype": "float32", "shape": [2, 2], "offset": 600}
PLACES = [
    {"shape": [2**40]},
    {"shape": [2**62, 4]},
    {"shape": [-1, 4]},
    {"shape": [0, 2**63]},
    {"shape": [0] * 65},
    {"shape": [1] * 33},
    {"shape": [10**4000] * 30},
    {"shape": [1.0]},
    {"shape": [True]},
    {"shape": "22"},
    {"shape": None},
    {"shape": {"2": 2}},
    {"dtype": "object"},
    {"dtype": "O"},
    {"dtype": "float32,float32"},
    {"dtype": "S1000000000"},
    {"dtype": ["float32"]},
    {"dtype": None},
    {"offset": -1},
    {"offset": 2**70},
    {"offset": 1e3},
    {"offset": None},
    {"offset": "600"},
    {"more": 1},
]


@pytest.mark.parametrize("change", PLACES, ids=lambda change: str(change)[:40])
def test_an_array_that_cannot_be_in_the_file_is_refused_before_it_is_created(path, change):
    with_contents(path, {"header": {}, "arrays": {"a": PLACE}}, path.read_bytes())
    hdf5.read(path)
    made_up = {"header": {}, "arrays": {"a": PLACE | change}}
    with_contents(path, made_up, path.read_bytes())
    tracemalloc.start()
    refused(path, hdf5.read)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2_000_000


def test_overlapping_arrays_take_no_more_memory_than_the_file(path):
    whole = path.read_bytes()
    place = {"dtype": "uint8", "shape": [len(whole) - 512], "offset": 512}
    with_contents(path, {"header": {}, "arrays": {str(k): place for k in range(1000)}}, whole)
    tracemalloc.start()
    assert "too small for its arrays" in refused(path, hdf5.read)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20 * path.stat().st_size


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"[]",
        b"{}",
        b'{"header": [], "arrays": {}}',
        b'{"header": {}, "arrays": []}',
        b'{"header": {}, "arrays": {"a": 3}}',
        b'{"header": {}, "arrays": {"a": []}}',
        b"[" * 200_000,
        b'{"header": {"a": ' + b"[" * 200_000 + b"]" * 200_000 + b'}, "arrays": {}}',
        b'{"header": ' + b'{"a": ' * 100_000 + b"1" + b"}" * 100_000 + b"}",
        b'{"header": {"a": ' + b"9" * 100_000 + b'}, "arrays": {}}',
    ],
    ids=lambda text: str(text[:30]),
)
def test_an_invalid_header_is_refused(path, text):
    with_contents(path, text, path.read_bytes())
    refused(path, hdf5.read)


@pytest.mark.parametrize("front", [{"start": 2**63}, {"size": 2**63}, {"length": 2**63}])
def test_a_header_outside_the_file_is_refused(path, front):
    seal(path, **front)
    refused(path, hdf5.read)


STRANGE = [
    *(None, True, False, 0, 1, -1, 3, 10**12, 10**30, 0.5, -2.5, math.nan, math.inf, 1e308),
    *("", "a", "lstm", "os.system", "__import__", "a/b", "../x", "\0", "ä" * 300),
    *([], [1], [None], [[[]]], ["a", {}], {}, {"name": 1}, {"name": "LSTM"}, {"name": []}),
    *({"name": "tanh"}, {"name": "Dense", "config": []}, {"name": "Zeros", "config": {"a": 1}}),
]


def places_in(value, path=()):
    """Yield the path of every value inside a JSON value."""
    inside = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inside:
        yield (*path, key)
        if isinstance(item, (dict, list)):
            yield from places_in(item, (*path, key))


def mutate(value, rng):
    """Return a JSON value with one random change, and a description of the change."""
    value = copy.deepcopy(value)
    *above, key = where = rng.choice(list(places_in(value)))
    holder = value
    for step in above:
        holder = holder[step]
    kind = rng.choice(["replace", "replace", "replace", "remove", "add", "twice"])
    if kind == "replace":
        holder[key] = copy.deepcopy(rng.choice(STRANGE))
    elif kind == "remove":
        del holder[key]
    elif kind == "add" and isinstance(holder, dict):
        holder[rng.choice(["", "units", "name", "config", "zzz"])] = rng.choice(STRANGE)
    elif isinstance(holder, list):
        holder.append(copy.deepcopy(holder[key]))
    return value, kind, where


def plain(value):
    """Return a JSON value for comparison, in which 1, 1.0 and True are equal."""
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return float(value) if isinstance(value, (bool, int, float)) else value


def test_random_changes_of_the_description_are_refused_or_mean_what_they_say(path):
    whole, rng = path.read_bytes(), random.Random(3)
    original = contents(path)
    assert plain(json.loads(json.dumps(pack(seqnet.load_model(path))[0]))) == plain(
        original["header"]
    )
    outcomes = {"refused": 0, "loaded": 0}
    for _ in range(1000):
        header, kind, where = mutate(original["header"], rng)
        with_contents(path, original | {"header": header}, whole)
        try:
            model = seqnet.load_model(path)
        except ValueError as error:
            assert type(error) is ValueError, (kind, where)
            assert path.name in str(error), (kind, where)
            outcomes["refused"] += 1
            continue
        outcomes["loaded"] += 1
        asked = said(header, where) if kind == "replace" else "None"
        if asked not in ("", "None", "{}"):  # the defaults
            again = json.loads(json.dumps(pack(model)[0]))
            assert said(again, where) == asked, where
    assert outcomes["refused"] > 500
    assert outcomes["loaded"] > 50


def said(header, where):
    for step in where:
        header = header[step]
    return str(plain(header))


def test_random_changes_of_the_index_are_refused_or_read_other_places(path):
    whole, rng = path.read_bytes(), random.Random(4)
    original = contents(path)
    loaded = 0
    for _ in range(400):
        changed, kind, where = mutate(original["arrays"], rng)
        with_contents(path, original | {"arrays": changed}, whole)
        try:
            seqnet.load_model(path)
            loaded += 1
        except ValueError as error:
            assert type(error) is ValueError, (kind, where)
            assert path.name in str(error), (kind, where)
    assert 0 < loaded < 100


@pytest.mark.parametrize("units", [10**12, 10**30, 0, -1, 2.0, "4", None, [4], {"n": 4}])
@pytest.mark.parametrize("layer", [0, 2, 3, 4])
def test_impossible_sizes_are_refused_before_allocation(path, layer, units):
    whole, made_up = path.read_bytes(), contents(path)
    config = made_up["header"]["layers"][layer]["config"]
    config = config["layer"]["config"] if "layer" in config else config
    config["output_dim" if layer == 0 else "units"] = units
    with_contents(path, made_up, whole)
    tracemalloc.start()
    refused(path)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 5_000_000


def test_no_code_in_a_file_is_run_or_imported(path, tmp_path):
    whole, original = path.read_bytes(), contents(path)
    marker = tmp_path / "ran"
    for name in ("os.system", "builtins.eval", "numpy.load", "seqnet.load_model", "__import__"):
        for place in ("layers", "optimizer", "loss", "metrics"):
            made_up = copy.deepcopy(original)
            thing = {"name": name, "config": {"command": f"touch {marker}"}}
            header = made_up["header"]
            (header if place == "layers" else header["training"])[place] = (
                [thing] if place in ("layers", "metrics") else thing
            )
            with_contents(path, made_up, whole)
            assert name in refused(path)
    made_up = copy.deepcopy(original)
    function = {"name": "system", "config": {}}
    made_up["header"]["layers"] = [{"name": "Lambda", "config": {"function": function}}]
    with_contents(path, made_up, whole)
    assert "files hold no code" in refused(path)
    assert not marker.exists()


def test_a_long_chain_of_wrappers_is_refused(path):
    whole, made_up = path.read_bytes(), contents(path)
    layer = made_up["header"]["layers"][-1]
    for _ in range(300):
        layer = {"name": "TimeDistributed", "config": {"layer": layer}}
    made_up["header"]["layers"] = [layer]
    with_contents(path, made_up, whole)
    refused(path)
