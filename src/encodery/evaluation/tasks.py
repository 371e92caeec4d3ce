"""The judge of each kind of task."""

from __future__ import annotations

from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.documents import DocumentJudge
from encodery.evaluation.judges import Judge
from encodery.trained import Task


def judge_of(task: Task, tokenizer: Tokenizer) -> Judge:
    """Who judges the answers to this task; the tokenizer is for those who read texts."""
    del tokenizer
    if task.kind in ("classify", "multilabel", "regress"):
        return DocumentJudge(task)
    raise ValueError(f"the answers of a model of the kind {task.kind} are not judged")
