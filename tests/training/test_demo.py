"""The demo's data and recipe: real rows, no text on two sides, a recipe that loads and is small enough."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from encodery.config import load_config
from encodery.data import embedded
from encodery.errors import MissingExtra
from encodery.training.demo import LABELLED, TEST, VALIDATION, write_demo
from encodery.training.recipe import Recipe


def texts_of(file: Path) -> list[str]:
    lines = file.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines] if file.suffix == ".jsonl" else lines


def test_the_demo_writes_disjoint_splits_and_a_recipe_that_loads(tmp_path: Path) -> None:
    recipe = load_config(Recipe, write_demo(tmp_path), [], environment={})
    splits = {name: texts_of(tmp_path / "data" / f"{name}.jsonl") for name in ("train", "validation", "test")}
    splits["unlabelled"] = texts_of(tmp_path / "data" / "unlabelled.txt")
    assert [len(splits[name]) for name in ("train", "validation", "test")] == [LABELLED, VALIDATION, TEST]
    assert len(splits["unlabelled"]) > 10_000
    everything = [text for texts in splits.values() for text in texts]
    assert len(set(everything)) == len(everything)
    assert set(recipe.config.evaluation.compare) == {"majority", "tfidf", "scratch"}
    assert recipe.config.pretrain is not None


def test_the_demo_is_the_same_every_time(tmp_path: Path) -> None:
    write_demo(tmp_path / "one")
    write_demo(tmp_path / "two")
    for name in ("train.jsonl", "test.jsonl", "unlabelled.txt"):
        assert (tmp_path / "one/data" / name).read_bytes() == (tmp_path / "two/data" / name).read_bytes()


def test_a_missing_package_is_named_with_its_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "PACKAGE", "no_such_package_at_all")
    with pytest.raises(MissingExtra, match=r"encodery\[demo\]"):
        write_demo(tmp_path)
