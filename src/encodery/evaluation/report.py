"""report.html: one run on one page that needs nothing from outside itself."""

from __future__ import annotations

from typing import Any

from encodery.evaluation import charts
from encodery.evaluation.charts import Line
from encodery.evaluation.mistakes import top_confusions
from encodery.evaluation.record import RunRecord, plain
from encodery.evaluation.wording import (
    AS_PERCENT,
    count_text,
    headline,
    interval_text,
    meaning_of,
    seconds_text,
    shortened,
    value_text,
    verdict,
)

READABLE_LABELS = 20  # above, the confusion matrix becomes a list of the most frequent confusions
GUESSES = ("majority", "mean")
FACTS_WITH_A_PLACE = {"splits", "lengths", "label_counts", "bad_rows"}


def render_report(record: RunRecord) -> str:
    """The page as HTML text: sections whose part of the record is missing are left out, all text is escaped.

    Style, charts (inline SVG) and the few lines of script (sorting, reading values off curves) are inside; a
    content security policy forbids the page to load anything.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    record = RunRecord.from_json(record.to_json())  # plain parts, whatever the record was made of
    room = Environment(
        loader=PackageLoader("encodery.evaluation", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    room.filters |= {
        "count": count_text,
        "seconds": seconds_text,
        "shortened": shortened,
        "percent": charts.percent,
        "humanised": humanised,
    }
    page = room.get_template("report.html.jinja")
    return page.render(
        record=record,
        headline=headline(record),
        verdict=verdict(record),
        summary=_summary(record),
        comparison=_comparison(record),
        metrics=_metrics(record),
        curves=_curves(record),
        confusion=_confusion(record),
        calibration=_calibration(record),
        scatter=charts.scatter_chart(record.scatter or []),
        data=_data(record.data_facts),
        config=_as_yaml(record.config),
        setting=[(title, facts) for title, facts in _setting(record) if facts],
    )


def humanised(name: str) -> str:
    """`bad_rows` -> `bad rows`: a key as a person reads it."""
    return str(name).replace("_", " ")


def _summary(record: RunRecord) -> list[str]:
    """The line below the headline: what kind of run, when, how long, how large, on what."""
    kinds = {
        "pretraining": "pretraining",
        "classification": f"classification into {len(record.labels)} labels" if record.labels else "classification",
        "multilabel": f"any of {len(record.labels)} labels" if record.labels else "several labels a text",
        "regression": "a number for every text",
        "language": "a language model",
        "writing": "a text written for every text",
        "ordinal": f"one of {len(record.labels)} labels that have an order",
        "answers": "answers that stand in the text, or none",
        "choices": "one of several options beside a text",
        "vectors": "vectors of texts, to be compared",
        "ranking": "candidates of a query, put in order",
        "tagging": "tags of words or characters",
    }
    size = f"{count_text(record.parameters)} parameters" if record.parameters else ""
    hardware = record.hardware.get("name") or record.hardware.get("cpu") or record.hardware.get("device") or ""
    parts = [
        kinds.get(record.kind, record.kind),
        size,
        seconds_text(record.seconds),
        str(hardware),
        record.created,
    ]
    return [part for part in parts if part]


def _comparison(record: RunRecord) -> dict[str, Any] | None:
    """The rows with their places (in %) on one scale, outside of which a mere guess far off stays."""
    rows = [row for row in record.comparison if row.metric.value is not None]
    if not rows:
        return None
    name = record.main_metric
    ends = [[end for end in (row.metric.low, row.metric.value, row.metric.high) if end is not None] for row in rows]
    close = [end for row, found in zip(rows, ends) for end in found if row.name.lower() not in GUESSES]
    everything = [end for found in ends for end in found]
    if close and max(close) > min(close) and max(everything) - min(everything) > 3 * (max(close) - min(close)):
        everything = close
    low, high = min(everything), max(everything)
    spare = (high - low) * 0.08 or abs(high) * 0.05 or 1.0
    low, high = low - spare, high + spare

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    shown = []
    for row in rows:
        value = row.metric.value if row.metric.value is not None else low
        start = row.metric.low if row.metric.low is not None else value
        end = row.metric.high if row.metric.high is not None else value
        outside = -1 if end < low else 1 if start > high else 0
        shown.append({
            "row": row, "value": value_text(value, name), "interval": interval_text(row.metric, name),
            "at": place(value), "start": place(start), "wide": round(place(end) - place(start), 2),
            "outside": outside, "own": row is rows[-1] and len(rows) > 1,
        })  # fmt: skip
    marks = [{"at": place(tick), "text": value_text(tick, name)} for tick in charts.ticks(low, high, 4)]
    return {"rows": shown, "marks": marks, "title": meaning_of(name).title, "better": meaning_of(name).better}


def _metrics(record: RunRecord) -> list[dict[str, str]]:
    shown = []
    for name in record.metrics:
        metric, meaning = record.metric(name), meaning_of(name)
        says = meaning.says + (f" ({meaning.better} is better)" if meaning.says else "")
        shown.append({
            "title": meaning.title, "value": value_text(metric.value, name),
            "interval": interval_text(metric, name), "says": says, "note": metric.note,
            "main": "main" if name == record.main_metric else "",
        })  # fmt: skip
    return shown


def _curves(record: RunRecord) -> list[dict[str, Any]]:
    """Loss, the main metric and the learning rate over the steps, each where the journal has it."""
    rows = [row for row in plain(record.curves) if row.get("step") is not None]

    def line(name: str, key: str, look: str) -> Line:
        points = [(float(row["step"]), float(row[key])) for row in rows if row.get(key) is not None]
        return Line(name, [x for x, _ in points], [y for _, y in points], look)

    title = meaning_of(record.main_metric).title if record.main_metric else "metric"
    level = None
    if record.entropy_line is not None:
        level = record.entropy_line, f"guessing by frequency: {record.entropy_line:.2f}"
    # A linear answer beside the encoder's was fitted before: it is validated, but the loss of training is without it.
    objective = plain(record.config).get("objective") or {}
    both = bool(objective.get("ngrams") or objective.get("linear"))
    loss = [
        line("training, of the encoder alone" if both else "training", "loss", "s1"),
        line("validation, of both answers" if both else "validation", "validation_loss", "s2"),
    ]
    unit = "" if record.kind == "regression" else "nats"
    y_text = charts.percent if record.main_metric in AS_PERCENT else charts.short
    wanted = [
        ("Loss", loss, {"y_title": unit, "level": level}),
        (
            f"Validation {title}",
            [line(f"validation {title}", "metric", "s1")],
            {"y_title": "", "y_text": y_text},
        ),
        ("Learning rate", [line("learning rate", "learning_rate", "s3")], {"y_title": "", "from_zero": True}),
    ]
    shown = []
    for heading, lines, options in wanted:
        lines = [found for found in lines if found.x]
        drawing = charts.line_chart(lines, x_title="step", **options)
        if drawing:
            shown.append({"title": heading, "lines": lines, "drawing": drawing})
    return shown


def _confusion(record: RunRecord) -> dict[str, Any] | None:
    if not record.confusion or len(record.confusion) != len(record.labels):
        return None
    if len(record.labels) > READABLE_LABELS:
        return {"top": top_confusions(record.confusion, record.labels, 20), "rows": []}
    rows = []
    for true, counts in enumerate(record.confusion):
        support = sum(counts)
        cells = []
        for guess, count in enumerate(counts):
            share = count / support if support else 0.0
            # A mistake of 20 % is as visible as a right answer of 100 %: mistakes are what one looks for.
            tint = share if true == guess else min(1.0, share * 4) if count else 0.0
            cells.append(
                {
                    "count": count,
                    "share": share,
                    "right": true == guess,
                    "tint": round(0.85 * tint, 3),
                    "guess": record.labels[guess],
                }
            )
        rows.append({"label": record.labels[true], "cells": cells, "support": support})
    tilted = len(record.labels) > 6 or any(len(label) > 12 for label in record.labels)
    return {"rows": rows, "top": top_confusions(record.confusion, record.labels, 5), "tilted": tilted}


def _calibration(record: RunRecord) -> dict[str, Any] | None:
    found = plain(record.calibration or {})
    drawing = charts.reliability_chart(found.get("before") or [], found.get("after") or [])
    if not drawing:
        return None
    known = {"temperature", "ece_before", "ece_after"}
    return {"drawing": drawing, "after": bool(found.get("after"))} | {key: found.get(key) for key in known}


def _data(facts: dict[str, Any]) -> dict[str, Any] | None:
    if not facts:
        return None
    facts = plain(facts)
    splits = facts.get("splits") or {}
    columns: list[str] = []
    for split in splits.values():
        columns += [name for name in split if name not in columns]
    lengths = facts.get("lengths") or {}
    unit = lengths.get("unit") or "tokens"
    labels = sorted((facts.get("label_counts") or {}).items(), key=lambda pair: -pair[1])
    most = max((count for _, count in labels), default=1)
    return {
        "splits": splits,
        "columns": columns,
        "lengths": charts.histogram(
            lengths.get("edges") or [],
            lengths.get("counts") or [],
            x_title=f"{unit} a text",
            limit=lengths.get("limit"),
        ),
        "labels": [(label, count, round(100 * count / most, 1)) for label, count in labels[:20]],
        "more_labels": max(0, len(labels) - 20),
        "bad_rows": facts.get("bad_rows") or [],
        "other": [(name, _said(value)) for name, value in facts.items() if name not in FACTS_WITH_A_PLACE],
    }


def _said(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}"
    if isinstance(value, list):
        return ", ".join(_said(part) for part in value)
    if isinstance(value, dict):
        return ", ".join(f"{humanised(key)} {_said(part)}" for key, part in value.items())
    return str(value)


def _setting(record: RunRecord) -> list[tuple[str, list[tuple[str, str]]]]:
    """Hardware and versions as lines of name and value."""
    return [
        ("Hardware", [(humanised(name), _said(plain(value))) for name, value in record.hardware.items()]),
        ("Versions", [(str(name), _said(plain(value))) for name, value in record.versions.items()]),
    ]


def _as_yaml(config: dict[str, Any]) -> str:
    import yaml

    return yaml.safe_dump(plain(config), allow_unicode=True, sort_keys=False, width=100).strip() if config else ""
