"""Spans: every score by hand, the search against trying all of them, windows merged, neighbours without influence."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from encodery.batch import Batch, Layout, Output, States, layout_of
from encodery.heads.options import SpanReadoutConfig
from encodery.heads.spans import (
    LOWEST,
    FoundSpans,
    Matches,
    SpanReadout,
    best_spans,
    log_sum_by_document,
    merge_windows,
    null_scores,
    probabilities,
    span_mask,
    weighed,
)
from encodery.objectives.questions import Questions, QuestionsConfig, whole_answers

ENDS = ["independent", "biaffine"]
# (tokens of the question, first token of the context in its row, tokens of the context): [CLS] q [SEP] context [SEP]
DOCUMENTS = [(2, 1, 6), (1, 4, 3), (3, 1, 1), (0, 9, 12)]


def make_batch(documents: list[tuple[int, int, int]], rows: int = 2, length: int = 32, answers: object = ()) -> Batch:
    """A batch with these windows, spread over its rows; `answers` are (document, token of its context, tokens)."""
    sizes = [question + context + 3 for question, _, context in documents]
    half = -(-len(documents) // rows)
    layout = layout_of([sizes[at * half : (at + 1) * half] for at in range(rows)], length)
    context = torch.zeros(layout.positions, dtype=torch.int64)
    answer = torch.zeros(layout.positions, dtype=torch.int64)
    begins = []
    for start, (question, first, size) in zip(layout.starts.tolist(), documents):
        begins.append(start + question + 2)
        context[begins[-1] : begins[-1] + size] = torch.arange(first, first + size)
    for document, token, size in answers:  # type: ignore[attr-defined]
        answer[begins[document] + token] = size
    values = {"ids": torch.zeros(layout.positions, dtype=torch.int64), "context": context, "answer": answer}
    return Batch(values, layout, uids=np.arange(len(documents)))


def read(batch: Batch, ends: str = "biaffine", longest: int = 4, seed: int = 0, width: int = 8) -> Output:
    generator = torch.Generator().manual_seed(seed)
    config = SpanReadoutConfig(ends=ends, longest=longest, rank=5, drop_rate=0.0)  # type: ignore[arg-type]
    readout = SpanReadout(config, width)
    with torch.no_grad():
        for parameter in readout.parameters():
            parameter.normal_(generator=generator)
    vectors = torch.randn(batch.layout.positions, width, generator=generator)
    with torch.no_grad():
        return readout(States(vectors, batch.layout), batch)


def all_spans(output: Output, batch: Batch, longest: int) -> dict[int, dict[tuple[int, int], float]]:
    """Every span of every document, (start, stop) in tokens of its context -> score, one by one."""
    assert output.spans is not None
    found: dict[int, dict[tuple[int, int], float]] = {}
    context, document = batch.values["context"].tolist(), batch.layout.document.tolist()
    for begin, number in enumerate(context):
        if number:
            for size in range(longest):
                if begin + size < len(context) and document[begin + size] == document[begin] and context[begin + size]:
                    score = output.spans[begin, size].item()
                    found.setdefault(document[begin], {})[number - 1, number + size] = score
    return found


@pytest.mark.parametrize("ends", ENDS)
def test_the_score_of_a_span(ends: str) -> None:
    batch = make_batch(DOCUMENTS)
    generator = torch.Generator().manual_seed(1)
    config = SpanReadoutConfig(ends=ends, longest=3, rank=5, drop_rate=0.0)  # type: ignore[arg-type]
    readout = SpanReadout(config, 8)
    readout.initialise(generator)
    x = torch.randn(batch.layout.positions, 8, generator=generator)
    output = readout(States(x, batch.layout), batch)
    assert output.logits is not None
    assert output.spans is not None
    begin = int(batch.layout.starts[0]) + 2 + 2
    wanted = output.logits[begin, 0] + output.logits[begin + 2, 1]
    if readout.pairs is not None:
        weight, bias = readout.pairs.weight, readout.pairs.bias
        wanted = wanted + (weight[:5] @ x[begin] + bias[:5]) @ (weight[5:] @ x[begin + 2] + bias[5:]) / math.sqrt(5)
    torch.testing.assert_close(output.spans[begin, 2], wanted)
    assert output.spans[begin + 4, 2] == LOWEST, "it would go beyond the context"
    assert output.spans[begin - 1].max() == LOWEST, "it would begin before the context"


def test_windows_of_one_row_side_by_side_are_two_documents() -> None:
    # The second window begins where the first would go on: only the documents tell them apart.
    context = torch.tensor([0, 1, 2, 3, 4, 5, 6, 0])
    document = torch.tensor([0, 0, 0, 0, 1, 1, 1, -1])
    mask = span_mask(context, document, 3)
    assert mask.tolist()[3] == [True, False, False]
    assert mask.tolist()[4] == [True, True, True]
    assert not mask[0].any()
    assert not mask[7].any()


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("top", [1, 3, 50])
def test_the_best_spans_are_those_of_trying_all(ends: str, top: int) -> None:
    for seed in range(5):
        batch = make_batch(DOCUMENTS)
        output = read(batch, ends, seed=seed)
        assert output.logits is not None
        found = best_spans(output, batch, top)
        nulls = null_scores(output.logits, batch.layout)
        for document, spans in all_spans(output, batch, 4).items():
            wanted = sorted(spans.items(), key=lambda item: -item[1])[:top]
            part = found.of(document)
            assert list(zip(found.start[part].tolist(), found.stop[part].tolist())) == [span for span, _ in wanted]
            scores = np.array([score for _, score in wanted]) - nulls[document].item()
            np.testing.assert_allclose(found.score[part], scores, rtol=1e-4, atol=1e-4)


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(0, 7)), min_size=1, max_size=6),
    st.integers(1, 5),
    st.integers(1, 6),
)
def test_any_ragged_batch(documents: list[tuple[int, int, int]], longest: int, top: int) -> None:
    batch = make_batch(documents, rows=2, length=64)
    output = read(batch, longest=longest)
    found = best_spans(output, batch, top)
    spans = all_spans(output, batch, longest)
    for document in range(len(documents)):
        wanted = sorted(spans.get(document, {}).values(), reverse=True)[:top]
        assert len(found.score[found.of(document)]) == len(wanted)
    assert len(found.null) == len(documents)


def test_a_batch_without_documents_has_no_spans() -> None:
    batch = make_batch([], rows=1, length=16)
    found = best_spans(read(batch), batch, 3)
    assert found.score.size == 0
    assert found.null.size == 0


def test_log_sum_by_document() -> None:
    batch = make_batch(DOCUMENTS)
    x = torch.randn(batch.layout.positions, generator=torch.Generator().manual_seed(3)) * 50
    x.requires_grad_()
    kept = batch.values["context"] % 2 == 1
    kept &= batch.layout.document != 1
    found = log_sum_by_document(x, kept, batch.layout)
    for document in range(4):
        mine = kept & (batch.layout.document == document)
        wanted = torch.logsumexp(x[mine], 0) if mine.any() else torch.tensor(LOWEST)
        torch.testing.assert_close(found[document], wanted)
    found.sum().backward()
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


@pytest.mark.parametrize("ends", ENDS)
@pytest.mark.parametrize("matches", [False, True])
def test_a_document_is_answered_alone_as_among_others(ends: str, matches: bool) -> None:
    together = make_batch(DOCUMENTS)
    together.values["ids"][:] = torch.arange(together.layout.positions) % 3
    config = SpanReadoutConfig(ends=ends, longest=4, rank=5, drop_rate=0.0, matches=matches)  # type: ignore[arg-type]
    readout = SpanReadout(config, 8)
    readout.initialise(torch.Generator().manual_seed(2))
    x = torch.randn(together.layout.positions, 8, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        among = best_spans(readout(States(x, together.layout), together), together, 5)
        for document, shape in enumerate(DOCUMENTS):
            alone = make_batch([shape], rows=1, length=64)
            begin, size = int(together.layout.starts[document]), int(together.layout.lengths[document])
            vectors = torch.full((64, 8), 9.0)
            alone.values["ids"][:size] = together.values["ids"][begin : begin + size]
            vectors[:size] = x[begin : begin + size]
            found = best_spans(readout(States(vectors, alone.layout), alone), alone, 5)
            part = among.of(document)
            assert found.start.tolist() == among.start[part].tolist()
            assert found.stop.tolist() == among.stop[part].tolist()
            np.testing.assert_allclose(found.score, among.score[part], rtol=1e-4, atol=1e-5)


def test_windows_of_a_row_are_merged() -> None:
    one = FoundSpans(
        owner=np.array([0, 0, 1]), start=np.array([3, 5, 1]), stop=np.array([4, 6, 2]),
        score=np.array([2.0, 1.0, 4.0]), null=np.array([0.5, 0.1]),
    )  # fmt: skip
    two = FoundSpans(np.array([0, 0]), np.array([5, 9]), np.array([6, 11]), np.array([3.0, -1.0]), np.array([-0.5]))
    found = merge_windows([one, two], [np.array([7, 2]), np.array([7])], rows=9, top=2)
    part = found.of(7)
    assert list(zip(found.start[part], found.stop[part], found.score[part])) == [(5, 6, 3.0), (3, 4, 2.0)]
    assert found.score[found.of(2)].tolist() == [4.0]
    assert found.score[found.of(0)].size == 0
    assert found.null[[7, 2]].tolist() == [-0.5, 0.1]
    assert merge_windows([], [], rows=0, top=2).score.size == 0


def test_probabilities_of_spans_and_of_no_answer() -> None:
    shares, none = probabilities(np.array([math.log(3.0), 0.0]))
    np.testing.assert_allclose(shares, [0.6, 0.2])
    assert none == pytest.approx(0.2)
    assert probabilities(np.zeros(0))[1] == 1.0
    assert probabilities(np.array([4.0]), temperature=1e9)[1] == pytest.approx(0.5)


def test_a_linear_answer_weighs_in_on_whether_there_is_one() -> None:
    found = FoundSpans(
        owner=np.array([0, 0, 2]), start=np.array([3, 5, 1]), stop=np.array([4, 6, 2]),
        score=np.array([math.log(2.0), 0.0, -1.0]), null=np.zeros(3),
    )  # fmt: skip
    both = weighed(found, np.array([-1.0, 7.0, 4.0]), np.array([0.5, 2.0]))
    np.testing.assert_allclose(both.score, [0.5 * math.log(2.0) - 2.0, -2.0, 7.5])
    assert weighed(found, None, None) is found


def test_the_linear_answer_speaks_up_when_learning_is_over() -> None:
    batch = make_batch(DOCUMENTS)
    batch.values["segment"] = torch.zeros_like(batch.values["ids"])
    readout = SpanReadout(SpanReadoutConfig(ngrams=1, ngram_buckets=256), 8)
    readout.initialise(torch.Generator().manual_seed(2))
    assert readout.lexical is not None
    readout.lexical.bias.copy_(torch.tensor([1.0, 3.5]))
    states = States(torch.zeros(batch.layout.positions, 8), batch.layout)
    assert readout(states, batch).parts == ()
    (odds,) = readout.eval()(states, batch).parts
    torch.testing.assert_close(odds, torch.full((len(DOCUMENTS),), 2.5))


def of_one(batch: Batch, document: int) -> Layout:
    return layout_of([[int(batch.layout.lengths[document])]], 32)


@pytest.mark.parametrize("ends", ENDS)
def test_the_loss_by_hand(ends: str) -> None:
    # Document 0 has one answer, 1 none, 2 one that its window does not hold whole, 3 two of which any is right.
    answers = [(0, 2, 3), (2, 0, 2), (3, 1, 2), (3, 7, 1)]
    batch = make_batch(DOCUMENTS, answers=answers)
    output = read(batch, ends)
    assert output.logits is not None
    loss = Questions(QuestionsConfig(ends=ends, longest=4)).loss(output, batch)  # type: ignore[arg-type]
    gold = {0: [(2, 5)], 1: [], 2: [], 3: [(1, 3), (7, 8)]}
    nulls = null_scores(output.logits, batch.layout).tolist()
    total = 0.0
    for document, (question, first, size) in enumerate(DOCUMENTS):
        begin = int(batch.layout.starts[document]) + question + 2
        if ends == "biaffine":
            spans = {
                (start - first + 1, stop - first + 1): score
                for (start, stop), score in all_spans(output, batch, 4)[document].items()
            }
            over = sum(math.exp(score) for score in [*spans.values(), nulls[document]])
            right = sum(math.exp(spans[span]) for span in gold[document]) or math.exp(nulls[document])
            total -= math.log(right / over)
            continue
        for column in (0, 1):
            scores = output.logits[begin : begin + size, column].exp().tolist()
            null = output.logits[batch.layout.starts[document], column].exp().item()
            edges = {start if column == 0 else stop - 1 for start, stop in gold[document]}
            total -= math.log((sum(scores[edge] for edge in edges) or null) / (sum(scores) + null))
    assert float(loss.total) == pytest.approx(total, rel=1e-4)
    assert float(loss.count) == 4


def test_answers_longer_than_any_span_that_is_looked_for_count_for_nothing() -> None:
    batch = make_batch(DOCUMENTS, answers=[(0, 0, 5), (3, 2, 2)])
    output = read(batch, longest=4)
    loss = Questions(QuestionsConfig(ends="biaffine", longest=4)).loss(output, batch)
    assert float(loss.count) == 3
    assert 0 < float(loss.total) < 100


@pytest.mark.parametrize("ends", ENDS)
def test_all_right_is_counted_and_costs_little(ends: str) -> None:
    batch = make_batch(DOCUMENTS, answers=[(0, 2, 3), (3, 1, 2)])
    begin, size = whole_answers(batch)
    logits = torch.full((batch.layout.positions, 2), -20.0)
    for at in begin.nonzero()[:, 0].tolist():
        logits[at, 0] = logits[at + int(size[at]) - 1, 1] = 20.0
    logits[batch.layout.starts[1:3]] = 20.0
    spans = (logits[:, :1] + torch.nn.functional.pad(logits[:, 1], (0, 3)).unfold(0, 4, 1)).masked_fill(
        ~span_mask(batch.values["context"], batch.layout.document, 4), LOWEST
    )
    logits.requires_grad_()
    objective = Questions(QuestionsConfig(ends=ends, longest=4))  # type: ignore[arg-type]
    loss = objective.loss(Output(logits, spans=spans), batch)
    assert float(loss.total.detach()) < 1e-3
    assert loss.correct is not None
    assert int(loss.correct) == 4
    wrong = objective.loss(Output(-logits, spans=-spans.masked_fill(spans == LOWEST, -LOWEST)), batch)
    assert wrong.correct is not None
    assert int(wrong.correct) == 0


def test_matches_see_what_stands_on_both_sides() -> None:
    batch = make_batch([(2, 1, 4), (1, 1, 3)], rows=1)
    batch.values["ids"][:9] = torch.tensor([0, 5, 6, 1, 7, 6, 8, 6, 1])  # [CLS] 5 6 [SEP] 7 6 8 6 [SEP]
    batch.values["ids"][9:16] = torch.tensor([0, 7, 1, 5, 6, 8, 1])
    matches = Matches(8)
    with torch.no_grad():
        for parameter in matches.parameters():
            parameter.fill_(1.0)
        found = matches(torch.zeros(32, 8), batch)
    weight = torch.sigmoid(torch.tensor(1.0)).item()
    near = weight * 2 / 11
    # Of 5 6 [SEP] [SEP] one token of four stands in the context; in the second document none does.
    wanted = [1 / 4, 0, 0, 0, near, weight + near, near, weight + near, 0] + [0.0] * 23
    np.testing.assert_allclose(found[:, 0].numpy(), wanted, atol=1e-6)


@pytest.mark.parametrize("ends", ENDS)
def test_every_weight_learns(ends: str) -> None:
    batch = make_batch(DOCUMENTS, answers=[(0, 2, 3), (3, 1, 2)])
    batch.values["ids"][:] = torch.arange(batch.layout.positions) % 3
    readout = SpanReadout(SpanReadoutConfig(ends=ends, longest=4, matches=True), 8)  # type: ignore[arg-type]
    readout.initialise(torch.Generator().manual_seed(0))
    vectors = torch.randn(batch.layout.positions, 8, generator=torch.Generator().manual_seed(1))
    output = readout(States(vectors, batch.layout), batch)
    Questions(QuestionsConfig(ends=ends, longest=4)).loss(output, batch).total.backward()  # type: ignore[arg-type]
    for name, parameter in readout.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all()
        assert parameter.grad.abs().sum() > 0, name
