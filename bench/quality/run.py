"""Run the quality recipes and write their table: python bench/quality/run.py [agnews sst2 chnsenticorp].

Each recipe pretrains, fine-tunes and reads its test split once; $ENCODERY_DATA names the folder of the data sets.
The runs go to runs/quality/, the table to bench/quality/RESULTS.md. Rows of sets that are not run anew are kept.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
RECIPES = HERE.parent.parent / "recipes"
TABLE = HERE / "RESULTS.md"
FIGURES = HERE / "results.json"
BARS = {"agnews": 90.5, "sst2": 82.5, "chnsenticorp": 92.5}
HEAD = """\
# Quality on public sets, from scratch on two CPU cores

Made by `python bench/quality/run.py`. Every row pretrains and fine-tunes anew, without outside weights; text comes from
the set itself and from the sets that its recipe names. Choices were made on folds of the training and validation rows;
the test split is read once, by the run in this table. Intervals: 95 %, bootstrap over the test rows. Every model but
TF-IDF is an encoder with n-grams of tokens and letters beside it (`objective.ngrams`); "alone" is what the encoder
gets without them: not pretrained, pretrained.

| set | test rows | TF-IDF + LR | without pretraining | pretrained | difference, same rows | alone | minutes | bar |
|---|---|---|---|---|---|---|---|---|
"""


def run(name: str) -> dict[str, object]:
    """Carry out one recipe and pick the figures of its table row."""
    folder = Path("runs/quality") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    begin = time.time()
    command = [sys.executable, "-m", "encodery", "train", str(RECIPES / f"{name}.yaml"), f"output={folder}"]
    subprocess.run(command, check=True)
    record = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    rows = {row["name"]: row["metric"] for row in record["comparison"]}
    cpu = record["hardware"]
    said_alone = re.compile(r"its encoder alone gets ([\d.]+) %")
    alone = {row["name"]: said_alone.search(row.get("note") or "") for row in record["comparison"]}
    return {
        "set": name,
        "rows": record["data_facts"]["splits"]["test"]["rows"],
        "tfidf": rows["TF-IDF + logistic regression"],
        "scratch": rows["without pretraining"],
        "own": rows["pretrained encoder"],
        "difference": next((note.split(": ", 1)[1] for note in record["notes"] if "against" in note), ""),
        "alone": [float(found[1]) for name in ("without pretraining", "pretrained encoder") if (found := alone[name])],
        "minutes": round((time.time() - begin) / 60, 1),
        "date": time.strftime("%Y-%m-%d"),
        "hardware": f"{cpu['cpu']}, {cpu['threads']} threads",
        "versions": record["versions"],
        "parameters": record["parameters"],
    }


def said(metric: dict[str, float]) -> str:
    """91.2 (90.5 to 91.8), in percent."""
    return f"{100 * metric['value']:.1f} ({100 * metric['low']:.1f} to {100 * metric['high']:.1f})"


def write(found: dict[str, dict]) -> None:
    """The table, and the figures behind it."""
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = [
        f"| {name} | {row['rows']:,} | {said(row['tfidf'])} | {said(row['scratch'])} | **{said(row['own'])}** | "
        f"{row['difference']} | {', '.join(map(str, row['alone']))} | {row['minutes']} | {BARS[name]} |"
        for name, row in sorted(found.items())
    ]
    notes = [
        f"- {name}: {row['date']}, {row['hardware']}, {row['parameters']:,} parameters, "
        + ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        for name, row in sorted(found.items())
    ]
    TABLE.write_text(HEAD + "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n", encoding="utf-8")


def main() -> None:
    names = sys.argv[1:] or sorted(BARS)
    if unknown := [name for name in names if name not in BARS]:
        sys.exit(f"no recipe for {', '.join(unknown)}; there are {', '.join(sorted(BARS))}")
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds agnews/, sst2/, chnsenticorp/, wikitext2/, zh_corpus_uer/")
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    for name in names:
        found[name] = run(name)
        write(found)


if __name__ == "__main__":
    main()
