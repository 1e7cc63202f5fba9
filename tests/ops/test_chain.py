"""Linear chains: values, gradients, marginals and best paths against a sum over all paths."""

import itertools

import numpy as np
import pytensor
import pytensor.tensor as pt
import pytest

import seqnet
from seqnet import backend
from seqnet.ops.chain import ChainBestPath, ChainGradient, ChainLogSum, ChainMarginals

SHAPES = [(5, 4, 3), (1, 1, 1), (2, 1, 3), (1, 4, 1)]


def paths_of(scores, transitions, start, end):
    """Return the score of each path of one sequence."""
    return {
        path: start[path[0]]
        + end[path[-1]]
        + sum(scores[t, k] for t, k in enumerate(path))
        + sum(transitions[pair] for pair in itertools.pairwise(path))
        for path in itertools.product(range(scores.shape[1]), repeat=len(scores))
    }


def enumerated(scores, mask, weights, tags=None):
    """Return values, marginals, best paths and the gradients of the sum of weighted values."""
    batch = len(scores)
    values, marginals, best = np.zeros(batch), np.zeros(scores.shape), np.zeros(scores.shape)
    gradients = [np.zeros(scores.shape), *[np.zeros(w.shape) for w in weights]]
    for b in range(batch):
        steps, factor = np.flatnonzero(mask[b]), b + 1
        if not len(steps):
            continue
        paths = paths_of(scores[b, steps].astype("float64"), *weights)
        total = np.logaddexp.reduce(list(paths.values()))
        shares = {path: np.exp(score - total) for path, score in paths.items()}
        values[b] = total
        if tags is not None:
            target = tuple(tags[b, steps])
            values[b] -= paths[target]
            shares = {path: p - (path == target) for path, p in shares.items()}
        for path, share in shares.items():
            gradients[0][b, steps, path] += factor * share
            marginals[b, steps, path] += share
            for pair in itertools.pairwise(path):
                gradients[1][pair] += factor * share
            gradients[2][path[0]] += factor * share
            gradients[3][path[-1]] += factor * share
        best[b, steps, max(paths, key=paths.get)] = 1
    return values, marginals, best, gradients


def data_of(shape, dtype):
    batch, time, classes = shape
    rng = np.random.default_rng(0)
    scores = (2 * rng.normal(size=shape)).astype(dtype)
    weights = [rng.normal(size=s).astype(dtype) for s in ((classes, classes), classes, classes)]
    mask = rng.random((batch, time)) < 0.6
    mask[0] = True
    mask[1:2] = False  # a sequence without any step
    tags = rng.integers(0, classes, (batch, time)).astype("int32")
    return scores, mask, weights, np.where(mask, tags, -7)


@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        ("auto", "float32"),
        ("auto", "float64"),
        ("numpy", "float64"),
        pytest.param("numpy", "float32", marks=pytest.mark.slow),
    ],
)
def test_values_and_gradients_are_sums_over_all_paths(how, dtype):
    """Masks have holes; masked scores are NaN, and masked tags are no classes."""
    seqnet.config.set_backend(how)
    given = [pt.tensor3(dtype=dtype), pt.matrix(dtype="bool"), pt.matrix(dtype=dtype)]
    given += [pt.vector(dtype=dtype), pt.vector(dtype=dtype)]
    tags = pt.imatrix()
    outputs = [ChainMarginals()(*given), ChainBestPath()(*given)]
    for more in ([], [tags]):
        value = ChainLogSum()(*given, *more)
        factors = pt.cast(pt.arange(1, value.shape[0] + 1), dtype)
        floats = [given[k] for k in (0, 2, 3, 4)]
        outputs += [value, *pytensor.grad(pt.sum(value * factors), floats)]
    function = backend.compile([*given, tags], outputs, name="chain")
    close = {"atol": 1e-10} if dtype == "float64" else {"atol": 5e-5}
    for shape in SHAPES:
        scores, mask, weights, y = data_of(shape, dtype)
        scores = np.where(mask[..., None], scores, np.nan).astype(dtype)
        found = function(scores, mask, *weights, y)
        _, marginals, best, _ = enumerated(scores, mask, weights)
        np.testing.assert_allclose(found[0], marginals, **close)
        np.testing.assert_array_equal(found[1], best)
        for at, target in ((2, None), (7, y)):
            values, _, _, gradients = enumerated(scores, mask, weights, target)
            np.testing.assert_allclose(found[at], values, **close)
            for name, one, other in zip("stbe", found[at + 1 :], gradients, strict=False):
                np.testing.assert_allclose(one, other, **close, err_msg=name)


@pytest.mark.parametrize("dtype", ["float32", pytest.param("float64", marks=pytest.mark.slow)])
def test_kernels_are_the_graphs_at_sizes_around_vectors(dtype):
    """And with one thread as with several: time-major memory, many classes, rows of groups."""
    given = [pt.tensor3(dtype=dtype), pt.matrix(dtype="bool"), pt.matrix(dtype=dtype)]
    given += [pt.vector(dtype=dtype), pt.vector(dtype=dtype), pt.imatrix()]
    _, mask, transitions, _, end, tags = given
    value, log_p = ChainLogSum().make_node(*given).outputs
    gradient = pt.cast(pt.arange(1, value.shape[0] + 1), dtype)
    found = ChainGradient()(log_p, mask, transitions, end, gradient, tags)
    outputs = [value, *found, ChainBestPath()(*given[:5])]
    functions = []
    for how in ("numpy", "auto"):
        seqnet.config.set_backend(how)
        functions.append(backend.compile(given, outputs, name="chain"))
    close = {"rtol": 1e-9, "atol": 1e-10} if dtype == "float64" else {"rtol": 1e-3, "atol": 1e-4}
    for classes in (2, 7, 8, 9, 15, 16, 17, 33):
        scores, mask, weights, tags = data_of((20, 6, classes), dtype)
        scores = np.ascontiguousarray(scores.transpose(1, 0, 2)).transpose(1, 0, 2)
        graph, kernel = [f(scores, mask, *weights, tags) for f in functions]
        for one, other in zip(graph, kernel, strict=True):
            np.testing.assert_allclose(one, other, **close)


@pytest.mark.parametrize("how", ["auto", "numpy"])
def test_long_sequences_lose_no_digits(how):
    """Of 3,000 steps, each path has the same probability; targets that are sure have loss 0."""
    seqnet.config.set_backend(how)
    given = [pt.ftensor3(), pt.matrix(dtype="bool"), pt.fmatrix(), pt.fvector(), pt.fvector()]
    tags = pt.imatrix()
    value = ChainLogSum()(*given, tags)
    function = backend.compile(
        [*given, tags], [value, pytensor.grad(value.sum(), given[0])], name=""
    )
    time, classes = 3000, 4
    mask = np.ones((2, time), bool)
    y = np.random.default_rng(0).integers(0, classes, (2, time)).astype("int32")
    scores = np.zeros((2, time, classes), "float32")
    scores[1] = 60 * np.eye(classes)[y[1]] - 200  # the shift changes nothing
    zeros = np.zeros(classes, "float32")
    value, gradient = function(
        scores, mask, np.zeros((classes, classes), "float32"), zeros, zeros, y
    )
    np.testing.assert_allclose(value, [time * np.log(classes), 0], rtol=1e-6, atol=1e-12)
    np.testing.assert_allclose(gradient[1], 0, atol=1e-12)
    np.testing.assert_allclose(gradient[0], 0.25 - np.eye(classes)[y[0]], atol=1e-5)


@pytest.mark.parametrize("how", ["auto", "numpy"])
def test_tags_that_are_no_classes_are_errors(how):
    seqnet.config.set_backend(how)
    scores, mask, weights, tags = data_of((2, 3, 3), "float64")
    given = [pt.as_tensor_variable(x) for x in (scores, mask, *weights)]
    tag = pt.imatrix()
    function = backend.compile([tag], [ChainLogSum()(*given, tag)], name="chain")
    tags[0, 1] = 3
    with pytest.raises(IndexError):
        function(tags)


@pytest.mark.slow
@pytest.mark.parametrize("what", ["sum", "marginals"])
def test_gradients_of_gradients(what):
    """They are those of the graph that defines the Op."""
    scores, mask, weights, tags = data_of((2, 3, 2), "float64")
    mask[1, 1:] = True

    def function(*variables):
        inputs = [variables[0], pt.as_tensor_variable(mask), *variables[1:]]
        if what == "marginals":
            return ChainMarginals()(*inputs)
        cost = pt.sum(ChainLogSum()(*inputs, pt.as_tensor_variable(np.maximum(tags, 0))))
        return pytensor.grad(cost, variables[0])

    pytensor.gradient.verify_grad(
        function, [scores, *weights], rng=np.random.default_rng(0), mode=backend.mode()
    )
