"""Masked words: the right share, the right tokens, whole words, and the loss by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_texts, tiny_model
from encodery.batch import Batch, Output
from encodery.data.packing import pack, plan_batches
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import Row
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.masked import Masked, MaskedConfig

CHINESE = [
    "这部电影很好看，我非常喜欢。",
    "房间太小了，服务也不好。",
    "老师和孩子们走过河边的房子。",
    "早上的故事很有意思。",
]
KINDS = ["wordpiece", "bpe", "byte_bpe", "unigram", "bytes", "characters"]


def objective_of(tokenizer: Tokenizer, **config: Any) -> Masked:
    return Masked(
        MaskedConfig(**config),
        vocab_size=tokenizer.vocab_size,
        mask_id=tokenizer.mask_id,
        special_ids=frozenset(tokenizer.special_ids),
    )


def batches_of(texts: list[str], tokenizer: Tokenizer, budget: int = 2048, longest: int = 128) -> list[Batch]:
    store = store_in_memory([Row(text, None, None, "x") for text in texts], tokenizer)
    maker, counts = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, longest), LengthCounts()
    samples = [s for row in range(store.rows) for s in maker.single(*store.text(row), row, counts)]
    plans = plan_batches(np.array([sample.ids.size for sample in samples]), budget, longest)
    return [pack(samples, plan, budget, tokenizer.pad_id) for plan in plans]


@pytest.fixture(scope="module")
def batches(tokenizer: Tokenizer) -> list[Batch]:
    return batches_of([text for text, _ in make_texts(900, seed=8)], tokenizer)


def candidates_of(batch: Batch, tokenizer: Tokenizer) -> np.ndarray:
    real = batch.layout.document.numpy() >= 0
    return real & ~np.isin(batch.values["ids"].numpy(), list(tokenizer.special_ids))


def hidden(batch: Batch) -> np.ndarray:
    """Flat positions that the loss looks at."""
    return batch.truth["at"][batch.truth["target"] != IGNORED].numpy()


@pytest.mark.parametrize("share", [0.15, 0.25, 0.5])
@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_the_share_is_right_and_only_real_tokens_are_hidden(
    unit: str, share: float, batches: list[Batch], tokenizer: Tokenizer
) -> None:
    objective = objective_of(tokenizer, share=share, unit=unit)
    for number, batch in enumerate(batches):
        done = objective.prepare(batch, np.random.default_rng(number), 0.3)
        at, candidates = hidden(done), candidates_of(batch, tokenizer)
        assert candidates[at].all() and np.unique(at).size == at.size
        wanted = round(share * candidates.sum())
        assert at.size == wanted if unit == "token" else wanted <= at.size + 12 and at.size <= wanted + 12
        real = done.truth["target"] != IGNORED
        assert torch.equal(done.truth["target"][real], batch.values["ids"][done.truth["at"][real]])
        changed = (done.values["ids"] != batch.values["ids"]).numpy()
        assert not changed[np.setdiff1d(np.arange(changed.size), at)].any()


def test_the_number_of_slots_is_constant(batches: list[Batch], tokenizer: Tokenizer) -> None:
    """One shape for the largest product of the model, also while the share changes."""
    for config in (
        {"share": 0.15},
        {"share": 0.3, "final_share": 0.1},
        {"share": 0.1, "final_share": 0.6},
        {"unit": "span"},
    ):
        objective = objective_of(tokenizer, **config)
        sizes = {
            objective.prepare(batch, np.random.default_rng(0), progress).truth["at"].numel()
            for batch in batches
            for progress in (0.0, 0.5, 1.0)
        }
        assert len(sizes) == 1


def test_the_input_batch_is_left_alone(batches: list[Batch], tokenizer: Tokenizer) -> None:
    before = batches[0].values["ids"].clone()
    objective_of(tokenizer).prepare(batches[0], np.random.default_rng(0), 0.0)
    assert torch.equal(batches[0].values["ids"], before) and not batches[0].truth


@pytest.mark.parametrize("corrupt", ["80/10/10", "mask"])
def test_the_proportions_of_what_hidden_tokens_become(corrupt: str, batches: list[Batch], tokenizer: Tokenizer) -> None:
    objective = objective_of(tokenizer, share=0.9, corrupt=corrupt)
    masks = kept = others = 0
    for number, batch in enumerate(batches):
        done = objective.prepare(batch, np.random.default_rng(number), 0.0)
        at = hidden(done)
        now, before = done.values["ids"].numpy()[at], batch.values["ids"].numpy()[at]
        masks += (now == tokenizer.mask_id).sum()
        kept += (now == before).sum()
        replaced = (now != before) & (now != tokenizer.mask_id)
        others += replaced.sum()
        assert not np.isin(now[replaced], list(tokenizer.special_ids)).any()
    total = masks + kept + others
    if corrupt == "mask":
        assert masks == total
    else:
        assert total > 8000
        # A random token is the same one again now and then, so "kept" is a little over a tenth.
        assert masks / total == pytest.approx(0.8, abs=0.02)
        assert kept / total == pytest.approx(0.1, abs=0.02)
        assert others / total == pytest.approx(0.1, abs=0.02)


def invented_words(number: int) -> list[str]:
    """Texts of long words that hardly repeat, so that no tokenizer knows them whole."""
    rng = np.random.default_rng(4)
    syllables = ["ba", "ke", "lo", "mi", "nu", "sa", "te", "vo", "ri", "du"]
    return [" ".join("".join(rng.choice(syllables, rng.integers(2, 6))) for _ in range(12)) for _ in range(number)]


@pytest.mark.parametrize("unit", ["word", "span"])
@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("kind", KINDS)
def test_words_are_hidden_whole_for_every_tokenizer(kind: str, language: str, unit: str) -> None:
    """Row 20: word borders come from the tokenizer itself, never from '##'."""
    texts = invented_words(80) if language == "en" else CHINESE * 20
    vocab_size = 300 if kind == "byte_bpe" else 90  # small, so that words have several tokens
    config = TokenizerConfig(kind=kind, vocab_size=vocab_size, language=language)  # type: ignore[arg-type]
    tokenizer = train_tokenizer(texts, config, seed=1)
    objective = objective_of(tokenizer, share=0.3, unit=unit, corrupt="mask")
    several = 0
    for number, batch in enumerate(batches_of(texts, tokenizer, 1024)):
        at = set(hidden(objective.prepare(batch, np.random.default_rng(number), 0.0)).tolist())
        candidates = candidates_of(batch, tokenizer)
        starts, document = batch.values["starts_word"].numpy(), batch.layout.document.numpy()
        assert at
        words: list[list[int]] = []
        for place in np.flatnonzero(candidates).tolist():
            begins = starts[place] or not candidates[place - 1] or document[place] != document[place - 1]
            if begins:
                words.append([])
            words[-1].append(place)
        for word in words:
            assert {place in at for place in word} in ({True}, {False})
        several += sum(len(word) > 1 for word in words)
    if language == "en":
        assert several > 50  # the test has seen words of several tokens


def test_spans_are_runs_of_neighbouring_words(batches: list[Batch], tokenizer: Tokenizer) -> None:
    def mean_run(unit: str) -> float:
        objective = objective_of(tokenizer, share=0.15, unit=unit, span_words=4.0)
        lengths = []
        for number, batch in enumerate(batches):
            at = hidden(objective.prepare(batch, np.random.default_rng(number), 0.0))
            lengths += [run.size for run in np.split(at, np.flatnonzero(np.diff(at) > 1) + 1)]
        return float(np.mean(lengths))

    assert mean_run("span") > 2.0 * mean_run("word")


def test_a_word_that_does_not_fit_is_never_half_hidden() -> None:
    """Slots are constant; here words of 30 tokens meet room for 32."""
    from conftest import batch_of

    batch = batch_of([[np.arange(10, 40).repeat(2)]], 60)
    starts = torch.zeros(60, dtype=torch.bool)
    starts[::30] = True
    batch = Batch({**batch.values, "starts_word": starts}, batch.layout)
    objective = Masked(MaskedConfig(share=0.51, unit="word"), vocab_size=50, mask_id=4, special_ids=frozenset({0, 4}))
    for seed in range(10):
        assert hidden(objective.prepare(batch, np.random.default_rng(seed), 0.0)).size in (30, 60)


def test_text_without_any_word_border_is_hidden_up_to_its_share() -> None:
    from conftest import batch_of, documents_of

    batch = batch_of([documents_of([64])], 64)
    starts = torch.zeros(64, dtype=torch.bool)
    batch = Batch({**batch.values, "starts_word": starts}, batch.layout)
    objective = Masked(MaskedConfig(share=0.25, unit="word"), vocab_size=50, mask_id=4, special_ids=frozenset({0, 4}))
    assert 16 <= hidden(objective.prepare(batch, np.random.default_rng(0), 0.0)).size <= 32


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_nothing_to_hide_is_no_loss_and_a_single_token_is_hidden(unit: str) -> None:
    from conftest import batch_of

    objective = Masked(MaskedConfig(unit=unit), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    for rows, expected in (([[], []], 0), ([[np.array([2, 3])]], 0), ([[np.array([2, 9, 3])]], 1)):
        batch = batch_of(rows, 16)  # type: ignore[arg-type]
        assert hidden(objective.prepare(batch, rng, 0.0)).size == expected


@pytest.mark.parametrize(("first", "middle", "last"), [(0.4, 0.25, 0.1), (0.1, 0.4, 0.7)])
def test_the_share_moves_along_its_schedule(
    first: float, middle: float, last: float, batches: list[Batch], tokenizer: Tokenizer
) -> None:
    objective = objective_of(tokenizer, share=first, final_share=last)
    assert [objective.share_at(p) for p in (-1, 0, 0.5, 1, 2)] == pytest.approx([first, first, middle, last, last])
    wanted = candidates_of(batches[0], tokenizer).sum()
    for progress, share in ((0.0, first), (0.5, middle), (1.0, last)):
        done = objective.prepare(batches[0], np.random.default_rng(0), progress)
        assert abs(hidden(done).size - share * wanted) <= 1


def test_the_loss_is_cross_entropy_by_hand(batches: list[Batch], tokenizer: Tokenizer) -> None:
    objective = objective_of(tokenizer, share=0.2)
    done = objective.prepare(batches[0], np.random.default_rng(0), 0.0)
    slots = done.truth["at"].numel()
    logits = torch.randn(slots, tokenizer.vocab_size, generator=torch.Generator().manual_seed(0))
    loss = objective.loss(Output(logits=logits), done)
    total, count, correct = 0.0, 0, 0
    for row, target in zip(logits.double().numpy(), done.truth["target"].tolist()):
        if target == IGNORED:
            continue
        total += np.log(np.exp(row).sum()) - row[target]
        count += 1
        correct += int(row.argmax() == target)
    assert float(loss.total) == pytest.approx(total, rel=1e-5)
    assert (int(loss.count), int(loss.correct)) == (count, correct)  # type: ignore[arg-type]


def test_logits_are_computed_at_the_slots_only(batches: list[Batch], tokenizer: Tokenizer) -> None:
    objective = objective_of(tokenizer, share=0.15)
    done = objective.prepare(batches[0], np.random.default_rng(0), 0.0)
    model = tiny_model(vocab_size=tokenizer.vocab_size, max_length=128)
    logits = model(done).logits
    assert logits.shape == (done.truth["at"].numel(), tokenizer.vocab_size)
    assert logits.shape[0] < 0.2 * done.layout.positions
