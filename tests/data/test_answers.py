"""Answers in their texts: every form they come in, offsets put right, tokens that hold them, windows that keep them."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from encodery.data.answers import (
    SHORTEST_CONTEXT,
    Answer,
    AnswerCounts,
    AnswerField,
    AnswerGatherer,
    Answers,
    answer_tokens,
    overlapping_pieces,
    question_windows,
    read_answers,
    squad_rows,
)
from encodery.data.fields import BadField
from encodery.data.ledger import Ledger
from encodery.data.rows import Row
from encodery.data.sources import DataConfig, read_rows
from encodery.data.tokenizers import Encoded

CONTEXT = "The red fox saw the red hen. 狐狸跑了。"


@pytest.mark.parametrize(
    "value",
    [
        [{"text": "fox", "start": 8}],
        [{"text": "fox", "answer_start": 8}],
        {"text": ["fox"], "answer_start": [8]},
        {"text": "fox", "start": 8},
        json.dumps([{"text": "fox", "start": 8}]),
        json.dumps({"text": ["fox"], "answer_start": [8]}),
        [{"text": "fox", "start": 8.0}],
        [{"text": "fox", "start": 8}, {"text": "fox", "start": 8}],
    ],
)
def test_every_form_of_answers(value: object) -> None:
    assert read_answers(value, CONTEXT) == Answers((Answer(8, 11),))


@pytest.mark.parametrize("value", [None, "", [], {"text": [], "answer_start": []}, "[]", float("nan")])
def test_nothing_says_that_there_is_no_answer(value: object) -> None:
    assert read_answers(value, CONTEXT) == Answers()


@pytest.mark.parametrize("value", ["fox", ["fox"], [{"text": "fox"}], [{"text": "fox", "start": 3}], ["fox", "狐狸"]])
def test_an_offset_is_mended_where_the_text_stands_once(value: object) -> None:
    found = read_answers(value, CONTEXT)
    assert found.spans[0] == (8, 11)
    assert found.mended == len(found.spans)
    assert [CONTEXT[start:stop] for start, stop in found.spans] == ["fox", "狐狸"][: len(found.spans)]


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ([{"text": "red", "start": 5}], "stands 2 times in the text (at 4, 20): give the right offset"),
        (["wolf"], "nor anywhere in the text: correct it, or write [] for no answer"),
        ([{"text": "red", "start": -3}], "does not stand at -3"),
        ([{"text": " ", "start": 3}], "blank"),
        ([{"text": "fox", "start": "eight"}], "no whole number"),
        ([{"text": "fox", "start": True}], "no whole number"),
        ([7], '7 is not {"text": "...", "start": 0}'),
        ({"text": ["fox"], "answer_start": [8, 9]}, "1 texts"),
        (7, "no list of answers"),
        ([{"start": 4}], "is not"),
    ],
)
def test_answers_that_cannot_be_right(value: object, said: str) -> None:
    with pytest.raises(BadField, match="answer") as caught:
        read_answers(value, CONTEXT)
    assert said in caught.value.detail


def test_a_text_that_begins_with_a_bracket_is_an_answer() -> None:
    assert read_answers("[1", "see [1] and [2]").spans == ((4, 6),)


def test_squad_rows() -> None:
    asked = [
        {"id": "a", "question": "Who?", "answers": [{"text": "fox", "answer_start": 8}], "is_impossible": False},
        {"id": "b", "question": "Why?", "answers": [], "is_impossible": True, "plausible_answers": []},
    ]
    document = {"version": "2.0", "data": [{"title": "Fox", "paragraphs": [{"context": CONTEXT, "qas": asked}]}, 7]}
    rows = squad_rows(document)
    assert rows is not None
    first, second, damaged = rows
    assert first == {"context": CONTEXT, "question": "Who?", "id": "a", "title": "Fox", "answers": asked[0]["answers"]}
    assert second["answers"] == []
    assert "context" not in damaged, "a damaged part is a row that lacks its columns, not one that vanishes"
    for other in ([], {}, {"data": []}, {"data": [{"text": "x"}]}, None):
        assert squad_rows(other) is None


def encoded(*spans: tuple[int, int]) -> Encoded:
    size = len(spans)
    return Encoded(np.zeros(size, np.uint32), np.ones(size, bool), np.array(spans, np.int32).reshape(-1, 2))


def test_tokens_of_answers() -> None:
    counts = AnswerCounts()
    tokens = encoded((0, 3), (4, 9), (9, 12), (13, 20))
    # From inside the second token to the end of the third; the last token to its middle; white space alone.
    spans = Answers((Answer(6, 12), Answer(13, 15), Answer(12, 13), Answer(4, 9)), mended=1)
    assert answer_tokens(spans, tokens, counts).tolist() == [0, 2, 0, 1]
    assert counts.to_dict() == {
        "questions with an answer": 1,
        "questions without an answer": 0,
        "offsets mended": 1,
        "answers that begin or end inside a token": 2,
        "answers without a token": 1,
        "answers left out: another begins at the same token": 1,
        "tokens of the longest answer": 2,
    }
    assert answer_tokens(Answers(), tokens, counts).sum() == 0
    assert counts.unanswerable == 1


def test_tokens_that_share_a_character() -> None:
    tokens = encoded((0, 1), (0, 1), (0, 1), (1, 2))  # the bytes of one character, then another
    assert answer_tokens(Answers((Answer(0, 1),)), tokens, AnswerCounts()).tolist() == [3, 0, 0, 0]


def test_arrays_of_a_store() -> None:
    rows = [
        Row("abc", "q", None, "x:1", beside={"answers": Answers((Answer(1, 2),))}),
        Row("d", "qq", None, "x:2"),  # a row that is asked in use knows no answers
    ]
    texts = [[encoded((0, 1), (1, 2), (2, 3)), encoded((0, 1))], [encoded((0, 1)), encoded((0, 1), (1, 2))]]
    arrays = AnswerGatherer().arrays(rows, texts)
    assert arrays["context"].tolist() == [1, 2, 3, 0, 1, 0, 0]
    assert arrays["answer"].tolist() == [0, 1, 0, 0, 0, 0, 0]
    assert {array.dtype for array in arrays.values()} == {np.dtype(np.int32)}
    assert AnswerGatherer().arrays([], [])["answer"].size == 0


def test_the_field_reads_its_column() -> None:
    column = AnswerField("gold")
    assert column.columns == (("answers", "gold"),)
    assert column.read({"gold": ["fox"]}, CONTEXT).spans == ((8, 11),)
    assert column.read({"gold": None}, CONTEXT) == Answers()
    with pytest.raises(BadField, match="no 'gold'; the row has 'answers'"):
        column.read({"answers": []}, CONTEXT)


@given(st.integers(1, 400), st.integers(1, 60), st.integers(0, 60))
def test_windows_hold_every_token_and_every_short_answer(total: int, room: int, overlap: int) -> None:
    overlap = min(overlap, room - 1)
    pieces = overlapping_pieces(total, room, overlap)
    assert pieces[0][0] == 0
    assert pieces[-1][1] == total
    assert all(0 < stop - start <= room for start, stop in pieces)
    for (start, stop), (after, end) in pairwise(pieces):
        assert start < after
        assert after == stop - overlap
        assert stop < end
    for begin in range(total):
        end = min(total, begin + overlap + 1)
        assert any(start <= begin and end <= stop for start, stop in pieces)


@given(st.integers(0, 100), st.integers(1, 300), st.integers(2, 80), st.integers(0, 90))
def test_the_question_stands_in_every_window(question: int, context: int, room: int, overlap: int) -> None:
    windows = question_windows(question, context, room, overlap)
    assert {window.question for window in windows} == {windows[0].question}
    assert all(window.question + window.stop - window.start <= room for window in windows)
    assert {place for window in windows for place in range(window.start, window.stop)} == set(range(context))
    kept = windows[0].question
    assert kept == question or room - kept == min(SHORTEST_CONTEXT, room // 2, context)


def test_a_nested_file_is_read_as_rows(tmp_path: Path) -> None:
    asked = [
        {"id": "a", "question": "Who?", "answers": [{"text": "fox", "answer_start": 9}], "is_impossible": False},
        {"id": "b", "question": "Why?", "answers": [], "is_impossible": True},
        {"id": "c", "question": "Which?", "answers": [{"text": "red", "answer_start": 5}]},
        {"id": "d", "answers": []},
    ]
    paragraphs = [{"context": CONTEXT, "qas": asked}]
    document = {"version": "2.0", "data": [{"title": "Fox", "paragraphs": paragraphs}]}
    (tmp_path / "squad.json").write_text(json.dumps(document), encoding="utf-8")
    columns = {"text": "context", "pair": "question"}
    data = DataConfig.model_validate({"train": "squad.json", "validation_share": 0, "bad_rows_share": 1, **columns})
    ledger = Ledger()
    fields = (AnswerField("answers"),)
    rows = list(read_rows(data, "train", base=tmp_path, labels="none", seed=0, ledger=ledger, fields=fields))
    assert [(row.pair, row.beside["answers"]) for row in rows] == [
        ("Who?", Answers((Answer(8, 11),), mended=1)),
        ("Why?", Answers()),
    ]
    said = json.dumps(ledger.summary())
    assert "an answer does not stand where its offset says" in said
    assert "squad.json:item 3" in said
    assert "missing pair column" in said
