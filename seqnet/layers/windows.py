"""Windows of neighbouring steps, which convolutions and poolings read."""

from __future__ import annotations

from functools import reduce
from typing import Any, cast

import numpy as np
import pytensor.tensor as pt
from pytensor.raise_op import CheckAndRaise

from seqnet.common.checks import check_count
from seqnet.common.types import Shape, Tensor
from seqnet.layers.layer import Layer

PADDINGS = ("valid", "same", "causal")


def check_one(value: object, name: str) -> int:
    """Return a count that may be a tuple of one, as Keras has it, or raise."""
    if isinstance(value, (tuple, list)) and len(value) == 1:
        (value,) = value
    return check_count(value, name)


class Windowed(Layer):
    """The base of layers whose output steps are functions of windows of input steps.

    Subclasses set `size`, `strides`, `dilation` and `padding`, and implement `of_windows`.

    The mask of the output is such that padding changes nothing. With ``padding="valid"`` a step
    is unmasked if all steps of its window are; with ``"same"`` and ``"causal"``, if the input's
    step at its place is.
    """

    input_axes = ("batch", "time", "features")
    size: int
    strides: int
    dilation: int = 1
    padding: str

    def check_padding(self, padding: str, allowed: tuple[str, ...]) -> str:
        """Return a padding in lower case, or raise."""
        if not isinstance(padding, str) or padding.lower() not in allowed:
            raise ValueError(
                f"The padding of {type(self).__name__} is one of {', '.join(allowed)}; got "
                f"{padding!r}."
            )
        return padding.lower()

    @property
    def non_causal(self) -> str:  # type: ignore[override]
        """Why it cannot run step by step."""
        return "" if self.size == self.strides == 1 else "reads several steps at a time"

    @property
    def span(self) -> int:
        """The number of steps from the first to the last step of a window."""
        return (self.size - 1) * self.dilation + 1

    def masking_hint(self) -> str:
        return (
            'With padding="same" and these strides, the places of the windows depend on the '
            'length of a sequence, and padding would change them. Use "valid" or "causal".'
        )

    def steps_before(self, remainder: int) -> int:
        """Return how many steps "same" adds before a sequence, from its length modulo strides."""
        return max(self.span - (remainder or self.strides), 0) // 2

    def check_mask(self, mask: Tensor | None) -> None:
        """Raise if padding would change the places of the windows."""
        places = {self.steps_before(r) for r in range(self.strides)}
        if mask is not None and self.padding == "same" and len(places) > 1:
            raise self.mask_error()

    def compute_output_shape(self, input_shape: Shape) -> Shape:
        steps = input_shape[1]
        if steps is not None:
            less = self.span - 1 if self.padding == "valid" else 0
            steps = max(-(-(steps - less) // self.strides), 1)
        return (input_shape[0], steps, self.output_size(input_shape[2]))

    def output_size(self, features: int | None) -> int | None:
        """Return the number of features of the output."""
        return features

    def compute_mask(self, inputs: Tensor, mask: Tensor | None = None) -> Tensor | None:
        if mask is None:
            return None
        if self.padding == "valid":
            padded = self.padded(mask, mask, np.False_)
            return reduce(pt.and_, self.taps(padded))
        return mask[:, :: self.strides]

    def padded(self, x: Tensor, mask: Tensor | None, value: Any) -> Tensor:
        """Return the steps with those that the padding adds, all of one value."""
        steps: Any = x.type.shape[1] or x.shape[1]
        before, after = 0, 0
        if self.padding == "causal":
            before = self.span - 1
        elif self.padding == "same" and self.strides == 1:
            before = (self.span - 1) // 2
            after = self.span - 1 - before
        elif self.padding == "same":
            rest = steps % self.strides
            most = self.span - self.strides
            total = max(most, 0), pt.maximum(self.span - rest, 0)
            whole = pt.switch(pt.eq(rest, 0), *total)
            before, after = whole // 2, whole - whole // 2
        elif mask is not None:  # all windows of a short sequence are masked, and there is one
            after = pt.maximum(self.span - steps, 0)
        else:
            x = self.long_enough(x, steps)
        first, last = (
            pt.full((x.shape[0], n, *tuple(x.shape)[2:]), np.asarray(value, dtype=x.dtype))
            for n in (before, after)
        )
        if isinstance(before, int) and isinstance(after, int) and not before + after:
            return x
        return pt.concatenate([first, x, last], axis=1)

    def long_enough(self, x: Tensor, steps: Any) -> Tensor:
        """Return sequences, with a check that they are not shorter than a window."""
        text = (
            f"Layer {self.display_name!r} ({type(self).__name__}) reads windows of {self.span} "
            "steps, and its input has fewer. Use padding='same', or pad the sequences and pass "
            "a mask."
        )
        if self.span == 1:
            return x
        if isinstance(steps, int):
            if steps < self.span:
                raise ValueError(text)
            return x
        return cast(Tensor, CheckAndRaise(ValueError, text)(x, pt.ge(steps, self.span)))

    def taps(self, padded: Tensor) -> list[Tensor]:
        """Return for each place in a window the steps that are there, one for each window."""
        found = []
        for start in range(0, self.span, self.dilation):
            left = self.span - 1 - start
            found.append(padded[:, start : -left or None : self.strides])
        return found


def cut(x: Tensor, mask: Tensor | None, value: Any) -> Tensor:
    """Return sequences (batch, time, features) with one value at masked steps."""
    return x if mask is None else pt.switch(mask[:, :, None], x, np.asarray(value, dtype=x.dtype))
