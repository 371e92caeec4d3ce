"""A recurrent decoder that asks its source by additive attention (Bahdanau et al. 2015)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from encodery.batch import States
from encodery.bricks.dropout import dropout
from encodery.bricks.layers import initialise, make_norm
from encodery.bricks.products import Linear
from encodery.encoders.past import Past
from encodery.encoders.recurrent import Reading, Recurrent, RecurrentLayer
from encodery.encoders.source import DOCUMENTS_AT_ONCE, HeldSource, document_grid
from encodery.heads.decoding.options import ForwardRecurrentConfig


class AdditiveAttention(nn.Module):
    """`v . tanh(W s + U h)` for a state s of the target and each vector h of its source (Bahdanau et al. 2015, appendix
    A.1.2), and their mean weighted by the softmax of it: (P, D) -> (P, source width)."""

    def __init__(self, width: int, source_width: int) -> None:
        super().__init__()
        self.query = Linear(width, width)
        self.key = Linear(source_width, width, bias=False)
        self.vector = nn.Parameter(torch.empty(1, width))

    def forward(self, x_PD: Tensor, states: States, source: States) -> Tensor:
        """`states` holds the layout of the target."""
        q_PD, k_SD = self.query(x_PD), self.key(source.vectors)
        target = states.layout
        asked, asks = document_grid(target)
        seen, sees = document_grid(source.layout)
        found = source.vectors.new_zeros(target.positions, source.vectors.shape[-1])
        parts, places = [], []
        # Documents of like length together, each part as long as its longest.
        for some in torch.argsort(target.lengths, descending=True).split(DOCUMENTS_AT_ONCE):
            T, S = int(target.lengths[some].max()), int(source.layout.lengths[some].max())
            own, key = asked[some, :T], seen[some, :S]
            mixed = self._mixed(q_PD[own], k_SD[key], source.vectors[key], sees[some, :S])
            parts.append(mixed[asks[some, :T]])
            places.append(own[asks[some, :T]])
        return found.index_copy(0, torch.cat(places), torch.cat(parts).to(found.dtype)) if parts else found

    def held(self, x_RD: Tensor, source: HeldSource) -> Tensor:
        """For the next tokens of the texts of held sources, as many for each."""
        if "additive" not in source.kept:
            source.kept["additive"] = (self.key(source.vectors),)
        q = self.query(x_RD).view(len(source.real), -1, x_RD.shape[-1])
        return self._mixed(q, source.kept["additive"][0], source.vectors, source.real).flatten(0, 1)

    def _mixed(self, q_NTD: Tensor, k_NSD: Tensor, vectors_NSD: Tensor, real_NS: Tensor) -> Tensor:
        together = torch.tanh(q_NTD[:, :, None] + k_NSD[:, None])
        score = (together @ self.vector[0].to(together.dtype)).masked_fill(~real_NS[:, None], -torch.inf)
        return torch.softmax(score, dim=-1) @ vectors_NSD.to(score.dtype)


class AskingRecurrent(Recurrent):
    """States of the target and of the source -> States: the first layer reads what was written, its states ask the
    source, and the layers above read what they found beside them.

    In the paper the state that asks has also read what was found before. Here the layers above have: so all positions
    of a target are learned at once, as with the lowest layer that asks in Wu et al. 2016, section 3.
    """

    def __init__(self, config: ForwardRecurrentConfig, source_width: int, input_width: int) -> None:
        super().__init__(config, input_width)
        self.attention = AdditiveAttention(config.width, source_width)
        self.ask_norm = make_norm(config.norm, config.width, epsilon=config.norm_epsilon)
        self.meet = Linear(config.width + source_width, config.width)

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        for part in (self.attention, self.meet):
            initialise(part, std=0.05, depth=1, generator=generator)

    def forward(self, states: States, source: States | None = None) -> States:  # type: ignore[override]
        assert source is not None, "a decoder looks at a source"
        layout, x_PD = states.layout, self._entered(states.vectors)
        reading = Reading(layout)
        for number, block in enumerate(self.blocks):
            x_PD = block(x_PD, reading)
            if number == 0:
                x_PD = self._met(x_PD, self.attention(self.ask_norm(x_PD), states, source))
        return States(self.output_norm(x_PD), layout)

    def advance(self, x_PD: Tensor, past: Past, source: HeldSource | None = None) -> Tensor:
        assert source is not None, "a decoder looks at a source"
        x_PD = self._entered(x_PD)
        for number, block in enumerate(self.blocks):
            assert isinstance(block, RecurrentLayer)
            x_PD = block.advance(x_PD, past, number)
            if number == 0:
                x_PD = self._met(x_PD, self.attention.held(self.ask_norm(x_PD), source))
        past.length += len(x_PD) // past.rows
        return self.output_norm(x_PD)

    def _entered(self, x_PD: Tensor) -> Tensor:
        x_PD = dropout(self.input_norm(x_PD), self.config.drop_rate, self.training)
        return x_PD if self.widen is None else self.widen(x_PD)

    def _met(self, x_PD: Tensor, found: Tensor) -> Tensor:
        joined = torch.tanh(self.meet(torch.cat([x_PD, found.to(x_PD.dtype)], dim=-1)))
        return x_PD + dropout(joined, self.config.drop_rate, self.training)
