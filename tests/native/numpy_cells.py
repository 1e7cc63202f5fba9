"""Cells in plain NumPy, as a reference for compiled kernels."""

from __future__ import annotations

import numpy as np
import pytensor.tensor as pt


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


# ---- the same steps in NumPy ------------------------------------------------------------------
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


# name: (step for the compiled kernel, gates, states, forward in NumPy, backward in NumPy)
CELLS = {
    "simple_rnn": (simple_rnn_step, 1, 1, _simple_rnn, _simple_rnn_back),
    "relu": (relu_step, 1, 1, _relu, _relu_back),
    "lstm": (lstm_step, 4, 2, _lstm, _lstm_back),
    "gru": (gru_step, 3, 1, _gru, _gru_back),
}


def recurrence(name, projected, kernel, bias, initial, mask):
    """Return all states after each step, and a tape for `recurrence_gradients`."""
    _, gates, _, forward, _ = CELLS[name]
    states, sequences, tape = list(initial), [], []
    for t in range(len(projected)):
        r = states[0] @ kernel + (0 if bias is None else bias)
        new, record = forward(np.split(projected[t], gates, -1), np.split(r, gates, -1), states)
        tape.append((record, states))
        if mask is not None:
            new = [np.where(mask[t][:, None], n, s) for n, s in zip(new, states, strict=True)]
        states = new
        sequences.append(states)
    return [np.array([s[k] for s in sequences]) for k in range(len(initial))], tape


def recurrence_gradients(name, tape, kernel, grads, final, mask):
    """Return the gradients of projected, recurrent kernel, bias and initial states."""
    backward = CELLS[name][4]
    d = [f.copy() for f in final]
    d_kernel, d_bias, d_projected = np.zeros_like(kernel), np.zeros(kernel.shape[1]), []
    for t in reversed(range(len(tape))):
        record, before = tape[t]
        d = [a + g[t] for a, g in zip(d, grads, strict=True)]
        dx, dr, d_before = backward(record, d)
        dx, dr = np.concatenate(dx, -1), np.concatenate(dr, -1)
        on = np.ones(len(dx), bool) if mask is None else mask[t]
        dx, dr = np.where(on[:, None], dx, 0), np.where(on[:, None], dr, 0)
        d = [np.where(on[:, None], new, old) for new, old in zip(d_before, d, strict=True)]
        d[0] = d[0] + dr @ kernel.T
        d_kernel += before[0].T @ dr
        d_bias += dr.sum(0)
        d_projected.append(dx)
    return np.array(d_projected[::-1]), d_kernel, d_bias, d
