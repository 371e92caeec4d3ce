"""A trained model on labelled rows: every metric with its interval, the confusions, the worst mistakes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from encodery.bundle import read_bundle
from encodery.config import load_config
from encodery.data.corpus import HeldRows, Reading, held_rows, length_facts, length_histogram
from encodery.data.sources import DataConfig
from encodery.durable import replace_file
from encodery.errors import DataError, WeightsError
from encodery.evaluation.evaluate import masked_loss
from encodery.evaluation.intervals import Metric
from encodery.evaluation.judges.judge import Judge
from encodery.evaluation.judges.of_tasks import judge_of
from encodery.evaluation.record import RunRecord
from encodery.evaluation.report import render_report
from encodery.evaluation.results import base_record
from encodery.evaluation.settings import EvaluationConfig
from encodery.model import count
from encodery.use.predict import Predictor, load

_COLUMNS = ("text", "pair", "label")
_BESIDE = ("target", "negatives", "answers", "choices", "tags", "spans")
"""Columns of fields that a row may carry: they are read as in training."""


@dataclass(frozen=True)
class Columns:
    """Which columns of the file to read; None: those that the model was trained with."""

    text: str | None = None
    pair: str | None = None
    label: str | None = None


def evaluate(
    folder: str | Path,
    files: str | Path | Sequence[str | Path],
    *,
    columns: Columns = Columns(),
    evaluation: EvaluationConfig | None = None,
    seed: int = 1,
    precision: str = "fp32",
    command: str = "",
) -> RunRecord:
    """Score the model in `folder` on the rows of `files` (paths, folders, globs or Hub names).

    Columns that are not named are those of the model's own training. Of a model that is pretrained only, the loss
    and the share of hidden tokens guessed right are measured, with 15 % of them hidden. In a `precision` other than
    fp32 the notes say how its answers differ from those of fp32. Raises WeightsError for a damaged folder; DataError
    for rows that cannot be read, and for a label that the model does not know.
    """
    began = time.perf_counter()
    predictor = load(folder, precision=precision)
    task = predictor.trained.task
    evaluation = evaluation or EvaluationConfig()
    given = [files] if isinstance(files, str | Path) else list(files)
    data = _data(Path(folder), [str(file) for file in given], columns, paired=task.paired)
    if task.kind in ("vectors", "replaced"):
        raise WeightsError(
            f"{folder} was not trained on labels, so there is nothing to score",
            fix="fine-tune it first (start_from)",
        )
    answerer, notes = predictor.answerer, []
    reading = Reading(data, Path(), seed, answerer.labels, Path(), predictor.trained.knowledge, answerer.fields(data))
    held = held_rows(reading, "test", predictor.trained.tokenizer, list(task.labels), answerer.known())
    if task.kind == "masked":
        found = _masked(predictor, held)
        if precision != "fp32":
            loss = _masked(Predictor(predictor.trained), held)["metrics"]["masked_loss"]["value"]
            notes.append(f"{precision}: the masked loss in fp32 is {loss:.4f}.")
    else:
        judge = judge_of(task, predictor.trained.tokenizer)
        answers = _found(judge, predictor, held)
        found = judge.detail(answers, held, evaluation, seed)
        found["diagnoses"] = judge.diagnoses(answers)
        if precision != "fp32":
            precise = _found(judge, Predictor(predictor.trained), held)
            notes.append(f"{precision}: {judge.difference(answers, precise, held)}.")
    return replace(
        base_record(_name(folder), task, command),
        seconds=time.perf_counter() - began,
        parameters=count(predictor.trained.model),
        data_facts=_facts(predictor, held),
        notes=[f"{len(held.rows):,} rows of {', '.join(map(str, given))}.", *notes],
        **found,
    )


def _found(judge: Judge, predictor: Predictor, held: HeldRows) -> Any:
    """What the model says of the rows, in the order of the data."""
    return judge.found(predictor.model, held, predictor.loader(held.store), predictor.autocast)


def _name(folder: str | Path) -> str:
    return Path(folder).resolve().name


def _data(folder: Path, files: list[str], columns: Columns, *, paired: bool) -> DataConfig:
    """The files as test data, with the columns asked for over those of the training."""
    config = read_bundle(folder).metrics.get("config") or {}
    trained = config.get("data") or {}
    chosen: dict[str, Any] = {name: trained[name] for name in (*_COLUMNS, *_BESIDE) if trained.get(name)}
    if isinstance(trained.get("label_separator"), str):
        chosen["label_separator"] = trained["label_separator"]
    if (trained.get("knowledge") or {}).get("mentions"):
        chosen["knowledge"] = {"mentions": trained["knowledge"]["mentions"]}
    chosen |= {name: value for name in _COLUMNS if (value := getattr(columns, name)) is not None}
    if paired and not chosen.get("pair"):
        raise DataError("this model was trained on pairs of texts", fix="name the column of the second text: --pair")
    if not paired and columns.pair is not None:
        raise DataError("--pair: this model was trained on single texts", fix="leave --pair out")
    if not paired:
        chosen.pop("pair", None)
    sources = [{"path": file} for file in files]
    given = {**chosen, "train": sources, "test": sources, "validation_share": 0.0}
    return load_config(DataConfig, None, [], environment={}, defaults=given).config


def _masked(predictor: Predictor, held: HeldRows) -> dict[str, Any]:
    tokenizer = predictor.trained.tokenizer
    found = masked_loss(predictor.model, predictor.loader(held.store), tokenizer, predictor.autocast)
    metrics = {f"masked_{name}": Metric(found[name], None, None).to_dict() for name in ("loss", "accuracy")}
    return {"metrics": metrics, "main_metric": "masked_accuracy"}


def _facts(predictor: Predictor, held: HeldRows) -> dict[str, Any]:
    limit = predictor.trained.model.config.encoder.max_length
    facts: dict[str, Any] = {
        "splits": {"scored": length_facts(held.store, predictor.trained.maker())},
        "lengths": length_histogram(held.store, limit),
        "bad_rows": [
            {"where": ", ".join(found["places"][:5]), "why": f"{kind} ({found['count']:,})"}
            for kind, found in held.ledger.get("problems", {}).items()
        ],
    }
    if "label_counts" in held.store.facts:
        facts["label_counts"] = held.store.facts["label_counts"]
    return facts


def write_evaluation(record: RunRecord, *, metrics: Path | None, report: Path | None) -> list[Path]:
    """Write the figures as JSON and the report as HTML, where asked. Raises DataError when a file cannot be written."""
    contents = {
        path: render() for path, render in ((metrics, record.to_json), (report, lambda: render_report(record))) if path
    }
    for path, content in contents.items():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content.encode())
        except OSError as error:
            raise DataError(f"cannot write {path}: {error.strerror}", fix="choose another place") from error
    return list(contents)
