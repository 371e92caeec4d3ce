"""What ways to pretrain are worth in the same time: python bench/pretraining/run.py [ROW ...].

Each row learns without labels for the same wall-clock time from the same texts (agnews, Brown, Wikipedia) with the same
tokenizer: every objective, and masked tokens with other optimizers, starts, depths and sizes of a step. What comes out
is fine-tuned on three tasks, three seeds each, by one recipe.
The row "nothing" begins fine-tuning from fresh weights, "co-occurrence alone" from embeddings that counts of the same
texts gave. $ENCODERY_DATA names the folder of the data sets. Every fine-tuning is kept as soon as it is done: the same
command goes on where it was stopped. --size base is for a graphics card: 12 blocks of 768 numbers, ten minutes, all
English text of the data sets; its table is BASE.md. --quick only checks that everything runs; its figures go to
runs/pretraining-quick.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encodery.encoders.options import TransformerConfig

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One way to pretrain: the objective (None: no pretraining), and changes to the recipe that all start from. The
    encoder of a row is fine-tuned as it was pretrained, but for dropout."""

    objective: dict[str, Any] | None = field(default_factory=lambda: {"kind": "masked"})
    encoder: dict[str, Any] = field(default_factory=dict)
    frontend: dict[str, Any] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
    optim: dict[str, Any] = field(default_factory=dict)
    drop_rate: float = 0.0
    """Text that is seen a few times needs no dropout, but SimCSE lives on it."""


ENCODER: dict[str, Any] = {"preset": "mini", "depth": 3, "max_length": 128, "drop_rate": 0.1}
OPTIM: dict[str, Any] = {"kind": "muon", "schedule": "linear", "weight_decay": 0.3}
ADAMW: dict[str, Any] = {"kind": "adamw", "weight_decay": 0.01}
OBJECTIVES: dict[str, Row] = {
    "nothing": Row(objective=None),
    "co-occurrence alone": Row(training={"budget": "1 steps"}),
    "**masked tokens**": Row(),
    "masked words": Row({"kind": "masked", "unit": "word"}),
    "masked spans": Row({"kind": "masked", "unit": "span"}),
    "replaced words (ELECTRA)": Row({"kind": "replaced"}),
    "replaced words, disentangled (DeBERTa-v3)": Row({"kind": "replaced", "sharing": "disentangled"}),
    "causal": Row({"kind": "causal"}, encoder={"pattern": "causal"}),
    "denoising (BART)": Row({"kind": "denoise"}),
    "denoising, spans (T5)": Row({"kind": "denoise", "noise": "spans"}),
    "TSDAE": Row({"kind": "autoencode", "method": "tsdae"}),
    "RetroMAE": Row({"kind": "autoencode", "method": "retromae"}),
    "sentence order and masked words (ALBERT)": Row({"kind": "order"}),
    "next sentence and masked words (BERT)": Row({"kind": "order", "pairs": "next"}),
    "SimCSE": Row({"kind": "contrast"}, drop_rate=0.1),
    "masked and SimCSE": Row(
        {"kind": "several", "objectives": [{"kind": "masked"}, {"kind": "contrast"}], "weights": [1.0, 0.1]},
        drop_rate=0.1,
    ),
}
CHOICES: dict[str, Row] = {
    "random embeddings at the start": Row(frontend={"start": "random"}),
    "AdamW, 1e-3": Row(optim=ADAMW),
    "AdamW, 2e-3": Row(optim={**ADAMW, "lr": 2e-3}),
    "AdamW, random embeddings": Row(frontend={"start": "random"}, optim=ADAMW),
    "15 % hidden": Row({"kind": "masked", "share": 0.15}),
    "40 % hidden": Row({"kind": "masked", "share": 0.4}),
    "40 to 15 % hidden": Row({"kind": "masked", "share": 0.4, "final_share": 0.15}),
    "1,024 positions a step": Row(training={"batch_tokens": 1024}),
    "4,096 positions a step": Row(training={"accumulate": 2}),
    "1,024 growing to 4,096": Row(
        training={"batch_tokens": 1024, "accumulate": 4, "growth": {"batches": 1, "until": 0.8}}
    ),
    "3 blocks, grown from 1": Row(training={"growth": {"blocks": 1}}),
    "6 blocks": Row(encoder={"depth": 6}),
    "6 blocks, grown from 1": Row(encoder={"depth": 6}, training={"growth": {"blocks": 1}}),
    "6 blocks, grown from 3": Row(encoder={"depth": 6}, training={"growth": {"blocks": 3}}),
    "1 block": Row(encoder={"depth": 1}),
}
OF_BASE = {"12 blocks, grown from 1": Row(training={"growth": {"blocks": 1}})}
ROWS = OBJECTIVES | CHOICES | OF_BASE
PRETRAIN = """\
name: pretraining
output: {output}
cache: {work}/cache
seed: {seed}
data: {{train: {corpus}, validation_share: 0.02}}
tokenizer: {{path: {work}/tokenizer.json}}
frontend: {frontend}
encoder: {encoder}
objective: {objective}
training: {training}
evaluation: {{compare: []}}
"""
FINETUNE = """\
name: finetuning
output: {output}
cache: {work}/cache
seed: {seed}
{start}
data:
  train: {{path: {data}/{task}/train.jsonl, weight: {weight}}}
  validation: {data}/{task}/dev.jsonl
  test: {data}/{task}/test.jsonl
  {columns}
tokenizer: {{path: {work}/tokenizer.json}}
encoder: {encoder}
objective: {objective}
training: {{budget: {budget}, batch_tokens: 1024, validations: 4, optim: {{lr: {lr}, schedule: linear, warmup: 0.1}}}}
evaluation: {{compare: []}}
"""


@dataclass(frozen=True)
class Task:
    """What the encoders are fine-tuned for: columns, budget, share of the training rows, objective and its metric.
    Where labels are few, pretraining counts."""

    columns: str
    budget: str
    weight: float = 1.0
    objective: str = "{kind: classify, drop_rate: 0.1}"
    metric: str = "accuracy"


TASKS = {
    "sst2": Task("text: text\n  label: label", "4 epochs"),
    "agnews": Task("text: [title, text]\n  label: label", "3 epochs", 0.22),
    "ud_ewt": Task(
        "text: tokens\n  tags: upos", "5 epochs", 0.25, "{kind: tag, scheme: none, drop_rate: 0.1}", "tag_accuracy"
    ),
}
Texts = dict[str, dict[str, Any]]
"""Files by their place below $ENCODERY_DATA, with what a recipe says of them."""
NEWS_AND_BROWN: Texts = {
    "agnews/train.jsonl": {"text": ["title", "text"]},
    "brown/train.txt": {"documents": "blank"},
    "wikitext2/valid.txt": {"documents": "blank"},
    "wikitext2/test.txt": {"documents": "blank"},
}
ALL_ENGLISH: Texts = {
    **NEWS_AND_BROWN,
    **{
        f"{name}/train.jsonl": {"text": "text"}
        for name in ("sst2", "movie_reviews", "scicite", "chemprot", "banking77")
    },
    **{f"{name}/train.jsonl": {"text": "tokens"} for name in ("ud_ewt", "conll2003", "snips")},
    "subjqa/train.jsonl": {"text": ["question", "context"]},
    "scitldr/train.jsonl": {"text": "source"},
    "stsb_en/train.jsonl": {"text": ["text_a", "text_b"]},
    "multi30k/train.jsonl": {"text": "en"},
    "cranfield/corpus.jsonl": {"text": ["title", "text"]},
}
"""But for test rows of the tasks below."""


@dataclass(frozen=True)
class Size:
    """How large everything is: the texts, the encoder, the steps; and which rows are asked for."""

    texts: Texts
    words: str
    encoder: dict[str, Any]
    rows: tuple[str, ...]
    vocabulary: int = 8000
    minutes: float = 5.0
    batch_tokens: int = 2048
    lr: float = 1e-3
    """Of fine-tuning."""
    table: str = "RESULTS.md"
    figures: str = "results.json"


SIZES = {
    "small": Size(NEWS_AND_BROWN, "agnews, Brown, part of Wikitext-2", ENCODER, tuple(OBJECTIVES | CHOICES)),
    "base": Size(
        ALL_ENGLISH,
        "all English ones of the data sets, without test rows",
        {"preset": "base", "max_length": 128, "drop_rate": 0.1},
        ("nothing", "co-occurrence alone", "**masked tokens**", *OF_BASE),
        vocabulary=16000,
        minutes=10.0,
        batch_tokens=32768,
        lr=2e-4,
        table="BASE.md",
        figures="base.json",
    ),
}
OF_OBJECTIVES = """
## Objectives

Settings are those of masked tokens for all, tuned for none.
"""
OF_CHOICES = """
## Masked tokens, learned in other ways

One change each to the row of masked tokens: {encoder}, 25 % of the tokens hidden, embeddings
from co-occurrence counts, Muon, {batch_tokens:,} positions a step.
"""
COLUMNS = """
| row | {tasks} | mean | tokens read, M | says of itself |
|---|{rules}---|---|---|
"""
HEAD = """\
# What pretraining is worth in the same time

Made by `python bench/pretraining/run.py{command}`. {minutes:g} minutes of wall-clock time for each row,
start of the embeddings included, on the same texts ({words}), then the same fine-tuning on each task with
{seeds} seeds: sentiment of sst2, topics of agnews with some 4,000 labels, parts of speech of ud_ewt with some 3,000
sentences; from scratch, no outside weights. Test accuracy in percent: the mean over the seeds, and in brackets the mean
of their 95 % intervals (bootstrap over test rows); +- is the standard deviation over seeds. The pretraining seed is
one: differences within two of these deviations say nothing. "Mean" is over the tasks, with a 95 % interval from the
seeds alone (t distribution). "Says of itself" is measured on held-out text; the masked losses are of the same 15 %.

{date}, {hardware}, {versions}.
"""


class Bench:
    """Where everything lies, and how large it is."""

    def __init__(self, asked: argparse.Namespace) -> None:
        self.asked = asked
        self.data = Path(os.environ["ENCODERY_DATA"]).resolve()
        self.size = SIZES[asked.size]
        self.minutes = asked.minutes or self.size.minutes
        name = "pretraining" if asked.size == "small" else f"pretraining-{asked.size}"
        self.work = Path("runs").resolve() / (f"{name}-quick" if asked.quick else name)
        self.work.mkdir(parents=True, exist_ok=True)
        self.place = self.work if asked.quick else HERE
        self.tasks = TASKS
        self.texts = self.work / "texts.txt"
        self.figures = self.place / self.size.figures
        self.found: dict[str, Any] = {"pretraining": {}, "finetuning": {}}
        if self.figures.exists():
            self.found = json.loads(self.figures.read_text(encoding="utf-8"))

    def tokenizer(self) -> None:
        """One for all rows, from the texts that all of them read."""
        if (self.work / "tokenizer.json").exists():
            return
        with self.texts.open("w", encoding="utf-8") as out:
            for file, how in self.size.texts.items():
                written = (self.data / file).read_text(encoding="utf-8")
                if "text" not in how:
                    out.write(written)
                    continue
                names = [how["text"]] if isinstance(how["text"], str) else how["text"]
                for row in map(json.loads, written.splitlines()):
                    parts = [row[name] if isinstance(row[name], str) else " ".join(row[name]) for name in names]
                    out.write(f"{' '.join(parts)}\n")
        command = [sys.executable, "-m", "encodery", "tokenizer", str(self.texts)]
        asked = ["--vocab-size", str(self.size.vocabulary), "--output", str(self.work)]
        subprocess.run([*command, *asked], check=True)

    def encoder(self, row: str) -> dict[str, Any]:
        small = {"preset": "tiny"} if self.asked.quick else {}
        return self.size.encoder | small | ROWS[row].encoder

    def pretrain(self, row: str) -> Path | None:
        """The model folder of a row, learned now or before; None for nothing."""
        asked = ROWS[row]
        if asked.objective is None:
            return None
        folder = self.work / _slug(row) / "pretrained"
        if row in self.found["pretraining"] and (folder / "config.json").exists():
            return folder
        steps = {"budget": f"{60 * self.minutes:g}s", "batch_tokens": self.size.batch_tokens, "validations": 1}
        training = {**steps, **asked.training}
        if self.asked.quick:
            training |= {"budget": "8 steps", "batch_tokens": 512}
        text = PRETRAIN.format(
            output=folder,
            work=self.work,
            seed=self.asked.seed,
            corpus=json.dumps([{"path": str(self.data / file), **how} for file, how in self.size.texts.items()]),
            frontend=json.dumps(asked.frontend),
            encoder=json.dumps(self.encoder(row) | {"drop_rate": asked.drop_rate}),
            objective=json.dumps(asked.objective),
            training=json.dumps({**training, "optim": OPTIM | asked.optim}),
        )
        record = self._train(text, folder)
        steps = [one for one in _journal(folder) if one.get("kind") == "step"]
        main = "masked_loss" if "masked_loss" in record["metrics"] else record["main_metric"]
        self.found["pretraining"][row] = {
            "minutes": steps[-1]["seconds"] / 60,
            "tokens": steps[-1]["tokens"],
            "metric": [main, record["metrics"].get(main, {}).get("value")],
            "asked": training["budget"],
            "hardware": record["hardware"].get("gpu") or "{cpu}, {threads} threads".format(**record["hardware"]),
            "versions": record["versions"],
            "date": time.strftime("%Y-%m-%d"),
        }
        self.write()
        return folder

    def finetune(self, row: str, task: str, seed: int, start: Path | None) -> None:
        """One fine-tuning, kept as soon as it is done."""
        results = self.found["finetuning"].setdefault(row, {}).setdefault(task, {})
        if str(seed) in results:
            return
        asked = TASKS[task]
        folder = self.work / _slug(row) / f"{task}-{seed}"
        text = FINETUNE.format(
            output=folder,
            work=self.work,
            seed=seed,
            start=f"start_from: {start}" if start is not None else "",
            data=self.data,
            task=task,
            weight=asked.weight,
            columns=asked.columns,
            objective=asked.objective,
            encoder=json.dumps(self.encoder(row)),
            lr=self.size.lr,
            budget="5 steps" if self.asked.quick else asked.budget,
        )
        record = self._train(text, folder)
        results[str(seed)] = record["metrics"][asked.metric]
        self.write()
        print(f"{row}: {task}, seed {seed}: {100 * results[str(seed)]['value']:.1f}", flush=True)

    def _train(self, recipe: str, folder: Path) -> dict[str, Any]:
        """Carry out a recipe in a folder of its own; what an interrupted one has left is moved aside."""
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():
            folder.rename(folder.with_name(f"{folder.name}-left-{time.strftime('%Y%m%d-%H%M%S')}"))
        file = folder.with_name(f"{folder.name}.yaml")
        file.write_text(recipe, encoding="utf-8")
        with folder.with_name(f"{folder.name}.log").open("w", encoding="utf-8") as log:
            command = [sys.executable, "-m", "encodery", "train", str(file)]
            done = subprocess.run(command, stdout=log, stderr=subprocess.STDOUT)
        if done.returncode:
            sys.exit(f"{file} failed; {folder.name}.log beside it says why")
        return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))

    def write(self) -> None:
        """The table, and the figures behind it."""
        self.figures.write_text(json.dumps(self.found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
        known = list(self.found["pretraining"].values())
        parts: list[str] = []
        columns = COLUMNS.format(tasks=" | ".join(self.tasks), rules="---|" * len(self.tasks))
        choices = OF_CHOICES.format(encoder=_in_words(self.size.encoder), batch_tokens=self.size.batch_tokens)
        for title, rows in ((OF_OBJECTIVES, OBJECTIVES), (choices, CHOICES | OF_BASE)):
            lines = [line for row in rows if (line := self._line(row)) is not None]
            if lines:
                parts.append(title + columns + "\n".join(lines) + "\n")
        if not parts or not known:
            return
        versions = ", ".join(f"{name} {version}" for name, version in known[-1]["versions"].items())
        head = HEAD.format(
            command="" if self.asked.size == "small" else f" --size {self.asked.size}",
            minutes=self.minutes,
            words=f"{self.size.words}: {self.texts.stat().st_size / 1e6:.0f} MB",
            seeds=self.asked.seeds,
            date=known[-1]["date"],
            hardware=known[-1]["hardware"],
            versions=versions,
        )
        (self.place / self.size.table).write_text(head + "".join(parts), encoding="utf-8")

    def _line(self, row: str) -> str | None:
        """One row of the table; None until all of its tasks have a number."""
        results = self.found["finetuning"].get(row, {})
        if not all(results.get(task) for task in self.tasks):
            return None
        cells = []
        for task in self.tasks:
            several = list(results[task].values())
            value, low, high = (100 * statistics.fmean(one[key] for one in several) for key in ("value", "low", "high"))
            spread = 100 * statistics.stdev(one["value"] for one in several) if len(several) > 1 else 0.0
            cells.append(f"{value:.1f} ({low:.1f} to {high:.1f}) +- {spread:.1f}")
        seeds = sorted(set.intersection(*(set(results[task]) for task in self.tasks)))
        means = [100 * statistics.fmean(results[task][seed]["value"] for task in self.tasks) for seed in seeds]
        cells.append(_with_interval(means))
        first = self.found["pretraining"].get(row)
        said = "" if first is None or first["metric"][1] is None else f"{first['metric'][0]} {first['metric'][1]:.3f}"
        tokens = "0" if first is None else f"{first['tokens'] / 1e6:.2f}"
        return f"| {row} | {' | '.join(cells)} | {tokens} | {said} |"


def _with_interval(means: list[float]) -> str:
    """The mean with its 95 % interval, by the t distribution."""
    mean = statistics.fmean(means)
    if len(means) < 2:
        return f"{mean:.1f}"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(means) - 1)) * statistics.stdev(means) / math.sqrt(len(means))
    return f"{mean:.1f} ({mean - half:.1f} to {mean + half:.1f})"


def _in_words(encoder: dict[str, Any]) -> str:
    """3 blocks of 256 numbers."""
    preset = TransformerConfig.presets[encoder["preset"]]
    return f"{encoder.get('depth', preset['depth'])} blocks of {preset['width']} numbers"


def _slug(row: str) -> str:
    return "".join(char if char.isalnum() else "-" for char in row.lower()).strip("-")


def _journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", nargs="*", metavar="ROW", help="by default all")
    parser.add_argument("--list", action="store_true", help="print the names of the rows and stop")
    parser.add_argument("--minutes", type=float, help="of pretraining, for each row (default 5, of base 10)")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="base: for a graphics card")
    parser.add_argument("--seeds", type=int, default=3, help="of fine-tuning, for each task (default 3)")
    parser.add_argument("--seed", type=int, default=1, help="of pretraining (default 1)")
    parser.add_argument("--quick", action="store_true", help="a few steps of each: does everything run?")
    asked = parser.parse_args()
    if asked.list:
        sys.exit("\n".join(SIZES[asked.size].rows))
    if unknown := [row for row in asked.rows if row not in SIZES[asked.size].rows]:
        sys.exit(f"no row {', '.join(unknown)}; --list prints the names")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds agnews/, brown/, wikitext2/, sst2/ and ud_ewt/")
    if asked.quick:
        asked.seeds = 1
    bench = Bench(asked)
    bench.tokenizer()
    for row in asked.rows or bench.size.rows:
        start = bench.pretrain(row)
        for task in bench.tasks:
            for seed in range(1, asked.seeds + 1):
                bench.finetune(row, task, seed, start)
    bench.write()


if __name__ == "__main__":
    main()
