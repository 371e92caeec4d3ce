"""The promises of the house: what must hold for every pattern, position, norm, pooling and kernel."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import Batch, Layout, layout_of
from encodery.bricks.layers import RMSNorm
from encodery.bricks.positions import Rotary
from encodery.encoders import kernels
from encodery.encoders.patterns import Pattern
from encodery.heads.replaced import ReplacedReadout
from encodery.model import Model, without_companions
from encodery.objectives.distil import Distil, DistilConfig
from encodery.objectives.masked import Masked, MaskedConfig
from encodery.objectives.reconstruct import Autoencode, AutoencodeConfig
from encodery.objectives.replaced import Replaced, ReplacedConfig
from encodery.objectives.several import Several
from encodery.objectives.supervised import Supervised, SupervisedConfig
from options import NAMED

PATTERNS: list[dict[str, Any]] = [
    {"pattern": "full"},
    {"pattern": "causal"},
    {"pattern": "window", "window": 3},
    {"pattern": "window", "window": 2, "global_every": 2},
]
POSITIONS = ["none", "sinusoidal", "learned", "rotary"]
SHAPES: list[dict[str, Any]] = [
    {"norm": norm, "norm_place": place, "activation": activation, "bias": bias}
    for (norm, place), (activation, bias) in product(
        product(["layernorm", "rmsnorm"], ["pre", "post"]),
        [("relu", True), ("gelu", True), ("silu", False), ("geglu", True), ("swiglu", False)],
    )
]
HIERARCHICAL: list[dict[str, Any]] = [
    {"kind": "hierarchical", "style": "han", "segment": 4},
    {"kind": "hierarchical", "style": "han", "segment": 5, "words": "recurrent", "segments": "recurrent"},
    {"kind": "hierarchical", "style": "han", "segment": 4, "words": "recurrent", "cell": "lstm", "segment_depth": 2},
    {"kind": "hierarchical", "style": "han", "segment": 7, "segments": "recurrent", "positions": "relative"},
    {"kind": "hierarchical", "segment": 4, "cross_every": 1},
    {"kind": "hierarchical", "segment": 4, "cross_every": 2, "depth": 3, "positions": "alibi", "norm": "rmsnorm"},
    {"kind": "hierarchical", "segment": 6, "positions": "relative", "activation": "swiglu"},
    {"kind": "hierarchical", "segment": 5, "cross_every": 1, "positions": "none"},
    {"kind": "hierarchical", "segment": 6, "cross_every": 1, "segment_at": "sentences"},
    {"kind": "hierarchical", "style": "han", "segment": 5, "words": "recurrent", "segment_at": "sentences"},
]
OPTIONS: list[dict[str, Any]] = [
    {"pattern": "dilated", "window": 2, "dilation": 3},
    {"pattern": "block", "block": 4},
    {"pattern": "random", "window": 1, "block": 4, "random_blocks": 1},
    {"pattern": "window", "window": 1, "global_tokens": 2},
    {"pattern": "dilated", "window": 1, "dilation": 2, "global_tokens": 1, "positions": "alibi"},
    {"pattern": "window", "window": 3, "global_every": 2, "rotary_base_local": 100.0},
    *({"positions": positions} for positions in ("random", "alibi", "relative", "disentangled")),
    {"positions": "alibi", "pattern": "window", "window": 3, "heads": 8},
    {"positions": "relative", "pattern": "random", "window": 1, "block": 4, "relative_buckets": 8, "relative_reach": 9},
    {
        "positions": "disentangled",
        "share_position_keys": False,
        "distance_norm": False,
        "relative_buckets": 4,
        "relative_reach": 12,
    },
    {"positions": "disentangled", "disentangled": ["position_content"], "relative_buckets": 16, "relative_reach": 16},
    {"positions": "learned", "position_start": 2, "position_shift": 5},
    {"rotary_share": 0.5, "rotary_stretch": 4.0, "head_width": 12},
    {"norm": "batchnorm"},
    {"norm": "batchnorm", "norm_place": "both"},
    {"norm_place": "both", "layer_scale": 0.1, "residual_scale": 1.5},
    {"input_norm": False, "first_norm": False, "norm_bias": False, "score_scale": False},
    {"qk_norm": True, "kv_heads": 2},
    {"kv_heads": 1, "head_width": 6, "value_width": 10},
    {"head_width": 10, "value_width": 6, "bias": False},
    {"score": "additive", "positions": "relative"},
    {"score": "additive", "positions": "none", "kv_heads": 2},
    {"mlp_kernel": 3},
    {"mlp_kernel": 5, "activation": "swiglu", "norm_place": "post"},
    {"experts": 3},
    {"experts": 3, "experts_per_token": 1, "activation": "geglu"},
    {"distinct_blocks": 1, "depth": 3},
    {"halve_after": [1], "depth": 3},
    {"halve_after": [1, 2], "depth": 3, "positions": "learned"},
    {"activation": "gelu_tanh", "depth_drop_rate": 0.2},
    {"fusion": {"entities": 12, "width": 24, "after": [1, 2]}},
    {"fusion": {"entities": 12, "width": 10, "heads": 0, "inner_width": 20}, "norm_place": "post"},
    {"fusion": {"entities": 12, "width": 8, "heads": 2, "activation": "relu"}, "norm_place": "both", "norm": "rmsnorm"},
    {"fusion": {"entities": 12, "width": 16, "after": [1, 3]}, "depth": 3, "norm": "batchnorm", "distinct_blocks": 1},
    {"kind": "recurrent"},
    {"kind": "recurrent", "cell": "gru", "directions": "forward", "hidden_width": 20},
    {"kind": "recurrent", "cell": "rnn", "residual": False, "norm": "rmsnorm"},
    *HIERARCHICAL,
]
ENCODERS = [{**pattern, "positions": positions} for pattern, positions in product(PATTERNS, POSITIONS)]
ENCODERS += SHAPES + OPTIONS
FRONTENDS: list[dict[str, Any]] = [
    {"width": 12},
    {"segments": 0},
    {"embedding": "hashed", "hash_rows": 16, "hashes": 3, "hash_weights": 20},
    {"embedding": "hashed", "hashes": 1, "width": 12},
    {"embedding": "characters", "ngram_lengths": [1, 3], "ngram_rows": 64},
    {"embedding": "characters", "character_model": "convolution", "character_kernels": [1, 3], "character_filters": 3},
    {"embedding": "characters", "character_model": "convolution", "highway_layers": 0, "character_rows": 19},
    {"embedding": "static", "vectors": {"path": "vectors.txt", "rows": 20}},
    {"embedding": "static", "vectors": {"path": "vectors.txt", "rows": 20, "tune": False}, "width": 12},
]
ENCODERS += [{"frontend": frontend} for frontend in FRONTENDS]
ENCODERS += [changes for changes in NAMED.values() if changes not in ENCODERS]
POOLINGS = ["first", "mean", "weighted", "max", "attention"]
LENGTHS = [13, 4, 1, 9, 16, 7, 2, 11]


def named(encoder: dict[str, Any]) -> str:
    return "-".join(f"{key}={value}" for key, value in encoder.items())


every_encoder = pytest.mark.parametrize("encoder", ENCODERS, ids=named)


def answers(model: Model, batch: Batch) -> list[torch.Tensor]:
    """Vectors of each document, in order."""
    with torch.inference_mode():
        vectors = model.encode(batch).vectors
    layout = batch.layout
    return [vectors[start : start + size] for start, size in zip(layout.starts.tolist(), layout.lengths.tolist())]


def packed(documents: list[np.ndarray], length: int = 32) -> Batch:
    """Documents into rows, first fit in order."""
    rows: list[list[np.ndarray]] = [[]]
    for ids in documents:
        if sum(other.size for other in rows[-1]) + ids.size > length:
            rows.append([])
        rows[-1].append(ids)
    return batch_of(rows, length)


@every_encoder
def test_packed_equals_padded(encoder: dict[str, Any]) -> None:
    """Row 4 of the complaints: documents that share a row never see each other."""
    model, documents = tiny_model(**encoder), documents_of(LENGTHS)
    together = answers(model, packed(documents))
    alone = answers(model, batch_of([[ids] for ids in documents], 32))
    for ids, one, other in zip(documents, together, alone):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-5)
        # Alone in a batch without any padding at all.
        (bare,) = answers(model, batch_of([[ids]], ids.size))
        torch.testing.assert_close(one, bare, atol=1e-5, rtol=1e-5)


@every_encoder
def test_a_neighbour_never_changes_me(encoder: dict[str, Any]) -> None:
    """Rows 4, 5 and 23: in the same shapes other documents leave every bit of mine as it is."""
    model, documents = tiny_model(**encoder), documents_of(LENGTHS)
    others = documents_of(LENGTHS, seed=9)
    others[3] = documents[3]
    assert not np.array_equal(others[2], documents[2])
    mine, again = answers(model, packed(documents))[3], answers(model, packed(others))[3]
    assert torch.equal(mine, again)
    # Neither do more neighbours, nor padding of another kind.
    layout_alone = answers(model, batch_of([[], [documents[3]], []], 32, pad_id=7))[0]
    torch.testing.assert_close(mine, layout_alone, atol=2e-6, rtol=1e-6)


@every_encoder
def test_permuting_documents_permutes_the_answers(encoder: dict[str, Any]) -> None:
    model, documents = tiny_model(**encoder), documents_of(LENGTHS)
    order = np.random.default_rng(3).permutation(len(documents))
    straight = answers(model, packed(documents))
    permuted = answers(model, packed([documents[place] for place in order]))
    for place, vector in zip(order, permuted):
        torch.testing.assert_close(vector, straight[place], atol=1e-5, rtol=1e-5)


@every_encoder
def test_every_parameter_gets_a_gradient(encoder: dict[str, Any]) -> None:
    """No parameter is left out. Only a bias of keys alone would have none, and queries, keys and values share one."""
    model = tiny_model(**encoder).train()
    objective = Masked(MaskedConfig(share=0.5), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))
    # Enough tokens that each of some experts gets one.
    documents = documents_of(LENGTHS * (8 if "experts" in encoder else 1))
    batch = objective.prepare(packed(documents), np.random.default_rng(0), 0.0)
    objective.loss(model(batch), batch).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_every_parameter_of_a_document_readout_gets_a_gradient(pooling: str, hidden: bool) -> None:
    model = tiny_model(readout={"kind": "document", "pooling": pooling, "outputs": 3, "hidden": hidden}).train()
    batch = labelled(packed(documents_of(LENGTHS)), 3)
    objective = Supervised(SupervisedConfig(), labels=["a", "b", "c"])
    objective.loss(model(batch), batch).total.backward()
    for name, parameter in model.named_parameters():
        if name == "readout.pooling.score.bias":  # a softmax does not see what is added to all of its scores
            continue
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("ngrams", [0, 3])
@pytest.mark.parametrize("pooling", POOLINGS)
def test_document_answers_do_not_depend_on_neighbours(pooling: str, ngrams: int) -> None:
    """Rows 4 and 23, after the readout; a neighbour with huge scores would show in a softmax over the batch."""
    readout = {"kind": "document", "pooling": pooling, "outputs": 3, "ngrams": ngrams, "ngram_buckets": 512}
    model = tiny_model(readout=readout)
    with torch.no_grad():
        if pooling == "attention":
            model.readout.pooling.score.weight.mul_(400)  # type: ignore[union-attr]
    documents = documents_of(LENGTHS)
    with torch.inference_mode():
        together = model(packed(documents))
        for number, ids in enumerate(documents):
            alone = model(batch_of([[ids]], ids.size))
            torch.testing.assert_close(together.logits[number], alone.logits[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.vectors[number], alone.vectors[0], atol=1e-5, rtol=1e-5)


def labelled(batch: Batch, classes: int) -> Batch:
    label = torch.from_numpy(np.arange(batch.layout.documents) % classes)
    return Batch(batch.values, batch.layout, {**batch.truth, "label": label}, batch.uids, batch.parts)


@pytest.mark.parametrize("kernel", ["attend_plainly", "attend_fused", "attend_rows", "attend_documents"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize(
    "encoder", [*(ENCODERS[number] for number in (3, 7, 8, 14)), SHAPES[5], HIERARCHICAL[0], HIERARCHICAL[4]], ids=named
)
def test_padding_never_gives_nan(
    encoder: dict[str, Any], dtype: torch.dtype, kernel: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 5: rows of padding only, in forward and backward, for every pattern and kernel."""
    monkeypatch.setattr("encodery.encoders.attention.attend", getattr(kernels, kernel))
    model = tiny_model(**encoder).train()
    objective = Masked(MaskedConfig(share=0.5), vocab_size=50, mask_id=4, special_ids=frozenset(range(5)))
    (document,) = documents_of([9])
    for rows in ([[document], [], []], [[], [], []]):
        batch = objective.prepare(batch_of(rows, 16), np.random.default_rng(0), 0.0)
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective.loss(model(batch), batch)
            assert torch.isfinite(model.encode(batch).vectors).all()
        assert torch.isfinite(loss.total)
        loss.total.backward()
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        if not any(rows):
            assert int(loss.count) == 0 and float(loss.total.detach()) == 0.0


@pytest.mark.parametrize("pooling", POOLINGS)
def test_a_batch_without_documents_has_no_answers(pooling: str) -> None:
    model = tiny_model(readout={"kind": "document", "pooling": pooling, "outputs": 3})
    output = model(batch_of([[], []], 16))
    assert output.logits is not None and output.logits.shape == (0, 3)


def naive_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, rows: list[list[int]], pattern: Pattern):
    """softmax(Q K^T / sqrt(K)) V by loops over single numbers, in float64."""
    result = torch.zeros(v.shape, dtype=torch.float64)
    for b, sizes in enumerate(rows):
        begin = 0
        for size in sizes:
            for h in range(q.shape[1]):
                for t in range(size):
                    seen = [
                        s
                        for s in range(size)
                        if pattern.name == "full"
                        or (pattern.name == "causal" and s <= t)
                        or (pattern.name == "window" and abs(s - t) <= pattern.radius)
                    ]
                    query = q[b, h, begin + t].double()
                    scores = [float(query @ k[b, h, begin + s].double()) / math.sqrt(q.shape[-1]) for s in seen]
                    highest = max(scores)
                    weights = [math.exp(score - highest) for score in scores]
                    for s, weight in zip(seen, weights):
                        result[b, h, begin + t] += weight / sum(weights) * v[b, h, begin + s].double()
            begin += size
    return result


@pytest.mark.parametrize("pattern", [Pattern(), Pattern("causal"), Pattern("window", 2)], ids=lambda p: p.name)
def test_attention_is_attention_written_out(pattern: Pattern) -> None:
    rows = [[5, 3, 2], [10], [1, 4]]
    layout = layout_of(rows, 12)
    qkv = torch.randn(36, 3, 2, 8, generator=torch.Generator().manual_seed(0))
    q, k, v = (x.view(3, 12, 2, 8).transpose(1, 2) for x in qkv.unbind(1))
    expected = naive_attention(q, k, v, rows, pattern).transpose(1, 2).reshape(36, 16)
    real = (layout.document >= 0)[:, None]
    found = kernels.attend_plainly(qkv, kernels.Meeting(layout, pattern))
    torch.testing.assert_close((found * real).double(), expected, atol=1e-6, rtol=1e-5)


LAYOUTS = {
    "short rows": layout_of([[20, 30, 14], [64], [5], []], 64),
    "one row": layout_of([[100, 3, 1, 150]], 256),
    "a long document": layout_of([[700, 200], [1000]], 1024),
}
KERNELS = ["attend_rows", "attend_fused", "attend_documents", "attend_windows", "attend"]
SEEN = [Pattern(), Pattern("causal"), Pattern("window", 3), Pattern("window", 16)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("pattern", SEEN, ids=lambda p: f"{p.name} {p.radius}")
@pytest.mark.parametrize("turned", [True, False], ids=["rotary", "plain"])
@pytest.mark.parametrize("norm", [None, nn.LayerNorm, RMSNorm], ids=["no norms", "layernorm", "rmsnorm"])
def test_every_kernel_gives_the_plain_numbers(
    kernel: str, layout: Layout, pattern: Pattern, turned: bool, norm: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the plain gradients, on every layout, in float32 and within bf16's own rounding."""
    if kernel == "attend_windows" and pattern.name != "window":
        pytest.skip("the other patterns are no windows")
    monkeypatch.setattr(kernels, "SCORES_UP_TO", 500)  # two of the long documents go block by block
    generator = torch.Generator().manual_seed(1)
    qkv = torch.randn(layout.positions, 3, 2, 8, generator=generator)
    real = (layout.document >= 0)[:, None]
    cosine, sine = Rotary(1024, 8).angles(layout.position, torch.float32)
    seen = torch.randn(layout.positions, 16, generator=generator) * real
    norms = None if norm is None else (norm(8), norm(8))
    learned = [] if norms is None else [weight for one in norms for weight in one.parameters()]
    for weight in learned:
        nn.init.normal_(weight, 1.0, 0.2, generator=generator)

    def result(name: str, dtype: torch.dtype) -> list[torch.Tensor]:
        given = qkv.to(dtype).requires_grad_()
        angles = (cosine.to(dtype), sine.to(dtype)) if turned else None
        meeting = kernels.Meeting(replace(layout, masks={}), pattern, angles, norms=norms)
        mixed = getattr(kernels, name)(given, meeting)
        assert mixed.dtype == dtype
        gradient, *to_norms = torch.autograd.grad(mixed, [given, *learned], seen.to(dtype))
        return [(mixed * real).float().detach(), gradient.float(), *to_norms]

    plain = result("attend_plainly", torch.float32)
    for number, (found, expected) in enumerate(zip(result(kernel, torch.float32), plain, strict=True)):
        # Gradients of the norms are sums over up to 2,048 positions, some of them of what cancels out.
        torch.testing.assert_close(found, expected, atol=1e-5 if number < 2 else 2e-4, rtol=1e-5)
    # Moving all keys alike changes nothing, so in bf16 a norm's gradient may be rounding alone.
    near = 6e-2 if norms is None else 1e-1
    for found, expected in zip(result(kernel, torch.bfloat16)[:2], plain[:2], strict=True):
        torch.testing.assert_close(found, expected, atol=near, rtol=near)


@every_encoder
def test_save_load_save_is_identical(encoder: dict[str, Any]) -> None:
    """The same config and weights make the same model: no state hides outside of the weights."""
    model, batch = tiny_model(**encoder), packed(documents_of(LENGTHS))
    twin = Model(type(model.config).model_validate(model.config.model_dump(mode="json"))).initialise(77).eval()
    twin.load_state_dict({name: value.clone() for name, value in model.state_dict().items()})
    assert all(torch.equal(one, other) for one, other in zip(answers(model, batch), answers(twin, batch)))


def test_scoring_first_does_not_spoil_training(monkeypatch: pytest.MonkeyPatch) -> None:
    """A batch that was scored under inference mode keeps its masks; a training step may use them."""
    monkeypatch.setattr(kernels, "ROWS_UP_TO", 0)
    model, batch = tiny_model(), labelled(packed(documents_of(LENGTHS)), 2)
    with torch.inference_mode():
        model.encode(batch)
    model.encode(batch).vectors.sum().backward()


def test_dropout_in_a_long_document_has_the_gradient_of_what_was_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Scores that are made again for the gradient must drop the same weights again."""
    layout, generator = layout_of([[700]], 1024), torch.Generator().manual_seed(2)
    qkv = torch.randn(1024, 3, 2, 8, generator=generator, dtype=torch.float64)
    found = []
    for held in (False, True):
        monkeypatch.setattr(kernels, "SCORES_UP_TO", 10_000 if held else 100)
        monkeypatch.setattr(kernels, "QUERIES_AT_ONCE", 1024)
        given = qkv.clone().requires_grad_()
        torch.manual_seed(3)
        mixed = kernels.attend_documents(given, kernels.Meeting(layout, Pattern(), drop_rate=0.5))
        found.append((mixed.detach(), *torch.autograd.grad(mixed.square().sum(), given)))
    for one, other in zip(*found):
        torch.testing.assert_close(one, other)


def learning_objective(kind: str) -> Any:
    """An objective whose readout decides itself what the encoder reads."""
    given = {"vocab_size": 50, "mask_id": 4, "special_ids": frozenset(range(5))}
    if kind == "several":
        parts = [Masked(MaskedConfig(share=0.5), **given), learning_objective("tsdae"), learning_objective("tied")]
        return Several(parts, (1.0, 1.0, 1.0), ("a", "b", "c"))
    if kind in ("tsdae", "retromae"):
        return Autoencode(AutoencodeConfig(method=kind), **given)  # type: ignore[arg-type]
    if kind == "distil":
        teacher = tiny_model(seed=5, width=24, depth=3, readout={"kind": "vector"})
        return Distil(DistilConfig(teacher="t", match=("hidden", "vectors")), teacher)
    return Replaced(ReplacedConfig(share=0.5, sharing=kind), **given)  # type: ignore[arg-type]


every_learning = pytest.mark.parametrize(
    "kind", ["tied", "disentangled", "separate", "tsdae", "retromae", "distil", "several"]
)
LEARNERS: list[dict[str, Any]] = [{}, {"kind": "recurrent"}, {"positions": "disentangled"}, {"frontend": {"width": 12}}]


@every_learning
@pytest.mark.parametrize("encoder", LEARNERS, ids=named)
def test_every_parameter_of_what_teaches_the_encoder_gets_a_gradient(kind: str, encoder: dict[str, Any]) -> None:
    objective = learning_objective(kind)
    model = tiny_model(**encoder, readout=objective.readout().model_dump()).train()
    batch = objective.prepare(packed(documents_of(LENGTHS)), np.random.default_rng(0), 0.0)
    objective.loss(model(batch), batch).total.backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().max() > 0, name


@every_learning
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
def test_what_teaches_the_encoder_bears_padding(kind: str, dtype: torch.dtype) -> None:
    """Row 5, for objectives with a pass of their own; no text at all is no loss."""
    objective = learning_objective(kind)
    model = tiny_model(readout=objective.readout().model_dump()).train()
    (document,) = documents_of([9])
    for rows in ([[document], [], []], [[], [], []]):
        batch = objective.prepare(batch_of(rows, 16), np.random.default_rng(0), 0.0)
        model.zero_grad()
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            loss = objective.loss(model(batch), batch)
        loss.total.backward()
        assert torch.isfinite(loss.total)
        assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
        if not any(rows):
            assert int(loss.count) == 0 and float(loss.total.detach()) == 0.0


@every_learning
def test_what_is_kept_reads_as_what_was_learned(kind: str) -> None:
    """The encoder's vectors stay when what only taught it is thrown away; a disentangled table is settled first."""
    objective = learning_objective(kind)
    model = tiny_model(readout=objective.readout().model_dump()).eval()
    batch = packed(documents_of(LENGTHS))
    if isinstance(model.readout, ReplacedReadout) and model.readout.difference is not None:
        with torch.inference_mode():
            seen = model(batch).logits
        kept = without_companions(model)
        with torch.inference_mode():
            torch.testing.assert_close(kept(batch).logits, seen, atol=1e-5, rtol=1e-5)
    else:
        before = answers(model, batch)
        kept = without_companions(model)
        for one, other in zip(before, answers(kept, batch)):
            assert torch.equal(one, other)
    assert not [name for name, _ in kept.named_parameters() if "generator" in name or "decoder" in name]
