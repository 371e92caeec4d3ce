"""What training will see, before it sees it: the first packed batch, and whether one batch can be learned by heart."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from encodery.batch import Batch
from encodery.config import Resolved
from encodery.data.corpus import Reading, TrainingText, require_classes, sample_lengths
from encodery.data.ledger import Ledger
from encodery.data.links import Described
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.kinds import with_dropout
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.supervised import SupervisedConfig
from encodery.trained import Trained
from encodery.training.budget import Budget
from encodery.training.finetune import make_objective
from encodery.training.journal import Progress
from encodery.training.linear_answers import fit_linear_answer, has_linear_answer
from encodery.training.loop import Fit
from encodery.training.precision import choose_precision
from encodery.training.preview_data import sample_tokenizer
from encodery.training.preview_model import Stage, StageName
from encodery.training.recipe import LabelledConfig, Recipe
from encodery.training.run import Run
from encodery.training.signals import StopRequest
from encodery.training.unlabelled import same_tokenizer, unlabelled_objective

LOOKED_AT_ROWS = 8192
"""Rows a first batch is packed from: as many as the loader packs together."""


# -- the first batch -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Prepared:
    """A stage made ready on the first rows: what the batch and the learning check both need."""

    stage: Stage
    tokenizer: Tokenizer
    described: str
    objective: Any
    fit: Fit
    batch: Batch


@dataclass(frozen=True)
class Token:
    """One position of a batch. `hidden` is what stood there before it was masked."""

    text: str
    document: int
    hidden: str | None = None


@dataclass(frozen=True)
class BatchView:
    """A packed batch to be read: `rows` of tokens (padding left out), and for each document its label."""

    stage: StageName
    rows: list[list[Token]]
    length: int
    documents: int
    real: int
    positions: int
    masked: int
    labels: list[str]
    tokenizer: str

    @property
    def fill(self) -> float:
        return self.real / self.positions


def prepare(resolved: Resolved[Recipe], stage: Stage, *, smallest: bool = False) -> Prepared:
    """Read the first rows and make the stage's model, objective and loader as a run makes them.

    `smallest` asks for the smallest batch that holds the longest text, and no dropout: for the learning check.
    Raises as a run would: DataError, WeightsError, ConfigError.
    """
    recipe = stage.recipe
    if smallest:
        recipe = _quiet(recipe)
    folder = Path(recipe.output or "runs") / recipe.name
    run = Run(recipe, resolved.base, folder, Progress(None), StopRequest())
    run.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    run.precision = choose_precision(recipe.training.precision, run.device)
    start = Trained.load(resolved.base / recipe.start_from) if recipe.start_from else None
    described = f"that of {recipe.start_from}"
    run.held = start.model.config.encoder.max_length if start else None
    whose = same_tokenizer(recipe.objective, resolved.base, start)
    tokenizer = whose.tokenizer if whose else None
    if tokenizer is None:
        tokenizer, described = sample_tokenizer(resolved)
    run.entities.gather(recipe, resolved.base, start, run.reading().rows)
    reading = run.reading()
    rows = list(islice(reading.rows("train", Ledger()), LOOKED_AT_ROWS))
    linker, fields = reading.linker(), reading.fields
    store = store_in_memory(rows, tokenizer, labels=reading.labels, linker=linker, fields=fields)
    require_classes(reading.labels, store.label_names, store.rows)
    objective, entities = _objective(run, reading, store, tokenizer)
    model = run.build(tokenizer, objective.readout(), recipe.seed, start)
    if start is None:
        run.start_words(model, store, recipe.seed)
    tokens = int(sample_lengths(store, run.maker(tokenizer)).sum())
    text = TrainingText(store, lambda seed: StoredWindows(store, seed=seed), tokens)
    if has_linear_answer(model.readout):
        fit_linear_answer(run, model.readout, objective, tokenizer, store, None)
    fit = run.fit(model, objective, text, tokenizer, recipe.training, None, recipe.seed, entities)
    batch, _ = next(fit.loader.epoch(Place()))
    return Prepared(stage, tokenizer, described, objective, fit, batch)


def _objective(run: Run, reading: Reading, store: TokenStore, tokenizer: Tokenizer) -> tuple[Any, Described | None]:
    """The objective, and the entities that it learns beside the rows."""
    config = run.recipe.objective
    if isinstance(config, LabelledConfig):
        return make_objective(config, store, tokenizer, run.max_length), None
    return unlabelled_objective(config, reading, tokenizer, run.max_length)


def _quiet(recipe: Recipe) -> Recipe:
    """No dropout, a small batch, a rate that suits the width: what a model learns by heart best with."""
    rate = 1e-3 * min(4.0, max(0.25, (256 / recipe.encoder.width) ** 0.5))
    encoder = with_dropout(recipe.encoder, 0.0, 0.0)
    objective = recipe.objective
    if isinstance(objective, SupervisedConfig):
        objective = objective.model_copy(update={"drop_rate": 0.0, "label_smoothing": 0.0})
    optim = recipe.training.optim.model_copy(
        update={"kind": "adamw", "lr": rate, "schedule": "linear", "warmup": 0.1, "weight_decay": 0.0}
    )
    training = recipe.training.model_copy(
        update={
            "batch_tokens": LEARNING_POSITIONS,
            "accumulate": 1,
            "growth": None,
            "optim": optim,
            "average": 0.0,
            "validations": 0,
        }
    )
    return recipe.model_copy(update={"encoder": encoder, "objective": objective, "training": training})


def look_at_batch(resolved: Resolved[Recipe], stage: Stage) -> BatchView:
    """The first batch of a stage, packed from the first rows of the data (a run shuffles all of them)."""
    found = prepare(resolved, stage)
    batch, layout, tokenizer = found.batch, found.batch.layout, found.tokenizer
    ids = batch.values["ids"].numpy()
    hidden: dict[int, str] = {}
    if "at" in batch.truth and "target" in batch.truth:
        at, target = batch.truth["at"].numpy(), batch.truth["target"].numpy()
        at, real = at[: len(target)], target != IGNORED
        hidden = {int(place): tokenizer.token(int(token)) for place, token in zip(at[real], target[real])}
    document = layout.document.numpy()
    rows: list[list[Token]] = []
    for row in range(layout.rows):
        places = range(row * layout.length, (row + 1) * layout.length)
        rows.append(
            [
                Token(tokenizer.token(int(ids[place])), int(document[place]), hidden.get(place))
                for place in places
                if document[place] >= 0
            ]
        )
    return BatchView(
        stage.name,
        rows,
        layout.length,
        layout.documents,
        layout.real_tokens,
        layout.positions,
        len(hidden),
        _labels(found),
        found.described,
    )


def _labels(found: Prepared) -> list[str]:
    label = found.batch.truth.get("label")
    if label is None:
        return []
    names = getattr(found.objective, "labels", [])
    if label.dim() == 2:
        return [", ".join(names[n] for n in np.flatnonzero(row)) or "none" for row in label.numpy()]
    if not names:
        return [f"{number:g}" for number in label.tolist()]
    return [names[number] for number in label.tolist()]


# -- can it learn? ---------------------------------------------------------------------------------


@dataclass(frozen=True)
class LearningView:
    """The overfit-one-batch check of a stage: `losses` of each step on the same batch, `learned` the verdict."""

    stage: StageName
    losses: list[float]
    accuracy: float | None
    documents: int
    positions: int
    outcome: Literal["learned", "slowly", "not"]
    verdict: str


class _OneBatch(Loader):
    """A loader that gives the same batch for ever."""

    def __init__(self, batch: Batch, like: Loader) -> None:
        super().__init__(like.windows, like.maker, like.budget, like.pad_id, like.seed, False)
        self._batch = batch

    def epoch(self, place: Place, progress: Callable[[], float] = lambda: 0.0) -> Iterator[tuple[Batch, Place]]:
        del progress
        yield self._batch, Place(place.epoch + 1)


LEARNING_POSITIONS = 512
"""Positions of the batch that is learned by heart, rounded up to the longest text: some dozens of texts."""
LEARNED = 0.1
"""The loss must end below this share of where it began."""


def check_learning(
    resolved: Resolved[Recipe], stage: Stage, *, steps: int = 100, on_step: Callable[[int, float], None] | None = None
) -> LearningView:
    """Train the stage's model on its first batch alone, without dropout: the loss must fall near 0.

    Any model of useful size can learn a few documents by heart. When it cannot, the objective, the labels or the
    learning rate are broken, and no amount of data would help. It runs through the same loop as a real run.
    """
    found = prepare(resolved, stage, smallest=True)
    losses: list[float] = []
    accuracies: list[float] = []

    def remember(row: dict[str, Any]) -> None:
        losses.append(row["loss"])
        accuracies.append(row["accuracy"])
        if on_step is not None:
            on_step(len(losses), row["loss"])

    config = found.fit.config.model_copy(update={"budget": Budget("steps", steps)})
    loader = _OneBatch(found.batch, found.fit.loader)
    fit = replace(found.fit, loader=loader, config=config, on_step=remember, stopping=lambda: _settled(losses))
    fit.advance()
    kind = stage.recipe.objective.kind
    last = min(losses[-3:])
    outcome = "learned" if last < LEARNED * losses[0] else "slowly" if last < 0.5 * losses[0] else "not"
    return LearningView(
        stage.name,
        losses,
        None if kind == "regress" else accuracies[-1],
        found.batch.layout.documents,
        found.batch.layout.positions,
        outcome,
        _verdict(outcome, kind),
    )


def _settled(losses: list[float]) -> bool:
    """Nothing more to see: the last losses are all far below what is asked for."""
    return len(losses) >= 10 and max(losses[-3:]) < 0.3 * LEARNED * losses[0]


def _verdict(outcome: str, kind: str) -> str:
    if outcome == "learned":
        return "It learns: the loss fell near 0, so data, objective and model fit together."
    if outcome == "slowly":
        return (
            "It learns, but slowly: more steps (--steps 300) should bring the loss near 0; if not, widen the encoder."
        )
    if kind in ("masked", "knowledge"):
        return "It does not learn: the hidden tokens cannot be told apart. Look at 'encodery inspect batch'."
    return (
        "It does not learn: even these few rows cannot be told apart. Are the labels those of these texts, and are "
        "copies of a text labelled alike? Look at 'encodery inspect batch' and 'encodery inspect data'."
    )
