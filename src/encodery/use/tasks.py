"""The answerer of each kind of task."""

from __future__ import annotations

from encodery.trained import Trained
from encodery.use.answers import Answerer, ClassAnswerer, ClassesAnswerer, NumberAnswerer, Silent
from encodery.use.closeness import BelongingAnswerer, CandidateAnswerer, ClosenessAnswerer, GradeAnswerer
from encodery.use.pointing import ChoiceAnswerer, QuestionAnswerer, RankAnswerer
from encodery.use.replaced import ReplacedAnswerer
from encodery.use.tagging import TagAnswerer
from encodery.use.writing import ContinuingAnswerer, WritingAnswerer

ANSWERERS: dict[str, type[Answerer]] = {
    "classify": ClassAnswerer,
    "multilabel": ClassesAnswerer,
    "regress": NumberAnswerer,
    "ordinal": RankAnswerer,
    "answer": QuestionAnswerer,
    "choose": ChoiceAnswerer,
    "tag": TagAnswerer,
    "write": WritingAnswerer,
    "replaced": ReplacedAnswerer,
    "causal": ContinuingAnswerer,
}


def answerer_of(trained: Trained) -> Answerer:
    """The answerer for the task of a model; one that only embeds answers nothing."""
    task = trained.task
    if task.kind == "embed":
        return (ClosenessAnswerer if task.detail.get("graded") else BelongingAnswerer)(trained)
    if task.kind == "rank":
        return (GradeAnswerer if task.detail.get("grades") else CandidateAnswerer)(trained)
    return ANSWERERS.get(task.kind, Silent)(trained)
