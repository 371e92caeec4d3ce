"""A recipe: everything a run needs to know, as one strict config."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from encodery.config import Config
from encodery.data.fields import Field as DataField
from encodery.data.sources import DataConfig, Labels, SourceConfig
from encodery.data.tokenizers import TokenizerConfig
from encodery.encoders.kinds import EncoderConfig
from encodery.encoders.options import TransformerConfig
from encodery.encoders.visible_tree import check_reads_trees
from encodery.errors import ConfigError
from encodery.evaluation.settings import EvaluationConfig
from encodery.frontends.options import TextConfig
from encodery.objectives.causal import CausalConfig, forward_problem
from encodery.objectives.choices import ChoicesConfig
from encodery.objectives.contrastive_options import ContrastConfig, EmbedConfig
from encodery.objectives.denoise import DenoiseConfig
from encodery.objectives.distil import DistilConfig
from encodery.objectives.knowledge import KnowledgeMaskedConfig
from encodery.objectives.masked import MaskedConfig
from encodery.objectives.order import OrderConfig
from encodery.objectives.ordinal import OrdinalConfig
from encodery.objectives.questions import QuestionsConfig
from encodery.objectives.ranking import RankConfig
from encodery.objectives.reconstruct import AutoencodeConfig
from encodery.objectives.replaced import ReplacedConfig
from encodery.objectives.several import SeveralConfig
from encodery.objectives.supervised import SupervisedConfig
from encodery.objectives.tagging import TaggingConfig
from encodery.objectives.writing import WritingConfig
from encodery.training.growth import COMPARE_BLOCKS, growth_problems
from encodery.training.optim import OptimConfig
from encodery.training.training_config import TrainingConfig
from encodery.typed_paths import a_path

COMPARABLE = ("classify", "multilabel", "regress", "tag", "write")
"""Objectives that can tell how far two answers are apart (training/gradients.py: Comparable)."""
TOGETHER = ("contrast", "embed")
"""Objectives whose loss is one over all batches of a step (training/gradient_cache.py: Together)."""

Unlabelled = (
    MaskedConfig
    | KnowledgeMaskedConfig
    | ReplacedConfig
    | OrderConfig
    | AutoencodeConfig
    | DenoiseConfig
    | ContrastConfig
    | DistilConfig
    | SeveralConfig
    | CausalConfig
)
LabelledConfig = (
    WritingConfig
    | SupervisedConfig
    | EmbedConfig
    | RankConfig
    | OrdinalConfig
    | QuestionsConfig
    | ChoicesConfig
    | TaggingConfig
)
UnlabelledConfig = Annotated[Unlabelled, Field(discriminator="kind")]
ObjectiveConfig = Annotated[Unlabelled | LabelledConfig, Field(discriminator="kind")]
"""What is learned: `labels` and `fields` say what rows need for it, `compose` how samples are made of them."""


class PretrainConfig(Config):
    """A first stage that learns without labels, from the texts of the run and from more of them."""

    data: list[SourceConfig] = Field(default_factory=list)
    """Sources of text beside the training texts of the run; labels in them are not looked at. Plain text, and a source
    that names a column for its text alone, has single texts, also where the rows of the run are pairs."""
    objective: UnlabelledConfig = MaskedConfig()
    """masked: hidden words; knowledge: triples of entities beside them; replaced, order, autoencode, denoise, contrast,
    distil, several: see docs/04_objectives.md."""
    drop_rate: float = Field(default=0.0, ge=0, lt=1)
    """Dropout during this stage; text that is seen a few times only needs none."""
    training: TrainingConfig = TrainingConfig.model_validate(
        {
            "budget": "5m",
            # More text is read in the same minutes, and the loss ends lower (bench/pretraining).
            "growth": {"blocks": "auto"},
            # Without decay Muon lets the matrices grow until attention is all or nothing.
            "optim": {"kind": "muon", "schedule": "linear", "weight_decay": 0.3},
        }
    )


class Recipe(Config):
    """A whole run. Every part has defaults but the data."""

    name: str = Field(default="encoder", min_length=1, pattern=r"^[\w.\-]+$")
    """Names the run's folder."""
    output: str | None = None
    """Folder of the run; by default runs/NAME."""
    cache: str | None = None
    """Folder of the token caches; by default .cache beside the run's folder."""
    seed: int = Field(default=1, ge=0, lt=2**31)
    """Everything random follows from it."""
    seeds: int = Field(default=1, ge=1, le=100)
    """Run this many times, with seed, seed + 1, ...; the mean and the deviation are reported."""
    start_from: Annotated[str | None, a_path] = None
    """Model folder whose tokenizer and weights the run starts from."""
    data: DataConfig
    tokenizer: TokenizerConfig = TokenizerConfig()
    frontend: TextConfig = TextConfig()
    encoder: EncoderConfig = TransformerConfig()
    pretrain: PretrainConfig | None = None
    """A stage of pretraining before the objective below; none when left out."""
    objective: ObjectiveConfig
    training: TrainingConfig = TrainingConfig.model_validate({"optim": OptimConfig(lr=5e-4)})
    evaluation: EvaluationConfig = EvaluationConfig()

    @model_validator(mode="after")
    def _knowledge_is_used(self) -> Recipe:
        known, objectives = self.data.knowledge, [self.objective, self.pretrain and self.pretrain.objective]
        learns_triples = any(isinstance(objective, KnowledgeMaskedConfig) for objective in objectives)
        fuses = isinstance(self.encoder, TransformerConfig) and self.encoder.fusion is not None
        if learns_triples and (known is None or known.triples is None):
            raise ValueError("objective.kind knowledge learns triples: name them with data.knowledge.triples")
        if fuses and known is None and self.start_from is None:
            raise ValueError("encoder.fusion needs data.knowledge: which words name which entities")
        if known is None:
            return self
        if not (learns_triples or fuses or known.inject or self.start_from):
            raise ValueError(
                "data.knowledge is used by nothing: add encoder.fusion (entities fused into words), "
                "data.knowledge.inject (triples behind texts) or objective.kind: knowledge (triples learned)"
            )
        if known.inject is not None and self.start_from is None:
            try:
                check_reads_trees(self.encoder)
            except ConfigError as error:
                raise ValueError(f"{error.given}; expected {error.expected}") from None
        return self

    @model_validator(mode="after")
    def _texts_may_change(self) -> Recipe:
        augment = self.training.augment
        if self.objective.kind == "answer" and (augment.delete or augment.swap):
            raise ValueError("training.augment.delete and swap would move answers out of their places: set them to 0")
        if augment.used and self.data.knowledge is not None and self.data.knowledge.inject is not None:
            raise ValueError("training.augment does not go with data.knowledge.inject: branches hang on words")
        return self

    @model_validator(mode="after")
    def _answers_can_be_firm(self) -> Recipe:
        stages = [("training", self.objective, self.training)]
        if self.pretrain is not None:
            stages.append(("pretrain.training", self.pretrain.objective, self.pretrain.training))
        for name, objective, training in stages:
            if training.consistency and objective.kind not in COMPARABLE:
                raise ValueError(
                    f"{name}.consistency is for objectives whose answers can be compared ({', '.join(COMPARABLE)}), "
                    f"not for {objective.kind}: leave it out"
                )
            if training.consistency and isinstance(objective, WritingConfig) and objective.decoder.pointer:
                raise ValueError(
                    f"{name}.consistency does not go with objective.decoder.pointer: leave one of them out"
                )
            if training.adversarial and objective.kind in TOGETHER:
                raise ValueError(
                    f"{name}.adversarial does not go with {objective.kind}, which compares texts: leave it out"
                )
        return self

    @model_validator(mode="after")
    def _growth_fits(self) -> Recipe:
        """Blocks grow where the encoder begins from fresh weights: in the first stage of a run."""
        first = self.training if self.pretrain is None else self.pretrain.training
        objective = self.objective if self.pretrain is None else self.pretrain.objective
        for training in (first, self.training):
            growth = training.growth
            if growth is None:
                continue
            found = growth_problems(growth, self.encoder, training.accumulate)
            if isinstance(growth.blocks, int) and (training is not first or self.start_from is not None):
                found.append("growth.blocks is for an encoder that begins from fresh weights")
            if isinstance(growth.blocks, int) and objective.kind in COMPARE_BLOCKS:
                found.append(f"growth.blocks does not go with the objective {objective.kind}, which may compare blocks")
            if found:
                raise ValueError("; ".join(found))
        return self

    @model_validator(mode="after")
    def _language_models_read_forward(self) -> Recipe:
        objectives = [self.objective, self.pretrain and self.pretrain.objective]
        causal = self.start_from is None and any(isinstance(one, CausalConfig) for one in objectives)
        if causal and (problem := forward_problem(self.encoder)):
            raise ValueError(problem)
        return self

    @model_validator(mode="after")
    def _columns_are_named(self) -> Recipe:
        self.fields()
        if self.pretrain is not None:
            self.pretrain.objective.fields(self.data)
        return self

    @property
    def labels(self) -> Labels:
        """What kind of label the objective asks of the data."""
        return self.objective.labels

    def fields(self) -> tuple[DataField, ...]:
        """What the objective asks of the data beside text and label."""
        return self.objective.fields(self.data)
