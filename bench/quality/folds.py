"""Try a recipe without its test rows: python bench/quality/folds.py RECIPE [KEY=VALUE ...].

The training and validation rows together are shuffled and cut into folds, groups (data.group) as a whole. The first
run pretrains, on its training rows and what the recipe adds; the others start from that encoder, which has thus seen
their texts, but no label. Each learns from all folds but one and is scored on that one, with a twenty-fifth of its
training rows to choose the weights by.
KEY=VALUE changes the recipe. --start takes an encoder that an earlier call pretrained, so that settings of fine-tuning
are compared from the same weights. Every fold that is done is printed, with what stands behind it, and kept: the same
command goes on where it was stopped. $ENCODERY_DATA names the folder of the data sets.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml
from run import OWN, RECIPES, WORK


def cut(files: list[str], folder: Path, folds: int, group: str | None = None, seed: int = 5) -> None:
    """Write train and scored rows of every fold; those of a group, where the recipe names its column, together."""
    text = [Path(os.path.expandvars(file)).read_text(encoding="utf-8") for file in files]
    rows = [line for part in text for line in part.splitlines() if line.strip()]
    random.Random(seed).shuffle(rows)
    groups = [json.loads(row)[group] for row in rows] if group is not None else range(len(rows))
    number_of = {one: number for number, one in enumerate(dict.fromkeys(groups))}
    for fold in range(folds):
        parts: dict[str, list[str]] = {"train": [], "scored": []}
        for one, row in zip(groups, rows):
            parts["scored" if number_of[one] % folds == fold else "train"].append(row)
        for part, chosen in parts.items():
            (folder / f"{part}-{fold}.jsonl").write_text("\n".join(chosen) + "\n", encoding="utf-8")


def of_fold(recipe: dict[str, Any], folder: Path, fold: int, start: Path | None) -> Path:
    """The recipe of one fold, as a file."""
    found: dict[str, Any] = json.loads(json.dumps(recipe))
    data = {key: value for key, value in found["data"].items() if key != "validation"}
    files = {"train": str(folder / f"train-{fold}.jsonl"), "test": str(folder / f"scored-{fold}.jsonl")}
    found |= {"output": str(folder / f"run-{fold}"), "evaluation": {"compare": []}}
    found["data"] = {**data, **files, "validation_share": 0.04}
    if start is not None:
        found = {key: value for key, value in found.items() if key not in ("pretrain", "tokenizer")}
        found["start_from"] = str(start)
    file = folder / f"{fold}.yaml"
    file.write_text(yaml.safe_dump(found, allow_unicode=True, sort_keys=False), encoding="utf-8")
    return file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="a name in recipes/")
    parser.add_argument("changes", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--folds", type=int, default=3, help="into how many the rows are cut")
    parser.add_argument("--first", type=int, help="carry out only so many of them")
    parser.add_argument("--start", type=Path, help="a pretrained model folder")
    parser.add_argument("--name", default="plain", help="of the folder below runs/quality/folds/")
    asked = parser.parse_intermixed_args()
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder of the data sets")
    if not (RECIPES / f"{asked.recipe}.yaml").exists():
        sys.exit(
            f"no recipe {asked.recipe}; there are {', '.join(sorted(file.stem for file in RECIPES.glob('*.yaml')))}"
        )
    recipe = yaml.safe_load((RECIPES / f"{asked.recipe}.yaml").read_text(encoding="utf-8"))
    folder = WORK / "folds" / f"{asked.recipe}-{asked.name}"
    folder.mkdir(parents=True, exist_ok=True)
    data = recipe["data"]
    files = [
        data[split] if isinstance(data[split], list) else [data[split]]
        for split in ("train", "validation")
        if split in data
    ]
    cut([file for several in files for file in several], folder, asked.folds, data.get("group"))
    found: list[dict[str, float]] = []
    for fold in range(min(asked.folds, asked.first or asked.folds)):
        start = (asked.start and asked.start.resolve()) or (
            folder / "run-0" / "pretrained" if fold and "pretrain" in recipe else None
        )
        begun = ("pretrain", "tokenizer", "encoder", "frontend")  # what a start has settled
        changes = [change for change in asked.changes if start is None or not change.startswith(begun)]
        metrics = folder / f"run-{fold}" / "metrics.json"
        if not metrics.exists():
            file = of_fold(recipe, folder, fold, start)
            with (folder / f"{fold}.log").open("w", encoding="utf-8") as log:
                command = [sys.executable, "-m", "encodery", "train", str(file), *changes]
                subprocess.run(command, check=True, stdout=log, stderr=subprocess.STDOUT)
        record = json.loads(metrics.read_text(encoding="utf-8"))
        found.append({name: 100 * metric["value"] for name, metric in record["metrics"].items()})
        note = next((one.get("note") or "" for one in record["comparison"] if one["name"] in OWN), "")
        print(f"fold {fold}:", ", ".join(f"{name} {value:.2f}" for name, value in found[-1].items()), note, flush=True)
    means = {name: sum(one[name] for one in found) / len(found) for name in found[0]}
    print("mean:", ", ".join(f"{name} {value:.2f}" for name, value in means.items()))


if __name__ == "__main__":
    main()
