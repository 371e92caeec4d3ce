"""Replaced words: a generator puts likely words in the place of hidden ones, the encoder tells which were put there.

    x_corrupt = replace(x, m, x^),  x^_i ~ p_G(x_i | x_masked) for i in m        ELECTRA, Clark et al. 2020, section 2
    D(x_corrupt, t) = sigmoid(w . h_D(x_corrupt)_t)

No gradient goes from the encoder's answers into the generator: a drawn word has none. The generator is small (section
3.2) and is thrown away when learning is done.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from encodery.batch import Batch, Output
from encodery.bricks.choices import is_gated
from encodery.bricks.layers import ACTIVATIONS, initialise
from encodery.bricks.products import Linear
from encodery.encoders.kinds import EncoderConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.transformer import Transformer
from encodery.errors import ConfigError
from encodery.frontends.embeddings import LearnedTable
from encodery.frontends.text import TextFrontend
from encodery.heads.options import GeneratorConfig, ReplacedReadoutConfig, SharingName, WordReadoutConfig
from encodery.heads.passes import Encode, OwnPass, parameters_of
from encodery.heads.readouts import WordReadout


@dataclass(frozen=True)
class ReplacedOutput(Output):
    """`logits` (P,): above 0 where a word seems to be put there. While learning also `generated` (M, V), the logits of
    the generator at the hidden words, and `replaced` (P,), whether a token is another than it was."""

    generated: Tensor | None = None
    replaced: Tensor | None = None


def generator_config(config: GeneratorConfig, encoder: EncoderConfig) -> TransformerConfig:
    """The generator's encoder: a Transformer, of the same make as the encoder where that is one."""
    depth = max(1, round(config.depth * encoder.depth))
    if not isinstance(encoder, TransformerConfig):
        heads = max(1, round(config.width * encoder.width / 64))
        width = max(8, round(config.width * encoder.width / heads / 2) * 2 * heads)
        return TransformerConfig(width=width, depth=depth, heads=heads, max_length=encoder.max_length)
    heads = max(1, round(config.width * encoder.heads))
    each = encoder.width // encoder.heads
    if heads * each > 2 * config.width * encoder.width:
        each = max(2, round(config.width * encoder.width / heads / 2) * 2)
    # Sizes that belong to the width go; what the depth names goes too.
    own = encoder.model_dump(exclude={"preset", "fusion", "kv_heads", "mlp_width", "head_width", "value_width"})
    own |= {"width": max(8, heads * each), "depth": depth, "heads": heads, "distinct_blocks": None, "halve_after": ()}
    return TransformerConfig.model_validate(own)


def _check_sharing(sharing: SharingName, frontend: TextFrontend) -> None:
    """Raises ConfigError where word vectors cannot be shared in that way."""
    embedding = frontend.config.embedding
    fitting = {"tied": True, "disentangled": embedding == "learned", "separate": embedding in ("learned", "hashed")}
    if not fitting[sharing]:
        raise ConfigError(
            f"objective.sharing is {sharing}, and frontend.embedding is {embedding}",
            expected="frontend.embedding: learned" + (" or hashed" if sharing == "separate" else ""),
            fix="use objective.sharing: tied, which every embedding can",
        )


class Generator(nn.Module):
    """Batch with hidden words -> the likely words at them, logits (M, V)."""

    def __init__(self, config: GeneratorConfig, encoder: EncoderConfig, frontend: TextFrontend) -> None:
        super().__init__()
        _check_sharing(config.sharing, frontend)
        made = generator_config(config, encoder)
        self.own = TextFrontend(frontend.config, encoder.width) if config.sharing == "separate" else None
        # Kept outside the module's parameters: a shared table belongs to the model.
        self._shared = [frontend]
        self.encoder = Transformer(made, frontend.width)
        self.words = WordReadout(WordReadoutConfig(tied=not frontend.config.makes_anew), made.width, self.frontend)

    @property
    def frontend(self) -> TextFrontend:
        return self._shared[0] if self.own is None else self.own

    def initialise(self, generator: torch.Generator) -> None:
        if self.own is not None:
            self.own.initialise(generator)
        self.encoder.initialise(generator)
        self.words.initialise(generator)

    def forward(self, batch: Batch, at_M: Tensor) -> Tensor:
        logits = self.words(self.encoder(self.frontend(batch), at_M), batch).logits
        assert logits is not None
        return logits


class ReplacedReadout(OwnPass):
    """Batch -> ReplacedOutput. Reads `truth["at"]`, `truth["target"]` and `truth["draw"]` (M,) while learning: hidden
    positions, what stood there, and a number from 0 to 1 that decides which word is drawn. Without these the batch is
    read as it is."""

    def __init__(self, config: ReplacedReadoutConfig, encoder: EncoderConfig, frontend: TextFrontend) -> None:
        super().__init__()
        self.config = config
        width = encoder.width
        # As in the published model: a layer, an activation, one number.
        plain = encoder.activation if isinstance(encoder, TransformerConfig) else "gelu"
        self.activation = ACTIVATIONS["gelu" if is_gated(plain) else plain]
        self.hidden = Linear(width, width)
        self.answer = Linear(width, 1)
        self.generator: Generator | None = None
        self.difference: nn.Parameter | None = None
        self._frontend = [frontend]
        if config.generator is not None:
            self.generator = Generator(config.generator, encoder, frontend)
            if config.generator.sharing == "disentangled":
                self.difference = nn.Parameter(torch.zeros(frontend.vocab_size, frontend.width))

    def initialise(self, generator: torch.Generator) -> None:
        initialise(self.hidden, std=0.02, depth=1, generator=generator)
        initialise(self.answer, std=0.02, depth=1, generator=generator)
        if self.generator is not None:
            self.generator.initialise(generator)
        if self.difference is not None:
            nn.init.zeros_(self.difference)

    def run(self, encode: Encode, batch: Batch) -> ReplacedOutput:
        if self.generator is None or "draw" not in batch.truth:
            return self._told(encode, batch)
        at_M, target_M = batch.truth["at"], batch.truth["target"]
        generated_MV = self.generator(batch, at_M)
        ids_P = batch.values["ids"]
        with torch.no_grad():
            drawn_M = self.drawn(generated_MV, batch.truth["draw"])
            counts_M = target_M >= 0
            # Slots that are not needed write what stands there already, into a place that nobody reads.
            place_M = torch.where(counts_M, at_M, ids_P.numel())
            spare = ids_P.new_zeros(1)
            corrupt_P = torch.cat([ids_P, spare]).scatter(0, place_M, drawn_M)[:-1]
            other = torch.zeros(ids_P.numel() + 1, dtype=torch.bool, device=ids_P.device)
            replaced_P = other.scatter(0, place_M, drawn_M != target_M)[:-1]
        told = self._told(encode, replace(batch, values={**batch.values, "ids": corrupt_P}))
        return replace(told, generated=generated_MV, replaced=replaced_P)

    def drawn(self, logits_MV: Tensor, draw_M: Tensor) -> Tensor:
        """A word for each slot from softmax(logits / temperature), special tokens left out: (M,).

        The word at which the running sum of the probabilities passes `draw`: the same distribution as the largest of
        the logits with Gumbel noise added, with one random number a slot instead of V.
        """
        wanted = logits_MV.float() / self.config.temperature
        if self.config.special_ids:
            wanted = wanted.index_fill(1, torch.tensor(self.config.special_ids, device=wanted.device), -torch.inf)
        up_to_MV = torch.softmax(wanted, dim=1).cumsum(1)
        goal_M1 = (draw_M.to(up_to_MV.dtype) * up_to_MV[:, -1]).unsqueeze(1)
        found = torch.searchsorted(up_to_MV, goal_M1, right=True).squeeze(1)
        # A goal that was rounded up to the whole sum: the last word that has a probability.
        last = (up_to_MV < up_to_MV[:, -1:]).sum(1)
        return torch.minimum(found, last)

    @torch.no_grad()
    def settle(self) -> None:
        """With `disentangled`: give the model the word vectors that the encoder has read. To be done once, at the end:
        the generator's are gone then."""
        if self.difference is not None:
            words = self._frontend[0].words
            assert isinstance(words, LearnedTable), "only a learned table has a difference"
            words.weight += self.difference
            self.difference.zero_()

    def costs(self, length: int, share: float) -> list[tuple[str, int, float]]:
        width = self.hidden.in_features
        own = parameters_of(self.hidden, self.answer)
        rows = [("readout (replaced words)", own, 2.0 * width * (width + 1))]
        if self.generator is None:
            return rows
        made, frontend = self.generator, self.generator.frontend
        inside = sum(flops for _, _, flops in made.encoder.costs(length, share))
        words = share * 2.0 * frontend.width * (made.encoder.config.width + frontend.vocab_size)
        number = parameters_of(made) + (0 if self.difference is None else self.difference.numel())
        return [*rows, ("generator (thrown away)", number, inside + words)]

    def _told(self, encode: Encode, batch: Batch) -> ReplacedOutput:
        words = None
        if self.difference is not None:
            # E_D = stop_gradient(E_G) + E_difference, which begins at 0 (He et al. 2021, section 3.2).
            ids_P = batch.values["ids"]
            with torch.no_grad():
                words = self._frontend[0].words(ids_P)
            words = words + F.embedding(ids_P, self.difference)
        states = encode(batch, words=words)
        x_PD = self.activation(self.hidden(states.vectors))
        logits_P = self.answer(x_PD).squeeze(-1)
        return ReplacedOutput(logits=logits_P, balance=states.balance)
