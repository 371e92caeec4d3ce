"""The linear answer about units: which features a unit has, which are shared, and that other texts do not count."""

from __future__ import annotations

import torch
from torch import Tensor

from encodery.batch import Batch, layout_of
from encodery.data.tag_field import NOT_TAGGED
from encodery.heads.tagging.words import BEGINNINGS, ENDINGS, WordScores

LETTERS = list("abcdefghijABCDEFGHIJ012-.中国人")
NUMBER = {letter: place for place, letter in enumerate(LETTERS)}
END = len(LETTERS)
"""A special token, such as [SEP]."""


def scores_of(*, tags: int = 3, characters: bool = False) -> WordScores:
    scores = WordScores(tags, buckets=1 << 20, vocabulary=len(LETTERS) + 1, characters=characters)
    scores.spell([*((letter, False) for letter in LETTERS), ("\0", False)])
    return scores


def batch_of(*rows: list[str], length: int = 64) -> Batch:
    """Texts, each in brackets of special tokens; every letter is a token, and a word is a unit."""
    documents = [text.split() for row in rows for text in row]
    sizes = [[2 + sum(map(len, text.split())) for text in row] for row in rows]
    layout = layout_of(sizes, length)
    ids, tags = torch.zeros(layout.positions, dtype=torch.int64), torch.zeros(layout.positions, dtype=torch.int64)
    for words, start in zip(documents, layout.starts.tolist()):
        at = start
        ids[at] = END
        for word in words:
            tags[at + 1] = NOT_TAGGED
            for letter in word:
                at += 1
                ids[at] = NUMBER[letter]
        ids[at + 1] = END
    return Batch({"ids": ids, "tags": tags}, layout)


def features(text: str, scores: WordScores | None = None) -> Tensor:
    return (scores or scores_of()).features(batch_of([text]))


def test_a_unit_is_told_by_its_word_its_neighbours_and_how_it_is_written() -> None:
    scores = scores_of()
    one, two = features("a bc d", scores), features("e bc d", scores)
    assert (one[1] != two[1]).any(), "the word before tells"
    assert (one[2] != two[2]).any(), "and the one before that"
    assert torch.equal(features("a bc d i j", scores)[0], features("a bc d j i", scores)[0]), "no farther than two"


def test_affixes_are_shared_by_words_that_have_them() -> None:
    """Of words of six letters: three beginnings and four endings each, the first and last ones alike."""
    one, two, three = (features(word)[0] for word in ("abcdef", "abchij", "hijdef"))
    same = [(one == other).nonzero()[:, 0].tolist() for other in (two, three)]
    shared_always = set((features("abcdef")[0] == features("jihgbe")[0]).nonzero()[:, 0].tolist())
    beginnings, endings = (set(places) - shared_always for places in same)
    assert len(beginnings) == BEGINNINGS
    assert len(endings) == min(ENDINGS, 3)
    assert not beginnings & endings


def test_capitals_digits_and_signs_are_told_apart_and_letters_alike() -> None:
    small, capital, digits, sign = (features(word)[0] for word in ("abc", "Abc", "012", "a-c"))
    for other in (capital, digits, sign):
        assert (small != other).sum() >= 2
    # The small letters of a word count too: most of what is known of "Abc" is known of "abc".
    assert (small == capital).sum() > len(small) / 2
    # Words that no letter is shared by are written alike.
    shape = (features("Abc")[0] == features("Dfh")[0]) & (features("Abc")[0] != features("dfh")[0])
    assert shape.any()


def test_another_text_of_the_batch_changes_nothing() -> None:
    scores = scores_of()
    texts = ["abc Def 012", "j", "hij Abc a-c 21", "ABC"]
    alone = torch.cat([features(text, scores) for text in texts])
    for packed in (batch_of(texts), batch_of(texts[:1], texts[1:]), batch_of(texts[:2], texts[2:], length=40)):
        assert torch.equal(scores.features(packed), alone)


def test_units_without_letters_and_batches_without_units_are_answered() -> None:
    scores = scores_of()
    batch = batch_of(["abc d"])
    ids = batch.values["ids"].clone()
    ids[4] = END  # the only letter of the second word is now a token that is no text
    odd = Batch({**batch.values, "ids": ids}, batch.layout)
    assert scores(odd).shape == (2, 3)
    empty = Batch({**batch.values, "tags": torch.zeros_like(ids)}, batch.layout)
    assert scores(empty).shape == (0, 3)


def test_characters_count_with_their_pairs_and_have_no_affixes() -> None:
    scores = scores_of(characters=True)
    one, two = (scores.features(batch_of([text])) for text in ("中 国 人", "中 人 国"))
    assert one.shape[1] < features("a").shape[1]
    assert (one[0] == two[0]).sum() < one.shape[1]


def test_the_score_is_the_sum_of_the_weights() -> None:
    scores = scores_of()
    torch.nn.init.normal_(scores.weight, generator=torch.Generator().manual_seed(1))
    torch.nn.init.normal_(scores.bias, generator=torch.Generator().manual_seed(2))
    batch = batch_of(["abc Def", "a-1"])
    wanted = scores.weight[scores.features(batch).long()].sum(1) + scores.bias
    torch.testing.assert_close(scores(batch), wanted)
