"""Drafted recipes: the guesses are right on tables of every shape, and what is written loads."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from encodery.config import load_config
from encodery.errors import ConfigError, DataError
from encodery.objectives.supervised import SupervisedConfig
from encodery.training.draft import Draft, estimated_tokens, look_at_files, write_draft
from encodery.training.draft_text import quoted
from encodery.training.recipe import Recipe


def table(path: Path, rows: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return str(path)


def loaded(draft: Draft, path: Path) -> Recipe:
    return load_config(Recipe, write_draft(draft, path), [], environment={}).config


def test_text_and_label_in_csv(tmp_path: Path) -> None:
    lines = [f'{number},"a review, number {number}, of some length",{"ab"[number % 2]}' for number in range(60)]
    file = tmp_path / "reviews.csv"
    file.write_text("id,review,stars given\n" + "\n".join(lines))
    draft = look_at_files([str(file)])
    assert (draft.text, draft.label, draft.task, draft.pair) == ("review", "stars given", "classify", None)
    assert dict(draft.labels) == {"a": 30, "b": 30}
    recipe = loaded(draft, tmp_path / "r.yaml")
    assert recipe.data.label == "stars given"
    assert recipe.pretrain is not None
    assert recipe.evaluation.compare == ["majority", "tfidf", "scratch"]


def test_few_labels_get_an_ngram_answer_with_letters_that_suit_the_script(tmp_path: Path) -> None:
    spaced = [{"text": f"a review, number {n}, of some length", "label": "ab"[n % 2]} for n in range(60)]
    unspaced = [{"text": f"这本书写得很好看第{n}章更好", "label": "ab"[n % 2]} for n in range(60)]
    found = []
    for name, rows in (("spaced", spaced), ("unspaced", unspaced)):
        draft = look_at_files([table(tmp_path / "rows.jsonl", rows)])
        objective = loaded(draft, tmp_path / f"{name}.yaml").objective
        assert isinstance(objective, SupervisedConfig)
        found.append((objective.ngrams, objective.letters))
        many = loaded(replace(draft, rows=1_000_000), tmp_path / f"many-{name}.yaml").objective
        assert isinstance(many, SupervisedConfig)
        assert many.ngrams == 0
    assert found == [(2, 6), (2, 3)]


def test_pairs_and_numbers(tmp_path: Path) -> None:
    rows = [
        {"score": number / 7, "sentence2": f"another sentence {number}", "sentence1": f"one longer sentence {number}"}
        for number in range(80)
    ]
    draft = look_at_files([table(tmp_path / "sts.jsonl", rows)])
    assert (draft.text, draft.pair, draft.label, draft.task) == ("sentence1", "sentence2", "score", "regress")
    recipe = loaded(draft, tmp_path / "r.yaml")
    assert (recipe.data.pair, recipe.objective.kind) == ("sentence2", "regress")


@pytest.mark.parametrize("separator", [None, ";", "|"])
def test_several_labels(tmp_path: Path, separator: str | None) -> None:
    kinds = [["a"], ["a", "b"], ["b", "c"], ["a", "b", "c"], ["c", "a"]]
    rows: list[dict[str, object]] = []
    for number in range(50):
        tags = kinds[number % 5]
        rows.append({"text": f"some text of row {number}", "tags": separator.join(tags) if separator else tags})
    draft = look_at_files([table(tmp_path / "t.jsonl", rows)])
    assert (draft.task, draft.label) == ("multilabel", "tags")
    assert set(draft.labels) == {"a", "b", "c"}
    if separator:
        assert loaded(draft, tmp_path / "r.yaml").data.label_separator == separator


def test_a_comma_in_the_name_of_a_label_is_no_separator(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"text": f"words of row {number}", "label": ["food, drink", "other"][number % 2]} for number in range(40)
    ]
    assert look_at_files([table(tmp_path / "t.jsonl", rows)]).task == "classify"


def test_plain_chinese_text(tmp_path: Path) -> None:
    file = tmp_path / "zh.txt"
    file.write_text(
        "\n".join("今天天气很好我们去公园散步" * (1 + number % 3) for number in range(50)), encoding="utf-8"
    )
    draft = look_at_files([str(file)])
    assert (draft.task, draft.language, draft.label) == ("masked", "zh", None)
    assert draft.long_tokens == 39
    assert draft.max_length == 64
    assert loaded(draft, tmp_path / "r.yaml").objective.kind == "masked"


def test_splits_by_name_and_paths_from_the_recipes_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rows: list[dict[str, object]] = [{"text": f"text {number}", "label": number % 2} for number in range(20)]
    for name in ("train", "dev", "test"):
        table(tmp_path / f"{name}.jsonl", rows)
    draft = look_at_files(["test.jsonl", "dev.jsonl", "train.jsonl"])
    recipe = loaded(draft, tmp_path / "deep" / "er" / "r.yaml")
    assert recipe.data.train[0].path == "../../train.jsonl"
    assert recipe.data.validation is not None and recipe.data.validation[0].path == "../../dev.jsonl"
    assert recipe.data.test is not None and recipe.data.test[0].path == "../../test.jsonl"


def test_every_line_is_explained(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {number}", "label": number % 2} for number in range(20)]
    path = write_draft(look_at_files([table(tmp_path / "t.jsonl", rows)]), tmp_path / "r.yaml")
    lines = path.read_text().splitlines()
    assert max(map(len, lines)) <= 120
    for above, line in zip(["", *lines], lines):
        if line.strip() and not line.rstrip().endswith(":"):
            assert "#" in line or above.strip().startswith("#"), line


def test_refusals(tmp_path: Path) -> None:
    file = table(tmp_path / "t.jsonl", [{"text": f"some text {number}"} for number in range(9)])
    with pytest.raises(DataError, match="no column 'txt', did you mean 'text'"):
        look_at_files([file], text="txt")
    with pytest.raises(DataError, match="looks like a label"):
        look_at_files([file], task="classify")
    draft = look_at_files([file])
    output = tmp_path / "r.yaml"
    output.write_text("mine")
    with pytest.raises(ConfigError, match="exists already"):
        write_draft(draft, output)
    assert output.read_text() == "mine"


@pytest.mark.parametrize("text", ["label", "yes", "Null", "a b", "1", "a: b", "#x", 'q"uote', "${HOME}", "标签", "-"])
def test_quoted_names_come_back(tmp_path: Path, text: str) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"data: {{train: x, label: {quoted(text)}}}\nobjective: classify\n", encoding="utf-8")
    assert load_config(Recipe, recipe, [], environment={}).config.data.label == text


def test_estimated_tokens() -> None:
    assert estimated_tokens("我们去公园") == 5
    assert estimated_tokens("one two three") == 4
    assert estimated_tokens("") == 0


def test_a_folder_and_a_file_named_train_bring_the_splits_beside_them(tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [{"text": f"text {number}", "label": number % 2} for number in range(20)]
    for name in ("my_train", "my_val", "my_test2016", "other_test", "more"):
        table(tmp_path / f"{name}.jsonl", rows)
    table(tmp_path / "my_test_2017.jsonl", [{"text": "without a label"}] * 3)
    (tmp_path / "README.md").write_text("training and test rows")
    draft = look_at_files([str(tmp_path / "my_train.jsonl")])
    names = {split: [Path(path).name for path in paths] for split, paths in draft.files.items()}
    assert names == {"train": ["my_train.jsonl"], "validation": ["my_val.jsonl"], "test": ["my_test2016.jsonl"]}
    assert any("my_test_2017.jsonl is not used: it has no column label" in note for note in draft.guesses)
    assert any("kept apart by their names" in note and "my_val" in note for note in draft.guesses)
    # One whose name says nothing stays alone.
    assert list(look_at_files([str(tmp_path / "more.jsonl")]).files) == ["train"]
    folder = look_at_files([str(tmp_path)])
    assert {Path(path).name for path in folder.files["test"]} == {"my_test2016.jsonl", "other_test.jsonl"}
    assert folder.files["train"] == [str(tmp_path / "my_train.jsonl")] and folder.all_rows and folder.rows == 20
    assert any("not named after a split" in note and "more.jsonl" in note for note in folder.guesses)
    recipe = loaded(folder, tmp_path / "r.yaml")
    assert recipe.data.test is not None and len(recipe.data.test) == 2


def test_a_folder_of_folders_of_texts_has_labels_and_may_have_splits(tmp_path: Path) -> None:
    for split in ("train", "test"):
        for label in ("pos", "neg"):
            (tmp_path / split / label).mkdir(parents=True)
            for number in range(6):
                (tmp_path / split / label / f"{number}.txt").write_text(f"{split} film {number} was {label}\n")
    draft = look_at_files([str(tmp_path)])
    assert draft.task == "classify" and draft.labels == {"pos": 6, "neg": 6}
    recipe = loaded(draft, tmp_path / "r.yaml")
    assert recipe.data.test is not None
    assert [source.format for source in (*recipe.data.train, *recipe.data.test)] == ["folder", "folder"]
    assert recipe.data.label is None
    assert look_at_files([str(tmp_path / "train")], task="masked").format == "text"
