"""Hidden words and triples learned together by one encoder: KEPLER (Wang et al. 2021).

    L = L_words + weight L_links                                          section 3.4, where both weigh the same

The entities of a triple are encoded from their descriptions by the same encoder that reads the texts; relations are
vectors of their own. Each triple asks two questions, for its tail and for its head. All other entities of the batch are
wrong answers, but for those known to be right and the one that is asked about:

    L_links = - log sigmoid(score of the answer) - sum_i p_i log sigmoid(- score of wrong answer i)
    p_i     = exp(temperature score_i) / sum_j exp(temperature score_j)   RotatE, Sun et al. 2019, section 3.2
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.data.links import Graph
from encodery.data.tokenizers import Tokenizer
from encodery.heads.options import LinkReadoutConfig, LinkScoreName
from encodery.objectives.masked import Loss, Masked, MaskedConfig

ROUNDED_TO = 32
"""The number of positions that entities are read from is a multiple of this, so that few shapes are seen."""


class KnowledgeMaskedConfig(MaskedConfig):
    """Hidden words, and triples beside them; `data.knowledge.triples` names these."""

    kind: Literal["knowledge"] = "knowledge"  # pyright: ignore[reportIncompatibleVariableOverride]
    score: LinkScoreName = "transe"
    """How a triple is scored: transe (Bordes et al. 2013), distmult (Yang et al. 2015), rotate (Sun et al. 2019)."""
    link_width: int = Field(default=128, ge=2, le=4096)
    """Numbers in the vector of an entity that is scored."""
    margin: float = Field(default=9.0, ge=0, le=1000)
    """For transe and rotate: the distance at which a triple is as likely true as not."""
    temperature: float = Field(default=1.0, ge=0, le=100)
    """How much more the wrong answers count that are close to right (self-adversarial sampling); 0: all alike."""
    weight: float = Field(default=1.0, ge=0, le=1000)
    """Of the triples' loss beside that of the words."""
    entity_share: float = Field(default=0.5, gt=0, lt=1)
    """Share of a batch's positions that descriptions of entities take."""
    entity_tokens: int = Field(default=64, ge=4)
    """Longest description in tokens, special tokens included; longer ones lose their end."""

    @model_validator(mode="after")
    def _complex_numbers_have_two_parts(self) -> KnowledgeMaskedConfig:
        if self.score == "rotate" and self.link_width % 2:
            raise ValueError(f"score rotate needs an even link_width; {self.link_width + 1} is one")
        return self


class KnowledgeMasked(Masked):
    """The objective: hides tokens of the texts, asks for the missing part of each triple."""

    config: KnowledgeMaskedConfig

    def __init__(
        self,
        config: KnowledgeMaskedConfig,
        graph: Graph,
        *,
        vocab_size: int,
        mask_id: int,
        special_ids: frozenset[int],
    ) -> None:
        super().__init__(config, vocab_size=vocab_size, mask_id=mask_id, special_ids=special_ids)
        self.graph = graph

    @classmethod
    def joint(cls, config: KnowledgeMaskedConfig, tokenizer: Tokenizer, graph: Graph) -> KnowledgeMasked:
        """The objective for the vocabulary of `tokenizer` and the triples of `graph`."""
        special = frozenset(tokenizer.special_ids)
        return cls(config, graph, vocab_size=tokenizer.vocab_size, mask_id=tokenizer.mask_id, special_ids=special)

    def readout(self) -> LinkReadoutConfig:
        return link_readout(self.config, len(self.graph.relations))

    def prepare(self, batch: Batch, rng: np.random.Generator, progress: float) -> Batch:
        """Hide tokens of the texts. `truth["at"]` goes on with the first tokens of the entities (E, rounded up), and
        gets `answer` (2 T,), the place of each question's answer among the E entities, and `wrong` (2 T, E), true for
        those that are not known to be right. Questions for tails come first."""
        batch = super().prepare(batch, rng, progress)
        if "triples" not in batch.truth:
            return batch
        first = batch.layout.starts[batch.truth["entity"]]
        spare = first.new_zeros(-len(first) % ROUNDED_TO)
        head, _, tail = batch.truth["triples"].unbind(1)
        more = {
            "at": torch.cat([batch.truth["at"], first, spare]),
            "answer": torch.cat([tail, head]),
            "wrong": self._wrong(batch.truth["triples"].numpy(), batch.truth["entity_id"].numpy()),
        }
        return replace(batch, truth={**batch.truth, **more})

    def loss(self, output: Output, batch: Batch) -> Loss:
        """The loss of the words, and for each of them `weight` times the mean loss of the questions."""
        words = super().loss(output, batch)
        if output.links is None or not output.links.numel():
            return words
        each_Q, right_Q = link_loss(
            output.links, batch.truth["answer"], batch.truth["wrong"], temperature=self.config.temperature
        )
        links = each_Q.mean()
        parts = {"link_loss": links.detach(), "link_accuracy": right_Q.float().mean()}
        return replace(words, total=words.total + self.config.weight * words.count * links, parts=parts)

    def _texts(self, batch: Batch) -> np.ndarray:
        document = batch.layout.without_branches().document.numpy()
        return (document >= 0) & (document < self._first_entity(batch))

    def _text_positions(self, batch: Batch) -> int:
        """Up to the row of the first entity."""
        first, layout = self._first_entity(batch), batch.layout
        if first == layout.documents:
            return layout.positions
        return int(layout.starts[first]) // layout.length * layout.length

    def _first_entity(self, batch: Batch) -> int:
        entity = batch.truth.get("entity")
        return int(entity[0]) if entity is not None and len(entity) else batch.layout.documents

    def _wrong(self, triples_T3: np.ndarray, ids_E: np.ndarray) -> Tensor:
        """(2 T, E) bool."""
        wrong = np.ones((2, len(triples_T3), len(ids_E)), dtype=bool)
        for for_tails, side in ((True, wrong[0]), (False, wrong[1])):
            for row, (head, relation, tail) in enumerate(triples_T3.tolist()):
                known = ids_E[head if for_tails else tail]
                right = self.graph.learned.of(int(known), relation, for_tails=for_tails)
                side[row] = right[np.searchsorted(right, ids_E).clip(max=right.size - 1)] != ids_E
                # A draw from all entities would hardly ever give the one that is asked about. Here it is always there,
                # close to its own answer, and would take all the weight of the wrong ones.
                side[row, head if for_tails else tail] = False
        return torch.from_numpy(wrong.reshape(-1, len(ids_E)))


def link_readout(config: KnowledgeMaskedConfig, relations: int) -> LinkReadoutConfig:
    """The readout that the objective needs."""
    return LinkReadoutConfig(
        relations=relations, score=config.score, link_width=config.link_width, margin=config.margin
    )


def link_loss(links_QE: Tensor, answer_Q: Tensor, wrong_QE: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """The loss of each question (Q,), and whether its answer has the highest score of it and all wrong ones (Q,).

    `links` (Q, E) are scores, `answer` (Q,) the place of the right one, `wrong` (Q, E) true for those that are wrong.
    """
    links_QE = links_QE.float()
    right_Q1 = links_QE.gather(1, answer_Q[:, None])
    among = links_QE.detach().masked_fill(~wrong_QE, -torch.inf)
    # Where all other entities are right there is no wrong one to learn from: the row becomes one of zeros.
    share = torch.softmax((temperature * among).masked_fill(~wrong_QE, -torch.inf), 1).masked_fill(~wrong_QE, 0.0)
    against = (share * F.logsigmoid(-links_QE)).sum(1)
    highest = among.amax(1)
    return -F.logsigmoid(right_Q1[:, 0]) - against, right_Q1[:, 0].detach() > highest
