"""Several sequences in each row, instead of padding after each."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from seqnet.common.checks import check_count
from seqnet.data.dataset import Batch, RowDataset, RowSelection, Tree, map_tree, tree_items
from seqnet.data.validation import as_array


@dataclass
class Packed(RowDataset):
    """Rows of several sequences, as `pack` makes them; a data set for `Model.fit` and `predict`.

    Attributes
    ----------
    data : Batch
        `inputs`: a dictionary of arrays ``(rows, length, ...)``, among them the resets ``(rows,
        length)`` bool. `targets`: such arrays or None. `mask`: a dictionary of ``(rows, length)``.
    rows, starts, lengths : int arrays (sequences,)
        Where each sequence lies: its row, its first step and its number of steps.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.data import pack
    >>> packed = pack([np.ones(3), np.ones(2), np.ones(1)], length=4)
    >>> packed.rows.tolist(), packed.starts.tolist(), packed.lengths.tolist()
    ([0, 1, 0], [0, 0, 3], [3, 2, 1])
    """

    data: Batch
    rows: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray

    def __len__(self) -> int:
        return len(self.data)

    def load(self, rows: RowSelection) -> Batch:
        return self.data.take(rows)

    @property
    def inputs(self) -> dict[str, np.ndarray]:
        """The inputs by name, with the resets."""
        return self.data.inputs

    @property
    def targets(self) -> Tree:
        """The targets, an array or a dictionary of arrays by output."""
        return self.data.targets

    @property
    def mask(self) -> dict[str, np.ndarray]:
        """Where there is data, by the name of the input."""
        return self.data.mask

    def unpack(self, outputs: Any) -> Any:
        """Return the steps of each sequence, in the order in which the sequences were given.

        Parameters
        ----------
        outputs : array (rows, length, ...), or a list or dictionary of them
            What `Model.predict` returns for this data.

        Returns
        -------
        list of arrays (time, ...), or a list or dictionary of such lists

        Raises
        ------
        ValueError
            If an array does not have the rows and steps of this data.
        """
        if isinstance(outputs, dict):
            return {name: self.unpack(array) for name, array in outputs.items()}
        if isinstance(outputs, (list, tuple)):
            return [self.unpack(array) for array in outputs]
        array, (wanted, *_) = np.asarray(outputs), self.mask.values()
        if array.shape[:2] != wanted.shape:
            raise ValueError(
                f"The outputs have the shape {array.shape}, and the packed rows {wanted.shape}: "
                "unpack takes one value for each step, such as those of return_sequences=True."
            )
        places = zip(self.rows, self.starts, self.starts + self.lengths, strict=True)
        return [array[row, start:end] for row, start, end in places]


def pack(
    sequences: Sequence | Mapping[str, Sequence],
    targets: Sequence | Mapping[str, Sequence] | None = None,
    *,
    length: int | None = None,
    resets: str = "resets",
) -> Packed:
    """Fill rows with several sequences each, with flags where each begins.

    The rows are for models whose recurrent layers start anew where a sequence begins: pass the
    flags as ``resets=`` where these layers are called. Training on packed rows is then training on
    the sequences, with hardly any padding. Layers that look at other steps in another way, such as
    `Attention`, `Conv1D` and pooling, do not know where sequences begin.

    The longest sequence comes first, and each goes into the row in which the least room is left
    (best-fit decreasing).

    Parameters
    ----------
    sequences : list of sequences, each (time,) or (time, features)
        For several inputs, a dictionary of such lists by name; all inputs of a sequence have the
        same number of steps. A list is the input ``"x"``.
    targets : list of sequences, each (time,) or (time, ...), optional
        The targets of each step. For several outputs, a dictionary by name.
    length : int, optional
        The number of steps of a row, by default those of the longest sequence. A longer row may
        leave less room, but the steps of a row are computed one after the other.
    resets : str
        The name of the input that the model takes the flags by.

    Returns
    -------
    Packed
        A data set. `Packed.unpack` returns the outputs of each sequence.

    Raises
    ------
    TypeError, ValueError
        If the lists differ in length, a sequence and its targets in steps, or if a sequence does
        not fit into a row.

    Notes
    -----
    Best-fit decreasing needs at most 11/9 of the fewest possible rows, apart from a constant.
    Source: Johnson et al., "Worst-case performance bounds for simple one-dimensional packing
    algorithms" (1974).

    Examples
    --------
    >>> import seqnet
    >>> packed = seqnet.data.pack([[1, 2], [3, 4, 5, 6], [7]], length=4)
    >>> packed.inputs["x"].tolist()
    [[3, 4, 5, 6], [1, 2, 7, 0]]
    >>> packed.inputs["resets"].astype(int).tolist()
    [[1, 0, 0, 0], [1, 0, 1, 0]]
    >>> [steps.tolist() for steps in packed.unpack(packed.inputs["x"])]
    [[1, 2], [3, 4, 5, 6], [7]]
    """
    given = sequences if isinstance(sequences, Mapping) else {"x": sequences}
    if resets in given:
        raise ValueError(f"{resets!r} is the name of an input: choose another one for the resets.")
    inputs = {name: steps_of(value, f"sequences/{name}") for name, value in given.items()}
    if not inputs or not all(inputs.values()):
        raise ValueError("There are no sequences to pack.")
    name, first = next(iter(inputs.items()))
    lengths = np.array([len(array) for array in first])
    outputs: Tree = None
    if isinstance(targets, Mapping):
        outputs = {key: steps_of(y, f"targets/{key}") for key, y in targets.items()}
    elif targets is not None:
        outputs = steps_of(targets, "targets")
    for key, arrays in [*tree_items(inputs, "sequences"), *tree_items(outputs, "targets")]:
        check_steps(arrays, lengths, key, f"sequences/{name}")
    size = int(lengths.max()) if length is None else check_count(length, "length")
    if (too_long := lengths > size).any() or size == 0:
        number = int(np.argmax(too_long))
        raise ValueError(
            f"Sequence {number} has {lengths[number]} steps, and a row length={size}: choose a "
            "greater length, or divide the sequence."
        )
    rows, starts = fit_into_rows(lengths, size)
    shape, places = (int(rows.max()) + 1, size), list(zip(rows, starts, lengths, strict=True))
    mask, flags = np.zeros(shape, dtype=bool), np.zeros(shape, dtype=bool)
    for row, start, steps in places:
        mask[row, start : start + steps] = True
        flags[row, start : start + 1] |= steps > 0

    def filled(arrays: list[np.ndarray]) -> np.ndarray:
        result = np.zeros((*shape, *arrays[0].shape[1:]), dtype=np.result_type(*arrays))
        for array, (row, start, steps) in zip(arrays, places, strict=True):
            result[row, start : start + steps] = array
        return result

    data = Batch(
        {**map_tree(filled, inputs), resets: flags},
        map_tree(filled, outputs),
        mask={key: mask for key in inputs},
    )
    return Packed(data, rows, starts, lengths)


def steps_of(value: Any, name: str) -> list[np.ndarray]:
    """Return a list of sequences as arrays (time, ...) whose steps have one shape, or raise."""
    if isinstance(value, (str, bytes)) or not hasattr(value, "__len__"):
        raise TypeError(f"{name} must be a list of sequences, got {value!r}.")
    for number, item in enumerate(value):
        if np.ndim(item) == 0:
            raise TypeError(f"{name}[{number}] is {item!r}: a sequence has steps.")
    arrays = [as_array(item, f"{name}[{number}]") for number, item in enumerate(value)]
    shapes = {array.shape[1:] for array in arrays if array.size}
    if len(shapes) > 1:
        raise ValueError(f"The steps of {name} differ in shape: {sorted(shapes)}.")
    shape = shapes.pop() if shapes else ()
    return [array if array.size else array.reshape(0, *shape) for array in arrays]


def check_steps(arrays: list[np.ndarray], lengths: np.ndarray, what: str, first: str) -> None:
    """Raise ``ValueError`` unless there is an array with as many steps for each sequence."""
    if len(arrays) != len(lengths):
        raise ValueError(f"{what} has {len(arrays)} sequences, but {first} has {len(lengths)}.")
    for number, (array, steps) in enumerate(zip(arrays, lengths, strict=True)):
        if len(array) != steps:
            raise ValueError(
                f"{what}[{number}] has {len(array)} steps, but {first}[{number}] has {steps}."
            )


def fit_into_rows(lengths: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the row and the first step of each sequence in rows of `size` steps.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.data.packing import fit_into_rows
    >>> rows, starts = fit_into_rows(np.array([2, 3, 1, 4]), 5)
    >>> rows.tolist(), starts.tolist()
    ([1, 1, 0, 0], [3, 0, 4, 0])
    """
    rows, starts = np.zeros(len(lengths), dtype=int), np.zeros(len(lengths), dtype=int)
    room: dict[int, list[int]] = {}  # the rows with some number of free steps
    known: list[int] = []  # the numbers of free steps for which there are rows, sorted
    count = 0
    for number in np.argsort(-lengths, kind="stable"):
        steps = int(lengths[number])
        place = bisect_left(known, steps)
        if place < len(known):
            free = known[place]
            row = room[free].pop()
            if not room[free]:
                del room[free], known[place]
        else:
            free, row, count = size, count, count + 1
        rows[number], starts[number] = row, size - free
        left = free - steps
        if left not in room:
            known.insert(bisect_left(known, left), left)
        room.setdefault(left, []).append(row)
    return rows, starts
