"""Triples behind a text: who sees whom, soft positions, and every promise of the house for such documents."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import tiny_config, tiny_model
from encodery.batch import Batch, Sample, Tree
from encodery.bricks.pooling import Pooling
from encodery.data.packing import BatchPlan, pack
from encodery.encoders import kernels, scores
from encodery.encoders.visible_tree import SOFT_POSITIONS, check_reads_trees, visible_pairs
from encodery.encoders.watch import Watch
from encodery.errors import ConfigError
from encodery.model import Model
from encodery.objectives.masked import Masked, MaskedConfig


def sample(trunk: list[int], branches: list[tuple[int, int, list[int]]], uid: int = 0) -> Sample:
    """A text of these ids; a branch is (first place, last place of its mention, ids)."""
    ids, position = list(trunk), list(range(len(trunk)))
    branch, mention = [0] * len(trunk), [0] * len(trunk)
    numbers = {place: number for number, place in enumerate(dict.fromkeys((a, b) for a, b, _ in branches), start=1)}
    for (first, last), number in numbers.items():
        mention[first : last + 1] = [number] * (last + 1 - first)
    for number, (first, last, more) in enumerate(branches, start=1):
        ids += more
        position += range(last + 1, last + 1 + len(more))
        branch += [number] * len(more)
        mention += [numbers[first, last]] * len(more)
    whole = np.array(ids, dtype=np.int64)
    tree = Tree(*(np.array(part, dtype=np.int64) for part in (position, branch, mention))) if branches else None
    return Sample(whole, np.ones(whole.size, bool), np.zeros(whole.size, np.int64), uid, tree=tree)


def without(one: Sample) -> Sample:
    assert one.tree is not None
    size = int((one.tree.branch == 0).sum())
    return Sample(one.ids[:size], one.starts_word[:size], one.segment[:size], one.uid)


SAMPLES = [
    sample([7, 8, 9, 10, 11, 12], [(1, 2, [20, 21]), (1, 2, [22]), (4, 4, [23, 24, 25])], 0),
    sample([13, 14, 15], [], 1),
    sample([16, 17, 18, 19], [(0, 0, [26, 27])], 2),
    sample([30, 31], [(1, 1, [32]), (1, 1, [33, 34])], 3),
    sample(list(range(35, 45)), [(3, 5, [46, 47, 48])], 4),
]
CAN_READ: list[dict[str, Any]] = [
    *({"positions": positions} for positions in SOFT_POSITIONS),
    {"norm_place": "post", "norm": "rmsnorm", "activation": "swiglu"},
    {"score": "additive", "positions": "none"},
    {"kv_heads": 2, "qk_norm": True},
    {"fusion": {"entities": 12, "width": 8}},
]
every_reader = pytest.mark.parametrize("encoder", CAN_READ, ids=str)


def packed(samples: list[Sample], rows: list[list[int]], length: int) -> Batch:
    return pack(samples, BatchPlan(length, rows), len(rows) * length, 0)


def answers(model: Model, batch: Batch) -> list[torch.Tensor]:
    """Vectors of each document, by its uid."""
    with torch.inference_mode():
        vectors = model.encode(batch).vectors
    layout = batch.layout
    found = [vectors[start : start + size] for start, size in zip(layout.starts.tolist(), layout.lengths.tolist())]
    return [found[place] for place in np.argsort(batch.uids)]


def test_the_visible_matrix_is_that_of_the_paper() -> None:
    """Section 3.4: within the text all; a branch itself and its mention; a mention its branches, and no others."""
    batch = packed(SAMPLES, [[0, 1]], 16)
    seen = visible_pairs(batch.layout)[0]
    # trunk 0 1 2 3 4 5, branches 6 7 (of 1, 2), 8 (of 1, 2), 9 10 11 (of 4)
    wanted = torch.zeros(12, 12, dtype=torch.bool)
    wanted[:6, :6] = True
    for mention, branches in (((1, 2), ((6, 7), (8,))), ((4,), ((9, 10, 11),))):
        for branch in branches:
            for place in branch:
                wanted[place, list(branch)] = True
                wanted[place, list(mention)] = True
                wanted[list(mention), place] = True
    assert torch.equal(seen[:12, :12], wanted)
    assert batch.layout.position[:12].tolist() == [0, 1, 2, 3, 4, 5, 3, 4, 3, 5, 6, 7]


@every_reader
def test_where_branches_lie_in_memory_changes_nothing(encoder: dict[str, Any]) -> None:
    """Behind the text or right behind their mention: what counts are soft positions and who sees whom."""
    model, (given, *_) = tiny_model(**encoder), SAMPLES
    assert given.tree is not None
    order = np.array([0, 1, 2, 6, 7, 8, 3, 4, 9, 10, 11, 5])
    tree = Tree(given.tree.position[order], given.tree.branch[order], given.tree.mention[order])
    moved = Sample(given.ids[order], given.starts_word[order], given.segment[order], 0, tree=tree)
    (behind,), (between,) = (answers(model, packed([one], [[0]], 16)) for one in (given, moved))
    torch.testing.assert_close(behind[order], between, atol=1e-5, rtol=1e-5)


@every_reader
def test_only_the_mention_hears_of_a_triple_at_first_hand(encoder: dict[str, Any]) -> None:
    """After one block the words around are as if nothing had been written; after two they have heard of it."""
    (given, *_) = SAMPLES
    for depth in (1, 2):
        model = tiny_model(**{**encoder, "depth": depth})
        (told,), (bare,) = (answers(model, packed([one], [[0]], 16)) for one in (given, without(given)))
        change = (told[:6] - bare).abs().amax(dim=1)
        assert (change[[1, 2, 4]] > 1e-3).all()
        assert (change[[0, 3, 5]] > 1e-4).all() if depth == 2 else (change[[0, 3, 5]] < 1e-5).all()


@every_reader
@pytest.mark.parametrize("rows_up_to", [512, 0], ids=["all rows at once", "document by document"])
def test_packed_equals_padded(encoder: dict[str, Any], rows_up_to: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "ROWS_UP_TO", rows_up_to)
    monkeypatch.setattr(scores, "ROWS_UP_TO", rows_up_to)
    model = tiny_model(**encoder)
    together = answers(model, packed(SAMPLES, [[0, 1, 2], [3, 4]], 32))
    for number, one in enumerate(SAMPLES):
        (alone,) = answers(model, packed([one], [[0]], 32))
        torch.testing.assert_close(together[number], alone, atol=1e-5, rtol=1e-5)
        (bare,) = answers(model, packed([one], [[0]], one.ids.size))
        torch.testing.assert_close(together[number], bare, atol=1e-5, rtol=1e-5)


@every_reader
def test_a_neighbour_never_changes_me(encoder: dict[str, Any]) -> None:
    """In the same shapes, other documents with other triples leave every bit of mine as it is."""
    model = tiny_model(**encoder)
    others = [replace(one, ids=one.ids % 40 + 6) if one.uid != 2 else one for one in SAMPLES]
    rows = [[0, 1, 2], [3, 4]]
    assert torch.equal(answers(model, packed(SAMPLES, rows, 32))[2], answers(model, packed(others, rows, 32))[2])
    # Nor does a neighbour that has no triples where it had some.
    bare = [without(one) if one.tree is not None and one.uid != 2 else one for one in SAMPLES]
    found = answers(model, packed(bare, rows, 32))[2]
    torch.testing.assert_close(found, answers(model, packed(SAMPLES, rows, 32))[2], atol=2e-6, rtol=1e-6)


@every_reader
def test_permuting_documents_permutes_the_answers(encoder: dict[str, Any]) -> None:
    model = tiny_model(**encoder)
    straight = answers(model, packed(SAMPLES, [[0, 1, 2], [3, 4]], 32))
    permuted = answers(model, packed(SAMPLES, [[4, 3], [2, 1, 0]], 32))
    for one, other in zip(straight, permuted):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)


@every_reader
def test_gradients_reach_everything_and_the_words_of_the_triples(encoder: dict[str, Any]) -> None:
    model = tiny_model(**encoder).train()
    objective = Masked(MaskedConfig(share=0.5), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))
    batch = objective.prepare(packed(SAMPLES, [[0, 1, 2], [3, 4]], 32), np.random.default_rng(0), 0.0)
    objective.loss(model(batch), batch).total.backward()
    for name, parameter in model.named_parameters():
        if "fusion" not in name:  # no word of these texts names an entity
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name
    words: Any = model.frontend.words
    assert words.weight.grad[20:28].abs().amax(dim=1).min() > 0


def test_words_of_triples_are_never_hidden() -> None:
    """What is asked for are the words of the text; the triples are there to help."""
    objective = Masked(
        MaskedConfig(share=0.9, corrupt="mask"), vocab_size=50, mask_id=4, special_ids=frozenset(range(5))
    )
    batch = packed(SAMPLES, [[0, 1, 2], [3, 4]], 32)
    hidden = objective.prepare(batch, np.random.default_rng(0), 0.0)
    assert batch.layout.branch is not None
    branches = batch.layout.branch > 0
    assert torch.equal(hidden.values["ids"][branches], batch.values["ids"][branches])
    assert int((hidden.values["ids"] == 4).sum()) == round(0.9 * 25)


@pytest.mark.parametrize("pooling", ["first", "mean", "max", "attention"])
def test_a_document_is_pooled_from_its_own_words(pooling: Any) -> None:
    layer = Pooling(pooling, 32)
    batch, bare = packed(SAMPLES, [[0, 1, 2]], 32), packed([without(SAMPLES[0]), SAMPLES[1]], [[0, 1]], 32)
    model = tiny_model()
    states = model.frontend(batch)
    found, wanted = layer(states), layer(model.frontend(bare))
    torch.testing.assert_close(found[:2], wanted)
    assert batch.layout.without_branches().lengths.tolist() == [6, 3, 4]


def test_ngrams_of_a_text_do_not_count_its_triples() -> None:
    readout = {"kind": "document", "outputs": 3, "ngrams": 3, "ngram_buckets": 512}
    lexical: Any = tiny_model(readout=readout).readout.lexical  # type: ignore[union-attr]
    batch, bare = packed(SAMPLES[:1], [[0]], 16), packed([without(SAMPLES[0])], [[0]], 16)
    for one, other in zip(lexical.features(batch), lexical.features(bare)):
        assert torch.equal(one, other)


def test_watching_shows_the_weights_of_the_tree() -> None:
    model, watch = tiny_model(), Watch()
    with torch.inference_mode():
        model.encode(packed(SAMPLES, [[0]], 16), watch)
    weights = watch.weights[0][0]
    assert weights.shape == (4, 12, 12)
    assert float(weights[:, 0, 6:].abs().max()) == 0 and float(weights[:, 1, 6:9].min()) > 0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pattern": "window"}, "encoder.pattern window"),
        ({"positions": "alibi"}, "encoder.positions alibi"),
        ({"positions": "disentangled"}, "encoder.positions disentangled"),
        ({"mlp_kernel": 3}, "encoder.mlp_kernel 3"),
        ({"halve_after": [1]}, "encoder.halve_after"),
        ({"kind": "recurrent"}, "kind recurrent"),
    ],
)
def test_encoders_that_cannot_read_a_tree_are_refused(changes: dict[str, Any], said: str) -> None:
    config = tiny_config(**changes)
    with pytest.raises(ConfigError, match=said):
        check_reads_trees(config.encoder)
    with pytest.raises(ConfigError, match=said):
        tiny_model(**changes).encode(packed(SAMPLES, [[0]], 16))
