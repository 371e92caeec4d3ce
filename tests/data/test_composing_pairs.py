"""Questions in every window of their context, and a pair for every option: from rows to samples."""

from __future__ import annotations

import numpy as np

from encodery.batch import Sample
from encodery.data.answers import AnswerField, Answers
from encodery.data.choices import ChoiceField, Choices
from encodery.data.composing import composer, samples_of_row
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import Row
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.tokenizers import Tokenizer

CONTEXT = "the film was bright and the actor walked over the river with a child in the morning then the teacher saw it"


def answered(tokenizer: Tokenizer, question: str, answer: str) -> TokenStore:
    start = CONTEXT.index(answer)
    answers = Answers(((start, start + len(answer)),))  # type: ignore[arg-type]
    row = Row(CONTEXT, question, None, "x:1", beside={"answers": answers})
    return store_in_memory([row], tokenizer, fields=(AnswerField("answers"),))


def made(store: TokenStore, tokenizer: Tokenizer, length: int, compose: str) -> tuple[list[Sample], LengthCounts]:
    counts = LengthCounts()
    maker = SampleMaker.framed(tokenizer.frame, length, compose=compose)
    return samples_of_row(store, maker, 0, counts), counts


def test_a_short_context_is_one_window(tokenizer: Tokenizer) -> None:
    store = answered(tokenizer, "who saw", "the teacher")
    (sample,), counts = made(store, tokenizer, 128, "questions:8")
    context, question = store.text(0)[0], store.text(1)[0]
    size = question.size
    assert sample.ids.tolist() == [
        tokenizer.cls_id, *question, tokenizer.sep_id, *context, tokenizer.sep_id,
    ]  # fmt: skip
    assert sample.beside["context"].tolist() == [0] * (size + 2) + list(range(1, context.size + 1)) + [0]
    assert sample.segment.tolist() == [0] * (size + 2) + [1] * (context.size + 1)
    (at,) = np.flatnonzero(sample.beside["answer"])
    tokens = sample.ids[at : at + sample.beside["answer"][at]]
    assert tokens.tolist() == tokenizer.encode_batch(["the teacher"])[0].ids.tolist()
    assert counts.to_dict()["rows"] == counts.windows == 1
    assert counts.split_rows == counts.cut_rows == 0
    assert store.facts["fields"]["answers"]["questions with an answer"] == 1


def test_the_question_stands_in_every_window_and_nothing_is_lost(tokenizer: Tokenizer) -> None:
    store = answered(tokenizer, "who saw", "river with a child")
    samples, counts = made(store, tokenizer, 20, "questions:6")
    context, question = store.text(0)[0], store.text(1)[0]
    assert len(samples) > 2
    assert [sample.part for sample in samples] == list(range(len(samples)))
    assert {sample.uid for sample in samples} == {0}
    seen: dict[int, int] = {}
    whole = 0
    for sample in samples:
        assert sample.ids.size <= 20
        assert sample.ids[1 : 1 + question.size].tolist() == question.tolist()
        inside = sample.beside["context"] > 0
        seen |= dict(zip(sample.beside["context"][inside].tolist(), sample.ids[inside].tolist()))
        for at in np.flatnonzero(sample.beside["answer"]).tolist():
            end = at + sample.beside["answer"][at]
            whole += bool(end <= sample.ids.size and sample.beside["context"][end - 1] > 0)
    assert [seen[number + 1] for number in range(context.size)] == context.tolist()
    assert whole >= 1
    assert (counts.rows, counts.split_rows, counts.windows, counts.cut_rows) == (1, 1, len(samples), 0)


def test_a_question_that_is_too_long_is_cut_and_counted(tokenizer: Tokenizer) -> None:
    store = answered(tokenizer, " ".join(["who saw the warm river"] * 8), "river")
    samples, counts = made(store, tokenizer, 30, "questions:4")
    assert counts.cut_rows == 1
    assert counts.cut_tokens > 0
    assert all(sample.ids.size <= 30 for sample in samples)
    assert all((sample.beside["context"] > 0).sum() > 0 for sample in samples)


def test_a_pair_for_every_option(tokenizer: Tokenizer) -> None:
    options = ("a warm river", "the actor", "then")
    rows = [Row("the film", "who saw it", None, "x:1", beside={"choices": Choices(options, 1)})]
    store = store_in_memory(rows, tokenizer, fields=(ChoiceField("choices", "label"),))
    samples, counts = made(store, tokenizer, 64, "choices")
    assert [sample.part for sample in samples] == [0, 1, 2]
    for sample, option in zip(samples, options):
        text, asked, said = (one.ids.tolist() for one in tokenizer.encode_batch(["the film", "who saw it", option]))
        assert sample.ids.tolist() == [tokenizer.cls_id, *text, tokenizer.sep_id, *asked, *said, tokenizer.sep_id]
        assert set(sample.beside["right"].tolist()) == {0, 2}
    assert (counts.rows, counts.windows) == (1, 3)
    assert composer("choices").together, "the options of a row are compared in one batch"
    assert not composer("questions:8").together
    alone = [Row("the film", None, None, "x:1", beside={"choices": Choices(options)})]
    store = store_in_memory(alone, tokenizer, fields=(ChoiceField("choices", None),))
    samples, _ = made(store, tokenizer, 8, "choices")
    assert all(sample.ids.size <= 8 for sample in samples)
    assert not any(sample.beside["right"].any() for sample in samples)
