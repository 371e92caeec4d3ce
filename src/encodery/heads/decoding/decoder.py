"""The decoder: a causal stack that looks at the vectors of a source and says which token comes next."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.layers import initialise, make_norm, normed
from encodery.bricks.products import Linear, linear
from encodery.encoders.attention import Pass
from encodery.encoders.past import Past
from encodery.encoders.source import HeldSource, SourceAttention, document_grid, held_source, same_rows, source_bias
from encodery.encoders.transformer import Block, Transformer
from encodery.frontends.embeddings import LearnedTable
from encodery.frontends.text import TextFrontend
from encodery.heads.decoding.options import CausalTransformerConfig, DecoderConfig, ForwardRecurrentConfig
from encodery.heads.decoding.recurrent import AskingRecurrent

FIRST_GAIN = 0.5
"""What the last norm multiplies with at the start where the output matrix is a table of embeddings. With 1 the first
logits are so large that the loss begins at twice the entropy or more; after 60 steps on captions the surprise was 4.21
nats with 1, 4.06 with 0.5 and 4.38 with 0.3, of a recurrent decoder 6.43, 5.32 and 5.29."""


class DecoderBlock(Block):
    """A Transformer block with attention to the source between its halves (Vaswani et al. 2017, section 3.1)."""

    def __init__(self, config: CausalTransformerConfig, index: int, source_width: int) -> None:
        super().__init__(config, index)

        def norm() -> nn.Module:
            bias = config.biased_norms
            return make_norm(config.norm, config.width, epsilon=config.norm_epsilon, bias=bias)

        self.source_norm = norm()
        self.source_attention = SourceAttention(config, source_width)
        self.source_end_norm = norm() if self.both else None
        self.source_scale = None
        if config.layer_scale is not None:
            self.source_scale = nn.Parameter(torch.full((config.width,), config.layer_scale))

    def forward(self, x_PD: Tensor, run: Pass, layer: int, at: Tensor | None = None) -> Tensor:
        assert run.source is not None and at is None, "a decoder works for all positions and looks at a source"
        x, mixed = self.attended(x_PD, run, layer)
        seen = x if self.post else normed(self.source_norm, x, run.real)
        found = self.source_attention(seen, run.layout, run.source, layer)
        x = self.joined(x, found, self.source_end_norm, self.source_scale, run, layer)
        if self.post:
            x = normed(self.source_norm, x, run.real)
        return self.fed(x, mixed, run, layer)


class DecoderStack(Transformer):
    """A Transformer of such blocks: States of the target, with the States of the source beside them."""

    def __init__(self, config: CausalTransformerConfig, source_width: int, input_width: int) -> None:
        super().__init__(config, input_width)
        self.blocks = nn.ModuleList(DecoderBlock(config, index, source_width) for index in range(config.blocks))


@dataclass
class Writing:
    """Texts in the making: what was read of them, and the sources that they look at, each for as many texts."""

    past: Past
    source: HeldSource

    def chosen(self, rows: Tensor) -> Writing:
        """The texts `rows` (R,) in this order, each still of its own source."""
        return Writing(self.past.chosen(rows), self.source)

    def kept(self, sources: Tensor, rows: Tensor) -> Writing:
        """Some of the sources and of their texts."""
        return Writing(self.past.chosen(rows), self.source.chosen(sources))


class Decoder(nn.Module):
    """States of the source and the target of a batch -> logits of the next token at each of its positions, (P, V).

    In learning all positions of a target are read at once, each being told the tokens before it (teacher forcing). In
    writing, `begin` and `next` go on token by token.
    """

    def __init__(self, config: DecoderConfig, width: int, frontend: TextFrontend) -> None:
        super().__init__()
        assert config.stack is not None, "the stack is settled before the decoder is made"
        self.config = config
        stack = config.stack
        own = config.vocabulary == "own"
        self.vocab_size = (config.vocab_size or 0) if own else frontend.vocab_size
        assert self.vocab_size, "vocab_size must be known before the model is built"
        entering = stack.width if own else frontend.width
        self.words = LearnedTable(self.vocab_size, entering) if own else None
        self.stack: DecoderStack | AskingRecurrent
        if isinstance(stack, ForwardRecurrentConfig):
            self.stack = AskingRecurrent(stack, width, entering)
        else:
            self.stack = DecoderStack(stack, width, entering)
        self.narrow = Linear(stack.width, entering) if entering != stack.width else None
        self.matrix = None if config.tied else nn.Parameter(torch.empty(self.vocab_size, entering))
        self.bias = nn.Parameter(torch.zeros(self.vocab_size))
        self.pointer = Pointer(stack.width, width, entering) if config.pointer else None
        # Kept outside the module's parameters: they belong to the model.
        self._frontend = [frontend]

    @property
    def max_length(self) -> int:
        """Longest target in tokens, with the one that begins it."""
        assert self.config.stack is not None
        return self.config.stack.max_length

    @property
    def borrowed(self) -> int:
        """Numbers of the output matrix that belong to another part of the model."""
        shared = self.words is None and self.matrix is None
        return self.vocab_size * self._frontend[0].width if shared else 0

    def initialise(self, generator: torch.Generator) -> None:
        self.stack.initialise(generator)
        gain = getattr(self.stack.output_norm, "weight", None)
        if self.config.tied and gain is not None:
            nn.init.constant_(gain, FIRST_GAIN)
        for part in (self.narrow, self.pointer):
            if part is not None:
                initialise(part, std=0.02, depth=1, generator=generator)
        if self.words is not None:
            self.words.initialise(self.config.embedding_std, generator)
        if self.matrix is not None:
            with torch.no_grad():
                self.matrix.normal_(0.0, 0.02, generator=generator)
        nn.init.zeros_(self.bias)

    def forward(self, states: States, batch: Batch) -> Output:
        target = batch.target
        assert target is not None, "a decoder needs the target of a batch"
        embedded = self._embedded(target.values["ids"])
        found = self.stack(States(embedded, target.layout), source=states)
        copied = None
        if self.pointer is not None:
            ids = (target.truth["target"], batch.values["ids"])
            copied = self.pointer(found, embedded, states, *ids)
        return Output(logits=self._logits(found.vectors), balance=found.balance, copied=copied)

    def begin(self, states: States, ids_P: Tensor, texts: int = 1) -> Writing:
        """Nothing written yet, `texts` texts for each document of the source."""
        source = held_source(states, ids_P)
        return Writing(Past(texts * states.layout.documents, ids_P.device), source)

    def next(self, tokens_RT: Tensor, writing: Writing) -> Tensor:
        """Log-probabilities of what follows the next tokens (R, T) of each text: (R, V) float32. `writing` goes on."""
        embedded = self._embedded(tokens_RT.reshape(-1))
        x_PD = self.stack.advance(embedded, writing.past, writing.source)
        last = torch.arange(1, len(tokens_RT) + 1, device=x_PD.device) * tokens_RT.shape[1] - 1
        logits_RV = self._logits(x_PD[last]).float()
        if self.pointer is None:
            return torch.log_softmax(logits_RV, dim=-1)
        return self.pointer.mixed(logits_RV, x_PD[last], embedded[last], writing.source)

    def _embedded(self, ids: Tensor) -> Tensor:
        return (self._frontend[0].words if self.words is None else self.words)(ids)

    def _logits(self, x: Tensor) -> Tensor:
        if self.matrix is not None:
            matrix = self.matrix
        else:
            matrix = self._frontend[0].matrix() if self.words is None else self.words.matrix()
        return linear(x if self.narrow is None else self.narrow(x), matrix, self.bias)


class Pointer(nn.Module):
    """Words of the source, copied from where the decoder looks (See et al. 2017, equations 8 and 9).

    p(w) = g p_vocabulary(w) + (1 - g) sum of a(i) over the places i of the source that hold w, where a is attention
    with one head of its own, and g follows from what it found, from the decoder's state and from the token before.
    """

    def __init__(self, width: int, source_width: int, input_width: int) -> None:
        super().__init__()
        self.query = Linear(width, width)
        self.key = Linear(source_width, width)
        self.gate = Linear(source_width + width + input_width, 1)

    def forward(
        self, found: States, embedded_PE: Tensor, source: States, target_P: Tensor, source_ids: Tensor
    ) -> Tensor:
        """The share of the vocabulary, and the chance that copying gives `target_P`: (2, P) float32."""
        layout = found.layout
        if same_rows(layout, source.layout):
            asked = torch.arange(layout.positions, device=target_P.device).view(layout.rows, -1)
            seen = torch.arange(source.layout.positions, device=target_P.device).view(layout.rows, -1)
            bias, own = source_bias(layout, source.layout, torch.float32), None
        else:
            asked, own = document_grid(layout)
            seen, real = document_grid(source.layout)
            bias = torch.zeros(real.shape, device=real.device).masked_fill(~real, -torch.inf)[:, None]
        share_BTS = self._shares(self.query(found.vectors)[asked], self.key(source.vectors)[seen], bias)
        same_BTS = target_P[asked][:, :, None] == source_ids[seen][:, None, :]
        copied_BT = (share_BTS * same_BTS).sum(-1)
        context = (share_BTS.to(source.vectors.dtype) @ source.vectors[seen]).float()
        gate_BT = self._gate(context, found.vectors[asked], embedded_PE[asked])
        both = torch.stack([gate_BT, copied_BT])
        if own is None:
            return both.reshape(2, -1)
        return both.new_zeros(2, layout.positions).index_copy(1, asked[own], both[:, own])

    def mixed(self, logits_RV: Tensor, x_RD: Tensor, embedded_RE: Tensor, source: HeldSource) -> Tensor:
        """Log of the mixture for the next token of R texts, (R, V)."""
        if "pointer" not in source.kept:
            source.kept["pointer"] = (self.key(source.vectors),)
        texts = len(x_RD) // len(source.real)
        query = self.query(x_RD).view(len(source.real), texts, -1)
        share_NQS = self._shares(query, source.kept["pointer"][0], source.bias(torch.float32)[:, None])
        context = (share_NQS.to(source.vectors.dtype) @ source.vectors).float()
        gate_R1 = self._gate(context.flatten(0, 1), x_RD, embedded_RE)[:, None]
        places = source.ids[:, None].expand(-1, texts, -1).flatten(0, 1)
        mixture = gate_R1 * torch.softmax(logits_RV, dim=-1)
        mixture = mixture.scatter_add(1, places, (1 - gate_R1) * share_NQS.flatten(0, 1))
        return torch.log(mixture.clamp_min(1e-30))

    def _shares(self, query: Tensor, key: Tensor, bias: Tensor) -> Tensor:
        score = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        return torch.softmax(score.float() + bias, dim=-1)

    def _gate(self, context: Tensor, x: Tensor, embedded: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            return torch.sigmoid(self.gate(torch.cat([context, x.float(), embedded.float()], dim=-1))).squeeze(-1)
