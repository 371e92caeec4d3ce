"""Texts that change each time they are seen: what may change, what must stay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from conftest import make_texts
from encodery.batch import Sample
from encodery.data.augment import Augment, AugmentConfig, SmallerPieces
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer

TEXTS = [text for text, _ in make_texts(300)]


@pytest.fixture(scope="module", params=["wordpiece", "bpe", "unigram"])
def tokenizer(request: pytest.FixtureRequest) -> Tokenizer:
    return train_tokenizer(TEXTS, TokenizerConfig(kind=request.param, vocab_size=200), seed=1)


def samples(tokenizer: Tokenizer, longest: int = 64) -> list[Sample]:
    maker, counts = SampleMaker.framed(tokenizer.frame, longest), LengthCounts()
    found: list[Sample] = []
    for number, one in enumerate(tokenizer.encode_batch(TEXTS[:60])):
        tags = np.where(one.starts_word, 1 + np.arange(one.ids.size), 0)
        found += maker.single(one.ids.astype(np.int64), one.starts_word, number, counts, None, {"tag": tags})
    return found


def test_smaller_pieces_spell_the_same_text(tokenizer: Tokenizer) -> None:
    pieces, rng = SmallerPieces.of(tokenizer), np.random.default_rng(0)
    cut = 0
    for text in TEXTS[:60]:
        ids = tokenizer.encode_batch([text])[0].ids.astype(np.int64)
        smaller, origin = pieces.cut(ids, 0.5, rng)
        assert tokenizer.decode(smaller.tolist()) == tokenizer.decode(ids.tolist())
        assert np.array_equal(np.unique(origin), np.arange(ids.size)) and (np.diff(origin) >= 0).all()
        cut += smaller.size - ids.size
    assert cut > 60


def test_what_is_said_of_a_token_stays_with_its_first_piece(tokenizer: Tokenizer) -> None:
    augment = Augment(AugmentConfig(split=0.5), tokenizer, 64)
    rng = np.random.default_rng(1)
    for sample in samples(tokenizer):
        changed = augment(sample, rng)
        assert changed.ids.size >= sample.ids.size and changed.ids.size <= 64
        said, now = sample.beside["tag"], changed.beside["tag"]
        assert np.array_equal(said[said > 0], now[now > 0])
        assert np.array_equal(changed.starts_word[now > 0], np.ones((now > 0).sum(), dtype=bool))
        assert sample.starts_word.sum() == changed.starts_word.sum()
        assert changed.uid == sample.uid and changed.segment.size == changed.ids.size


def test_words_are_left_out_whole_and_special_tokens_stay(tokenizer: Tokenizer) -> None:
    augment = Augment(AugmentConfig(delete=0.4), tokenizer, 64)
    rng = np.random.default_rng(2)
    before = after = 0
    for sample in samples(tokenizer):
        changed = augment(sample, rng)
        assert changed.ids[0] == sample.ids[0] and changed.ids[-1] == sample.ids[-1]
        assert 2 < changed.ids.size <= sample.ids.size
        kept = changed.beside["tag"][changed.beside["tag"] > 0]
        assert (np.diff(kept) > 0).all() and set(kept) <= set(sample.beside["tag"])
        before, after = before + sample.ids.size - 2, after + changed.ids.size - 2
    assert 0.5 < after / before < 0.7


def test_words_that_change_places_are_all_still_there(tokenizer: Tokenizer) -> None:
    augment = Augment(AugmentConfig(swap=0.5), tokenizer, 64)
    rng = np.random.default_rng(3)
    moved = 0
    for sample in samples(tokenizer):
        changed = augment(sample, rng)
        assert sorted(changed.ids.tolist()) == sorted(sample.ids.tolist())
        assert changed.ids[0] == sample.ids[0] and changed.ids[-1] == sample.ids[-1]
        moved += not np.array_equal(changed.ids, sample.ids)
    assert moved > 40


def test_hidden_tokens_are_the_asked_share_and_never_special(tokenizer: Tokenizer) -> None:
    augment = Augment(AugmentConfig(hide=0.3), tokenizer, 64)
    rng = np.random.default_rng(4)
    hidden = total = 0
    for sample in samples(tokenizer):
        changed = augment(sample, rng)
        assert changed.ids[0] == sample.ids[0] and changed.ids[-1] == sample.ids[-1]
        hidden += int((changed.ids == tokenizer.mask_id).sum())
        total += sample.ids.size - 2
    assert 0.25 < hidden / total < 0.35


def test_a_text_that_fills_the_length_is_not_made_longer(tokenizer: Tokenizer) -> None:
    augment = Augment(AugmentConfig(split=0.9), tokenizer, 8)
    rng = np.random.default_rng(5)
    for sample in samples(tokenizer, 8):
        assert augment(sample, rng).ids.size <= 8


def test_a_pair_keeps_its_sides(tokenizer: Tokenizer) -> None:
    maker = SampleMaker.framed(tokenizer.frame, 64)
    one, two = (tokenizer.encode_batch([text])[0] for text in TEXTS[:2])
    first, second = ((part.ids.astype(np.int64), part.starts_word) for part in (one, two))
    (sample,) = maker.pair(first, second, 0, LengthCounts())
    changed = Augment(AugmentConfig(delete=0.2, swap=0.2, split=0.3), tokenizer, 64)(sample, np.random.default_rng(6))
    assert (np.diff(changed.segment) >= 0).all() and set(changed.segment) == {0, 1}
    special = [number in tokenizer.special_ids for number in changed.ids]
    assert sum(special) == sum(number in tokenizer.special_ids for number in sample.ids)


def test_nothing_asked_is_nothing_done(tokenizer: Tokenizer) -> None:
    augment = Augment(AugmentConfig(), tokenizer, 64)
    assert not AugmentConfig().used
    for sample in samples(tokenizer)[:5]:
        changed = replace(augment(sample, np.random.default_rng(0)), tree=None)
        assert np.array_equal(changed.ids, sample.ids) and np.array_equal(changed.starts_word, sample.starts_word)
