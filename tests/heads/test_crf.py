"""The conditional random field against every path written out, its gradient, and its indifference to neighbours."""

from __future__ import annotations

from itertools import pairwise, product

import pytest
import torch
from torch import Tensor

from encodery.batch import Output
from encodery.data.tags import allowed, tags_of
from encodery.heads.tagging.crf import (
    Chain,
    forward_backward,
    lay_out,
    log_partition,
    marginals,
    path_score,
    span_probability,
    viterbi,
)
from encodery.objectives.tagging import chain_divergence

LENGTHS = [3, 0, 1, 5, 2, 4]
NAMES = ["O", *tags_of(["a", "b"], "bio")]


def documents_of(lengths: list[int]) -> Tensor:
    return torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))


def made(seed: int, *, scheme: str = "bio", names: list[str] = NAMES, spread: float = 1.0) -> tuple[Tensor, Chain]:
    generator = torch.Generator().manual_seed(seed)
    tags = len(names)
    draw = [torch.randn(size, generator=generator, dtype=torch.float64) * spread for size in (tags, tags, (tags, tags))]
    masks = [torch.from_numpy(mask) for mask in allowed(names, scheme)]  # type: ignore[arg-type]
    chain = Chain(*(part.masked_fill(~mask, -torch.inf) for part, mask in zip(draw, masks)))
    return torch.randn(sum(LENGTHS), tags, generator=generator, dtype=torch.float64) * spread, chain


def every_path(emission: Tensor, chain: Chain) -> list[tuple[tuple[int, ...], float]]:
    """All paths of one document with their scores."""
    found = []
    for path in product(range(emission.shape[1]), repeat=len(emission)):
        score = chain.begin[path[0]] + chain.end[path[-1]] + sum(emission[t, tag] for t, tag in enumerate(path))
        score = score + sum(chain.between[a, b] for a, b in pairwise(path))
        found.append((path, float(score)))
    return found


def pieces(emission: Tensor) -> list[Tensor]:
    return list(emission.split(LENGTHS))


@pytest.mark.parametrize("scheme", ["none", "bio", "bioes"])
def test_partition_marginals_and_best_path_are_those_of_all_paths(scheme: str) -> None:
    names = ["O", *tags_of(["a"], "bioes")] if scheme == "bioes" else NAMES
    emission, chain = made(1, scheme=scheme, names=names)
    document = documents_of(LENGTHS)
    log_z = log_partition(emission, chain, lay_out(document, len(LENGTHS)))
    share = marginals(emission, chain, document, len(LENGTHS)).split(LENGTHS)
    path, score = viterbi(emission, chain, document, len(LENGTHS))
    assert log_z[1] == 0 and score[1] == 0
    for number, own in enumerate(pieces(emission)):
        if not len(own):
            continue
        paths = every_path(own, chain)
        scores = torch.tensor([value for _, value in paths], dtype=torch.float64)
        torch.testing.assert_close(log_z[number], torch.logsumexp(scores, 0))
        best, best_score = max(paths, key=lambda one: one[1])
        assert path.split(LENGTHS)[number].tolist() == list(best)
        assert abs(float(score[number]) - best_score) < 1e-9
        weights = torch.softmax(scores, 0)
        wanted = torch.zeros_like(own)
        for (one, _), weight in zip(paths, weights):
            wanted[torch.arange(len(own)), torch.tensor(one)] += weight
        torch.testing.assert_close(share[number], wanted)


def test_score_of_a_path_is_what_the_enumeration_says() -> None:
    emission, chain = made(2, scheme="none")
    document = documents_of(LENGTHS)
    tags = torch.arange(sum(LENGTHS)) % len(NAMES)
    found = path_score(emission, tags, chain, lay_out(document, len(LENGTHS)), document)
    for number, (own, path) in enumerate(zip(pieces(emission), tags.split(LENGTHS))):
        wanted = dict(every_path(own, chain))[tuple(path.tolist())] if len(own) else 0.0
        assert abs(float(found[number]) - wanted) < 1e-9


def test_gradient_is_that_of_finite_differences() -> None:
    emission, chain = made(3)
    document = documents_of(LENGTHS)
    steps = lay_out(document, len(LENGTHS))
    masks = [part > -torch.inf for part in chain]
    free = [part.masked_fill(~mask, 0.0).requires_grad_() for part, mask in zip(chain, masks)]
    weight = torch.linspace(0.5, 2.0, len(LENGTHS), dtype=torch.float64)

    def total(emission: Tensor, *parts: Tensor) -> Tensor:
        chain = Chain(*(part.masked_fill(~mask, -torch.inf) for part, mask in zip(parts, masks)))
        return (log_partition(emission, chain, steps) * weight).sum()

    assert torch.autograd.gradcheck(total, (emission.requires_grad_(), *free))


def test_a_document_does_not_see_its_neighbours() -> None:
    emission, chain = made(4)
    document = documents_of(LENGTHS)
    log_z = log_partition(emission, chain, lay_out(document, len(LENGTHS)))
    path, _ = viterbi(emission, chain, document, len(LENGTHS))
    share = marginals(emission, chain, document, len(LENGTHS))
    for number, own in enumerate(pieces(emission)):
        alone = torch.zeros(len(own), dtype=torch.int64)
        if not len(own):
            continue
        torch.testing.assert_close(log_partition(own, chain, lay_out(alone, 1))[0], log_z[number])
        torch.testing.assert_close(viterbi(own, chain, alone, 1)[0], path.split(LENGTHS)[number])
        torch.testing.assert_close(marginals(own, chain, alone, 1), share.split(LENGTHS)[number])


def test_scores_far_apart_stay_exact() -> None:
    """Where every path that is left lies thousands of nats below the best tag of its unit."""
    emission, chain = made(5)
    emission[:, NAMES.index("I-a")] += 5000  # the best tag, which can never begin a text
    emission[:, NAMES.index("B-b")] += 2000
    chain = Chain(chain.begin, chain.end.index_fill(0, torch.tensor([2, 3]), -torch.inf), chain.between)
    document = documents_of(LENGTHS)
    passes = forward_backward(emission, chain, lay_out(document, len(LENGTHS)))
    for number, own in enumerate(pieces(emission)):
        if len(own):
            wanted = torch.logsumexp(torch.tensor([value for _, value in every_path(own, chain)]).double(), 0)
            torch.testing.assert_close(passes.log_z[number], wanted)


@pytest.mark.parametrize("scheme", ["bio", "bioes"])
def test_only_paths_of_the_scheme_are_found(scheme: str) -> None:
    from encodery.data.tags import misfits

    names = ["O", *tags_of(["a", "b"], scheme)]  # type: ignore[arg-type]
    emission, chain = made(6, scheme=scheme, names=names, spread=4.0)
    path, _ = viterbi(emission, chain, documents_of(LENGTHS), len(LENGTHS))
    for own in path.split(LENGTHS):
        assert not misfits([names[tag] for tag in own.tolist()], scheme)  # type: ignore[arg-type]


def test_probability_of_a_span_sums_over_all_that_stands_around_it() -> None:
    emission, chain = made(7)
    document = documents_of(LENGTHS)
    own = pieces(emission)[3]
    begin, inside = NAMES.index("B-a"), NAMES.index("I-a")
    tags = torch.zeros(sum(LENGTHS), dtype=torch.int64)
    first = sum(LENGTHS[:3])
    tags[first + 1 : first + 3] = torch.tensor([begin, inside])
    goes_on = torch.zeros(len(NAMES), len(NAMES), dtype=torch.bool)
    goes_on[begin, inside] = goes_on[inside, inside] = True
    spans = torch.tensor([[first + 1, first + 3]])
    found = span_probability(emission, chain, document, len(LENGTHS), tags, spans, goes_on)
    paths = every_path(own, chain)
    weights = torch.softmax(torch.tensor([score for _, score in paths]).double(), 0)
    wanted = sum(
        float(weight) for (path, _), weight in zip(paths, weights) if path[1:3] == (begin, inside) and path[3] != inside
    )
    assert abs(float(found[0]) - wanted) < 1e-9


def test_two_answers_are_apart_as_their_distributions_over_all_paths_are() -> None:
    (one, chain), (other, _) = made(2), made(3)
    document = documents_of(LENGTHS)
    wanted = 0.0
    for a, b in zip(pieces(one), pieces(other)):
        if not len(a):
            continue
        scores = [torch.tensor([value for _, value in every_path(part, chain)]).log_softmax(0) for part in (a, b)]
        possible = scores[0].isfinite()
        log_p, log_q = scores[0][possible].double(), scores[1][possible].double()
        wanted += float(((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum()) / 2
    outputs = [Output(part.float().requires_grad_(), chain=tuple(chain)) for part in (one, other)]
    found = chain_divergence(*outputs, document, len(LENGTHS))
    assert abs(found.item() - wanted) < 1e-4
    found.backward()
    share = [marginals(part, chain, document, len(LENGTHS)).float() for part in (one, other)]
    for output, sign in zip(outputs, (1, -1)):  # each is drawn to the other, which stands still
        assert output.logits is not None and output.logits.grad is not None
        torch.testing.assert_close(output.logits.grad, sign * (share[0] - share[1]) / 2, atol=1e-5, rtol=1e-4)
