"""A trained thing in memory: model, tokenizer and what it was asked; to a model folder and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import tokenizers
import torch
from pydantic import ValidationError

from encodery.bundle import check_fit, read_bundle, write_bundle
from encodery.data.branches import KnowledgeWriter
from encodery.data.knowledge import Knowledge
from encodery.data.mentions import Linker
from encodery.data.samples import SampleMaker
from encodery.data.tokenizers import Tokenizer
from encodery.errors import WeightsError
from encodery.model import Model, ModelConfig

TaskKind = Literal[
    "masked",
    "replaced",
    "vectors",
    "classify",
    "multilabel",
    "regress",
    "ordinal",
    "tag",
    "answer",
    "choose",
    "rank",
    "embed",
    "write",
    "causal",
]


@dataclass(frozen=True)
class Task:
    """What a model was asked: needed to read its logits.

    `center` and `scale` undo the standardisation of numbers; `temperature` divides logits before they become
    probabilities; `paired`, `long` and `max_tokens` (None: what the encoder can hold) say how its samples are made.
    `compose` names how its samples are made of a row (data/composing.py); `detail` holds what else its kind needs, as
    JSON. `prompts` are texts by name that can be put before what is asked; `prompt` names the one that always is.
    """

    kind: TaskKind
    labels: tuple[str, ...] = ()
    center: float = 0.0
    scale: float = 1.0
    temperature: float = 1.0
    paired: bool = False
    long: Literal["split", "cut"] = "split"
    max_tokens: int | None = None
    prompts: dict[str, str] = field(default_factory=dict)
    prompt: str | None = None
    compose: str = "joined"
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def joins_pairs(self) -> bool:
        """Whether the encoder reads the two texts of a pair as one document; else each stands by itself."""
        return self.paired and self.compose != "apart"


@dataclass
class Trained:
    """A model with everything needed to use it. `notes` say what is worth knowing of how it came to be here;
    `knowledge` is what it knows of the entities that texts mention."""

    model: Model
    tokenizer: Tokenizer
    task: Task
    notes: tuple[str, ...] = ()
    knowledge: Knowledge | None = None

    def maker(self) -> SampleMaker:
        """How its samples are made: special tokens, longest length, what happens to longer texts."""
        longest = self.model.config.encoder.max_length
        if self.task.max_tokens is not None:
            longest = min(longest, self.task.max_tokens)
        given = (self.tokenizer.frame, longest, self.task.long, self.writer(), self.task.compose)
        return SampleMaker.framed(*given)

    def writer(self) -> KnowledgeWriter | None:
        """What writes its knowledge into samples."""
        return None if self.knowledge is None else KnowledgeWriter(self.knowledge, self.tokenizer)

    def linker(self) -> Linker | None:
        """What finds the entities that texts mention."""
        return None if self.knowledge is None else Linker(self.knowledge)

    def save(self, folder: Path, *, card: str, metrics: dict[str, Any]) -> None:
        """Write the model folder: config.json, model.safetensors, tokenizer.json, card.md, metrics.json; and
        knowledge.json where it knows of entities."""
        write_bundle(
            folder,
            config={
                "model": self.model.config.model_dump(mode="json"),
                "task": asdict(self.task),
                "tokenizer": self.tokenizer.facts(),
            },
            weights={name: value.detach() for name, value in self.model.state_dict().items()},
            tokenizer_json=self.tokenizer.to_json(),
            card=card,
            metrics=metrics,
            knowledge_json=None if self.knowledge is None else self.knowledge.to_json(),
        )

    @classmethod
    def load(cls, folder: Path) -> Trained:
        """Open a model folder.

        Raises WeightsError when it is not one, is damaged, or its weights do not fit its config.
        """
        files = read_bundle(folder)
        try:
            config = ModelConfig.model_validate(files.config["model"])
            task = Task(**{**files.config["task"], "labels": tuple(files.config["task"]["labels"])})
            knowledge = None if files.knowledge_json is None else Knowledge.from_json(files.knowledge_json)
        except (KeyError, TypeError, ValidationError) as error:
            raise WeightsError(
                f"{folder / 'config.json'} does not describe a model of this version: {error}",
                fix="use the version of encodery that wrote it, or write the folder again",
            ) from error
        if files.tokenizer_json is None:
            raise WeightsError(f"{folder} has no tokenizer.json", fix="copy it from the run that made the folder")
        tokenizer = Tokenizer(
            tokenizers.Tokenizer.from_str(files.tokenizer_json),
            files.config.get("tokenizer"),
            where=str(folder / "tokenizer.json"),
        )
        with torch.device("meta"):
            expected = {name: tuple(value.shape) for name, value in Model(config).state_dict().items()}
        check_fit(expected, {name: tuple(value.shape) for name, value in files.weights.items()})
        # Other makers round the rows of the table up; a converted tokenizer says to how many.
        rows = tokenizer.facts().get("rows", tokenizer.vocab_size)
        if rows != config.frontend.vocab_size or tokenizer.vocab_size > rows:
            raise WeightsError(
                f"{folder}: the tokenizer has {tokenizer.vocab_size} tokens, the model {config.frontend.vocab_size}",
                fix="the tokenizer.json is of another model: copy the right one",
            )
        model = Model(config)
        model.load_state_dict(files.weights)
        return cls(model.eval(), tokenizer, task, knowledge=knowledge)
