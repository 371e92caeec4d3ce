"""card.md: the model card that travels with a model folder, for people and for the Hugging Face Hub."""

from __future__ import annotations

import re
from typing import Any

from encodery.evaluation.record import RunRecord, plain
from encodery.evaluation.wording import (
    count_text,
    headline,
    interval_text,
    meaning_of,
    seconds_text,
    value_text,
    verdict,
)

TASKS = {
    "pretraining": ("fill-mask", "Masked language modelling"),
    "classification": ("text-classification", "Text classification"),
    "multilabel": ("text-classification", "Multi-label text classification"),
    "regression": ("text-classification", "Text regression"),
    "language": ("text-generation", "Language modelling"),
    "writing": ("text2text-generation", "Writing a text for a text"),
    "ordinal": ("text-classification", "Ordinal text classification"),
    "answers": ("question-answering", "Extractive question answering"),
    "choices": ("multiple-choice", "Multiple choice"),
    "vectors": ("sentence-similarity", "Sentence vectors"),
    "ranking": ("text-ranking", "Ranking with a cross-encoder"),
    "tagging": ("token-classification", "Tagging of words"),
}
SENTENCES = {
    "pretraining": "A text encoder trained from scratch by guessing hidden words. It has no task yet.",
    "classification": "A text encoder with a classification head: it gives a text one of the labels below.",
    "multilabel": "A text encoder with a head for several labels: it gives a text any of the labels below.",
    "regression": "A text encoder with a regression head: it gives a text (or a pair of texts) a number.",
    "language": "A language model: it says which token comes next, and writes on from a prompt.",
    "writing": "A text encoder with a decoder that looks at it: it writes a text for a text.",
    "ordinal": "A text encoder with a head for labels that have an order: it gives a text one of the labels below.",
    "answers": "A text encoder that marks the answer to a question in a text, or says that there is none.",
    "choices": "A text encoder that says which of several options belongs to a text.",
    "vectors": "A text encoder whose vectors are to be compared: close texts have close vectors.",
    "tagging": "A text encoder with a head for tags: it tells the tag of every word, and the spans these mark.",
    "ranking": "A text encoder that reads a query and a candidate together and says how well they fit.",
}
HUB_NAMES = {"f1_macro": "f1", "mcc": "matthews_correlation", "auroc": "roc_auc", "spearman": "spearmanr"}


def render_card(record: RunRecord, *, license: str | None = None, folder: str = "path/to/this/folder") -> str:
    """The card as markdown with YAML front matter; `license` stands in it only when it is given.

    The front matter is the Hub's: language, tags, pipeline_tag, metrics and a model-index. `folder` is the
    path the examples of use name.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    record = RunRecord.from_json(record.to_json())  # plain parts, whatever the record was made of
    room = Environment(
        loader=PackageLoader("encodery.evaluation", "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        autoescape=False,  # markdown; what stands in table cells is escaped by _cell
    )
    name = record.main_metric
    rows = [
        [
            _cell(row.name),
            value_text(row.metric.value, name),
            interval_text(row.metric, name) or "–",
            count_text(row.parameters) or "–",
            seconds_text(row.seconds) or "–",
        ]
        for row in record.comparison
    ]
    metrics = []
    for key in record.metrics:
        metric = record.metric(key)
        note = f" ({metric.note})" if metric.value is None and metric.note else ""
        interval = interval_text(metric, key) or "–"
        metrics.append([_cell(meaning_of(key).title), value_text(metric.value, key) + _cell(note), interval])
    text = room.get_template("card.md.jinja").render(
        record=record,
        front=_front_matter(record, license),
        headline=headline(record),
        verdict=verdict(record),
        what=_what(record),
        labels=", ".join(f"`{label}`" for label in record.labels[:50]) + (" …" if len(record.labels) > 50 else ""),
        folder=folder,
        metric_title=_cell(meaning_of(name).title),
        rows=rows,
        metrics=metrics,
        facts=_facts(record),
        made=_made(record),
        limits=_limits(record),
    )
    return re.sub(r"\n{3,}", "\n\n", text).strip() + "\n"


def _front_matter(record: RunRecord, license: str | None) -> list[str]:
    import yaml

    task, task_name = TASKS[record.kind]
    known = {key: record.metric(key) for key in record.metrics}
    results = [
        {"type": HUB_NAMES.get(key, key), "name": meaning_of(key).title, "value": round(metric.value, 5)}
        for key, metric in known.items()
        if metric.value is not None
    ]
    front: dict[str, Any] = {}
    if license:
        front["license"] = license
    if record.language:
        front["language"] = record.language
    front |= {"library_name": "encodery", "pipeline_tag": task, "tags": ["encodery", record.kind]}
    if results:
        dataset = {
            "name": str(record.data_facts.get("name") or record.name),
            "type": "custom",
            "split": "test",
        }
        if record.kind == "pretraining":
            dataset["split"] = "validation"
        front["metrics"] = [result["type"] for result in results]
        entry = {"task": {"type": task, "name": task_name}, "dataset": dataset, "metrics": results}
        front["model-index"] = [{"name": record.name, "results": [entry]}]
    return yaml.safe_dump(plain(front), allow_unicode=True, sort_keys=False).strip().split("\n")


def _what(record: RunRecord) -> str:
    size = f" {count_text(record.parameters)} parameters." if record.parameters else ""
    return SENTENCES[record.kind] + size


def _facts(record: RunRecord) -> list[str]:
    facts = plain(record.data_facts)
    found = []
    for split, numbers in (facts.get("splits") or {}).items():
        said = ", ".join(f"{_number(value)} {name.replace('_', ' ')}" for name, value in numbers.items())
        found.append(f"{split}: {said}")
    for name, value in facts.items():
        if isinstance(value, (int, float, str)) and not isinstance(value, bool):
            found.append(f"{name.replace('_', ' ')}: {_number(value)}")
    return found


def _made(record: RunRecord) -> list[str]:
    found = [f"trained in {seconds_text(record.seconds)}"] if record.seconds else []
    for title, facts in (("hardware", record.hardware), ("versions", record.versions)):
        if facts:
            found.append(f"{title}: " + ", ".join(f"{name} {_number(value)}" for name, value in plain(facts).items()))
    if record.created:
        found.append(f"made on {record.created}")
    return found


def _limits(record: RunRecord) -> list[str]:
    """What was not measured, said so: nothing here is a claim about what it would be."""
    limits = [
        "Measured on rows like its training rows: other text, times or languages were not tried.",
        "Fairness between groups of people, robustness to attack, leaking of training text: not measured.",
    ]
    if record.kind == "pretraining":
        limits[0] = "Measured by guessing hidden words of held-out text only; no task was tried."
    if not record.comparison:
        limits.append("No baseline was run beside it.")
    if record.kind == "classification" and not record.calibration:
        limits.append("Its probabilities were not checked against how often they are right.")
    overlap = record.data_facts.get("splits", {}).get(record.split, {}).get("also in train")
    if overlap:
        limits.append(f"{_number(overlap)} {record.split} rows stand in the training rows too.")
    rare = [line["label"] for line in record.per_class if line.get("support", 0) < 30]
    if rare:
        shown = ", ".join(f"`{label}`" for label in rare[:10]) + (" …" if len(rare) > 10 else "")
        limits.append(f"Fewer than 30 {record.split} rows, so the figures for these labels are rough: {shown}.")
    return limits


def _number(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if isinstance(value, float) else str(value)


def _cell(text: str) -> str:
    """Text that cannot end a table cell."""
    return str(text).replace("|", "\\|").replace("\n", " ")
