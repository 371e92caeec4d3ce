"""Schemes of tags: told apart, checked, read and written, whatever order the tags come in."""

from __future__ import annotations

import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.data.tags import (
    SchemeName,
    Span,
    allowed,
    convert,
    detect,
    misfits,
    parse,
    spans_of,
    strict_spans,
    tags_of,
    write_spans,
)

SCHEMES: list[SchemeName] = ["iob1", "bio", "bioes", "bmes"]
WRITTEN = {
    "iob1": ["I-PER", "I-PER", "B-PER", "O", "I-LOC"],
    "bio": ["B-PER", "I-PER", "B-PER", "O", "B-LOC"],
    "bioes": ["B-PER", "E-PER", "S-PER", "O", "S-LOC"],
    "bmes": ["B-PER", "E-PER", "S-PER", "O", "S-LOC"],
}
SPANS = [Span(0, 2, "PER"), Span(2, 3, "PER"), Span(4, 5, "LOC")]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_set_of_spans_in_every_scheme(scheme: SchemeName) -> None:
    tags = WRITTEN[scheme]
    assert write_spans(SPANS, 5, scheme) == tags
    assert spans_of(tags) == SPANS == strict_spans(tags, scheme)
    assert misfits(tags, scheme) == []
    for other in SCHEMES:
        assert convert(tags, other) == WRITTEN[other]


@st.composite
def some_spans(draw: st.DrawFn) -> tuple[int, list[Span]]:
    edges = sorted(draw(st.sets(st.integers(0, 12), max_size=8)))
    spans = [Span(a, b, draw(st.sampled_from(["PER", "LOC", ""]))) for a, b in zip(edges[::2], edges[1::2])]
    if any(span.label == "" for span in spans):  # bare letters are not mixed with labels
        spans = [span._replace(label="") for span in spans]
    return 12, spans


@settings(max_examples=60, deadline=None)
@given(some_spans(), st.sampled_from(SCHEMES))
def test_spans_come_back_as_they_were_written(made: tuple[int, list[Span]], scheme: SchemeName) -> None:
    units, spans = made
    tags = write_spans(spans, units, scheme)
    assert spans_of(tags) == spans
    assert misfits(tags, scheme) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from(["O", *tags_of(["a", "b"], "bioes")]), max_size=9), st.sampled_from(SCHEMES))
def test_whatever_is_converted_fits(tags: list[str], scheme: SchemeName) -> None:
    whole = convert(tags, scheme)
    assert misfits(whole, scheme) == []
    assert spans_of(whole) == spans_of(tags)
    assert set(strict_spans(tags, "bioes")) <= set(spans_of(tags))


@pytest.mark.parametrize("scheme", ["bio", "bioes", "bmes"])
@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_the_table_of_transitions_says_what_misfits_says(scheme: SchemeName, data: st.DataObject) -> None:
    names = ["O", *tags_of(["a", "b"], scheme)]
    begin, end, between = allowed(names, scheme)
    tags = data.draw(st.lists(st.sampled_from(names), min_size=1, max_size=5))
    numbers = [names.index(tag) for tag in tags]
    fits = begin[numbers[0]] and end[numbers[-1]] and all(between[a, b] for a, b in pairwise(numbers))
    assert fits == (misfits(tags, scheme) == [])


def test_what_does_not_fit_is_named_with_its_place() -> None:
    wrong = misfits(["O", "I-PER", "B-LOC", "XYZ"], "bio")
    assert [one.place for one in wrong] == [1, 3]
    assert "'I-PER' cannot follow 'O' in bio" in wrong[0].why
    assert "'XYZ' is no tag of bio" in wrong[1].why
    assert "cannot end a text" in misfits(["B-PER"], "bioes")[0].why
    assert "cannot follow the beginning" in misfits(["E-PER"], "bioes")[0].why
    assert [one.place for one in misfits(["B-PER"], "iob1")] == [0]
    assert misfits(["anything", "E"], "none") == []


@pytest.mark.parametrize(
    ("tags", "scheme"),
    [
        (["NNP", "VBZ", "."], "none"),
        (["w", "t", "n", "S"], "none"),
        (["O", "O"], "none"),
        (["B", "E", "S", "B", "M", "E"], "bmes"),
        (["B", "E", "S"], "bioes"),
        (["B", "I", "O"], "bio"),
        (["B-PER", "L-PER", "U-LOC"], "bioes"),
        (["B-PER", "I-PER", "I-PER", "E-PER"], "bioes"),
        (["B-PER", "O", "B-LOC", "I-LOC"], "bio"),
        (["I-PER", "O", "I-LOC", "B-LOC"], "iob1"),
        (["B-PER", "B-PER"], "bio"),
    ],
)
def test_schemes_are_told_apart(tags: list[str], scheme: str) -> None:
    assert detect([tags]).scheme == scheme


def test_a_few_wrong_tags_hide_no_scheme() -> None:
    rows = [["B-PER", "I-PER", "O"]] * 100 + [["O", "I-PER"], ["B-PERSON", "X"]]
    found = detect(rows)
    assert (found.scheme, found.misfits) == ("bio", 2)
    assert parse("X") == ("O", "")
    assert spans_of(["B-PER", "X", "I-PER"]) == [Span(0, 1, "PER"), Span(2, 3, "PER")]


def test_labels_may_hold_any_sign() -> None:
    tags = write_spans([Span(0, 2, "cell-line I-x")], 2, "bio")
    assert spans_of(tags) == [Span(0, 2, "cell-line I-x")]


def test_spans_are_counted_as_the_packages_of_the_field_do() -> None:
    """Against seqeval 1.2.2, which follows conlleval; its strict mode wants whole spans of the scheme."""
    entities = pytest.importorskip("seqeval.metrics.sequence_labeling").get_entities
    schemes = pytest.importorskip("seqeval.scheme")
    rng = random.Random(5)
    names = ["O", *tags_of(["a", "b"], "bioes")]
    for _ in range(300):
        tags = [rng.choice(names) for _ in range(rng.randint(1, 8))]
        assert {(label, start, stop + 1) for label, start, stop in entities(tags)} == {
            (span.label, span.start, span.stop) for span in spans_of(tags)
        }
        for scheme, theirs, letters in (("bio", schemes.IOB2, "OBI"), ("bioes", schemes.IOBES, "OBIES")):
            own = [tag for tag in tags if tag[0] in letters]
            found = {(e.tag, e.start, e.end) for e in schemes.Entities([own], theirs).entities[0]} if own else set()
            assert {(span.label, span.start, span.stop) for span in strict_spans(own, scheme)} == found  # type: ignore[arg-type]
