"""Drafted recipes of tagged texts: words with tags, spans, Chinese, a class beside them; and what is no such thing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from encodery.config import load_config
from encodery.errors import DataError
from encodery.objectives.tagging import TaggingConfig
from encodery.training.draft import Draft, look_at_files, write_draft
from encodery.training.recipe import Recipe


def table(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def drafted(draft: Draft, path: Path) -> tuple[Recipe, TaggingConfig]:
    recipe = load_config(Recipe, write_draft(draft, path), [], environment={}).config
    assert isinstance(recipe.objective, TaggingConfig)
    return recipe, recipe.objective


WORDS = [["Kim", "saw", "Rome"], ["the", "dog", "ran", "to", "Oslo"]]
NER = [["B-PER", "O", "B-LOC"], ["O", "O", "O", "O", "B-LOC"]]
HEADS = [[2, 0, 2], [2, 3, 0, 3, 4]]


def test_words_with_tags_and_an_intent(tmp_path: Path) -> None:
    rows = [
        {"id": n, "words": WORDS[n % 2], "heads": HEADS[n % 2], "ner": NER[n % 2], "intent": "ab"[n % 2]}
        for n in range(60)
    ]
    draft = look_at_files([table(tmp_path / "a.jsonl", rows)])
    assert draft.task == "tag" and draft.tags is not None
    assert draft.tags.detected.scheme == "bio"
    recipe, objective = drafted(draft, tmp_path / "a.yaml")
    assert (recipe.data.text, recipe.data.tags, recipe.data.label) == ("words", "ner", "intent")
    assert objective.intent and objective.units == "words" and objective.linear
    assert any("intent is learned beside the tags" in guess for guess in draft.guesses)
    assert "2 do not fit" not in (tmp_path / "a.yaml").read_text(encoding="utf-8")


def test_a_text_with_as_many_tags_as_words(tmp_path: Path) -> None:
    rows = [{"sentence": " ".join(WORDS[n % 2]), "pos": [word.upper() for word in WORDS[n % 2]]} for n in range(60)]
    draft = look_at_files([table(tmp_path / "a.jsonl", rows)])
    recipe, objective = drafted(draft, tmp_path / "a.yaml")
    assert (recipe.data.text, recipe.data.tags) == ("sentence", "pos")
    assert draft.tags is not None and draft.tags.detected.scheme == "none" and not objective.intent


@pytest.mark.parametrize("shape", ["list", "object"])
def test_texts_with_spans(tmp_path: Path, shape: str) -> None:
    span: Any = [0, 3, "PER"] if shape == "list" else {"start": 0, "end": 3, "label": "PER"}
    rows = [{"text": "Kim saw Rome", "entities": [span] if n % 3 else []} for n in range(60)]
    recipe, _ = drafted(look_at_files([table(tmp_path / "a.jsonl", rows)]), tmp_path / "a.yaml")
    assert (recipe.data.text, recipe.data.spans, recipe.data.tags) == ("text", "entities", None)


def test_chinese_words_are_tagged_in_their_characters(tmp_path: Path) -> None:
    rows = [{"words": ["在", "中国", "看", "比赛", "。"], "tags": ["p", "ns", "v", "n", "w"]} for _ in range(60)]
    recipe, objective = drafted(look_at_files([table(tmp_path / "a.jsonl", rows)]), tmp_path / "a.yaml")
    assert objective.units == "characters" and recipe.tokenizer.kind == "characters"


def test_what_is_no_tagged_text(tmp_path: Path) -> None:
    rows = [{"text": "a text of some words", "labels": ["x", "y"][: 1 + n % 2]} for n in range(60)]
    path = table(tmp_path / "a.jsonl", rows)
    assert look_at_files([path]).task == "multilabel"
    with pytest.raises(DataError, match="no columns that look like tagged texts"):
        look_at_files([path], task="tag")
    tagged = table(tmp_path / "b.jsonl", [{"text": WORDS[0], "tags": NER[0], "label": "ab"[n % 2]} for n in range(60)])
    assert look_at_files([tagged], task="masked").task == "masked"
    assert look_at_files([tagged], text="text", label="label").task == "classify"
    assert look_at_files([tagged], task="tag", label="label").label == "label"
