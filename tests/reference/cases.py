"""The cases in the stored files: sizes, options, inputs, and results of the NumPy reference.

`make_pytorch.py` and `make_keras.py` pass these inputs to PyTorch and Keras. Tests read the stored
inputs (`load_arrays`) and the options of a case::

    for name, case in RECURRENT.items():
        arrays = load_arrays("keras")[name]
        expected = arrays["y"]
        case.cell, case.activation, case.reset_after, case.go_backwards   # how to build the layer

All inputs are float64 arrays of values that are exact in float32.
"""

import dataclasses
import itertools
import zlib

import numpy as np

from . import numpy_layers, numpy_training

SEED = 20260730


@dataclasses.dataclass(frozen=True)
class RecurrentCase:
    """One recurrent layer with its inputs."""

    name: str
    cell: str  # "simple_rnn", "lstm" or "gru"
    activation: str = "tanh"
    reset_after: bool = True  # of the GRU
    batch: int = 2
    time: int = 4
    features: int = 3
    units: int = 2
    mask: str | None = None  # "holes" or "padded" (padding only at the end)
    go_backwards: bool = False
    initial_states: bool = False  # False: zeros, which are also stored
    peers: tuple[str, ...] = ("keras",)  # the files that contain the case

    @property
    def state_names(self):
        return ("h", "c") if self.cell == "lstm" else ("h",)

    def numpy_cell(self):
        if self.cell == "simple_rnn":
            return numpy_layers.SimpleRNNCell(self.activation)
        if self.cell == "lstm":
            return numpy_layers.LSTMCell(self.activation)
        return numpy_layers.GRUCell(self.activation, self.reset_after)

    def inputs(self):
        """Return x, kernel, recurrent_kernel, bias, h0 (and c0), cotangent and, if used, mask."""
        rng = random_generator(self.name)
        cell = self.numpy_cell()
        columns = cell.gates * self.units
        arrays = {
            "x": normal(rng, (self.batch, self.time, self.features)),
            "kernel": normal(rng, (self.features, columns), 0.7),
            "recurrent_kernel": normal(rng, (self.units, columns), 0.7),
            "bias": normal(rng, cell.bias_shape(self.units), 0.5),
        }
        for state in self.state_names:
            start = normal(rng, (self.batch, self.units), 0.8)
            arrays[f"{state}0"] = start if self.initial_states else np.zeros_like(start)
        arrays["cotangent"] = normal(rng, (self.batch, self.time, self.units))
        if self.mask == "holes":
            arrays["mask"] = HOLES
        if self.mask == "padded":
            arrays["mask"] = np.arange(self.time) < np.array([5, 2, 1, 4])[:, None]
            arrays["cotangent"] *= arrays["mask"][
                :, :, None
            ]  # Keras and PyTorch differ in y at padded steps
        return arrays

    def numpy_result(self, arrays):
        """Return y, h_last (and c_last) and the gradients of the NumPy reference."""
        y, states, tape = numpy_layers.recurrent(
            self.numpy_cell(),
            arrays["x"],
            {name: arrays[name] for name in ("kernel", "recurrent_kernel", "bias")},
            states=[arrays[f"{state}0"] for state in self.state_names],
            mask=arrays.get("mask"),
            go_backwards=self.go_backwards,
        )
        result = {"y": y}
        for state, last in zip(self.state_names, states, strict=True):
            result[f"{state}_last"] = last
        return result | numpy_layers.recurrent_backward(tape, d_y=arrays["cotangent"])


# No masked step; masked first, inner and last steps; two masked inner steps; all steps masked.
HOLES = np.array([[1, 1, 1, 1, 1], [0, 1, 0, 1, 0], [1, 0, 0, 1, 1], [0, 0, 0, 0, 0]], dtype=bool)


def _recurrent_cases():
    kinds = {
        "simple_rnn": {"cell": "simple_rnn"},
        "lstm": {"cell": "lstm"},
        "gru": {"cell": "gru"},
    }
    both = {"peers": ("keras", "pytorch")}
    long = {"batch": 4, "time": 5}
    for kind, cell in kinds.items():
        yield RecurrentCase(kind, **cell, **both)
        yield RecurrentCase(f"{kind}_initial_state", **cell, **both, initial_states=True)
        yield RecurrentCase(f"{kind}_padded", **cell, **long, mask="padded", peers=("pytorch",))
    yield RecurrentCase("simple_rnn_relu", "simple_rnn", **both, activation="relu")
    yield RecurrentCase("simple_rnn_linear", "simple_rnn", activation="linear")

    kinds["gru_reset_before"] = {"cell": "gru", "reset_after": False}
    yield RecurrentCase("gru_reset_before", **kinds["gru_reset_before"])
    yield RecurrentCase("lstm_go_backwards", "lstm", go_backwards=True)
    for kind, cell in kinds.items():
        masked = cell | long | {"mask": "holes"}
        given = masked | {"initial_states": True}
        yield RecurrentCase(f"{kind}_masked", **masked)
        yield RecurrentCase(f"{kind}_masked_go_backwards", **given, go_backwards=True)
        if kind in ("lstm", "gru"):
            yield RecurrentCase(f"{kind}_masked_initial_state", **given)

    # Batch, time and units of 1 and 3, as an axis of size one may be squeezed or broadcast.
    for kind in ("simple_rnn", "lstm", "gru"):
        for sizes in itertools.product((1, 3), repeat=3):
            if kind == "lstm" or sizes in ((1, 3, 3), (3, 1, 1)):
                batch, time, units = sizes
                yield RecurrentCase(
                    f"{kind}_{batch}x{time}x{units}",
                    **kinds[kind],
                    batch=batch,
                    time=time,
                    units=units,
                    features=1 if units == 3 else 2,
                    initial_states=True,
                )


RECURRENT = {case.name: case for case in _recurrent_cases()}


# ------------------------------------------------------------------ layers without a state


def layer_inputs():
    """Return the inputs of dense_2d, dense_3d, embedding and softmax_3d, by case."""
    cases = {}
    for name, shape in (("dense_2d", (4, 3)), ("dense_3d", (2, 5, 3))):
        rng = random_generator(name)
        cases[name] = {
            "x": normal(rng, shape),
            "kernel": normal(rng, (3, 2)),
            "bias": normal(rng, (2,)),
            "cotangent": normal(rng, (*shape[:-1], 2)),
        }
    rng = random_generator("embedding")
    cases["embedding"] = {
        "ids": np.array(
            [[0, 3, 3, 1, 0], [4, 4, 4, 0, 3]]
        ),  # 2 is not used; 3, 4 and 0 are repeated
        "embeddings": normal(rng, (5, 3)),
        "cotangent": normal(rng, (2, 5, 3)),
    }
    rng = random_generator("softmax_3d")
    x = normal(rng, (2, 4, 5), 2.0)
    x[0, 0], x[0, 1] = [900.0, 899.0, -900.0, 0.0, 900.0], 0.0
    cases["softmax_3d"] = {"x": x, "cotangent": normal(rng, x.shape)}
    return cases


def layer_numpy_result(name, arrays):
    """Return y and the gradients of a case of `layer_inputs`, from the NumPy reference."""
    d_y = arrays["cotangent"]
    if name.startswith("dense"):
        y = numpy_layers.dense(arrays["x"], arrays["kernel"], arrays["bias"])
        return {"y": y} | numpy_layers.dense_backward(arrays["x"], arrays["kernel"], d_y)
    if name == "embedding":
        y = numpy_layers.embedding(arrays["ids"], arrays["embeddings"])
        return {"y": y} | numpy_layers.embedding_backward(arrays["ids"], arrays["embeddings"], d_y)
    y = numpy_layers.softmax(arrays["x"])
    return {"y": y} | numpy_layers.softmax_backward(y, d_y)


# ------------------------------------------------------------------------------------ losses

LOSSES = (
    "sparse_categorical_crossentropy",
    "categorical_crossentropy",
    "binary_crossentropy",
    "squared_error",
    "absolute_error",
)


def loss_inputs():
    """Return targets, logits, weights and mask by case; ``*_extreme`` cases have huge logits."""
    cases = {}
    for loss in LOSSES:
        for suffix in ("", "_extreme") if "crossentropy" in loss else ("",):
            rng = random_generator(loss + suffix)
            logits = normal(rng, (3, 4, 5), 1.5)
            if suffix:
                logits *= 500.0
            targets = {
                "sparse_categorical_crossentropy": rng.integers(0, 5, (3, 4)),
                "categorical_crossentropy": float32_values(rng.dirichlet(np.ones(5), (3, 4))),
                "binary_crossentropy": rng.integers(0, 2, (3, 4, 5)).astype(float),
            }.get(loss)
            cases[loss + suffix] = {
                "targets": normal(rng, (3, 4, 5)) if targets is None else targets,
                "logits": logits,
                "weights": float32_values(rng.uniform(0.2, 3.0, (3, 4))),
                "mask": np.array([[1, 1, 1, 1], [1, 1, 0, 0], [0, 1, 0, 1]], dtype=bool),
            }
    return cases


def loss_numpy_result(name, arrays):
    """Return losses (a value per step), weighted_mean, and its derivative d_logits."""
    function = getattr(numpy_training, name.removesuffix("_extreme"))
    losses, d_logits = function(arrays["targets"], arrays["logits"])
    by = arrays["weights"], arrays["mask"]
    return {
        "losses": losses,
        "weighted_mean": np.array(numpy_training.weighted_mean(losses, *by)),
        "d_logits": numpy_training.weighted_mean_backward(d_logits, *by),
    }


def masked_loss_inputs():
    """Return the inputs of the case masked_loss; cotangent is the derivative of its losses."""
    rng = random_generator("masked_loss")
    return {
        "predictions": float32_values(rng.dirichlet(np.ones(5), (4, 6))),
        "labels": rng.integers(0, 5, (4, 6)),
        "lengths": np.array([6, 1, 3, 0]),
        "starts": np.array([0, 2, 3, 4]),
        "cotangent": normal(rng, (4,)),
    }


def masked_loss_numpy_result(arrays):
    """Return losses and the derivative d_predictions."""
    inputs = [arrays[name] for name in ("predictions", "labels", "lengths", "starts")]
    return {
        "losses": numpy_training.masked_loss(*inputs),
        "d_predictions": numpy_training.masked_loss_backward(*inputs, arrays["cotangent"]),
    }


# -------------------------------------------------------------------------------- optimizers

# name: (function of numpy_training, hyperparameters under Keras 3's names)
OPTIMIZERS = {
    "sgd": ("sgd", {"learning_rate": 0.1}),
    "sgd_momentum": ("sgd", {"learning_rate": 0.1, "momentum": 0.9}),
    "sgd_nesterov": ("sgd", {"learning_rate": 0.1, "momentum": 0.9, "nesterov": True}),
    "adagrad": (
        "adagrad",
        {"learning_rate": 0.1, "epsilon": 1e-7, "initial_accumulator_value": 0.1},
    ),
    "adagrad_from_zero": (
        "adagrad",
        {"learning_rate": 0.1, "epsilon": 1e-7, "initial_accumulator_value": 0.0},
    ),
    "adagrad_large_epsilon": (
        "adagrad",
        {"learning_rate": 0.1, "epsilon": 0.01, "initial_accumulator_value": 0.0},
    ),
    "adadelta": ("adadelta", {"learning_rate": 1.0, "rho": 0.95, "epsilon": 1e-6}),
    "rmsprop": ("rmsprop", {"learning_rate": 0.01, "rho": 0.9, "epsilon": 1e-7}),
    "rmsprop_large_epsilon": ("rmsprop", {"learning_rate": 0.01, "rho": 0.9, "epsilon": 0.01}),
    "adam": ("adam", {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7}),
    "adam_large_epsilon": (
        "adam",
        {"learning_rate": 0.01, "beta_1": 0.9, "beta_2": 0.999, "epsilon": 0.01},
    ),
}

# PyTorch and Keras add epsilon at different places.
PYTORCH_FORM = {
    "adagrad": {"epsilon_inside_root": False},
    "rmsprop": {"epsilon_inside_root": False},
    "adam": {"epsilon_before_correction": False},
}


def optimizer_inputs():
    """Return parameter ``(2, 3)`` and gradients ``(5, 2, 3)``; one gradient is always 0."""
    rng = random_generator("optimizer")
    gradients = normal(rng, (5, 2, 3))
    gradients[:, 0, 0] = 0.0
    gradients[:2, 1, 1] = 0.0
    return {"parameter": normal(rng, (2, 3)), "gradients": gradients}


def optimizer_numpy_result(name, arrays, peer):
    """Return the parameter after every step, ``(5, 2, 3)``, by the formulas of a peer."""
    function, hyperparameters = OPTIMIZERS[name]
    form = PYTORCH_FORM.get(function, {}) if peer == "pytorch" else {}
    return numpy_training.trajectory(
        getattr(numpy_training, function),
        arrays["parameter"],
        arrays["gradients"],
        **hyperparameters,
        **form,
    )


# Three steps down ||p||^2 / 2 from [1, -2], by theano_lstm's create_optimization_updates run under
# Theano with its defaults. It clips first, and its clipping shrinks every gradient a little:
# g min(5, |g|) / (|g| + 1e-6).
THEANO_LSTM = {
    "sgd": [
        [0.990000004472, -1.980000008944],
        [0.980100008900, -1.960200017799],
        [0.970299013283, -1.940598026565],
    ],
    "adagrad": [
        [0.990000005000, -1.990000001250],
        [0.982964560789, -1.982946678015],
        [0.977237947225, -1.977196512777],
    ],
    "adadelta": [
        [0.995527908766, -1.995527875225],
        [0.991008748152, -1.991003720903],
        [0.986464564894, -1.986447772617],
    ],
}


CLIPPING = {"clip_by_value": 0.5, "clip_by_norm": 1.5, "clip_by_global_norm": 1.5}


def clipping_inputs():
    """Return two gradients: the first exceeds every limit, the second is below the norm's."""
    rng = random_generator("clipping")
    return {"gradient_0": normal(rng, (3, 2), 3.0), "gradient_1": normal(rng, (4,), 0.3)}


def clipping_numpy_result(name, arrays):
    """Return clipped_0 and clipped_1."""
    gradients = [arrays["gradient_0"], arrays["gradient_1"]]
    clipped = getattr(numpy_training, name)(gradients, CLIPPING[name])
    return {f"clipped_{k}": value for k, value in enumerate(clipped)}


# ----------------------------------------------------------------------- for the make scripts


def random_generator(name):
    """Return a random generator seeded by the name of the case."""
    return np.random.default_rng([SEED, zlib.crc32(name.encode())])


def float32_values(array):
    return np.asarray(array).astype(np.float32).astype(np.float64)


def normal(rng, shape, scale=1.0):
    return float32_values(rng.normal(0.0, scale, shape))


class Collector:
    """Collects checked arrays under ``"{case}/{name}"`` and writes them."""

    def __init__(self):
        self.arrays = {}
        self.largest = {}

    def add(self, case, inputs, result, expected, tolerance=1e-10):
        """Store inputs and the peer's result, after comparing it with the NumPy reference."""
        for name, value in result.items():
            value = np.asarray(value)
            if value.dtype != np.float64:
                raise TypeError(f"{case}/{name} was computed as {value.dtype}, not float64.")
            if name in expected:
                np.testing.assert_allclose(
                    value, expected[name], rtol=tolerance, atol=tolerance, err_msg=f"{case}/{name}"
                )
                difference = float(np.abs(value - expected[name]).max(initial=0.0))
                self.largest[name] = max(self.largest.get(name, 0.0), difference)
        for name, value in (inputs | result).items():
            self.arrays[f"{case}/{name}"] = np.asarray(value)

    def write(self, path, versions):
        """Write the file; print the versions and the largest difference from the reference."""
        np.savez_compressed(path, versions=np.array(versions), **self.arrays)
        print(versions)
        cases = {key.partition("/")[0] for key in self.arrays}
        print(f"{path.name}: {len(cases)} cases, {path.stat().st_size} bytes")
        for name, difference in sorted(self.largest.items()):
            print(f"  {name}: at most {difference:.1e} from the NumPy reference")
