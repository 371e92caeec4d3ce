"""The decoder: packed equals alone, nothing to come is seen, the source is looked at, words are copied."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from encodery.batch import layout_of
from encodery.encoders import source as kernels
from encodery.heads.decoding.decoder import Decoder
from encodery.heads.decoding.options import DecoderConfig
from heads.writers import pairs_of, tiny_writer, written_batch

DECODERS: list[dict[str, Any]] = [
    {},
    {"decoder": {"pointer": True}},
    {"decoder": {"vocabulary": "own", "vocab_size": 40}},
    {"decoder": {"tied": False, "stack": {"kind": "transformer", "width": 24, "depth": 1, "heads": 2}}},
    {"kind": "recurrent"},
    {"kind": "recurrent", "decoder": {"pointer": True}},
    {"decoder": {"stack": {"kind": "recurrent", "width": 20, "cell": "gru", "depth": 2}}},
    {"kind": "hierarchical", "style": "hat", "segment": 5, "cross_every": 1},
    {"norm_place": "post", "positions": "learned", "distinct_blocks": 1},
    {"norm_place": "both", "layer_scale": 0.1, "positions": "relative", "kv_heads": 2, "qk_norm": True},
    {"positions": "alibi", "experts": 3, "activation": "swiglu", "bias": False, "norm": "rmsnorm"},
    {"positions": "disentangled", "frontend": {"width": 12}},
]
every_decoder = pytest.mark.parametrize("options", DECODERS, ids=str)
SOURCES, TARGETS = [9, 3, 14, 6, 11, 1], [4, 7, 2, 12, 1, 5]


def vocabulary(options: dict[str, Any]) -> int:
    return 40 if options.get("decoder", {}).get("vocabulary") == "own" else 50


def pairs(options: dict[str, Any]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    return pairs_of(SOURCES, TARGETS, vocab_size=vocabulary(options))


@every_decoder
def test_packed_pairs_are_answered_like_a_pair_alone(options: dict[str, Any]) -> None:
    """In the same rows on both sides, in rows that do not match, and alone."""
    model, (sources, targets) = tiny_writer(**options), pairs(options)
    with torch.inference_mode():
        batch = written_batch([[0, 1, 3], [2, 4], [5]], sources, targets)
        together = model(batch)
        crossed = written_batch([[0, 1, 3], [2, 4], [5]], sources, targets)
        other = written_batch([[0, 1], [3], [2, 4, 5]], sources, targets, room=(64, 32))
        crossed = replace(crossed, target=other.target)
        assert not kernels.same_rows(crossed.target.layout, crossed.layout)
        apart = model(crossed)
        for place, number in enumerate([0, 1, 3, 2, 4, 5]):
            alone = model(written_batch([[0]], [sources[number]], [targets[number]], room=(sources[number].size, 13)))
            for found, batch_of_it in ((together, batch), (apart, crossed)):
                start = int(batch_of_it.target.layout.starts[place])
                own = slice(start, start + targets[number].size)
                torch.testing.assert_close(
                    found.logits[own], alone.logits[: targets[number].size], atol=2e-5, rtol=1e-4
                )
                if found.copied is not None:
                    expected = alone.copied[:, : targets[number].size]
                    torch.testing.assert_close(found.copied[:, own], expected, atol=1e-5, rtol=1e-4)


@every_decoder
def test_what_is_to_come_changes_nothing_and_the_source_does(options: dict[str, Any]) -> None:
    model, (sources, targets) = tiny_writer(**options), pairs(options)
    changed = [ids.copy() for ids in targets]
    changed[3][6] = 5 + (changed[3][6] - 4) % 30
    another = [ids.copy() for ids in sources]
    another[3][2] = 5 + (another[3][2] - 4) % 30
    with torch.inference_mode():
        before, after = (model(written_batch([[3]], sources, given)).logits[:13] for given in (targets, changed))
        elsewhere = model(written_batch([[3]], another, targets)).logits[:13]
    torch.testing.assert_close(before[:6], after[:6], atol=1e-6, rtol=1e-6)
    assert (before[6:] - after[6:]).abs().amax(1).min() > 1e-4
    assert (before - elsewhere).abs().amax(1).min() > 1e-5


@every_decoder
def test_every_parameter_learns(options: dict[str, Any]) -> None:
    model, (sources, targets) = tiny_writer(**options).train(), pairs(options)
    many = [number for _ in range(8 if "experts" in options else 1) for number in range(6)]
    output = model(written_batch([[number] for number in many], sources, targets))
    loss = output.logits.float().square().mean() + (0 if output.copied is None else output.copied.sum())
    loss.backward()
    for name, parameter in model.named_parameters():
        if name == "frontend.segments.weight" or "pointer.key.bias" in name:
            continue  # no pairs here; and a softmax does not see what is added to all of its scores
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rows_at_once_give_the_numbers_of_documents_and_their_gradients(dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    target, source = layout_of([[5, 3, 2], [8], [1, 4], []], 12), layout_of([[4, 4, 9], [11], [6, 2], []], 20)
    q = torch.randn(48, 2, 8, generator=generator).to(dtype)
    kv = torch.randn(80, 2, 2, 8, generator=generator).to(dtype)
    real = (target.document >= 0)[:, None]
    wanted = torch.randn(48, 16, generator=generator) * real

    def result(attend: Any, dtype: torch.dtype) -> list[torch.Tensor]:
        given = [x.to(dtype).requires_grad_() for x in (q, kv)]
        mixed = attend(*given, target, source, 0.0)
        return [
            (mixed * real).detach().float(),
            *(g.float() for g in torch.autograd.grad(mixed, given, wanted.to(dtype))),
        ]

    close = {"atol": 1e-5, "rtol": 1e-5} if dtype == torch.float32 else {"atol": 6e-2, "rtol": 6e-2}
    for found, expected in zip(result(kernels.attend_source, dtype), result(kernels.attend_documents, torch.float32)):
        torch.testing.assert_close(found, expected, **close)


def test_padding_gives_numbers() -> None:
    model = tiny_writer(decoder={"pointer": True}).train()
    sources, targets = pairs({})
    output = model(written_batch([[0], [], []], sources, targets))
    assert torch.isfinite(output.logits).all() and torch.isfinite(output.copied).all()
    output.logits.sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_copying_finds_the_words_of_the_source() -> None:
    """With the gate shut all probability lies on tokens of the own source."""
    model, (sources, targets) = tiny_writer(decoder={"pointer": True}), pairs({})
    decoder: Decoder = model.readout
    with torch.inference_mode():
        decoder.pointer.gate.bias.fill_(-1e4)
        batch = written_batch([[0], [2]], sources, targets)
        writing = decoder.begin(model.encode(batch), batch.values["ids"])
        probability = decoder.next(torch.ones(2, 1, dtype=torch.int64), writing).exp()
    for number, found in zip((0, 2), probability):
        assert set(torch.nonzero(found > 1e-6).flatten().tolist()) <= set(sources[number].tolist())
        torch.testing.assert_close(found.sum(), torch.tensor(1.0), atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    "wrong",
    [
        {"stack": {"kind": "transformer", "pattern": "full"}},
        {"stack": {"kind": "recurrent", "directions": "both"}},
        {"pointer": True, "vocabulary": "own"},
        {"stack": {"kind": "transformer", "halve_after": [1]}},
        {"stack": {"kind": "transformer", "positions": "grid"}},
    ],
)
def test_decoders_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        DecoderConfig.model_validate(wrong)
