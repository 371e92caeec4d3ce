"""Whole runs that tag words and characters: from recipe to answers with their places, refused where they must."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

import encodery
from conftest import compared_in_pairs
from encodery.errors import ConfigError, DataError, EncoderyError
from encodery.heads.tagging.tags import TagReadout
from encodery.training.run import RunResult
from encodery.use.lines import answer_lines
from encodery.use.score import evaluate

NAMES = ["Kim", "Lee", "Ana", "Tom", "Ida"]
PLACES = ["Rome", "Oslo", "New York", "San Juan"]
FILL = ["the", "dog", "saw", "a", "red", "house", "today", "and", "then", "old"]
HANZI = {"n": ["中国", "北京", "人民", "书"], "v": ["看", "喜欢", "去"], "w": ["。", "，"]}


class World:
    """Sentences about people (behind 'mister' or 'miss') and places (behind 'in'); some order, some tell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        rng = random.Random(3)
        self.write("train", [self.row(rng) for _ in range(240)])
        self.write("dev", [self.row(rng) for _ in range(60)])

    def write(self, name: str, rows: list[dict[str, Any]]) -> str:
        path = self.folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return str(path)

    def row(self, rng: random.Random) -> dict[str, Any]:
        words: list[tuple[str, str]] = [(rng.choice(FILL), "O") for _ in range(rng.randint(1, 4))]
        if rng.random() < 0.8:
            words += [(rng.choice(["mister", "miss"]), "O"), (rng.choice(NAMES), "B-PER")]
        if rng.random() < 0.6:
            first, *rest = rng.choice(PLACES).split()
            words += [("in", "O"), (first, "B-LOC"), *((word, "I-LOC") for word in rest)]
        intent = rng.choice(["order", "tell"])
        words.append(("please" if intent == "order" else "indeed", "O"))
        tokens, tags = [word for word, _ in words], [tag for _, tag in words]
        text, spans, at = " ".join(tokens), [], 0
        for number, (word, tag) in enumerate(words):
            if tag.startswith("B-"):
                stop = at + len(word)
                if number + 1 < len(words) and tags[number + 1].startswith("I-"):
                    stop += 1 + len(tokens[number + 1])
                spans.append([at, stop, tag[2:]])
            at += len(word) + 1
        return {"tokens": tokens, "tags": tags, "intent": intent, "text": text, "spans": spans}

    def recipe(self, **changes: Any) -> dict[str, Any]:
        data = {"train": str(self.folder / "train.jsonl"), "validation": str(self.folder / "dev.jsonl")}
        training = {"budget": "60 steps", "batch_tokens": 256, "precision": "fp32", "validations": 2}
        return {
            "name": "tags",
            "output": str(self.folder / "run"),
            "seed": 2,
            "data": data | changes.pop("data", {"text": "tokens", "tags": "tags"}),
            "tokenizer": {"vocab_size": 120, "lowercase": False} | changes.pop("tokenizer", {}),
            "encoder": {"width": 32, "depth": 1, "heads": 2, "max_length": 32, "drop_rate": 0.1},
            "objective": {"kind": "tag", **changes.pop("objective", {})},
            "training": training | {"optim": {"lr": 1e-2}} | changes.pop("training", {}),
            "evaluation": {"resamples": 100},
            **changes,
        }

    def run(self, **changes: Any) -> RunResult:
        return encodery.train(self.recipe(**changes))


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def value(result: RunResult, name: str = "") -> float:
    found = result.record.metric(name).value
    assert found is not None
    return found


def test_tags_and_intent_from_recipe_to_answer(world: World) -> None:
    data = {"text": "tokens", "tags": "tags", "label": "intent"}
    result = world.run(data=data, objective={"intent": True, "learned": "bioes", "overlap": 4})
    assert result.record.main_metric == "span_f1" and result.record.kind == "tagging"
    assert value(result) > 0.8 and value(result, "intent_accuracy") > 0.8
    names = [row.name for row in result.record.comparison]
    compared_in_pairs(result.record)
    assert names == ["majority", "commonest tag of the word", "linear model", "encoder"]
    assert {line["label"] for line in result.record.per_class} == {"PER", "LOC"}
    used = encodery.load(result.folder)
    text = "then miss Kim saw a dog in New York please"
    (answer,) = used.predict([text])
    assert [(text[e["start"] : e["stop"]], e["label"]) for e in answer["entities"]] == [
        ("Kim", "PER"),
        ("New York", "LOC"),
    ]
    assert all(0.2 < one["probability"] <= 1 for one in answer["entities"])
    assert answer["label"] == "order" and [unit["tag"] for unit in answer["units"]][-4:] == ["O", "B-LOC", "E-LOC", "O"]
    # The same as a list of words; a text with nothing in it; one far longer than the encoder sees.
    (words,) = used.predict([text.split()])
    assert words["text"] == text and words["entities"] == answer["entities"]
    assert used.predict(["", "  "])[0]["entities"] == []
    long = " ".join(["the dog saw miss Kim in Oslo and then a red house"] * 40)
    (answer,) = used.predict([long])
    assert len(answer["units"]) == len(long.split())
    found = [long[e["start"] : e["stop"]] for e in answer["entities"]]
    assert found.count("Kim") > 30 and found.count("Oslo") > 30
    again = evaluate(result.folder, world.folder / "dev.jsonl")
    assert again.metrics["span_f1"]["value"] == pytest.approx(value(result), abs=1e-6)
    lines = list(answer_lines(used, [text, "", json.dumps(text.split()), "[1, 2]"]))
    assert "error" in lines[1] and lines[2]["entities"] == lines[0]["entities"]
    assert "".join(unit["text"] for unit in lines[3]["units"]) == "[1,2]"  # no list of words: a text like any other
    for wrong in (5, ["a", ""], {"texts": "a"}):
        with pytest.raises(DataError, match="a text, or a list of words"):
            used.predict([wrong])  # type: ignore[list-item]


def test_a_linear_answer_stands_beside_the_encoder(world: World) -> None:
    """Fitted on the same rows, weighed on the validation rows, kept with the model, and said in the table."""
    asked = {"linear": True, "linear_buckets": 4096, "intent": True}
    result = world.run(
        data={"text": "tokens", "tags": "tags", "label": "intent"}, objective=asked,
        training={"budget": "4 steps"}, evaluation={"compare": [], "resamples": 100},
    )  # fmt: skip
    (row,) = result.record.comparison
    assert "its encoder alone gets" in row.note and "its linear answer alone" in row.note
    assert value(result) > 0.95, "four steps teach the encoder nothing, so this is the linear answer"
    used = encodery.load(result.folder)
    readout = used.trained.model.readout
    assert isinstance(readout, TagReadout) and readout.lexical is not None
    assert float(readout.lexical.weight.abs().sum()) > 0 and readout.mix[1] > readout.mix[0]
    assert value(result, "intent_accuracy") == 1.0 and readout.class_mix[1] > readout.class_mix[0]
    text = "then miss Kim saw a dog in New York please"
    (answer,) = used.predict([text])
    assert [(one["text"], one["label"]) for one in answer["entities"]] == [("Kim", "PER"), ("New York", "LOC")]
    assert answer["label"] == "order"
    again = evaluate(result.folder, world.folder / "dev.jsonl")
    for metric in ("span_f1", "intent_accuracy"):
        assert again.metrics[metric]["value"] == pytest.approx(value(result, metric), abs=1e-6)


def test_a_linear_answer_without_a_field_and_about_characters(world: World) -> None:
    rng = random.Random(5)
    rows = [{"words": [rng.choice(HANZI[rng.choice("nvw")]) for _ in range(rng.randint(3, 9))]} for _ in range(200)]
    files = {name: world.write(name, some) for name, some in (("zh", rows[:160]), ("zh_dev", rows[160:]))}
    data = {"train": files["zh"], "validation": files["zh_dev"], "text": "words"}
    asked = {"units": "characters", "linear": True, "crf": False}
    result = world.run(
        data=data, objective=asked, tokenizer={"kind": "characters"}, training={"budget": "2 steps"},
        evaluation={"compare": [], "resamples": 100},
    )  # fmt: skip
    assert value(result) > 0.9


def test_spans_of_plain_texts_without_a_field(world: World) -> None:
    result = world.run(
        data={"text": "text", "spans": "spans"},
        objective={"crf": False},
        evaluation={"compare": ["word"], "resamples": 100},
    )
    assert value(result) > 0.7
    used = encodery.load(result.folder)
    text = "a dog,  (miss Kim)! in Oslo; indeed 👍🏽"
    (answer,) = used.predict([text])
    assert all(text[e["start"] : e["stop"]] == e["text"] for e in [*answer["entities"], *answer["units"]])
    assert "label" not in answer


def test_chinese_is_cut_and_tagged_in_its_characters(world: World) -> None:
    rng = random.Random(5)

    def row() -> dict[str, Any]:
        tags = [rng.choice("nvw") for _ in range(rng.randint(3, 9))]
        return {"words": [rng.choice(HANZI[tag]) for tag in tags], "pos": tags}

    files = {name: world.write(name, [row() for _ in range(number)]) for name, number in (("zh", 160), ("zh_dev", 40))}
    data = {"train": files["zh"], "validation": files["zh_dev"], "text": "words", "tags": "pos"}
    result = world.run(data=data, objective={"units": "characters"}, tokenizer={"kind": "characters"})
    assert value(result) > 0.8
    used = encodery.load(result.folder)
    (answer,) = used.predict(["人民去北京。"])
    assert [(one["text"], one["label"]) for one in answer["entities"]] == [
        ("人民", "n"), ("去", "v"), ("北京", "n"), ("。", "w"),
    ]  # fmt: skip
    # Words of such a script cannot be told by a rule: a model of words wants them as lists.
    model = world.run(data=data, training={"budget": "2 steps"}, output=str(world.folder / "words"))
    used = encodery.load(model.folder)
    with pytest.raises(DataError, match="words of a script without spaces"):
        used.predict(["人民去北京。"])
    (answer,) = used.predict([["人民", "去"]])
    assert answer["text"] == "人民去" and [(one["start"], one["stop"]) for one in answer["units"]] == [(0, 2), (2, 3)]


def test_bad_rows_are_counted_with_their_places(world: World) -> None:
    rng = random.Random(9)
    rows = [world.row(rng) for _ in range(60)]
    rows[4]["tags"] = rows[4]["tags"][:-1]
    rows[7]["tags"] = ["I-PER", *rows[7]["tags"][1:]]
    path = world.write("broken", rows)
    data = {"train": path, "text": "tokens", "tags": "tags"}
    quick = {"budget": "1 steps"}
    result = world.run(data=data, objective={"scheme": "bio"}, training=quick)
    report = json.dumps(result.record.data_facts)
    assert "broken.jsonl:5" in report and "broken.jsonl:8" in report
    with pytest.raises(EncoderyError, match=r"broken.jsonl:5: tags that do not fit \(\d+ words but \d+ tags\)"):
        world.run(data=data | {"bad_rows": "refuse"}, training=quick, output=str(world.folder / "other"))


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"data": {"text": "tokens"}}, "names no column with tags"),
        ({"data": {"text": "tokens", "tags": "tags", "spans": "spans"}}, "both there"),
        ({"data": {"text": ["tokens", "text"], "tags": "tags"}}, "several columns"),
        ({"data": {"text": "tokens", "pair": "text", "tags": "tags"}}, "one text a row"),
        ({"data": {"text": "tokens", "tags": "tag"}}, "no column 'tag'"),
        ({"data": {"text": "tokens", "tags": "tags"}, "objective": {"intent": True}}, "label"),
        ({"data": {"text": "tokens", "tags": "tags"}, "evaluation": {"compare": ["tfidf"]}}, "tfidf does not fit"),
    ],
)
def test_recipes_that_cannot_be_run_are_refused(world: World, changes: dict[str, Any], says: str) -> None:
    with pytest.raises((ConfigError, DataError), match=says):
        world.run(**changes)


def test_one_tag_alone_is_nothing_to_learn(world: World) -> None:
    path = world.write("plain", [{"tokens": ["a", "b"], "tags": ["O", "O"]}] * 40)
    with pytest.raises(DataError, match="only the tag 'O'"):
        world.run(data={"train": path, "text": "tokens", "tags": "tags"})
