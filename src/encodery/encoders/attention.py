"""Multi-head self-attention over a ragged batch: the one Attention of the project.

    Attention(Q, K, V) = softmax(Q K^T / sqrt(K)) V            ("Attention Is All You Need", equation 1)

How equation 1 is computed fastest depends on the layout and the machine: kernels.py. Scores of other kinds take the
plain road of scores.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Layout, States
from encodery.bricks.layers import make_norm
from encodery.bricks.positions import Angles, rotate
from encodery.bricks.products import Linear, linear
from encodery.bricks.relative import AdditiveScore, LogBuckets, OnceBias, disentangled_scores
from encodery.encoders.kernels import Meeting, attend
from encodery.encoders.options import TransformerConfig
from encodery.encoders.past import Past
from encodery.encoders.pattern_rules import Pattern
from encodery.encoders.scores import Score, attend_by_scores, dot_score
from encodery.encoders.source import HeldSource
from encodery.encoders.watch import Watch


@dataclass
class Pass:
    """What all blocks of one forward pass share: the layout, what is known about positions, and what is collected.

    `angles` are those of blocks that look at whole documents, `near_angles` those of the others. `distances` (2R, D)
    are the vectors of DeBERTa's distances. `balance` takes how unevenly each block used its experts. `past` is what was
    read before, where texts go on; `source` what a decoder looks at beside its own text.
    """

    layout: Layout
    real: Tensor
    angles: Angles | None = None
    near_angles: Angles | None = None
    distance_bias: OnceBias | None = None
    distances: Tensor | None = None
    watch: Watch | None = None
    balance: list[Tensor] = field(default_factory=list)
    past: Past | None = None
    source: States | HeldSource | None = None


class Attention(nn.Module):
    """Multi-head self-attention: (P, D) -> (P, D) ("Attention Is All You Need", section 3.2.2).

    Queries, keys and values come from one product, H heads of queries and G of keys and values. Whether the batch is
    padded or packed is a matter of the layout, who may look at whom of the pattern.
    """

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        self.heads, self.kv_heads = config.heads, config.kv_heads or config.heads
        self.key_width = config.key_width
        self.value_width = config.value_width or config.key_width
        self.drop_rate = config.attention_drop_rate
        sizes = [self.heads * self.key_width, self.kv_heads * self.key_width, self.kv_heads * self.value_width]
        self.sizes = sizes
        self.qkv = Linear(config.width, sum(sizes), bias=config.bias)
        self.outer = Linear(self.heads * self.value_width, config.width, bias=config.bias)
        self.query_norm = self._norm() if config.qk_norm else None
        self.key_norm = self._norm() if config.qk_norm else None
        self.additive = AdditiveScore(self.heads, self.key_width) if config.score == "additive" else None
        self.position_keys: nn.Module | None = None
        self.position_queries: nn.Module | None = None
        self.attend: Callable[[Tensor, Meeting], Tensor] = attend
        self.buckets = LogBuckets(config.relative_buckets, config.relative_reach)
        if config.positions == "disentangled" and not config.share_position_keys:
            if "content_position" in config.disentangled:
                self.position_keys = Linear(config.width, sizes[0])
            if "position_content" in config.disentangled:
                self.position_queries = Linear(config.width, sizes[0])

    def forward(
        self,
        x_PD: Tensor,
        run: Pass,
        pattern: Pattern,
        *,
        far: bool = True,
        at: Tensor | None = None,
        layer: int = 0,
    ) -> Tensor:
        """With `at` (M,) the answers of these positions alone: (M, D). `far` blocks look at whole documents. `layer` is
        the place in the stack, by which the past of a pass is kept."""
        drop_rate = self.drop_rate if self.training else 0.0
        angles = run.angles if far else run.near_angles
        qkv = self.qkv(x_PD)
        if run.past is not None:
            mixed_PD = self._onward(qkv, run, run.past, angles, layer)
        elif self._simple(run) and (angles is None or angles[0].shape[-1] == self.key_width):
            qkv_P3HK = qkv.view(x_PD.shape[0], 3, self.heads, self.key_width)
            norms = None
            if self.query_norm is not None and self.key_norm is not None:
                norms = self.query_norm, self.key_norm
            meeting = Meeting(run.layout, pattern, angles, drop_rate, run.distance_bias, norms)
            mixed_PD = self.attend(qkv_P3HK, meeting)
        else:
            mixed_PD = self._general(qkv, run, pattern, angles, drop_rate)
        return self.outer(mixed_PD if at is None else mixed_PD[at])

    def _simple(self, run: Pass) -> bool:
        """Whether queries, keys and values have the same shape and meet as in equation 1."""
        config = self.config
        same = self.kv_heads == self.heads and self.value_width == self.key_width
        as_written = self.additive is None and run.distances is None and run.watch is None
        return same and as_written and config.score_scale

    def _general(self, qkv: Tensor, run: Pass, pattern: Pattern, angles: Angles | None, drop_rate: float) -> Tensor:
        """All options, brought to the form that the kernels know where that can be done."""
        P = qkv.shape[0]
        q, k, v = self._parts(qkv, angles)
        # Each head of keys and values serves H / G heads of queries, which stand side by side.
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        if self.additive is not None or run.distances is not None or run.watch is not None:
            weights: list[Tensor] | None = None
            if run.watch is not None:
                weights = []
                run.watch.weights.append(weights)
            mixed_PD = attend_by_scores(q, k, v, run.layout, pattern, self._score(run), drop_rate, weights)
            if weights and run.watch is not None and not run.watch.live:
                weights[:] = [weight.detach() for weight in weights]
            return mixed_PD
        wide = max(self.key_width, self.value_width)
        # Zeros at the end of queries and keys change no product, but the kernels divide by the root of the width.
        q = q * math.sqrt(wide / self.key_width) if wide != self.key_width else q
        stacked = torch.stack([F.pad(x, (0, wide - x.shape[-1])) for x in (q, k, v)], dim=1)
        meeting = Meeting(run.layout, pattern, drop_rate=drop_rate, distance_bias=run.distance_bias)
        mixed_PD = self.attend(stacked, meeting)
        if wide == self.value_width:
            return mixed_PD
        return mixed_PD.view(P, self.heads, wide)[..., : self.value_width].flatten(1)

    def _norm(self) -> nn.Module:
        config = self.config
        name = "rmsnorm" if config.norm == "rmsnorm" else "layernorm"
        return make_norm(name, self.key_width, epsilon=config.norm_epsilon, bias=config.biased_norms)

    def _parts(self, qkv: Tensor, angles: Angles | None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries (P, H, K), keys (P, G, K) and values (P, G, own width), normed, turned and scaled as they meet."""
        P = qkv.shape[0]
        q, k, v = qkv.split(self.sizes, dim=-1)
        q = q.view(P, self.heads, self.key_width)
        k = k.view(P, self.kv_heads, self.key_width)
        v = v.view(P, self.kv_heads, self.value_width)
        if self.query_norm is not None and self.key_norm is not None:
            q, k = self.query_norm(q).to(v.dtype), self.key_norm(k).to(v.dtype)
        if angles is not None:
            q, k = _turned_in_part(q, angles), _turned_in_part(k, angles)
        return (q if self.config.score_scale else q * math.sqrt(self.key_width)), k, v

    def _onward(self, qkv: Tensor, run: Pass, past: Past, angles: Angles | None, layer: int) -> Tensor:
        """The next T tokens of N texts, (N * T, ...): each sees what was read before, itself and those before it."""
        q, k, v = (x.view(past.rows, -1, *x.shape[1:]).transpose(1, 2) for x in self._parts(qkv, angles))
        k, v = past.extended(layer, k, v)
        shared = self.heads // self.kv_heads
        k, v = k.repeat_interleave(shared, dim=1), v.repeat_interleave(shared, dim=1)
        score_NHQT = self._score(run)(q, k, past.length)
        share = torch.softmax(score_NHQT + past.bias(q.shape[2], k.shape[2], score_NHQT.dtype), dim=-1)
        return (share @ v).transpose(1, 2).reshape(len(qkv), -1)

    def _score(self, run: Pass) -> Score:
        if self.additive is not None:
            additive, bias = self.additive, run.distance_bias

            def score(q: Tensor, k: Tensor, first: int) -> Tensor:
                found = additive(q, k)
                if bias is None:
                    return found
                return found + bias.square(k.shape[-2], k.device)[:, first : first + q.shape[-2]].to(found.dtype)

            return score
        return dot_score(run.distance_bias) if run.distances is None else self._disentangled(run.distances)

    def _disentangled(self, distances_RD: Tensor) -> Score:
        config = self.config
        weights = self.qkv.weight.split(self.sizes)
        biases = self.qkv.bias.split(self.sizes) if config.bias else (None, None)
        as_keys = as_queries = None
        if "content_position" in config.disentangled:
            own = self.position_keys
            found = linear(distances_RD, weights[1], biases[1]) if own is None else own(distances_RD)
            as_keys = self._by_head(found)
        if "position_content" in config.disentangled:
            own = self.position_queries
            as_queries = self._by_head(
                linear(distances_RD, weights[0], biases[0]) if own is None else own(distances_RD)
            )
        scale = math.sqrt(self.key_width * (1 + len(config.disentangled)))

        def score(q: Tensor, k: Tensor, first: int) -> Tensor:
            place = torch.arange(k.shape[-2], device=k.device)
            bucket_QT = self.buckets(place[first : first + q.shape[-2], None] - place[None, :])
            return (q @ k.transpose(-1, -2) + disentangled_scores(q, k, as_keys, as_queries, bucket_QT)) / scale

        return score

    def _by_head(self, x: Tensor) -> Tensor:
        """(2R, H * K) -> (H, 2R, K)"""
        return x.view(len(x), self.heads, self.key_width).transpose(0, 1)


def _turned_in_part(x_PHK: Tensor, angles: Angles) -> Tensor:
    """Rotary positions on the first channels, as many as there are angles for."""
    turned = angles[0].shape[-1]
    if turned == x_PHK.shape[-1]:
        return rotate(x_PHK, *angles)
    return torch.cat([rotate(x_PHK[..., :turned], *angles), x_PHK[..., turned:]], dim=-1)
