"""Tags in the columns of a row: every form they come in, every way they can be wrong, and the tokens they lie at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.data import ledger
from encodery.data.fields import BadField
from encodery.data.ledger import Ledger, Watch
from encodery.data.readers import Raw
from encodery.data.rows import Row, RowMaker
from encodery.data.tag_field import NOT_TAGGED, TagField
from encodery.data.tags import Span, misfits, spans_of, tags_of, write_spans
from encodery.data.tagsets import Tagged, Tagset, spans_at
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.data.units import UnitRule, place

WORDS = {"tokens": ["Peter", "Blackburn", "left", "New", "York"], "tags": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]}
TEXT = "Peter Blackburn left New York"


def field(**changes: Any) -> TagField:
    return TagField(**{"texts_in": ("tokens", "text"), "tags_in": "tags", **changes})


def row_of(one: TagField, value: dict[str, Any], where: str = "rows.jsonl:1") -> Row:
    """As rows are made of a file; what is wrong with one is raised."""
    ledger_of = Ledger()
    column = "tokens" if "tokens" in value else "text"
    maker = RowMaker((column,), None, None, "none", "|", None, (one,))
    row = maker.make(Raw(value, where, 0), Watch(ledger_of, "skip", 1.0))
    if row is None:
        problem = ledger_of.problems()[0]
        raise BadField(problem.kind, problem.detail)
    return row


@pytest.fixture(scope="module")
def pieces() -> Tokenizer:
    texts = ["Peter Blackburn left New York", "在中国的比赛 1998 年 éa"] * 20
    return train_tokenizer(texts, TokenizerConfig(vocab_size=90), seed=1)


@pytest.mark.parametrize(
    "value",
    [
        WORDS,
        {"text": TEXT, "tags": WORDS["tags"]},
        {"text": TEXT, "tags": "B-PER I-PER O B-LOC I-LOC"},
        {"text": TEXT, "tags": '["B-PER", "I-PER", "O", "B-LOC", "I-LOC"]'},
        {"tokens": ["\ufeffPeter", " Blackburn ", "l\x00eft", "New", "York"], "tags": WORDS["tags"]},
    ],
    ids=["list", "text", "string", "json", "unclean"],
)
def test_one_row_in_every_form(value: dict[str, Any]) -> None:
    row = row_of(field(), value)
    assert " ".join(row.text.split()) == TEXT
    tagged = row.beside["tags"]
    assert [row.text[a:b] for a, b in tagged.offsets.tolist()] == TEXT.split()
    assert tagged.tags == tuple(WORDS["tags"])


@pytest.mark.parametrize(
    "spans",
    [
        [[0, 15, "PER"], [21, 29, "LOC"]],
        [{"start": 21, "end": 29, "label": "LOC"}, {"start": 0, "stop": 15, "label": "PER", "text": "Peter Blackburn"}],
        '[[0, 15, "PER"], [21, 29, "LOC"]]',
    ],
    ids=["lists", "objects", "json"],
)
@pytest.mark.parametrize("unclean", [False, True])
def test_spans_of_characters(spans: Any, unclean: bool) -> None:
    one = field(tags_in=None, spans_in="spans")
    value: dict[str, Any] = {"text": TEXT, "spans": spans}
    if unclean:  # offsets are those of the text as the file has it
        value = {"text": "\x00" + TEXT, "spans": [[1, 16, "PER"], [22, 30, "LOC"]]}
    row = row_of(one, value)
    assert row.beside["tags"].spans == (Span(0, 15, "PER"), Span(21, 29, "LOC"))
    units, tags = Tagset("bio", "bio", "words").settle(row.beside["tags"], row.text)
    assert tags == WORDS["tags"] and len(units) == 5


@pytest.mark.parametrize(
    ("value", "kind", "says"),
    [
        ({"tokens": ["a", "b"], "tags": ["O"]}, ledger.BAD_TAGS, "2 words but 1 tags"),
        ({"text": "a b c", "tags": ["O", "O"]}, ledger.BAD_TAGS, "3 words with spaces between them .* but 2 tags"),
        ({"tokens": ["a", " "], "tags": ["O", "O"]}, ledger.BAD_TAGS, "word 2 is ' ', not a word"),
        ({"tokens": ["a", None], "tags": ["O", "O"]}, ledger.NOT_TEXT, "a list"),
        ({"tokens": [], "tags": []}, ledger.EMPTY_TEXT, "empty text"),
        ({"tokens": ["a"], "tags": [None]}, ledger.BAD_TAGS, "tag 1 is None"),
        ({"tokens": ["a"], "tags": {"x": 1}}, ledger.BAD_TAGS, "the tags are a dict"),
        ({"tokens": ["a"]}, ledger.MISSING_TAGS, "no 'tags'; the row has 'tokens'"),
        ({"tokens": ["a", "b"], "tags": ["O", "I-X"]}, ledger.BAD_TAGS, "tag 2: 'I-X' cannot follow 'O' in bio"),
        ({"tokens": ["a", "b"], "tags": ["X", "NN"]}, ledger.BAD_TAGS, "'X' is no tag of bio, and 1 more"),
    ],
)
def test_tags_that_do_not_fit_are_bad_rows(value: dict[str, Any], kind: str, says: str) -> None:
    with pytest.raises(BadField, match=says) as caught:
        row_of(field(scheme="bio"), value)
    assert caught.value.kind == kind
    assert kind in ledger.FIXES


@pytest.mark.parametrize(
    ("spans", "says"),
    [
        ([[0, 99, "PER"]], r"lies outside of the text \(29 characters\)"),
        ([[5, 5, "PER"]], "lies outside"),
        ([[-1, 5, "PER"]], "lies outside"),
        ([[0, 5, "PER"], [3, 9, "LOC"]], r"\[0, 5, 'PER'\] and \[3, 9, 'LOC'\] overlap"),
        ([[0, 5]], "is not \\[start, stop, label\\]"),
        ([[0, 5, ""]], "is not"),
        ([["0", 5, "PER"]], "is not"),
        ([[0, True, "PER"]], "is not"),
        ([{"start": 0, "label": "PER"}], "is not"),
        ([{"start": 0, "end": 5, "label": "PER", "text": "Petra"}], "the text has 'Peter' there"),
        ([[5, 6, "PER"]], "white space"),
        ("nonsense", "the spans are a str"),
    ],
)
def test_spans_that_do_not_fit_are_bad_rows(spans: Any, says: str) -> None:
    with pytest.raises(BadField, match=says) as caught:
        row_of(field(tags_in=None, spans_in="spans"), {"text": TEXT, "spans": spans})
    assert caught.value.kind == ledger.BAD_SPANS


def gathered(one: TagField, values: list[dict[str, Any]], tokenizer: Tokenizer, known: Any = None) -> tuple[Any, Any]:
    rows = [row_of(one, value, f"rows.jsonl:{number + 1}") for number, value in enumerate(values)]
    gatherer = one.gatherer(known)
    encoded = tokenizer.encode_batch([row.text for row in rows])
    found = gatherer.arrays(rows, [[each] for each in encoded])["tags"]
    assert found.dtype == np.int32 and found.size == sum(each.ids.size for each in encoded)
    return found, gatherer.facts()


def test_tags_stand_at_the_first_tokens_of_words(pieces: Tokenizer) -> None:
    found, facts = gathered(field(), [WORDS], pieces)
    tags = [facts["names"][number - 2] for number in found[found > 0].tolist()]
    assert tags == WORDS["tags"]
    assert (facts["given"], facts["scheme"], facts["labels"]) == ("bio", "bio", ["LOC", "PER"])
    encoded = pieces.encode_batch([TEXT])[0]
    assert encoded.offsets[found > 0][:, 0].tolist() == [0, 6, 16, 21, 25]
    assert facts["counts"] == {"units": 5}
    assert facts["tag_counts"]["O"] == 1


def test_tags_that_do_not_fit_are_mended_and_counted_where_the_scheme_is_told_by_the_data(pieces: Tokenizer) -> None:
    wrong = {"tokens": ["the", "Peter", "left"], "tags": ["O", "I-PER", "XX"]}
    found, facts = gathered(field(), [WORDS] * 60 + [wrong], pieces)
    assert facts["given"] == "bio"
    assert facts["counts"]["tags mended that did not fit the scheme"] == 2
    assert facts["counts"]["first of these rows"] == "rows.jsonl:61"
    names = facts["names"]
    assert [names[number - 2] for number in found[found > 0][-3:].tolist()] == ["O", "B-PER", "O"]


def test_tags_that_training_did_not_have_are_counted(pieces: Tokenizer) -> None:
    _, known = gathered(field(), [WORDS], pieces)
    found, facts = gathered(field(), [{"tokens": ["a", "b"], "tags": ["B-NEW", "O"]}], pieces, known)
    assert found[found > 0].tolist() == [NOT_TAGGED, known["names"].index("O") + 2]
    assert facts["names"] == known["names"]
    assert facts["counts"]["tags unknown to the training rows"] == 1


def test_words_of_chinese_become_characters_in_bmes(pieces: Tokenizer) -> None:
    value = {"tokens": ["在", "中国", "的", "比赛场"], "tags": ["p", "ns", "u", "n"]}
    _, facts = gathered(field(units="characters"), [value], pieces)
    row = row_of(field(units="characters"), value)
    assert row.text == "在中国的比赛场"
    _, tags = Tagset.from_dict(facts).settle(row.beside["tags"], row.text)
    assert tags == ["S-p", "B-ns", "E-ns", "S-u", "B-n", "M-n", "E-n"]
    alone = field(units="characters", tags_in=None)
    row = row_of(alone, value)
    assert Tagset("none", "bmes", "characters", rule=UnitRule("characters")).settle(row.beside["tags"], row.text)[
        1
    ] == list("SBESBME")
    with pytest.raises(BadField, match="no list of words"):
        row_of(alone, {"text": "在中国"})


def test_characters_that_share_a_token_are_counted(pieces: Tokenizer) -> None:
    """1998 is one token: its four characters are read together, and a border inside of it cannot be learned."""
    value = {"tokens": ["1998", "年"], "tags": ["t", "q"]}
    _, facts = gathered(field(units="characters"), [value], pieces)
    tokens = len(pieces.encode_batch(["1998年"])[0].ids)
    assert facts["counts"].get("units that share a token", 0) == 5 - tokens
    spans = field(tags_in=None, spans_in="spans")
    _, facts = gathered(spans, [{"text": TEXT, "spans": [[0, 3, "PER"]]}], pieces)
    assert facts["counts"]["spans that end inside of a unit"] == 1


@st.composite
def tagged_texts(draw: st.DrawFn) -> tuple[str, np.ndarray, list[str], Any]:
    signs = ["a", "é", "e\u0301", "中", "国", "1998", "👍🏽", " ", ".", "\u200b", "York"]
    text = "".join(draw(st.lists(st.sampled_from(signs), min_size=1, max_size=10)))
    units = UnitRule(draw(st.sampled_from(["words", "characters"]))).find(text)
    scheme = draw(st.sampled_from(["bio", "bioes"]))
    edges = sorted(draw(st.sets(st.integers(0, len(units)), max_size=6)))
    spans = [Span(a, b, draw(st.sampled_from("xy"))) for a, b in zip(edges[::2], edges[1::2])]
    return text, units, write_spans(spans, len(units), scheme), scheme


@settings(max_examples=80, deadline=None)
@given(tagged_texts())
def test_what_is_learned_at_tokens_comes_back_to_the_units(
    pieces: Tokenizer, made: tuple[str, np.ndarray, list[str], Any]
) -> None:
    """Through a real tokenizer that joins, drops and splits characters: spans whose ends are ends of tokens survive."""
    text, units, tags, scheme = made
    tagset = Tagset(scheme, scheme, "words", ("O", *tags_of(["x", "y"], scheme)))
    placed = place(units, pieces.encode_batch([text])[0].offsets)
    groups = tagset.group_tags(tags, placed)
    assert len(groups) == placed.token.size and misfits(groups, scheme) == []
    back = tagset.unit_tags(groups, placed)
    assert len(back) == len(units) and misfits(back, scheme) == []
    if placed.token.size == len(units):
        assert back == tags
    shared = np.bincount(placed.group[placed.group >= 0], minlength=placed.token.size) > 1
    for span in spans_of(tags):
        inside = placed.group[span.start : span.stop]
        if (inside >= 0).all() and not shared[inside].any():
            assert span in spans_of(back)


def test_spans_widen_to_whole_units() -> None:
    units = np.array([[0, 5], [6, 9]])
    assert spans_at(units, [Span(1, 3, "a"), Span(8, 9, "b")]) == [Span(0, 1, "a"), Span(1, 2, "b")]
    assert spans_at(units, [Span(1, 2, "a"), Span(3, 4, "b")]) == [Span(0, 1, "a")]


def test_a_tagset_is_kept_as_plain_data(pieces: Tokenizer) -> None:
    import json

    _, facts = gathered(field(learned="bioes"), [WORDS], pieces)
    tagset = Tagset.from_dict(json.loads(json.dumps(facts)))
    assert Tagset.from_dict(tagset.to_dict()) == tagset
    assert tagset.scheme == "bioes"
    assert set(tagset.names) == {"O", *tags_of(["LOC", "PER"], "bioes")}
    assert tagset.units_of(Tagged(np.array([[0, 1]])), "ab").tolist() == [[0, 1]]
    assert tagset.units_of(None, "ab cd").tolist() == [[0, 2], [3, 5]]
