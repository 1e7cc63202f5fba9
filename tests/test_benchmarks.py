"""The benchmarks that need only seqnet run with small settings."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
SMALL = {
    "callbacks_cost": "--batches 4 --rounds 2",
    "compare": "--sizes small --peer seqnet:numpy --rounds 2 --steps 3",
    "data_beyond_memory": "--size small --gigabytes 0.001 --batches 3 --rounds 2",
    "embedding_rows": "--sides seqnet --optimizers adadelta --rows 100,2000 --rounds 2 --steps 3",
    "fit_overhead": "--sizes small --batches 4 --rounds 2",
    "attention": "--cases small --sides seqnet:attention --rounds 2 --steps 2",
    "sequence_losses": "--cases crf-tags,ctc-characters --sides seqnet:losses --rounds 2 --steps 2",
    "memory": "--sides seqnet --size small --lengths 10 --steps 2 --predicted 600",
    "unroll_vs_scan": "--vocabularies 20 --lengths 3 --rounds 1 --sides "
    "seqnet:tutorial-fused,seqnet:tutorial-scan,numpy:tutorial",
    "mlp": "--sides seqnet:mlp,numpy:mlp --rounds 2 --steps 2",
    "roofline": "--sizes small --rounds 2 --steps 2",
    "mixed_precision": "--kinds characters --seeds 2 --steps 2",
    "ragged": "--sequences 40 --longest 12 --units 4 --rounds 2",
}


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    return tmp_path_factory.mktemp("benchmarks") / "results.jsonl"


def run_small(name, results):
    command = [sys.executable, str(FOLDER / f"{name}.py"), *SMALL[name].split()]
    command += ["--wait", "0", "--save", str(results)]
    found = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert found.returncode == 0, found.stderr
    return found


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_benchmarks_save_their_printed_results(name, results):
    found = run_small(name, results)
    records = [json.loads(line) for line in found.stdout.splitlines()]
    assert {r["question"] for r in records} == {name}
    assert results.read_text().endswith(found.stdout)


@pytest.mark.slow
def test_tables_are_generated_from_saved_results(results):
    command = [sys.executable, str(FOLDER / "report.py"), str(results)]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    for name in SMALL:
        assert f"### {name}\n\n|" in found.stdout


@pytest.mark.optional("matplotlib")
def test_charts_are_drawn_from_saved_results(tmp_path):
    results = tmp_path / "results.jsonl"
    for name in ("compare", "unroll_vs_scan"):
        run_small(name, results)
        picture = tmp_path / f"{name}.png"
        command = [sys.executable, str(FOLDER / "chart.py"), str(results), str(picture)]
        found = subprocess.run([*command, "--of", name], capture_output=True, text=True)
        assert found.returncode == 0, found.stderr
        assert picture.stat().st_size > 1000
