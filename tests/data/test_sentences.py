"""Sentences and pairs of their segments: where they begin, what follows what, and that no text is lost."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.data.sentences import Segment, first_tokens, segment_pairs, sentence_starts


def cut(text: str) -> list[str]:
    starts = sentence_starts(text)
    return [text[a:b].strip() for a, b in zip(starts, [*starts[1:], len(text)])]


@pytest.mark.parametrize(
    "sentences",
    [
        ["The bank said no.", "Shares fell 3.5 percent!", "Why?"],
        ['He asked: "Who?"', "Nobody knew."],
        ["Mr. Smith met Dr. J. Brown in the U.S. Senate.", "They spoke."],
        ["It cost 5 dollars... and more.", "(Not much.)", '"Still," she said, "enough."'],
        ["Ünder dem Dach war es still.", "Österreich schlief."],
        ["Only one sentence, without a stop"],
        ["这部电影很好看。", "我非常喜欢！", "你呢？"],
        ["他说：「走吧。」", "大家都走了。"],
        ["мы пришли домой.", "Было тихо."],
    ],
)
def test_the_rule_finds_where_sentences_end(sentences: list[str]) -> None:
    unspaced = "。" in sentences[0] or "：" in sentences[0]
    assert cut(("" if unspaced else " ").join(sentences)) == sentences


def test_lines_are_sentences_whatever_they_hold() -> None:
    assert cut("One. Two. Three\nfour\n\n  five.") == ["One. Two. Three", "four", "five."]
    paragraph = " ".join(["A sentence of words."] * 25)
    assert len(cut(f"{paragraph}\nOne. Two.")) == 26 and len(cut(f"{paragraph[:300]}\nOne. Two.")) == 2
    assert cut("alone. \n") == ["alone."] and cut("") == [""] and cut("  \n ") == [""]


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="aA .!?\n。”", max_size=40))
def test_starts_ascend_from_the_beginning_and_hold_text(text: str) -> None:
    starts = sentence_starts(text)
    assert starts and starts == sorted(set(starts)) and all(0 <= start <= len(text) for start in starts)
    if text.strip():
        assert "".join(cut(text)).replace("\n", "").replace(" ", "") == text.replace("\n", "").replace(" ", "")
        assert all(part for part in cut(text))


def test_tokens_that_begin_a_sentence() -> None:
    text = "A b. C d! E"
    offsets = np.array([[0, 1], [2, 3], [3, 4], [5, 6], [7, 8], [8, 9], [10, 11]])
    assert first_tokens(text, offsets).tolist() == [True, False, False, True, False, False, True]
    # A token that goes over the border belongs to the sentence before it.
    assert first_tokens(text, np.array([[0, 3], [3, 6], [7, 11]])).tolist() == [True, False, True]
    assert first_tokens("", np.zeros((0, 2))).size == 0


def documents(number: int, seed: int = 0, most: int = 9) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(number):
        begins = np.concatenate([np.arange(size) == 0 for size in rng.integers(3, 12, rng.integers(1, most))])
        found.append(begins)
    return found


@pytest.mark.parametrize("kind", ["next", "order"])
def test_half_of_the_pairs_stand_as_they_stood(kind: str) -> None:
    begins = documents(600)
    pairs = segment_pairs(begins, kind, 40, np.random.default_rng(1))  # type: ignore[arg-type]
    two = [pair for pair in pairs if pair.second is not None]
    assert np.mean([pair.follows for pair in two]) == pytest.approx(0.5, abs=0.05) and len(two) > 500
    for pair in two:
        assert pair.second is not None
        for segment in (pair.first, pair.second):  # whole sentences
            begin = np.append(begins[segment.document], True)
            assert begin[segment.start] and begin[segment.stop] and segment.size > 0
        together = pair.first.document == pair.second.document
        if pair.follows:
            assert together and pair.first.stop == pair.second.start
        elif kind == "order":
            assert together and pair.second.stop == pair.first.start
        else:
            assert not together
    assert all(pair.follows is None for pair in pairs if pair.second is None)


@pytest.mark.parametrize("kind", ["next", "order"])
def test_every_sentence_is_read_once_in_its_place(kind: str) -> None:
    """Sentences that a drawn segment takes the place of begin the next pair (BERT puts them back)."""
    begins = documents(200, seed=3)
    read = [np.zeros(begin.size, int) for begin in begins]
    for pair in segment_pairs(begins, kind, 40, np.random.default_rng(1)):  # type: ignore[arg-type]
        kept: list[Segment | None] = [pair.first]
        if kind == "order" or pair.follows:
            kept.append(pair.second)
        for segment in kept:
            if segment is not None:
                read[segment.document][segment.start : segment.stop] += 1
    assert all((count == 1).all() for count in read)


def test_pairs_fill_the_room_and_some_are_short() -> None:
    begins = documents(400, seed=5, most=60)
    sizes = {}
    for share in (0.0, 0.5):
        pairs = segment_pairs(begins, "order", 100, np.random.default_rng(0), short_share=share)
        sizes[share] = np.array([p.first.size + p.second.size for p in pairs if p.second is not None])
        assert sizes[share].max() < 100 + 12
    assert np.median(sizes[0.0]) >= 100 and np.mean(sizes[0.5] < 90) > 0.3


def test_one_document_has_no_other_to_draw_from() -> None:
    begins = [np.arange(30) % 5 == 0]
    pairs = segment_pairs(begins, "next", 12, np.random.default_rng(0))
    assert all(pair.follows in (True, None) for pair in pairs)
    alone = segment_pairs([np.arange(7) == 0], "order", 12, np.random.default_rng(0))
    assert [(pair.first, pair.second) for pair in alone] == [(Segment(0, 0, 7), None)]
    assert segment_pairs([], "next", 12, np.random.default_rng(0)) == []


def test_stores_know_where_sentences_begin() -> None:
    """From a file with a sentence a line to the numbers beside the tokens of samples, pairs of texts too."""
    from conftest import make_texts
    from encodery.data.sentences import SENTENCE, SentenceField
    from encodery.data.sources import Row
    from encodery.data.store import store_in_memory
    from encodery.data.tokenizers import TokenizerConfig, train_tokenizer

    tokenizer = train_tokenizer([text for text, _ in make_texts(100)], TokenizerConfig(vocab_size=150), seed=1)
    texts = ["the film. The river! The", "the child\nwalked over\n\nthe river", "the house"]
    store = store_in_memory([Row(text, None, None, "x") for text in texts], tokenizer, fields=(SentenceField(),))
    assert [int(store.numbers(row)[SENTENCE].sum()) for row in range(3)] == [3, 3, 1]
    assert store.facts["fields"][SENTENCE] == {"sentences": 7, "texts of several": 2}
    for row, text in enumerate(texts):
        (encoded,) = tokenizer.encode_batch([text])
        assert np.array_equal(store.numbers(row)[SENTENCE] > 0, first_tokens(text, encoded.offsets))
    paired = store_in_memory([Row("One. Two.", "the film", None, "x")], tokenizer, fields=(SentenceField(),))
    assert [int(paired.numbers(place)[SENTENCE].sum()) for place in range(2)] == [2, 1]
