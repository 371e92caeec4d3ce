"""Entities fused into words: against the equations written out, with and without entities, on every road."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conftest import batch_of, documents_of, tiny_config, tiny_model
from encodery.batch import Batch
from encodery.encoders import kernels
from encodery.encoders.knowledge import Fusion
from encodery.encoders.transformer import Transformer
from encodery.encoders.watch import Watch
from encodery.model import Model, cost_table, count
from encodery.objectives.masked import Masked, MaskedConfig

LENGTHS = [13, 4, 1, 9, 16, 7, 2, 11]
FUSION: dict[str, Any] = {"entities": 12, "width": 8, "heads": 2, "after": [1, 2]}


def with_entities(batch: Batch, entity: list[int]) -> Batch:
    """The batch with these entities at its first positions and none behind."""
    numbers = torch.zeros(batch.layout.positions, dtype=torch.int64)
    numbers[: len(entity)] = torch.tensor(entity)
    return replace(batch, values={**batch.values, "entity": numbers})


def fusion_of(model: Model) -> Fusion:
    assert isinstance(model.encoder, Transformer) and model.encoder.fusion is not None
    return model.encoder.fusion


def test_a_fusion_layer_is_equations_2_to_4_written_out() -> None:
    """One document alone, every number by hand; the residual sums and norms are those of the blocks."""
    model = tiny_model(fusion={**FUSION, "heads": 1}, qk_norm=False)
    fusion = fusion_of(model)
    entity = [0, 3, 0, 12, 3]
    batch = with_entities(batch_of([documents_of([5])], 16), entity)
    x = torch.randn(16, 32, generator=torch.Generator().manual_seed(1))
    named = fusion.begin(batch.values["entity"], batch.layout, x.dtype)
    assert named is not None
    found = fusion(1, x, named, batch.layout.document >= 0)

    layer: Any = fusion.layers[0]
    e = torch.stack([fusion.entities.weight[number - 1] for number in entity if number])
    q, k, v = layer.attention.qkv(layer.attention_norm(e)).split(8, dim=1)
    e = e + layer.attention.outer(torch.softmax(q @ k.T / 8**0.5, dim=-1) @ v)
    words = layer.norm(x[:5])
    wanted, wanted_e, at = [], [], 0
    for place, number in enumerate(entity):
        h = layer.word.weight @ words[place] + layer.word.bias
        if number:
            h = h + layer.entity.weight @ layer.entity_norm(e[at])
        h = torch.nn.functional.gelu(h)
        wanted.append(x[place] + layer.outer.weight @ h + layer.outer.bias)
        if number:
            wanted_e.append(e[at] + layer.entity_outer.weight @ h + layer.entity_outer.bias)
            at += 1
    torch.testing.assert_close(found[:5], torch.stack(wanted), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(named.vectors[:3], torch.stack(wanted_e), atol=1e-5, rtol=1e-5)
    # The second layer reads what the first one left, and a block without fusion changes nothing.
    assert torch.equal(fusion(7, x, named, batch.layout.document >= 0), x)
    before = named.vectors.clone()
    fusion(2, found, named, batch.layout.document >= 0)
    assert not torch.equal(named.vectors, before)


def test_an_entity_changes_its_document_and_no_other() -> None:
    model = tiny_model(fusion=FUSION)
    batch = batch_of([documents_of([5, 6])], 16)
    plain = with_entities(batch, [])
    marked, other = with_entities(batch, [0, 3]), with_entities(batch, [0, 4])
    with torch.inference_mode():
        without, one, two = (model.encode(given).vectors for given in (plain, marked, other))
    assert (without[:5] - one[:5]).abs().min(dim=1).values.max() > 0
    assert not torch.allclose(one[:5], two[:5], atol=1e-3)
    torch.testing.assert_close(without[5:11], one[5:11], atol=0, rtol=0)


def test_a_batch_that_marks_no_entities_is_one_in_which_no_word_names_one() -> None:
    model = tiny_model(fusion=FUSION)
    batch = batch_of([documents_of([5, 6])], 16)
    bare = replace(batch, values={name: value for name, value in batch.values.items() if name != "entity"})
    with torch.inference_mode():
        assert torch.equal(model.encode(bare).vectors, model.encode(with_entities(batch, [])).vectors)


@pytest.mark.parametrize("after", [[1], [2], [1, 2]])
def test_positions_asked_for_alone_get_the_same_vectors(after: list[int]) -> None:
    """The last block works for the hidden words alone; so does the fusion layer behind it."""
    model = tiny_model(fusion={**FUSION, "after": after})
    batch = batch_of([documents_of([9, 7])], 16)
    at = torch.tensor([1, 4, 4, 12, 0])
    with torch.inference_mode():
        states = model.frontend(batch)
        assert states.entity is not None and int((states.entity > 0).sum()) > 2
        torch.testing.assert_close(model.encoder(states, at).vectors, model.encoder(states).vectors[at])


def test_long_rows_go_document_by_document(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(fusion=FUSION)
    batch = batch_of([documents_of([13, 4, 11]), documents_of([20], seed=2)], 32)
    with torch.inference_mode():
        at_once = model.encode(batch).vectors
        monkeypatch.setattr(kernels, "ROWS_UP_TO", 0)
        one_by_one = model.encode(replace(batch, layout=replace(batch.layout, masks={}))).vectors
    real = batch.layout.document >= 0
    torch.testing.assert_close(at_once[real], one_by_one[real], atol=1e-5, rtol=1e-5)


def test_half_precision_comes_close() -> None:
    model = tiny_model(fusion=FUSION).train()
    objective = Masked(MaskedConfig(share=0.5), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))
    batch = objective.prepare(batch_of([documents_of(LENGTHS)], 64), np.random.default_rng(0), 0.0)
    losses = []
    for dtype in (torch.float32, torch.bfloat16):
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            losses.append(objective.loss(model(batch), batch).total)
    losses[1].backward()
    assert float(losses[1].detach()) == pytest.approx(float(losses[0].detach()), rel=0.02)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_a_frozen_table_does_not_learn() -> None:
    model = tiny_model(fusion={**FUSION, "frozen": True}).train()
    model.encode(batch_of([documents_of([9])], 16)).vectors.sum().backward()
    assert fusion_of(model).entities.weight.grad is None
    assert fusion_of(model).layers[0].entity.weight.grad is not None  # type: ignore[union-attr]


def test_watching_and_costs_know_of_it() -> None:
    model, plain = tiny_model(fusion=FUSION), tiny_model()
    watch = Watch()
    with torch.inference_mode():
        states = model.encode(batch_of([documents_of([9])], 16), watch)
        last = model.encoder.output_norm(watch.hidden[-1])  # type: ignore[operator]
    assert len(watch.hidden) == 3 and len(watch.weights) == 2
    torch.testing.assert_close(last, states.vectors)
    rows = {row.name: row for row in cost_table(model, length=32)}
    assert sum(row.parameters for row in rows.values()) == count(model)
    assert rows["encoder: entities"].parameters == 12 * 8
    assert rows["encoder: fusion after block 1"].flops == 2 * 2 * 32 * 32
    assert rows["encoder: block 1"] == {row.name: row for row in cost_table(plain, length=32)}["encoder: block 1"]
    assert model.encoder.memory(32)[0] > plain.encoder.memory(32)[0]


def test_the_upper_half_is_the_default() -> None:
    config: Any = tiny_config(depth=5, fusion={"entities": 3}).encoder
    assert config.fused_after == (3, 4, 5)
    assert tiny_config(depth=5).encoder.fused_after == ()  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fusion": {"entities": 3, "after": [0]}}, "must name blocks from 1 to 2"),
        ({"fusion": {"entities": 3, "after": [2, 1]}}, "each once, in order"),
        ({"fusion": {"entities": 3, "after": []}}, "must name blocks from 1 to 2"),
        ({"fusion": {"entities": 3, "after": [3]}, "halve_after": [1], "depth": 4}, "before the first halving"),
        ({"fusion": {"entities": 3, "width": 9, "heads": 2}}, "fusion.width 9 is not a multiple of fusion.heads 2"),
        ({"fusion": {"entities": 3}, "pattern": "causal"}, "needs fusion.heads: 0"),
        ({"fusion": {"entities": 3, "depth": 2}}, "depth"),
    ],
)
def test_impossible_fusions_are_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        tiny_config(**changes)
