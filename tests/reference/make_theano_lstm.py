"""Make theano_lstm.npz: stacks, gates and updates of theano_lstm 0.0.15 on Theano 1.0.5.

Runs under Python 3.7 in an environment with both packages, in float64:

    THEANO_FLAGS=floatX=float64 python tests/reference/make_theano_lstm.py
"""

from pathlib import Path

import numpy as np
import theano
import theano.tensor as tt
import theano_lstm

assert theano.config.floatX == "float64"
rng = np.random.RandomState(0)
x = rng.normal(size=(2, 4))
found = {"x": x}
variable = tt.matrix()


def store(name, layers):
    """Store the weights of layers, drawn larger than theano_lstm's own."""
    for k, layer in enumerate(layers):
        for n, p in enumerate(layer.params):
            p.set_value(rng.normal(size=p.get_value().shape))
            found[f"{name}/{k}/{n}"] = p.get_value()


for name, celltype in (("rnn", theano_lstm.RNN), ("lstm", theano_lstm.LSTM)):
    stack = theano_lstm.StackedCells(4, celltype=celltype, layers=[5, 3], activation=tt.tanh)
    stack.layers.append(theano_lstm.Layer(3, 2, lambda z: tt.nnet.softmax(z)))
    stack.layers[2].activation = tt.nnet.sigmoid
    store(name, stack.layers)
    sizes = [layer.initial_hidden_state.get_value().size for layer in stack.layers[:2]]
    states = [rng.normal(size=(2, size)) for size in sizes]
    masks = [rng.randint(0, 2, size).astype("float64") for size in (4, 5, 3)]
    given = [tt.matrix() for _ in states]
    for key, dropout in (("outputs", []), ("dropped", masks)):
        outputs = stack.forward(variable, [*given, None], dropout)
        values = theano.function([variable, *given], outputs)(x, *states)
        found.update({f"{name}/{key}/{k}": v for k, v in enumerate(values)})
    found.update({f"{name}/state/{k}": v for k, v in enumerate(states)})
    found.update({f"{name}/mask/{k}": v for k, v in enumerate(masks)})

gated = theano_lstm.GatedInput(4, 3, tt.tanh)
store("gated", [gated])
h = rng.normal(size=(2, 3))
of_h = tt.matrix()
gate = gated.activate(variable, of_h)
passed = gated.postprocess_activation(gate, variable, of_h)
values = theano.function([variable, of_h], [gate, passed])(x, h)
found.update({"gated/h": h, "gated/gate": values[0], "gated/passed": values[1]})

start = {"w": rng.normal(size=(2, 3)), "b": 9 * rng.normal(size=3)}  # b exceeds the norm
found.update({f"updates/{name}": value for name, value in start.items()})
for method in ("sgd", "adagrad", "adadelta"):
    params = [theano.shared(value) for value in start.values()]
    cost = 0.5 * sum(tt.sum(p**2) for p in params)
    updates, _, _, lr, max_norm = theano_lstm.create_optimization_updates(
        cost, params, method=method, lr=0.1
    )
    step = theano.function([], cost, updates=updates)
    for k in range(4):
        if k == 2:
            lr.set_value(0.5)
            max_norm.set_value(2.0)
        step()
        for name, p in zip(start, params):  # noqa: B905 (Python 3.7)
            found[f"updates/{method}/{k}/{name}"] = p.get_value()
np.savez(str(Path(__file__).with_name("theano_lstm.npz")), **found)
