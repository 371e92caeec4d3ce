"""The judge of each kind of task."""

from __future__ import annotations

from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.judges.candidates import CandidateJudge
from encodery.evaluation.judges.choices import ChoiceJudge
from encodery.evaluation.judges.closeness import ClosenessJudge, SearchJudge
from encodery.evaluation.judges.documents import DocumentJudge
from encodery.evaluation.judges.judge import Judge
from encodery.evaluation.judges.language import LanguageJudge
from encodery.evaluation.judges.questions import QuestionJudge
from encodery.evaluation.judges.ranks import RankJudge
from encodery.evaluation.judges.tags import TagJudge
from encodery.evaluation.judges.writing import WritingJudge
from encodery.trained import Task


def judge_of(task: Task, tokenizer: Tokenizer) -> Judge:
    """Who judges the answers to this task; the tokenizer is for those who read texts."""
    if task.kind == "causal":
        return LanguageJudge(task, tokenizer)
    if task.kind == "write":
        return WritingJudge(task, tokenizer)
    if task.kind in ("classify", "multilabel", "regress"):
        return DocumentJudge(task)
    if task.kind == "embed":
        return ClosenessJudge(task) if task.detail.get("graded") else SearchJudge(task)
    if task.kind == "rank":
        return CandidateJudge(task)
    if task.kind == "ordinal":
        return RankJudge(task)
    if task.kind == "answer":
        return QuestionJudge(task, tokenizer)
    if task.kind == "choose":
        return ChoiceJudge(task)
    if task.kind == "tag":
        return TagJudge(task, tokenizer)
    raise ValueError(f"the answers of a model of the kind {task.kind} are not judged")
