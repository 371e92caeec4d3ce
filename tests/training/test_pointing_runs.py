"""Whole runs on questions, choices and ordered labels: from recipe to answers that point back, and refusals."""

from __future__ import annotations

import json
import random
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import encodery
from conftest import compared_in_pairs
from encodery.errors import ConfigError, DataError, EncoderyError
from encodery.training.draft import look_at_files, write_draft
from encodery.training.run import RunResult
from encodery.use.lines import answer_lines
from encodery.use.predict import Predictor
from encodery.use.score import evaluate

NAMES = ["Kim", "Lee", "Ana", "Tom", "Ida"]
PLACES = ["Rome", "Oslo", "New York", "San Juan"]
FILL = ["the", "dog", "saw", "a", "red", "house", "today", "and", "then", "old"]
GOOD, BAD = ["kind", "warm", "bright"], ["cold", "dull", "rude"]


def words(rng: random.Random, most: int) -> str:
    return " ".join(rng.choice(FILL) for _ in range(rng.randint(1, most)))


def question(rng: random.Random) -> dict[str, Any]:
    """A text with a name or a place or both; who and where are asked, also where none stands."""
    name = rng.choice(NAMES) if rng.random() < 0.7 else ""
    place = rng.choice(PLACES) if rng.random() < 0.7 else ""
    context = (
        words(rng, 5) + (f" mister {name}" if name else "") + (f" in {place}" if place else "") + f" {words(rng, 5)}"
    )
    asked, answer = rng.choice([("who is it", name), ("where is it", place)])
    answers = [{"text": answer, "answer_start": context.index(answer)}] if answer else []
    return {"context": context, "question": asked, "answers": answers}


def choice(rng: random.Random) -> dict[str, Any]:
    """Of two to four options one is friendly."""
    options = [f"{rng.choice(BAD)} {words(rng, 3)}" for _ in range(rng.randint(2, 4))]
    right = rng.randrange(len(options))
    options[right] = f"{rng.choice(GOOD)} {words(rng, 3)}"
    return {"text": words(rng, 6), "choices": options, "label": right}


def stars(rng: random.Random) -> dict[str, Any]:
    """The more friendly words, the more stars."""
    number = rng.randrange(4)
    parts = [rng.choice(GOOD) for _ in range(number)] + [rng.choice(BAD) for _ in range(3 - number)]
    rng.shuffle(parts)
    return {"text": " ".join(parts), "stars": ["poor", "fair", "good", "best"][number]}


MAKERS = {"answer": question, "choose": choice, "ordinal": stars}
COLUMNS: dict[str, dict[str, Any]] = {
    "answer": {"text": "context", "pair": "question", "answers": "answers"},
    "choose": {"choices": "choices", "label": "label"},
    "ordinal": {"label": "stars"},
}
ORDER = ["poor", "fair", "good", "best"]


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def recipe(folder: Path, kind: str, **changes: Any) -> dict[str, Any]:
    rng = random.Random(5)
    for name, rows in (("train", 240), ("dev", 60)):
        if not (folder / f"{name}.jsonl").exists():
            write(folder / f"{name}.jsonl", [MAKERS[kind](rng) for _ in range(rows)])
    data = {"train": str(folder / "train.jsonl"), "validation": str(folder / "dev.jsonl"), **COLUMNS[kind]}
    objective = {"kind": kind, **({"order": ORDER} if kind == "ordinal" else {}), **changes.pop("objective", {})}
    training = {
        "budget": "150 steps",
        "batch_tokens": 512,
        "precision": "fp32",
        "validations": 2,
        "optim": {"lr": 1e-2},
    }
    return {
        "name": kind,
        "output": str(folder / "run"),
        "data": data | changes.pop("data", {}),
        "tokenizer": {"vocab_size": 150, "lowercase": False},
        "encoder": {"width": 32, "depth": 1, "heads": 2, "max_length": 32, "drop_rate": 0.0},
        "objective": objective,
        "training": training | changes.pop("training", {}),
        "evaluation": {"resamples": 100},
        **changes,
    }


def metric(result: RunResult, name: str = "") -> float:
    found = result.record.metric(name).value
    assert found is not None
    return found


@pytest.fixture(scope="module")
def answering(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunResult, Path]:
    folder = tmp_path_factory.mktemp("answering")
    return encodery.train(recipe(folder, "answer", objective={"overlap": 4, "ends": "biaffine"})), folder


@pytest.fixture(scope="module")
def answerer(answering: tuple[RunResult, Path]) -> Predictor:
    return encodery.load(answering[0].folder)


def test_questions_from_recipe_to_answer(answering: tuple[RunResult, Path], answerer: Predictor) -> None:
    result, folder = answering
    rows = {row.name: row.metric.value for row in result.record.comparison}
    compared_in_pairs(result.record)
    assert metric(result) > 0.7
    assert {"no answer", "sliding window of TF-IDF", "encoder"} == set(rows)
    assert all(error["true"] != error["predicted"] for error in result.record.errors)
    told = answerer.predict([("the dog mister Kim then", "who is it"), ("the dog saw a house", "where is it")], top=3)
    assert told[0]["answer"] == "Kim"
    assert (told[0]["start"], told[0]["stop"]) == (15, 18)
    assert (told[1]["answer"], told[1]["start"]) == ("", None)
    assert [len(one["alternatives"]) for one in told] == [2, 2]
    shares = [told[0]["probability"], *(one["probability"] for one in told[0]["alternatives"])]
    assert sum(shares) <= 1.0001
    record = evaluate(result.folder, folder / "dev.jsonl")
    assert record.metric().value == pytest.approx(metric(result), abs=1e-6)
    assert record.kind == "answers"


def test_a_linear_answer_tells_whether_there_is_one(tmp_path: Path) -> None:
    """With an encoder that has hardly learned: whether the text has a name or a place is told by its words alone."""
    asked = {"overlap": 4, "ngrams": 2, "ngram_buckets": 4096}
    result = encodery.train(recipe(tmp_path, "answer", objective=asked, training={"budget": "3 steps"}))
    answerer = encodery.load(result.folder)
    told = answerer.predict([("the dog mister Kim in Rome", "who is it"), ("the dog saw a house", "who is it")], top=99)
    with_name, without = (
        next(one["probability"] for one in [answer, *answer["alternatives"]] if not one["answer"]) for answer in told
    )
    assert with_name < without - 0.1
    assert "the encoder alone" in result.record.comparison[-1].note
    assert evaluate(result.folder, tmp_path / "dev.jsonl").metric().value == pytest.approx(metric(result), abs=1e-6)


def test_a_long_text_is_read_in_windows_to_its_end(answerer: Predictor) -> None:
    context = " ".join(FILL * 8) + " mister Tom saw a dog"
    (told,) = answerer.predict([{"text": context, "question": "who is it"}])
    assert told["answer"] == "Tom"
    assert context[told["start"] : told["stop"]] == "Tom"


SOME = "狐狸在北京跑了 the Kim é 👩\u200d👩\u200d👧 e\u0301 \u0e01\u0e33 🦊\u200d"
CHARACTERS = st.one_of(st.sampled_from(SOME), st.characters(exclude_categories=["Cs"]))
TEXTS = st.text(CHARACTERS, min_size=1, max_size=120)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=3))
def test_answers_stand_in_the_persons_own_text(answerer: Predictor, texts: list[tuple[str, str]]) -> None:
    asked = [pair for pair in texts if all(any(char.isalnum() for char in text) for text in pair)]
    for (context, _), told in zip(asked, answerer.predict(asked), strict=True):
        for one in (told, *told["alternatives"]):
            assert 0 <= one["probability"] <= 1
            if one["start"] is None:
                assert one["answer"] == ""
            else:
                assert context[one["start"] : one["stop"]] == one["answer"] != ""


def test_lines_that_ask(answerer: Predictor) -> None:
    lines = [
        "the dog mister Kim then\twho is it",
        '{"text": "the dog mister Kim then", "question": "who is it"}',
        "no question",
        '{"text": "no question"}',
        "{broken\t",
    ]
    first, second, *wrong = answer_lines(answerer, lines)
    assert first == second
    assert first["answer"] == "Kim"
    assert [one["error"].split(":")[0] for one in wrong] == ["line 3", "line 4", "line 5"]
    assert '"question"' in wrong[0]["error"]
    with pytest.raises(DataError, match="text 1"):
        answerer.predict([{"text": "alone"}])
    with pytest.raises(DataError, match="no text that can be read"):
        answerer.predict([("context", " ")])
    with pytest.raises(DataError, match="windows are those of a label"):
        answerer.predict([("context", "who")], windows=True)


def test_choices_from_recipe_to_answer(tmp_path: Path) -> None:
    result = encodery.train(recipe(tmp_path, "choose", objective={"pooling": "mean", "hidden": False}))
    assert metric(result) > 0.8
    assert {row.name for row in result.record.comparison} == {"majority place", "TF-IDF overlap", "encoder"}
    compared_in_pairs(result.record)
    predictor = encodery.load(result.folder)
    options = ["cold dog", "rude house", "warm dog", "dull", "cold a"]
    (told,) = predictor.predict({"text": "the house", "choices": options})
    assert (told["choice"], told["number"]) == ("warm dog", 2)
    assert sum(told["probabilities"]) == pytest.approx(1, abs=1e-4)
    # More options than ever in training, together longer than a batch of 4,096 positions.
    many = predictor.predict([{"text": " ".join(FILL * 9), "choices": [" ".join(FILL * 9)] * 25 + ["warm"]}] * 3)
    assert [one["number"] for one in many] == [many[0]["number"]] * 3
    lines = [
        '{"text": "the house", "choices": ["cold dog", "warm dog"]}',
        "the house",
        '{"text": "x", "choices": ["y"]}',
    ]
    answers = list(answer_lines(predictor, lines))
    assert answers[0]["choice"] == "warm dog"
    assert all('"choices"' in one["error"] for one in answers[1:])
    assert evaluate(result.folder, tmp_path / "dev.jsonl").metric().value == pytest.approx(metric(result))


def test_ordered_labels_from_recipe_to_answer(tmp_path: Path) -> None:
    result = encodery.train(recipe(tmp_path, "ordinal"))
    assert metric(result) > 0.7
    assert result.record.labels == ORDER
    predictor = encodery.load(result.folder)
    low, high = predictor.predict(["cold dull rude", "warm kind bright"])
    assert ORDER.index(low["label"]) < ORDER.index(high["label"])
    assert list(low["probabilities"]) == ORDER
    assert evaluate(result.folder, tmp_path / "dev.jsonl").metric().value == pytest.approx(metric(result), abs=1e-6)
    text = " ".join(["cold"] * 60 + ["warm"] * 60)
    (told,) = predictor.predict([text], windows=True)
    assert len(told["windows"]) > 2
    assert text[told["windows"][0]["start"] : told["windows"][0]["stop"]].strip("cold ") == ""
    assert told["windows"][-1]["stop"] == len(text)
    assert all(one["stop"] <= two["start"] for one, two in pairwise(told["windows"]))
    assert list(told["windows"][0]["probabilities"]) == ORDER


@pytest.mark.parametrize(
    ("kind", "changes", "said"),
    [
        ("answer", {"data": {"answers": None}}, "data.answers: the column of the answers"),
        ("answer", {"data": {"pair": None}}, "data.pair: the column of the question"),
        ("answer", {"data": {"text": ["context", "question"]}}, "data.text cannot be several"),
        ("answer", {"data": {"answers": "gold"}}, "there is no column 'gold'"),
        ("answer", {"objective": {"longest": 0}}, "longest"),
        ("choose", {"data": {"choices": None}}, "data.choices: the column of the options"),
        ("choose", {"data": {"label": None}}, "data.label: the column that says which option is right"),
        ("ordinal", {"objective": {"order": ["poor", "good"]}}, "is not in objective.order"),
        ("ordinal", {"objective": {"order": []}}, "is no number, so its place among the others is not known"),
        ("ordinal", {"objective": {"order": ["poor"]}}, "at least two labels"),
        ("answer", {"evaluation": {"compare": ["word"]}}, "does not fit objective.kind answer"),
    ],
)
def test_wrong_recipes(tmp_path: Path, kind: str, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(EncoderyError) as caught:
        encodery.train(recipe(tmp_path, kind, **changes))
    assert isinstance(caught.value, ConfigError | DataError)
    assert said in str(caught.value)


def test_options_that_fit_no_batch_together_are_refused(tmp_path: Path) -> None:
    row = {"text": " ".join(FILL), "choices": [" ".join(FILL)] * 11 + ["warm"], "label": 11}
    write(tmp_path / "train.jsonl", [row] * 8)
    with pytest.raises(DataError, match=r"the texts of one row take \d+ positions together, a batch has 64"):
        encodery.train(recipe(tmp_path, "choose", training={"batch_tokens": 64}))


def test_rows_that_cannot_be_right_are_counted_with_their_numbers(tmp_path: Path) -> None:
    rng = random.Random(1)
    rows = [question(rng) for _ in range(60)]
    rows[6]["answers"] = [{"text": "nowhere", "answer_start": 2}]
    rows[8]["answers"] = "the answer"
    write(tmp_path / "train.jsonl", rows)
    result = encodery.train(recipe(tmp_path, "answer", training={"budget": "2 steps"}))
    bad = {row["why"].split(" (")[0]: row["where"] for row in result.record.data_facts["bad_rows"]}
    places = bad["an answer does not stand where its offset says"].split(", ")
    assert [place.split("/")[-1] for place in places] == ["train.jsonl:7", "train.jsonl:9"]
    with pytest.raises(DataError, match="nor anywhere in the text: correct it"):
        encodery.train(recipe(tmp_path, "answer", data={"bad_rows": "refuse"}, output=str(tmp_path / "other")))


@pytest.mark.parametrize("kind", ["answer", "choose"])
def test_a_draft_is_made_of_what_the_file_looks_like(tmp_path: Path, kind: str) -> None:
    recipe(tmp_path, kind)
    draft = look_at_files([str(tmp_path / "train.jsonl")])
    assert draft.task == kind
    assert draft.pointing is not None
    written = write_draft(draft, tmp_path / "mine.yaml").read_text(encoding="utf-8")
    assert f"kind: {kind}" in written
    wanted = {
        "answer": ("text: context", "pair: question", "answers: answers"),
        "choose": ("choices: choices", "label"),
    }
    assert all(line in written for line in wanted[kind])
    other = {"answer": "choose", "choose": "answer"}[kind]
    with pytest.raises(DataError, match=f"no columns for the task {other}"):
        look_at_files([str(tmp_path / "train.jsonl")], task=other)  # type: ignore[arg-type]
