"""Cells in plain NumPy, as a reference for compiled kernels."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt

from seqnet.native import Other


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


# ---- steps for compiled kernels ---------------------------------------------------------
def simple_rnn_step(x, r, states):
    return (pt.tanh(x[0] + r[0]),)


def relu_step(x, r, states):
    return (pt.maximum(x[0] + r[0], 0),)


def lstm_step(x, r, states):
    i, f, c, o = (a + b for a, b in zip(x, r, strict=True))
    memory = pt.sigmoid(f) * states[1] + pt.sigmoid(i) * pt.tanh(c)
    return pt.sigmoid(o) * pt.tanh(memory), memory


def gru_step(x, r, states):
    z, reset = pt.sigmoid(x[0] + r[0]), pt.sigmoid(x[1] + r[1])
    return (z * states[0] + (1 - z) * pt.tanh(x[2] + reset * r[2]),)


def rich_step(x, r, states, others):
    """An LSTM with peepholes, a context, a shift of each step and zoneout."""
    p_i, p_f, p_o, context, shift, _, keep = *others[:5], others[5], others[6]
    i, f, g, o = (a + b for a, b in zip(x, r, strict=True))
    h, c = states
    new = pt.sigmoid(f + p_f * c) * c + pt.sigmoid(i + p_i * c) * pt.tanh(g + context)
    out = pt.sigmoid(o + p_o * new) * pt.tanh(new) + shift
    return keep * h + (1 - keep) * out, new


def rich_operands(states, others):
    """Drop other units for the last gate, and multiply its weights with the cell."""
    return [states[0] * others[5]] * 3 + [states[1]]


def gained_step(x, r, states, others):
    return (pt.tanh(x[0] + r[0] * others[0]),)


def gained_operands(states, others):
    return [pt.tanh(states[0] * others[0] + others[1]) * others[2]]


def normed_step(x, r, states, others):
    """A gate and a candidate whose products are normalised over the units, one within the other."""
    h = states[0]
    a, b = (normalise(v, pt.mean, pt.sqrt) for v in r)
    z = pt.sigmoid(x[0] + a)
    new = z * h + (1 - z) * pt.tanh(x[1] + b * others[0])
    return (normalise(new, pt.mean, pt.sqrt) + others[0],)


def decaying_step(x, r, states, others):
    """Two states that decay, without a product."""
    (h, m), (rate, shift, keep) = states, others
    keep = 0.5 * pt.tanh(keep)
    h = h + pt.sigmoid(x[0] + rate * pt.tanh(m)) * keep * (x[1] - h)
    return h, 0.5 * m + h + shift


def normed_alone_step(x, r, states, others):
    """A normalised state, without a product."""
    return (x[0] + normalise(states[0], pt.mean, pt.sqrt) * others[0],)


def normalise(v, mean, sqrt):
    centred = v - mean(v, axis=-1, keepdims=True)
    return centred / sqrt(mean(centred * centred, axis=-1, keepdims=True) + np.float32(0.1))


# ---- the same in NumPy ------------------------------------------------------------------
# forward(x, r, states) -> (states, tape); backward(tape, d) -> (dx, dr, d_states)
def _simple_rnn(x, r, states):
    h = np.tanh(x[0] + r[0])
    return [h], h


def _simple_rnn_back(h, d):
    da = d[0] * (1 - h * h)
    return [da], [da], [0 * da]


def _relu(x, r, states):
    a = x[0] + r[0]
    return [np.maximum(a, 0)], a


def _relu_back(a, d):
    da = d[0] * (a > 0)
    return [da], [da], [0 * da]


def _lstm(x, r, states):
    i, f, o = (sigmoid(x[g] + r[g]) for g in (0, 1, 3))
    g = np.tanh(x[2] + r[2])
    c = f * states[1] + i * g
    return [o * np.tanh(c), c], (i, f, g, o, c, states[1])


def _lstm_back(tape, d):
    i, f, g, o, c, c_before = tape
    t = np.tanh(c)
    dc = d[1] + d[0] * o * (1 - t * t)
    da = [
        dc * g * i * (1 - i),
        dc * c_before * f * (1 - f),
        dc * i * (1 - g * g),
        d[0] * t * o * (1 - o),
    ]
    return da, da, [0 * dc, dc * f]


def _gru(x, r, states):
    z, q = sigmoid(x[0] + r[0]), sigmoid(x[1] + r[1])
    n = np.tanh(x[2] + q * r[2])
    return [z * states[0] + (1 - z) * n], (z, q, n, r[2], states[0])


def _gru_back(tape, d):
    z, q, n, r2, h = tape
    dn = d[0] * (1 - z) * (1 - n * n)
    dz, dq = d[0] * (h - n) * z * (1 - z), dn * r2 * q * (1 - q)
    return [dz, dq, dn], [dz, dq, dn * q], [d[0] * z]


def _rich(x, r, states, others):
    p_i, p_f, p_o, context, shift, _, keep = others
    h, c = states
    i, f = sigmoid(x[0] + r[0] + p_i * c), sigmoid(x[1] + r[1] + p_f * c)
    g = np.tanh(x[2] + r[2] + context)
    new = f * c + i * g
    o, t = sigmoid(x[3] + r[3] + p_o * new), np.tanh(new)
    return [keep * h + (1 - keep) * (o * t + shift), new], (i, f, g, o, t, new, c, others)


def _rich_back(tape, d):
    i, f, g, o, t, new, c, (p_i, p_f, p_o, _, _, _, keep) = tape
    d_out = d[0] * (1 - keep)
    d_o = d_out * t * o * (1 - o)
    d_new = d[1] + d_out * o * (1 - t * t) + d_o * p_o
    d_i, d_f, d_g = d_new * g * i * (1 - i), d_new * c * f * (1 - f), d_new * i * (1 - g * g)
    da = [d_i, d_f, d_g, d_o]
    d_c = d_new * f + d_i * p_i + d_f * p_f
    return da, da, [d[0] * keep, d_c], [d_i * c, d_f * c, d_o * new, d_g, d_out, None, None]


def _rich_operands(states, others):
    return [states[0] * others[5]] * 3 + [states[1]]


def _rich_operands_back(states, others, d):
    return [(d[0] + d[1] + d[2]) * others[5], d[3]], [None] * 7


def _gained(x, r, states, others):
    h = np.tanh(x[0] + r[0] * others[0])
    return [h], (h, r[0], others[0])


def _gained_back(tape, d):
    h, r, gain = tape
    da = d[0] * (1 - h * h)
    return [da], [da * gain], [0 * da], [da * r, 0 * da, None]


def _gained_operands(states, others):
    return [np.tanh(states[0] * others[0] + others[1]) * others[2]]


def _gained_operands_back(states, others, d):
    t = np.tanh(states[0] * others[0] + others[1])
    da = d[0] * others[2] * (1 - t * t)
    return [da * others[0]], [da * states[0], da, None]


def _normed(x, r, states, others):
    (h,), (a, b) = states, (normalise(v, np.mean, np.sqrt) for v in r)
    z, g = sigmoid(x[0] + a), np.tanh(x[1] + b * others[0])
    new = z * h + (1 - z) * g
    return [normalise(new, np.mean, np.sqrt) + others[0]], (z, g, a, b, h, new, r, others[0])


def _normalise_back(v, n, d):
    """Return the gradient of v, given n = normalise(v) and its gradient."""
    centred = v - v.mean(-1, keepdims=True)
    size = np.sqrt((centred * centred).mean(-1, keepdims=True) + np.float32(0.1))
    return (d - d.mean(-1, keepdims=True) - n * (d * n).mean(-1, keepdims=True)) / size


def _normed_back(tape, d):
    z, g, a, b, h, new, r, gain = tape
    d_new = _normalise_back(new, normalise(new, np.mean, np.sqrt), d[0])
    d_z, d_g = d_new * (h - g) * z * (1 - z), d_new * (1 - z) * (1 - g * g)
    dr = [_normalise_back(r[0], a, d_z), _normalise_back(r[1], b, d_g * gain)]
    return [d_z, d_g], dr, [d_new * z], [d_g * b + d[0]]


def _normed_operands(states, others):
    return [states[0]] * 2


def _normed_operands_back(states, others, d):
    return [d[0] + d[1]], [None]


def _decaying(x, r, states, others):
    (h, m), (rate, shift, keep) = states, others
    t, keep = np.tanh(m), 0.5 * np.tanh(keep)
    z = sigmoid(x[0] + rate * t)
    new = h + z * keep * (x[1] - h)
    return [new, 0.5 * m + new + shift], (z, x[1] - h, t, rate, keep)


def _decaying_back(tape, d):
    z, difference, t, rate, keep = tape
    d_new = d[0] + d[1]
    da = d_new * keep * difference * z * (1 - z)
    dx = [da, d_new * z * keep]
    d_before = [d_new * (1 - z * keep), 0.5 * d[1] + da * rate * (1 - t * t)]
    return dx, [0 * da] * 2, d_before, [da * t, d[1], None]


def _normed_alone(x, r, states, others):
    h = states[0]
    normed = normalise(h, np.mean, np.sqrt)
    return [x[0] + normed * others[0]], (h, normed, others[0])


def _normed_alone_back(tape, d):
    h, normed, gain = tape
    return [d[0]], [0 * d[0]], [_normalise_back(h, normed, d[0] * gain)], [d[0] * normed]


def _no_operands(states, others):
    return [states[0]] * 2


def _no_operands_back(states, others, d):
    return [0 * s for s in states], [None] * len(others)


# Cells with other arrays: (their kinds, operands for the compiled kernel, operands in NumPy, and
# their gradients: of the states and of the other arrays)
OTHERS = {
    "rich": (
        [
            *[Other("vector")] * 3,
            Other("batch"),
            Other("sequence"),
            Other("batch", False),
            Other("sequence", False),
        ],
        rich_operands,
        _rich_operands,
        _rich_operands_back,
    ),
    "gained": (
        [Other("vector"), Other("batch"), Other("sequence", False)],
        gained_operands,
        _gained_operands,
        _gained_operands_back,
    ),
    "normed": ([Other("vector")], None, _normed_operands, _normed_operands_back),
    "decaying": (
        [Other("vector"), Other("sequence"), Other("batch", False)],
        None,
        _no_operands,
        _no_operands_back,
    ),
    "normed_alone": (
        [Other("vector")],
        None,
        lambda states, others: [states[0]],
        _no_operands_back,
    ),
}

PROGRAMS = {"normed", "normed_alone"}
"""Cells with sums over the units, which only the kernel of any step has."""

# name: (step for the compiled kernel, gates, states, forward in NumPy, backward in NumPy)
CELLS = {
    "simple_rnn": (simple_rnn_step, 1, 1, _simple_rnn, _simple_rnn_back),
    "relu": (relu_step, 1, 1, _relu, _relu_back),
    "lstm": (lstm_step, 4, 2, _lstm, _lstm_back),
    "gru": (gru_step, 3, 1, _gru, _gru_back),
    "rich": (rich_step, 4, 2, _rich, _rich_back),
    "gained": (gained_step, 1, 1, _gained, _gained_back),
    "normed": (normed_step, 2, 1, _normed, _normed_back),
    "decaying": (decaying_step, 2, 2, _decaying, _decaying_back),
    "normed_alone": (normed_alone_step, 1, 1, _normed_alone, _normed_alone_back),
}


def recurrence(name, projected, kernel, bias, initial, mask, others=()):
    """Return all states after each step, and a tape for `recurrence_gradients`."""
    _, gates, _, forward, _ = CELLS[name]
    states, sequences, tape = list(initial), [], []
    kernels = np.split(kernel, gates, -1)
    biases = np.split(np.zeros(kernel.shape[1]) if bias is None else bias, gates)
    for t in range(len(projected)):
        now = others_at(name, others, t)
        operands = [states[0]] * gates
        if name in OTHERS:
            operands = OTHERS[name][2](states, now)
        r = [o @ k + b for o, k, b in zip(operands, kernels, biases, strict=True)]
        more = (now,) if name in OTHERS else ()
        new, record = forward(np.split(projected[t], gates, -1), r, states, *more)
        tape.append((record, states, operands, now))
        if mask is not None:
            new = [np.where(mask[t][:, None], n, s) for n, s in zip(new, states, strict=True)]
        states = new
        sequences.append(states)
    return [np.array([s[k] for s in sequences]) for k in range(len(initial))], tape


def others_at(name, others, t):
    """Return the values of the other arrays at a step."""
    kinds = OTHERS[name][0] if others else ()
    return [a[t] if k.kind == "sequence" else a for a, k in zip(others, kinds, strict=True)]


def recurrence_gradients(name, tape, kernel, grads, final, mask, others=()):
    """Return the gradients of projected, recurrent kernel, bias, initial states and others."""
    _, gates, _, _, backward = CELLS[name]
    d = [f.copy() for f in final]
    kernels = np.split(kernel, gates, -1)
    d_kernels, d_bias = [np.zeros_like(k) for k in kernels], np.zeros(kernel.shape[1])
    d_others, d_projected = [np.zeros(a.shape) for a in others], []
    for t in reversed(range(len(tape))):
        record, before, operands, now = tape[t]
        d = [a + g[t] for a, g in zip(d, grads, strict=True)]
        on = np.ones((len(d[0]), 1), bool) if mask is None else mask[t][:, None]
        dx, dr, d_before, *of_others = backward(record, d)
        dx, dr = np.where(on, np.concatenate(dx, -1), 0), [np.where(on, a, 0) for a in dr]
        d = [np.where(on, new, old) for new, old in zip(d_before, d, strict=True)]
        d_operands = [a @ k.T for a, k in zip(dr, kernels, strict=True)]
        if name in OTHERS:
            add_to(d_others, [None if a is None else np.where(on, a, 0) for a in of_others[0]], t)
            of_states, of_others = OTHERS[name][3](before, now, d_operands)
            add_to(d_others, of_others, t)
            d = [a + b for a, b in zip(d, of_states, strict=True)]
        else:
            d[0] = d[0] + sum(d_operands)
        for total, operand, a in zip(d_kernels, operands, dr, strict=True):
            total += operand.T @ a
        d_bias += np.concatenate(dr, -1).sum(0)
        d_projected.append(dx)
    return np.array(d_projected[::-1]), np.concatenate(d_kernels, -1), d_bias, d, d_others


def add_to(totals, gradients, t):
    """Add the gradients of the other arrays at a step, (batch, units) each."""
    for total, gradient in zip(totals, gradients, strict=True):
        if gradient is None:
            continue
        if total.ndim == 3:
            total[t] += gradient
        else:
            total += gradient if total.ndim == 2 else gradient.sum(0)
