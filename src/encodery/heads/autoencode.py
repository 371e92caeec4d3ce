"""One vector a document, and the small decoders that write the document from it while the encoder learns.

    TSDAE       H_k = Attention(H_k-1, [v], [v])      Wang et al. 2021, section 3: all that the decoder is told is v
    RetroMAE    A = softmax(Q K^T / sqrt(K) + M) V    Xiao et al. 2022, section 3.3, enhanced decoding: one layer, and
                                                      each token sees a draw of the others, never itself

Both read and write the words with the encoder's own vectors. They are thrown away when learning is done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Layout, Output, States
from encodery.bricks.layers import FeedForward, initialise
from encodery.bricks.pooling import Pooling
from encodery.bricks.positions import LearnedPositions
from encodery.bricks.products import Linear, compute_dtype
from encodery.encoders.kinds import EncoderConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.transformer import Block, Transformer
from encodery.frontends.text import TextFrontend
from encodery.heads.options import AutoencodeReadoutConfig
from encodery.heads.passes import Encode, OwnPass, parameters_of
from encodery.heads.readouts import WordReadout


@dataclass(frozen=True)
class AutoencodeOutput(Output):
    """`vectors` (N, D); while learning also `logits` (M, V) of the decoder at the positions it is asked for, and for
    RetroMAE `hidden` (M', V), those of the encoder at its hidden words."""

    hidden: Tensor | None = None


def decoder_heads(config: AutoencodeReadoutConfig, encoder: EncoderConfig) -> int:
    """As the config says, else as the encoder has them, else one for each 64 numbers."""
    width = encoder.width
    wanted = config.heads or getattr(encoder, "heads", None) or max(1, round(width / 64))
    fitting = [number for number in range(1, width + 1) if width % (2 * number) == 0 or number == 1]
    return min(fitting, key=lambda number: abs(number - wanted))


class AutoencodeReadout(OwnPass):
    """Batch -> AutoencodeOutput.

    While learning `truth` has what the decoder reads and is asked: `original` (P,) the ids before noise, `place`,
    `owner` (P,) and `sizes` (N,) their layout (position, document, lengths), `ask` (M,) the positions to write. For
    RetroMAE also `at` (M',), the words hidden from the encoder, and `visible` (P, T), which positions of its row each
    position may look at in the decoder. Without these only vectors are made.
    """

    def __init__(self, config: AutoencodeReadoutConfig, encoder: EncoderConfig, frontend: TextFrontend) -> None:
        super().__init__()
        self.config = config
        self.pooling = Pooling(config.pooling, encoder.width)
        self.pooling_width = encoder.width
        self._frontend = [frontend]
        heads = decoder_heads(config, encoder)
        self.decoder: VectorDecoder | EnhancedDecoder
        if config.method == "tsdae":
            self.decoder = VectorDecoder(encoder, heads, config.depth, frontend.width)
        else:
            self.decoder = EnhancedDecoder(encoder.width, heads, encoder.max_length, frontend.width)
        self.words = WordReadout(config, encoder.width, frontend)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self.pooling, std=0.02, depth=1, generator=generator)
        self.decoder.initialise(generator)
        self.words.initialise(generator)

    def run(self, encode: Encode, batch: Batch) -> AutoencodeOutput:
        states = encode(batch)
        vectors_ND = self.pooling(states.summary or states)
        if "original" not in batch.truth:
            return AutoencodeOutput(vectors=vectors_ND, balance=states.balance)
        hidden = None
        if "at" in batch.truth:
            hidden = self.words(States(states.vectors[batch.truth["at"]], states.layout), batch).logits
        logits = self.written(vectors_ND, batch)
        return AutoencodeOutput(logits=logits, vectors=vectors_ND, balance=states.balance, hidden=hidden)

    def costs(self, length: int, share: float) -> list[tuple[str, int, float]]:
        width, frontend = self.pooling_width, self._frontend[0]
        if isinstance(self.decoder, VectorDecoder):
            inside = sum(flops for _, _, flops in self.decoder.stack.costs(length, 1.0))
        else:
            matrices = sum(part.numel() for part in self.decoder.parameters() if part.dim() == 2)
            inside = 2.0 * (matrices - self.decoder.positions.table.weight.numel()) + 4.0 * width * length
        words = share * 2.0 * frontend.width * (width + frontend.vocab_size)
        return [
            ("readout (vectors)", parameters_of(self.pooling), 0.0),
            ("decoder (thrown away)", parameters_of(self.decoder, self.words), inside + words),
        ]

    def written(self, vectors_ND: Tensor, batch: Batch) -> Tensor:
        """What the decoder would write from these vectors, logits (M, V)."""
        logits = self.words(States(self.decoded(vectors_ND, batch), batch.layout), batch).logits
        assert logits is not None
        return logits

    def decoded(self, vectors_ND: Tensor, batch: Batch) -> Tensor:
        """What the decoder makes of the vectors, at the positions it is asked for: (M, D)."""
        truth, layout = batch.truth, batch.layout
        original = Layout(layout.rows, layout.length, truth["owner"], truth["place"], layout.starts, truth["sizes"])
        words_PE = self._frontend[0].words(truth["original"])
        return self.decoder(words_PE, vectors_ND, original, truth["ask"], truth.get("visible"))


class VectorDecoder(nn.Module):
    """The words so far and the vector of their document -> what comes next: (P, E), (N, D) -> (M, D).

    A causal Transformer. Attention over a single vector gives every position that vector, whatever its query (a softmax
    over one key is 1): so what is left of it is two linear maps, of value and output, which are one.
    """

    def __init__(self, encoder: EncoderConfig, heads: int, depth: int, entering: int) -> None:
        super().__init__()
        config = TransformerConfig(
            width=encoder.width,
            depth=depth,
            heads=heads,
            max_length=encoder.max_length,
            pattern="causal",
            positions="rotary" if encoder.width // heads % 2 == 0 else "sinusoidal",
            drop_rate=encoder.drop_rate,
        )
        self.stack = Transformer(config, entering)
        self.norms = nn.ModuleList(nn.LayerNorm(encoder.width) for _ in range(depth))
        self.told = nn.ModuleList(Linear(encoder.width, encoder.width) for _ in range(depth))

    def initialise(self, generator: torch.Generator) -> None:
        self.stack.initialise(generator)
        # Not small, as residual branches are: the vector is all that the decoder is told, and must be heard at once.
        width = self.stack.config.width
        initialise(self.norms, std=0.02, depth=1, generator=generator)
        initialise(self.told, std=1 / math.sqrt(width), depth=1, generator=generator)

    def forward(
        self, words_PE: Tensor, vectors_ND: Tensor, layout: Layout, ask_M: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        del visible
        stack = self.stack
        x_PD = stack.entered(words_PE, layout)
        run = stack.begin(layout, compute_dtype(x_PD), None)
        last = len(stack.blocks) - 1
        for number, (block, norm, told) in enumerate(zip(stack.blocks, self.norms, self.told)):
            assert isinstance(block, Block)
            x_PD = x_PD + _spread(told(norm(vectors_ND)), layout).to(x_PD.dtype)
            x_PD = block(x_PD, run, number, ask_M if number == last else None)
        return stack.output_norm(x_PD)


class EnhancedDecoder(nn.Module):
    """RetroMAE's decoder of one layer: (P, E), (N, D) -> (M, D).

        H1 = [h, ..., h] + [p_0, ..., p_n]                     queries: the document's vector and where they stand
        H2 = [h, e_1 + p_1, ..., e_n + p_n]                    keys and values: the vector and the words
        A  = attention with mask M: i sees a draw of the others, never itself, and always h
        H  = FFN(norm(A + H1)), with its residual and norm

    The vector stands beside the words of its document as a key of its own, where the paper writes it over [CLS].
    """

    def __init__(self, width: int, heads: int, max_length: int, entering: int) -> None:
        super().__init__()
        self.heads = heads
        self.widen = Linear(entering, width) if entering != width else None
        self.positions = LearnedPositions(max_length, width)
        self.input_norm = nn.LayerNorm(width)
        self.vector_norm = nn.LayerNorm(width)
        self.query = Linear(width, width)
        self.key_value = Linear(width, 2 * width)
        self.outer = Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.mlp = FeedForward(width, 4 * width, activation="gelu")
        self.output_norm = nn.LayerNorm(width)

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self, std=0.02, depth=1, generator=generator)

    def forward(
        self, words_PE: Tensor, vectors_ND: Tensor, layout: Layout, ask_M: Tensor, visible: Tensor | None = None
    ) -> Tensor:
        assert visible is not None, "enhanced decoding needs to know who sees whom"
        words_PD = words_PE if self.widen is None else self.widen(words_PE)
        dtype = compute_dtype(words_PD)
        # Norms as after the embeddings of BERT: vector and words meet at one size.
        vector_ND = self.vector_norm(vectors_ND)
        h1_PD = self.positions(_spread(vector_ND, layout), layout.position).to(dtype)
        h2_PD = self.input_norm(self.positions(words_PD, layout.position)).to(dtype)
        mixed_PD = self._attended(h1_PD, h2_PD, vector_ND.to(dtype), layout, visible)
        x_MD = self.norm(self.outer(mixed_PD[ask_M]) + h1_PD[ask_M])
        return self.output_norm(x_MD + self.mlp(x_MD))

    def _attended(self, h1_PD: Tensor, h2_PD: Tensor, vector_ND: Tensor, layout: Layout, visible_PT: Tensor) -> Tensor:
        B, T, H = layout.rows, layout.length, self.heads

        def by_head(x_PD: Tensor) -> Tensor:
            return x_PD.view(B, T, H, -1).transpose(1, 2)

        q_BHTK = by_head(self.query(h1_PD))
        k_PD, v_PD = self.key_value(h2_PD).chunk(2, dim=-1)
        own_k, own_v = (by_head(_spread(x, layout)) for x in self.key_value(vector_ND).chunk(2, dim=-1))
        q_BHTK = q_BHTK / math.sqrt(q_BHTK.shape[-1])
        score_BHTT = q_BHTK @ by_head(k_PD).transpose(-1, -2)
        score_BHTT = score_BHTT.masked_fill(~visible_PT.view(B, 1, T, T), -torch.inf)
        own_BHT1 = (q_BHTK * own_k).sum(-1, keepdim=True)
        share = torch.softmax(torch.cat([score_BHTT, own_BHT1], dim=-1), dim=-1)
        mixed = share[..., :T] @ by_head(v_PD) + share[..., T:] * own_v
        return mixed.transpose(1, 2).reshape(layout.positions, -1)


def _spread(x_ND: Tensor, layout: Layout) -> Tensor:
    """The vector of each document at all of its positions, zeros at padding: (N, D) -> (P, D)."""
    return F.embedding(layout.document + 1, F.pad(x_ND, (0, 0, 1, 0)))
