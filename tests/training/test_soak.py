"""A short run of `soak.py`."""

import gc
import threading
import warnings

from soak import held, soak


def test_resources_do_not_grow_in_long_training(tmp_path):
    for _ in range(2):  # PyTensor's caches of a graph are complete after the second one
        soak(40, tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        before = held()
        found = soak(600, tmp_path)
        gc.collect()  # a file that was not closed causes a warning here
        after = held()
    assert after["threads"] == before["threads"] == threading.active_count()
    assert after.get("files") == before.get("files")
    assert len(set(found.get("files", []))) <= 1, found["files"]
    assert len(set(found["threads"])) == 1, found["threads"]
    assert found["objects"][-1] - found["objects"][0] < 100, found["objects"]
    # The model and its compiled functions are deleted.
    assert after["objects"] - before["objects"] < 100
