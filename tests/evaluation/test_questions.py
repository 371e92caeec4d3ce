"""Answers are counted as the official script of SQuAD counts them; thresholds and simple rules against trying all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.errors import DataError
from encodery.evaluation.questions import (
    Asked,
    Candidates,
    answer_words,
    best_threshold,
    each_f1,
    exact_match,
    fit_answer_mix,
    no_answer,
    overlap_f1,
    score_answers,
    sliding_window,
)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("The  quick, brown fox!", ["quick", "brown", "fox"]),
        ("A.M. an-other", ["am", "another"]),
        ("theatre and the atom", ["theatre", "and", "atom"]),
        ("“fancy” quotes stay", ["“fancy”", "quotes", "stay"]),
        ("", []),
        ("the", []),
        ("狐狸，跑了。", ["狐", "狸", "跑", "了"]),
        ("在 iPhone6s 上", ["在", "iphone6s", "上"]),
        ("iPhone手机the", ["iphone", "手", "机"]),
    ],
)
def test_words_of_answers(text: str, words: list[str]) -> None:
    assert answer_words(text) == words


@pytest.mark.parametrize(
    ("given_text", "right", "exact", "f1"),
    [
        ("the fox", ["Fox."], 1, 1),
        ("red fox", ["fox", "the red hen"], 0, 2 / 3),
        ("fox fox", ["fox"], 0, 2 / 3),
        ("", [], 1, 1),
        ("", ["fox"], 0, 0),
        ("fox", [], 0, 0),
        ("the", [], 1, 1),  # it has no words, so it says nothing
        ("fox", ["the", "fox"], 1, 1),  # a right answer without words is none
        ("狐狸跑", ["狐狸"], 0, 0.8),
    ],
)
def test_exact_match_and_f1(given_text: str, right: list[str], exact: float, f1: float) -> None:
    assert exact_match(given_text, right) == exact
    assert overlap_f1(given_text, right) == pytest.approx(f1)


def official_f1(given_text: str, gold: str) -> float:
    """Precision and recall as the official script writes them."""
    given_words, gold_words = answer_words(given_text), answer_words(gold)
    if not given_words or not gold_words:
        return float(given_words == gold_words)
    same = sum(min(given_words.count(word), gold_words.count(word)) for word in set(given_words))
    if same == 0:
        return 0.0
    precision, recall = same / len(given_words), same / len(gold_words)
    return 2 * precision * recall / (precision + recall)


@given(
    st.lists(st.sampled_from(["a", "red", "fox", "the", "hen", "saw"])),
    st.lists(st.sampled_from(["red", "fox", "hen"])),
)
def test_f1_is_that_of_the_official_script(given_words: list[str], gold: list[str]) -> None:
    assert overlap_f1(" ".join(given_words), [" ".join(gold)]) == pytest.approx(
        official_f1(" ".join(given_words), " ".join(gold))
    )


@settings(deadline=None)
@given(st.lists(st.tuples(st.sampled_from([-1.0, 0.0, 0.5, 2.0, 3.0]), st.booleans(), st.booleans()), min_size=1))
def test_the_best_threshold_is_that_of_trying_all(rows: list[tuple[float, bool, bool]]) -> None:
    scores = np.array([score for score, _, _ in rows])
    right = [["fox"] if has else [] for _, has, _ in rows]
    candidates = Candidates(["fox" if hit else "hen" for _, _, hit in rows], scores)
    threshold, best = best_threshold(candidates, right)
    tried = [each_f1(candidates.above(level), right).mean() for level in (-9.0, -0.5, 0.25, 1.0, 2.5, 9.0)]
    assert best == pytest.approx(max(tried))
    assert each_f1(candidates.above(threshold), right).mean() == pytest.approx(best)


def test_the_one_that_tells_where_answering_pays_weighs_more() -> None:
    """The linear answer knows which questions have an answer; the scores of spans say nothing, or the opposite."""
    rng = np.random.default_rng(1)
    there = rng.random(400) < 0.5
    right = [["red fox"] if is_there else [] for is_there in there]
    candidates = Candidates(["red fox"] * 400, rng.normal(size=400))
    own, linear = fit_answer_mix(candidates, there + rng.normal(size=400), right)
    assert linear > 3 * own >= 0
    contrary = Candidates(candidates.texts, -3.0 * there + candidates.scores)
    assert fit_answer_mix(contrary, there + rng.normal(size=400), right)[0] == 0


def test_wrong_answers_are_no_reason_to_answer() -> None:
    """Half of the questions that have an answer get a wrong one: only what tells these from the rest weighs."""
    rng = np.random.default_rng(2)
    kind = rng.integers(0, 3, size=600)  # 0 no answer, 1 answered wrongly, 2 rightly
    right = [["red fox"] if one else [] for one in kind]
    texts = ["red fox" if one == 2 else "hen" for one in kind]
    own, linear = fit_answer_mix(Candidates(texts, 1.0 * (kind == 2)), 1.0 * (kind == 1), right)
    assert own > 1 and linear == 0


def test_without_anything_to_tell_apart_both_weigh_the_same() -> None:
    for right in ([["fox"]] * 4, [[]] * 4, [[], ["fox"]]):
        candidates = Candidates(["hen"] * len(right), np.arange(len(right)) * 1.0)
        assert fit_answer_mix(candidates, np.zeros(len(right)), right) == [0.5, 0.5]


def test_scores_with_their_parts() -> None:
    given_texts = ["the fox", "", "hen", "a red hen"]
    right = [["fox"], [], [], ["hen"]]
    rng = np.random.default_rng(0)
    candidates = Candidates(["fox", "x", "hen", "red hen"], np.array([3.0, 0.0, 1.0, 2.0]))
    found = score_answers(given_texts, right, rng=rng, resamples=200, candidates=candidates)
    values = {name: metric.value for name, metric in found.items()}
    assert values == {
        "answer_f1": pytest.approx((1 + 1 + 0 + 2 / 3) / 4),
        "answer_exact": 0.5,
        "answerable_f1": pytest.approx((1 + 2 / 3) / 2),
        "answerable_exact": 0.5,
        "unanswerable_accuracy": 0.5,
        "answered_rightly": 0.75,
        "answer_best_f1": pytest.approx((1 + 1 + 1 + 2 / 3) / 4),
    }
    assert found["answer_f1"].low is not None
    assert found["answer_f1"].low <= values["answer_f1"] <= found["answer_f1"].high  # type: ignore[operator]
    assert "1.5" in found["answer_best_f1"].note


def test_parts_without_rows_are_not_defined() -> None:
    found = score_answers(["x"], [["x"]], rng=np.random.default_rng(0), resamples=100)
    assert found["unanswerable_accuracy"].value is None
    assert found["unanswerable_accuracy"].note == "every row has an answer"
    assert found["answerable_f1"].value == 1
    with pytest.raises(DataError, match="no rows"):
        score_answers([], [], rng=np.random.default_rng(0))
    with pytest.raises(DataError, match="1 answers to 0 questions"):
        score_answers(["x"], [], rng=np.random.default_rng(0))


CONTEXTS = [
    "The keys light up at night. The sound is loud and clear. Shipping took a week.",
    "It came in a box. The screen has a scratch. We sent it back.",
    "电池很耐用。屏幕很亮。声音太小了。",
]


def test_the_sliding_window_finds_the_sentence_that_is_asked_for() -> None:
    questions = ["How is the sound?", "What of the screen?", "声音怎么样？"]
    right = [["The sound is loud and clear"], ["The screen has a scratch"], ["声音太小了"]]
    rows = Asked([*CONTEXTS, CONTEXTS[0]], [*questions, "Does the zipper break?"], [*right, []])
    found = sliding_window(rows, rows, rows)
    assert each_f1(found.given, rows.right).min() > 0.8
    assert found.given[3] == ""
    assert "sentence" in found.note
    untuned = sliding_window(rows, rows, None)
    assert "not tuned" in untuned.note
    assert len(untuned.given) == 4


def test_the_window_is_chosen_on_validation_rows() -> None:
    context = "one two three four five six seven eight nine ten " * 3
    rows = Asked([context], ["four five"], [["four five"]])
    found = sliding_window(Asked(CONTEXTS, [], []), rows, rows)
    assert found.given == ["four five"]
    assert "window of 2 words" in found.note


def test_rules_on_nothing_and_on_signs() -> None:
    empty = Asked([], [], [])
    assert sliding_window(empty, empty, empty).given == []
    signs = Asked(["...", "!?"], ["?", "🦊"], [[], []])
    assert sliding_window(signs, signs, signs).given == ["", ""]
    assert no_answer(signs).given == ["", ""]
