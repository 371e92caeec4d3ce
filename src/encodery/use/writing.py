"""Texts written for texts, by a decoder, or on from prompts, by a language model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from encodery.data.fields import Field
from encodery.data.samples import LengthCounts
from encodery.data.sources import DataConfig, Row
from encodery.data.store import TokenStore
from encodery.data.targets import TargetField
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError
from encodery.evaluation.judges.writing import target_tokenizer_of
from encodery.heads.decoding.generation import Written
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.decoding.writing import check_goes_on, write_from_prompts, write_from_sources
from encodery.problems import problems_of
from encodery.trained import Task, Trained
from encodery.use.answers import Answerer

if TYPE_CHECKING:
    from encodery.use.predict import Predictor


def generation_of(task: Task, changes: Mapping[str, Any]) -> GenerationConfig:
    """How texts are written: as the model's recipe says, with these changes. Raises ConfigError for what cannot be."""
    given = {**task.detail.get("generation", {}), **changes}
    # What is asked for stands above what the recipe says of the other way to choose.
    if changes.get("sample") and "beam" not in changes:
        given["beam"] = 1
    if changes.get("beam") and not changes.get("sample"):
        given |= {"sample": False, "temperature": 1.0, "top_k": 0, "top_p": 1.0}
        given |= {name: value for name, value in changes.items() if name in ("temperature", "top_k", "top_p")}
    try:
        return GenerationConfig(**given)
    except ValidationError as error:
        found = problems_of(error, GenerationConfig)
        given = "; ".join(f"{one.key} {one.given}".strip() for one in found)
        raise ConfigError(given, expected="; ".join(one.expected for one in found if one.expected)) from None


class WritingAnswerer(Answerer):
    """write: {"text": what was written, "log_probability": of all its tokens}, and with a beam and `top` more than 1
    the next best ones in "others". `Predictor.generation` says how texts are written; None: as the model's recipe."""

    def __init__(self, trained: Trained) -> None:
        super().__init__(trained)
        self.tokenizer: Tokenizer = target_tokenizer_of(trained.task) or trained.tokenizer

    def fields(self, data: DataConfig | None) -> tuple[Field, ...]:
        """The targets of rows that are to be scored; without `data` there are none."""
        if data is None:
            return ()
        if data.target is None:
            raise DataError("nothing says which column holds the targets", fix="add --target COLUMN")
        texts = (data.text,) if isinstance(data.text, str) else tuple(data.text)
        own = target_tokenizer_of(self.trained.task)
        return (TargetField(data.target, texts, own, own is not None),)

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        del rows
        maker = replace(self.trained.maker(), long="cut")
        counts = LengthCounts()
        sources = [maker.single(*store.text(row), row, counts)[0] for row in range(store.rows)]
        options = using.generation or generation_of(self.trained.task, {})
        pad_id = self.trained.tokenizer.pad_id
        found = write_from_sources(using.model, sources, self.tokenizer, options, pad_id, using.autocast)
        for texts in found:
            yield told([self._said(one) for one in texts], top)

    def _said(self, one: Written) -> dict[str, Any]:
        return {"text": self.tokenizer.decode(one.ids), "log_probability": round(one.score, 4)}


class ContinuingAnswerer(Answerer):
    """causal: {"text": the prompt and what was written on from it, "written": that alone, "log_probability": of its
    tokens}, and with a beam and `top` more than 1 the next best ones in "others"."""

    def check(self) -> None:
        check_goes_on(self.trained.model)

    def answers(self, using: Predictor, rows: Sequence[Row], store: TokenStore, top: int | None) -> Iterator[Any]:
        tokenizer = self.trained.tokenizer
        prompts = [store.text(row)[0] for row in range(store.rows)]
        options = using.generation or generation_of(self.trained.task, {})
        found = write_from_prompts(using.model, prompts, tokenizer, options, using.autocast)
        for row, prompt, texts in zip(rows, prompts, found):
            # What follows the prompt depends on it: a space stands before a word, none before the rest of one.
            begin = tokenizer.decode(prompt)
            said = []
            for one in texts:
                whole = tokenizer.decode([*prompt.tolist(), *one.ids])
                written = whole[len(begin) :] if whole.startswith(begin) else " " + tokenizer.decode(one.ids)
                said.append({"text": row.text + written, "written": written, "log_probability": round(one.score, 4)})
            yield told(said, top)


def told(texts: list[dict[str, Any]], top: int | None) -> dict[str, Any]:
    """The best of several, with the next ones where they are asked for."""
    if not texts:
        return {"text": "", "log_probability": None}
    others = texts[1 : top or 1]
    return {**texts[0], "others": others} if others else texts[0]
