"""The n-gram answer: which features a document has, what they weigh, and that neighbours do not matter."""

from __future__ import annotations

import math

import pytest
import torch

from encodery.batch import Batch, layout_of
from encodery.heads.lexical import BOTH, SHARE, LexicalScores


def batch_of_ids(rows: list[list[list[int]]], length: int) -> Batch:
    """Documents of ids laid into rows."""
    layout = layout_of([[len(document) for document in row] for row in rows], length)
    ids = torch.zeros(layout.positions, dtype=torch.int64)
    documents = [document for row in rows for document in row]
    for document, start in zip(documents, layout.starts.tolist()):
        ids[start : start + len(document)] = torch.tensor(document)
    return Batch({"ids": ids}, layout)


def features_of(scores: LexicalScores, document: list[int]) -> set[int]:
    _, feature, _ = scores.features(batch_of_ids([[document]], 16))
    return set(feature.tolist())


def test_a_document_has_its_distinct_tokens_and_runs() -> None:
    """Six tokens, two of them twice: four distinct tokens; five pairs with one twice; four triples."""
    document = [7, 8, 9, 7, 8, 11]
    assert len(features_of(LexicalScores(2, longest=1, buckets=1 << 20), document)) == 4
    assert len(features_of(LexicalScores(2, longest=2, buckets=1 << 20), document)) == 4 + 4
    assert len(features_of(LexicalScores(2, longest=3, buckets=1 << 20), document)) == 4 + 4 + 4


def test_order_matters_for_pairs_and_not_for_tokens() -> None:
    one, two = [5, 6, 7], [7, 6, 5]
    tokens = LexicalScores(2, longest=1, buckets=1 << 20)
    pairs = LexicalScores(2, longest=2, buckets=1 << 20)
    assert features_of(tokens, one) == features_of(tokens, two)
    assert features_of(pairs, one) != features_of(pairs, two)


def test_rarity_is_the_formula_and_zero_for_what_one_document_has() -> None:
    scores = LexicalScores(2, longest=1, buckets=1 << 20)
    scores.count([batch_of_ids([[[5, 6], [5, 7]], [[5, 6, 6]]], 16)])
    (five,), (six,), (seven,) = (features_of(LexicalScores(2, longest=1, buckets=1 << 20), [n]) for n in (5, 6, 7))
    assert scores.rarity[five] == pytest.approx(math.log(4 / 4) + 1)
    assert scores.rarity[six] == pytest.approx(math.log(4 / 3) + 1)
    assert scores.rarity[seven] == 0


def test_a_neighbour_in_the_pack_never_changes_the_answer() -> None:
    scores = LexicalScores(3, longest=3, buckets=1 << 12)
    torch.nn.init.normal_(scores.weight, generator=torch.Generator().manual_seed(1))
    alone = scores(batch_of_ids([[[5, 6, 7, 8]]], 16))
    packed = scores(batch_of_ids([[[9, 9, 4], [5, 6, 7, 8], [6, 5]], [[3]]], 16))
    torch.testing.assert_close(packed[1], alone[0])


def test_gradients_leave_the_fitted_weights_alone() -> None:
    scores = LexicalScores(2, longest=2, buckets=1 << 12)
    assert not any(parameter.requires_grad for parameter in scores.parameters())


def test_values_are_rarities_scaled_to_length_one() -> None:
    scores = LexicalScores(2, longest=2, buckets=1 << 12)
    scores.count([batch_of_ids([[[5, 6, 7], [5, 8]], [[6, 7, 5]]], 16)])
    document, _, value = scores.features(batch_of_ids([[[5, 6, 7], [5, 8]]], 16))
    for number in (0, 1):
        assert float(value[document == number].square().sum()) == pytest.approx(1.0)


def spelled(words: list[tuple[str, bool]], letters: int) -> LexicalScores:
    scores = LexicalScores(2, longest=1, buckets=1 << 20, letters=letters, vocabulary=len(words))
    scores.spell(words)
    return scores


def with_word_starts(batch: Batch, starts: list[bool]) -> Batch:
    marked = torch.zeros(batch.layout.positions, dtype=torch.bool)
    marked[: len(starts)] = torch.tensor(starts)
    return Batch({**batch.values, "starts_word": marked}, batch.layout)


def test_letters_run_across_tokens_and_see_where_words_begin() -> None:
    """'un|do it' in two spellings of tokens gives the same letters; without the space other ones."""
    whole = spelled([("", False), ("undo", True), ("it", True)], 3)
    parts = spelled([("", False), ("un", True), ("do", True), ("it", True)], 3)

    def letters(scores: LexicalScores, document: list[int], starts: list[bool]) -> set[int]:
        batch = with_word_starts(batch_of_ids([[document]], 8), starts)
        tokens = LexicalScores(2, longest=1, buckets=1 << 20).features(batch)[1].tolist()
        return set(scores.features(batch)[1].tolist()) - set(tokens)

    one = letters(whole, [1, 2], [True, True])
    two = letters(parts, [1, 2, 3], [True, False, True])
    assert one == two
    # " undo it" has 8 letters: 7 distinct (the space twice), 7 pairs, 6 triples.
    assert len(one) == 7 + 7 + 6
    assert letters(parts, [1, 2, 3], [True, True, True]) != one


def test_letters_of_a_neighbour_in_the_pack_are_not_mixed_in() -> None:
    words = [("", False), ("un", True), ("do", True), ("it", True)]
    alone = with_word_starts(batch_of_ids([[[1, 2]]], 8), [True, False])
    packed = with_word_starts(batch_of_ids([[[1, 2], [3]]], 8), [True, False, True])
    scores = spelled(words, 4)
    document, feature, value = scores.features(packed)
    assert feature[document == 0].tolist() == scores.features(alone)[1].tolist()
    torch.testing.assert_close(value[document == 0], scores.features(alone)[2])


def test_only_the_four_longest_sizes_of_runs_are_features() -> None:
    scores = spelled([("", False), ("abcdefgh", False)], 6)
    batch = with_word_starts(batch_of_ids([[[1]]], 4), [True])
    assert len(scores.features(batch)[1]) == 1 + (6 + 5 + 4 + 3)  # the token, and runs of 3, 4, 5 and 6 letters


def pair_of_ids(pairs: list[tuple[list[int], list[int]]], length: int = 32) -> Batch:
    """Pairs of texts, a document each, one after the other in one row."""
    batch = batch_of_ids([[first + second for first, second in pairs]], length)
    segment = torch.zeros(batch.layout.positions, dtype=torch.int64)
    for start, (first, second) in zip(batch.layout.starts.tolist(), pairs):
        segment[start + len(first) : start + len(first) + len(second)] = 1
    return Batch({**batch.values, "segment": segment}, batch.layout)


def test_each_text_of_a_pair_has_runs_of_its_own_and_both_share_some() -> None:
    """5 6 and 6 7 9: two tokens and a pair, three tokens and two pairs, the 6 that both have, and how much that is."""
    scores = LexicalScores(2, longest=2, buckets=1 << 20, sides=True)
    _, feature, value = scores.features(pair_of_ids([([5, 6], [6, 7, 9])]))
    assert len(feature) == 3 + 5 + 1 + 1 and len(set(feature.tolist())) == len(feature)
    # Rarities are all 1 here: the shorter text has three runs, one of which is shared.
    share = 3**-0.5
    torch.testing.assert_close(value.sort().values, torch.tensor([5**-0.5] * 5 + [share] * 5).sort().values)
    swapped = scores.features(pair_of_ids([([6, 7, 9], [5, 6])]))[1]
    # What is shared does not tell the sides apart; of the rest only the 6 stands on both.
    assert len(set(feature.tolist()) & set(swapped.tolist())) == 2 + 2
    apart = scores.features(pair_of_ids([([5, 6], [7, 9])]))
    assert apart[2][-1] == 0 and len(apart[1]) == 3 + 3 + 1


def test_what_pairs_share_is_counted_by_itself() -> None:
    """6 is shared twice, 5 once: a feature of a single document says nothing, but that there are some does."""
    known = pair_of_ids([([5, 6], [6, 7]), ([6, 8], [6, 9]), ([5, 8], [5, 7])])
    scores = LexicalScores(2, longest=1, buckets=1 << 20, sides=True)
    scores.count([known])
    shared = {n: int(scores._of_kind(scores._bucket(torch.tensor(n)), BOTH)) for n in (5, 6)}
    assert scores.rarity[shared[6]] == pytest.approx(math.log(4 / 3) + 1) and scores.rarity[shared[5]] == 0
    assert scores.rarity[int(scores._of_kind(torch.tensor(0), SHARE))] == pytest.approx(1.0)


def test_a_neighbouring_pair_changes_nothing() -> None:
    scores = LexicalScores(2, longest=2, buckets=1 << 12, sides=True)
    torch.nn.init.normal_(scores.weight, generator=torch.Generator().manual_seed(1))
    pairs = [([5, 6, 7], [6, 7]), ([4], [5, 6, 4, 4]), ([9, 9], [3])]
    together = scores(pair_of_ids(pairs))
    for number, pair in enumerate(pairs):
        torch.testing.assert_close(together[number], scores(pair_of_ids([pair]))[0])
