"""MaxSim of ragged texts equals its definition, whatever is padded, cut in pieces or taken in another order."""

from __future__ import annotations

import pytest
import torch

from conftest import batch_of, documents_of
from encodery.heads import late_interaction
from encodery.heads.late_interaction import Ragged, maxsim, paired_maxsim


def texts(lengths: list[int], seed: int) -> Ragged:
    generator = torch.Generator().manual_seed(seed)
    owner = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths, dtype=torch.int64))
    vectors = torch.randn(sum(lengths), 6, generator=generator)
    return Ragged(torch.nn.functional.normalize(vectors, dim=-1), owner, len(lengths))


def by_definition(queries: Ragged, documents: Ragged) -> torch.Tensor:
    found = torch.zeros(queries.texts, documents.texts)
    for q in range(queries.texts):
        for d in range(documents.texts):
            one, other = queries.vectors[queries.owner == q], documents.vectors[documents.owner == d]
            found[q, d] = sum(max(float(x @ y) for y in other) for x in one) / len(one)
    return found


@pytest.mark.parametrize("at_once", [1, 60, 1 << 25])
def test_maxsim_is_its_definition(at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(late_interaction, "NUMBERS_AT_ONCE", at_once)
    queries, documents = texts([3, 1, 4], 0), texts([5, 1, 2, 9, 1], 1)
    expected = by_definition(queries, documents)
    torch.testing.assert_close(maxsim(queries, documents), expected)
    chosen = torch.tensor([4, 0, 2])
    torch.testing.assert_close(maxsim(queries, documents.taken(chosen)), expected[:, chosen])
    torch.testing.assert_close(paired_maxsim(queries, documents.taken(chosen)), expected[torch.arange(3), chosen])


def test_maxsim_has_the_gradient_of_its_definition() -> None:
    queries, documents = texts([2, 3], 2), texts([4, 1, 3], 3)
    ours, theirs = [], []
    for found in (ours, theirs):
        q = queries.vectors.clone().requires_grad_()
        d = documents.vectors.clone().requires_grad_()
        one, two = Ragged(q, queries.owner, 2), Ragged(d, documents.owner, 3)
        if found is ours:
            close = maxsim(one, two)
        else:
            products = q @ d.t()
            best = torch.stack([products[:, documents.owner == place].max(1).values for place in range(3)], 1)
            close = torch.stack([best[queries.owner == place].mean(0) for place in range(2)])
        close.square().sum().backward()
        found += [q.grad, d.grad]
    for left, right in zip(ours, theirs):
        torch.testing.assert_close(left, right)


def test_texts_of_batches_are_joined_in_order_without_their_padding() -> None:
    batches = [batch_of([documents_of([3, 2], seed=1)], 8), batch_of([documents_of([4], seed=2), []], 5)]
    tokens = [torch.randn(batch.layout.positions, 4) for batch in batches]
    joined = Ragged.joined([Ragged.of(one, batch.layout) for one, batch in zip(tokens, batches)])
    assert joined.texts == 3 and joined.lengths.tolist() == [3, 2, 4]
    assert torch.equal(joined.taken(torch.tensor([2])).vectors, tokens[1][:4])


def test_nothing_to_search_is_an_empty_answer() -> None:
    assert maxsim(texts([2], 0), texts([], 1)).shape == (1, 0)
