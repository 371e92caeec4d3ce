"""Autoencoding: what is deleted and hidden, what the decoders may know, and their attention written out by hand."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import batch_of, documents_of, tiny_config
from encodery.batch import Batch, States
from encodery.encoders.kinds import make_encoder
from encodery.encoders.watch import Watch
from encodery.frontends.text import TextFrontend
from encodery.heads.autoencode import AutoencodeReadout, EnhancedDecoder
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.reconstruct import Autoencode, AutoencodeConfig, without

SPECIAL = frozenset(range(5))
METHODS = ["tsdae", "retromae"]


class Parts:
    """Frontend, encoder and readout side by side, as a model puts them together."""

    def __init__(self, judge: Autoencode, **encoder: Any) -> None:
        config = tiny_config(**encoder)
        self.frontend = TextFrontend(config.frontend, config.encoder.width)
        self.encoder = make_encoder(config.encoder, self.frontend.width)
        self.readout = AutoencodeReadout(judge.readout(), config.encoder, self.frontend)
        self.read: list[Batch] = []
        generator = torch.Generator().manual_seed(0)
        for part in (self.frontend, self.encoder, self.readout):
            part.initialise(generator)
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)

    def encode(
        self, batch: Batch, at: Tensor | None = None, *, watch: Watch | None = None, words: Tensor | None = None
    ) -> States:
        del words
        self.read.append(batch)
        return self.encoder(self.frontend(batch), at, watch)

    def answer(self, batch: Batch):
        return self.readout.run(self.encode, batch)


def objective(method: str, **config: Any) -> Autoencode:
    given = AutoencodeConfig(method=method, **config)  # type: ignore[arg-type]
    return Autoencode(given, vocab_size=50, mask_id=4, special_ids=SPECIAL)


def framed(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    return [np.concatenate([[2], ids, [3]]) for ids in documents_of(lengths, seed=seed)]


def some_batch() -> Batch:
    one, two, three = framed([11, 9, 20])
    return batch_of([[one, two], [three], []], 32, pad_id=1)


def texts_of(batch: Batch) -> list[list[int]]:
    ids, layout = batch.values["ids"], batch.layout
    return [ids[a : a + n].tolist() for a, n in zip(layout.starts.tolist(), layout.lengths.tolist())]


def test_a_batch_without_some_tokens_is_the_batch_of_the_shorter_documents() -> None:
    batch, rng = some_batch(), np.random.default_rng(0)
    gone = rng.random(96) < 0.5
    done = without(batch, gone)
    kept = [
        batch.values["ids"][a : a + n][~gone[a : a + n]].tolist()
        for a, n in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist())
    ]
    assert texts_of(done) == kept
    assert done.layout.positions == 96 and torch.equal(done.layout.starts, batch.layout.starts)
    padding = done.layout.document < 0
    assert (done.values["ids"][padding] == 1).all()
    assert int((~padding).sum()) == int(done.layout.lengths.sum())
    for start, size in zip(done.layout.starts.tolist(), done.layout.lengths.tolist()):
        assert done.layout.position[start : start + size].tolist() == list(range(size))
    # To an encoder both are the same documents.
    parts = Parts(objective("tsdae"))
    alone = batch_of([[np.array(kept[0]), np.array(kept[1])], [np.array(kept[2])], []], 32)
    mine, other = parts.encode(done).vectors, parts.encode(alone).vectors
    for text, start, begin in zip(kept, done.layout.starts.tolist(), alone.layout.starts.tolist()):
        torch.testing.assert_close(
            mine[start : start + len(text)], other[begin : begin + len(text)], atol=1e-5, rtol=1e-5
        )


def test_words_are_deleted_at_their_share_and_one_of_each_text_stays() -> None:
    judge, left, total = objective("tsdae"), 0, 0
    for seed in range(60):
        batch = batch_of([[ids] for ids in framed([30, 1, 18, 2], seed)], 32)
        done = judge.prepare(batch, np.random.default_rng(seed), 0.0)
        for before, after in zip(texts_of(batch), texts_of(done)):
            assert after[0] == 2 and after[-1] == 3 and len(after) > 2
            shown = iter(before)
            assert all(token in shown for token in after)  # in their order
        left += len(texts_of(done)[0]) + len(texts_of(done)[2]) - 4
        total += 48
    assert left / total == pytest.approx(0.4, abs=0.05)
    starts = torch.zeros(32, dtype=torch.bool)
    starts[[1, 6, 7, 20]] = True
    batch = batch_of([[framed([30])[0]]], 32)
    batch = Batch({**batch.values, "starts_word": starts}, batch.layout)
    for seed in range(20):
        after = texts_of(judge.prepare(batch, np.random.default_rng(seed), 0.0))[0]
        assert len(after) - 2 in {sum(parts) for parts in _subsets([5, 1, 13, 11])}  # words go whole


def _subsets(sizes: list[int]) -> list[list[int]]:
    return [[size for place, size in enumerate(sizes) if bits >> place & 1] for bits in range(1, 1 << len(sizes))]


@pytest.mark.parametrize("method", METHODS)
def test_what_is_to_be_written_is_the_text_as_it_was(method: str) -> None:
    judge, batch = objective(method), some_batch()
    done = judge.prepare(batch, np.random.default_rng(1), 0.0)
    assert torch.equal(done.truth["original"], batch.values["ids"])
    real = done.truth["write"] != IGNORED
    ask, write = done.truth["ask"][real], done.truth["write"][real]
    ids = batch.values["ids"]
    if method == "tsdae":  # every token but the first of a document, written at the place before it
        assert torch.equal(write, ids[ask + 1]) and int(real.sum()) == 10 + 12 + 21 + 1 - 2 + 1 + 0
    else:  # every word at its own place
        assert torch.equal(write, ids[ask]) and int(real.sum()) == 40 and (write >= 5).all()
    assert not torch.equal(done.values["ids"], ids)


@pytest.mark.parametrize("method", METHODS)
def test_what_a_decoder_knows_of_a_text_comes_through_its_vector(method: str) -> None:
    """The vector of another text changes nothing, the own one everything; and a word is never written from itself."""
    judge, batch = objective(method), some_batch()
    parts, done = Parts(judge), judge.prepare(batch, np.random.default_rng(1), 0.0)
    vectors = torch.randn(3, 32, generator=torch.Generator().manual_seed(3))
    real = done.truth["write"] != IGNORED
    document = batch.layout.document[done.truth["ask"]]
    with torch.inference_mode():
        before = parts.readout.decoded(vectors, done)
        own, vectors[1] = vectors[1].clone(), vectors[2].flip(0)
        moved = (parts.readout.decoded(vectors, done) - before).abs().amax(1) > 1e-4
        assert torch.equal(moved[real], document[real] == 1)
        vectors[1] = own
        # Another word at place 5 of the first text.
        ids = done.truth["original"].clone()
        ids[5] = 5 + (ids[5] - 4) % 45
        other = Batch(done.values, done.layout, {**done.truth, "original": ids}, done.uids, done.parts)
        moved = (parts.readout.decoded(vectors, other) - before).abs().amax(1) > 1e-5
    place = done.truth["ask"]
    if method == "tsdae":  # a causal decoder: what is asked at 5 and after it in this text
        assert torch.equal(moved[real], ((place >= 5) & (document == 0))[real])
    else:
        seen = done.truth["visible"].view(3, 32, 32)[0, :, 5]
        expected = torch.zeros_like(moved)
        expected[real] = seen[place[real] % 32] & (place[real] < 32)
        assert torch.equal(moved[real], expected[real])
        assert not moved[real][place[real] == 5].any() and moved[real].any()


def test_who_sees_whom_in_the_decoder() -> None:
    judge, batch, seen, possible = objective("retromae", decoder_share=0.7), some_batch(), 0, 0
    document, ids = batch.layout.document.numpy().reshape(3, 32), batch.values["ids"].numpy().reshape(3, 32)
    for seed in range(20):
        done = judge.prepare(batch, np.random.default_rng(seed), 0.0)
        visible = done.truth["visible"].numpy().reshape(3, 32, 32)
        assert not visible[:, np.arange(32), np.arange(32)].any()
        same = (document[:, :, None] == document[:, None, :]) & (document >= 0)[:, None, :] & (ids >= 5)[:, None, :]
        same[:, np.arange(32), np.arange(32)] = False
        assert not (visible & ~same).any()
        seen, possible = seen + visible.sum(), possible + same.sum()
    assert seen / possible == pytest.approx(0.3, abs=0.02)


def test_enhanced_decoding_by_hand() -> None:
    """Section 3.3 by loops over single numbers, in float32."""
    judge, batch = objective("retromae"), some_batch()
    parts, done = Parts(judge), judge.prepare(batch, np.random.default_rng(1), 0.0)
    decoder = parts.readout.decoder
    assert isinstance(decoder, EnhancedDecoder)
    vectors = torch.randn(3, 32, dtype=torch.float32, generator=torch.Generator().manual_seed(3))
    words = parts.frontend.words(done.truth["original"])
    with torch.inference_mode():
        found = decoder(words, vectors, batch.layout, done.truth["ask"], done.truth["visible"])
        table = decoder.positions.table.weight
        visible = done.truth["visible"].view(3, 32, 32)
        heads, each = decoder.heads, 32 // decoder.heads
        for slot in (0, 7, 19, 33):
            place = int(done.truth["ask"][slot])
            number = int(batch.layout.document[place])
            row, start = place // 32, int(batch.layout.starts[number])
            vector = decoder.vector_norm(vectors[number])
            h1 = vector + table[place - start]
            keys = [vector]
            for other in range(32):
                if visible[row, place % 32, other]:
                    at = row * 32 + other
                    keys.append(decoder.input_norm(words[at] + table[at - start]))
            q = decoder.query(h1)
            pairs = [decoder.key_value(key).split(32) for key in keys]
            mixed = []
            for head in range(heads):
                cut = slice(head * each, (head + 1) * each)
                score = [float(q[cut] @ k[cut]) / math.sqrt(each) for k, _ in pairs]
                weight = np.exp(np.array(score) - max(score))
                weight /= weight.sum()
                mixed.append(sum(w * v[cut] for w, (_, v) in zip(weight, pairs)))
            x = decoder.norm(decoder.outer(torch.cat(mixed)) + h1)
            torch.testing.assert_close(found[slot], decoder.output_norm(x + decoder.mlp(x)), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("method", METHODS)
def test_the_loss_by_hand(method: str) -> None:
    judge, batch = objective(method), some_batch()
    parts, done = Parts(judge), judge.prepare(batch, np.random.default_rng(1), 0.0)
    output = parts.answer(done)
    loss = judge.loss(output, done)

    def mean(logits: Tensor, target: Tensor) -> float:
        rows = [(row, t) for row, t in zip(logits.detach().double().tolist(), target.tolist()) if t != IGNORED]
        return float(np.mean([np.log(np.exp(row).sum()) - row[t] for row, t in rows]))

    expected = mean(output.logits, done.truth["write"])
    if method == "retromae":
        expected += mean(output.hidden, done.truth["target"])
    assert float(loss.total.detach() / loss.count) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("asked", [0.3, 1.0])
@pytest.mark.parametrize("method", METHODS)
def test_shapes_do_not_depend_on_the_texts(method: str, asked: float) -> None:
    judge, shapes = objective(method, asked=asked), set()
    for seed, lengths in enumerate(([5, 6, 7], [30, 20, 9], [1, 2, 3])):
        batch = batch_of([[ids] for ids in framed(lengths)], 32)
        done = judge.prepare(batch, np.random.default_rng(seed), 0.0)
        shapes.add(tuple((name, tuple(done.truth[name].shape)) for name in sorted(done.truth)))
        assert done.tokens == sum(lengths) + 6 >= done.layout.real_tokens  # what was read, not what noise has left
        possible = sum(lengths) + (3 if method == "tsdae" else 0)
        assert abs(int((done.truth["write"] != IGNORED).sum()) - asked * possible) <= 1
    assert len(shapes) == 1


@pytest.mark.parametrize("encoder", [{}, {"kind": "recurrent"}, {"frontend": {"width": 12}}])
@pytest.mark.parametrize("method", METHODS)
def test_every_parameter_gets_a_gradient(method: str, encoder: dict[str, Any]) -> None:
    judge, batch = objective(method, decoder_depth=2 if method == "tsdae" else 1), some_batch()
    parts, done = Parts(judge, **encoder), judge.prepare(batch, np.random.default_rng(1), 0.0)
    judge.loss(parts.answer(done), done).total.backward()
    for part in (parts.frontend, parts.encoder, parts.readout):
        for name, parameter in part.named_parameters():
            assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("method", METHODS)
def test_texts_without_words_are_no_loss(method: str) -> None:
    judge = objective(method)
    parts = Parts(judge)
    for rows in ([[], []], [[np.array([2])], []]):
        done = judge.prepare(batch_of(rows, 16), np.random.default_rng(0), 0.0)  # type: ignore[arg-type]
        loss = judge.loss(parts.answer(done), done)
        assert float(loss.total.detach()) == 0.0 and int(loss.count) == 0
        loss.total.backward()
        assert all(torch.isfinite(p.grad).all() for p in parts.readout.parameters() if p.grad is not None)


def test_a_text_alone_gives_its_vector() -> None:
    judge, batch = objective("tsdae"), some_batch()
    output = Parts(judge).answer(batch)
    assert output.vectors.shape == (3, 32) and output.logits is None


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="one layer"):
        AutoencodeConfig(method="retromae", decoder_depth=2)
    for wrong in ({"share": 1.0}, {"decoder_share": 1.0}, {"asked": 0.0}, {"method": "vae"}):
        with pytest.raises(ValueError):
            AutoencodeConfig.model_validate(wrong)
