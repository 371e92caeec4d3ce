"""Encoders of every kind on one task: python bench/options/run.py [VARIANT ...].

Each variant is one change to the same plain encoder; one of them is the default. All read the same text in the same
order for the same number of tokens (masked words, then the labels of agnews for one epoch) with the same recipe. The
table has the masked-word loss, the accuracy on validation and test rows, and what it costs. $ENCODERY_DATA names the
folder of the data sets. Rows of variants that are not run anew are kept; --list prints the names. --pace measures the
pace of all rows, each in turns with the plain encoder, and needs a machine that does nothing else; the other figures do
not depend on what else runs.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from encodery.config import load_config
from encodery.training.loop import Fit
from encodery.training.preview import prepare
from encodery.training.preview_model import stages_of
from encodery.training.recipe import Recipe

HERE = Path(__file__).parent
FIGURES, TABLE = HERE / "results.json", HERE / "RESULTS.md"
WORK = Path("runs/options").resolve()
STEPS, ROUNDS = 20, 15

RECIPE = """\
name: {name}
output: {output}
cache: {work}/cache
seed: {seed}
data:
  train: {data}/agnews/train.jsonl
  validation: {data}/agnews/dev.jsonl
  test: {data}/agnews/test.jsonl
  text: [title, text]
  label: label
tokenizer: {{path: {work}/tokenizer.json}}
frontend: {frontend}
encoder: {encoder}
pretrain:
  drop_rate: 0.0
  data:
    - {{path: {data}/wikitext2/valid.txt}}
    - {{path: {data}/wikitext2/test.txt}}
  training: {{budget: {pretrain_tokens}M tokens, batch_tokens: 2048, validations: 2, growth: null}}
objective: {{kind: classify, drop_rate: 0.1}}
training: {{budget: 1 epochs, batch_tokens: 2048, validations: 1, optim: {{lr: 1e-3, schedule: linear, warmup: 0.1}}}}
evaluation: {{compare: []}}
"""
HEAD = """\
# Options of the encoder on one task

Made by `python bench/options/run.py`. {tokens} M tokens of masked words on the texts of agnews and some of Wikipedia,
then one epoch of its labels, from scratch: 3 blocks of 256 numbers, one seed, but for the rows that say otherwise. Each
row is one change to the plain encoder (norms before, rotary positions, gelu, no norm on queries and keys); that with
norms on queries and keys is what `encoder: {{}}` gives, the default. Same text, order, budget and recipe for all; rates
were not tuned for any. Loss is that of masked words on validation text, accuracy in percent; the interval (95 %,
bootstrap) is that of the test rows and does not hold the chance of the seed, for which compare the three seeds. Pace is
that of pretraining, as a ratio to the plain encoder, both trained in turns, the median of {rounds} turns or, in rows
marked with a tilde, of 5 (one turn is off by up to 10 %). The two rows with more text say what a slower encoder has to
gain: at 0.8 of the pace it is worth its time where it beats the plain one with a quarter more text.

{date}; {hardware}; {versions}.

| encoder | masked-word loss | accuracy, validation | accuracy, test | pace | parameters, M |
|---|---|---|---|---|---|
"""
PLAIN: dict[str, Any] = {
    "width": 256, "depth": 3, "heads": 4, "max_length": 128, "drop_rate": 0.1, "qk_norm": False
}  # fmt: skip
OF_TRANSFORMERS = ("heads", "qk_norm")
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "plain, seed 2": {"seed": 2},
    "plain, seed 3": {"seed": 3},
    "plain, a quarter more text": {"longer": 1.25},
    "plain, half more text": {"longer": 1.5},
    "**default** (norms on queries and keys)": {"qk_norm": True},
    "default, seed 2": {"qk_norm": True, "seed": 2},
    "default, seed 3": {"qk_norm": True, "seed": 3},
    "default with norms at both ends": {"qk_norm": True, "norm_place": "both"},
    "positions: none": {"positions": "none"},
    "positions: sinusoidal": {"positions": "sinusoidal"},
    "positions: learned": {"positions": "learned"},
    "positions: alibi": {"positions": "alibi"},
    "positions: relative (T5)": {"positions": "relative"},
    "positions: disentangled (DeBERTa)": {"positions": "disentangled", "relative_buckets": 32},
    "norms after (BERT)": {"norm_place": "post"},
    "norms at both ends": {"norm_place": "both"},
    "rmsnorm": {"norm": "rmsnorm"},
    "batchnorm": {"norm": "batchnorm"},
    "relu": {"activation": "relu"},
    "geglu": {"activation": "geglu"},
    "swiglu": {"activation": "swiglu"},
    "no biases": {"bias": False},
    "convolution of 3": {"mlp_kernel": 3},
    "4 experts, 2 a token": {"experts": 4},
    "one head of keys and values": {"kv_heads": 1},
    "window of 16": {"pattern": "window", "window": 16},
    "window of 16, every third block far": {"pattern": "window", "window": 16, "global_every": 3},
    "one block, used three times (ALBERT)": {"distinct_blocks": 1},
    "halved after the first block (Funnel)": {"halve_after": [1]},
    "6 blocks": {"depth": 6},
    "LSTM, both directions": {"kind": "recurrent", "cell": "lstm", "depth": 2},
    "GRU, both directions": {"kind": "recurrent", "cell": "gru", "depth": 2},
}


def recipe_of(name: str, folder: Path, pretrain_tokens: float) -> str:
    change = dict(VARIANTS[name])
    seed = change.pop("seed", 1)
    pretrain_tokens *= change.pop("longer", 1.0)
    frontend = change.pop("frontend", {})
    recurrent = change.get("kind") == "recurrent"
    encoder = {key: value for key, value in PLAIN.items() if not recurrent or key not in OF_TRANSFORMERS} | change
    values = {"name": "options", "output": folder, "work": WORK, "seed": seed, "pretrain_tokens": pretrain_tokens}
    data = Path(os.environ["ENCODERY_DATA"]).resolve()
    return RECIPE.format(**values, data=data, encoder=json.dumps(encoder), frontend=json.dumps(frontend))


def run(name: str, pretrain_tokens: float) -> dict[str, Any]:
    """Train one variant and pick the figures of its row."""
    folder = WORK / f"{list(VARIANTS).index(name):02d}-{time.strftime('%Y%m%d-%H%M%S')}"
    folder.mkdir(parents=True)
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe_of(name, folder / "run", pretrain_tokens), encoding="utf-8")
    begin = time.time()
    with (folder / "log.txt").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "encodery", "train", str(recipe)]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    record = json.loads((folder / "run" / "metrics.json").read_text(encoding="utf-8"))
    first = _journal(folder / "run" / "pretrained" / "journal.jsonl")
    own = _journal(folder / "run" / "journal.jsonl")
    validations = [row for row in first if "validation_loss" in row]
    return {
        "loss": validations[-1]["validation_loss"],
        "dev": max(row["metric"] for row in own if "metric" in row),
        "test": record["metrics"]["accuracy"],
        "parameters": record["parameters"],
        "minutes": (time.time() - begin) / 60,
        "pretrain_tokens": pretrain_tokens,
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{record['hardware']['cpu']}, {record['hardware']['threads']} threads",
        "versions": record["versions"],
    }


def pace(name: str) -> float:
    """Tokens a second of the variant's pretraining over those of the plain encoder, the two trained in turns."""
    fits = [fit_of("plain"), fit_of(name)]
    ratios = []
    for turn in range(ROUNDS + 1):
        found = [0.0, 0.0]
        for which in (0, 1) if turn % 2 else (1, 0):
            fit = fits[which]
            until, tokens, begin = fit.state.step + STEPS, fit.state.tokens, time.perf_counter()
            fit.stopping = lambda fit=fit, until=until: fit.state.step >= until
            fit.advance()
            found[which] = (fit.state.tokens - tokens) / (time.perf_counter() - begin)
        if turn:  # the first turn meets every shape for the first time
            ratios.append(found[1] / found[0])
    return float(np.median(ratios))


def fit_of(name: str) -> Fit:
    """The pretraining of a variant, ready to go on for ever."""
    folder = WORK / "pace"
    file = folder.with_suffix(".yaml")
    file.write_text(recipe_of(name, folder, 1000.0), encoding="utf-8")
    resolved = load_config(Recipe, file, [], environment={})
    return prepare(resolved, stages_of(resolved.config)[0]).fit


def _journal(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(found: dict[str, dict[str, Any]]) -> None:
    """The table, and the figures behind it."""
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = []
    for name in (name for name in VARIANTS if name in found):
        row = found[name]
        test = row["test"]
        said = f"{100 * test['value']:.1f} ({100 * test['low']:.1f} to {100 * test['high']:.1f})"
        about = "" if row.get("turns") == ROUNDS else "~"
        pace = f"{about}{row['pace']:.2f}" if "pace" in row else ""
        size = f"{row['parameters'] / 1e6:.2f}"
        lines.append(f"| {name} | {row['loss']:.3f} | {100 * row['dev']:.1f} | {said} | {pace} | {size} |")
    some = next(iter(found.values()))
    when, where = (", ".join(sorted({row[key] for row in found.values()})) for key in ("date", "hardware"))
    versions = ", ".join(f"{package} {version}" for package, version in some["versions"].items())
    text = HEAD.format(tokens=some["pretrain_tokens"], rounds=ROUNDS, date=when, hardware=where, versions=versions)
    missing = [name for name in VARIANTS if name not in found]
    if missing:
        lines.append(f"\nNot run yet: {', '.join(missing)}.")
    TABLE.write_text(text + "\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="by default all")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--missing", action="store_true", help="only those that have no row yet")
    parser.add_argument("--pace", action="store_true", help="measure the pace of the rows that are there")
    parser.add_argument("--pretrain-tokens", type=float, default=1.5, help="millions of tokens before the labels")
    asked = parser.parse_args()
    if asked.list:
        sys.exit("\n".join(VARIANTS))
    if unknown := [name for name in asked.variants if name not in VARIANTS]:
        sys.exit(f"no variant {', '.join(unknown)}; --list prints the names")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds agnews/ and wikitext2/")
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    WORK.mkdir(parents=True, exist_ok=True)
    if not (WORK / "tokenizer.json").exists():
        corpus = Path(os.environ["ENCODERY_DATA"]).resolve() / "agnews" / "train.jsonl"
        command = [sys.executable, "-m", "encodery", "tokenizer", str(corpus), "--text", "text", "--vocab-size", "8000"]
        subprocess.run([*command, "--output", str(WORK)], check=True)
    if asked.pace:
        for name in [name for name in (asked.variants or VARIANTS) if name in found]:
            found[name] |= {"pace": pace(name), "turns": ROUNDS}
            write(found)
            print(f"{name}: {found[name]['pace']:.2f}", flush=True)
        return
    for name in asked.variants or VARIANTS:
        if asked.missing and name in found:
            continue
        found[name] = run(name, asked.pretrain_tokens)
        write(found)
        row = found[name]
        print(
            f"{name}: loss {row['loss']:.3f}, test {100 * row['test']['value']:.1f}, {row['minutes']:.1f} min",
            flush=True,
        )


if __name__ == "__main__":
    main()
