"""Each option does what its name says, and combinations that cannot be are refused with what can."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pydantic import ValidationError

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import States, layout_of
from encodery.bricks.convolution import with_neighbours
from encodery.bricks.experts import Experts
from encodery.bricks.layers import MaskedBatchNorm
from encodery.bricks.positions import GridPositions, Rotary, rotate, sinusoidal_table
from encodery.encoders.attention import Attention, Pass
from encodery.encoders.halving import halved, spread
from encodery.encoders.options import TransformerConfig
from encodery.encoders.patterns import Pattern
from encodery.encoders.recurrent import RecurrentConfig
from encodery.encoders.transformer import Transformer
from encodery.objectives.masked import Masked, MaskedConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"width": 30, "heads": 4}, "heads 3 fit"),
        ({"heads": 4, "kv_heads": 3}, "not a multiple of kv_heads"),
        ({"head_width": 7}, "even head width"),
        ({"head_width": 6, "positions": "rotary_grid"}, "even head width"),
        ({"score": "additive"}, "need score: dot"),
        ({"positions": "disentangled", "disentangled": []}, "at least one of"),
        ({"global_tokens": 2}, "needs a local pattern"),
        ({"global_every": 2, "pattern": "causal"}, "needs a local pattern"),
        ({"mlp_kernel": 4}, "5 sees as far"),
        ({"mlp_kernel": 3, "experts": 2}, "choose one"),
        ({"mlp_kernel": 3, "pattern": "causal"}, "tokens to come"),
        ({"experts": 2, "experts_per_token": 3}, "more than experts"),
        ({"depth": 2, "distinct_blocks": 3}, "more than depth"),
        ({"depth": 2, "halve_after": [2]}, "blocks from 1 to 1"),
        ({"depth": 4, "halve_after": [1], "pattern": "causal"}, "next one"),
        ({"position_shift": 3}, "needs a table"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TransformerConfig.model_validate({"width": 32, **changes})


def test_a_recurrent_encoder_has_no_window() -> None:
    with pytest.raises(ValidationError, match="window"):
        RecurrentConfig.model_validate({"window": 3})
    with pytest.raises(ValidationError, match="even width"):
        RecurrentConfig.model_validate({"width": 33})


def attention_inputs(**changes: Any) -> tuple[Attention, torch.Tensor, Pass]:
    config = TransformerConfig.model_validate(
        {"width": 32, "heads": 4, "max_length": 16, "positions": "none", "qk_norm": False, **changes}
    )
    generator = torch.Generator().manual_seed(0)
    attention = Attention(config).eval()
    with torch.no_grad():
        for parameter in attention.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    layout = layout_of([[10]], 10)
    return attention, torch.randn(10, 32, generator=generator), Pass(layout, layout.document >= 0)


def test_grouped_heads_share_keys_and_values() -> None:
    """Two query heads side by side use the same keys: the same as full heads whose keys are copies."""
    attention, x, run = attention_inputs(kv_heads=2)
    full, _, _ = attention_inputs()
    q, k, v = attention.qkv.weight.split([32, 16, 16])
    bias_q, bias_k, bias_v = attention.qkv.bias.split([32, 16, 16])
    with torch.no_grad():

        def copied(part: torch.Tensor) -> torch.Tensor:
            return part.unflatten(0, (2, 8)).repeat_interleave(2, dim=0).flatten(0, 1)

        full.qkv.weight.copy_(torch.cat([q, copied(k), copied(v)]))
        full.qkv.bias.copy_(torch.cat([bias_q, copied(bias_k), copied(bias_v)]))
        full.outer.load_state_dict(attention.outer.state_dict())
        torch.testing.assert_close(attention(x, run, Pattern()), full(x, run, Pattern()))


def test_additive_scores_are_the_small_network() -> None:
    attention, x, run = attention_inputs(score="additive")
    q, k, v = (part.view(10, 4, 8) for part in attention.qkv(x).split(32, dim=-1))
    vector = attention.additive.vector  # type: ignore[union-attr]
    mixed = torch.zeros(10, 4, 8)
    for i in range(10):
        for h in range(4):
            score = torch.stack([vector[h] @ torch.tanh(q[i, h] + k[j, h]) for j in range(10)])
            mixed[i, h] = torch.softmax(score, 0) @ v[:, h]
    torch.testing.assert_close(attention(x, run, Pattern()), attention.outer(mixed.flatten(1)))


@pytest.mark.parametrize(("key", "value"), [(6, 10), (10, 6)])
def test_keys_and_values_may_have_their_own_widths(key: int, value: int) -> None:
    attention, x, run = attention_inputs(head_width=key, value_width=value)
    q, k, v = attention.qkv(x).split([4 * key, 4 * key, 4 * value], dim=-1)
    q, k, v = q.view(10, 4, key), k.view(10, 4, key), v.view(10, 4, value)
    weight = torch.softmax(torch.einsum("qhk,thk->hqt", q, k) / key**0.5, dim=-1)
    expected = attention.outer(torch.einsum("hqt,thv->qhv", weight, v).flatten(1))
    torch.testing.assert_close(attention(x, run, Pattern()), expected, atol=1e-5, rtol=1e-5)


def test_normed_queries_and_keys_do_not_care_how_long_they_are() -> None:
    attention, x, run = attention_inputs(qk_norm=True, bias=False)
    before = attention(x, run, Pattern())
    with torch.no_grad():
        attention.qkv.weight[:64].mul_(50)
    torch.testing.assert_close(attention(x, run, Pattern()), before, atol=1e-4, rtol=1e-4)


def test_stretched_angles_keep_the_fastest_pair_and_slow_the_slowest() -> None:
    plain, stretched = Rotary(64, 16), Rotary(64, 16, stretch=4.0)
    torch.testing.assert_close(plain.cosine[:, 0], stretched.cosine[:, 0])
    slow, slower = torch.asin(plain.sine[1:9, 15]), torch.asin(stretched.sine[1:9, 15])
    torch.testing.assert_close(slow / slower, torch.full((8,), 4.0))


def test_turned_by_a_grid_scores_depend_on_both_distances_alone() -> None:
    rotary = Rotary(32, 8, grid=True)
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 1, 8, generator=generator), torch.randn(1, 1, 8, generator=generator)

    def score(one: list[int], other: list[int]) -> torch.Tensor:
        turned = [
            rotate(x, *rotary.angles(torch.tensor([place]), torch.float32)) for x, place in ((q, one), (k, other))
        ]
        return (turned[0] * turned[1]).sum()

    torch.testing.assert_close(score([3, 4], [5, 9]), score([10, 11], [12, 16]))
    assert not torch.allclose(score([3, 4], [5, 9]), score([3, 4], [9, 5]))


def test_grid_positions_are_the_sines_of_row_and_column() -> None:
    positions, table = GridPositions(10, 8), sinusoidal_table(10, 4)
    found = positions(torch.zeros(2, 8), torch.tensor([[1, 2], [7, 0]]))
    torch.testing.assert_close(found, torch.cat([table[[1, 7]], table[[2, 0]]], dim=1))


def test_shifted_positions_move_while_learning_only_and_whole_documents() -> None:
    model = tiny_model(positions="learned", position_shift=6, depth=0, input_norm=False, norm_place="post")
    (document,) = documents_of([7])
    batch = batch_of([[document]], 8)
    still = model.encode(batch).vectors
    model.train()
    table = model.encoder.positions.table.weight  # type: ignore[union-attr]
    words = model.frontend(batch).vectors
    starts = set()
    for seed in range(20):
        torch.manual_seed(seed)
        moved = (model.encode(batch).vectors - words)[:7]
        (start,) = [s for s in range(7) if torch.allclose(moved, table[s : s + 7], atol=1e-5)]
        starts.add(start)
    assert len(starts) > 3
    torch.testing.assert_close(still[:7], (words + table[batch.layout.position])[:7])


def test_batchnorm_counts_real_positions_alone() -> None:
    norm = MaskedBatchNorm(4, epsilon=1e-5, bias=True).train()
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    real = torch.arange(20) < 12
    expected = F.batch_norm(x[:12], None, None, training=True)
    torch.testing.assert_close(norm(x, real)[:12], expected, atol=1e-5, rtol=1e-5)
    x[12:] = 1e6
    torch.testing.assert_close(norm(x, real)[:12], expected, atol=1e-5, rtol=1e-5)
    norm.eval()
    torch.testing.assert_close(norm(x, real)[:5], norm(x[:5], real[:5]))


def test_a_convolution_sees_its_neighbours_and_no_other_document() -> None:
    layout = layout_of([[3, 2]], 6)
    x = torch.arange(1.0, 7.0)[:, None]
    found = with_neighbours(x, layout, 3)
    assert found[:5].tolist() == [[0, 1, 2], [1, 2, 3], [2, 3, 0], [0, 4, 5], [4, 5, 0]]
    # The same as PyTorch's own convolution over one document.
    weight = torch.randn(5, 1, 3, generator=torch.Generator().manual_seed(0))
    expected = F.conv1d(x[:3].T[None], weight, padding=1)[0].T
    torch.testing.assert_close(found[:3] @ weight[:, 0].T, expected)


def test_experts_are_the_weighted_answers_of_the_best_and_balance_is_one_when_alike() -> None:
    torch.manual_seed(0)
    experts = Experts(8, 16, 4, 2, activation="gelu", bias=True)
    x, real = torch.randn(50, 8), torch.arange(50) < 40
    found, balance = experts(x, real)
    scores = experts.router(x)
    for token in (0, 17, 39):
        best = scores[token].topk(2)
        answers = [experts.experts[int(number)](x[token][None])[0] for number in best.indices]
        expected = sum(weight * answer for weight, answer in zip(torch.softmax(best.values, 0), answers))
        torch.testing.assert_close(found[token], expected, atol=1e-5, rtol=1e-5)
    assert (found[40:] == 0).all() and balance >= 0.5
    with torch.no_grad():
        experts.router.weight.zero_()
        experts.router.weight[2] = 5 * x[:40].mean(0)
    assert experts(x[:40].abs() * x[:40].mean(0).sign(), real[:40])[1] > 1.5


def test_the_balance_reaches_the_output_and_the_router() -> None:
    model = tiny_model(experts=3).train()
    objective = Masked(MaskedConfig(share=0.5), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))
    batch = objective.prepare(batch_of([documents_of([16, 16])], 32), np.random.default_rng(0), 0.0)
    output = model(batch)
    assert output.balance is not None
    output.balance.backward()
    assert model.encoder.blocks[0].mlp.router.weight.grad.abs().max() > 0  # type: ignore[union-attr]


def test_halving_averages_pairs_after_the_first_and_spreads_back() -> None:
    layout = layout_of([[5, 4], [1]], 10)
    x = torch.arange(20.0)[:, None]
    half, shorter = halved(x, layout)
    assert shorter.lengths.tolist() == [3, 3, 1] and shorter.rows == 2
    values = [half[start : start + size, 0].tolist() for start, size in zip(shorter.starts, shorter.lengths)]
    assert values == [[0.0, 1.5, 3.5], [5.0, 6.5, 8.0], [10.0]]
    assert spread(half, layout, 1)[:11, 0].tolist() == [0, 1.5, 1.5, 3.5, 3.5, 5, 6.5, 6.5, 8, 0, 10]


def test_shared_blocks_are_one_and_used_in_groups() -> None:
    config = TransformerConfig(width=32, heads=2, depth=6, distinct_blocks=2, max_length=8, positions="none")
    encoder = Transformer(config).eval()
    assert len(encoder.blocks) == 2
    used = []
    for number, block in enumerate(encoder.blocks):
        block.register_forward_hook(lambda *_, number=number: used.append(number))
    layout = layout_of([[8]], 8)
    encoder(States(torch.randn(8, 32), layout))
    assert used == [0, 0, 0, 1, 1, 1]


def test_a_skipped_branch_is_skipped_for_a_whole_document() -> None:
    model = tiny_model(depth_drop_rate=0.9, depth=1, norm_place="post", positions="none").train()
    model.encoder.blocks[0].attention_norm = torch.nn.Identity()
    model.encoder.blocks[0].mlp_norm = torch.nn.Identity()
    documents = documents_of([4, 6, 5])
    batch = batch_of([documents], 16)
    torch.manual_seed(1)
    entered = model.encoder.input_norm(model.frontend(batch).vectors)
    kept = []
    for _ in range(30):
        changed = (model.encode(batch).vectors - entered).abs().amax(-1) > 1e-6
        spans = [changed[start : start + size] for start, size in zip(batch.layout.starts, batch.layout.lengths)]
        assert all(bool(span.all()) or not bool(span.any()) for span in spans)
        kept += [bool(span.any()) for span in spans]
    assert 2 < sum(kept) < 45


def test_a_scaled_residual_and_a_scaled_layer_are_the_formula() -> None:
    model = tiny_model(depth=1, residual_scale=1.5, layer_scale=0.2, norm_place="both", positions="none")
    block = model.encoder.blocks[0]
    batch = batch_of([documents_of([8])], 8)
    run = Pass(batch.layout, batch.layout.document >= 0)
    with torch.inference_mode():
        x = model.encoder.input_norm(model.frontend(batch).vectors)
        x = 1.5 * x + block.attention_scale * block.attention_end_norm(  # type: ignore[operator]
            block.attention(block.attention_norm(x), run, Pattern())  # type: ignore[operator]
        )
        x = 1.5 * x + block.mlp_scale * block.mlp_end_norm(block.mlp(block.mlp_norm(x)))  # type: ignore[operator]
        torch.testing.assert_close(model.encode(batch).vectors, model.encoder.output_norm(x))


@pytest.mark.parametrize("cell", ["rnn", "gru", "lstm"])
def test_a_recurrent_layer_is_pytorchs_own_on_each_document(cell: str) -> None:
    model = tiny_model(kind="recurrent", cell=cell, depth=1, hidden_width=24)
    block = model.encoder.blocks[0]
    documents = documents_of([9, 3, 12])
    batch = batch_of([documents[:2], documents[2:]], 16)
    with torch.inference_mode():
        entered = model.encoder.input_norm(model.frontend(batch).vectors)
        found = model.encode(batch).vectors
        for start, size in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
            x = entered[start : start + size]
            expected = x + block.project(block.cell(block.norm(x)[None])[0][0])  # type: ignore[operator]
            expected = model.encoder.output_norm(expected)
            torch.testing.assert_close(found[start : start + size], expected, atol=1e-5, rtol=1e-5)
