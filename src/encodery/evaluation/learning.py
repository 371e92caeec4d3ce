"""How well a model has learned without labels: the numbers of its objective on held-out texts, and what they mean."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from encodery.batch import Batch, Output
from encodery.data.loader import Loader, Place
from encodery.evaluation.evaluate import JUDGE_SEED
from encodery.heads.autoencode import AutoencodeOutput, AutoencodeReadout
from encodery.heads.replaced import ReplacedOutput
from encodery.heads.several import SeveralOutput, SeveralReadout
from encodery.model import Model, answering
from encodery.objectives.causal import Causal
from encodery.objectives.contrastive import Contrastive
from encodery.objectives.cross_entropy import cross_entropy
from encodery.objectives.denoise import Denoise
from encodery.objectives.distil import Distil
from encodery.objectives.masked import Loss, Masked
from encodery.objectives.order import Ordered
from encodery.objectives.reconstruct import Autoencode
from encodery.objectives.replaced import Replaced
from encodery.objectives.several import Several

Learned = Masked | Causal | Replaced | Ordered | Autoencode | Denoise | Distil | Contrastive | Several
MOST_BATCHES = 200


class Tally:
    """The numbers of one objective, gathered batch by batch: means by what they are counted over."""

    def __init__(self, objective: Learned) -> None:
        self.objective = objective
        self.total = self.count = self.correct = 0.0
        self.parts: dict[str, list[float]] = {}
        self.told: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, loss: Loss, output: Output, batch: Batch, readout: torch.nn.Module) -> None:
        """One more batch."""
        count = float(loss.count)
        self.total += float(loss.total)
        self.count += count
        self.correct += float(loss.correct) if loss.correct is not None else 0.0
        parts = dict(loss.parts)
        if isinstance(output, AutoencodeOutput):
            assert isinstance(readout, AutoencodeReadout) and output.vectors is not None
            parts["vector_gain"] = vector_gain(output, readout, batch)
        for name, value in parts.items():
            gathered = self.parts.setdefault(name, [0.0, 0.0])
            gathered[0] += float(value) * count
            gathered[1] += count
        if isinstance(output, ReplacedOutput):
            assert output.logits is not None and output.replaced is not None
            told = batch.truth["told"]
            self.told.append((output.logits[told].float().cpu().numpy(), output.replaced[told].cpu().numpy()))

    def numbers(self) -> dict[str, float]:
        """By the names of evaluation/metrics.py; `loss` and `score` (higher is better) for choosing weights."""
        loss = self.total / max(self.count, 1.0)
        right = self.correct / max(self.count, 1.0)
        parts = {name: total / count for name, (total, count) in self.parts.items() if count}
        objective = self.objective
        if isinstance(objective, Replaced):
            # The better the generator, the harder the encoder's task: of two moments of a run the encoder's own loss
            # cannot tell the better. The generator's can.
            auroc = told_auroc(*(np.concatenate(of) for of in zip(*self.told))) if self.told else 0.5
            return {**parts, "told_auroc": auroc, "loss": loss, "score": -parts.get("generator_loss", loss)}
        if isinstance(objective, Autoencode | Denoise):
            return {**parts, "written_accuracy": right, "loss": loss, "score": -loss}
        if isinstance(objective, Causal):
            return {"next_accuracy": right, "loss": loss, "score": -loss}
        if isinstance(objective, Distil):
            return {**parts, "loss": loss, "score": -loss}
        if isinstance(objective, Contrastive):
            # Without dropout both copies of a text are the same: what is left is how near the others come.
            return {**parts, "spread_loss": loss, "loss": loss, "score": -loss}
        if isinstance(objective, Ordered):
            masked = {"masked_loss": parts.pop("word_loss", loss), "masked_accuracy": right}
            return {**masked, **parts, "loss": loss, "score": -loss}
        return {"masked_loss": loss, "masked_accuracy": right, **parts, "loss": loss, "score": -loss}


def headline(objective: Learned) -> str:
    """The metric that says most of an objective."""
    if isinstance(objective, Several):
        return f"{objective.names[0]}.{headline(objective.parts[0])}"  # type: ignore[arg-type]
    if isinstance(objective, Distil):
        return {"hidden": "hidden_cosine", "vectors": "vector_cosine", "attention": "attention_loss"}[
            objective.config.match[0]
        ]
    names: dict[type, str] = {
        Replaced: "told_auroc",
        Causal: "next_accuracy",
        Ordered: "order_accuracy",
        Autoencode: "vector_gain",
        Denoise: "written_accuracy",
        Contrastive: "spread_loss",
    }
    return names.get(type(objective), "masked_accuracy")


def held_numbers(
    model: Model, objective: Learned, loader: Loader, dtype: torch.dtype, most_batches: int = MOST_BATCHES
) -> dict[str, float]:
    """The numbers of the objective on held-out texts; what it draws (hidden words, noise) is the same at every call."""
    loader = replace(loader, prepare=objective.prepare, seed=JUDGE_SEED)
    parts = objective.parts if isinstance(objective, Several) else (objective,)
    tallies = [Tally(part) for part in parts]  # type: ignore[arg-type]
    with answering(model, dtype):
        for number, (batch, _) in enumerate(loader.epoch(Place())):
            if most_batches <= number:
                break
            batch = batch.to(model.device)
            output = model(batch)
            if isinstance(objective, Several):
                assert isinstance(output, SeveralOutput) and isinstance(model.readout, SeveralReadout)
                losses = objective.each(output, batch)
                for several in zip(tallies, losses, output.answers, batch.views, model.readout.parts):
                    several[0].add(*several[1:])
            else:
                tallies[0].add(objective.loss(output, batch), output, batch, model.readout)
    if not isinstance(objective, Several):
        return tallies[0].numbers()
    found = [tally.numbers() for tally in tallies]
    together = {key: sum(weight * of[key] for weight, of in zip(objective.weights, found)) for key in ("loss", "score")}
    named = {
        f"{name}.{key}": value
        for name, of in zip(objective.names, found)
        for key, value in of.items()
        if key not in ("loss", "score")
    }
    return {**named, **together}


def told_auroc(logits: np.ndarray, replaced: np.ndarray) -> float:
    """The chance that a replaced word has a higher logit than one that is not (ties count half); 0.5 without both."""
    number = int(replaced.sum())
    others = replaced.size - number
    if not number or not others:
        return 0.5
    from scipy.stats import rankdata  # two thirds of a second to import

    ranks = rankdata(logits)
    return float((ranks[replaced].sum() - number * (number + 1) / 2) / (number * others))


def vector_gain(output: AutoencodeOutput, readout: AutoencodeReadout, batch: Batch) -> Tensor:
    """By how many nats a token of a text surprises the decoder less than if it were told the vector of another text."""
    assert output.logits is not None and output.vectors is not None
    write = batch.truth["write"]
    number = (write >= 0).sum().clamp_min(1)
    other = readout.written(output.vectors.roll(1, 0), batch)
    return (cross_entropy(other, write)[0] - cross_entropy(output.logits, write)[0]) / number
