"""Convert saved results to the tables of docs/performance.md.

    python benchmarks/report.py results.jsonl
    python benchmarks/report.py results.jsonl --fill docs/performance.md docs/unrolling.md

The first prints tables, the second replaces those of documents. Of repeated measurements the last
one is used. Results measured while other processes used the machine have an asterisk.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

from harness import FIELDS, size_settings

MARKS = "<!-- table: {0} -->", "<!-- end of table: {0} -->"


def read(paths: list[Path]) -> dict[str, list[dict]]:
    """Return the last record of each measurement, by question, in order of appearance."""
    by_question: dict[str, dict] = {}
    for path in paths:
        for line in path.read_text().splitlines():
            record = json.loads(line)
            names = (
                "part",
                "size",
                "side",
                "steps",
                "verbose",
                "optimizer",
                "length",
                "way",
                "form",
                "model",
                "rate",
                "ranks",
            )
            key = [record.get(n) for n in (*names, "vocabulary", "settings", "streams")]
            key.append(sorted(record["sides"]) if "sides" in record else None)
            table = by_question.setdefault(record["question"], {})
            table[json.dumps(key, sort_keys=True)] = record
    return {question: list(found.values()) for question, found in by_question.items()}


def markdown(heads: list[str], rows: list[list]) -> str:
    """Return a Markdown table; all columns except the first are aligned right."""
    lines = [heads, ["---", *["---:"] * (len(heads) - 1)], *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def star(record: dict) -> str:
    return "*" if record["busy"] else ""


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def ratio(found: dict) -> str:
    return f"{found['median']:.2f} ({found['q1']:.2f}-{found['q3']:.2f})"


def milliseconds(found: dict) -> str:
    return f"{number(found['median'])} ({number(found['q1'])}-{number(found['q3'])})"


def compare(records: list[dict]) -> str:
    rows = []
    for record in records:
        s, ours = record["settings"], record["side"]
        extras = [x for x in ("masks", "go_backwards", "predict") if s.get(x)]
        if s["dtype"] != "float32":
            extras.append(s["dtype"])
        usual = size_settings(record["size"])
        extras += [f"{n} {s[n]}" for n in FIELDS if s[n] != usual[n]]
        if "pytorch:1thread" in record["sides"]:
            extras.append("one thread")
        what = ", ".join([record["size"], s["cell"], s["optimizer"], *extras]) + star(record)
        for side, found in record["sides"].items():
            rows.append(
                [
                    what if side == ours else "",
                    side,
                    milliseconds(found["step_ms"]),
                    ratio(found["ratio"]) if "ratio" in found else "",
                    number(found["first_step_ms"] / 1e3),
                ]
            )
    return markdown(["", "system", "step, ms", "first row / system", "first step, s"], rows)


def compare_bfloat16(records: list[dict]) -> str:
    return compare(records)


def roofline(records: list[dict]) -> str:
    """Return the table of steps and ceilings, with a line for each ceiling."""
    rows = []
    for r in records:
        reached = f"{r['least_ms'] / r['step_ms']['median']:.0%}"
        step = milliseconds(r["step_ms"])
        billions, least = f"{r['operations'] / 1e9:.3g}", number(r["least_ms"])
        rows.append([r["size"] + star(r), r["side"], billions, least, step, reached])
    heads = ["size", "system", "operations, 10^9", "at the ceiling, ms", "step, ms", "reached"]
    ceilings = {r["side"]: f"{r['ceiling'] / 1e9:.0f}" for r in records}
    told = ", ".join(f"{n} 10^9 operations a second ({side})" for side, n in ceilings.items())
    return f"{markdown(heads, rows)}\n\nThe ceilings: {told}."


def mixed_precision(records: list[dict]) -> str:
    rows = []
    for r in records:
        for policy, losses in r["losses"].items():
            mean = sum(losses) / len(losses)
            own = f"{r['difference']:.4f}" if policy != "float32" else ""
            spread = f"{min(losses):.4f} to {max(losses):.4f}"
            rows.append([r["size"], r["steps"], policy, f"{mean:.4f}", spread, own])
    heads = [
        "model",
        "steps",
        "policy",
        "mean loss",
        "of all seeds",
        "largest difference of a seed",
    ]
    return markdown(heads, rows)


def compile_time(records: list[dict]) -> str:
    rows = []
    for r in records:
        if r["part"] != "first step":
            continue
        cells = []
        for runs in (r["cold"], r["warm"]):
            good = [f["first_s"] for f in runs if "first_s" in f]
            cells.append(number(min(good)) if good else "not in the time allowed")
        rows.append([r["side"], f"{r['steps']}{star(r)}", *cells])
    text = markdown(["system", "time steps", "first use, s", "second process, s"], rows)
    for r in records:
        if r["part"] == "import":
            seconds = {m: number(found["median"]) for m, found in r["seconds"].items()}
            text += (
                f"\n\n`import pytensor` takes {seconds['pytensor']} s, `import seqnet` "
                f"{seconds['seqnet']} s{star(r)}: "
                f"{number(r['more_than_pytensor_s']['median'])} s more."
            )
    return text


def fit_overhead(records: list[dict]) -> str:
    rows = []
    for r in records:
        for way, found in r["ms"].items():
            over = r["over_bare_percent"].get(way)
            name = f"fit(verbose={r['verbose']})" if way == "fit" else way
            percent = ""
            if over:
                percent = f"{over['median']:.1f} % ({over['q1']:.1f} to {over['q3']:.1f})"
            rows.append([r["size"] + star(r), name, milliseconds(found), percent])
    return markdown(["size", "way", "a batch, ms", "over the bare function"], rows)


def callbacks_cost(records: list[dict]) -> str:
    names = {
        "history": "only the history",
        "bar": "and a progress bar on a terminal",
        "lines": "and progress lines in a log file",
        "all": "and all callbacks that monitor a metric",
    }
    rows = [
        [
            r["size"] + star(r),
            names[way],
            milliseconds(found),
            f"{r['callbacks_percent'][way]['median']:.1f} %",
        ]
        for r in records
        for way, found in r["ms"].items()
    ]
    return markdown(["size", "callbacks", "a batch, ms", "of it in callbacks"], rows)


def ragged(records: list[dict]) -> str:
    rows = []
    for r in records:
        shares = {way: ratio(found) for way, found in r["over_padded"].items()}
        for way, found in r["epoch_s"].items():
            steps = f"{r['steps'][way]:,}"
            rows.append([way + star(r), steps, milliseconds(found), shares.get(way, "")])
    return markdown(["passed as", "steps computed", "an epoch, s", "of the padded"], rows)


def data_beyond_memory(records: list[dict]) -> str:
    rows = []
    for r in records:
        over = r["over_percent"]
        percent = f"{over['median']:.0f} ({over['q1']:.0f} to {over['q3']:.0f})"
        cells = ["" if r["way"] == "array" else percent, number(r["growth_mb"])]
        rows.append([r["way"] + star(r), milliseconds(r["ms"]), *cells])
    heads = ["rows", "a step, ms", "over an array, %", "growth, MB"]
    return markdown(heads, rows)


def embedding_rows(records: list[dict]) -> str:
    rows, counts = [], []
    for r in records:
        if "error" not in r:
            counts = list(r["step_ms"])
            cells = [milliseconds(found) for found in r["step_ms"].values()]
            rows.append([r["side"], r["optimizer"] + star(r), *cells, ratio(r["ratio"])])
    heads = [f"{int(n):,} rows, ms" for n in counts]
    return markdown(["system", "optimizer", *heads, "ratio"], rows)


def memory(records: list[dict]) -> str:
    rows = [
        [f"{r['size']}, length {r['length']:,}", r["side"]]
        + [number(r[key]) for key in ("peak_mb", "after_import_mb", "growth_mb")]
        for r in records
        if "error" not in r
    ]
    return markdown(["size", "system", "peak, MiB", "after the imports", "growth"], rows)


def unroll_vs_scan(records: list[dict]) -> str:
    lengths = sorted({r["length"] for r in records})
    rows = []
    for vocabulary in sorted({r["vocabulary"] for r in records}):
        by_length = {r["length"]: r for r in records if r["vocabulary"] == vocabulary}
        sides = dict.fromkeys(s for r in by_length.values() for s in [*r["sides"], *r["refused"]])
        mark = "*" if any(r["busy"] for r in by_length.values()) else ""
        for side in sides:
            found = [by_length.get(n, {"sides": {}})["sides"].get(side) for n in lengths]
            steps = [number(f["step_ms"]["median"]) if f else "-" for f in found]
            compiling = [number(f["compile_s"]) if f else "-" for f in found]
            rows.append([f"{vocabulary:,}{mark}", side, *steps, *compiling])
    heads = [f"{what}, {n} steps" for what in ("run, ms", "compile, s") for n in lengths]
    return markdown(["vocabulary", "form", *heads], rows)


def unroll_accuracy(records: list[dict]) -> str:
    rows = []
    for r in records:
        for side, error in r["errors"].items():
            differs = f"{r['differ'][side]:.1e}" if side in r["differ"] else ""
            rows.append([f"{r['vocabulary']:,}", side, f"{error:.1e}", differs])
    heads = ["vocabulary", "form", "from float64", "from the first form of the system"]
    return markdown(heads, rows)


def mlp(records: list[dict]) -> str:
    rows = [
        [
            side + star(r),
            milliseconds(found["step_ms"]),
            ratio(found["ratio"]) if found["ratio"] else "",
        ]
        for r in records
        for side, found in r["sides"].items()
    ]
    return markdown(["system", "step, ms", "first row / system"], rows)


def scan_profile(records: list[dict]) -> str:
    rows = []
    for r in records:
        whole = sum(line["ms"] for line in r["lines"])
        for line in r["lines"]:
            if line["ms"] < 0.1 * whole:
                continue
            form = f"{r['vocabulary']:,}, {r['form']}{star(r)}"
            cells = [line[k] for k in ("loop", "operation", "shape", "calls")]
            rows.append([form, *cells, number(line["ms"])])
    return markdown(["vocabulary, form", "loop", "operation", "result", "calls", "ms"], rows)


def generation(records: list[dict]) -> str:
    rows = []
    for r in records:
        s = r["settings"]
        for found in r["per_second"]:
            streams = f"{r['streams']} stream{'s' * (r['streams'] > 1)}"
            what = f"{s['layers']} x {s['units']} {s['cell']}, {streams}{star(r)}"
            how = f"{found['side']}, {found['how']}"
            rows.append([what, how, *[f"{found[k]:,.0f}" for k in ("median", "q1", "q3")]])
    return markdown(["model", "system", "characters a second", "quartile", "quartile"], rows)


def with_peer(records: list[dict], what: str, measured: str) -> str:
    """Return the times of the sides of each case, and seqnet's ratio to its peer."""
    rows = []
    for r in records:
        for side, found in r["ms"].items():
            own = r["ratio_to_peer"] if side.startswith("seqnet") else None
            cells = [milliseconds(found), ratio(own) if own else ""]
            rows.append([r["case"] + star(r), side, *cells])
    return markdown([what, "system", measured, "seqnet / PyTorch"], rows)


def sequence_losses(records: list[dict]) -> str:
    return with_peer(records, "loss", "loss and gradient, ms")


def cells(records: list[dict]) -> str:
    rows = []
    for record in records:
        for name, found in record["cells"].items():
            step, best = milliseconds(found["step_ms"]), number(found["best_ms"])
            compared = "" if found["ratio_to"] == name else found["ratio_to"]
            beside = ratio(found["ratio"]) if compared else ""
            rows.append([f"{name}{star(record)}", step, best, beside, compared])
    heads = ["cell", "training step, ms", "shortest, ms", "ratio", "to"]
    return markdown(heads, rows)


def cells_long(records: list[dict]) -> str:
    rows = []
    for record in records:
        for name, found in record["layers"].items():
            step = milliseconds(found["step_ms"])
            rows.append([f"{name}{star(record)}", step, ratio(found["ratio"])])
    return markdown(["layer", "training step, ms", "layer / minGRU"], rows)


def attention(records: list[dict]) -> str:
    return with_peer(records, "model", "training step, ms")


def machine(by_question: dict[str, list[dict]]) -> str:
    """Return the machines and versions of all records; normally there is one of each."""
    records = [r for found in by_question.values() for r in found]
    machines = {
        f"{r['machine']['cpu']}, {r['machine']['cores']} cores, "
        f"{', '.join(r['machine']['vectors'])}; {r['machine']['system']}"
        for r in records
    }
    versions: dict[str, set] = {}
    of_sides = [side for r in records for side in r.get("sides", {}).values()]
    for side in of_sides:
        for name, version in side.get("versions", {}).items():
            if name not in ("python", "numpy", "threads", "recurrence"):
                versions.setdefault(name, set()).add(str(version))
    dates = sorted({r["when"][:10] for r in records})
    lines = [f"- Machine: {m}" for m in sorted(machines)]
    lines += [f"- {name} {', '.join(sorted(found))}" for name, found in sorted(versions.items())]
    return "\n".join([*lines, f"- Measured: {' to '.join(dict.fromkeys((dates[0], dates[-1])))}"])


TABLES: dict[str, Callable] = {
    f.__name__: f
    for f in (
        compare,
        compare_bfloat16,
        roofline,
        mixed_precision,
        compile_time,
        fit_overhead,
        callbacks_cost,
        ragged,
        data_beyond_memory,
        embedding_rows,
        memory,
        unroll_vs_scan,
        unroll_accuracy,
        scan_profile,
        mlp,
        generation,
        sequence_losses,
        attention,
        cells,
        cells_long,
    )
}


def tables(by_question: dict[str, list[dict]]) -> dict[str, str]:
    found = {"machine": machine(by_question)}
    for name, make in TABLES.items():
        if name in by_question:
            found[name] = f"{make(by_question[name])}\n\n{where(by_question[name])}"
    return found


def where(records: list[dict]) -> str:
    """Return the machine and the day of some records, as the line below their table."""
    machines = sorted({r["machine"]["cpu"] for r in records})
    days = sorted({r["when"][:10] for r in records})
    return f"*{', '.join(machines)}; {' to '.join(dict.fromkeys((days[0], days[-1])))}*"


def fill(text: str, name: str, content: str) -> str | None:
    """Return a document with the content between the markers of a table replaced, or None."""
    begin, end = (mark.format(name) for mark in MARKS)
    pattern = re.compile(re.escape(begin) + ".*?" + re.escape(end), re.DOTALL)
    if not pattern.search(text):
        return None
    return pattern.sub(lambda _: f"{begin}\n\n{content}\n\n{end}", text)


def fill_documents(found: dict[str, str], paths: list[Path]) -> None:
    """Replace each table in the documents that have a place for it.

    The list of machines and versions is replaced where all tables of the document are.
    """
    texts = {path: path.read_text() for path in paths}
    begin = re.escape(MARKS[0]).replace(r"\{0\}", r"(\w+)")
    whole = {path: set(re.findall(begin, text)) <= set(found) for path, text in texts.items()}
    for name, content in found.items():
        if name == "machine":
            texts |= {p: fill(t, name, content) or t for p, t in texts.items() if whole[p]}
            continue
        places = {path: fill(text, name, content) for path, text in texts.items()}
        filled = {path: text for path, text in places.items() if text is not None}
        if not filled:
            lines = "\n".join(mark.format(name) for mark in MARKS)
            sys.exit(f"No document has a place for {name}: it needs the lines\n{lines}")
        texts |= filled
        print(f"{name}: {', '.join(map(str, filled))}")
    for path, text in texts.items():
        path.write_text(text)


def main(arguments=None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("files", nargs="+", type=Path, help="what the benchmarks saved")
    parser.add_argument(
        "--fill", type=Path, nargs="+", metavar="FILE", help="documents to put tables into"
    )
    options = parser.parse_args(arguments)
    found = tables(read(options.files))
    if options.fill is None:
        print("\n\n".join(f"### {name}\n\n{content}" for name, content in found.items()))
        return
    fill_documents(found, options.fill)


if __name__ == "__main__":
    main()
