"""What pays in fine-tuning: python bench/finetuning/run.py [VARIANT ...].

One encoder a data set is pretrained once; then each variant, one change to the plain recipe, is fine-tuned from it with
several seeds. Rows that are trained on, rows that choose the weights and rows that are scored are three different parts
of the training and development data: test rows are not read. $ENCODERY_DATA names the folder of the data sets. Rows of
the table that are there are kept: a stopped run goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
FIGURES, TABLE = HERE / "results.json", HERE / "RESULTS.md"
WORK = Path("runs/finetuning").resolve()

SETS: dict[str, dict[str, Any]] = {
    "sst2": {"text": "text", "tokens": 1.5, "epochs": 4, "vocab": 8000},
    "agnews": {"text": ["title", "text"], "tokens": 2.5, "epochs": 3, "vocab": 8000, "share": 0.22},
    "banking77": {"text": "text", "tokens": 1.0, "epochs": 12, "vocab": 4000},
}
"""`tokens`: millions of them are read before the labels; `share`: of the training rows whose labels are learned."""
ENCODER = {"width": 256, "depth": 3, "heads": 4, "max_length": 128, "drop_rate": 0.1}
OPTIM = {"lr": 1e-3, "schedule": "linear", "warmup": 0.1}
PLAIN: dict[str, Any] = {"batch_tokens": 2048, "validations": 10, "optim": OPTIM}
VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "without pretraining": {"scratch": True},
    "the best of the validations": {"training": {"keep": "best"}},
    "moving average 0.99": {"training": {"average": 0.99}},
    "rate 5e-4": {"training": {"optim": {**OPTIM, "lr": 5e-4}}},
    "rate 2e-3": {"training": {"optim": {**OPTIM, "lr": 2e-3}}},
    "1,024 positions a step": {"training": {"batch_tokens": 1024}},
    "4,096 positions a step": {"training": {"batch_tokens": 4096}},
    "no warm-up": {"training": {"optim": {**OPTIM, "warmup": 0.0}}},
    "layer decay 0.8": {"training": {"optim": {**OPTIM, "layer_decay": 0.8}}},
    "last block anew": {"training": {"reset_blocks": 1}},
    "agreement (R-Drop), 1": {"training": {"consistency": 1.0}},
    "agreement (R-Drop), 4": {"training": {"consistency": 4.0}},
    "moved words, 0.01": {"training": {"adversarial": 0.01}},
    "moved words, 0.03": {"training": {"adversarial": 0.03}},
    "moved words, 0.1": {"training": {"adversarial": 0.1}},
    "smaller pieces, 0.1": {"training": {"augment": {"split": 0.1}}},
    "words left out, 0.1": {"training": {"augment": {"delete": 0.1}}},
    "tokens hidden, 0.15": {"training": {"augment": {"hide": 0.15}}},
    "label smoothing 0.1": {"objective": {"label_smoothing": 0.1}},
    "dropout 0.2": {"encoder": {"drop_rate": 0.2}},
    "twice as long": {"longer": 2},
    "n-grams beside": {"objective": {"ngrams": 2}},
    "n-grams beside, R-Drop 1": {"objective": {"ngrams": 2}, "training": {"consistency": 1.0}},
    "n-grams beside, moved words 0.03": {"objective": {"ngrams": 2}, "training": {"adversarial": 0.03}},
}
HEAD = """\
# What pays in fine-tuning

Made by `python bench/finetuning/run.py`. The same pretrained encoder of 3 blocks of 256 numbers for each set (of
agnews some 4,000 rows have labels), then one change to the plain recipe of fine-tuning (AdamW at 1e-3, a tenth of
warm-up, ten validations). Accuracy in percent on development rows that were neither trained on nor used to choose
weights: mean of the seeds, with their standard deviation where there are several; and the gain over the plain recipe
with its 95 % interval (rows are drawn anew, each with all its seeds: with one seed it holds the chance of the rows
alone). Time is that of fine-tuning, as a ratio to the plain recipe; on a machine with other work it says little.

{date}, {hardware}, {versions}.

"""


def rows_of(name: str) -> dict[str, Path]:
    """train and dev files of a set; where there is no dev file a fifth of the training rows, by a hash of the text."""
    data = Path(os.environ["ENCODERY_DATA"]).resolve() / name
    if (data / "dev.jsonl").exists():
        return {"train": data / "train.jsonl", "dev": data / "dev.jsonl"}
    found = {part: WORK / f"{name}-{part}.jsonl" for part in ("train", "dev")}
    if not all(file.exists() for file in found.values()):
        lines: dict[str, list[str]] = {"train": [], "dev": []}
        for line in (data / "train.jsonl").read_text(encoding="utf-8").splitlines():
            digest = hashlib.blake2b(json.loads(line)["text"].encode(), digest_size=2).digest()
            lines["dev" if int.from_bytes(digest, "big") % 5 == 0 else "train"].append(line)
        for part, file in found.items():
            file.write_text("\n".join(lines[part]) + "\n", encoding="utf-8")
    return found


def recipe_of(name: str, variant: dict[str, Any], folder: Path, seed: int, start: Path | None) -> dict[str, Any]:
    given, files = SETS[name], rows_of(name)
    recipe: dict[str, Any] = {
        "name": name,
        "output": str(folder),
        "cache": str(WORK / "cache"),
        "seed": seed,
        "data": {
            "train": {"path": str(files["train"]), "weight": given.get("share", 1.0)},
            "test": str(files["dev"]),
            "text": given["text"],
            "label": "label",
        },
        "tokenizer": {"vocab_size": given["vocab"]},
        "encoder": {**ENCODER, **variant.get("encoder", {})},
        "objective": {"kind": "classify", "drop_rate": 0.1, **variant.get("objective", {})},
        "training": {
            **PLAIN,
            "budget": f"{given['epochs'] * variant.get('longer', 1)} epochs",
            **variant.get("training", {}),
        },
        "evaluation": {"compare": [], "errors": 0},
    }
    if start is not None:
        recipe["start_from"] = str(start)
    return recipe


def carry_out(recipe: dict[str, Any]) -> Path:
    """The folder of the run, which is made anew."""
    import yaml

    folder = Path(recipe["output"])
    shutil.rmtree(folder, ignore_errors=True)  # what an interrupted run left would stand in the way
    folder.parent.mkdir(parents=True, exist_ok=True)
    file = folder.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(recipe, sort_keys=False), encoding="utf-8")
    with folder.with_suffix(".log").open("w", encoding="utf-8") as log:
        command = [sys.executable, "-m", "encodery", "train", str(file)]
        subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
    return folder


def pretrained(name: str) -> Path:
    """The encoder that all variants of a set start from."""
    folder = WORK / f"{name}-pretrained"
    if not (folder / "config.json").exists():
        recipe = recipe_of(name, {}, folder, 1, None)
        recipe["data"] |= {"train": str(rows_of(name)["train"])}
        recipe["data"].pop("test")
        recipe |= {"objective": "masked", "encoder": {**ENCODER, "drop_rate": 0.0}}
        recipe["training"] = {
            "budget": f"{SETS[name]['tokens']}M tokens",
            "batch_tokens": 2048,
            "validations": 1,
            "optim": {"kind": "muon", "schedule": "linear", "weight_decay": 0.3},
        }
        carry_out(recipe)
    return folder


def one(name: str, variant: str, seed: int) -> dict[str, Any]:
    """Fine-tune once: what is right of the scored rows, and what it cost."""
    from encodery.use.predict import load

    change = VARIANTS[variant]
    start = pretrained(name)
    recipe = recipe_of(name, change, WORK / f"{name}-{time.strftime('%H%M%S')}-{seed}", seed, start)
    if change.get("scratch"):
        recipe.pop("start_from")
        recipe["tokenizer"] = {"path": str(start / "tokenizer.json")}
    folder = carry_out(recipe)
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    steps = [json.loads(line) for line in (folder / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    rows = [json.loads(line) for line in rows_of(name)["dev"].read_text(encoding="utf-8").splitlines()]
    columns = [SETS[name]["text"]] if isinstance(SETS[name]["text"], str) else SETS[name]["text"]
    answers = load(folder).predict([" ".join(str(row[column]) for column in columns) for row in rows])
    right = [int(answer["label"] == str(row["label"])) for answer, row in zip(answers, rows)]
    return {
        "accuracy": float(np.mean(right)),
        "right": "".join(map(str, right)),
        "seconds": max(row["seconds"] for row in steps if row["kind"] == "step"),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{record['hardware']['cpu']}, {record['hardware']['threads']} threads",
        "versions": record["versions"],
    }


def gain(variant: list[str], plain: list[str]) -> tuple[float, float, float]:
    """Mean difference in points over rows and seeds, with the interval from rows drawn anew."""
    mine, theirs = (np.array([[int(x) for x in run] for run in runs]).mean(axis=0) for runs in (variant, plain))
    apart = 100 * (mine - theirs)
    rng = np.random.default_rng(1)
    means = apart[rng.integers(0, apart.size, (2000, apart.size))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(apart.mean()), float(low), float(high)


def write(found: dict[str, Any]) -> None:
    """The table, and the figures behind it."""
    FIGURES.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    some = next(iter(found.values()))
    versions = ", ".join(f"{package} {version}" for package, version in some["versions"].items())
    lines = [HEAD.format(date=some["date"], hardware=some["hardware"], versions=versions)]
    for name in SETS:
        if not any(key.startswith(f"{name} | ") for key in found):
            continue
        lines.append(f"## {name}\n\n| variant | seeds | accuracy | gain over plain | time |\n|---|---|---|---|---|\n")
        plain = [row for key, row in found.items() if key.startswith(f"{name} | plain |")]
        for variant in VARIANTS:
            runs = [row for key, row in found.items() if key.startswith(f"{name} | {variant} |")]
            if not runs or not plain:
                continue
            each = [100 * row["accuracy"] for row in runs]
            spread = f" ± {np.std(each, ddof=1):.1f}" if len(each) > 1 else ""
            more, low, high = gain([row["right"] for row in runs], [row["right"] for row in plain])
            said = "" if variant == "plain" else f"{more:+.1f} ({low:+.1f} to {high:+.1f})"
            pace = np.median([row["seconds"] for row in runs]) / np.median([row["seconds"] for row in plain])
            lines.append(f"| {variant} | {len(each)} | {np.mean(each):.1f}{spread} | {said} | {pace:.1f} |\n")
        lines.append("\n")
    TABLE.write_text("".join(lines).rstrip() + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("variants", nargs="*", metavar="VARIANT", help="by default all")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, default=3)
    asked = parser.parse_args()
    if asked.list:
        sys.exit("\n".join(VARIANTS))
    if unknown := [name for name in asked.variants if name not in VARIANTS]:
        sys.exit(f"no variant {', '.join(unknown)}; --list prints the names")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds sst2/, agnews/ and banking77/")
    WORK.mkdir(parents=True, exist_ok=True)
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for seed in range(1, asked.seeds + 1):
        for name in asked.sets:
            for variant in asked.variants or VARIANTS:
                key = f"{name} | {variant} | {seed}"
                if key in found:
                    continue
                found[key] = one(name, variant, seed)
                write(found)
                print(f"{key}: {100 * found[key]['accuracy']:.1f}, {found[key]['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    main()
