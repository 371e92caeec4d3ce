"""Fit the linear answer about units on the training rows, before the encoder learns: a linear-chain model, seconds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.heads.tagging.tags import TagReadout
from encodery.objectives.tagging import Tagging

# More units than these change the answer hardly at all, and their features lie in memory.
FITTED_UNITS = 2_000_000
MOST_PASSES = 12
LEAST_GAIN = 0.997  # of the validation loss; after two passes that gain less it ends
PATIENCE = 2
RATE = 0.1


@dataclass(frozen=True)
class _Known:
    """What the units of a batch look like, and what they are."""

    features: Tensor
    batch: Batch


def fit_tag_words(
    readout: TagReadout,
    objective: Tagging,
    known: Iterable[Batch],
    held: Iterable[Batch] | None,
    seed: int,
    heed_stop: Callable[[], None] = lambda: None,
) -> str:
    """Set the weights of `readout.lexical` from the tagged batches `known`; returns in words what was done.

    Its loss is that of the objective, so with crf it is a conditional random field on the features alone (Lafferty et
    al. 2001), learned by Adagrad (Duchi et al. 2011): rare features, which are most, take large steps. It ends where
    the loss of the batches `held` does, without these after a few passes over the rows.
    """
    words = readout.lexical
    assert words is not None
    seen = _gathered(readout, objective, known, FITTED_UNITS)
    checked = None if held is None else _gathered(readout, objective, held, FITTED_UNITS // 10)
    learned = [words.get_parameter(name).requires_grad_(True) for name in words.learned(objective.config.crf)]
    optimizer = torch.optim.Adagrad(learned, lr=RATE)
    rng = np.random.default_rng(seed)
    best, at_best, number = np.inf, 0, 0
    passes = MOST_PASSES if checked else MOST_PASSES // 2
    kept = [part.detach().clone() for part in learned]
    for number in range(1, passes + 1):
        for place in rng.permutation(len(seen)):
            heed_stop()
            optimizer.zero_grad()
            total, count = _loss(readout, objective, seen[place])
            (total / count).backward()
            optimizer.step()
        with torch.inference_mode():
            losses = [_loss(readout, objective, one) for one in checked or seen]
        loss = float(sum(total for total, _ in losses)) / float(sum(count for _, count in losses))
        gains = checked is None or loss < best * LEAST_GAIN
        if checked is None or loss < best:
            best, kept = loss, [part.detach().clone() for part in learned]
        at_best = number if gains else at_best
        if number - at_best >= PATIENCE:
            break
    with torch.no_grad():
        for part, value in zip(learned, kept):
            part.copy_(value).requires_grad_(False)
    return f"{number} passes over the rows, loss {best:.3f} a unit"


def _gathered(readout: TagReadout, objective: Tagging, batches: Iterable[Batch], most: int) -> list[_Known]:
    assert readout.lexical is not None
    found: list[_Known] = []
    units, rng = 0, np.random.default_rng(0)
    for batch in batches:
        with torch.inference_mode(False):
            features = readout.lexical.features(batch)
        if len(features):
            found.append(_Known(features, replace(objective.prepare(batch, rng, 1.0), values={})))
        units += len(features)
        if units >= most:
            break
    return found


def _loss(readout: TagReadout, objective: Tagging, one: _Known) -> tuple[Tensor, Tensor]:
    assert readout.lexical is not None
    output = Output(readout.lexical.scores(one.features), chain=readout.chains()[1])
    loss = objective.loss(output, one.batch)
    return loss.total, loss.count
