"""Replaced-token detection: a small generator puts words in the place of hidden ones, the encoder tells which.

    min  L_words(generator) + weight * L_told(encoder)            ELECTRA, Clark et al. 2020, section 2; weight 50

L_words is the masked-word loss of the generator, a mean over the hidden words; L_told the binary cross-entropy of the
encoder, a mean over all real tokens, not over the hidden ones alone: that is where most of its gain comes from (section
3.5). A drawn word that is the right one counts as original.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator

from encodery.batch import Batch, Output
from encodery.heads.options import GeneratorConfig, ReplacedReadoutConfig, SharingName
from encodery.heads.replaced import ReplacedOutput
from encodery.objectives.cross_entropy import cross_entropy
from encodery.objectives.masked import Loss, Masked, MaskedConfig


class ReplacedConfig(MaskedConfig):
    """Which words are put in the place of others, and by what kind of generator."""

    kind: Literal["replaced"] = "replaced"  # pyright: ignore[reportIncompatibleVariableOverride]
    share: float = Field(default=0.15, gt=0, lt=1)
    """Share of the tokens that the generator fills in, at the start."""
    corrupt: Literal["80/10/10", "mask"] = "mask"
    """What the generator sees of them: mask, [MASK] for all, as in ELECTRA; or BERT's 80/10/10."""
    generator_width: float = Field(default=0.5, gt=0, le=4)
    """The generator's width as a share of the encoder's; 1/4 to 1/2 worked best (ELECTRA, section 3.2)."""
    generator_depth: float = Field(default=0.5, gt=0, le=4)
    """The generator's blocks as a share of the encoder's, at least one."""
    sharing: SharingName = "tied"
    """Word vectors of generator and encoder: tied (one table), disentangled (DeBERTa-v3), separate."""
    temperature: float = Field(default=1.0, gt=0, le=100)
    """Words are drawn from softmax(logits / temperature)."""
    generator_weight: float = Field(default=1.0, ge=0, le=1000)
    """Of the generator's loss."""
    weight: float = Field(default=50.0, gt=0, le=10000)
    """Of the encoder's loss, which is small: most tokens are easy to tell."""

    @model_validator(mode="after")
    def _a_generator_learns(self) -> ReplacedConfig:
        if not self.generator_weight:
            raise ValueError("generator_weight 0 leaves a generator that draws at random; it learns with 1.0")
        return self


class Replaced(Masked):
    """The objective: hides tokens, has a readout whose generator fills them in, scores which tokens it changed."""

    config: ReplacedConfig

    def readout(self) -> ReplacedReadoutConfig:  # pyright: ignore[reportIncompatibleMethodOverride]
        config = self.config
        generator = GeneratorConfig(width=config.generator_width, depth=config.generator_depth, sharing=config.sharing)
        special = tuple(np.flatnonzero(self.special).tolist())
        return ReplacedReadoutConfig(generator=generator, temperature=config.temperature, special_ids=special)

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """Hide tokens as `Masked` does. `truth` also gets `draw` (M,), a number from 0 to 1 for each slot, and `told`
        (P,), true at the tokens that count: real ones that are not special."""
        told = self._texts(batch) & ~self.special[batch.values["ids"].numpy()]
        batch = super().prepare(batch, rng, progress)
        draw = rng.random(batch.truth["at"].numel(), dtype=np.float32)
        more = {"draw": torch.from_numpy(draw), "told": torch.from_numpy(told)}
        return replace(batch, truth={**batch.truth, **more})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """Both losses. `count` and `correct` are those of the encoder, over all real tokens that are not special."""
        assert isinstance(output, ReplacedOutput)
        assert output.logits is not None and output.generated is not None and output.replaced is not None
        told_P, replaced_P = batch.truth["told"], output.replaced
        logits_P = output.logits.float()
        each_P = F.binary_cross_entropy_with_logits(logits_P, replaced_P.float(), reduction="none")
        count = told_P.sum()
        encoder = (each_P * told_P).sum()
        words, right = cross_entropy(output.generated, batch.truth["target"])
        hidden = (batch.truth["target"] >= 0).sum().clamp_min(1)
        found_P = logits_P.detach() > 0
        # Means apart, so that the weights mean what the paper says whatever the share of hidden words.
        total = self.config.weight * encoder + self.config.generator_weight * words * count / hidden
        changed = (replaced_P & told_P).sum().clamp_min(1)
        parts = {
            "told_loss": encoder.detach() / count.clamp_min(1),
            "generator_loss": words.detach() / hidden,
            "generator_accuracy": right / hidden,
            "replaced_found": (found_P & replaced_P & told_P).sum() / changed,
        }
        return Loss(total, count, ((found_P == replaced_P) & told_P).sum(), parts)
