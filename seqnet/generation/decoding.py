"""Decoding with encoder-decoder models: greedy, by beam search, or by sampling."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from seqnet.common.checks import check_count, check_number
from seqnet.common.types import Array, Tensor
from seqnet.data.dataset import Data
from seqnet.generation.sampling import check_sampling, sample
from seqnet.generation.splitting import Kind
from seqnet.generation.stepping import Source, SteppedModel, inputs_with_steps, not_built
from seqnet.losses.logits import log_probabilities, softmax_logits

if TYPE_CHECKING:
    from seqnet.model import Model


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """A sequence that a `Decoder` has found.

    Attributes
    ----------
    tokens : int array (steps,)
        The sequence, without the start and the stop token.
    log_probabilities : float array (steps,) or (steps + 1,)
        The logarithm of the probability of each token given those before it; with that of the stop
        token at the end, if `finished`.
    finished : bool
        Whether it ended with the stop token, and not at the maximum length.
    score : float
        What beam search ranks by: `log_probability` divided by the length penalty.

    Examples
    --------
    >>> import numpy as np
    >>> from seqnet.generation import Hypothesis
    >>> found = Hypothesis(np.array([4, 2]), np.log([0.5, 0.5]), False, np.log(0.25))
    >>> round(float(np.exp(found.log_probability)), 6)
    0.25
    """

    tokens: np.ndarray
    log_probabilities: np.ndarray
    finished: bool
    score: float

    @property
    def log_probability(self) -> float:
        """The logarithm of the probability of the sequence, in nats."""
        return float(self.log_probabilities.sum())


@dataclass
class Paths:
    """Hypotheses that still grow, some for each source.

    Attributes
    ----------
    tokens : int array (sources, width, steps)
    log_p : float array (sources, width, steps)
    total : float array (sources, width)
        The sum of `log_p`; minus infinity for a place without a hypothesis.
    """

    tokens: np.ndarray
    log_p: np.ndarray
    total: np.ndarray

    @classmethod
    def start(cls, sources: int, width: int) -> Paths:
        """Return one empty hypothesis for each source."""
        total = np.full((sources, width), -np.inf)
        total[:, 0] = 0
        return cls(np.zeros((sources, width, 0), "int32"), np.zeros((sources, width, 0)), total)

    def take(self, sources: np.ndarray) -> Paths:
        """Return those of some sources."""
        return Paths(self.tokens[sources], self.log_p[sources], self.total[sources])

    def grown(self, parents: np.ndarray, tokens: np.ndarray, log_p: np.ndarray) -> Paths:
        """Return hypotheses with one more token each, (sources, width)."""
        rows = np.arange(len(parents))[:, None]
        return Paths(
            np.concatenate([self.tokens[rows, parents], tokens[..., None]], axis=2),
            np.concatenate([self.log_p[rows, parents], log_p[..., None]], axis=2),
            self.total[rows, parents] + log_p,
        )


class Decoder:
    """Find output sequences with a model that was trained by teacher forcing.

    The model predicts each token of a target from a source and the tokens before it: one of its
    inputs is the target, one step later than its output. A decoder divides the graph of the model
    at this input. What does not depend on it, such as an encoder, is computed once for each source;
    all else is run one step at a time, with the states of recurrent layers carried from step to
    step. The weights are those of the model, also if it is trained further.

    Parameters
    ----------
    model : Model
        A built model with at least two inputs. Its target input holds whole numbers ``(batch,
        time)``, or one-hot vectors ``(batch, time, classes)``; its output is ``(batch, time,
        classes)``, or ``(batch, classes)`` for the token after the last one.
    start : int
        The token that a target begins with.
    stop : int, optional
        The token that ends a target. Without one, all sequences have the maximum length.
    decoder_input : str, optional
        The name of the target input; by default the last of those that have steps.
    output : str, optional
        The name of the output; by default the first one.
    from_logits : bool
        Whether the output holds logits and not probabilities. A softmax is recognised by itself.

    Raises
    ------
    ValueError
        If a part of the model needs the whole target, such as a `Bidirectional` layer, a pooling
        over its steps, or attention to it. The message names the layer.

    Examples
    --------
    >>> import numpy as np, seqnet
    >>> from seqnet.layers import GRU, Dense, Embedding
    >>> source = seqnet.Input((None,), name="source")
    >>> target = seqnet.Input((None,), name="target")
    >>> encoded = GRU(8)(Embedding(10, 4)(source))
    >>> steps = GRU(8, return_sequences=True)(Embedding(6, 4)(target), initial_state=encoded)
    >>> model = seqnet.Model([source, target], Dense(6, activation="softmax")(steps))
    >>> decoder = seqnet.generation.Decoder(model, start=1, stop=2)
    >>> found = decoder.greedy([[3, 4, 5], [7, 8]], max_length=9)      # a list of Hypothesis
    >>> len(found), max(len(h.tokens) for h in found) <= 9
    (2, True)
    >>> best, second = decoder.beam_search([[3, 4, 5]], beam_width=2, max_length=9)[0]
    >>> best.score >= second.score
    True
    """

    def __init__(
        self,
        model: Model,
        *,
        start: int,
        stop: int | None = None,
        decoder_input: str | None = None,
        output: str | None = None,
        from_logits: bool = False,
    ):
        if not model.built or model.input_shape is None:
            raise not_built()
        self.model, self.from_logits = model, from_logits
        self.input = self.chosen(decoder_input, inputs_with_steps(model.input_specs)[-1], "input")
        self.output = self.chosen(output, model.output_names[0], "output")
        if len(model.input_names) == 1:
            raise ValueError(
                "A Decoder needs a model with another input than the target: use "
                "Model.generate for a model of one input."
            )
        self.stepped = SteppedModel(model, [self.input], [self.output], self.finish)
        if self.stepped.split.kinds[0] is Kind.ONCE:
            raise ValueError(
                f"The output {self.output!r} does not depend on the input {self.input!r}, so there "
                "is nothing to decode."
            )
        features = model.output_features
        self.classes = features[self.output] if isinstance(features, dict) else features
        self.start = self.checked_token(start, "start")
        self.stop = None if stop is None else self.checked_token(stop, "stop")
        spec = model.input_specs[self.input]
        self.one_hot = spec.rank == 3
        if spec.rank not in (2, 3) or (self.one_hot and spec.shape[-1] != self.classes):  # type: ignore[index]
            raise ValueError(
                f"The input {self.input!r} must hold tokens (batch, time), or one-hot vectors "
                f"(batch, time, {self.classes}), as many as the output has classes; its shape is "
                f"{spec.shape}."
            )

    def chosen(self, name: str | None, default: str, what: str) -> str:
        """Return the name of an input or output, or raise."""
        names = getattr(self.model, f"{what}_names")
        if name is not None and name not in names:
            raise ValueError(f"The model has no {what} {name!r}; it has {', '.join(names)}.")
        return default if name is None else name

    def checked_token(self, token: int, name: str) -> int:
        """Return a token, or raise if it is no class of the output."""
        if check_count(token, name, 0) >= self.classes:
            raise ValueError(f"{name} is one of the tokens 0 to {self.classes - 1}, got {token}.")
        return int(token)

    def finish(self, output: Tensor) -> Tensor:
        """Return the log probabilities of an output."""
        self.from_probabilities = not self.from_logits and softmax_logits(output) is None
        return log_probabilities(output, self.from_logits)

    # ---- searching

    def greedy(
        self,
        source: Data,
        max_length: int = 100,
        *,
        batch_size: int = 32,
        mask: Data | None = None,
        lengths: Data | None = None,
    ) -> list[Hypothesis]:
        """Return for each source the sequence of tokens that are each the most probable one.

        Parameters
        ----------
        source : array or list of sequences, or a dictionary of them by name
            All inputs but the target, as for `Model.predict`.
        max_length : int
            The maximum number of tokens, the stop token included.
        batch_size : int
            The number of sources that are decoded at a time.
        mask, lengths
            Which steps of the source are data; see `Model.predict`.
        """
        found = self.beam_search(
            source, 1, max_length, batch_size=batch_size, mask=mask, lengths=lengths
        )
        return [hypotheses[0] for hypotheses in found]

    def beam_search(
        self,
        source: Data,
        beam_width: int = 5,
        max_length: int = 100,
        *,
        length_penalty: float = 0.0,
        batch_size: int = 32,
        mask: Data | None = None,
        lengths: Data | None = None,
    ) -> list[list[Hypothesis]]:
        """Return for each source the best sequences found, at most `beam_width`, the best first.

        At each step the most probable continuations of the hypotheses are kept, as many as
        `beam_width` less the number of hypotheses that have ended (Sutskever, Vinyals and Le,
        "Sequence to sequence learning with neural networks", 2014). A beam width of 1 is greedy
        search.

        Parameters
        ----------
        source, max_length, batch_size, mask, lengths
            See `greedy`.
        beam_width : int
            The number of hypotheses that are kept for each source.
        length_penalty : float
            The exponent `a` in ``score = log_probability / ((5 + steps) / 6) ** a``, where the stop
            token is a step (Wu et al., "Google's neural machine translation system", 2016). 0
            ranks by probability, which prefers short sequences; larger values prefer longer ones.
        """
        width = check_count(beam_width, "beam_width")
        power = check_number(length_penalty, "length_penalty")
        limit = check_count(max_length, "max_length")
        search = partial(self.search, width=width, limit=limit, power=power)
        return self.over_batches(search, source, batch_size, mask, lengths)

    def sample(
        self,
        source: Data,
        max_length: int = 100,
        *,
        temperature: float = 1.0,
        top_k: int | None = None,
        top_p: float | None = None,
        seed: int | None = None,
        batch_size: int = 32,
        mask: Data | None = None,
        lengths: Data | None = None,
    ) -> list[Hypothesis]:
        """Return for each source a sequence of tokens that are drawn from their probabilities.

        Parameters
        ----------
        source, max_length, batch_size, mask, lengths
            See `greedy`.
        temperature, top_k, top_p
            See `seqnet.generation.sample`. The log probabilities in the result are those of the
            model, whatever these are.
        seed : int, optional
            A source's sequence depends on the seed and its place in the data, and not on the batch
            around it.
        """
        check_sampling(temperature, top_k, top_p)
        limit = check_count(max_length, "max_length")
        entropy = None if seed is None else check_count(seed, "seed", 0)
        seeds = np.random.SeedSequence(entropy)
        draw = partial(sample, temperature=temperature, top_k=top_k, top_p=top_p)
        found = self.over_batches(
            partial(self.draw, seeds=seeds, draw=draw, limit=limit),
            source,
            batch_size,
            mask,
            lengths,
        )
        return [hypotheses[0] for hypotheses in found]

    def over_batches(
        self, search: Callable, source: Data, batch_size: int, mask: Any, lengths: Any
    ) -> list[list[Hypothesis]]:
        """Return what a search finds for each source, in the order of the sources."""
        found: dict[int, list[Hypothesis]] = {}
        batch_size = check_count(batch_size, "batch_size")
        for places, encoded in self.stepped.sources(source, batch_size, mask, lengths):
            found.update(zip(places.tolist(), search(places, encoded), strict=True))
        return [found[place] for place in sorted(found)]

    def steps(self, source: Source, width: int, rows: int) -> Generator[np.ndarray, tuple, None]:
        """Yield the log probabilities of the next tokens; is sent which rows go on, with what.

        Yields ``(sources, width, classes)``. Is sent a triple: the sources that are kept, their
        parents ``(sources, width)`` and their last tokens ``(sources, width)``.
        """
        kept = np.arange(rows)
        states = [np.repeat(state, width, axis=0) for state in source.states]
        tokens = np.full((rows, width), self.start, "int32")
        arrays = source.take(np.repeat(kept, width))
        while True:
            flat = tokens.reshape(-1)
            value: Array = np.eye(self.classes, dtype="float32")[flat] if self.one_hot else flat
            (log_p,), states = self.stepped.step([value], source.types, arrays, states)
            self.check(log_p)
            going, parents, tokens = yield log_p.reshape(len(kept), width, self.classes)
            if len(going) < len(kept):
                kept = kept[going]
                arrays = source.take(np.repeat(kept, width))
            chosen = (going[:, None] * width + parents).reshape(-1)
            if not np.array_equal(chosen, np.arange(len(flat))):
                states = [state[chosen] for state in states]

    def check(self, log_p: np.ndarray) -> None:
        """Raise if an output is not a distribution."""
        if np.isnan(log_p).any():
            raise FloatingPointError("The probabilities of the next token are not numbers (NaN).")
        sums = np.exp(log_p, dtype="float64").sum(axis=-1) if self.from_probabilities else 1.0
        if np.any(np.abs(sums - 1) > 0.01):
            raise ValueError(
                f"The output {self.output!r} does not hold probabilities: they add up to "
                f"{np.max(sums):.4g}. End the model with a softmax, or pass from_logits=True."
            )

    def search(
        self, places: np.ndarray, source: Source, width: int, limit: int, power: float
    ) -> list[list[Hypothesis]]:
        """Return the hypotheses that beam search finds for a batch of sources."""
        found: list[list[Hypothesis]] = [[] for _ in places]
        paths, sources = Paths.start(len(places), width), np.arange(len(places))
        steps = self.steps(source, width, len(places))
        log_p = next(steps)
        for length in range(1, limit + 1):
            free = np.array([width - len(found[k]) for k in sources])
            parents, tokens, gains = best(paths.total, log_p, free)
            paths = paths.grown(parents, tokens, gains)
            ended = np.isfinite(paths.total)
            if length < limit:
                ended &= False if self.stop is None else tokens == self.stop
            for row, k in np.argwhere(ended):
                hypothesis = self.hypothesis(paths.tokens[row, k], paths.log_p[row, k], power)
                found[sources[row]].append(hypothesis)
            paths.total[ended] = -np.inf
            going = np.flatnonzero(np.isfinite(paths.total).any(axis=1))
            if not len(going):
                break
            log_p = steps.send((going, parents[going], tokens[going]))
            paths, sources = paths.take(going), sources[going]
        steps.close()
        return [sorted(some, key=lambda h: -h.score) for some in found]

    def draw(
        self, places: np.ndarray, source: Source, seeds: Any, draw: Callable, limit: int
    ) -> list[list[Hypothesis]]:
        """Return a sequence that is drawn for each of a batch of sources."""
        rngs = [
            np.random.default_rng(np.random.SeedSequence(seeds.entropy, spawn_key=(int(place),)))
            for place in places
        ]
        found: list[list[Hypothesis]] = [[] for _ in places]
        paths, sources = Paths.start(len(places), 1), np.arange(len(places))
        steps = self.steps(source, 1, len(places))
        log_p = next(steps)
        for length in range(1, limit + 1):
            drawn = [
                draw(normalised(p), rngs[k]) for p, k in zip(log_p[:, 0], sources, strict=True)
            ]
            tokens, parents = np.array(drawn, "int32")[:, None], np.zeros((len(drawn), 1), int)
            gains = np.take_along_axis(log_p[:, 0], tokens, axis=1)
            paths = paths.grown(parents, tokens, gains)
            ended = (tokens == self.stop)[:, 0] | (length == limit)
            for row in np.flatnonzero(ended):
                hypothesis = self.hypothesis(paths.tokens[row, 0], paths.log_p[row, 0], 0.0)
                found[sources[row]].append(hypothesis)
            going = np.flatnonzero(~ended)
            if not len(going):
                break
            log_p = steps.send((going, parents[going], tokens[going]))
            paths, sources = paths.take(going), sources[going]
        steps.close()
        return found

    def hypothesis(self, tokens: np.ndarray, log_p: np.ndarray, power: float) -> Hypothesis:
        """Return a hypothesis from its tokens, the stop token among them if there is one."""
        finished = self.stop is not None and int(tokens[-1]) == self.stop
        score = float(log_p.sum()) / ((5 + len(tokens)) / 6) ** power
        return Hypothesis(tokens[: len(tokens) - finished].copy(), log_p.copy(), finished, score)


def normalised(log_p: np.ndarray) -> np.ndarray:
    """Return float64 probabilities that add up to 1."""
    p = np.exp(log_p.astype("float64"))
    return p / p.sum()


def best(total: np.ndarray, log_p: np.ndarray, free: np.ndarray) -> tuple:
    """Return the most probable continuations of hypotheses.

    Parameters
    ----------
    total : float array (sources, width)
        The log probabilities of the hypotheses, minus infinity where there is none.
    log_p : float array (sources, width, classes)
        Those of the next tokens.
    free : int array (sources,)
        How many continuations are kept.

    Returns
    -------
    parents, tokens, log_p : arrays (sources, width)
        The best first. What is not kept has a log probability of minus infinity. Of equal ones,
        the first hypothesis and the lowest token come first.
    """
    sources, width, classes = log_p.shape
    scores = (total[..., None] + log_p).reshape(sources, -1)
    count = min(width, scores.shape[1])
    if count < scores.shape[1]:
        near = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        near.sort(axis=1)
    else:
        near = np.broadcast_to(np.arange(count), (sources, count))
    order = np.argsort(-np.take_along_axis(scores, near, axis=1), axis=1, kind="stable")
    chosen = np.take_along_axis(near, order, axis=1)
    parents, tokens = np.divmod(chosen, classes)
    gains = np.take_along_axis(log_p.reshape(sources, -1), chosen, axis=1).astype("float64")
    gains[np.arange(count)[None] >= free[:, None]] = -np.inf
    if count < width:
        missing = ((0, 0), (0, width - count))
        parents, tokens = np.pad(parents, missing), np.pad(tokens, missing)
        gains = np.pad(gains, missing, constant_values=-np.inf)
    return parents, tokens.astype("int32"), gains
