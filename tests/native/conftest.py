"""The kernels' tests are small, but should be shared among threads all the same."""

from __future__ import annotations

import pytest

from seqnet.native import core


@pytest.fixture(autouse=True)
def every_size_is_shared_among_threads(monkeypatch):
    monkeypatch.setattr(core, "ALONE", 0)
