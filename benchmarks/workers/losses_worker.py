"""The losses of whole sequences, CRF and CTC, for seqnet and for PyTorch.

The setting ``loss`` is ``crf`` or ``ctc``. A step computes the mean loss of a batch and its
gradients with respect to the scores, and for ``crf`` to transitions, start and end, from arrays of
random numbers; there is no update. PyTorch has no CRF: it is written step by step, as packages for
PyTorch have it. Its CTC is `torch.nn.functional.ctc_loss` after a log-softmax.
"""

from __future__ import annotations

import protocol  # first: it starts the clock of the import time

# isort: split
import numpy as np


def arrays_of(settings):
    """Return scores, mask, transitions, start, end and tags of a batch, or logits and labels."""
    random = np.random.RandomState(settings.seed)
    batch, time, classes = settings.batch, settings.length, settings.classes
    scores = random.randn(batch, time, classes).astype(settings.dtype)
    lengths = np.full(batch, time)
    if settings.masks:
        lengths = random.randint((time + 1) // 2, time + 1, batch)
    mask = np.arange(time)[None, :] < lengths[:, None]
    if settings.loss == "ctc":
        labels = random.randint(1, classes, (batch, settings.labels)).astype("int32")
        return scores, mask, labels
    weights = [random.randn(*s) for s in ((classes, classes), (classes,), (classes,))]
    weights = [w.astype(settings.dtype) for w in weights]
    tags = random.randint(0, classes, (batch, time)).astype("int32")
    return (scores, mask, *weights, tags)


class SeqnetTrainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        self.settings = settings
        self.given = arrays_of(settings)

    def compile(self):
        import pytensor
        import pytensor.tensor as pt

        from seqnet import backend
        from seqnet.losses import CTC
        from seqnet.ops.chain import ChainLogSum

        inputs = [pt.tensor(dtype=a.dtype.name, shape=(None,) * a.ndim) for a in self.given]
        if self.settings.loss == "ctc":
            scores, mask, labels = inputs
            loss = pt.mean(CTC().call(labels, scores, mask))
            wanted = [scores]
        else:
            loss = pt.mean(ChainLogSum()(*inputs))
            wanted = [inputs[k] for k in (0, 2, 3, 4)]
        outputs = [loss, *pytensor.grad(loss, wanted)]
        self.function = backend.compile(inputs, outputs, name="loss")

    def step(self, number):
        return float(self.function(*self.given)[0])

    def versions(self):
        import pytensor

        import seqnet

        return {"seqnet": seqnet.__version__, "pytensor": pytensor.__version__}


class PyTorchTrainer:
    """See `protocol.Session`."""

    def __init__(self, settings):
        import torch

        self.settings, self.torch = settings, torch
        self.given = [torch.tensor(a) for a in arrays_of(settings)]
        wanted = (0,) if settings.loss == "ctc" else (0, 2, 3, 4)
        for k in wanted:
            self.given[k].requires_grad_()
        self.wanted = [self.given[k] for k in wanted]

    def compile(self):
        """PyTorch compiles nothing."""

    def step(self, number):
        for variable in self.wanted:
            variable.grad = None
        loss = self.ctc() if self.settings.loss == "ctc" else self.crf()
        loss.backward()
        return loss.item()

    def ctc(self):
        torch = self.torch
        scores, mask, labels = self.given
        log_p = torch.log_softmax(scores, dim=-1).transpose(0, 1)
        lengths = torch.full((len(labels),), labels.shape[1])
        loss = torch.nn.functional.ctc_loss(
            log_p, labels, mask.sum(dim=1), lengths, reduction="none"
        )
        return loss.mean()

    def crf(self):
        torch = self.torch
        scores, mask, transitions, start, end, tags = self.given
        scores, mask, tags = scores.transpose(0, 1), mask.T, tags.T.long()
        rows = torch.arange(scores.shape[1])
        total = start + scores[0]
        path = start[tags[0]] + scores[0, rows, tags[0]]
        for t in range(1, len(scores)):
            pairs = total[:, :, None] + transitions + scores[t][:, None, :]
            total = torch.where(mask[t][:, None], torch.logsumexp(pairs, dim=1), total)
            moved = transitions[tags[t - 1], tags[t]] + scores[t, rows, tags[t]]
            path = path + moved * mask[t]
        last = tags[mask.sum(dim=0) - 1, rows]
        return (torch.logsumexp(total + end, dim=1) - path - end[last]).mean()

    def versions(self):
        return {"torch": self.torch.__version__}


def trainer(settings):
    """Return the trainer of the system that the settings name."""
    return {"seqnet": SeqnetTrainer, "pytorch": PyTorchTrainer}[settings.system](settings)


if __name__ == "__main__":
    protocol.serve(trainer)
