"""The options of objectives that learn vectors by comparing texts."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from encodery.bricks.choices import PoolingName
from encodery.config import Config

EmbedLoss = Literal["infonce", "cosine", "cosent", "pearson"]
Dimension = Annotated[int, Field(ge=1, le=65536)]


class _Compared(Config):
    """What both objectives ask for."""

    pooling: PoolingName = "mean"
    """How the vectors of a text become one: first, mean, weighted, max, attention."""
    width: int | None = Field(default=None, ge=2, le=65536)
    """Numbers of a vector: a linear layer makes them. None: as many as the encoder has, without that layer."""
    temperature: float = Field(default=0.05, gt=0, le=10)
    """Differences of closeness are divided by it: the smaller, the more the closest wrong answers count."""
    learn_temperature: bool = False
    """Whether the temperature is learned from there on, as in CLIP (Radford et al. 2021)."""
    symmetric: bool = False
    """infonce: whether second texts are asked for their first ones too; the loss is the mean of both."""
    dimensions: tuple[Dimension, ...] = ()
    """Matryoshka: shorter vectors that are to be good as well, each the first numbers of the whole one."""

    @model_validator(mode="after")
    def _shorter_than_the_whole(self) -> _Compared:
        if len(set(self.dimensions)) < len(self.dimensions):
            raise ValueError(f"dimensions {list(self.dimensions)} names one twice")
        if self.width is not None and self.dimensions and max(self.dimensions) >= self.width:
            raise ValueError(
                f"dimensions are parts of the vector: {max(self.dimensions)} is not below its {self.width}"
            )
        return self


class EmbedConfig(_Compared):
    """Vectors of texts that belong together (data.pair, data.negatives), or are as close as data.label says."""

    kind: Literal["embed"] = "embed"
    loss: EmbedLoss = "infonce"
    """infonce: the second text among those of all rows of the batch; cosine: the number itself by squared error;
    cosent: the order of the numbers; pearson: correlation with the numbers."""
    late: bool = False
    """Late interaction (ColBERT): a vector for each token, of `width` numbers (128 when not said)."""
    heads: Literal["one", "two"] = "one"
    """two: each side has a linear layer of its own behind the shared encoder: questions and documents."""

    @model_validator(mode="after")
    def _what_goes_together(self) -> EmbedConfig:
        if self.late and (self.dimensions or self.heads == "two"):
            raise ValueError("late interaction has no dimensions and one head: leave these out, or set late: false")
        if self.late and self.pooling != "mean":
            raise ValueError("late interaction keeps all vectors: leave pooling out, or set late: false")
        if self.loss != "infonce" and self.symmetric:
            raise ValueError(f"symmetric is for loss infonce; {self.loss} takes both texts alike already")
        if self.loss in ("cosine", "pearson") and self.learn_temperature:
            raise ValueError(f"loss {self.loss} has no temperature to learn")
        return self


class ContrastConfig(_Compared):
    """SimCSE (Gao et al. 2021, section 3): each text twice under different dropout, found among all others."""

    kind: Literal["contrast"] = "contrast"
