"""Drafted recipes of two texts a row: what is written from what, what belongs together, and what is neither."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encodery.config import load_config
from encodery.errors import DataError
from encodery.objectives.contrastive_options import EmbedConfig
from encodery.objectives.writing import WritingConfig
from encodery.training.draft import look_at_files, task_named, write_draft
from encodery.training.recipe import Recipe


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def told(**columns: str) -> list[dict[str, Any]]:
    """Rows whose texts differ."""
    return [{name: f"{text} {number} of many" for name, text in columns.items()} for number in range(60)]


def drafted(rows: list[dict[str, Any]], folder: Path, **asked: Any) -> Recipe:
    asked = {name: task_named(value) if name == "task" else value for name, value in asked.items()}
    draft = look_at_files([table(folder / "rows.jsonl", rows)], **asked)
    return load_config(Recipe, write_draft(draft, folder / "recipe.yaml"), [], environment={}).config


SENTENCES = [{"article": [f"One {n}.", "Two."], "summary": [f"Number {n} in short."]} for n in range(60)]


@pytest.mark.parametrize(
    ("rows", "source", "target"),
    [
        (told(de="ein kurzer Satz", en="a rather longer sentence"), "de", "en"),
        (told(id="row number of it", tgt="the long sentence of both", src="a short one"), "src", "tgt"),
        (SENTENCES, "article", "summary"),
    ],
)
def test_one_text_is_written_from_another(tmp_path: Path, rows: list[dict[str, Any]], source: str, target: str) -> None:
    recipe = drafted(rows, tmp_path)
    assert isinstance(recipe.objective, WritingConfig)
    assert (recipe.data.text, recipe.data.target, recipe.data.pair) == (source, target, None)
    assert recipe.tokenizer.kind == "byte_bpe" and recipe.data.long == "cut"


def test_two_texts_belong_together(tmp_path: Path) -> None:
    recipe = drafted(told(query="what is it", document="a long text about what it is"), tmp_path)
    assert isinstance(recipe.objective, EmbedConfig) and recipe.objective.loss == "infonce"
    assert (recipe.data.text, recipe.data.pair, recipe.data.label) == ("query", "document", None)


def test_what_rows_have_in_common_stays_together(tmp_path: Path) -> None:
    rows = told(query="what is it", document="a long text about what it is")
    assert drafted(rows, tmp_path).data.group is None
    for number, row in enumerate(rows):
        row["query"] = f"what is it {number % 40}"
    (tmp_path / "again").mkdir()
    assert drafted(rows, tmp_path / "again", task="embed").data.group == "query"
    # With validation rows of their own there is nothing to keep together.
    files = [table(tmp_path / name, rows) for name in ("train.jsonl", "dev.jsonl")]
    assert look_at_files(files, task="embed").group is None


def test_numbers_say_how_close_two_texts_are(tmp_path: Path) -> None:
    rows = [{**row, "score": number / 10} for number, row in enumerate(told(one="some words", two="other words"))]
    recipe = drafted(rows, tmp_path, task="embed", label="score")
    assert isinstance(recipe.objective, EmbedConfig) and recipe.objective.loss == "cosent"
    assert (recipe.data.text, recipe.data.pair, recipe.data.label) == ("one", "two", "score")


def test_what_is_asked_for_by_name_is_taken(tmp_path: Path) -> None:
    rows = told(left="some words", right="other words", note="what stands beside")
    recipe = drafted(rows, tmp_path, task="write", text="right", pair="left")
    assert (recipe.data.text, recipe.data.target) == ("right", "left")


def test_labels_and_texts_alone_are_no_pairs(tmp_path: Path) -> None:
    labelled = [{**row, "label": "ab"[n % 2]} for n, row in enumerate(told(query="what is it", answer="that it is"))]
    assert drafted(labelled, tmp_path).objective.kind == "classify"
    other = tmp_path / "other"
    other.mkdir()
    assert drafted(told(text="words of a text"), other).objective.kind == "masked"


def test_missing_columns_are_said(tmp_path: Path) -> None:
    path = table(tmp_path / "rows.jsonl", told(text="words of a text"))
    with pytest.raises(DataError, match="no two columns of texts for the task write"):
        look_at_files([path], task="write")
    pairs = table(tmp_path / "pairs.jsonl", [{**row, "score": "high"} for row in told(one="some words", two="others")])
    with pytest.raises(DataError, match="not all values are numbers"):
        look_at_files([pairs], task="embed", label="score")
    with pytest.raises(DataError, match="what is written has no label"):
        look_at_files([pairs], task="write", label="score")
