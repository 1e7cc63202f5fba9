"""Compute the sLSTM and its gradients with the package xlstm, in float64, and write xlstm.npz.

The plain path of the package is used (`slstm_forward` of ``xlstm/blocks/slstm/src/vanilla``), with
one head. That folder is loaded alone, because the package imports compiled kernels. The stored file
was made, in the folder tests, by ::

    python -m pip install torch==2.13.0 numpy==2.4.6
    python -m pip install --no-deps xlstm==2.0.6
    python -m reference.make_xlstm

with Python 3.11, torch 2.13.0+cpu and xlstm 2.0.6 on a CPU.
"""

import importlib.metadata
import importlib.util
import platform
import sys
from pathlib import Path

import numpy as np
import torch

BATCH, TIME, FEATURES, UNITS = 3, 6, 3, 4


def plain_path():
    """Return the functions of the folder ``vanilla`` of the package."""
    package = Path(importlib.util.find_spec("xlstm").origin).parent
    folder = package / "blocks" / "slstm" / "src" / "vanilla"
    spec = importlib.util.spec_from_file_location(
        "vanilla", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = sys.modules["vanilla"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def results(seed, scale, with_states):
    """Inputs, weights with seqnet's layout, outputs, last states and gradients."""
    rng, vanilla = np.random.default_rng(seed), plain_path()

    def normal(*shape, size=1.0):
        return np.float32(size * rng.normal(size=shape)).astype("float64")

    arrays = {
        "x": normal(BATCH, TIME, FEATURES),
        "kernel": normal(FEATURES, 4 * UNITS, size=scale),
        "recurrent_kernel": normal(UNITS, 4 * UNITS, size=scale),
        "bias": normal(4 * UNITS),
        "cotangent": normal(BATCH, TIME, UNITS),
    }
    if with_states:
        arrays |= {name: normal(BATCH, UNITS) for name in ("h0", "c0", "n0", "m0")}
        arrays["n0"] = 0.5 + abs(arrays["n0"])
    given = {
        name: torch.tensor(value, requires_grad=True)
        for name, value in arrays.items()
        if name != "cotangent"
    }
    states = torch.zeros(4, BATCH, UNITS, dtype=torch.float64)
    if with_states:
        states = torch.stack([given[name] for name in ("h0", "c0", "n0", "m0")])
    projected = (given["x"] @ given["kernel"]).transpose(0, 1)
    # The package has the gates i, f, z, o as seqnet does, and R as (heads, gates * size, size).
    history, _, _ = vanilla.slstm_forward(
        projected,
        states,
        given["recurrent_kernel"].T[None],
        given["bias"],
        vanilla.slstm_pointwise_function_registry["slstm"],
    )
    y = history[0, 1:].transpose(0, 1)
    (y * torch.tensor(arrays["cotangent"])).sum().backward()
    arrays["y"] = y.detach().numpy()
    for k, name in enumerate("hcnm"):
        arrays[f"{name}_last"] = history[k, -1].detach().numpy()
    return arrays | {f"d_{name}": value.grad.numpy() for name, value in given.items()}


def main():
    cases = {
        "slstm": (0, 0.5, False),
        "slstm_of_large_gates": (1, 20.0, False),
        "slstm_with_states": (2, 0.5, True),
    }
    arrays = {
        f"{name}/{key}": value
        for name, case in cases.items()
        for key, value in results(*case).items()
    }
    versions = f"torch {torch.__version__}, xlstm {importlib.metadata.version('xlstm')}, NumPy "
    arrays["versions"] = np.array(
        versions + f"{np.__version__}, Python {platform.python_version()}"
    )
    np.savez_compressed(Path(__file__).with_name("xlstm.npz"), **arrays)


if __name__ == "__main__":
    main()
