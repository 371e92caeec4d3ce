"""Whole runs from the command line: interrupted by a signal and taken up again, they end in the same files."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import encodery
from encodery.errors import DataError
from encodery.training.loop import Fit
from encodery.training.precision import Precision
from encodery.use.predict import Predictor

RECIPE = """\
name: small
seed: 4
data: {{train: {train}, validation: {validation}, label: label}}
tokenizer: {{vocab_size: 150}}
encoder: {{width: 32, depth: 2, heads: 2, max_length: 64}}
cache: {cache}
pretrain:
  training: {{budget: 60 steps, batch_tokens: 256, precision: fp32, validations: 3, optim: {{kind: muon}}}}
objective: {{kind: classify}}
training: {{budget: 80 steps, batch_tokens: 256, precision: fp32, validations: 4, average: 0.9}}
evaluation: {{compare: [majority], resamples: 100}}
"""


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "encodery", *map(str, arguments)]


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "200"}


def steps_in(folder: Path) -> int:
    path = folder / "journal.jsonl"
    return path.read_text(encoding="utf-8").count('"kind": "step"') if path.exists() else 0


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def recipe(tmp_path: Path, text_file: Callable[..., Path]) -> Path:
    path = tmp_path / "recipe.yaml"
    given = {"train": text_file("train.jsonl", 200), "validation": text_file("dev.jsonl", 60, seed=5)}
    path.write_text(RECIPE.format(**given, cache=tmp_path / "cache"), encoding="utf-8")
    return path


@pytest.mark.slow
def test_a_run_ended_by_signals_and_resumed_gives_the_same_model(recipe: Path, tmp_path: Path) -> None:
    """Row 7, through the front door: SIGTERM in the pretraining, Ctrl-C in the fine-tuning."""
    whole, folder = tmp_path / "whole", tmp_path / "broken"
    encodery.train(recipe, f"output={whole}")
    # (signal, the journal to watch, after how many rows, arguments)
    plan: list[tuple[signal.Signals, Path, int, list[object]]] = [
        (signal.SIGTERM, folder / "pretrained", 6, ["train", recipe, f"output={folder}"]),
        (signal.SIGINT, folder, 9, ["resume", folder]),
    ]
    for number, watched, rows, arguments in plan:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        process = subprocess.Popen(command(*arguments), env=environment(), **pipes)
        deadline = time.monotonic() + 200
        while steps_in(watched) < rows and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.002)
        process.send_signal(number)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 128 + number, errors
        assert f"encodery resume {folder}" in errors.decode()
        assert "Traceback" not in errors.decode()
        assert not (folder / "config.json").exists()
    encodery.resume(folder)
    for part in ("", "pretrained"):
        for name in ("model.safetensors", "tokenizer.json", "config.json"):
            assert digest(folder / part / name) == digest(whole / part / name), name
    assert facts(folder) == facts(whole)
    with pytest.raises(DataError, match="complete"):
        encodery.resume(folder)


def facts(folder: Path) -> list[dict[str, Any]]:
    """What the journal and the metrics say, but for times."""
    kept = ("step", "tokens", "loss", "learning_rate", "validation_loss", "metric", "gradient_norm", "kept_step")
    found = []
    for part in ("pretrained", ""):
        for line in (folder / part / "journal.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["kind"] in ("step", "validation"):
                found.append({key: row[key] for key in kept if key in row})
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return [*found, metrics["metrics"], *({**row, "seconds": 0} for row in metrics["comparison"])]


def test_a_run_says_which_rows_it_is_scored_on_were_learned(recipe: Path, tmp_path: Path) -> None:
    file = tmp_path / "train.jsonl"
    texts = [json.loads(line)["text"] for line in file.read_text(encoding="utf-8").splitlines()]
    lines = [*file.read_text(encoding="utf-8").splitlines()[:30], json.dumps({"text": "a new one", "label": "good"})]
    (tmp_path / "test.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    changes = [
        f"data.test={tmp_path / 'test.jsonl'}",
        "training.budget=1 steps",
        "pretrain=null",
        f"output={tmp_path / 'run'}",
    ]
    result = encodery.train(recipe, *changes)
    splits = result.record.data_facts["splits"]
    assert (splits["test"]["also in train"], splits["test"]["rows"]) == (30, 31)
    held = [json.loads(line)["text"] for line in (tmp_path / "dev.jsonl").read_text(encoding="utf-8").splitlines()]
    assert splits["validation"]["also in train"] >= sum(text in texts for text in held)
    assert any("97% of the test rows (30)" in line and "scores flatter" in line for line in result.record.diagnoses)
    assert "test rows stand in the training rows too" in (result.folder / "card.md").read_text(encoding="utf-8")


def test_the_same_recipe_gives_the_same_model_twice(recipe: Path, tmp_path: Path) -> None:
    changes = ["pretrain=null", "training.budget=5 steps", "evaluation.compare=[]"]
    one, other = (encodery.train(recipe, *changes, f"output={tmp_path / name}") for name in ("a", "b"))
    assert digest(one.folder / "model.safetensors") == digest(other.folder / "model.safetensors")
    third = encodery.train(recipe, *changes, "seed=5", f"output={tmp_path / 'c'}")
    assert digest(one.folder / "model.safetensors") != digest(third.folder / "model.safetensors")


def test_each_stage_computes_in_the_precision_of_its_own_section(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scratch encoder is fine-tuned like the other one; pretraining has its own choice."""
    seen: list[torch.dtype] = []

    def recorded(model: Any, objective: Any, loader: Any, config: Any, precision: Precision, *more: Any) -> Fit:
        seen.append(precision.dtype)
        return Fit(model, objective, loader, config, precision, *more)

    monkeypatch.setattr("encodery.training.run.Fit", recorded)
    short = ["training.budget=2 steps", "pretrain.training.budget=2 steps", "evaluation.compare=[scratch]"]
    encodery.train(recipe, f"output={tmp_path / 'run'}", "pretrain.training.precision=bf16", *short)
    assert seen == [torch.bfloat16, torch.float32, torch.float32]


def test_the_report_says_what_the_encoder_and_the_ngrams_get_alone(recipe: Path, tmp_path: Path) -> None:
    """Or nobody could tell which of the two does the work. The model comes back with its letters."""
    short = ["training.budget=2 steps", "pretrain=null", "objective.ngrams=2", "objective.letters=3"]
    result = encodery.train(recipe, f"output={tmp_path / 'run'}", *short)
    record = json.loads((tmp_path / "run" / "metrics.json").read_text(encoding="utf-8"))
    assert any("encoder alone gets" in line and "n-grams alone" in line for line in record["notes"])
    texts = ["a fine film", "a dull film"]
    assert encodery.load(tmp_path / "run").predict(texts) == Predictor(result.trained).predict(texts)
