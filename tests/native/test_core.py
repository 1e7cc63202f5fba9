"""The functions that all compiled kernels share."""

import numpy as np
import pytest

from seqnet.native import core


class Array(np.ndarray):
    """A subclass, whose objects may have other fields."""


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0),
        np.arange(6.0)[1::2],
        np.arange(6.0)[::-1],
        np.asfortranarray(np.ones((2, 3))),
        np.broadcast_to(np.ones(3), (2, 3)),
        np.asarray(1.0),
        np.zeros((0, 3)),
        np.arange(4).view(Array),
    ],
)
def test_addresses_are_those_of_numpy(array):
    assert core.address(np.asarray(array)) == np.asarray(array).ctypes.data
    assert core.address(array) == array.ctypes.data


def test_addresses_without_known_fields(monkeypatch):
    monkeypatch.setattr(core, "FIELD_IS_KNOWN", False)
    array = np.arange(3)
    assert core.address(array) == array.ctypes.data
