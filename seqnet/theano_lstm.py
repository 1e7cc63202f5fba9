"""The functions of theano_lstm, over seqnet's cells, losses and optimizers.

They build PyTensor graphs and have the names, arguments and return values of theano_lstm (Raiman,
2014), with the weights of seqnet's layers. For new models, `seqnet.layers.RNN` and `seqnet.Model`
do the same with less code.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.gradient import grad_clip

from seqnet import config
from seqnet.common.checks import check_count
from seqnet.common.hyperparameters import numbers_of
from seqnet.common.types import Array, Tensor
from seqnet.layers.cell import Cell
from seqnet.layers.dense import Dense
from seqnet.layers.lstm import LSTMCell
from seqnet.layers.simple_rnn import SimpleRNNCell
from seqnet.losses import masked_loss
from seqnet.optimizers import SGD, AdaDelta, AdaGrad, Optimizer
from seqnet.registry import Identifier

__all__ = [
    "GatedInput",
    "MultiDropout",
    "StackedCells",
    "clip_gradient",
    "create_optimization_updates",
    "masked_loss",
]


def __dir__() -> list[str]:
    return sorted(__all__)


def clip_gradient(x: Tensor, bound: float) -> Tensor:
    """Return a variable whose gradient is clipped element by element to ``[-bound, bound]``.

    Source: Graves, "Generating sequences with recurrent neural networks" (2013).

    Examples
    --------
    >>> import pytensor, pytensor.tensor as pt
    >>> from seqnet.theano_lstm import clip_gradient
    >>> x = pt.dscalar("x")
    >>> float(pytensor.grad(5 * clip_gradient(x, 2.0), x).eval({x: 1.0}))
    2.0
    """
    return cast(Tensor, grad_clip(x, -bound, bound))


def MultiDropout(  # noqa: N802 -- the name in theano_lstm
    shapes: Sequence[Any], dropout: Any, updates: dict[Any, Any]
) -> list[Tensor]:
    """Draw a dropout mask for each shape, outside of a loop.

    As in theano_lstm, a mask is 0 with the probability `dropout` and else 1: it is not scaled. In
    evaluation, multiply by ``1 - dropout``.

    Parameters
    ----------
    shapes : list of int or tuples
        The sizes of each mask, numbers or symbols.
    dropout : float or variable
        A shared variable can be changed without compiling.
    updates : dict
        The next values of the random generators are added to it. Pass it on to the function, or to
        `create_optimization_updates`. (In Theano random variables brought their updates along.)

    Returns
    -------
    list of variables of the float type of seqnet

    Examples
    --------
    >>> import numpy as np, pytensor, seqnet
    >>> from seqnet.theano_lstm import MultiDropout
    >>> seqnet.set_random_seed(0)
    >>> rate = pytensor.shared(0.3)
    >>> updates = {}
    >>> masks = MultiDropout([(2, 1000), 4], rate, updates)
    >>> f = seqnet.backend.compile([], masks, updates, name="masks")
    >>> round(float(f()[0].mean()), 1)
    0.7
    >>> rate.set_value(0.0)
    >>> f()[1].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """
    masks = []
    for shape in shapes:
        sizes = tuple(shape) if isinstance(shape, (tuple, list)) else (shape,)
        seed = int(config.random_generator().integers(2**63))
        generator = pytensor.shared(np.random.default_rng(seed), name="dropout")
        updates[generator], uniform = pt.random.uniform(
            size=sizes, rng=generator, return_next_rng=True
        )
        masks.append(pt.cast(uniform >= dropout, config.floatx()))
    return masks


class GatedInput:
    """One gate between 0 and 1 for each example, from the input and a state: sigmoid([x, h] W + b).

    In a stack, the layer passes on its input, multiplied by the gate.

    Weights: `kernel` (input_size + hidden_size, 1), `bias` (1,).

    Parameters
    ----------
    input_size, hidden_size : int
        The features of x and of h.

    Examples
    --------
    >>> import numpy as np, pytensor.tensor as pt
    >>> from seqnet.theano_lstm import GatedInput
    >>> gated = GatedInput(3, 2)
    >>> x, h = pt.fmatrix("x"), pt.fmatrix("h")
    >>> gate = gated.activate(x, h)
    >>> gate.eval({x: np.zeros((4, 3), "float32"), h: np.zeros((4, 2), "float32")}).shape
    (4, 1)
    """

    def __init__(self, input_size: int, hidden_size: int):
        self.input_size = check_count(input_size, "input_size")
        self.hidden_size = check_count(hidden_size, "hidden_size")
        self.gate = Dense(1, activation="sigmoid")
        self.gate.ensure_built((None, self.input_size + self.hidden_size))

    @property
    def params(self) -> list[SharedVariable]:
        """The kernel and the bias."""
        return list(self.gate.weights)

    def activate(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the gates, (batch, 1), for x (batch, input_size) and h (batch, hidden_size)."""
        gate = self.gate(pt.concatenate([x, h], axis=1))
        return cast(Tensor, pt.specify_broadcastable(gate, 1))


class StackedCells:
    """Recurrent cells and other layers, one above the other, computed for one step.

    Parameters
    ----------
    input_size : int
        The features of the input.
    celltype : class
        A subclass of `seqnet.layers.Cell`, such as `LSTMCell` or `SimpleRNNCell`.
    layers : list of int
        The units of each cell.
    activation : str or callable
        Of the candidate of each cell. The output of an `LSTMCell` has tanh, as in theano_lstm.
    clip_gradients : float or False
        Clip the gradients of the inputs and states of all layers element by element.

    Attributes
    ----------
    layers : list
        The cells. Append a `GatedInput`, or any layer of seqnet without time steps, such as
        `Dense`.

    Examples
    --------
    >>> import pytensor.tensor as pt, seqnet
    >>> from seqnet.layers import Dense, LSTMCell
    >>> from seqnet.theano_lstm import StackedCells
    >>> model = StackedCells(4, layers=[20, 10], activation="tanh", celltype=LSTMCell)
    >>> model.layers[0].activation = lambda x: x
    >>> model.layers.append(Dense(2, activation="softmax"))
    >>> x = pt.fmatrix("x")
    >>> states = model.forward(x, model.initial_hidden_states(x.shape[0]))
    >>> len(states), len(model.params)
    (3, 8)
    """

    def __init__(
        self,
        input_size: int,
        celltype: type[Cell] = SimpleRNNCell,
        layers: Sequence[int] = (),
        activation: Identifier | None = None,
        clip_gradients: float | bool = False,
    ):
        self.input_size = check_count(input_size, "input_size")
        if not (isinstance(celltype, type) and issubclass(celltype, Cell)):
            raise TypeError(
                f"celltype is a class of cells, such as seqnet.layers.LSTMCell, got {celltype!r}."
            )
        self.clip_gradients = clip_gradients
        self.layers: list[Any] = []
        size = self.input_size
        fixed: dict[str, Any] = (
            {"output_activation": "tanh"} if issubclass(celltype, LSTMCell) else {}
        )
        for units in layers:
            cell = celltype(units, activation=activation, **fixed)
            cell.ensure_built((None, size))
            self.layers.append(cell)
            size = cell.output_size

    @property
    def params(self) -> list[SharedVariable]:
        """The weights of all layers, which must be built: `forward` builds appended ones."""
        found: list[SharedVariable] = []
        for layer in self.layers:
            found += layer.params if isinstance(layer, GatedInput) else layer.weights
        return found

    def initial_hidden_states(self, batch: Tensor | int | None = None) -> list[Tensor | Array]:
        """Return zeros for the states of all cells, (batch, size) each, or (size,) without `batch`.

        In theano_lstm the attribute `initial_hidden_state` of each layer is a random vector.
        """
        found: list[Any] = []
        for layer in self.layers:
            if isinstance(layer, Cell):
                size = sum(layer.state_sizes)
                zeros = np.zeros(size, layer.dtype)
                found.append(zeros if batch is None else pt.alloc(zeros, batch, size))
        return found

    def forward(
        self,
        x: Tensor,
        prev_hiddens: Sequence[Tensor | Array | None] | None = None,
        dropout: Sequence[Tensor | None] = (),
    ) -> list[Tensor]:
        """Return the new states of all layers for one step.

        Parameters
        ----------
        x : variable (batch, features) or (features,)
        prev_hiddens : list of variables, optional
            One for each cell and `GatedInput`, in order; None entries of other layers may be
            missing. That of an LSTM is its cell and its output, [c, h], in one array. Zeros by
            default.
        dropout : list of variables, optional
            A mask for the input of each layer, as `MultiDropout` returns them. ``[]`` for none.

        Returns
        -------
        list of variables
            For each layer its new state, its gate, or its output.
        """
        if not isinstance(dropout, (list, tuple)):
            raise TypeError(
                f"dropout is a list of masks, [] for none, got {dropout!r}: see MultiDropout."
            )
        if dropout and len(dropout) != len(self.layers):
            raise ValueError(
                f"The stack has {len(self.layers)} layers, but dropout has {len(dropout)} masks."
            )
        if x.ndim == 1:
            rows = None if prev_hiddens is None else [to_row(h) for h in prev_hiddens]
            masks = [to_row(mask) for mask in dropout]
            return [out[0] for out in self.forward(x[None], rows, masks)]
        x = cast(Tensor, pt.specify_shape(x, (None, self.input_size)))
        if prev_hiddens is None:
            prev_hiddens = self.initial_hidden_states(x.shape[0])
        states = iter([h for h in prev_hiddens if h is not None])
        found = []
        for number, layer in enumerate(self.layers):
            below = x
            if dropout and dropout[number] is not None:
                x = cast(Tensor, x * dropout[number])
            if not isinstance(layer, (Cell, GatedInput)):
                x = layer(self._clipped(x))
                found.append(x)
                continue
            try:
                h = pt.as_tensor_variable(next(states))
            except StopIteration:
                raise ValueError(
                    f"prev_hiddens has no state for layer {number} ({type(layer).__name__})."
                ) from None
            if isinstance(layer, GatedInput):
                gate = layer.activate(self._clipped(x), self._clipped(h))
                found.append(gate)
                x = cast(Tensor, gate * below)
            else:
                x, new = layer(self._clipped(x), split(self._clipped(h), layer.state_sizes))
                found.append(cast(Tensor, pt.concatenate(new[::-1], axis=1)))
        return found

    def _clipped(self, x: Tensor) -> Tensor:
        return x if self.clip_gradients is False else clip_gradient(x, self.clip_gradients)


def to_row(value: Any) -> Any:
    """Return an array with a batch axis of one example; None for None."""
    return None if value is None else pt.as_tensor_variable(value)[None]


def split(h: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Return the states of a cell from one array, in which the last one is first."""
    ends = np.cumsum(sizes[::-1]).tolist()
    parts = [h[:, end - size : end] for end, size in zip(ends, sizes[::-1], strict=True)]
    return parts[::-1]


def create_optimization_updates(
    cost: Tensor | None,
    params: Sequence[Any],
    updates: dict[Any, Any] | None = None,
    max_norm: float | None = 5.0,
    lr: float = 0.01,
    eps: float = 1e-6,
    rho: float = 0.95,
    method: str = "adadelta",
    gradients: Sequence[Tensor] | None = None,
) -> tuple[dict[Any, Any], list[Any], list[Any], SharedVariable, SharedVariable | None]:
    """Return the updates of one step down the gradient of `cost`.

    The gradient of each parameter is clipped first: ``g min(max_norm, |g|) / (|g| + eps)``. It is a
    little smaller than g also where ``|g| < max_norm``. The formulas of the methods are those of
    `seqnet.optimizers.SGD`, `AdaGrad` and `AdaDelta`.

    Parameters
    ----------
    cost : scalar variable
        Not used if `gradients` are passed.
    params : list of shared variables
    updates : dict, optional
        The new updates are added to it.
    max_norm : float, None or False
        None or False for no clipping.
    lr : float
        The learning rate of ``"sgd"`` and ``"adagrad"``.
    eps, rho : float
        Of the methods that have them.
    method : "adadelta", "adagrad" or "sgd"
    gradients : list of variables, optional

    Returns
    -------
    updates : dict
        The new values of the shared variables, for `pytensor.function`.
    gsums, xsums : lists
        The sums that the method keeps for each parameter, or None: mean squares of gradients and
        of changes.
    lr : shared variable
        The learning rate; with ``"adadelta"``, which has none, rho.
    max_norm : shared variable
        Or what was passed, if there is no clipping. Both can be set without compiling.

    Examples
    --------
    >>> import numpy as np, pytensor, pytensor.tensor as pt
    >>> from seqnet.theano_lstm import create_optimization_updates
    >>> p = pytensor.shared(np.array([1.0, -2.0]))
    >>> updates, gsums, xsums, lr, max_norm = create_optimization_updates(
    ...     0.5 * pt.sum(p**2), [p], method="sgd")
    >>> step = pytensor.function([], [], updates=updates, mode="FAST_COMPILE")
    >>> lr.set_value(0.1)
    >>> result = step()
    >>> p.get_value().round(4).tolist()
    [0.9, -1.8]
    """
    known: dict[str, Optimizer] = {
        "sgd": SGD(lr),
        "adagrad": AdaGrad(lr, epsilon=eps),
        "adadelta": AdaDelta(1.0, rho=rho, epsilon=eps),
    }
    if method not in known:
        raise ValueError(f"method is one of {', '.join(map(repr, known))}, got {method!r}.")
    optimizer = known[method]
    if gradients is None:
        if cost is None:
            raise ValueError("Pass a cost, or gradients.")
        gradients = cast("list[Tensor]", pytensor.grad(cost, list(params)))
    limit: Any = max_norm
    if max_norm is not None and max_norm is not False:
        limit = pytensor.shared(np.float64(max_norm), name="max_norm")
    found: dict[Any, Any] = OrderedDict() if updates is None else updates
    sums: list[list[Any]] = [[], []]
    for param, gradient in zip(params, gradients, strict=True):
        if isinstance(limit, SharedVariable):
            norm = pt.sqrt(pt.sum(pt.sqr(gradient)))
            factor = pt.minimum(limit, norm) / (norm + eps)
            gradient = cast(Tensor, gradient * pt.cast(factor, gradient.dtype))
        slots = {
            name: pytensor.shared(np.zeros_like(param.get_value(borrow=True)), name=name)
            for name in optimizer.used_slots()
        }
        numbers: SimpleNamespace = optimizer.hyperparameters(param.dtype)
        change, new = optimizer.change(gradient, numbers, **slots)
        found[param] = param + change
        found.update({slots[name]: value for name, value in new.items()})
        for kept, slot in zip(sums, [*slots.values(), None, None], strict=False):
            kept.append(slot)
    changed = "rho" if method == "adadelta" else "learning_rate"
    return found, *sums, numbers_of(optimizer)[changed], limit
