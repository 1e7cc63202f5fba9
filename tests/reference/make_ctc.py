"""Compute the CTC loss and its gradients with PyTorch, in float64, and write ctc.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install torch==2.13.0 numpy==2.4.6
    python -m reference.make_ctc

with Python 3.11.7, torch 2.13.0+cpu and NumPy 2.4.6 on a CPU.
"""

import platform
from pathlib import Path

import numpy as np
import torch

BATCH, TIME, CLASSES, LENGTH = 6, 24, 11, 9


def results(blank, scale):
    """Logits, labels of several lengths, losses and gradients."""
    rng = np.random.default_rng(blank)
    logits = np.float32(scale * rng.normal(size=(BATCH, TIME, CLASSES))).astype("float64")
    classes = [k for k in range(CLASSES) if k != blank]
    labels = rng.choice(classes, (BATCH, LENGTH))
    labels[1] = classes[3]  # all equal
    steps = np.array([TIME, TIME, 17, 9, 5, 1])
    lengths = np.array([9, 9, 7, 4, 0, 1])
    labels[np.arange(LENGTH) >= lengths[:, None]] = blank
    x = torch.tensor(logits, requires_grad=True)
    log_p = torch.log_softmax(x, dim=-1).transpose(0, 1)
    loss = torch.nn.CTCLoss(blank=blank, reduction="none")
    values = loss(log_p, *[torch.tensor(a) for a in (labels, steps, lengths)])
    factors = np.arange(1.0, BATCH + 1)
    (values * torch.tensor(factors)).sum().backward()
    assert np.isfinite(values.detach().numpy()).all()
    return {
        "logits": logits,
        "labels": labels,
        "steps": steps,
        "losses": values.detach().numpy(),
        "cotangent": factors,
        "d_logits": x.grad.numpy(),
    }


def main():
    arrays = {
        f"{name}/{key}": value
        for name, (blank, scale) in {"ctc": (0, 1.0), "ctc_last_blank": (10, 3.0)}.items()
        for key, value in results(blank, scale).items()
    }
    versions = f"torch {torch.__version__}, NumPy {np.__version__}, Python "
    arrays["versions"] = np.array(versions + platform.python_version())
    np.savez_compressed(Path(__file__).with_name("ctc.npz"), **arrays)


if __name__ == "__main__":
    main()
