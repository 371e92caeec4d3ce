"""Search in Cranfield by BM25, by an encoder, and by both: python bench/quality/cranfield.py [FOLDER].

No outside data. The encoder learns first from the 1,400 documents alone (hidden words; then a title and the text it
stands above, a sentence and the text it was taken from), then from the judged queries of three folds of five. A fourth
fold chooses when to stop and how much the encoder counts beside BM25; the fifth is searched. Every query is searched
once, by a model and with a weight that never saw it. BM25 is measured by the same code, with plain words and with
Porter stems and without stop words; the stronger one is what the encoder is combined with and compared to.

$ENCODERY_DATA names the folder of the data sets; runs go to FOLDER (runs/quality/cranfield), the table to
bench/quality/CRANFIELD.md.
"""

from __future__ import annotations

import json
import os
import random
import re
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS
from snowballstemmer import stemmer

import encodery
from encodery.evaluation.bm25 import BM25, words_of
from encodery.evaluation.intervals import paired_difference
from encodery.evaluation.results import hardware_facts
from encodery.evaluation.retrieval import (
    Scores,
    permutation_p,
    ranking_metrics,
    reciprocal_rank_fusion,
    score_rankings,
    weighted_fusion,
)

TABLE = Path(__file__).parent / "CRANFIELD.md"
FOLDS = 5
SHOWN = ("ndcg_10", "mean_average_precision", "mrr_10", "recall_10")
WEIGHTS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8, 1.0)
STEM = stemmer("porter").stemWord


def stems(text: str) -> list[str]:
    """Porter stems of the words that are no stop words."""
    return [STEM(word) for word in words_of(text) if word not in ENGLISH_STOP_WORDS]


class Collection:
    """Documents, queries and judgements, in their order."""

    def __init__(self, folder: Path) -> None:
        self.documents = {row["id"]: row for row in read(folder / "corpus.jsonl")}
        self.queries = {row["id"]: row["text"] for row in read(folder / "queries.jsonl")}
        self.judged: dict[str, dict[str, float]] = {query: {} for query in self.queries}
        for line in (folder / "qrels.trec.txt").read_text().splitlines():
            query, _, document, grade = line.split()
            self.judged[query][document] = float(grade)
        # Two documents are empty: they are searched as well, and never found.
        self.texts = {name: row["text"].strip() or "." for name, row in self.documents.items()}

    def run(self, scores: np.ndarray, queries: list[str]) -> dict[str, dict[str, float]]:
        """Scores (queries, documents) by name."""
        return {query: dict(zip(self.texts, row.tolist())) for query, row in zip(queries, scores)}

    def bm25(self, **options: Any) -> dict[str, dict[str, float]]:
        return self.run(
            BM25(list(self.texts.values()), **options).scores(list(self.queries.values())), list(self.queries)
        )


def read(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]


def write(file: Path, rows: list[dict[str, Any]]) -> str:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


def pairs_of(documents: list[dict[str, Any]], rng: random.Random, each: int = 4) -> list[dict[str, Any]]:
    """A title with its text, and sentences with the text they were taken from (inverse cloze, Lee et al. 2019)."""
    rows = []
    for document in documents:
        title, text = document["title"].strip(), document["text"].strip()
        body = text.removeprefix(title).strip()
        if title and body:
            rows.append({"query": title, "text": body})
        sentences = [part.strip() for part in re.split(r" \.(?: |$)", body) if len(part.split()) > 4]
        for sentence in rng.sample(sentences, min(each, len(sentences))) if len(sentences) > 1 else []:
            rows.append({"query": sentence, "text": text.replace(sentence, " ", 1)})
    rng.shuffle(rows)
    return rows


def rows_of(collection: Collection, queries: list[str], bm25: Scores, rng: random.Random) -> list[dict[str, Any]]:
    """A query, a document that answers it, and one that BM25 finds and that nobody judged relevant."""
    rows = []
    for query in queries:
        grades = collection.judged[query]
        found = sorted(bm25[query], key=lambda document: -bm25[query][document])[:50]
        wrong = [document for document in found if grades.get(document, 0) <= 0]
        for document, grade in grades.items():
            if grade > 0:
                chosen = [collection.texts[name] for name in rng.sample(wrong, 1)]
                row = {"query": collection.queries[query], "text": collection.texts[document], "wrong": chosen}
                rows.append(row)
    rng.shuffle(rows)
    return rows


def learn_alone(collection: Collection, folder: Path) -> Path:
    """The encoder that knows the documents and no query."""
    pairs = pairs_of(list(collection.documents.values()), random.Random(1))
    texts = [{"text": text} for text in collection.texts.values() if len(text) > 1]
    recipe = {
        "name": "cranfield-alone",
        "output": str(folder / "alone"),
        "data": {
            "train": write(folder / "pairs.jsonl", pairs),
            "text": "query",
            "pair": "text",
            "validation_share": 0.05,
        },
        "tokenizer": {"vocab_size": 6000},
        "encoder": {"width": 192, "depth": 2, "heads": 4, "max_length": 256, "drop_rate": 0.1},
        "pretrain": {
            "data": [{"path": write(folder / "texts.jsonl", texts), "text": "text"}],
            "training": {"budget": "1M tokens", "batch_tokens": 2048, "optim": {"kind": "muon", "weight_decay": 0.3}},
        },
        "objective": {"kind": "embed", "pooling": "attention", "temperature": 0.05},
        "training": {"budget": "3 epochs", "batch_tokens": 8192, "optim": {"lr": 1e-3, "schedule": "linear"}},
    }
    return trained(recipe)


def trained(recipe: dict[str, Any]) -> Path:
    """The model folder; what an earlier call has finished is taken as it lies, what it began is gone on with."""
    folder = Path(recipe["output"])
    if (folder / "config.json").exists():
        return folder
    return (encodery.resume(folder) if (folder / "run.json").exists() else encodery.train(recipe)).folder


def learn_queries(
    collection: Collection, start: Path, folder: Path, train: list[str], held: list[str], bm25: Scores
) -> Path:
    """The encoder after it saw judged queries."""
    rng = random.Random(2)
    recipe = {
        "name": folder.name,
        "output": str(folder),
        "start_from": str(start.resolve()),
        "data": {
            "train": write(folder / "train.jsonl", rows_of(collection, train, bm25, rng)),
            "validation": write(folder / "held.jsonl", rows_of(collection, held, bm25, rng)),
            "text": "query",
            "pair": "text",
            "negatives": "wrong",
        },
        "encoder": {"drop_rate": 0.1},
        "objective": {"kind": "embed", "pooling": "attention", "temperature": 0.05},
        "training": {"budget": "2 epochs", "batch_tokens": 8192, "optim": {"lr": 5e-4, "schedule": "linear"}},
        "evaluation": {"compare": []},
    }
    return trained(recipe)


def search(collection: Collection, model: Path, queries: list[str]) -> dict[str, dict[str, float]]:
    """What a trained encoder says of all documents."""
    asked = [collection.queries[query] for query in queries]
    return collection.run(encodery.load(model).compare(asked, list(collection.texts.values())), queries)


def part_of(run: Scores, queries: list[str]) -> dict[str, dict[str, float]]:
    return {query: dict(run[query]) for query in queries}


def best_weight(collection: Collection, bm25: Scores, encoder: Scores, queries: list[str]) -> float:
    """How much the encoder counts beside BM25 (1 - weight), by nDCG@10 of these queries."""
    judged = {query: collection.judged[query] for query in queries}

    def value(weight: float) -> float:
        both = weighted_fusion([part_of(bm25, queries), part_of(encoder, queries)], [1 - weight, weight])
        return float(ranking_metrics(both, judged)["ndcg_10"].mean())

    return max(WEIGHTS, key=value)


def main() -> None:
    if "ENCODERY_DATA" not in os.environ:
        raise SystemExit(f"{__doc__}\nSet ENCODERY_DATA.")
    begin = time.time()
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "runs/quality/cranfield")
    collection = Collection(Path(os.environ["ENCODERY_DATA"]) / "cranfield")
    runs: dict[str, Scores] = {
        "BM25, plain words": collection.bm25(),
        "BM25, Porter stems, no stop words": collection.bm25(analyse=stems),
    }
    means = {name: ranking_metrics(run, collection.judged)["ndcg_10"].mean() for name, run in runs.items()}
    strongest = max(means, key=lambda name: means[name])
    bm25 = runs[strongest]
    names = list(collection.queries)
    random.Random(0).shuffle(names)
    folds = [names[number::FOLDS] for number in range(FOLDS)]
    alone = learn_alone(collection, folder)
    runs["encoder, documents alone"] = search(collection, alone, names)
    learned: dict[str, dict[str, float]] = {}
    both: dict[str, dict[str, float]] = {}
    first: dict[str, dict[str, float]] = {}
    weights = []
    for number, test in enumerate(folds):
        held = folds[(number + 1) % FOLDS]
        train = [query for fold in folds if fold not in (test, held) for query in fold]
        model = learn_queries(collection, alone, folder / f"fold-{number}", train, held, bm25)
        found = search(collection, model, [*held, *test])
        weights.append(best_weight(collection, bm25, found, held))
        learned |= part_of(found, test)
        pair = [part_of(bm25, test), part_of(found, test)]
        both |= weighted_fusion(pair, [1 - weights[-1], weights[-1]])
        pair_alone = [part_of(bm25, held), part_of(runs["encoder, documents alone"], held)]
        weight = best_weight(collection, pair_alone[0], pair_alone[1], held)
        pair = [part_of(bm25, test), part_of(runs["encoder, documents alone"], test)]
        first |= weighted_fusion(pair, [1 - weight, weight])
    runs["encoder, judged queries too"] = learned
    runs["BM25 + encoder, documents alone"] = first
    runs["BM25 + encoder, judged queries too"] = both
    runs["BM25 + encoder, reciprocal ranks"] = reciprocal_rank_fusion([bm25, learned])
    report(collection, runs, strongest, weights, (time.time() - begin) / 60)


def report(
    collection: Collection, runs: dict[str, Scores], strongest: str, weights: list[float], minutes: float
) -> None:
    """The table, printed and kept."""
    lines = ["# Search in Cranfield, with BM25 and with it", "", "Made by `python bench/quality/cranfield.py`.", ""]
    lines += [
        f"| | {' | '.join(SHOWN)} | difference in nDCG@10 to {strongest} | p |",
        "|---|" + "---|" * (len(SHOWN) + 2),
    ]
    base = ranking_metrics(runs[strongest], collection.judged)["ndcg_10"]
    for name, run in runs.items():
        metrics = score_rankings(run, collection.judged, rng=np.random.default_rng(1))
        own = ranking_metrics(run, collection.judged)["ndcg_10"]
        gain, chance = "", ""
        if name != strongest:
            gain = str(paired_difference(own, base, np.random.default_rng(2)))
            chance = f"{permutation_p(own, base, np.random.default_rng(3)):.4f}"
        lines.append(f"| {name} | {' | '.join(str(metrics[key]) for key in SHOWN)} | {gain} | {chance} |")
    facts = hardware_facts()
    lines += [
        "",
        f"{len(collection.queries)} queries, {len(collection.texts):,} documents, {FOLDS} folds over the queries; "
        "intervals: 95 %, bootstrap over the queries; p: two-sided randomisation test over the queries. Fusion: sum of "
        f"scores with mean 0 and deviation 1 for each query; the encoder weighs {', '.join(map(str, weights))} in the "
        f"folds. BM25: k1 1.2, b 0.75. {minutes:.0f} minutes on {facts['cpu']}, {facts['threads']} threads.",
    ]
    print("\n".join(lines))
    TABLE.write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
