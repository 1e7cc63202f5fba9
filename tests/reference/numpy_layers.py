"""Layers in plain NumPy: the forward pass, and the backward pass derived by hand.

The code is simple, not fast, and shares nothing with seqnet. Arrays are float64, batch-major:
inputs ``(batch, time, features)``, masks ``(batch, time)`` bool with True = data. Weights have
Keras's names and shapes. A cotangent ``d_y`` is the derivative of some scalar with respect to
``y``; every backward function turns it into the derivatives with respect to the inputs.

Recurrent layers have two parts. A *cell* defines one step and the derivative of one step.
`recurrent` and `recurrent_backward` apply any cell over time and handle masks::

    cell = LSTMCell()
    weights = {"kernel": kernel, "recurrent_kernel": recurrent_kernel, "bias": bias}
    y, states, tape = recurrent(cell, x, weights, mask=mask)
    gradients = recurrent_backward(tape, d_y=cotangent)   # d_x, d_kernel, ..., d_h0, d_c0
"""

import numpy as np


def sigmoid(x):
    """``1 / (1 + exp(-x))`` for any finite x, without overflow."""
    return np.exp(-np.logaddexp(0.0, -x))


# name: (function of x, its derivative written as a function of the output y)
ACTIVATIONS = {
    "linear": (lambda x: x, lambda y: np.ones_like(y)),
    "relu": (lambda x: np.maximum(x, 0.0), lambda y: (y > 0.0).astype(y.dtype)),
    "sigmoid": (sigmoid, lambda y: y * (1.0 - y)),
    "tanh": (np.tanh, lambda y: 1.0 - y**2),
}


# --------------------------------------------------------------------- layers without a state


def dense(x, kernel, bias=None):
    """``y = x @ kernel + bias`` over the last axis of an x of any rank.

    x ``(..., features)``, kernel ``(features, units)``, bias ``(units,)`` -> y ``(..., units)``.
    """
    y = np.einsum("...i,ij->...j", x, kernel)
    return y if bias is None else y + bias


def dense_backward(x, kernel, d_y):
    """Derivatives of `dense`: ``{"d_x", "d_kernel", "d_bias"}``, each shaped as its array."""
    rows_x = x.reshape(-1, x.shape[-1])
    rows_d = d_y.reshape(-1, d_y.shape[-1])
    return {"d_x": d_y @ kernel.T, "d_kernel": rows_x.T @ rows_d, "d_bias": rows_d.sum(axis=0)}


def embedding(ids, embeddings):
    """Rows of the table: ids ``(batch, time)`` int, embeddings ``(vocabulary, units)``
    -> ``(batch, time, units)``."""
    return embeddings[ids]


def embedding_backward(ids, embeddings, d_y):
    """``{"d_embeddings"}`` ``(vocabulary, units)``: a row used n times sums n cotangents."""
    d_embeddings = np.zeros_like(embeddings)
    for index in np.ndindex(ids.shape):
        d_embeddings[ids[index]] += d_y[index]
    return {"d_embeddings": d_embeddings}


def softmax(x):
    """``exp(x) / sum(exp(x))`` over the last axis of an x of any rank."""
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def softmax_backward(y, d_y):
    """Return ``{"d_x"}`` of `softmax` from its output: ``y * (d_y - sum(d_y * y))``."""
    return {"d_x": y * (d_y - (d_y * y).sum(axis=-1, keepdims=True))}


# ---------------------------------------------------------------------------------- one step
#
# Every cell has
#   state_names   the states in order; the first one, h, is also the output
#   gates         the number of column blocks of the kernel
#   bias_shape    (units) -> the shape of the bias
#   forward       (x, states, kernel, recurrent_kernel, bias) -> new states, tape
#   backward      (d_new_states, tape, kernel, recurrent_kernel)
#                     -> d_x, d_states, {"kernel", "recurrent_kernel", "bias": derivative}
# with x (batch, features), every state (batch, units).


class SimpleRNNCell:
    """``h' = f(x K + h U + b)``, f one of `ACTIVATIONS`.

    kernel ``(features, units)``, recurrent_kernel ``(units, units)``, bias ``(units,)``.
    """

    state_names = ("h",)
    gates = 1

    def __init__(self, activation="tanh"):
        self.f, self.df = ACTIVATIONS[activation]

    def bias_shape(self, units):
        return (units,)

    def forward(self, x, states, kernel, recurrent_kernel, bias):
        (h,) = states
        h_new = self.f(x @ kernel + h @ recurrent_kernel + bias)
        return (h_new,), (x, h, h_new)

    def backward(self, d_states, tape, kernel, recurrent_kernel):
        (d_h_new,) = d_states
        x, h, h_new = tape
        d_a = d_h_new * self.df(h_new)
        d_weights = {"kernel": x.T @ d_a, "recurrent_kernel": h.T @ d_a, "bias": d_a.sum(axis=0)}
        return d_a @ kernel.T, (d_a @ recurrent_kernel.T,), d_weights


class LSTMCell:
    """Hochreiter and Schmidhuber (1997) with forget gates, no peepholes; columns i, f, c, o.

    ``i, f, o = sigmoid(x K + h U + b)``, ``g = tanh(x K + h U + b)`` in the columns of c,
    ``c' = f * c + i * g``, ``h' = o * tanh(c')``; `activation` replaces both tanh.

    kernel ``(features, 4 * units)``, recurrent_kernel ``(units, 4 * units)``,
    bias ``(4 * units,)``.
    """

    state_names = ("h", "c")
    gates = 4

    def __init__(self, activation="tanh"):
        self.f, self.df = ACTIVATIONS[activation]

    def bias_shape(self, units):
        return (4 * units,)

    def forward(self, x, states, kernel, recurrent_kernel, bias):
        h, c = states
        a_i, a_f, a_c, a_o = np.split(x @ kernel + h @ recurrent_kernel + bias, 4, axis=-1)
        i, f, o = sigmoid(a_i), sigmoid(a_f), sigmoid(a_o)
        g = self.f(a_c)
        c_new = f * c + i * g
        s = self.f(c_new)
        return (o * s, c_new), (x, h, c, i, f, g, o, s)

    def backward(self, d_states, tape, kernel, recurrent_kernel):
        d_h_new, d_c_new = d_states
        x, h, c, i, f, g, o, s = tape
        d_o = d_h_new * s
        d_c_new = d_c_new + d_h_new * o * self.df(s)  # c' reaches the loss directly and through h'
        d_i, d_f, d_g = d_c_new * g, d_c_new * c, d_c_new * i
        d_a = np.concatenate(
            [d_i * i * (1 - i), d_f * f * (1 - f), d_g * self.df(g), d_o * o * (1 - o)], axis=-1
        )
        d_weights = {"kernel": x.T @ d_a, "recurrent_kernel": h.T @ d_a, "bias": d_a.sum(axis=0)}
        return d_a @ kernel.T, (d_a @ recurrent_kernel.T, d_c_new * f), d_weights


class GRUCell:
    """Cho et al. (2014); columns z (update), r (reset), h (candidate g).

    ``z, r = sigmoid(x K + h U + b)``, ``h' = z * h + (1 - z) * g`` and the candidate is

    - reset_after=True: ``g = tanh(x K_h + b[0]_h + r * (h U_h + b[1]_h))``, bias
      ``(2, 3 * units)``: row 0 goes with the inputs, row 1 with the state;
    - reset_after=False: ``g = tanh(x K_h + b_h + (r * h) U_h)``, bias ``(3 * units,)``.

    kernel ``(features, 3 * units)``, recurrent_kernel ``(units, 3 * units)``.
    """

    state_names = ("h",)
    gates = 3

    def __init__(self, activation="tanh", reset_after=True):
        self.f, self.df = ACTIVATIONS[activation]
        self.reset_after = reset_after

    def bias_shape(self, units):
        return (2, 3 * units) if self.reset_after else (3 * units,)

    def forward(self, x, states, kernel, recurrent_kernel, bias):
        (h,) = states
        input_bias, state_bias = bias if self.reset_after else (bias, np.zeros_like(bias))
        x_z, x_r, x_h = np.split(x @ kernel + input_bias, 3, axis=-1)
        u_z, u_r, u_h = np.split(recurrent_kernel, 3, axis=-1)
        b_z, b_r, b_h = np.split(state_bias, 3)
        z = sigmoid(x_z + h @ u_z + b_z)
        r = sigmoid(x_r + h @ u_r + b_r)
        projected = h @ u_h + b_h if self.reset_after else None
        g = self.f(x_h + r * projected) if self.reset_after else self.f(x_h + (r * h) @ u_h)
        return (z * h + (1 - z) * g,), (x, h, z, r, g, projected)

    def backward(self, d_states, tape, kernel, recurrent_kernel):
        (d_h_new,) = d_states
        x, h, z, r, g, projected = tape
        u_z, u_r, u_h = np.split(recurrent_kernel, 3, axis=-1)
        d_a_z = d_h_new * (h - g) * z * (1 - z)
        d_a_h = d_h_new * (1 - z) * self.df(g)
        if self.reset_after:
            d_r, d_projected = d_a_h * projected, d_a_h * r
            d_h = d_h_new * z + d_projected @ u_h.T
            d_u_h = h.T @ d_projected
        else:
            d_product = d_a_h @ u_h.T  # of r * h
            d_r = d_product * h
            d_h = d_h_new * z + d_product * r
            d_u_h = (r * h).T @ d_a_h
        d_a_r = d_r * r * (1 - r)
        d_h = d_h + d_a_z @ u_z.T + d_a_r @ u_r.T
        d_a = np.concatenate([d_a_z, d_a_r, d_a_h], axis=-1)
        d_bias = d_a.sum(axis=0)
        if self.reset_after:
            state_side = np.concatenate([d_a_z, d_a_r, d_projected], axis=-1)
            d_bias = np.stack([d_bias, state_side.sum(axis=0)])
        d_weights = {
            "kernel": x.T @ d_a,
            "recurrent_kernel": np.concatenate([h.T @ d_a_z, h.T @ d_a_r, d_u_h], axis=-1),
            "bias": d_bias,
        }
        return d_a @ kernel.T, (d_h,), d_weights


# ------------------------------------------------------------------------------- a step over time


def recurrent(cell, x, weights, states=None, mask=None, go_backwards=False, return_sequences=True):
    """Apply a cell at every step of a batch of sequences.

    A masked step keeps every state, so its output repeats the output before it; before the
    first step that is not masked the output is the initial state h.

    Parameters
    ----------
    cell : SimpleRNNCell, LSTMCell or GRUCell
    x : ndarray, ``(batch, time, features)``
    weights : dict with ``"kernel"``, ``"recurrent_kernel"`` and optionally ``"bias"``
    states : sequence of ndarray ``(batch, units)``, optional
        The initial states in the order of ``cell.state_names``; zeros if left out.
    mask : ndarray of bool, ``(batch, time)``, optional
        True where there is data.
    go_backwards : bool
        Reverse x and mask in time first. The outputs stay in that order:
        ``y[:, 0]`` belongs to ``x[:, -1]``.
    return_sequences : bool

    Returns
    -------
    y : ndarray, ``(batch, time, units)``, or its last step ``(batch, units)``
    states : tuple of ndarray ``(batch, units)``, the states after the last step
    tape : values that `recurrent_backward` needs
    """
    batch, time, _ = x.shape
    kernel, recurrent_kernel = weights["kernel"], weights["recurrent_kernel"]
    units = recurrent_kernel.shape[0]
    bias = weights.get("bias")
    if bias is None:
        bias = np.zeros(cell.bias_shape(units))
    if states is None:
        states = [np.zeros((batch, units)) for _ in cell.state_names]
    if mask is None:
        mask = np.ones((batch, time), dtype=bool)
    states = tuple(states)
    if go_backwards:
        x, mask = x[:, ::-1], mask[:, ::-1]

    outputs, steps = [], []
    for t in range(time):
        data = mask[:, t, None]
        stepped, step = cell.forward(x[:, t], states, kernel, recurrent_kernel, bias)
        states = tuple(np.where(data, new, old) for new, old in zip(stepped, states, strict=True))
        outputs.append(states[0])
        steps.append(step)
    y = np.stack(outputs, axis=1)
    tape = (cell, x, weights, mask, go_backwards, return_sequences, steps)
    return (y if return_sequences else y[:, -1]), states, tape


def recurrent_backward(tape, d_y=None, d_states=None):
    """Backpropagation through time for `recurrent`.

    Parameters
    ----------
    tape : the third result of `recurrent`
    d_y : ndarray shaped as y, optional
        Zeros if left out.
    d_states : sequence of ndarray ``(batch, units)``, optional
        Cotangents of the states after the last step; zeros if left out.

    Returns
    -------
    dict
        ``d_x``, ``d_kernel``, ``d_recurrent_kernel``, ``d_bias`` (if there is a bias) and, for
        every state s, ``d_s0`` (``d_h0``, ``d_c0``), each shaped as its array.
    """
    cell, x, weights, mask, go_backwards, return_sequences, steps = tape
    kernel, recurrent_kernel = weights["kernel"], weights["recurrent_kernel"]
    batch, time, _ = x.shape
    units = recurrent_kernel.shape[0]
    d_outputs = np.zeros((batch, time, units))
    if d_y is not None:
        if return_sequences:
            d_outputs += d_y
        else:
            d_outputs[:, -1] = d_y
    if d_states is None:
        d_states = [np.zeros((batch, units)) for _ in cell.state_names]
    d_states = list(d_states)
    d_x = np.zeros_like(x)
    d_weights = {
        "kernel": np.zeros_like(kernel),
        "recurrent_kernel": np.zeros_like(recurrent_kernel),
        "bias": np.zeros(cell.bias_shape(units)),
    }

    for t in reversed(range(time)):
        data = mask[:, t, None]
        d_states[0] = d_states[0] + d_outputs[:, t]
        d_stepped = [np.where(data, d, 0.0) for d in d_states]
        d_kept = [np.where(data, 0.0, d) for d in d_states]
        d_x[:, t], d_before, d_step = cell.backward(d_stepped, steps[t], kernel, recurrent_kernel)
        d_states = [before + kept for before, kept in zip(d_before, d_kept, strict=True)]
        for name, d_weight in d_step.items():
            d_weights[name] += d_weight

    gradients = {"d_x": d_x[:, ::-1] if go_backwards else d_x}
    for name, d_weight in d_weights.items():
        if weights.get(name) is not None:
            gradients[f"d_{name}"] = d_weight
    for name, d_state in zip(cell.state_names, d_states, strict=True):
        gradients[f"d_{name}0"] = d_state
    return gradients
