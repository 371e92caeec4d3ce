"""Link prediction on WN18RR: an encoder that reads definitions, from scratch, against TransE without text.

    ENCODERY_DATA=/path/to/data python bench/knowledge/run.py [--minutes 8] [--score transe] [encoder] [transe]

Both learn for the same time on the same triples and are scored by the same code: filtered ranks of tails and heads
among all entities, ties by the mean of their ranks. $ENCODERY_DATA names the folder that holds wn18rr/. Writes
RESULTS.md and results.json beside this file; parts that are not run anew are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from transe import TransE

import encodery
from encodery.data.knowledge import KnowledgeConfig, read_texts
from encodery.data.links import read_graph
from encodery.evaluation.links import link_ranks, score_links
from encodery.evaluation.results import hardware_facts, now, version_facts

HERE = Path(__file__).parent
FIGURES, TABLE = HERE / "results.json", HERE / "RESULTS.md"
WORK = Path("runs/knowledge").resolve()
SEED = 1
METRICS = ("mrr", "hits_1", "hits_3", "hits_10", "mean_rank", "mrr_tails", "mrr_heads")
HEAD = """\
# Link prediction on WN18RR, from scratch on a CPU

Made by `{command}`. {triples:,} test triples, each asked for its tail and its head among {entities:,} entities;
filtered; ties get the mean of their ranks. The encoder reads the name and definition of each entity and learns hidden
words and triples together (objective `knowledge`); TransE has a vector for each entity and reads nothing. Intervals:
95 %, bootstrap over the triples. How the settings were chosen: README.md.

| model | MRR | Hits@1 | Hits@3 | Hits@10 | mean rank | MRR tails | MRR heads | parameters | training |
|---|---|---|---|---|---|---|---|---|---|
"""


def knowledge(folder: Path) -> dict[str, str]:
    """The files of WN18RR as `data.knowledge` names them."""
    names = {
        "triples": "train.tsv",
        "validation_triples": "dev.tsv",
        "test_triples": "test.tsv",
        "descriptions": "entity2text.txt",
        "relations": "relation2text.txt",
    }
    return {key: str(folder / name) for key, name in names.items()}


def recipe(folder: Path, minutes: float, score: str) -> dict[str, Any]:
    """The run of the encoder. Its texts are the definitions themselves."""
    WORK.mkdir(parents=True, exist_ok=True)
    texts = [text for _, text in read_texts(knowledge(folder)["descriptions"], Path())]
    (WORK / "definitions.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    return {
        "name": f"wn18rr-{score}",
        "output": str(WORK / f"wn18rr-{score}-{time.strftime('%Y%m%d-%H%M%S')}"),
        "cache": str(WORK / ".cache"),
        "seed": SEED,
        "data": {
            "train": str(WORK / "definitions.txt"),
            "validation_share": 0.02,
            "knowledge": knowledge(folder),
        },
        "tokenizer": {"kind": "wordpiece", "vocab_size": 8000},
        "encoder": {"width": 192, "depth": 1, "heads": 3, "max_length": 64, "drop_rate": 0.0},
        "objective": {
            "kind": "knowledge",
            "score": score,
            "share": 0.15,
            "entity_share": 0.875,
            "entity_tokens": 16,
            "link_width": 256,
            "margin": 12.0,
            "weight": 10.0,
        },
        "training": {
            "budget": f"{60 * minutes:.0f}s",
            "batch_tokens": 4096,
            "validations": 0,
            "optim": {"kind": "muon", "lr": 5e-3, "schedule": "linear"},
        },
    }


def encoder(folder: Path, minutes: float, score: str) -> dict[str, Any]:
    """Train the encoder by its recipe, and pick the figures of its row."""
    result = encodery.train(recipe(folder, minutes, score), console=Console())
    record = result.record
    text = next(note for note in record.notes if "real tokens in" in note)
    return {
        "name": f"encoder, {score}",
        "metrics": {name: record.metrics[name] for name in METRICS},
        "parameters": record.parameters,
        "training": f"{minutes:g} min: {text.split(' of training')[0]}",
        **stamp(),
    }


def plain(folder: Path, minutes: float) -> dict[str, Any]:
    """Train TransE, and score it by the same code."""
    graph = read_graph(KnowledgeConfig(**knowledge(folder)), Path())
    model = TransE(graph, width=128, margin=6.0, seed=SEED)
    seen = model.fit(
        graph, seconds=60 * minutes, batch=2048, wrong=256, rate=3e-2, temperature=1.0, seed=SEED, say=print
    )
    ranks = link_ranks(model.links, model.entities.weight.detach(), graph, graph.test)
    found = score_links(ranks, rng=np.random.default_rng(SEED))
    return {
        "name": "TransE without text",
        "metrics": {name: found[name].to_dict() for name in METRICS},
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "training": f"{minutes:g} min: {seen / len(graph.train):.0f} times through the triples",
        **stamp(),
    }


def stamp() -> dict[str, Any]:
    """When and on what."""
    facts = hardware_facts()
    return {"date": now(), "hardware": f"{facts['cpu']}, {facts['threads']} threads", "versions": version_facts()}


def said(metric: dict[str, float], digits: int = 3) -> str:
    """0.226 (0.215 to 0.237)."""
    return f"{metric['value']:.{digits}f} ({metric['low']:.{digits}f} to {metric['high']:.{digits}f})"


def write(found: dict[str, dict[str, Any]], folder: Path, command: str) -> None:
    """The table, and the figures behind it."""
    FIGURES.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    graph = read_graph(KnowledgeConfig(**knowledge(folder)), Path())
    lines = []
    for row in found.values():
        metrics = row["metrics"]
        cells = [said(metrics[name], 0 if name == "mean_rank" else 3) for name in METRICS[:5]]
        cells += [f"{metrics[name]['value']:.3f}" for name in METRICS[5:]]
        lines.append(f"| {row['name']} | {' | '.join(cells)} | {row['parameters']:,} | {row['training']} |")
    notes = [
        f"- {row['name']}: {row['date']}, {row['hardware']}, "
        + ", ".join(f"{package} {version}" for package, version in row["versions"].items())
        for row in found.values()
    ]
    head = HEAD.format(command=command, triples=len(graph.test), entities=len(graph.entities))
    TABLE.write_text(head + "\n".join(lines) + "\n\n" + "\n".join(notes) + "\n", encoding="utf-8")


def main() -> None:
    """Read the arguments, carry out what they name."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument(
        "parts", nargs="*", choices=["encoder", "transe", []], help="what to run anew; all by default"
    )
    arguments.add_argument("--minutes", type=float, default=8.0, help="of training, each")
    arguments.add_argument("--score", choices=["transe", "distmult", "rotate"], default="transe", help="of the encoder")
    given = arguments.parse_args()
    if "ENCODERY_DATA" not in os.environ:
        sys.exit("set ENCODERY_DATA to the folder that holds wn18rr/")
    folder = Path(os.environ["ENCODERY_DATA"]) / "wn18rr"
    found = json.loads(FIGURES.read_text(encoding="utf-8")) if FIGURES.exists() else {}
    torch.manual_seed(SEED)
    for part in given.parts or ("encoder", "transe"):
        key = part if part == "transe" else f"encoder-{given.score}"
        found[key] = encoder(folder, given.minutes, given.score) if part == "encoder" else plain(folder, given.minutes)
        write(found, folder, "python bench/knowledge/run.py")
        print(found[key]["name"], {name: round(one["value"], 4) for name, one in found[key]["metrics"].items()})


if __name__ == "__main__":
    main()
