"""Compute the stored cases with PyTorch, in float64, and write pytorch.npz.

The stored file was made, in the folder tests, by ::

    python -m pip install torch==2.13.0 numpy==2.4.6
    python -m reference.make_pytorch

with Python 3.11.7, torch 2.13.0+cpu and NumPy 2.4.6 on a CPU.

Weights are stored in Keras's layout: kernels transposed, the GRU's columns reordered from PyTorch's
r, z, n to z, r, h, and the two biases of RNN and LSTM combined (PyTorch's second is zero).
"""

import json
import platform
from pathlib import Path

import numpy as np
import torch

from . import cases

torch.manual_seed(0)
torch.set_default_dtype(torch.float64)
GATES = {
    "simple_rnn": [0],
    "lstm": [0, 1, 2, 3],
    "gru": [1, 0, 2],
}  # the block of Keras for each block of PyTorch


def reorder(array, order):
    """Reorder the blocks of the last axis; these orders are their own inverses."""
    blocks = np.split(array, len(order), axis=-1)
    return np.concatenate([blocks[k] for k in order], axis=-1)


def variable(array):
    return torch.tensor(array, requires_grad=True)


def recurrent(case, arrays):
    order = GATES[case.cell]
    options = {"batch_first": True}
    if case.cell == "simple_rnn":
        options["nonlinearity"] = case.activation
    module_class = {"simple_rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}
    module = module_class[case.cell](case.features, case.units, **options)
    bias = arrays["bias"] if case.cell == "gru" else np.stack([arrays["bias"], 0 * arrays["bias"]])
    with torch.no_grad():
        module.weight_ih_l0.copy_(torch.tensor(reorder(arrays["kernel"], order).T))
        module.weight_hh_l0.copy_(torch.tensor(reorder(arrays["recurrent_kernel"], order).T))
        module.bias_ih_l0.copy_(torch.tensor(reorder(bias[0], order)))
        module.bias_hh_l0.copy_(torch.tensor(reorder(bias[1], order)))

    x = variable(arrays["x"])
    start = {state: variable(arrays[f"{state}0"]) for state in case.state_names}
    states = tuple(value[None] for value in start.values())
    states = states if len(states) == 2 else states[0]
    if case.mask == "padded":
        lengths = arrays["mask"].sum(axis=1)
        packed = torch.nn.utils.rnn.pack_padded_sequence(
            x, torch.tensor(lengths), batch_first=True, enforce_sorted=False
        )
        packed_y, last = module(packed, states)
        y, _ = torch.nn.utils.rnn.pad_packed_sequence(
            packed_y, batch_first=True, total_length=case.time
        )
    else:
        y, last = module(x, states)
    (y * torch.tensor(arrays["cotangent"])).sum().backward()

    last = last if isinstance(last, tuple) else (last,)
    result = {"y": y.detach().numpy()}
    for state, value in zip(case.state_names, last, strict=True):
        result[f"{state}_last"] = value[0].detach().numpy()
    d_bias = reorder(module.bias_ih_l0.grad.numpy(), order)
    if case.cell == "gru":
        d_bias = np.stack([d_bias, reorder(module.bias_hh_l0.grad.numpy(), order)])
    result |= {
        "d_x": x.grad.numpy(),
        "d_kernel": reorder(module.weight_ih_l0.grad.numpy().T, order),
        "d_recurrent_kernel": reorder(module.weight_hh_l0.grad.numpy().T, order),
        "d_bias": d_bias,
    }
    for state, value in start.items():
        result[f"d_{state}0"] = value.grad.numpy()
    return result


def layer(name, arrays):
    leaves = {key: variable(arrays[key]) for key in arrays if key not in ("ids", "cotangent")}
    if name.startswith("dense"):
        y = torch.nn.functional.linear(leaves["x"], leaves["kernel"].T, leaves["bias"])
    elif name == "embedding":
        y = torch.nn.functional.embedding(torch.tensor(arrays["ids"]), leaves["embeddings"])
    else:
        y = torch.softmax(leaves["x"], dim=-1)
    (y * torch.tensor(arrays["cotangent"])).sum().backward()
    return {"y": y.detach().numpy()} | {f"d_{key}": v.grad.numpy() for key, v in leaves.items()}


def loss(name, arrays):
    functional = torch.nn.functional
    logits = variable(arrays["logits"])
    targets = torch.tensor(arrays["targets"])
    if "categorical" in name:
        by_class = targets if targets.ndim == 2 else targets.movedim(-1, 1)
        losses = functional.cross_entropy(logits.movedim(-1, 1), by_class, reduction="none")
    else:
        function = {
            "binary_crossentropy": functional.binary_cross_entropy_with_logits,
            "squared_error": functional.mse_loss,
            "absolute_error": functional.l1_loss,
        }[name.removesuffix("_extreme")]
        losses = function(logits, targets, reduction="none").mean(dim=-1)
    weights = torch.tensor(arrays["weights"] * arrays["mask"])
    mean = (losses * weights).sum() / weights.sum()
    mean.backward()
    if name == "sparse_categorical_crossentropy":  # ignore_index is the masked mean
        ignoring = targets.where(torch.tensor(arrays["mask"]), -100)
        ignored = functional.cross_entropy(logits.movedim(-1, 1), ignoring)
        kept = losses.detach().numpy()[arrays["mask"]]
        np.testing.assert_allclose(ignored.item(), kept.mean(), rtol=1e-12)
    return {
        "losses": losses.detach().numpy(),
        "weighted_mean": mean.detach().numpy(),
        "d_logits": logits.grad.numpy(),
    }


def masked_loss(arrays):
    predictions = variable(arrays["predictions"])
    batch, time = arrays["labels"].shape
    rows, steps = torch.arange(batch)[:, None], torch.arange(time)
    starts = torch.tensor(arrays["starts"])[:, None]
    inside = (steps >= starts) & (steps < starts + torch.tensor(arrays["lengths"])[:, None])
    chosen = predictions[rows, steps, torch.tensor(arrays["labels"])]
    losses = -(torch.log(chosen) * inside).sum(dim=1)
    (losses * torch.tensor(arrays["cotangent"])).sum().backward()
    return {"losses": losses.detach().numpy(), "d_predictions": predictions.grad.numpy()}


def trajectory(name, arrays):
    function, hyper = cases.OPTIMIZERS[name]
    parameter = variable(arrays["parameter"])
    rate = {"lr": hyper["learning_rate"]}
    if function == "sgd":
        options = {key: hyper[key] for key in ("momentum", "nesterov") if key in hyper}
        optimizer = torch.optim.SGD([parameter], **rate, **options)
    elif function == "adagrad":
        start = hyper["initial_accumulator_value"]
        optimizer = torch.optim.Adagrad(
            [parameter], **rate, eps=hyper["epsilon"], initial_accumulator_value=start
        )
    elif function == "adadelta":
        optimizer = torch.optim.Adadelta(
            [parameter], **rate, rho=hyper["rho"], eps=hyper["epsilon"]
        )
    elif function == "rmsprop":
        optimizer = torch.optim.RMSprop(
            [parameter], **rate, alpha=hyper["rho"], eps=hyper["epsilon"]
        )
    else:
        betas = (hyper["beta_1"], hyper["beta_2"])
        optimizer = torch.optim.Adam([parameter], **rate, betas=betas, eps=hyper["epsilon"])
    visited = []
    for gradient in arrays["gradients"]:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        visited.append(parameter.detach().numpy().copy())
    return np.stack(visited)


def clip(name, arrays):
    parameters = []
    for key in ("gradient_0", "gradient_1"):
        parameter = variable(np.zeros_like(arrays[key]))
        parameter.grad = torch.tensor(arrays[key])
        parameters.append(parameter)
    limit = cases.CLIPPING[name]
    if name == "clip_by_value":
        torch.nn.utils.clip_grad_value_(parameters, limit)
    else:
        torch.nn.utils.clip_grad_norm_(parameters, limit)
    return {f"clipped_{k}": p.grad.numpy() for k, p in enumerate(parameters)}


def main():
    collector = cases.Collector()
    for case in cases.RECURRENT.values():
        if "pytorch" in case.peers:
            arrays = case.inputs()
            expected = case.numpy_result(arrays)
            if case.mask:  # PyTorch returns zeros at padded steps
                expected["y"] = expected["y"] * arrays["mask"][:, :, None]
            collector.add(case.name, arrays, recurrent(case, arrays), expected)
    for name, arrays in cases.layer_inputs().items():
        collector.add(name, arrays, layer(name, arrays), cases.layer_numpy_result(name, arrays))
    for name, arrays in cases.loss_inputs().items():
        collector.add(name, arrays, loss(name, arrays), cases.loss_numpy_result(name, arrays))
    arrays = cases.masked_loss_inputs()
    expected = cases.masked_loss_numpy_result(arrays)
    collector.add("masked_loss", arrays, masked_loss(arrays), expected)
    for name, (_, hyper) in cases.OPTIMIZERS.items():
        arrays = cases.optimizer_inputs()
        expected = cases.optimizer_numpy_result(name, arrays, "pytorch")
        arrays["hyperparameters"] = np.array(json.dumps(hyper))
        result = {"trajectory": trajectory(name, arrays)}
        collector.add(f"optimizer_{name}", arrays, result, {"trajectory": expected})
    for name in ("clip_by_value", "clip_by_global_norm"):
        arrays = cases.clipping_inputs() | {"limit": np.array(cases.CLIPPING[name])}
        # clip_grad_norm_ divides by norm + 1e-6: about 1e-7 off.
        tolerance = 1e-10 if name == "clip_by_value" else 1e-6
        collector.add(
            name, arrays, clip(name, arrays), cases.clipping_numpy_result(name, arrays), tolerance
        )
    versions = f"python {platform.python_version()}, torch {torch.__version__}, "
    collector.write(Path(__file__).with_name("pytorch.npz"), versions + f"numpy {np.__version__}")


if __name__ == "__main__":
    main()
