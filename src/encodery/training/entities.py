"""What a run knows of the entities that its texts mention: gathered once, before anything learns."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from encodery.data.branches import KnowledgeWriter
from encodery.data.knowledge import Knowledge, gather_knowledge
from encodery.data.sources import Row, Split, has_split
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.kinds import EncoderConfig
from encodery.encoders.options import FusionConfig, TransformerConfig
from encodery.encoders.transformer import Transformer
from encodery.errors import ConfigError
from encodery.frontends.options import VectorsConfig
from encodery.frontends.static_vectors import StaticVectors, read_vectors, shape_of
from encodery.model import Model
from encodery.trained import Trained
from encodery.training.recipe import Recipe


@dataclass
class EntityKnowledge:
    """Shared by all stages and models of a run. `facts` are for the report."""

    knowledge: Knowledge | None = None
    vectors: StaticVectors | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def gather(
        self, recipe: Recipe, base: Path, start: Trained | None, rows: Callable[[Split], Iterator[Row]]
    ) -> EntityKnowledge:
        """Read the files of the recipe, and which entities the training rows mark; where there are vectors of a file,
        those that validation and test rows mark as well. A starting point that has learned its entities keeps them.

        Raises DataError for files that are missing or damaged, and when nothing tells of any entity.
        """
        config = recipe.data.knowledge
        start_encoder = start.model.config.encoder if start is not None else recipe.encoder
        if config is None or (fusion_of(start_encoder) is None and config.inject is None):
            return self
        marked: set[str] = set()
        if config.mentions is not None:
            splits: list[Split] = ["train", "validation", "test"] if config.vectors is not None else ["train"]
            for split in splits:
                if has_split(recipe.data, split):
                    marked.update(one.entity for row in rows(split) for one in row.mentions)
        kept = start.knowledge.entities if start is not None and start.knowledge is not None else ()
        self.knowledge = gather_knowledge(config, base, marked, kept)
        self.facts["entities known"] = len(self.knowledge.entities)
        if self.knowledge.names:
            self.facts["names looked for"] = len(self.knowledge.names)
        if self.knowledge.inject is not None:
            self.facts["triples known"] = len(self.knowledge.facts)
        if config.vectors is not None and start is None and fusion_of(recipe.encoder) is not None:
            self.vectors = read_vectors(VectorsConfig(path=config.vectors), base, self.knowledge.entities)
            self.facts["entities with a vector of the file"] = self.vectors.rows
        return self

    def encoder(self, config: EncoderConfig, recipe: Recipe, base: Path) -> EncoderConfig:
        """The encoder with what files decide: how many entities it has vectors for, and how wide these are.

        Raises ConfigError where the recipe says otherwise.
        """
        fusion = fusion_of(config)
        if fusion is None or self.knowledge is None:
            return config
        known = recipe.data.knowledge
        entities, width = len(self.knowledge.entities), fusion.width
        if known is not None and known.vectors is not None:
            width = shape_of(known.vectors, base).numbers
        for name, given, found in (("entities", fusion.entities, entities), ("width", fusion.width, width)):
            if given not in (None, found) and name in fusion.model_fields_set:
                raise ConfigError(
                    f"encoder.fusion.{name} is {given:,}, and data.knowledge tells of {found:,}",
                    fix=f"leave encoder.fusion.{name} out",
                )
        told = fusion.model_dump() | {"entities": entities, "width": width}
        try:
            return TransformerConfig.model_validate(config.model_dump() | {"fusion": told})
        except ValidationError as error:
            raise ConfigError(f"{known.vectors if known else ''}: {error.errors()[0]['msg']}") from None

    @torch.no_grad()
    def give(self, model: Model) -> None:
        """Start a new model's table of entities with the vectors of the file; those that it lacks are drawn alike."""
        if self.vectors is None or not isinstance(model.encoder, Transformer) or model.encoder.fusion is None:
            return
        table, found = model.encoder.fusion.entities.weight, torch.from_numpy(self.vectors.found)
        given = torch.from_numpy(self.vectors.matrix)
        table.mul_(given[found].std() / table.std().clamp_min(1e-8))
        table[found] = given[found].to(table.device)

    def writer(self, tokenizer: Tokenizer) -> KnowledgeWriter | None:
        """What writes it into samples; None where there is none."""
        return None if self.knowledge is None else KnowledgeWriter(self.knowledge, tokenizer)


def fusion_of(config: EncoderConfig) -> FusionConfig | None:
    """The options of the entities' side of an encoder, where it has one."""
    return config.fusion if isinstance(config, TransformerConfig) else None
