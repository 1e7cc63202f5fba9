"""The cross-entropy over a range of steps of each sequence, as a loss and as a function."""

from __future__ import annotations

from typing import cast

import numpy as np
import pytensor.tensor as pt
from pytensor.raise_op import CheckAndRaise

from seqnet.common.types import Tensor, TensorLike
from seqnet.losses.crossentropy import SparseCategoricalCrossentropy
from seqnet.losses.logits import pick_class
from seqnet.losses.loss import FUNCTIONS
from seqnet.registry import register


@register("loss", "masked_loss")
class MaskedLoss(SparseCategoricalCrossentropy):
    """The sparse cross-entropy over a range of steps of each sequence, see `masked_loss`.

    In `seqnet.Model.fit` and `evaluate` targets are then a tuple ``(labels, codelengths,
    label_starts)``: class numbers ``(samples, time)`` or a list of (time,), and for each sequence
    how many steps count and the first of them. Labels at other steps may hold anything. The loss
    and the metrics are means over the steps of all ranges.

    Parameters
    ----------
    from_logits, ignore_class, axis, **kwargs
        As in `SparseCategoricalCrossentropy`.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import Embedding, GRU, Dense
    >>> layers = [Embedding(9, 4), GRU(4, return_sequences=True), Dense(9, "softmax")]
    >>> model = seqnet.Model(layers)
    >>> model.compile("adam", "masked_loss")
    >>> X = [[1, 2, 3], [4, 5]]
    >>> history = model.fit(X, (X, [1, 2], [2, 0]), verbose=0)     # the last step; both steps
    """

    registered_name = "masked_loss"


def masked_loss(
    predictions: TensorLike,
    padded_labels: TensorLike,
    codelengths: TensorLike,
    label_starts: TensorLike,
) -> Tensor:
    """Sum the cross-entropy over a range of steps of each sequence (theano_lstm's function).

    ``loss[i] = -sum(log(predictions[i, t, padded_labels[i, t]]))`` over the steps t from
    ``label_starts[i]`` to ``label_starts[i] + codelengths[i] - 1``. Labels and predictions are
    aligned; values outside of the range are ignored.

    The gradient is ``-g[i] / predictions[i, t, label]`` for the gradients g of the result.
    (theano_lstm has ``-1 / (predictions[i, t, label] g[i])``, which is correct only for g = 1.)
    In `seqnet.Model.compile` it is replaced by `MaskedLoss`.

    Parameters
    ----------
    predictions : float variable or array (batch, time, classes)
        Probabilities.
    padded_labels : integer (batch, time)
        Class numbers.
    codelengths, label_starts : integer (batch,)
        How many steps count, and the first of them.

    Returns
    -------
    variable (batch,)

    Raises
    ------
    ValueError
        For wrong ranks or dtypes; when computed, if a range ends after the last step.
    IndexError
        When computed, if a label in a range is not a class number.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> p = np.full((2, 3, 5), 0.2)
    >>> labels = np.array([[0, 0, 4], [1, 2, 0]])
    >>> loss = seqnet.losses.masked_loss(p, labels, np.array([1, 2]), np.array([2, 0]))
    >>> loss.eval(mode=seqnet.backend.mode()).round(6).tolist()
    [1.609438, 3.218876]
    """
    given = []
    for name, value, rank, kinds, what in (
        ("predictions", predictions, 3, "f", "floats"),
        ("padded_labels", padded_labels, 2, "iu", "integers"),
        ("codelengths", codelengths, 1, "iu", "integers"),
        ("label_starts", label_starts, 1, "iu", "integers"),
    ):
        variable = pt.as_tensor_variable(value)
        if variable.ndim != rank or np.dtype(variable.dtype).kind not in kinds:
            raise ValueError(
                f"{name} must hold {what} and have rank {rank}, got {variable.dtype} and rank "
                f"{variable.ndim}."
            )
        given.append(variable)
    predictions, labels, lengths, starts = given
    time = predictions.shape[1]
    steps = pt.arange(time)[None, :]
    ends = starts + lengths
    inside = pt.all(starts >= 0) & pt.all(lengths >= 0) & pt.all(ends <= time)
    check = CheckAndRaise(ValueError, "A range of masked_loss has steps that are not there.")
    starts = cast(Tensor, check(starts, inside))
    counted = (steps >= starts[:, None]) & (steps < ends[:, None])
    # Other steps use class 0 and probability 1, so that no gradient flows there, not even NaN.
    picked = pick_class(predictions, pt.switch(counted, labels, 0))
    one = np.asarray(1, dtype=predictions.dtype)
    return -pt.sum(pt.log(pt.switch(counted, picked, one)), axis=1)


FUNCTIONS[masked_loss] = MaskedLoss
