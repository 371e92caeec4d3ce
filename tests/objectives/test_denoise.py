"""Denoising: what the encoder reads, what the decoder is to write, and that shapes stay whatever the noise does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of
from encodery.batch import Batch, Output
from encodery.data.sentences import SENTENCE
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.denoise import Denoise, DenoiseConfig, laid
from encodery.objectives.noise import without_sentinels

MASK = 4


def objective(**config: Any) -> Denoise:
    return Denoise(DenoiseConfig(**config), vocab_size=50, mask_id=MASK, special_ids=frozenset(range(5)))


def some_batch(lengths: list[int] | None = None, seed: int = 0) -> Batch:
    one, two, three = (np.concatenate([[2], ids, [3]]) for ids in documents_of(lengths or [11, 9, 20], seed=seed))
    batch = batch_of([[one, two], [three], []], 32, pad_id=1)
    sentence = (batch.values["ids"] % 4 == 0).long()
    return Batch({**batch.values, SENTENCE: sentence}, batch.layout)


def texts_of(batch: Batch) -> list[np.ndarray]:
    ids, layout = batch.values["ids"].numpy(), batch.layout
    return [ids[a : a + n] for a, n in zip(layout.starts.tolist(), layout.lengths.tolist())]


def test_what_is_written_is_the_text_token_by_token() -> None:
    """The decoder reads [CLS] t1 .. tn [SEP] and is asked for t1 .. tn [SEP], one token further on."""
    batch = some_batch()
    done = objective().prepare(batch, np.random.default_rng(0), 0.0)
    target = done.target
    assert target is not None and torch.equal(target.values["ids"], batch.values["ids"])
    wanted = target.truth["target"]
    for start, size in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
        assert torch.equal(wanted[start : start + size - 1], batch.values["ids"][start + 1 : start + size])
        assert int(wanted[start + size - 1]) == IGNORED
    assert (wanted[batch.layout.document < 0] == IGNORED).all()


@pytest.mark.parametrize("delete", [0.0, 0.2])
def test_the_source_is_the_text_with_holes(delete: float) -> None:
    batch = some_batch()
    done = objective(permute=False, delete=delete).prepare(batch, np.random.default_rng(0), 0.0)
    for before, after in zip(texts_of(batch), texts_of(done)):
        assert after[0] == 2 and after[-1] == 3 and after.size <= before.size
        shown = iter(before.tolist())
        assert all(token in shown for token in after.tolist() if token != MASK)  # in their order
    holes = sum(int((text == MASK).sum()) for text in texts_of(done))
    left = sum(int((text != MASK).sum()) for text in texts_of(done))
    assert holes >= 3 and left < 46 - 6
    # What stands beside a token moves with it.
    real = (done.layout.document >= 0) & (done.values["ids"] != MASK)
    assert torch.equal(
        done.values["entity"][real], batch_of([[done.values["ids"][real].numpy()]], int(real.sum())).values["entity"]
    )


def test_sentences_change_places() -> None:
    batch, moved = some_batch(), 0
    for seed in range(10):
        done = objective(share=0.01).prepare(batch, np.random.default_rng(seed), 0.0)
        for before, after in zip(texts_of(batch), texts_of(done)):
            assert np.array_equal(np.sort(before), np.sort(after)) or MASK in after
            moved += not np.array_equal(before, after)
    assert moved > 10
    still = objective(share=0.01, permute=False).prepare(batch, np.random.default_rng(0), 0.0)
    assert all(np.array_equal(a, b) for a, b in zip(texts_of(batch), texts_of(still)))
    turned = objective(share=0.01, permute=False, rotate=True).prepare(batch, np.random.default_rng(0), 0.0)
    text, before = texts_of(turned)[2][1:-1], texts_of(batch)[2][1:-1]
    assert any(np.array_equal(np.roll(before, -by), text) for by in range(1, 20))


def test_source_and_target_of_spans_give_the_text_back() -> None:
    for seed in range(10):
        batch = some_batch(seed=seed)
        done = objective(noise="spans", share=0.3).prepare(batch, np.random.default_rng(seed), 0.0)
        assert done.target is not None
        for before, source, target in zip(texts_of(batch), texts_of(done), texts_of(done.target)):
            found = without_sentinels(source[1:-1], target[1:-1], np.array([MASK]))
            assert np.array_equal(found, before[1:-1])
            assert target.size < before.size and (source == MASK).any()


@pytest.mark.parametrize("noise", ["bart", "spans"])
def test_shapes_stay_and_short_texts_are_left_out(noise: str) -> None:
    shapes = set()
    for seed, lengths in enumerate(([11, 9, 20], [1, 2, 30], [3, 1, 1])):
        batch = some_batch(lengths, seed)
        before = batch.values["ids"].clone()
        done = objective(noise=noise).prepare(batch, np.random.default_rng(seed), 0.0)
        assert done.target is not None and torch.equal(batch.values["ids"], before)
        assert torch.equal(done.layout.starts, done.target.layout.starts)
        assert done.tokens == sum(lengths) + 6 >= done.layout.real_tokens  # what was read, not what noise has left
        shapes.add((done.values["ids"].shape, done.target.values["ids"].shape, done.target.truth["target"].shape))
        for number, size in enumerate(lengths):
            asked = (done.target.truth["target"][done.target.layout.document == number] != IGNORED).any()
            assert bool(asked) or size < 4
            # A sentinel for one token of one or two needs more room than there is.
            assert bool(asked) or (noise == "spans" and size < 4)
    assert len(shapes) == 1


def test_the_loss_by_hand() -> None:
    judge, batch = objective(), some_batch()
    done = judge.prepare(batch, np.random.default_rng(0), 0.0)
    assert done.target is not None
    logits = torch.randn(96, 50, generator=torch.Generator().manual_seed(0))
    loss = judge.loss(Output(logits=logits), done)
    rows = [(r, t) for r, t in zip(logits.double().numpy(), done.target.truth["target"].tolist()) if t != IGNORED]
    assert float(loss.total) == pytest.approx(sum(np.log(np.exp(r).sum()) - r[t] for r, t in rows), rel=1e-5)
    assert int(loss.count) == len(rows) == 43


def test_no_texts_are_no_loss_and_documents_keep_to_their_places() -> None:
    judge = objective()
    for rows in ([[], []], [[np.array([2, 3])], []]):
        done = judge.prepare(batch_of(rows, 16), np.random.default_rng(0), 0.0)  # type: ignore[arg-type]
        assert int(judge.loss(Output(logits=torch.zeros(32, 50)), done).count) == 0
    batch = some_batch()
    with pytest.raises(AssertionError, match="outgrown"):
        laid(batch, [(np.zeros(40, np.int64), np.zeros(40, np.int64))] * 3)


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="noise: bart"):
        DenoiseConfig(noise="spans", delete=0.1)
    with pytest.raises(ValueError, match="shared"):
        DenoiseConfig.model_validate({"decoder": {"vocabulary": "own"}})
    with pytest.raises(ValueError):
        DenoiseConfig(share=1.0)
