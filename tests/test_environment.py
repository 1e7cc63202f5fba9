"""`seqnet.info`."""

import json

import seqnet


def test_info_says_what_seqnet_runs_on():
    found = seqnet.info()
    assert found["versions"]["seqnet"] == seqnet.__version__
    assert found["backend"] == "auto"
    assert found["mpi"] == {"library": "", "rank": 0, "size": 1}
    assert found["kernels"] is None or found["kernels"]["threads"] >= 1
    json.dumps(found)


def test_info_without_kernels():
    seqnet.config.set_backend("numpy")
    assert seqnet.info()["kernels"] is None
