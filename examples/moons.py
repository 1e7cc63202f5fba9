"""Separate two moons with a small network, in seqnet and in NumPy, both timed.

    python examples/moons.py --picture moons.png

200 points, two inputs, three units with tanh, a softmax over two classes, and full-batch gradient
descent with a small penalty for large weights, as in "Speeding up your neural network with Theano
and the GPU" (Britz, 2015). Both networks start from the same weights and must agree. The picture
(needs matplotlib) shows the boundary between the classes.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

import seqnet
from seqnet.layers import Dense
from seqnet.regularizers import L2

PENALTY = 0.01  # times half the squared weights, divided by the number of points


def moons(count: int, noise: float, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return points (count, 2) of two half circles that face each other, and their classes."""
    y = np.arange(count) % 2
    angles = rng.uniform(0, np.pi, count)
    circle = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    X = np.where(y[:, None] == 0, circle, [1, 0.5] - circle)
    return (X + rng.normal(0, noise, X.shape)).astype("float32"), y.astype("int32")


def build(units: int, rate: float, points: int) -> seqnet.Model:
    penalty = L2(PENALTY / 2 / points)
    model = seqnet.Model(
        [
            Dense(units, activation="tanh", kernel_regularizer=penalty),
            Dense(2, activation="softmax", kernel_regularizer=penalty),
        ]
    )
    model.compile(seqnet.optimizers.SGD(rate), "sparse_categorical_crossentropy")
    model.build((None, 2))
    return model


def descend(X, y, weights: list[np.ndarray], rate: float, epochs: int) -> float:
    """Train in NumPy, with gradients derived by hand; return the last loss.

    The weights are changed in place.
    """
    W, b, V, c = weights
    rows, rate, penalty = np.arange(len(X)), np.float32(rate), np.float32(PENALTY / len(X))
    loss = np.nan
    for _ in range(epochs):
        h = np.tanh(X @ W + b)
        z = h @ V + c
        z -= z.max(axis=1, keepdims=True)
        p = np.exp(z)
        p /= p.sum(axis=1, keepdims=True)
        loss = -np.log(p[rows, y]).mean() + penalty / 2 * ((W * W).sum() + (V * V).sum())
        p[rows, y] -= 1
        p /= len(X)
        d = (p @ V.T) * (1 - h * h)
        gradients = X.T @ d + penalty * W, d.sum(0), h.T @ p + penalty * V, p.sum(0)
        for weight, gradient in zip(weights, gradients, strict=True):
            weight -= rate * gradient
    return float(loss)


def draw(model, X, y, path: Path) -> None:
    """Draw the points, and the regions where each class is the more probable one."""
    try:
        import matplotlib
    except ImportError:
        print('The picture needs matplotlib: pip install "seqnet[plot]"')
        return
    matplotlib.use("Agg")
    from matplotlib import pyplot

    low, high = X.min(axis=0) - 0.4, X.max(axis=0) + 0.4
    across, up = np.meshgrid(*[np.linspace(a, b, 300) for a, b in zip(low, high, strict=True)])
    grid = np.stack([across.ravel(), up.ravel()], axis=1).astype("float32")
    share = model.predict(grid, batch_size=len(grid))[:, 1].reshape(across.shape)
    figure, axis = pyplot.subplots(figsize=(6, 4))
    axis.contourf(across, up, share, levels=20, cmap="RdBu_r", alpha=0.5)
    axis.contour(across, up, share, levels=[0.5], colors="black", linewidths=1)
    axis.scatter(*X.T, c=y, cmap="RdBu_r", edgecolors="black", linewidths=0.5, s=24)
    axis.set(title="Two moons, and the boundary of a network with 3 units", aspect="equal")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    print(f"The boundary is drawn in {path}.")


def main(arguments=None) -> float:
    parser = argparse.ArgumentParser(
        description="Separate two moons with a small network, in seqnet and in NumPy.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--points", type=int, default=200)
    add("--noise", type=float, default=0.2, help="standard deviation of the points")
    add("--units", type=int, default=3)
    add("--epochs", type=int, default=5000)
    add("--learning-rate", type=float, default=1.0)
    add("--seed", type=int, default=0)
    add("--picture", type=Path, help="draw the boundary into this file")
    options = parser.parse_args(arguments)
    seqnet.set_random_seed(options.seed)
    X, y = moons(options.points, options.noise, np.random.default_rng(options.seed))
    model = build(options.units, options.learning_rate, options.points)
    weights = model.get_weights()
    everything = {"batch_size": len(X), "verbose": 0}
    model.fit(X, y, epochs=1, **everything)  # compiles
    model.set_weights(weights)

    def timed(name, train):
        start = time.perf_counter()
        loss = train()
        each = 1e6 * (time.perf_counter() - start) / options.epochs
        print(f"{name:36} {each:7.0f} microseconds an epoch, loss {loss:.5f}")
        return loss

    start = [w.copy() for w in weights]
    losses = [
        timed(
            "seqnet, fit",
            lambda: model.fit(X, y, epochs=options.epochs, **everything).history["loss"][-1],
        )
    ]
    trained = model.get_weights()
    model.set_weights(start)
    losses.append(
        timed(
            "seqnet, train_on_batch",
            lambda: [model.train_on_batch(X, y) for _ in range(options.epochs)][-1],
        )
    )
    losses.append(
        timed(
            "NumPy, gradients by hand",
            lambda: descend(X, y, start, options.learning_rate, options.epochs),
        )
    )
    assert np.allclose(losses, losses[0], rtol=1e-2), losses
    model.set_weights(trained)
    accuracy = 100 * float((model.predict(X).argmax(axis=1) == y).mean())
    print(f"{accuracy:.1f} % of {len(X)} points are on their side of the boundary.")
    if options.picture:
        draw(model, X, y, options.picture)
    return accuracy


if __name__ == "__main__":
    main()
