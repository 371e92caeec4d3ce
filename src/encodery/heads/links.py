"""Which entities does a relation hold between: scores of (head, relation, tail) from vectors of entities.

    transe    margin - || h + r - t ||                       Bordes et al. 2013, "Translating Embeddings", section 2
    distmult  sum_k h_k r_k t_k                              Yang et al. 2015, section 3, a diagonal bilinear form
    rotate    margin - sum_k | h_k r_k - t_k |, |r_k| = 1    Sun et al. 2019, RotatE, section 3.1; numbers are complex

Each is a comparison of two vectors, a question (what a known entity and a relation ask for) and an answer, which is an
entity. So one question is compared with all entities at once.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from encodery.batch import Batch, Output, States
from encodery.bricks.products import Linear
from encodery.frontends.text import TextFrontend
from encodery.heads.options import LinkReadoutConfig, LinkScoreName
from encodery.heads.readouts import WordReadout


class LinkScores(nn.Module):
    """Vectors of entities (E, K) and learned ones of relations -> scores. All in float32."""

    def __init__(self, name: LinkScoreName, relations: int, width: int, *, margin: float) -> None:
        super().__init__()
        assert name != "rotate" or width % 2 == 0, "complex numbers need an even width"
        self.name = name
        self.margin = margin
        self.relations = nn.Embedding(relations, width // 2 if name == "rotate" else width)

    def initialise(self, generator: torch.Generator) -> None:
        """Turns begin anywhere, shifts small, and factors near 1: a relation then asks for what is alike."""
        with torch.no_grad():
            if self.name == "rotate":
                self.relations.weight.uniform_(-math.pi, math.pi, generator=generator)
            else:
                self.relations.weight.normal_(1.0 if self.name == "distmult" else 0.0, 0.1, generator=generator)

    @property
    def spread(self) -> float:
        """The spread of the numbers of entities to begin with: two of them are then about the margin apart, and the
        products of two about 1 in size."""
        width = self.relations.embedding_dim
        if self.name == "transe":
            return self.margin / math.sqrt(2 * width)
        if self.name == "rotate":
            return self.margin / (math.sqrt(math.pi) * width)  # the mean length of a complex difference is sqrt(pi)
        return width**-0.25

    def questions(self, known_QK: Tensor, relation_Q: Tensor, *, for_tails: bool) -> Tensor:
        """What heads (or, not `for_tails`, what tails) and their relations ask for: (Q, K)."""
        relation = self.relations(relation_Q).float()
        known_QK = known_QK.float()
        if self.name == "distmult":
            return known_QK * relation
        if self.name == "transe":
            return known_QK + relation if for_tails else known_QK - relation
        # A turn changes no distance: | h r - t | = | h - t / r |.
        cosine, sine = torch.cos(relation), torch.sin(relation) * (1.0 if for_tails else -1.0)
        real, imaginary = known_QK.chunk(2, dim=-1)
        return torch.cat([real * cosine - imaginary * sine, real * sine + imaginary * cosine], dim=-1)

    def compare(self, question_QK: Tensor, entity_EK: Tensor) -> Tensor:
        """The score of every entity as the answer of every question: (Q, E)."""
        entity_EK = entity_EK.float()
        if self.name == "distmult":
            return question_QK @ entity_EK.T
        if self.name == "transe":
            return self.margin - _distances(question_QK, entity_EK)
        real, imaginary = (
            question[:, None] - entity[None]
            for question, entity in zip(question_QK.chunk(2, -1), entity_EK.chunk(2, -1))
        )
        # The root has no slope at 0.
        return self.margin - (real.square() + imaginary.square() + 1e-12).sqrt().sum(-1)


def _distances(question_QK: Tensor, entity_EK: Tensor) -> Tensor:
    """How far every question is from every entity: (Q, E).

    While learning by products, | q |^2 + | e |^2 - 2 q e, which is several times faster there and back. In use by
    differences: products lose the small distances, and equal entities their ties.
    """
    if not torch.is_grad_enabled():
        return torch.cdist(question_QK, entity_EK, compute_mode="donot_use_mm_for_euclid_dist")
    own_Q1, own_1E = question_QK.square().sum(1, keepdim=True), entity_EK.square().sum(1)[None]
    return torch.addmm(own_Q1 + own_1E, question_QK, entity_EK.T, alpha=-2).clamp_min(1e-6).sqrt()


class LinkReadout(WordReadout):
    """States of the hidden words and of the first tokens of E descriptions, (M + E, D) -> logits (M, V) and links.

    An entity is the vector of the first token of its description, projected to K numbers (KEPLER, Wang et al. 2021,
    section 3.2, where it is that vector itself). `truth["triples"]` (T, 3) are the numbers of heads and tails among the
    E, and of relations; without them only words are read.
    """

    def __init__(self, config: LinkReadoutConfig, width: int, frontend: TextFrontend) -> None:
        super().__init__(config, width, frontend)
        self.project = Linear(width, config.link_width)
        self.links = LinkScores(config.score, config.relations, config.link_width, margin=config.margin)

    def initialise(self, generator: torch.Generator) -> None:
        super().initialise(generator)
        self.links.initialise(generator)
        with torch.no_grad():  # what comes from the encoder has about the size 1 in each channel
            std = self.links.spread / math.sqrt(self.project.in_features)
            self.project.weight.normal_(0.0, std, generator=generator)

    def entities(self, vectors_ED: Tensor) -> Tensor:
        """(E, D) -> (E, K), in float32."""
        with torch.autocast(vectors_ED.device.type, enabled=False):
            return self.project(vectors_ED.float())

    def forward(self, states: States, batch: Batch) -> Output:
        hidden = len(batch.truth["target"])
        words = super().forward(States(states.vectors[:hidden], states.layout, balance=states.balance), batch)
        if "triples" not in batch.truth:
            return words
        number = len(batch.truth["entity"])
        entity_EK = self.entities(states.vectors[hidden : hidden + number])
        head, relation, tail = batch.truth["triples"].unbind(1)
        with torch.autocast(entity_EK.device.type, enabled=False):
            questions = [
                self.links.questions(entity_EK[known], relation, for_tails=for_tails)
                for known, for_tails in ((head, True), (tail, False))
            ]
            links = self.links.compare(torch.cat(questions), entity_EK)
        return Output(logits=words.logits, vectors=entity_EK, balance=words.balance, links=links)
