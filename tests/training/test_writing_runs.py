"""Whole runs that write: recipe, report, model folder, texts, scores; and language models."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import encodery
from conftest import compared_in_pairs, make_texts
from encodery.errors import ConfigError, DataError
from encodery.trained import Task
from encodery.use.score import evaluate


def rows_file(path: Path, number: int, *, seed: int) -> Path:
    """Sources of up to eight words; the target has the first two."""
    rows = []
    for text, _ in make_texts(number, seed=seed, most_words=8):
        rows.append(json.dumps({"text": text, "target": [" ".join(text.split()[:2]), "another"]}))
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")
    return path


def trained(folder: Path, *changes: str, objective: dict[str, Any] | None = None, encoder: str = ", heads: 2") -> Any:
    rows_file(folder / "train.jsonl", 150, seed=1)
    rows_file(folder / "test.jsonl", 30, seed=2)
    given = json.dumps(objective or {"kind": "write", "tried": 5, "generation": {"beam": 2, "max_tokens": 6}})
    recipe = f"""
name: writer
output: {folder}/runs/writer
data: {{train: {folder}/train.jsonl, validation: {folder}/test.jsonl, test: {folder}/test.jsonl, target: target}}
tokenizer: {{kind: byte_bpe, vocab_size: 400}}
encoder: {{width: 32, depth: 1, max_length: 64{encoder}}}
objective: {given}
training: {{budget: 12 steps, batch_tokens: 512, validations: 2, precision: fp32, optim: {{lr: 5e-3}}}}
evaluation: {{resamples: 100, errors: 4}}
"""
    (folder / "recipe.yaml").write_text(recipe, encoding="utf-8")
    return encodery.train(folder / "recipe.yaml", *changes)


def test_a_run_that_writes(tmp_path: Path) -> None:
    """Own words on the target's side and a recurrent decoder, the mean of the last weights, and all that uses it."""
    objective = {
        "kind": "write",
        "metric": "rouge_l",
        "tried": 5,
        "tokenizer": {"kind": "characters", "vocab_size": 64},
        "decoder": {"vocabulary": "own", "stack": {"kind": "recurrent", "width": 32, "depth": 1, "max_length": 32}},
        "generation": {"beam": 2, "max_tokens": 6},
    }
    result = trained(tmp_path, "training.average_last=2", objective=objective)
    record, folder = result.record, result.folder
    assert record.kind == "writing" and record.main_metric == "rouge_l"
    assert [row.name for row in record.comparison] == ["first sentence", "memory (TF-IDF)", "encoder"]
    compared_in_pairs(record)
    assert {"bleu", "chrf", "perplexity", "bits_per_byte", "written_exactly"} <= set(record.metrics)
    assert len(record.examples) == 4 and set(record.examples[0]) >= {"source", "reference", "written"}
    assert "What it writes" in (folder / "report.html").read_text(encoding="utf-8")
    journal = [json.loads(line) for line in (folder / "journal.jsonl").read_text().splitlines()]
    assert any("mean_of" in row for row in journal)
    tried = [row for row in journal if row["kind"] == "validation" and "mean_of" not in row]
    assert sum("validation_loss" in row for row in record.curves) == len(tried)
    model = encodery.load(folder)
    texts = ["the film", "a river and a house"]
    (one, two) = model.write(texts, beam=3, max_tokens=4)
    assert len(one) <= 4 and len(two) <= 4  # characters
    assert model.write(texts, sample=True, seed=3) == model.write(texts, sample=True, seed=3)
    assert len(next(iter(model.stream(texts, top=2)))["others"]) == 1
    with pytest.raises(ConfigError, match="beam"):
        model.write(texts, beam=0)
    again = evaluate(folder, tmp_path / "test.jsonl")
    assert again.metrics["rouge_l"]["value"] == pytest.approx(record.metrics["rouge_l"]["value"], abs=0.02)


def test_shared_words_with_a_pointer_and_rows_without_target(tmp_path: Path) -> None:
    objective = {"kind": "write", "tried": 0, "decoder": {"pointer": True}, "generation": {"max_tokens": 4}}
    with pytest.raises(DataError, match="target"):
        trained(tmp_path, "data.target=nothing", objective=objective)
    result = trained(tmp_path, objective=objective)
    assert result.trained.model.readout.pointer is not None
    assert encodery.load(result.folder, precision="bf16").write("the film and the house")
    other = encodery.load(result.folder)
    other.trained.task = Task("classify", ("a", "b"))
    with pytest.raises(ConfigError, match="does not write"):
        other.write("x")


@pytest.mark.parametrize("encoder", [", heads: 2, pattern: causal", ", kind: recurrent, directions: forward"])
def test_a_language_model(tmp_path: Path, encoder: str) -> None:
    result = trained(tmp_path, objective={"kind": "causal"}, encoder=encoder)
    record = result.record
    assert record.main_metric == "bits_per_byte" and [row.name for row in record.comparison] == ["unigram", "encoder"]
    compared_in_pairs(record)
    model = encodery.load(result.folder)
    (text,) = model.write(["the film"], beam=2, max_tokens=5)
    assert text.startswith("the film")
    with pytest.raises(DataError, match="prompt 1 has"):
        model.write([" river" * 200])
    with pytest.raises(ConfigError, match=r"objective\.kind: causal needs"):
        trained(tmp_path, objective={"kind": "causal"})
