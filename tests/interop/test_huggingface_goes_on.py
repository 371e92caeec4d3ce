"""Converted models are starting points as any other: they go on pretraining, are fine-tuned, and go back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_cases import CASES, WORDS, make_folder

from conftest import make_texts
from encodery.interop.huggingface import read_huggingface, write_huggingface
from encodery.training.start import train

pytestmark = [pytest.mark.filterwarnings("ignore"), pytest.mark.slow]

ROBERTA = next(case for case in CASES if case.family == "xlm-roberta")  # with another activation in its head
MODERN = next(case for case in CASES if case.family == "modernbert")
T5 = next(case for case in CASES if case.family == "t5")


def rows(path: Path, number: int) -> Path:
    """Labelled texts, some of them longer than the model can hold."""
    texts = make_texts(number, seed=1, most_words=60)
    lines = [
        json.dumps({"text": " ".join(WORDS[len(word) % len(WORDS)] for word in text.split()), "label": label})
        for text, label in texts
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def recipe(folder: Path, start: Path, objective: str) -> Path:
    labels = "" if objective == "masked" else ", label: label"
    text = f"""
name: on
start_from: {start}
data: {{train: [{rows(folder / "train.jsonl", 60)}], text: text{labels}}}
objective: {objective}
training: {{budget: 2 steps, batch_tokens: 256, compile: "off", precision: fp32}}
evaluation: {{compare: [majority]}}
"""
    file = folder / f"{objective}.yaml"
    file.write_text(text, encoding="utf-8")
    return file


@pytest.mark.parametrize("case", [ROBERTA, MODERN, T5], ids=str)
def test_a_converted_model_goes_on_and_goes_back(case: object, tmp_path: Path) -> None:
    converted = read_huggingface(make_folder(case, tmp_path / "theirs"))  # type: ignore[arg-type]
    converted.save(tmp_path / "model", card="", metrics={})
    tuned = train(recipe(tmp_path, tmp_path / "model", "classify"), f"output={tmp_path / 'tuned'}").trained
    assert write_huggingface(tuned, tmp_path / "back") == case.family  # type: ignore[attr-defined]
    if converted.task.kind != "masked":
        return
    on = train(recipe(tmp_path, tmp_path / "model", "masked"), f"output={tmp_path / 'on'}").trained
    assert on.model.config.readout == converted.model.config.readout
    assert write_huggingface(on, tmp_path / "on-back") == case.family  # type: ignore[attr-defined]
    assert read_huggingface(tmp_path / "on-back").model.config.readout == converted.model.config.readout
