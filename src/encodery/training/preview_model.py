"""What a recipe's models will be, before they are trained: the stages, and each one's size, FLOPs and memory."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import islice
from typing import Literal

import torch

from encodery.config import Resolved
from encodery.data.links import read_graph
from encodery.data.packing import rounded_budget
from encodery.data.source_config import texts_apart
from encodery.data.tag_field import TagGatherer
from encodery.encoders.kinds import with_dropout
from encodery.errors import DataError
from encodery.heads.options import DocumentReadoutConfig
from encodery.heads.tagging.options import TagReadoutConfig
from encodery.model import Model, ModelConfig, PartCost, cost_table, count, with_own_matrix
from encodery.objectives.choices import Choices, ChoicesConfig
from encodery.objectives.contrastive import Contrastive
from encodery.objectives.contrastive_options import EmbedConfig
from encodery.objectives.knowledge import KnowledgeMaskedConfig, link_readout
from encodery.objectives.ordinal import Ordinal, OrdinalConfig
from encodery.objectives.questions import Questions, QuestionsConfig
from encodery.objectives.ranking import RankConfig, Ranking
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.objectives.tagging import Tagging, TaggingConfig
from encodery.objectives.writing import WritingConfig
from encodery.trained import Trained
from encodery.training.entities import EntityKnowledge
from encodery.training.growth import COMPARE_BLOCKS, Growth, settled
from encodery.training.preflight import reading_of, taken_sizes
from encodery.training.preview_data import sample_tokenizer
from encodery.training.recipe import Recipe, Unlabelled
from encodery.training.training_config import TrainingConfig
from encodery.training.unlabelled import asked_share, unlabelled_readout
from encodery.training.word_knowledge import with_file_width

LABELLED_ROWS = 8192
"""Rows whose labels are counted for the size of the answer."""

StageName = Literal["pretraining", "training"]


# -- stages ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stage:
    """One stage of a recipe, as the preview sees it."""

    name: StageName
    recipe: Recipe
    """The recipe with this stage's objective, training and dropout in place, and no other stage."""


def stages_of(recipe: Recipe) -> list[Stage]:
    """Pretraining (when the recipe has it) and the training proper."""
    own = Stage("training", recipe.model_copy(update={"pretrain": None}))
    if recipe.pretrain is None:
        return [own]
    first = recipe.pretrain
    update = {
        "encoder": with_dropout(recipe.encoder, first.drop_rate),
        "objective": first.objective,
        "training": first.training,
        "pretrain": None,
        "data": texts_apart(recipe.data) if recipe.objective.compose == "apart" else recipe.data,
    }
    return [Stage("pretraining", recipe.model_copy(update=update)), own]


# -- the model -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ModelView:
    """Size and cost of one stage's model. Bytes are estimates by the formulas of `training_bytes`."""

    stage: StageName
    parts: list[PartCost]
    length: int
    positions: int
    accumulate: int
    training_bytes: dict[str, int]
    inference_bytes: dict[str, int]
    notes: list[str] = field(default_factory=list)

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def forward_flops(self) -> float:
        """Per token."""
        return sum(part.flops for part in self.parts)


def look_at_model(resolved: Resolved[Recipe], *, length: int | None = None) -> list[ModelView]:
    """The model of every stage, built without memory for its weights; no training data is tokenised.

    `length` is that of the documents the FLOPs are counted for, by default 128 tokens or the encoder's limit when
    that is shorter. The vocabulary is the recipe's largest, unless a tokenizer or a starting point decides it.
    """
    recipe, notes = resolved.config, []
    encoder, frontend = recipe.encoder, with_file_width(recipe.frontend, resolved.base)
    if recipe.start_from is not None:
        start = Trained.load(resolved.base / recipe.start_from)
        vocabulary, frontend = start.tokenizer.vocab_size, start.model.config.frontend
        encoder, said = taken_sizes(resolved, start)
        notes += said
    elif recipe.tokenizer.path is not None:
        vocabulary = sample_tokenizer(resolved)[0].vocab_size
    else:
        vocabulary = {"bytes": 261}.get(recipe.tokenizer.kind, recipe.tokenizer.vocab_size)
        notes.append(f"Vocabulary of {vocabulary:,} tokens, as the recipe asks; little text may give fewer.")
    if frontend.vectors is not None and not frontend.vectors.tune and not frontend.vectors.rows:
        notes.append("Vectors of the file stand still and are not learned; how many, the first run will say.")
    if recipe.start_from is None:
        known = EntityKnowledge().gather(recipe, resolved.base, None, reading_of(resolved).rows)
        encoder = known.encoder(encoder, recipe, resolved.base)
    length = min(length or 128, encoder.max_length)
    views = []
    for stage in stages_of(recipe):
        objective, own_notes = stage.recipe.objective, list(notes)
        if isinstance(objective, KnowledgeMaskedConfig):
            assert recipe.data.knowledge is not None, "a recipe that learns triples names them"
            relations = len(read_graph(recipe.data.knowledge, resolved.base).relations)
            readout, share = link_readout(objective, relations), objective.share * (1 - objective.entity_share)
        elif isinstance(objective, WritingConfig):
            own = {"bytes": 261}.get(objective.tokenizer.kind, objective.tokenizer.vocab_size)
            size = own if objective.decoder.vocabulary == "own" else None
            readout, share = objective.decoder.model_copy(update={"vocab_size": size}), 0.0
        elif isinstance(objective, EmbedConfig):
            readout, share = Contrastive(objective).readout(), 0.0
        elif isinstance(objective, RankConfig):
            readout, share = Ranking(objective).readout(), 0.0
        elif isinstance(objective, TaggingConfig):
            readout, said = _tag_readout(resolved, objective)
            share, own_notes = 0.0, own_notes + said
        elif isinstance(objective, QuestionsConfig):
            readout, share = Questions(objective).readout(), 0.0
        elif isinstance(objective, ChoicesConfig):
            readout, share = Choices(objective).readout(), 0.0
        elif isinstance(objective, Unlabelled):
            readout, share = unlabelled_readout(objective, resolved.base), asked_share(objective)
        else:
            outputs, said = _outputs(resolved, objective)
            own_notes, share = own_notes + said, 0.0
            if isinstance(objective, OrdinalConfig):
                readout = Ordinal(objective, labels=_numbered(max(2, outputs))).readout()
            else:
                readout = _document_readout(objective, outputs)
        frontend = frontend.model_copy(update={"vocab_size": vocabulary})
        with torch.device("meta"):
            readout = with_own_matrix(readout, frontend)
            model = Model(ModelConfig(frontend=frontend, encoder=encoder, readout=readout))
        training = stage.recipe.training
        positions = rounded_budget(training.batch_tokens, encoder.max_length)
        fresh = not views and recipe.start_from is None and objective.kind not in COMPARE_BLOCKS
        growth = settled(training.growth, encoder, fresh=fresh)
        if said := str(Growth(growth, depth=encoder.depth, batches=training.accumulate)):
            own_notes.append(f"{stage.name}: {said}")
        views.append(
            ModelView(
                stage.name,
                cost_table(model, length=length, mask_share=share or 0.15),
                length,
                positions,
                training.accumulate,
                training_bytes(model, training, positions, length, share),
                inference_bytes(model, positions, length),
                own_notes,
            )
        )
    return views


def _tag_readout(resolved: Resolved[Recipe], objective: TaggingConfig) -> tuple[TagReadoutConfig, list[str]]:
    """With the tags of the first rows."""
    (tags,) = objective.fields(resolved.config.data)
    try:
        rows = list(islice(reading_of(resolved).rows("train"), LABELLED_ROWS))
    except DataError as error:
        said = f"Two tags are assumed, because the data cannot be read: {error.given}"
        return TagReadoutConfig(tags=("O", "B"), crf=objective.crf), [said]
    classes = sorted({str(row.label) for row in rows}) if objective.intent else []
    return Tagging(objective, TagGatherer(tags, None).look(rows), classes).readout(), []


def _document_readout(objective: SupervisedConfig, outputs: int) -> DocumentReadoutConfig:
    unweighted = objective.model_copy(update={"class_weights": "none"})
    return Supervised(unweighted, labels=_numbered(outputs)).readout()


def _numbered(outputs: int) -> list[str]:
    """Names for so many labels."""
    return [str(number) for number in range(outputs)]


def _outputs(resolved: Resolved[Recipe], objective: SupervisedConfig | OrdinalConfig) -> tuple[int, list[str]]:
    """How many numbers the answer has: from the labels of the first rows."""
    if objective.kind == "regress":
        return 1, []
    try:
        rows = islice(reading_of(resolved).rows("train"), LABELLED_ROWS)
        labels = {label for row in rows for label in (row.label if isinstance(row.label, list) else [row.label])}
    except DataError as error:
        return 2, [f"Two classes are assumed, because the data cannot be read: {error.given}"]
    return max(1, len(labels)), []


def training_bytes(
    model: Model, training: TrainingConfig, positions: int, length: int, mask_share: float
) -> dict[str, int]:
    """Rough bytes of training in float32 with P = `positions`.

        weights      4 per parameter
        gradients    4 per parameter
        optimizer    8 per parameter (AdamW's two moments), 4 for the matrices that Muon trains
        activations  4 * P * what the encoder keeps for each position (its `memory`); plus for masked words
                     4 * 3 * (share * P) * V for logits, their shares and gradient

    bf16 halves the activations of the blocks but not of the logits.
    """
    total = count(model)
    matrices = 0
    if training.optim.kind == "muon":
        inside = [parameter for block in model.encoder.blocks for parameter in block.parameters()]
        matrices = sum(parameter.numel() for parameter in inside if parameter.dim() >= 2)
    activations = int(4 * positions * model.encoder.memory(length)[0])
    logits = int(12 * mask_share * positions * model.frontend.vocab_size)
    return {
        "weights": 4 * total,
        "gradients": 4 * total,
        "optimizer state": 8 * (total - matrices) + 4 * matrices,
        "activations": activations + logits,
    }


def inference_bytes(model: Model, positions: int, length: int) -> dict[str, int]:
    """Rough bytes of use: 4 per parameter, and the widest moment of one block."""
    return {"weights": 4 * count(model), "activations": int(4 * positions * model.encoder.memory(length)[1])}
