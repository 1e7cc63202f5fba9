"""Layers without weights: activations, dropout, masking, repeating, and a function as a layer."""

from __future__ import annotations

import inspect

import numpy as np
import pytensor.tensor as pt
from pytensor.compile.mode import Mode
from pytensor.graph.op import HasInnerGraph
from pytensor.graph.traversal import applys_between
from pytensor.tensor.random.op import RandomVariable

from seqnet import activations
from seqnet.checks import check_bool, check_count, check_number, check_shape
from seqnet.hyperparameters import Rate, numbers_of
from seqnet.layers.calling import masks_together
from seqnet.layers.layer import Layer
from seqnet.registry import register


@register("layer")
class Activation(Layer):
    """Apply an activation to every element (softmax: over the last axis).

    Parameters
    ----------
    activation : str or callable
        A name of `seqnet.activations` or a function of a PyTensor variable.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Activation("relu")(np.array([[-1.0, 2.0]])).eval().tolist()
    [[0.0, 2.0]]
    """

    def __init__(self, activation, **kwargs):
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs, mask, context):
        return activations.apply(self.activation, inputs)


@register("layer")
class Softmax(Layer):
    """Exponentials normalised over the last axis: ``exp(x_k) / sum_j exp(x_j)``.

    Works on ``(batch, classes)`` and ``(batch, time, classes)``. A cross-entropy that follows uses
    the logits, so nothing saturates.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.Softmax()(np.zeros((1, 2))).eval().tolist()
    [[0.5, 0.5]]
    """

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs, mask, context):
        return activations.softmax(inputs)


@register("layer")
class Dropout(Layer):
    """Set a share of the inputs to zero during training and scale the rest up.

    Kept values are multiplied by ``1 / (1 - rate)`` (inverted dropout, Srivastava et al., 2014),
    so that prediction needs no change.

    Parameters
    ----------
    rate : float
        Share that is dropped, in ``[0, 1)``. (theano_lstm and Keras 1 call this p.) It can be set
        at any time, also while a model trains; a graph is built anew only if it becomes 0 or was 0.
    noise_shape : tuple, optional
        Shape of the mask, None for the input's own size and 1 for "the same along this axis":
        ``(None, 1, None)`` draws one mask per sequence.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> layer = seqnet.layers.Dropout(0.5)
    >>> layer(np.ones((1, 3))).eval().tolist()          # not training: nothing is dropped
    [[1.0, 1.0, 1.0]]
    """

    rate = Rate()

    def __init__(self, rate: float, *, noise_shape=None, **kwargs):
        super().__init__(**kwargs)
        self.rate = rate
        self.noise_shape = None if noise_shape is None else check_shape(noise_shape, "noise_shape")

    def build(self, input_shape):
        for axis, (size, wanted) in enumerate(
            zip(self.noise_shape or (), input_shape, strict=False)
        ):
            if size not in (None, 1, wanted) and wanted is not None:
                raise ValueError(
                    f"noise_shape {self.noise_shape} of layer {self.display_name!r} does not fit "
                    f"the input's shape {input_shape}: axis {axis} is None, 1 or {wanted}."
                )
        self.generator = self.add_generator()

    @property
    def sequence_generators(self) -> list:
        """The generator, if the mask is the same along time."""
        return self.generators if (self.noise_shape or ())[1:2] == (1,) else []

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs, mask, context):
        if not context.training or self.rate == 0:
            return inputs
        sizes = tuple(inputs.shape)
        if self.noise_shape is not None:
            if len(self.noise_shape) != inputs.ndim:
                raise ValueError(
                    f"noise_shape {self.noise_shape} of layer {self.display_name!r} does not have "
                    f"the rank {inputs.ndim} of its input."
                )
            sizes = tuple(
                own if n is None else n for own, n in zip(sizes, self.noise_shape, strict=True)
            )
        kept = context.dropout_mask(self.generator, sizes, numbers_of(self)["rate"], inputs.dtype)
        if self.noise_shape is not None:
            ones = [axis for axis, n in enumerate(self.noise_shape) if n == 1]
            kept = pt.specify_broadcastable(kept, *ones) if ones else kept
        return inputs * kept


@register("layer")
class Masking(Layer):
    """Mark steps as padding: those whose features all equal `mask_value`.

    Input and output ``(batch, time, features)``; later layers get the mask, and the masked steps
    become zero (as in Keras).

    Parameters
    ----------
    mask_value : float
        The value that means padding; it must be finite.

    Examples
    --------
    >>> import seqnet
    >>> layer = seqnet.layers.Masking(mask_value=-1.0)
    """

    input_axes = ("batch", "time", "features")

    def __init__(self, mask_value: float = 0.0, **kwargs):
        super().__init__(**kwargs)
        self.mask_value = check_number(mask_value, "mask_value")
        if not np.isfinite(self.mask_value):
            raise ValueError(f"mask_value must be finite, got {mask_value}.")

    def compute_output_shape(self, input_shape):
        return input_shape

    def call(self, inputs, mask, context):
        present = self.compute_mask(inputs, mask)
        return pt.switch(present[:, :, None], inputs, np.asarray(0, dtype=inputs.dtype))

    def compute_mask(self, inputs, mask):
        floats = inputs if inputs.dtype.startswith("float") else pt.cast(inputs, self.dtype)
        value = np.asarray(self.mask_value, dtype=floats.dtype)
        present = pt.any(pt.neq(floats, value), axis=-1)
        return masks_together(mask, present)

    def known_mask(self, values):
        values = values.astype(self.dtype, copy=False)
        return (values != np.asarray(self.mask_value, dtype=self.dtype)).any(axis=-1)


@register("layer")
class RepeatVector(Layer):
    """Repeat a vector as every step of a sequence, as between an encoder and a decoder.

    Input ``(batch, features)``, output ``(batch, n, features)``.

    Parameters
    ----------
    n : int
        Number of steps.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> seqnet.layers.RepeatVector(2)(np.array([[1.0, 2.0]])).eval().tolist()
    [[[1.0, 2.0], [1.0, 2.0]]]
    """

    input_axes = ("batch", "features")
    supports_masking = False
    non_causal = "makes all steps from one input"

    def __init__(self, n: int, **kwargs):
        super().__init__(**kwargs)
        self.n = check_count(n, "The n of RepeatVector")

    def call(self, inputs, mask, context):
        return pt.alloc(inputs[:, None, :], inputs.shape[0], self.n, inputs.shape[1])

    def compute_output_shape(self, input_shape):
        return (input_shape[0], self.n, input_shape[1])


@register("layer")
class Lambda(Layer):
    """Apply a function of a PyTensor variable.

    Parameters
    ----------
    function : callable
        ``function(inputs) -> output`` of PyTensor variables, the batch as their first axis. If it
        has an argument named ``mask``, it is given the mask (batch, time) or None.
    output_shape : tuple, optional
        Shape of one example of the output, without the batch, None for what varies. By default it
        is found by applying the function to a variable of the input's shape.
    supports_masking : bool
        Say that each step of the output is the same step of the input, so that the input's mask is
        the output's. Else a mask is an error, unless the function takes one and uses it up.

    Raises
    ------
    ValueError
        If the function mixes the rows of a batch, as ``x - x.mean(axis=0)`` does: then results
        would depend on batches. One trial with random numbers tells, when the layer is built; a
        function with a loop or random numbers of its own, or that fails on the trial's inputs, is
        not tried.

    Notes
    -----
    A file holds the function's name and not its code: to load the model, pass
    ``custom_objects={"name": function}``. A ``lambda`` expression has no name and cannot be saved.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> last = seqnet.layers.Lambda(lambda x: x[:, -1])
    >>> last(np.array([[[1.0], [2.0]]])).eval().tolist()
    [[2.0]]
    >>> last.compute_output_shape((None, None, 4))
    (None, 4)
    """

    def __init__(self, function, output_shape=None, *, supports_masking: bool = False, **kwargs):
        super().__init__(**kwargs)
        if not callable(function):
            raise TypeError(f"Lambda takes a function of a PyTensor variable, got {function!r}.")
        self.function = function
        self.output_shape = (
            None if output_shape is None else check_shape(output_shape, "output_shape")
        )
        self.hands_mask_on = check_bool(supports_masking, "supports_masking")
        self.takes_mask = "mask" in argument_names(function)

    @property
    def supports_masking(self) -> bool:
        """Whether the mask is handed on or used up."""
        return self.hands_mask_on or self.takes_mask

    def masking_hint(self):
        return (
            "If each step of its output is the same step of its input, say supports_masking=True; "
            "else let the function take an argument named mask."
        )

    def build(self, input_shape):
        inputs = pt.tensor(dtype=self.dtype, shape=input_shape)
        try:
            mask = pt.ones(inputs.shape[:2], dtype="bool")
            output = self.apply(inputs, mask)
            mixed = mixes_rows(inputs, output)
        except Exception:  # it may need inputs of another kind; an error comes where it is used
            return
        if mixed:
            raise ValueError(
                f"The function of layer {self.display_name!r} (Lambda) mixes the rows of a batch: "
                "for several rows it gives something else than for each row alone, so results "
                "would depend on how data are cut into batches. The first axis is the batch; the "
                f"steps of a sequence are axis 1. Its input has the shape {input_shape}."
            )
        found, said = output.type.shape[1:], self.output_shape
        if said is not None and (
            len(found) != len(said)
            or any(
                None not in pair and pair[0] != pair[1] for pair in zip(found, said, strict=True)
            )
        ):
            raise ValueError(
                f"The function of layer {self.display_name!r} (Lambda) gives examples of the shape "
                f"{found}, not of the output_shape {said}."
            )

    def apply(self, inputs, mask=None):
        """Return the function of a variable."""
        output = self.function(inputs, mask=mask) if self.takes_mask else self.function(inputs)
        return pt.as_tensor_variable(output)

    def call(self, inputs, mask, context):
        return self.apply(inputs, mask)

    def compute_mask(self, inputs, mask):
        return mask if self.hands_mask_on else None

    def compute_output_shape(self, input_shape):
        if self.output_shape is not None:
            return (input_shape[0], *self.output_shape)
        inputs = pt.tensor(dtype=self.dtype, shape=input_shape)
        mask = pt.tensor(dtype="bool", shape=input_shape[:2])
        try:
            return tuple(self.apply(inputs, mask).type.shape)
        except Exception as error:
            raise ValueError(
                f"The function of layer {self.display_name!r} (Lambda) cannot be applied to a "
                f"variable of the shape {input_shape} and the dtype {self.dtype} to find its "
                f"output's shape ({error}). Pass output_shape=, without the batch."
            ) from error

    def get_config(self):
        name = getattr(self.function, "__name__", "<lambda>")
        if not name.isidentifier():
            raise ValueError(
                f"Layer {self.display_name!r} (Lambda) cannot be saved, because its function has "
                "no name. Write it with def, and pass it in custom_objects= when you load the "
                "model."
            )
        return super().get_config() | {"supports_masking": self.hands_mask_on}

    @classmethod
    def _revive(cls, value, custom_objects):
        if isinstance(value, dict) and "name" in value:
            name = value["name"]
            if name not in (custom_objects or {}):
                raise ValueError(
                    f"A Lambda layer of the file holds the function {name!r}, and files hold no "
                    f"code: pass custom_objects={{{name!r}: {name}}}."
                )
            return custom_objects[name]
        return value


def mixes_rows(inputs, output) -> bool:
    """Tell whether rows of an output depend on other rows of the input, from one trial.

    What has loops or random numbers within is not tried.
    """
    for node in applys_between([inputs], [output]):
        if isinstance(node.op, (HasInnerGraph, RandomVariable)):
            return False
    sizes = [3 if size is None else size for size in inputs.type.shape[1:]]
    values = np.random.default_rng(0).normal(size=(4, *sizes)).astype(inputs.dtype)
    options = {"mode": Mode(linker="py", optimizer=None), "on_unused_input": "ignore"}
    whole = output.eval({inputs: values}, **options)
    if whole.shape[:1] != (4,):
        return True
    rows = [output.eval({inputs: row[None]}, **options) for row in values]
    alone = np.concatenate(rows)
    return alone.shape != whole.shape or not np.allclose(alone, whole, rtol=1e-3, atol=1e-5)


def argument_names(function) -> list[str]:
    """Return the names of a function's arguments, none if they cannot be read."""
    try:
        return list(inspect.signature(function).parameters)
    except (TypeError, ValueError):  # some of those written in C
        return []
