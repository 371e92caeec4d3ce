"""Figures of tagged texts: as seqeval counts them, with intervals that hold the figure, and honest simple models."""

from __future__ import annotations

import random

import numpy as np
import pytest

from encodery.data.tags import SchemeName, tags_of
from encodery.data.tagsets import Tagset
from encodery.errors import DataError
from encodery.evaluation.tagged_texts import (
    count_spans,
    each_text,
    right_units,
    score_tags,
    span_table,
    tag_table,
)
from encodery.evaluation.tagging_baselines import linear_tagger, majority_tag, tag_of_the_word


def rng() -> np.random.Generator:
    return np.random.default_rng(3)


def made(scheme: SchemeName, texts: int = 120, seed: int = 1) -> tuple[list[list[str]], list[list[str]]]:
    """Random tags, and the same with every sixth tag changed; neither fits the scheme throughout."""
    draw = random.Random(seed)
    names = ["O", "O", *tags_of(["a", "b", "c"], scheme)]
    truth = [[draw.choice(names) for _ in range(draw.randint(1, 9))] for _ in range(texts)]
    said = [[draw.choice(names) if draw.random() < 0.17 else tag for tag in row] for row in truth]
    return said, truth


def test_default_figures_are_those_of_seqeval() -> None:
    metrics = pytest.importorskip("seqeval.metrics")
    for scheme in ("bio", "bioes"):
        said, truth = made(scheme)  # type: ignore[arg-type]
        found = score_tags(said, truth, scheme, rng=rng(), resamples=100)  # type: ignore[arg-type]
        assert found["span_f1"].value == pytest.approx(metrics.f1_score(truth, said))
        assert found["span_precision"].value == pytest.approx(metrics.precision_score(truth, said))
        assert found["span_recall"].value == pytest.approx(metrics.recall_score(truth, said))
        assert found["span_f1_macro"].value == pytest.approx(metrics.f1_score(truth, said, average="macro"))
        assert found["tag_accuracy"].value == pytest.approx(metrics.accuracy_score(truth, said))
        for line in span_table(count_spans(said, truth), rng=rng(), resamples=100):
            theirs = metrics.classification_report(truth, said, output_dict=True)[line["label"]]
            assert (line["precision"], line["recall"], line["f1"]) == pytest.approx(
                (theirs["precision"], theirs["recall"], theirs["f1-score"])
            )
            assert line["support"] == theirs["support"]


@pytest.mark.parametrize(("scheme", "name"), [("bio", "IOB2"), ("bioes", "IOBES")])
def test_strict_figures_are_those_of_seqeval(scheme: SchemeName, name: str) -> None:
    metrics, schemes = pytest.importorskip("seqeval.metrics"), pytest.importorskip("seqeval.scheme")
    said, truth = made(scheme)
    counts = count_spans(said, truth, strict=scheme)
    own = 2 * counts.hit.sum() / (counts.predicted.sum() + counts.true.sum())
    assert own == pytest.approx(metrics.f1_score(truth, said, mode="strict", scheme=getattr(schemes, name)))


def test_intervals_hold_the_figure_and_shrink_with_texts() -> None:
    widths = []
    for texts in (60, 960):
        said, truth = made("bio", texts)
        metric = score_tags(said, truth, "bio", rng=rng())["span_f1"]
        assert metric.value is not None and metric.low is not None and metric.high is not None
        assert metric.low < metric.value < metric.high
        widths.append(metric.high - metric.low)
    assert widths[1] < widths[0] / 2


@pytest.mark.parametrize("scheme", ["none", "bio"])
def test_numbers_of_single_texts_average_to_the_figure(scheme: SchemeName) -> None:
    said, truth = made("bio")
    each = each_text(said, truth, scheme)
    found = score_tags(said, truth, scheme, rng=rng(), resamples=100)
    assert each.mean() == pytest.approx(found["tag_accuracy" if scheme == "none" else "span_f1"].value)


def test_nothing_predicted_and_nothing_there() -> None:
    found = score_tags([["O", "O"]], [["B-a", "I-a"]], "bio", rng=rng(), resamples=100)
    assert (found["span_f1"].value, found["span_precision"].value, found["span_recall"].value) == (0.0, None, 0.0)
    empty = score_tags([["O"]], [["O"]], "bio", rng=rng(), resamples=100)
    assert empty["span_f1"].value is None and empty["tag_accuracy"].value == 1.0
    assert span_table(count_spans([["O"]], [["O"]]), rng=rng()) == []


def test_tags_of_their_own_are_counted_unit_by_unit() -> None:
    table = tag_table([["N", "V", "N"]], [["N", "N", "X"]], rng=rng(), resamples=100)
    lines = {line["label"]: line for line in table}
    assert (lines["N"]["precision"], lines["N"]["recall"], lines["N"]["support"]) == (0.5, 0.5, 2)
    assert lines["X"]["precision"] is None and lines["X"]["recall"] == 0.0
    assert right_units([["N", "V"]], [["N", "N"]])[0].tolist() == [1]


def test_texts_and_units_that_differ_in_number_are_refused() -> None:
    with pytest.raises(DataError, match="2 tagged texts but 1"):
        score_tags([["O"], ["O"]], [["O"]], "bio", rng=rng())
    with pytest.raises(DataError, match="text 1: 1 tags but 2"):
        score_tags([["O"]], [["O", "O"]], "bio", rng=rng())


PERSONS = Tagset("bio", "bio", "words", ("O", "B-PER", "I-PER"))


def sentences(number: int, seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Names are capitalised and follow 'mister'; some of them never occur twice."""
    draw = random.Random(seed)
    words, tags = [], []
    for _ in range(number):
        name = draw.choice(["Kim", "Lee"]) if draw.random() < 0.3 else "K" + "".join(draw.choices("abc", k=5))
        row = [*draw.choices(["the", "dog", "sees", "a", "cat"], k=draw.randint(1, 5)), "mister", name, "again"]
        words.append(row)
        tags.append(["B-PER" if word == name else "O" for word in row])
    return words, tags


def test_simple_models_learn_what_they_can() -> None:
    words, tags = sentences(300, 1)
    test_words, truth = sentences(60, 2)
    f1 = {}
    for baseline in (
        majority_tag(tags, test_words),
        tag_of_the_word(words, tags, test_words, "bio"),
        linear_tagger(words, tags, test_words, PERSONS, crf=True, seed=1),
    ):
        assert [len(row) for row in baseline.predicted] == [len(row) for row in test_words]
        f1[baseline.name] = score_tags(baseline.predicted, truth, "bio", rng=rng(), resamples=100)["span_f1"].value
    assert f1["majority"] == 0.0
    assert f1["linear model"] > 0.95
    assert f1["commonest tag of the word"] > 0.5
    alone = linear_tagger(words, tags, test_words, PERSONS, crf=False, seed=1, held=(test_words, truth))
    again = linear_tagger(words, tags, test_words, PERSONS, crf=False, seed=1, held=(test_words, truth))
    assert alone.predicted == again.predicted and alone.note == again.note
    assert score_tags(alone.predicted, truth, "bio", rng=rng(), resamples=100)["span_f1"].value > 0.95


def test_simple_models_of_one_tag_or_no_text() -> None:
    one = linear_tagger([["a", "b"]], [["O", "O"]], [["c"], []], PERSONS, crf=True, seed=1)
    assert one.predicted == [["O"], []]
    with pytest.raises(DataError, match="no tags"):
        majority_tag([], [["a"]])
