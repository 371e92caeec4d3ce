"""The record of one run: every figure the report and the card show, as plain parts, to JSON and back."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from encodery.evaluation.intervals import Metric

RunKind = Literal[
    "pretraining",
    "classification",
    "multilabel",
    "regression",
    "ordinal",
    "answers",
    "choices",
    "writing",
    "language",
    "vectors",
    "ranking",
    "tagging",
]


@dataclass(frozen=True)
class ComparisonRow:
    """One line of the table of what was compared: a baseline, or this run, with its cost. `gain` is what this run has
    more than it (of errors: less is better, so a good one is below 0), on the same rows."""

    name: str
    metric: Metric
    parameters: int | None = None
    seconds: float | None = None
    note: str = ""
    gain: Metric | None = None

    def to_dict(self) -> dict[str, Any]:
        gain = self.gain.to_dict() if self.gain is not None else None
        values = {part.name: getattr(self, part.name) for part in fields(self)}
        return values | {"metric": self.metric.to_dict(), "gain": gain}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ComparisonRow:
        return cls(
            values["name"],
            Metric.from_dict(values["metric"]),
            values.get("parameters"),
            values.get("seconds"),
            values.get("note") or "",
            Metric.from_dict(values["gain"]) if values.get("gain") else None,
        )


@dataclass(frozen=True)
class RunRecord:
    """What a run did and how good it is. A missing part leaves its section of the report out.

    `comparison` ends with this run itself. `curves` are journal rows: `step` and any of `tokens`, `seconds`,
    `loss`, `validation_loss`, `learning_rate`, `metric`; a row has what was measured at that step.
    `confusion` [C][C] counts rows by true (line) and predicted (column) label, in the order of `labels`.
    `examples` are written texts: "source", "reference", "written", "where" and how good it is ("chrf").
    `per_class`, `errors` and `scatter` are made by `evaluation.mistakes`. `calibration` = {"before": bins,
    "after": bins, "temperature": T, "ece_before": x, "ece_after": x}, bins from
    `evaluation.calibration.reliability_bins`.

    `data_facts`: "splits" = {split: {fact: number}}, "lengths" = {"edges": [n + 1], "counts": [n], "limit":
    x, "unit": "tokens"}, "label_counts" = {label: rows}, "bad_rows" = [{"where", "why"}], and any other fact:
    number or text.
    """

    name: str
    kind: RunKind = "classification"
    headline: str | None = None
    command: str = ""
    created: str = ""
    seconds: float | None = None
    parameters: int | None = None
    comparison: list[ComparisonRow] = field(default_factory=list)
    metrics: dict[str, dict[str, Any]] = field(default_factory=dict)
    main_metric: str = ""
    curves: list[dict[str, float | None]] = field(default_factory=list)
    entropy_line: float | None = None
    labels: list[str] = field(default_factory=list)
    confusion: list[list[int]] | None = None
    per_class: list[dict[str, Any]] = field(default_factory=list)
    calibration: dict[str, Any] | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)
    examples: list[dict[str, Any]] = field(default_factory=list)
    scatter: list[list[float]] | None = None
    data_facts: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, Any] = field(default_factory=dict)
    diagnoses: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    language: str | None = None
    split: Literal["test", "validation"] = "test"

    def metric(self, name: str = "") -> Metric:
        """The metric of this name, or the main one; without a value when the run has none."""
        return Metric.from_dict(plain(self.metrics.get(name or self.main_metric) or {}))

    def to_json(self) -> str:
        """JSON text: numpy becomes plain, a number that is not finite becomes null (JSON has none)."""
        parts = {part.name: getattr(self, part.name) for part in fields(self)}
        return json.dumps(plain(parts), ensure_ascii=False, indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """The record back. Parts that a later version added are left out rather than refused."""
        known = {part.name for part in fields(cls)}
        values = {name: value for name, value in json.loads(text).items() if name in known}
        values["comparison"] = [ComparisonRow.from_dict(row) for row in values.get("comparison") or []]
        return cls(**values)


def plain(value: Any) -> Any:
    """Only what JSON has: numpy numbers and arrays, metrics, rows, paths and tuples become plain values."""
    if isinstance(value, (Metric, ComparisonRow)):
        return plain(value.to_dict())
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, (bool, int, str)):
        return value
    return str(value)
