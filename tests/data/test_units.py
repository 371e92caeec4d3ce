"""Units of a text and the tokens that stand for them: offsets stay right, whatever the characters."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.data.units import RuleLearner, UnitRule, join, place

PIECES = [
    "a",
    "Z",
    "é",
    "e\u0301",
    "的",
    "中",
    "。",
    " ",
    "\n",
    "👍🏽",
    "👩\u200d🔬",
    ".",
    "-",
    "'",
    "7",
    "ß",
    "\u200b",
    "ن",
]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=14).map("".join)
WORDS = st.lists(st.lists(st.sampled_from([p for p in PIECES if p.strip()]), min_size=1, max_size=4).map("".join))


def words_of(text: str, rule: UnitRule) -> list[str]:
    return [text[start:stop] for start, stop in rule.find(text).tolist()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Peter left, at 10:30.", ["Peter", "left", ",", "at", "10:30", "."]),
        ("the U.S. well-known 3.5%", ["the", "U.S.", "well-known", "3.5", "%"]),
        ("I don't (really)", ["I", "do", "n't", "(", "really", ")"]),
        ("John's e.g. x", ["John", "'s", "e.g.", "x"]),
        ("在NBA比赛。", ["在", "NBA", "比", "赛", "。"]),
        ("cafe\u0301 ok👍🏽!", ["cafe\u0301", "ok", "👍🏽", "!"]),
        ("end...", ["end", ".", ".", "."]),
    ],
)
def test_words_of_a_text(text: str, words: list[str]) -> None:
    assert words_of(text, UnitRule("words", ("n't", "'s"))) == words


def test_characters_keep_their_marks() -> None:
    assert words_of("e\u0301 中👩\u200d🔬a", UnitRule("characters")) == ["e\u0301", "中", "👩\u200d🔬", "a"]


@settings(max_examples=150, deadline=None)
@given(TEXTS, st.sampled_from(["words", "characters", "spaces"]), st.booleans())
def test_units_hold_every_visible_character_once(text: str, kind: str, joined: bool) -> None:
    units = UnitRule(kind, ("'s",), joined).find(text)  # type: ignore[arg-type]
    assert (units[:, 0] < units[:, 1]).all()
    assert (units[1:, 0] >= units[:-1, 1]).all()
    inside = {at for start, stop in units.tolist() for at in range(start, stop)}
    assert inside == {at for at, char in enumerate(text) if not char.isspace()}


@settings(max_examples=100, deadline=None)
@given(WORDS)
def test_words_stand_where_the_joined_text_has_them(words: list[str]) -> None:
    text, offsets = join(words)
    assert [text[start:stop] for start, stop in offsets.tolist()] == words
    assert text.replace(" ", "") == "".join(words)


def test_words_are_joined_as_their_script_is_written() -> None:
    assert join(["in", "New", "York"])[0] == "in New York"
    assert join(["在", "NBA", "比赛", "。"])[0] == "在NBA比赛。"
    assert join(["看", "New", "York", "新闻"])[0] == "看New York新闻"
    assert join(["the", "word", "中", "means"])[0] == "the word 中 means"


def test_the_rule_is_learned_from_how_words_were_cut() -> None:
    cut, left, chinese = RuleLearner(), RuleLearner(), RuleLearner()
    for _ in range(30):
        cut.add(["John", "'s", "well-known", "dog", "did", "n't", "bark", "."])
        left.add(["what's", "on", "tv,", "tonight?"])
        chinese.add(["在", "比赛", "。"])
    assert cut.rule() == UnitRule("words", ("n't", "'s"), True)
    assert left.rule().kind == "spaces"
    assert chinese.rule().kind == "given"
    assert UnitRule.from_dict(cut.rule().to_dict()) == cut.rule()


@pytest.fixture(scope="module")
def tokenizers() -> list[Tokenizer]:
    texts = [
        "Peter said 在比赛中。 well-known don't 1998 éa 👍🏽 dogs",
        "the dogs of John's house, in 1998 在中国",
    ] * 20
    kinds = ["wordpiece", "byte_bpe", "unigram", "characters", "bytes"]
    return [train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=300), seed=1) for kind in kinds]  # type: ignore[arg-type]


@settings(max_examples=60, deadline=None)
@given(text=TEXTS, kind=st.sampled_from(["words", "characters"]))
def test_every_unit_is_read_at_a_token_that_touches_it(tokenizers: list[Tokenizer], text: str, kind: str) -> None:
    units = UnitRule(kind).find(text)  # type: ignore[arg-type]
    for tokenizer in tokenizers:
        offsets = tokenizer.encode_batch([text])[0].offsets
        placed = place(units, offsets)
        assert (np.diff(placed.token) > 0).all()
        assert placed.vanished + placed.shared + placed.token.size == len(units)
        for (start, stop), group in zip(units.tolist(), placed.group.tolist()):
            touching = [t for t, (a, b) in enumerate(offsets.tolist()) if a < stop and start < b]
            assert (group < 0) == (not touching) or group >= 0
            if group >= 0 and touching:
                assert placed.token[group] <= touching[0]


def test_units_without_a_token_and_units_in_one_token() -> None:
    units = np.array([[0, 1], [1, 2], [3, 4], [5, 6]])
    placed = place(units, np.array([[0, 2], [5, 6]]))
    assert placed.token.tolist() == [0, 1]
    assert placed.group.tolist() == [0, 0, -1, 1]
    assert (placed.vanished, placed.shared) == (1, 1)
    empty = place(units, np.zeros((0, 2), np.int32))
    assert empty.vanished == 4 and empty.token.size == 0
