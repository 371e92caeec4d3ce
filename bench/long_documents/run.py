"""Hierarchical encoders against a flat one on long film reviews: python bench/long_documents/run.py.

Every encoder has the same width, number of blocks, length, epochs and data, and is trained in a process of its own,
whose peak of resident memory is read when it ends. $ENCODERY_DATA names the folder that holds movie_reviews/. Writes
bench/long_documents/RESULTS.md; --quick tries everything in a few minutes and writes nothing.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

TABLE = Path(__file__).parent / "RESULTS.md"
LENGTHS = (512, 1024, 2048, 4096, 8192)
ENCODERS = {
    "flat": {"depth": 4},
    "han": {"kind": "hierarchical", "style": "han", "depth": 3, "segment_depth": 1, "segment": 128},
    "han, recurrent": {
        "kind": "hierarchical", "style": "han", "depth": 3, "segment_depth": 1, "segment": 128,
        "words": "recurrent", "segments": "recurrent",
    },
    "hat": {"kind": "hierarchical", "style": "hat", "depth": 3, "cross_every": 2, "segment": 128},
}  # fmt: skip
COLUMNS = (
    "encoder", "parameters", "accuracy", "against flat", "peak MB, training", "peak MB, use", "tokens/s", "minutes",
)  # fmt: skip
SHARED = {"width": 128, "max_length": 2048, "drop_rate": 0.2}
BLOCKS = {
    "flat": "4 blocks over the whole document",
    "han": "3 blocks inside segments of 128, attention pooling, 1 block over segments",
    "han, recurrent": "3 bi-GRU layers inside segments of 128, attention pooling, 1 over segments",
    "hat": "3 blocks inside segments of 128, 1 over their first vectors after the second",
}


def encoder_of(name: str) -> dict[str, Any]:
    recurrent = ENCODERS[name].get("words") == "recurrent"
    return {**ENCODERS[name], **SHARED, **({} if recurrent else {"heads": 2})}


def recipe(name: str, folder: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """Of one encoder. The rows of dev.jsonl are tested on as well: nothing is chosen by them here."""
    data = Path(os.environ["ENCODERY_DATA"]) / "movie_reviews"
    steps = {"batch_tokens": 4096, "validations": 4}
    made: dict[str, Any] = {
        "name": "long_documents",
        "seed": asked.seed,
        "output": str(folder),
        "cache": str(folder.parent / "cache"),
        "data": {
            "train": str(data / "train.jsonl"),
            "test": [str(data / "dev.jsonl"), str(data / "test.jsonl")],
            "label": "label",
            "long": "cut",
        },
        "tokenizer": {"kind": "wordpiece", "vocab_size": 8000},
        "encoder": encoder_of(name),
        "objective": {"kind": "classify", "drop_rate": 0.2},
        "training": {"budget": asked.finetune, "optim": {"lr": 1e-3, "schedule": "linear", "warmup": 0.1}, **steps},
        "evaluation": {"compare": []},
    }
    if asked.pretrain:
        made["pretrain"] = {"training": {"budget": asked.pretrain, "optim": {"kind": "muon"}, **steps}}
    return made


def in_own_process(command: list[str], threads: int) -> tuple[float, str]:
    """Run a command; its peak of resident memory in MB, and what it printed."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryFile() as out:
        process = subprocess.Popen(command, stdout=out, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        printed = out.read().decode()
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}\n{printed}")
    return usage.ru_maxrss / 1024, printed


def speed(folder: Path) -> float:
    """Tokens per second of the training steps, without validation: the median over the journal's rows."""
    lines = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    steps = [(row["tokens"], row["seconds"]) for row in lines if row["kind"] == "step"]
    rates = [(b[0] - a[0]) / (b[1] - a[1]) for a, b in pairwise(steps) if b[1] > a[1]]
    return statistics.median(rates) if rates else steps[-1][0] / steps[-1][1]


def mean_tokens(record: dict[str, Any]) -> float:
    """Tokens of a test row, as the model sees it."""
    facts = record["data_facts"]["splits"]["test"]
    return facts["tokens"] / facts["rows"]


def train(name: str, work: Path, asked: argparse.Namespace) -> dict[str, Any]:
    """One encoder through its recipe: its figures, and which test rows it gets right."""
    folder = work / name.replace(", ", "-") / "run"
    folder.parent.mkdir(parents=True)
    file = folder.parent / "recipe.json"
    file.write_text(json.dumps(recipe(name, folder, asked)), encoding="utf-8")
    begin = time.time()
    peak, _ = in_own_process([sys.executable, "-m", "encodery", "train", str(file)], asked.threads)
    minutes = (time.time() - begin) / 60
    peaked, printed = in_own_process([sys.executable, __file__, "--answer", str(folder)], asked.threads)
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    found = {
        "accuracy": record["metrics"]["accuracy"],
        "parameters": record["parameters"],
        "peak": peak,
        "peak_in_use": peaked,
        "speed": speed(folder),
        "minutes": minutes,
        "tokens": mean_tokens(record),
        "right": json.loads(printed.splitlines()[-1]),
        "hardware": record["hardware"],
        "versions": record["versions"],
    }
    print(name, {key: found[key] for key in ("accuracy", "peak", "speed", "minutes")}, flush=True)
    return found


def rows_of(*names: str) -> tuple[list[str], list[str]]:
    data = Path(os.environ["ENCODERY_DATA"]) / "movie_reviews"
    rows = [json.loads(line) for name in names for line in (data / name).read_text(encoding="utf-8").splitlines()]
    return [row["text"] for row in rows], [str(row["label"]) for row in rows]


def answer(folder: str) -> None:
    """In a process of its own: which test rows a trained model gets right, as JSON."""
    import encodery

    texts, labels = rows_of("dev.jsonl", "test.jsonl")
    given = [answer["label"] for answer in encodery.load(folder).predict(texts)]
    print(json.dumps([one == other for one, other in zip(given, labels)]))


def tfidf() -> tuple[list[bool], str]:
    """TF-IDF with logistic regression on all training rows: which test rows it gets right."""
    from encodery.evaluation.baselines import tfidf_logistic

    texts, labels = rows_of("train.jsonl")
    tested, truth = rows_of("dev.jsonl", "test.jsonl")
    baseline = tfidf_logistic(texts, labels, tested)
    return [baseline.labels[number] == label for number, label in zip(baseline.predicted, truth)], baseline.name


def measure(name: str, length: int) -> None:
    """In a process of its own: training steps on one document of `length` tokens, as JSON. What the tokens are makes
    no difference to the work."""
    import torch

    from encodery.batch import Batch, layout_of
    from encodery.bricks.memory import keep_memory
    from encodery.model import Model, ModelConfig

    keep_memory()
    config = {
        "frontend": {"vocab_size": 8000},
        "encoder": {**encoder_of(name), "max_length": length},
        "readout": {"kind": "document", "outputs": 2},
    }
    model = Model(ModelConfig.model_validate(config)).initialise(0).train()
    ids = torch.randint(5, 8000, (length,), generator=torch.Generator().manual_seed(0))
    seconds = []
    for _ in range(4):
        values = {"ids": ids, "segment": torch.zeros_like(ids)}
        begin = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16):
            logits = model(Batch(values, layout_of([[length]], length))).logits
        logits.square().sum().backward()
        model.zero_grad()
        seconds.append(time.perf_counter() - begin)
    print(json.dumps(length / statistics.median(seconds[1:])))


def by_length(asked: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Peak memory and tokens per second of a training step at each length."""
    found: dict[str, list[tuple[float, float]]] = {}
    for name in asked.encoders:
        found[name] = []
        for length in asked.lengths:
            command = [sys.executable, __file__, "--measure", name, str(length)]
            peak, printed = in_own_process(command, asked.threads)
            found[name].append((peak, float(printed.splitlines()[-1])))
        print(name, found[name], flush=True)
    return found


def percent(metric: dict[str, float]) -> str:
    return f"{100 * metric['value']:.1f} ({100 * metric['low']:.1f} to {100 * metric['high']:.1f})"


def table(
    found: dict[str, dict[str, Any]],
    baseline: tuple[list[bool], str],
    lengths: dict[str, list[tuple[float, float]]],
    asked: argparse.Namespace,
) -> str:
    from encodery.evaluation.intervals import from_resamples, paired_difference, resampled_sums

    right, title = np.array(baseline[0], dtype=float), baseline[1]
    sums, _ = resampled_sums(right[:, None], np.random.default_rng(0), 1000)
    own = from_resamples(sums[:, 0] / len(right)).to_dict()
    first = next(iter(found.values()))
    sizes = [f"{length:,}" for length in asked.lengths]
    flat = found.get("flat")

    def against_flat(rows: list[bool] | np.ndarray) -> str:
        if flat is None or rows is flat["right"]:
            return ""
        gain = paired_difference(np.array(rows), np.array(flat["right"]), np.random.default_rng(0)).to_dict()
        return f"{100 * gain['value']:+.1f} ({100 * gain['low']:+.1f} to {100 * gain['high']:+.1f})"

    lines = [
        f"| {title} | | {percent(own)} | {against_flat(right)} | | | | |",
        *(
            f"| {name} | {row['parameters']:,} | {percent(row['accuracy'])} | "
            f"{against_flat(row['right'])} | {row['peak']:,.0f} | "
            f"{row['peak_in_use']:,.0f} | {row['speed']:,.0f} | {row['minutes']:.1f} |"
            for name, row in found.items()
        ),
    ]
    cells = [
        f"| {name} | " + " | ".join(f"{peak:,.0f} MB, {rate:,.0f}" for peak, rate in row) + " |"
        for name, row in lengths.items()
    ]
    hardware, versions = first["hardware"], first["versions"]
    made = f"{hardware['cpu']}, {asked.threads} threads, " + ", ".join(
        f"{name} {one}" for name, one in versions.items()
    )
    stages = f"trained for {asked.finetune}"
    if asked.pretrain:
        stages = f"pretrained on the training texts for {asked.pretrain} and then {stages}"
    text = [
        "# Long documents: hierarchical encoders against a flat one",
        f"Made by `{asked.command}` on {time.strftime('%Y-%m-%d')}: {made}.",
        f"Film reviews (movie_reviews, Pang and Lee 2004): {len(right)} test rows of {first['tokens']:,.0f} tokens on "
        f"average, at most {SHARED['max_length']:,}; the rest of a longer one is cut off. Every encoder is {stages} on "
        "the training rows but for a tenth that the best weights are chosen by (TF-IDF learns from all); seed "
        f"{asked.seed}, one run each. Width {SHARED['width']} and 4 blocks everywhere:",
        "\n".join(f"- {name}: {BLOCKS[name]}" for name in found),
        "Accuracy in percent with its 95 % bootstrap interval; the difference is on the same rows, in points. Peak "
        "memory is the resident memory of the whole process (some 300 MB of it are libraries), tokens per second those "
        "of training steps alone.",
        "\n".join([f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|", *lines]),
        "Peak memory and tokens per second of training steps on one document of so many tokens, bf16:",
        "\n".join([f"| encoder | {' | '.join(sizes)} |", "|---" * (len(sizes) + 1) + "|", *cells]),
    ]
    return "\n\n".join(text) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pretrain", default="", help="a budget of masked words on the training texts first, if any")
    parser.add_argument("--finetune", default="3 epochs")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS))
    parser.add_argument("--table", type=Path, default=TABLE)
    parser.add_argument("--work", type=Path, default=None, help="where the runs are kept; else they are deleted")
    parser.add_argument("--quick", action="store_true", help="a few steps of everything; writes no table")
    parser.add_argument("--answer", help=argparse.SUPPRESS)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    asked.command = " ".join(["python bench/long_documents/run.py", *sys.argv[1:]])
    if asked.measure:
        measure(asked.measure[0], int(asked.measure[1]))
        return
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds movie_reviews/")
    if asked.answer:
        answer(asked.answer)
        return
    if asked.quick:
        asked.pretrain, asked.finetune, asked.lengths = "3 steps", "3 steps", asked.lengths[:2]
    with tempfile.TemporaryDirectory() as name:
        work = asked.work or Path(name)
        lengths = by_length(asked)
        found = {name: train(name, work, asked) for name in asked.encoders}
        text = table(found, tfidf(), lengths, asked)
    print(text)
    if not asked.quick:
        asked.table.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
