"""Linear answers that stand beside the encoder's: which readouts have one, and how it is fitted before training."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from torch import nn

from encodery.batch import Batch
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.store import TokenStore
from encodery.data.tokenizers import Tokenizer
from encodery.heads.readouts import DocumentReadout
from encodery.heads.spans import SpanReadout
from encodery.heads.tagging.tags import TagReadout
from encodery.objectives.linear_tags import fit_tag_words
from encodery.objectives.questions import with_answers_as_labels
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.objectives.tagging import Tagging
from encodery.training.loop import Objective
from encodery.training.ngrams import fit_ngrams

if TYPE_CHECKING:
    from encodery.training.run import Run


def has_linear_answer(readout: nn.Module) -> bool:
    """Whether something has to be fitted before the encoder learns."""
    return isinstance(readout, DocumentReadout | SpanReadout | TagReadout) and readout.lexical is not None


def fit_linear_answer(
    run: Run,
    readout: nn.Module,
    objective: Objective,
    tokenizer: Tokenizer,
    known: TokenStore,
    held: TokenStore | None,
) -> None:
    """Set the weights of the linear answer from the training rows `known`; validation rows choose between ways."""
    assert isinstance(readout, DocumentReadout | SpanReadout | TagReadout) and readout.lexical is not None
    training, during = run.recipe.training, "fitting the linear answer"
    run.progress.say(during)
    readout.lexical.spell(tokenizer.spelling())
    # In random order, so that the part looked at is a fair one.
    shuffled = replace(run.loader(known, tokenizer, training), windows=StoredWindows(known, seed=run.recipe.seed))
    in_order = run.loader(held, tokenizer, training) if held else None

    def batches() -> tuple[Iterator[Batch], Iterator[Batch] | None]:
        """Of training and validation rows, from the beginning."""
        return _of(shuffled), _of(in_order) if in_order else None

    heed_stop = partial(run.heed_stop, during)
    readout.cpu()
    if isinstance(readout, TagReadout):
        assert isinstance(objective, Tagging), "words and affixes stand beside tags"
        way = fit_tag_words(readout, objective, *batches(), run.recipe.seed, heed_stop)
        if readout.class_lexical is not None:
            readout.class_lexical.spell(tokenizer.spelling())
            of_text = Supervised(SupervisedConfig(), labels=objective.classes)
            way += f"; of the class {fit_ngrams(readout.class_lexical, of_text, *batches(), heed_stop)}"
    elif isinstance(readout, SpanReadout):
        answerable = Supervised(SupervisedConfig(), labels=["no answer", "answer"])
        train, validation = batches()
        labelled = with_answers_as_labels(validation) if validation else None
        way = fit_ngrams(readout.lexical, answerable, with_answers_as_labels(train), labelled, heed_stop)
    else:
        assert isinstance(objective, Supervised), "n-grams stand beside answers about documents"
        way = fit_ngrams(readout.lexical, objective, *batches(), heed_stop)
    readout.to(run.device)
    run.progress.say(f"linear answer: {way}")


def _of(loader: Loader) -> Iterator[Batch]:
    return (batch for batch, _ in loader.epoch(Place()))
