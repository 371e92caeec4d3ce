"""What is said before training is true: counts, copies, overlaps, sizes, the packed batch, the learning check."""

from __future__ import annotations

import json
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest

from conftest import make_texts
from encodery.config import Resolved, load_config
from encodery.errors import DataError
from encodery.training import preview, preview_data, preview_model
from encodery.training.preflight import check_before
from encodery.training.recipe import Recipe

RECIPE = """\
data: {train: train.jsonl, validation: dev.jsonl, label: label}
tokenizer: {vocab_size: 150}
encoder: {width: 64, depth: 1, heads: 2, max_length: 32}
pretrain: {training: {batch_tokens: 256, precision: fp32}}
objective: classify
training: {batch_tokens: 256, precision: fp32}
"""


def write_rows(path: Path, rows: list[tuple[str, str]]) -> None:
    path.write_text("".join(json.dumps({"text": text, "label": label}) + "\n" for text, label in rows))


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    write_rows(tmp_path / "train.jsonl", make_texts(150))
    write_rows(tmp_path / "dev.jsonl", make_texts(40, seed=1))
    path = tmp_path / "r.yaml"
    path.write_text(RECIPE)
    return path


def resolved(recipe: Path, *overrides: str) -> Resolved[Recipe]:
    return load_config(Recipe, recipe, overrides, environment={})


def test_counts_copies_and_overlap(recipe: Path) -> None:
    rows = make_texts(100)
    text, label = rows[0]
    other = "bad" if label == "good" else "good"
    copies = [(f"  {text.upper()} ", label), (text, other)]
    write_rows(recipe.parent / "train.jsonl", rows + copies)
    write_rows(recipe.parent / "dev.jsonl", [rows[5], *make_texts(20, seed=1)])
    view = preview_data.look_at_data(resolved(recipe))
    train, validation = view.splits
    assert train.rows == 102
    assert train.labels == Counter(label for _, label in rows + copies)
    assert (train.copies, train.contradictions) == (2, 1)
    assert train.repeated[0].count == 3
    assert train.repeated[0].where.endswith("train.jsonl:1")
    assert (validation.rows, validation.in_train) == (21, 1)
    assert validation.shared[0].where.endswith("dev.jsonl:1")
    assert sum(train.characters.values()) == sum(train.tokens.values()) == 102
    assert train.too_long == sum(count for length, count in train.tokens.items() if length > 32) > 0
    said = " ".join(view.remarks)
    assert "1 of 21 validation texts" in said
    assert "more than one label" in said


def test_validation_that_knows_what_the_test_does_not(recipe: Path) -> None:
    def write(name: str, questions: range, step: int) -> None:
        rows = [
            {"text": f"text {name} {number}", "question": f"Which {number % step}?", "label": "ab"[number % 2]}
            for number in questions
        ]
        (recipe.parent / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("train", range(100), 50)
    write("dev", range(40), 50)
    write("new", range(51, 81), 100)
    paired = ("data.pair=question", f"data.test={recipe.parent / 'new.jsonl'}")
    view = preview_data.look_at_data(resolved(recipe, *paired))
    _, validation, test = view.splits
    assert (validation.in_train, validation.parts_in_train) == (0, {"text": 0, "question": 40})
    assert test.parts_in_train == {"text": 0, "question": 0}
    said = next(line for line in view.remarks if "have a question that is in train" in line)
    assert "100% of the validation rows" in said and "0% of the test rows" in said and "data.group=question" in said
    view = preview_data.look_at_data(resolved(recipe, *paired, "data.validation=null", "data.group=question"))
    assert view.splits[1].made and view.splits[1].parts_in_train["question"] == 0
    assert not any("in train" in line for line in view.remarks)


def test_remarks_on_labels(recipe: Path) -> None:
    rows = [(f"text number {number}", "a" if number else "b") for number in range(40)]
    write_rows(recipe.parent / "train.jsonl", rows)
    write_rows(recipe.parent / "dev.jsonl", [("something else", "c")])
    said = " ".join(preview_data.look_at_data(resolved(recipe)).remarks)
    assert "labels that train has not: c" in said
    assert "97.5% of the training rows are 'a'" in said
    assert "Fewer than 10 training rows for 1 labels (b)" in said


def test_histogram_holds_everything() -> None:
    lengths = Counter({1: 5, 7: 3, 99: 2, 100: 1, 5000: 1})
    bins = preview_data.histogram(lengths)
    assert sum(count for *_, count in bins) == 12
    assert bins[0][0] == 0
    assert bins[-1][1] == 5000
    assert all(high + 1 == low for (_, high, _), (low, _, _) in pairwise(bins))
    assert preview_data.histogram(Counter()) == []
    assert preview_data.quantile(Counter({1: 99, 50: 1}), 0.99) == 1


def test_model_sizes_are_those_of_the_model(recipe: Path) -> None:
    first, second = preview_model.look_at_model(resolved(recipe))
    prepared = preview.prepare(resolved(recipe), preview_model.stages_of(resolved(recipe).config)[1])
    vocabulary = prepared.tokenizer.vocab_size
    exact = preview_model.look_at_model(resolved(recipe, f"tokenizer.vocab_size={vocabulary}"))[1]
    assert exact.parameters == sum(value.numel() for value in prepared.fit.model.parameters())
    assert (first.stage, second.stage) == ("pretraining", "training")
    assert second.training_bytes["weights"] == 4 * second.parameters
    assert second.training_bytes["optimizer state"] == 8 * second.parameters
    assert first.training_bytes["optimizer state"] < 8 * first.parameters
    assert first.positions == 256


def test_first_batch_shows_what_was_hidden(recipe: Path) -> None:
    stages = preview_model.stages_of(resolved(recipe).config)
    masked = preview.look_at_batch(resolved(recipe), stages[0])
    plain = preview.look_at_batch(resolved(recipe), stages[1])
    tokens = [token for row in masked.rows for token in row]
    hidden = [token for token in tokens if token.hidden is not None]
    assert len(hidden) == masked.masked > 0
    assert any(token.text == "[MASK]" for token in hidden)
    assert all(token.hidden is not None for token in tokens if token.text == "[MASK]")
    assert masked.real == len(tokens)
    assert 0.5 < masked.fill <= 1
    assert len(plain.labels) == plain.documents == len({t.document for row in plain.rows for t in row})
    assert set(plain.labels) <= {"good", "bad"}
    for row in plain.rows:
        for before, token in pairwise(row):
            assert (before.document == token.document) != (token.text == "[CLS]")


def test_learning_check_tells_sense_from_nonsense(recipe: Path) -> None:
    right = resolved(recipe, "pretrain=")
    stage = preview_model.stages_of(right.config)[0]
    view = preview.check_learning(right, stage, steps=100)
    assert view.outcome == "learned"
    assert view.losses[-1] < 0.1 * view.losses[0]
    assert view.accuracy == 1.0
    # The same words under both labels: nothing to learn.
    write_rows(recipe.parent / "train.jsonl", [("always the same", "ab"[number % 2]) for number in range(60)])
    wrong = preview.check_learning(right, stage, steps=40)
    assert wrong.outcome == "not"
    assert "does not learn" in wrong.verdict


def test_preflight_says_what_will_differ(recipe: Path) -> None:
    assert check_before(resolved(recipe)) == []
    notes = check_before(resolved(recipe, "encoder.max_length=500"))
    assert len(notes) == 2
    assert "training.batch_tokens 256 is rounded up to 512" in notes[1]
    (recipe.parent / "folder").mkdir()
    for name in ("train", "test"):
        write_rows(recipe.parent / "folder" / f"{name}.jsonl", [("some text", "good"), ("other text", "bad")])
    (note,) = check_before(resolved(recipe, f"data.train={recipe.parent / 'folder'}"))
    assert "folder is a folder: its test.jsonl are learned from too" in note
    with pytest.raises(DataError, match=r"nothing\.txt"):
        check_before(resolved(recipe, "pretrain.data=[nothing.txt]"))
    with pytest.raises(DataError, match="lable"):
        check_before(resolved(recipe, "data.label=lable"))
