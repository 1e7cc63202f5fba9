"""Files of earlier formats are read correctly, or refused with their format version."""

from __future__ import annotations

import importlib.util
import shutil
from pathlib import Path

import h5py
import numpy as np
import pytest

import seqnet
from seqnet.saving import hdf5

FOLDER = Path(__file__).parent / "files"
KEPT = sorted(FOLDER.glob("*.h5"))
spec = importlib.util.spec_from_file_location("make_files", FOLDER / "make_files.py")
make_files = importlib.util.module_from_spec(spec)
spec.loader.exec_module(make_files)


def read_model(path, folder):
    expected = make_files.numbered(make_files.make_model())
    model = seqnet.load_model(path)
    assert model.metadata == expected.metadata
    assert [type(layer).__name__ for layer in model.layers] == ["Embedding", "LSTM", "Dense"]
    assert model.optimizer.learning_rate == 0.125
    assert model.loss.name == expected.loss.name
    return model, expected


def read_weights(path, folder):
    model = make_files.make_model()
    model.load_weights(path)
    return model, make_files.numbered(make_files.make_model())


def read_backup(path, folder):
    copy = shutil.copy(path, folder / "copy.h5")
    resumed, expected = make_files.train(copy), make_files.train(folder / "other.h5")
    assert resumed.history.epoch == expected.history.epoch == [0, 1, 2]
    for name, values in expected.history.history.items():
        np.testing.assert_allclose(resumed.history.history[name], values, rtol=1e-4)
    return resumed, expected


READ = {"model": read_model, "weights": read_weights, "backup": read_backup}


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.name)
def test_a_kept_file_is_read_or_refused_by_its_format(path, tmp_path):
    kind, _, version = path.stem.partition("-")
    if int(version) != hdf5.VERSION:
        with pytest.raises(ValueError, match=f"{path.name} .* has version {version} of the format"):
            hdf5.read(path)
        return
    model, expected = READ[kind](path, tmp_path)
    for weight, other in zip(model.get_weights(), expected.get_weights(), strict=True):
        np.testing.assert_allclose(weight, other, rtol=1e-4, atol=1e-5)


def test_there_is_a_file_of_each_kind_in_the_current_format():
    current = {f"{kind}-{hdf5.VERSION}.h5" for kind in READ}
    assert current <= {path.name for path in KEPT}, "Run tests/files/make_files.py."


@pytest.mark.parametrize("version", [0, hdf5.VERSION - 1, hdf5.VERSION + 1])
def test_another_format_is_refused_by_its_version(version, tmp_path):
    for kind in READ:
        data = bytearray((FOLDER / f"{kind}-{hdf5.VERSION}.h5").read_bytes())
        data[8:16] = version.to_bytes(8, "little")
        path = tmp_path / f"{kind}.h5"
        path.write_bytes(data)
        words = f"version {version} of the format, and seqnet .* reads version {hdf5.VERSION}"
        with pytest.raises(ValueError, match=words):
            READ[kind](path, tmp_path)


def test_a_file_holds_the_version_of_seqnet():
    path = FOLDER / f"model-{hdf5.VERSION}.h5"
    with h5py.File(path) as file:
        text = bytes(file["header"][:]).decode()
    assert text.startswith('{"seqnet": "0.1.0", "header": ')
