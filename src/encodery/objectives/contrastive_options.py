"""The options of objectives that learn vectors by comparing texts."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from encodery.bricks.choices import PoolingName
from encodery.config import Config
from encodery.data.fields import Field as DataField
from encodery.data.negatives import negatives_of
from encodery.data.sources import DataConfig, Labels

GRADED = ("cosine", "cosent", "pearson")
"""Losses that learn how close two texts are from a number."""
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
        if self.heads == "two" and self.width is None:
            raise ValueError("heads: two are two linear layers: say with width how many numbers come out of them")
        return self

    compose: ClassVar[str] = "apart"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "number" if self.loss in GRADED else "none"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their texts."""
        if data.pair is None:
            raise ValueError("objective.kind embed compares two texts: name the column of the second with data.pair")
        if self.loss not in GRADED:
            if data.label is not None:
                raise ValueError(
                    "objective.loss infonce looks at no labels: leave data.label out, or learn from them with loss "
                    "cosent, pearson or cosine"
                )
            return negatives_of(data)
        if data.label is None:
            raise ValueError(f"objective.loss {self.loss} learns from a number: name its column with data.label")
        if data.negatives is not None:
            raise ValueError(f"data.negatives are for objective.loss infonce; {self.loss} compares two texts")
        return ()


class ContrastConfig(_Compared):
    """SimCSE (Gao et al. 2021, section 3): each text twice under different dropout, found among all others."""

    kind: Literal["contrast"] = "contrast"
    compose: ClassVar[str] = "twice"

    @property
    def labels(self) -> Labels:
        """What the rows need as their label."""
        return "none"

    def fields(self, data: DataConfig) -> tuple[DataField, ...]:
        """What the rows need beside their text."""
        del data
        return ()
