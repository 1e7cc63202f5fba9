"""Make small calls of compiled kernels run on several threads."""

from __future__ import annotations

import pytest

from seqnet.native import core


@pytest.fixture(autouse=True)
def every_size_is_shared_among_threads(monkeypatch):
    monkeypatch.setattr(core, "SINGLE_THREAD_WORK", 0)
