"""Vectors of entities fused into the words that name them: the aggregators of ERNIE (Zhang et al. 2019, section 3.3).

After chosen blocks of a Transformer a fusion layer brings together the vector x of each word and the vector e of the
entity that it names:

    e'     = e + Attention(e)                        the entities of a document look at each other      (equation 2)
    h      = act(W_t x + W_e e' + b)                 a word that names an entity                        (equation 3)
    h      = act(W_t x + b)                          all other words                                    (equation 4)
    x_next = x + W_o h + b_o                         both become what the next block reads
    e_next = e' + W_u h + b_u

The residual sums and the norms in front, which the paper leaves out, are those of the encoder's own blocks.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encodery.batch import Layout
from encodery.bricks.dropout import add_dropped
from encodery.bricks.layers import ACTIVATIONS, make_norm, normed
from encodery.bricks.products import Linear
from encodery.encoders.attention import Attention, Pass
from encodery.encoders.halving import shortened
from encodery.encoders.options import FusionConfig, TransformerConfig
from encodery.encoders.pattern_rules import Pattern


@dataclass
class Named:
    """The entities of a batch on their way through the encoder, at Q positions of a layout of their own.

    `vectors` (Q, W) belong to the words at the flat positions `source` (Q,), -1 for padding; `place` (P,) is where the
    entity of each word stands among them, -1 for none.
    """

    vectors: Tensor
    layout: Layout
    source: Tensor
    place: Tensor


class Fusion(nn.Module):
    """The entity side of an encoder: a table with a vector for each entity, and a fusion layer after chosen blocks."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        assert config.fusion is not None, "the encoder has no fusion"
        assert config.fusion.entities is not None, "the number of entities must be known before the model is built"
        self.after = config.fused_after
        self.entities = nn.Embedding(config.fusion.entities, config.fusion.width)
        self.entities.weight.requires_grad_(not config.fusion.frozen)
        last = len(self.after) - 1
        self.layers = nn.ModuleList(
            FusionLayer(config, config.fusion, goes_on=number < last) for number in range(last + 1)
        )

    def begin(self, entity_P: Tensor | None, layout: Layout, dtype: torch.dtype) -> Named | None:
        """Look up the entities that the words name: `entity` (P,) numbers them from 1, 0 for none."""
        if entity_P is None:
            return None
        flat = torch.nonzero((entity_P > 0) & (layout.document >= 0)).flatten()
        document = layout.document[flat]
        counts = torch.bincount(document, minlength=layout.documents)
        own = shortened(layout, counts, layout.length)
        first = torch.cumsum(counts, 0) - counts
        among = own.starts[document] + torch.arange(len(flat), device=flat.device) - first[document]
        place = torch.full_like(entity_P, -1).index_copy(0, flat, among)
        source = flat.new_full((own.positions,), -1).index_copy(0, among, flat)
        number_Q = entity_P[source.clamp_min(0)] - 1
        vectors = self.entities(number_Q.clamp_min(0)) * (source >= 0)[:, None]
        return Named(vectors.to(dtype), own, source, place)

    def forward(self, block: int, x_PD: Tensor, named: Named | None, real: Tensor, at: Tensor | None = None) -> Tensor:
        """What comes out of a block, counted from 1, as the next one reads it. With `at` (M,), `x` and what comes out
        are the vectors of these positions alone. `named` goes on to its next vectors."""
        if block not in self.after:
            return x_PD
        return self.layers[self.after.index(block)](x_PD, named, real, at)


class FusionLayer(nn.Module):
    """The equations above: vectors of words (P, D) and of entities (Q, W) to those of words, (P, D). Entities that do
    not go on to another layer keep what they have."""

    def __init__(self, config: TransformerConfig, fusion: FusionConfig, *, goes_on: bool) -> None:
        super().__init__()
        self.config = config
        bias = config.biased_norms
        inner = fusion.inner_width or config.width

        def norm(width: int, name: str = config.norm) -> nn.Module:
            return make_norm(name, width, epsilon=config.norm_epsilon, bias=bias)  # type: ignore[arg-type]

        # Statistics over the few entities of a batch would mean little: their norms look at one vector at a time.
        own = "layernorm" if config.norm == "batchnorm" else config.norm
        self.norm = norm(config.width)
        self.end_norm = norm(config.width) if config.norm_place == "both" else None
        self.entity_norm = norm(fusion.width, own)
        self.attention_norm = norm(fusion.width, own) if fusion.heads else None
        self.attention = Attention(_among_entities(config, fusion)) if fusion.heads else None
        self.word = Linear(config.width, inner, bias=config.bias)
        self.entity = Linear(fusion.width, inner, bias=False)
        self.activation = ACTIVATIONS[fusion.activation]
        self.outer = Linear(inner, config.width, bias=config.bias)
        self.entity_outer = Linear(inner, fusion.width, bias=config.bias) if goes_on else None

    def forward(self, x_PD: Tensor, named: Named | None, real: Tensor, at: Tensor | None) -> Tensor:
        config = self.config
        post = config.norm_place == "post"
        h_PI = self.word(x_PD if post else normed(self.norm, x_PD, real))
        if named is not None:
            entity_QI = self.entity(self._among_themselves(named).to(h_PI.dtype))
            place = named.place if at is None else named.place[at]
            h_PI = h_PI + torch.cat([entity_QI.new_zeros(1, entity_QI.shape[1]), entity_QI])[place + 1]
        h_PI = self.activation(h_PI)
        if named is not None and self.entity_outer is not None:
            there = (named.source >= 0)[:, None]
            change_QW = self.entity_outer(h_PI[named.source.clamp_min(0)]) * there
            named.vectors = add_dropped(named.vectors, change_QW, config.drop_rate, self.training)
        change = self.outer(h_PI)
        if self.end_norm is not None:
            change = normed(self.end_norm, change, real)
        after = add_dropped(x_PD, change, config.drop_rate, self.training)
        return normed(self.norm, after, real) if post else after

    def _among_themselves(self, named: Named) -> Tensor:
        """Equation 2, and the norm in front of W_e."""
        if self.attention is not None and self.attention_norm is not None:
            run = Pass(named.layout, named.layout.document >= 0)
            change_QW = self.attention(self.attention_norm(named.vectors), run, Pattern("full"))
            named.vectors = add_dropped(named.vectors, change_QW, self.config.drop_rate, self.training)
        return self.entity_norm(named.vectors)


def _among_entities(config: TransformerConfig, fusion: FusionConfig) -> TransformerConfig:
    """How the entities of a document look at each other: all at all, wherever they stand."""
    return TransformerConfig(
        width=fusion.width,
        depth=1,
        heads=fusion.heads,
        max_length=config.max_length,
        positions="none",
        bias=config.bias,
        qk_norm=config.qk_norm,
        attention_drop_rate=config.attention_drop_rate,
    )


def fusion_costs(fusion: Fusion) -> list[tuple[str, int, float]]:
    """Name, parameters and forward FLOPs per token of the entities' table and of each layer. What is done for entities
    alone is left out: they are few beside the words."""
    rows = [("entities", fusion.entities.weight.numel(), 0.0)]
    for block, layer in zip(fusion.after, fusion.layers):
        assert isinstance(layer, FusionLayer)
        matrices = layer.word.weight.numel() + layer.outer.weight.numel()
        parameters = sum(parameter.numel() for parameter in layer.parameters())
        rows.append((f"fusion after block {block}", parameters, 2.0 * matrices))
    return rows
