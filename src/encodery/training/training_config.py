"""The `training:` part of a recipe: how long a model learns, in which steps, and which weights are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import ConfigDict, Field, field_serializer

from encodery.config import Config
from encodery.data.augment import AugmentConfig
from encodery.training.budget import Budget, BudgetField
from encodery.training.compilation import CompileName
from encodery.training.growth import GrowthConfig
from encodery.training.optim import OptimConfig
from encodery.training.precision import PrecisionName

MOST_BATCHES_A_STEP = 4096


class TrainingConfig(Config):
    """How long and in which steps a model learns."""

    model_config = ConfigDict(arbitrary_types_allowed=True)

    budget: BudgetField = Field(default=Budget("epochs", 3.0), validate_default=False)
    """When to stop: '10m', '2000 steps', '5M tokens', '3 epochs'. The schedule is stretched over it."""
    batch_tokens: int = Field(default=2048, ge=64)
    """Positions of a batch (P), constant through the run; rounded up to a multiple of the longest row."""
    accumulate: int = Field(default=1, ge=1, le=MOST_BATCHES_A_STEP)
    """Batches whose gradients are added up for one step, weighted by their tokens; objectives that compare texts look
    at all of them together, as if they were one batch."""
    growth: GrowthConfig | None = None
    """What is small at first: blocks of the encoder, batches of a step; None: everything has its size at once."""
    optim: OptimConfig = OptimConfig()
    average: float = Field(default=0.0, ge=0, lt=1)
    """Decay of the moving average of the weights that is evaluated and kept; 0: none."""
    average_last: int = Field(default=0, ge=0, le=100)
    """At the end the mean of the weights at the last so many validations is tried as well, and kept when it is better
    (checkpoint averaging, Vaswani et al. 2017, section 6.1); 0: not."""
    keep: Literal["best", "latest"] = "latest"
    """Which weights are kept. latest: of the last validation that is not worse than the best by more than its standard
    error, so that chance does not choose an early one; best: of the best validation, though it be luck."""
    consistency: float = Field(default=0.0, ge=0, le=100)
    """Fine-tuning with labels, numbers, tags or targets to write: weight of how far two answers under different dropout
    are apart (R-Drop, Liang et al. 2021); each step then costs twice as much. 0: none."""
    adversarial: float = Field(default=0.0, ge=0, le=10)
    """The loss where the words of a document are moved against the model counts as well (Miyato et al. 2017); the move
    as a share of the length of their vectors, such as 0.03. Each step then costs twice as much. 0: none."""
    reset_blocks: int = Field(default=0, ge=0, le=1000)
    """Fine-tuning: so many of the last blocks of the starting point begin anew (Zhang et al. 2021, section 4)."""
    augment: AugmentConfig = AugmentConfig()
    """How texts are changed at random each time they are seen."""
    precision: PrecisionName = "auto"
    """auto measures whether bf16 is faster here; fp32 and bf16 are used as said."""
    compile: CompileName = "auto"
    """Compile the encoder with torch.compile. auto: on a GPU, when the budget is long enough to earn it back."""
    validations: int = Field(default=10, ge=0, le=1000)
    """How often the validation data is scored during the run, to choose the weights that are kept."""
    patience: int = Field(default=0, ge=0)
    """Stop after this many validations without a better one; 0: never."""
    expert_balance: float = Field(default=0.01, ge=0, le=10)
    """For encoders with experts: how much it counts in the loss that all of them are used."""
    save_every: float = Field(default=300.0, gt=0)
    """Seconds between checkpoints."""

    @field_serializer("budget")
    def _written(self, budget: Budget) -> str:
        return str(budget)
