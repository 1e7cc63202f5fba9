"""The base class of optimizers: gradients in, new values of shared variables out.

An optimizer is one equation (`change`) and the names of the arrays that it keeps for every weight
(`slots`). This class does the rest: clipping, weight decay, averages of the weights, constraints,
storage of the slots, the step count, and hyperparameters such as the learning rate, which are
shared variables and change without compiling.
"""

from __future__ import annotations

import difflib
import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, ClassVar, NamedTuple, Self, TypeAlias, cast

import numpy as np
import pytensor
import pytensor.tensor as pt
from pytensor.compile.sharedvalue import SharedVariable
from pytensor.graph.basic import Variable
from pytensor.tensor.sharedvar import TensorSharedVariable

from seqnet import backend
from seqnet.common.checks import check_bool, check_count
from seqnet.common.hyperparameters import Hyperparameter, Versioned, names_of, numbers_of
from seqnet.common.keras_names import without_name
from seqnet.common.types import Tensor, TensorLike
from seqnet.constraints import constrain, constraint_of
from seqnet.ops.lookup import SetRows, touched_rows
from seqnet.ops.norms import squared_norms
from seqnet.ops.schedule import ScheduledRate
from seqnet.optimizers import schedules
from seqnet.optimizers.schedules import LearningRate
from seqnet.registry import Configurable, in_scope, refuse_arguments, serialize

OTHER_NAMES = {"lr": "learning_rate"}
"""Names of hyperparameters in other libraries."""

AVERAGE = "weight_average"
"""The name of the moving averages of the weights among the slots."""

EXCLUDED = "excluded_from_weight_decay"
"""The name in a configuration of the patterns of `Optimizer.exclude_from_weight_decay`."""

Updates: TypeAlias = dict[SharedVariable, Variable]
"""New values of shared variables."""


class Gradients(NamedTuple):
    """The gradients of several weights, not clipped.

    Attributes
    ----------
    weights : list of shared variables
    values : list of variables
        Of the weights' shapes; (n, width) for a table of which only n rows were looked up.
    ids : list of variables (n,)
        The rows that were looked up, None for whole weights.
    norms : float64 variable (weights,)
        The L2 norm of each.
    squares : float64 variable (weights,)
        The squared norm of each before it was divided by `over`.
    """

    weights: list[TensorSharedVariable]
    values: list[Tensor]
    ids: list[Tensor | None]
    norms: Tensor
    squares: Tensor


class Optimizer(Versioned, Configurable):
    """The base class of optimizers.

    Parameters
    ----------
    learning_rate : float or function of the step
        A number, which can be set at any time, or a schedule: a function that is called with
        `iterations` before each update, such as those of `seqnet.optimizers.schedules`.
    weight_decay : float, optional
        Subtract ``learning_rate * weight_decay * w`` from each weight before its update (decoupled
        from the gradient: Loshchilov and Hutter, 2019). Weights can be excluded by
        `exclude_from_weight_decay`.
    clipnorm : float, optional
        Scale each weight's gradient down so that its own L2 norm is at most this (Keras 3's
        meaning; Keras 1 used the name for the global norm).
    clipvalue : float, optional
        Cut every element of every gradient to ``[-clipvalue, clipvalue]``.
    global_clipnorm : float, optional
        Scale all gradients together so that their joint L2 norm is at most this (Pascanu et al.,
        2013).
    use_ema : bool
        Keep an exponential moving average of each weight, ``a' = m a + (1 - m) w'``, which starts
        from the weights after the first update. `fit` ends with the averages as the weights
        (Polyak and Juditsky, 1992).
    ema_momentum : float
        m, in [0, 1)
    ema_overwrite_frequency : int, optional
        Also set the weights to their averages each time after this number of updates.

    Attributes
    ----------
    slots : tuple of str
        Names of the arrays kept for each weight.
    iterations : shared int64
        The number of updates so far.
    schedule : function, optional
        The schedule of the learning rate, None if it is a number.

    Notes
    -----
    A large table of embeddings is updated row by row where that gives the result of the whole
    update. Weight decay, averages of weights and constraints change all rows at each step, so with
    one of them the whole table is updated.

    Raises
    ------
    ValueError
        If more than one kind of clipping is set, or a number is out of its range.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> import pytensor.tensor as pt
    >>> class SignDescent(seqnet.optimizers.Optimizer):
    ...     def change(self, gradient, h):
    ...         return -h.learning_rate * pt.sign(gradient), {}
    ...
    >>> model = seqnet.Model([seqnet.layers.Dense(1)])
    >>> model.compile(SignDescent(0.1, clipnorm=1.0), "mse")
    >>> loss = model.train_on_batch(np.ones((4, 2)), np.ones((4, 1)))
    """

    slots: ClassVar[tuple[str, ...]] = ()

    learning_rate = LearningRate()
    weight_decay = Hyperparameter(optional=True)
    clipnorm = Hyperparameter(optional=True, positive=True)
    clipvalue = Hyperparameter(optional=True, positive=True)
    global_clipnorm = Hyperparameter(optional=True, positive=True)
    ema_momentum = Hyperparameter(below=1.0)

    def __init__(
        self,
        learning_rate: float | Callable,
        *,
        weight_decay: float | None = None,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        use_ema: bool = False,
        ema_momentum: float = 0.99,
        ema_overwrite_frequency: int | None = None,
        **unknown: Any,
    ):
        refuse_arguments(type(self), unknown)
        reserved = sorted({AVERAGE, "weight"} & set(self.slots))
        if reserved:
            raise ValueError(f"{type(self).__name__} cannot have a slot named {reserved[0]!r}.")
        self.iterations = pytensor.shared(np.int64(0), name="iterations")
        self._schedule: Callable | None = None
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.clipnorm = clipnorm
        self.clipvalue = clipvalue
        self.global_clipnorm = global_clipnorm
        self.check_clipping()
        self.use_ema = check_bool(use_ema, "use_ema")
        self.ema_momentum = ema_momentum
        self.ema_overwrite_frequency = ema_overwrite_frequency
        if ema_overwrite_frequency is not None:
            check_count(ema_overwrite_frequency, "ema_overwrite_frequency")
        self._excluded: tuple[str, ...] = ()
        self.state: dict[str, dict[str | None, TensorSharedVariable]] = {
            slot: {} for slot in self.slots
        }
        self.owners: dict[str | None, TensorSharedVariable] = {}
        self.last_steps: dict[str | None, TensorSharedVariable] = {}

    def __setattr__(self, name: str, value: object) -> None:
        """Set an attribute, or raise if it looks like another name of a hyperparameter."""
        known = hasattr(self, name) or name.startswith("_") or name in self.parameters()
        if not known:
            check_name(type(self).__name__, name, names_of(self))
        super().__setattr__(name, value)

    @property
    def schedule(self) -> Callable | None:
        """The schedule of the learning rate; None if it is a number."""
        return self._schedule

    def build(self, weights: Sequence[TensorSharedVariable]) -> None:
        """Create the slots of weights, which otherwise happens when a step is compiled."""
        for weight in weights:
            for slot in self.used_slots():
                self.slot(slot, weight)

    @property
    def variables(self) -> list[SharedVariable]:
        """The step count, the learning rate if it is a number, and the slots of all weights."""
        rate = numbers_of(self).get("learning_rate")
        slots = [v for table in self.state.values() for v in table.values()]
        return [self.iterations, *([] if rate is None else [rate]), *slots]

    # ---- for subclasses to define

    @abstractmethod
    def change(
        self, gradient: Tensor, h: SimpleNamespace, *_: Any, **slots: Any
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the change of one weight and the new values of its slots.

        Parameters
        ----------
        gradient : variable
            The clipped gradient, of the weight's shape.
        h : namespace
            The hyperparameters by name, and `step` (1 at the first update), as symbolic scalars of
            the weight's dtype.
        **slots : variables
            The current value of each slot, and the weight (after its decay) if `change` has an
            argument of the name `weight`.

        Returns
        -------
        (change, {slot: new value})
            `change` is added to the weight. Plain numbers and float64 arrays may be used:
            float64 results are cast to the weight's dtype.
        """

    def initial_slot(self, slot: str, weight: np.ndarray) -> np.ndarray:
        """Return the first value of a slot: zeros of the weight's shape."""
        return np.zeros_like(weight)

    def used_slots(self) -> tuple[str, ...]:
        """Return the slots that the current hyperparameters need."""
        return self.slots

    def supports_sparse_rows(self) -> bool:
        """Whether a row of a table with a gradient of zero keeps its value.

        Then a step on a large embedding changes only the rows that were looked up, unless weight
        decay, averages or a constraint change all of them.
        """
        return False

    def idle(self, h: SimpleNamespace, steps: Tensor, *_: Any, **slots: Any) -> dict[str, Tensor]:
        """Return a row's slots after `steps` updates with a gradient of zero.

        Works on symbolic and on NumPy arrays; `steps` is (rows, 1). Unchanged by default.
        """
        return slots

    # ---- for callers

    def updates(self, loss: Tensor, weights: Sequence[TensorSharedVariable]) -> Updates:
        """Return ``{shared variable: new value}`` for one step down the gradient of `loss`.

        Parameters
        ----------
        loss : symbolic scalar
        weights : list of shared variables
        """
        return self.descend(self.gradients(loss, weights))

    def gradients(
        self, loss: Tensor, weights: Sequence, over: Tensor | None = None, sparse_rows: bool = False
    ) -> Gradients:
        """Return the gradients of ``loss / over``.

        Parameters
        ----------
        loss : symbolic scalar
        weights : list of shared variables
        over : symbolic scalar, optional
            The divisor that turns a sum into a mean. The gradients of the sum are divided, which
            costs less than dividing the loss.
        sparse_rows : bool
            Whether tables may be updated row by row if only some rows are looked up.
        """
        by_row = [sparse_rows and self.updates_rows(weight) for weight in weights]
        values, ids = self.sums(loss, weights, by_row)
        return self.means(weights, values, ids, over)

    def sums(
        self, loss: Tensor, weights: Sequence, by_row: Sequence[bool]
    ) -> tuple[list[Tensor], list[Tensor | None]]:
        """Return the gradients of `loss`, and the rows that they belong to; see `Gradients`.

        Parameters
        ----------
        loss : symbolic scalar
        weights : list of shared variables
        by_row : list of bool
            For each weight, whether to return only those rows of a table that have a gradient.
        """
        found = cast(
            "list[Tensor]", pytensor.grad(loss, list(weights), disconnected_inputs="ignore")
        )
        # A list of numbers in a graph makes float64 gradients of float32 weights.
        found = [pt.cast(g, w.dtype) for g, w in zip(found, weights, strict=True)]
        touched = [
            touched_rows(w, g) if rows else None
            for w, g, rows in zip(weights, found, by_row, strict=True)
        ]
        values = [g if t is None else t.gradients for g, t in zip(found, touched, strict=True)]
        return values, [None if t is None else t.ids for t in touched]

    def means(
        self,
        weights: Sequence,
        values: Sequence[Tensor],
        ids: Sequence[Tensor | None],
        over: Tensor | None = None,
    ) -> Gradients:
        """Return gradients that are divided by `over`, with their norms."""
        squares = squared_norms(list(values))
        norms = pt.sqrt(squares)
        if over is not None:
            values = [v / pt.cast(over, v.dtype) for v in values]
            norms = norms / pt.cast(over, "float64")
        return Gradients(list(weights), list(values), list(ids), norms, squares)

    def apply_gradients(
        self, grads_and_vars: Iterable[tuple[TensorLike, TensorSharedVariable]]
    ) -> Updates | None:
        """Update weights by gradients of your own, with all that this optimizer does to gradients.

        Parameters
        ----------
        grads_and_vars : list of (gradient, weight)
            Arrays of the weights' shapes, or PyTensor variables. Weights are shared variables, of
            a model or your own; their names differ.

        Returns
        -------
        dict, optional
            With PyTensor variables nothing is computed: the updates ``{shared variable: new
            value}`` are returned. With arrays the weights and the optimizer's state are changed, by
            a function that is compiled at first use, and the result is None.

        Raises
        ------
        ValueError
            If there is no gradient, or one does not have the shape of its weight.

        Examples
        --------
        >>> import numpy as np, pytensor, seqnet
        >>> weight = pytensor.shared(np.array([1.0, 2.0]), name="weight")
        >>> optimizer = seqnet.optimizers.SGD(0.5)
        >>> optimizer.apply_gradients([([2.0, -2.0], weight)])
        >>> weight.get_value().tolist()
        [0.0, 3.0]
        """
        pairs = list(grads_and_vars)
        if not pairs:
            raise ValueError("apply_gradients takes a list of (gradient, weight), got none.")
        weights = [weight for _, weight in pairs]
        if any(isinstance(gradient, Variable) for gradient, _ in pairs):
            return self.descend(whole(weights, [given(g, w, pt.as_tensor) for g, w in pairs]))
        arrays = [given(gradient, weight, np.asarray) for gradient, weight in pairs]
        key = (self.structure(), *map(id, weights))
        applied = vars(self).get("_applied")
        if applied is None or applied[0] != key:
            variables = [pt.tensor(dtype=w.dtype, shape=w.type.shape) for w in weights]
            updates = self.descend(whole(weights, variables))
            function = backend.compile(variables, [], updates=updates, name="apply_gradients")
            # The weights are kept, so that their ids are not used again.
            applied = vars(self)["_applied"] = (key, function, weights)
        applied[1](*arrays)
        return None

    def __getstate__(self) -> dict[str, Any]:
        """Return the state to copy and pickle, without a compiled function."""
        return {name: value for name, value in vars(self).items() if name != "_applied"}

    def descend(self, gradients: Gradients) -> Updates:
        """Return ``{shared variable: new value}`` for one step down these gradients."""
        changes: Updates = {self.iterations: self.iterations + np.int64(1)}
        clipped = self.clip(gradients)
        for weight, gradient, ids in zip(gradients.weights, clipped, gradients.ids, strict=True):
            h = self.hyperparameters(weight.dtype)
            if ids is not None:
                changes |= self.row_updates(weight, ids, gradient, h)
                continue
            variables = {slot: self.slot(slot, weight) for slot in self.used_slots()}
            kept: Mapping[str, Tensor] = variables
            if weight.name in self.last_steps:  # some steps updated a few rows only
                last = self.last_step(weight)
                kept = self.caught_up(last, kept, gradient, h)
                changes[last] = pt.zeros_like(last) + self.iterations + 1
            before = self.decayed(weight, h)
            change, new = self.checked_change(gradient, h, kept, before)
            changes |= self.new_weight(weight, before + change, h)
            for slot, value in new.items():
                changes[variables[slot]] = value
        return changes

    def updates_rows(self, table: TensorSharedVariable) -> bool:
        """Whether a step may change only those rows of a table that have a gradient."""
        changes_all = self.use_ema or self.decays(table) or constraint_of(table) is not None
        return self.supports_sparse_rows() and not changes_all

    def decays(self, weight: TensorSharedVariable) -> bool:
        """Whether weight decay is applied to a weight."""
        names = str(weight.name), str(weight.name).rpartition("/")[2]
        excluded = any(re.search(p, name) for p in self._excluded for name in names)
        return self.weight_decay is not None and not excluded

    def decayed(self, weight: TensorSharedVariable, h: SimpleNamespace) -> Tensor:
        """Return the value of a weight after weight decay."""
        return weight - h.learning_rate * h.weight_decay * weight if self.decays(weight) else weight

    def new_weight(
        self, weight: TensorSharedVariable, value: Tensor, h: SimpleNamespace
    ) -> Updates:
        """Return the updates of a weight, of which `value` is the new value, and of its average.

        The average is computed before the constraint is applied, as in Keras 3.
        """
        changes: Updates = {}
        if self.use_ema:
            average = self.slot(AVERAGE, weight)
            one = np.asarray(1, dtype=weight.dtype)
            momentum = pt.switch(pt.eq(self.iterations, 0), 0 * one, h.ema_momentum)
            changes[average] = momentum * average + (one - momentum) * value
            if self.ema_overwrite_frequency is not None:
                due = pt.eq((self.iterations + 1) % self.ema_overwrite_frequency, 0)
                value = pt.switch(due, changes[average], value)
        return changes | {weight: constrain(weight, value)}

    def row_updates(
        self, table: TensorSharedVariable, ids: Tensor, gradient: Tensor, h: SimpleNamespace
    ) -> dict:
        """Return the new table and slots when only the rows `ids` have a gradient, (n, width).

        The updates that the slots of other rows miss (`idle`) are applied when the row is used
        again. The result is that of the whole update, to rounding.
        """
        variables = {slot: self.slot(slot, table) for slot in self.used_slots()}
        kept: Mapping[str, Tensor] = {slot: v[ids] for slot, v in variables.items()}
        changes: Updates = {}
        if type(self).idle is not Optimizer.idle:
            last = self.last_step(table)
            kept = self.caught_up(last[ids], kept, gradient, h)
            changes[last] = set_rows(last, ids, pt.zeros_like(ids) + self.iterations + 1)
        change, new = self.checked_change(gradient, h, kept, table[ids])
        changes[table] = set_rows(table, ids, table[ids] + change)
        for slot, value in new.items():
            changes[variables[slot]] = set_rows(variables[slot], ids, value)
        return changes

    def caught_up(
        self, last: Tensor, slots: Mapping[str, Tensor], gradient: Tensor, h: SimpleNamespace
    ) -> dict[str, Tensor]:
        """Return slots (rows, width) after the updates since `last`, which had no gradient."""
        missed = pt.cast(self.iterations - last, gradient.dtype)[:, None]
        found = self.idle(h, missed, **slots)
        return {slot: self.as_like(value, gradient, slot) for slot, value in found.items()}

    def checked_change(
        self, gradient: Tensor, h: SimpleNamespace, slots: Mapping[str, Tensor], weight: Tensor
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the results of `change`, with the gradient's dtype and shape."""
        wanted = "weight" in inspect.signature(self.change).parameters
        found = self.change(gradient, h, **slots, **({"weight": weight} if wanted else {}))
        what = f"{type(self).__name__}.change"
        if not isinstance(found, tuple) or len(found) != 2 or not isinstance(found[1], dict):
            raise TypeError(
                f"{what} must return (change, new), new being a dictionary of the slots' new "
                f"values; got {type(found).__name__}."
            )
        change, new = found
        unknown = ", ".join(sorted(set(new) - set(slots)))
        if unknown:
            known = ", ".join(slots) or "none"
            raise ValueError(f"{what} returns values for the slots {unknown}; there are {known}.")
        new = {slot: self.as_like(value, gradient, slot) for slot, value in new.items()}
        return self.as_like(change, gradient, "change"), new

    def as_like(self, value: TensorLike | None, like: Tensor, name: str) -> Tensor:
        """Return a value as a variable of another's dtype and shape, or raise."""
        what = f"{type(self).__name__} returns a {name} for a gradient of {like.ndim} axes that"
        if value is None:
            raise TypeError(f"{what} is None.")
        value = pt.as_tensor_variable(value)
        if value.ndim > like.ndim:
            raise ValueError(f"{what} has {value.ndim}.")
        if value.ndim < like.ndim:
            value = value + pt.zeros_like(like)
        return pt.cast(value, like.dtype)

    def last_step(self, table: TensorSharedVariable) -> TensorSharedVariable:
        """Return the shared (rows,) step counts up to which the slots of each row are updated."""
        if table.name not in self.last_steps:
            rows = table.get_value(borrow=True).shape[0]
            value = np.full(rows, self.iterations.get_value(), dtype="int64")
            self.last_steps[table.name] = pytensor.shared(value, name=f"{table.name}/last_step")
        return self.last_steps[table.name]

    def settle(self) -> None:
        """Apply the updates that the slots of idle rows missed, for all rows."""
        step = self.iterations.get_value()
        for name, last in self.last_steps.items():
            used = [slot for slot in self.used_slots() if name in self.state[slot]]
            tables = {slot: self.state[slot][name] for slot in used}
            arrays = {slot: variable.get_value(borrow=True) for slot, variable in tables.items()}
            missed = (step - last.get_value())[:, None]
            numbers = SimpleNamespace(**{n: getattr(self, n) for n in names_of(self)})
            for slot, value in self.idle(numbers, missed, **arrays).items():
                tables[slot].set_value(value.astype(tables[slot].dtype))
            last.set_value(np.full(len(missed), step, dtype="int64"))

    def hyperparameters(self, dtype: str) -> SimpleNamespace:
        """Return the hyperparameters as symbolic scalars of a weight's dtype."""
        numbers = numbers_of(self)
        if self.schedule is not None:
            numbers["learning_rate"] = ScheduledRate(self.schedule)(self.iterations)
        values = {n: pt.cast(v, dtype) for n, v in numbers.items()}
        return SimpleNamespace(step=pt.cast(self.iterations + 1, dtype), **values)

    def clip(self, gradients: Gradients) -> list[Tensor]:
        """Return the values of the gradients, clipped as configured."""
        self.check_clipping()
        values = gradients.values
        if self.clipvalue is not None:
            bounds = [self.hyperparameters(v.dtype).clipvalue for v in values]
            return [pt.clip(v, -b, b) for v, b in zip(values, bounds, strict=True)]
        if self.clipnorm is not None:
            factors = shrinking(gradients.norms, numbers_of(self)["clipnorm"])
            return [v * pt.cast(factors[k], v.dtype) for k, v in enumerate(values)]
        if self.global_clipnorm is not None:
            norm = pt.sqrt(pt.sum(pt.sqr(gradients.norms)))
            factor = shrinking(norm, numbers_of(self)["global_clipnorm"])
            return [v * pt.cast(factor, v.dtype) for v in values]
        return values

    def check_clipping(self) -> None:
        """Raise if more than one kind of clipping is set."""
        kinds = ("clipvalue", "clipnorm", "global_clipnorm")
        asked = [n for n in kinds if getattr(self, n) is not None]
        if len(asked) > 1:
            raise ValueError(
                f"Only one of clipvalue, clipnorm and global_clipnorm can be set, got "
                f"{' and '.join(asked)}."
            )

    def slot(self, slot: str, weight: TensorSharedVariable) -> TensorSharedVariable:
        """Return the shared variable of a slot of a weight; create it at the first call."""
        table = self.state.setdefault(slot, {})
        if self.owners.setdefault(weight.name, weight) is not weight:
            raise ValueError(
                f"This {type(self).__name__} has trained another weight named {weight.name}. Make "
                "a new optimizer for each model, and give shared variables of your own different "
                "names."
            )
        if weight.name not in table:
            first = weight.get_value(borrow=True)
            table[weight.name] = pytensor.shared(
                self.first_value(slot, first),
                name=f"{weight.name}/{slot}",
                shape=weight.type.shape,
            )
        return table[weight.name]

    def first_value(self, slot: str, weight: np.ndarray) -> np.ndarray:
        """Return the first value of a slot: an array of the weight's shape and dtype."""
        value = np.empty_like(weight)
        value[...] = weight if slot == AVERAGE else self.initial_slot(slot, weight)
        return value

    def exclude_from_weight_decay(
        self,
        var_list: Sequence[TensorSharedVariable] | None = None,
        var_names: Sequence[str] | None = None,
    ) -> None:
        """Choose the weights that do not decay; a further call replaces the choice.

        Parameters
        ----------
        var_list : list of shared variables, optional
            Weights of layers.
        var_names : list of str, optional
            Regular expressions: a weight is excluded if one of them is found in its name, such as
            ``"dense/bias"``, or in the part after the last slash.

        Examples
        --------
        >>> import seqnet
        >>> optimizer = seqnet.optimizers.AdamW()
        >>> optimizer.exclude_from_weight_decay(var_names=["bias", "embeddings"])
        """
        if isinstance(var_names, str):
            raise TypeError(f"var_names takes a list of names, such as [{var_names!r}].")
        patterns = list(var_names or ())
        for pattern in patterns:
            if not isinstance(pattern, str):
                raise TypeError(f"var_names takes text, got {pattern!r}.")
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"{pattern!r} is no regular expression: {error}.") from None
        for weight in var_list or ():
            if not isinstance(weight, SharedVariable):
                raise TypeError(
                    f"var_list takes weights of layers, such as layer.bias, got {weight!r}."
                )
            patterns.append(f"^{re.escape(str(weight.name))}$")
        self._excluded = tuple(patterns)

    def finalize_variable_values(self, weights: Sequence[TensorSharedVariable]) -> None:
        """Set weights to their moving averages, if there are any; `fit` ends with this."""
        averages = self.state.get(AVERAGE, {}) if self.use_ema else {}
        for weight in weights:
            if weight.name in averages:
                weight.set_value(averages[weight.name].get_value())

    @classmethod
    def accepted_arguments(cls, options: dict[str, Any]) -> dict[str, Any]:
        return super().accepted_arguments(without_name(options, cls.signature()))

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        if self.schedule is not None:
            config["learning_rate"] = serialize(self.schedule)
        return config | ({EXCLUDED: list(self._excluded)} if self._excluded else {})

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: dict | None = None) -> Self:
        config = dict(config)
        excluded = config.pop(EXCLUDED, None)
        rate = config.get("learning_rate")
        if isinstance(rate, dict) and rate.get("name") not in in_scope(custom_objects):
            config["learning_rate"] = schedules.get(rate)
        optimizer = super().from_config(config, custom_objects)
        optimizer.exclude_from_weight_decay(var_names=excluded)
        return optimizer

    def structure(self) -> tuple:
        """Return what a compiled update depends on, except the values of hyperparameters."""
        active = tuple(sorted(numbers_of(self)))
        averages = (self.use_ema, self.ema_overwrite_frequency)
        rate = None if self.schedule is None else id(self.schedule)  # held by the compiled update
        return (type(self), active, averages, self._excluded, rate)

    def state_dict(self) -> dict[str, Any]:
        """Return the step count, the hyperparameters, and copies of all slots.

        Slots are by their names and those of the weights.
        """
        return {
            "iterations": int(self.iterations.get_value()),
            "hyperparameters": {name: getattr(self, name) for name in self.settable()},
            "slots": {
                slot: {name: v.get_value() for name, v in table.items()}
                for slot, table in self.state.items()
            },
            "last_steps": {name: last.get_value() for name, last in self.last_steps.items()},
        }

    def load_state_dict(
        self, state: Mapping[str, Any], weights: Sequence[TensorSharedVariable]
    ) -> None:
        """Restore what `state_dict` returned, for the weights of the same names.

        Slots that the state does not have are reset.

        Raises
        ------
        ValueError
            If the state does not fit the weights; then nothing is changed.
        """
        by_name = {w.name: w for w in weights}
        self.check_state(state, by_name)
        for number in self.settable():
            if number in state.get("hyperparameters", {}):
                setattr(self, number, state["hyperparameters"][number])
        for slot, table in self.state.items():
            for name, variable in table.items():
                if name in by_name and name not in state["slots"].get(slot, {}):
                    first = by_name[name].get_value(borrow=True)
                    variable.set_value(self.first_value(slot, first))
        for slot, values in state["slots"].items():
            for weight, value in values.items():
                self.slot(slot, by_name[weight]).set_value(value)
        self.iterations.set_value(np.int64(state["iterations"]))
        for weight, value in state.get("last_steps", {}).items():
            self.last_step(by_name[weight]).set_value(value)

    def settable(self) -> list[str]:
        """Return the names of the hyperparameters that can be set: no rate of a schedule."""
        return [n for n in names_of(self) if n != "learning_rate" or self.schedule is None]

    def check_state(
        self, state: Mapping[str, Any], weights: Mapping[str | None, TensorSharedVariable]
    ) -> None:
        """Raise ``ValueError`` if a state does not fit weights, which are given by name."""
        sizes = {n: (w.get_value(borrow=True).shape, w.dtype) for n, w in weights.items()}
        for slot, table in state["slots"].items():
            if slot not in (*self.slots, AVERAGE):
                raise ValueError(f"{type(self).__name__} keeps no {slot!r}.")
            for name, value in table.items():
                if name not in sizes:
                    raise ValueError(f"The optimizer's {slot} belong to {name}, an unknown weight.")
                shape, dtype = sizes[name]
                if (value.shape, value.dtype) != (shape, dtype):
                    raise ValueError(
                        f"The optimizer's {slot} of {name} have shape {value.shape}, not {shape}, "
                        f"or another dtype than {dtype}."
                    )
        for name, steps in state.get("last_steps", {}).items():
            label = f"The optimizer's last_step of {name}"
            if name not in sizes or steps.shape != sizes[name][0][:1] or steps.dtype != "int64":
                raise ValueError(f"{label} fit no weight of the model.")
            if steps.size and not 0 <= steps.min() <= steps.max() <= state["iterations"]:
                raise ValueError(f"{label} are later than its last step.")


def check_name(owner: str, name: str, hyperparameters: list[str]) -> None:
    """Raise ``AttributeError`` if a new attribute's name is close to that of a hyperparameter."""
    near = difflib.get_close_matches(name, hyperparameters, n=1, cutoff=0.85)
    meant = OTHER_NAMES.get(name) or (near[0] if near else None)
    if meant is not None:
        raise AttributeError(
            f"{owner} has no {name!r}. Did you mean {meant!r}? A custom optimizer declares an "
            "attribute with such a name in its class."
        )


def whole(weights: Sequence[TensorSharedVariable], values: list[Tensor]) -> Gradients:
    """Return the gradients of whole weights from their values."""
    squares = squared_norms(values)
    return Gradients(list(weights), values, [None] * len(values), pt.sqrt(squares), squares)


def given(gradient: Any, weight: Any, convert: Callable) -> Any:
    """Return a gradient as an array or variable of its weight's dtype, or raise."""
    if not isinstance(weight, SharedVariable):
        raise TypeError(
            f"apply_gradients takes pairs (gradient, weight) with a weight that is a shared "
            f"variable, such as layer.kernel, got {type(weight).__name__}."
        )
    if gradient is None:
        raise ValueError(f"The weight {weight.name!r} has no gradient; leave it out.")
    value = convert(gradient)
    shape = value.shape if isinstance(value, np.ndarray) else value.type.shape
    wanted = weight.get_value(borrow=True).shape
    sizes = zip(shape, wanted, strict=False)
    if len(shape) != len(wanted) or any(s not in (None, w) for s, w in sizes):
        raise ValueError(
            f"The gradient of the weight {weight.name!r} has the shape {shape}, and the weight "
            f"{wanted}."
        )
    return value.astype(weight.type.dtype)


def set_rows(table: Tensor, ids: Tensor, rows: Tensor) -> Tensor:
    """Return a table with new rows at `ids`."""
    return cast(Tensor, SetRows()(table, ids, rows))


def shrinking(norm: Tensor, bound: Tensor) -> Tensor:
    """Return the factor ``min(1, bound / norm)``."""
    return bound / pt.maximum(norm, bound)
