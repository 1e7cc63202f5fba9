"""Learn to damp a double pendulum: a network that controls a system, trained through its equations.

The controller is a stack of two LSTMs. It sees the state of the pendulum, and its output is a
torque on the second arm. The next state follows from the equations of motion, so that the whole
loop is one recurrence, and the gradient of the loss flows through the physics. (The README of
theano_lstm describes this system; it does not give the constants.)

    python examples/double_pendulum.py

The state is (angle, speed, angle, speed) of the two arms, the angles from the vertical. A step is
one of Euler's method.

After 10 epochs (seed 1), which took 4 s on two cores after 2 s for compiling, the angles of 200
other pendulums are 0.025 rad from rest in the third second (root mean square), and 0.357 rad
without a torque. double_pendulum.png shows one of them.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import pytensor.tensor as pt

import seqnet
from seqnet.layers import ClosedLoop, Dense, LSTMCell

G = 9.8  # m/s^2
L1, L2 = 1.0, 1.0  # lengths of the arms, m
M1, M2 = 1.0, 1.0  # masses at their ends, kg
DT = 0.02  # s


def parse(arguments=None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Learn to damp a double pendulum.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--steps", type=int, default=150, help="of the loop, 0.02 s each")
    add("--units", type=int, default=20, help="of each of the two LSTMs")
    add("--starts", type=int, default=1024, help="initial states to train on")
    add("--epochs", type=int, default=10)
    add("--batch-size", type=int, default=64)
    add("--learning-rate", type=float, default=0.01)
    add("--unroll", action="store_true", help="unroll the loop instead of a kernel")
    add("--seed", type=int, default=1)
    add("--picture", type=Path, default=Path("double_pendulum.png"), help="angles in time, drawn")
    return parser.parse_args(arguments)


def dynamics(state, torque):
    """Return the next state of pendulums (batch, 4), given the torques (batch, 1)."""
    a, speed_a, b, speed_b = (state[:, k : k + 1] for k in range(4))
    sin, cos = pt.sin(b - a), pt.cos(b - a)
    mass = M1 + M2
    acceleration_a = (
        M2 * L1 * speed_a**2 * sin * cos
        + M2 * G * pt.sin(b) * cos
        + M2 * L2 * speed_b**2 * sin
        - mass * G * pt.sin(a)
    ) / (mass * L1 - M2 * L1 * cos**2)
    acceleration_b = (
        -M2 * L2 * speed_b**2 * sin * cos
        + mass * G * pt.sin(a) * cos
        - mass * L1 * speed_a**2 * sin
        - mass * G * pt.sin(b)
    ) / (mass * L2 - M2 * L2 * cos**2) + torque
    change = pt.concatenate([speed_a, acceleration_a, speed_b, acceleration_b], axis=1)
    return state + DT * change


def controlled(units: int, steps: int, unroll: bool = False) -> seqnet.Model:
    """Return a model from an initial state to the angles after each step."""
    start = seqnet.Input((4,), name="start")
    controller = [
        LSTMCell(units, activation="linear", output_activation="tanh"),
        LSTMCell(units),
        Dense(1),
    ]
    states = ClosedLoop(
        controller, steps, dynamics, return_inputs=True, return_sequences=True, unroll=unroll
    )(start)
    return seqnet.Model(start, states[:, :, ::2])


def free(starts: np.ndarray, steps: int) -> np.ndarray:
    """Return the angles of pendulums without a torque."""
    layer = ClosedLoop(
        [Dense(1, kernel_initializer="zeros")],
        steps,
        dynamics,
        return_inputs=True,
        return_sequences=True,
    )
    return layer(starts)[:, :, ::2]


def draw(angles: dict[str, np.ndarray], path: Path) -> bool:
    """Draw the angles (steps, 2) of each case in time, if matplotlib is installed."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    for axes, (case, values) in zip(
        figure.subplots(len(angles), 1, sharex=True, sharey=True), angles.items(), strict=True
    ):
        seconds = DT * np.arange(1, len(values) + 1)
        axes.plot(seconds, values, label=["first arm", "second arm"])
        axes.set(ylabel="angle, rad", title=case)
        axes.grid(alpha=0.3)
    axes.set(xlabel="seconds")
    axes.legend(loc="upper right")
    figure.savefig(path, dpi=100)
    return True


def main(arguments=None) -> tuple[float, float]:
    options = parse(arguments)
    rng = np.random.default_rng(options.seed)
    starts = rng.uniform(-0.5, 0.5, (options.starts + 200, 4))
    train, test = starts[:-200], starts[-200:]

    seqnet.set_random_seed(options.seed)
    model = controlled(options.units, options.steps, options.unroll)
    optimizer = seqnet.optimizers.Adam(options.learning_rate, global_clipnorm=1.0)
    model.compile(optimizer, "mse")
    rest = np.zeros((len(train), options.steps, 2))
    began = time.perf_counter()
    model.train_on_batch(train[:1], rest[:1])
    print(f"The first update, with compiling, took {time.perf_counter() - began:.1f} s.")
    began = time.perf_counter()
    model.fit(train, rest, batch_size=options.batch_size, epochs=options.epochs, verbose=2)
    print(f"{options.epochs} epochs took {time.perf_counter() - began:.0f} s.")

    angles = {"without a torque": free(test, options.steps), "controlled": model.predict(test)}
    last = slice(-max(1, options.steps // 3), None)
    errors = [float(np.sqrt(np.mean(found[:, last] ** 2))) for found in angles.values()]
    print(
        f"In the last third of {options.steps * DT:.1f} s, the angles of 200 other pendulums are "
        f"{errors[1]:.3f} rad from rest, and {errors[0]:.3f} rad without a torque (root mean "
        "square)."
    )
    if draw({case: found[0] for case, found in angles.items()}, options.picture):
        print(f"The angles of one pendulum are in {options.picture}.")
    else:
        print("There is no picture without matplotlib: pip install matplotlib")
    return errors[0], errors[1]


if __name__ == "__main__":
    main()
