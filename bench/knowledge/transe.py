"""TransE without any text: a vector for each entity and each relation (Bordes et al. 2013), for the link bench.

It is scored by the same parts of the library as the encoder (heads/links.py, evaluation/links.py) and learns by the
same loss; its wrong answers are drawn from all entities.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from encodery.data.links import Graph
from encodery.heads.links import LinkScores
from encodery.objectives.knowledge import link_loss


class TransE(nn.Module):
    """A table of entities (E, K) and the scores of triples by it."""

    def __init__(self, graph: Graph, *, width: int, margin: float, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.entities = nn.Embedding(len(graph.entities), width)
        self.links = LinkScores("transe", len(graph.relations), width, margin=margin)
        nn.init.normal_(self.entities.weight, 0.0, self.links.spread, generator=generator)
        self.links.initialise(generator)

    def fit(
        self,
        graph: Graph,
        *,
        seconds: float,
        batch: int,
        wrong: int,
        rate: float,
        temperature: float,
        seed: int,
        say: Callable[[str], None] = print,
    ) -> int:
        """Learn for some seconds; how many triples were seen. `wrong` entities are drawn for each batch, and are the
        wrong answers of all its questions."""
        rng = np.random.default_rng(seed)
        optimizer = torch.optim.Adam(self.parameters(), lr=rate, fused=True)
        begin, seen, epoch, told = time.perf_counter(), 0, 0, 0.0
        while True:
            order = rng.permutation(len(graph.train))
            for at in range(0, len(order), batch):
                done = (time.perf_counter() - begin) / seconds
                if done >= 1:
                    return seen
                for group in optimizer.param_groups:
                    group["lr"] = rate * (1 - done)
                drawn = torch.from_numpy(rng.integers(len(graph.entities), size=wrong))
                triples = torch.from_numpy(graph.train[order[at : at + batch]])
                loss = self._loss(triples, drawn, temperature)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                seen += len(triples)
                if told + 0.1 <= done:
                    told = done
                    say(f"  transe: {done:4.0%} of the time, epoch {epoch}, loss {float(loss.detach()):.3f}")
            epoch += 1

    def _loss(self, triples: Tensor, drawn: Tensor, temperature: float) -> Tensor:
        """Each question has its own answer in the first column and the drawn entities behind it."""
        head, relation, tail = triples.unbind(1)
        others = self.entities(drawn)
        is_wrong = torch.ones(len(triples), 1 + len(drawn), dtype=torch.bool)
        is_wrong[:, 0] = False
        first = torch.zeros(len(triples), dtype=torch.int64)
        losses = []
        for known, answer, for_tails in ((head, tail, True), (tail, head, False)):
            question = self.links.questions(self.entities(known), relation, for_tails=for_tails)
            own = self.links.margin - (question - self.entities(answer)).norm(dim=1)
            scores = torch.cat([own[:, None], self.links.compare(question, others)], dim=1)
            losses.append(link_loss(scores, first, is_wrong, temperature=temperature)[0].mean())
        return losses[0] + losses[1]
