"""Oracles that seqnet's results are compared with. See README.md in this folder."""

from pathlib import Path

import numpy as np


def load_arrays(peer):
    """Read the stored results of one peer.

    Parameters
    ----------
    peer : {"keras", "pytorch"}

    Returns
    -------
    dict of str to dict of str to ndarray
        ``arrays[case][name]``; without the file's ``"versions"`` string.
    """
    cases = {}
    with np.load(Path(__file__).with_name(f"{peer}.npz"), allow_pickle=False) as stored:
        for key in stored.files:
            case, _, name = key.partition("/")
            if name:
                cases.setdefault(case, {})[name] = stored[key]
    return cases
