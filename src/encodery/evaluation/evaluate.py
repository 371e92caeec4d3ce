"""Run a model over data in order: one answer a row, whatever the packing, and the figures for them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from encodery.data.loader import Loader, Place
from encodery.data.tokenizers import Tokenizer
from encodery.evaluation.calibration import fit_mix, probabilities_at
from encodery.evaluation.intervals import Metric
from encodery.evaluation.metrics import score_labels, score_multilabel, score_numbers
from encodery.heads.readouts import DocumentReadout
from encodery.model import Model, answering
from encodery.objectives.masked import Masked, MaskedConfig
from encodery.trained import Task

# Which tokens are hidden when a pretrained model is judged follows from this alone.
JUDGE_SEED = 20_201
MAIN_METRIC: dict[str, str] = {"classify": "accuracy", "multilabel": "f1_micro", "regress": "spearman"}


def row_logits(model: Model, loader: Loader, rows: int, dtype: torch.dtype) -> np.ndarray:
    """The logits of each row, (rows, C) float32, in the order of the data."""
    return mixed(model, row_parts(model, loader, rows, dtype))


def mixed(model: Model, parts: np.ndarray) -> np.ndarray:
    """The answers (answers, rows, C) added up as the readout does it: (rows, C)."""
    if len(parts) == 1:
        return parts[0]
    assert isinstance(model.readout, DocumentReadout)
    return np.tensordot(model.readout.mix.cpu().numpy(), parts, axes=1)


def row_parts(model: Model, loader: Loader, rows: int, dtype: torch.dtype) -> np.ndarray:
    """The logits of each answer that the readout mixes (one, if it does not): (answers, rows, C) float32.

    The windows of a long row are averaged, weighted by their tokens.
    """
    assert not loader.shuffle, "evaluation keeps the order of the data"
    assert isinstance(model.readout, DocumentReadout), "only a document readout has one answer a row"
    config = model.readout.config
    total = np.zeros((2 if config.ngrams else 1, rows, config.outputs), dtype=np.float64)
    weight = np.zeros(rows, dtype=np.float64)
    with answering(model, dtype):
        for batch, _ in loader.epoch(Place()):
            output = model(batch.to(model.device))
            assert output.logits is not None
            lengths = batch.layout.lengths.cpu().numpy().astype(np.float64)
            for part, logits in enumerate(output.parts or (output.logits,)):
                np.add.at(total[part], batch.uids, logits.float().cpu().numpy() * lengths[:, None])
            np.add.at(weight, batch.uids, lengths)
    assert (weight > 0).all(), "a row was left out of the batches"
    return (total / weight[:, None]).astype(np.float32)


def fit_readout_mix(model: Model, task: Task, parts: np.ndarray, truth: np.ndarray) -> None:
    """Weigh the answers of the readout by what they are worth on the validation rows."""
    if len(parts) > 1 and isinstance(model.readout, DocumentReadout):
        wanted = (truth - task.center) / task.scale if task.kind == "regress" else truth
        model.readout.mix.copy_(torch.tensor(fit_mix(list(parts), wanted)))


def masked_loss(
    model: Model, loader: Loader, tokenizer: Tokenizer, dtype: torch.dtype, most_batches: int = 200
) -> dict[str, float]:
    """Mean loss in nats and share guessed right over hidden tokens; the same tokens are hidden at every call.

    15 % are hidden, as in BERT, whatever the model was trained with: losses of different recipes can be compared.
    """
    objective = Masked.of(MaskedConfig(share=0.15), tokenizer)
    loader = replace(loader, prepare=objective.prepare, seed=JUDGE_SEED)
    total = count = correct = 0.0
    with answering(model, dtype):
        for number, (batch, _) in enumerate(loader.epoch(Place())):
            if most_batches <= number:
                break
            batch = batch.to(model.device)
            loss = objective.loss(model(batch), batch)
            assert loss.correct is not None
            total += float(loss.total)
            count += float(loss.count)
            correct += float(loss.correct)
    count = max(count, 1.0)
    return {"loss": total / count, "accuracy": correct / count}


def probabilities(task: Task, logits: np.ndarray) -> np.ndarray:
    """Logits (N, C) -> probabilities (N, C); of a regression the predicted numbers (N,)."""
    if task.kind == "regress":
        return logits[:, 0].astype(np.float64) * task.scale + task.center
    if task.kind == "multilabel":
        return 1.0 / (1.0 + np.exp(-logits.astype(np.float64) / task.temperature))
    return probabilities_at(logits, task.temperature)


def score(
    task: Task, logits: np.ndarray, truth: np.ndarray, *, rng: np.random.Generator, resamples: int = 1000
) -> dict[str, Metric]:
    """All metrics of the task with their intervals; `truth` as the token store holds it."""
    given = probabilities(task, logits)
    if task.kind == "regress":
        return score_numbers(given, truth, rng=rng, resamples=resamples)
    if task.kind == "multilabel":
        return score_multilabel(given, truth, task.labels, rng=rng, resamples=resamples)
    return score_labels(given, truth, task.labels, rng=rng, resamples=resamples)


def quick_score(task: Task, logits: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """The main metric alone, without an interval, and the loss: for validation while training."""
    if task.kind == "regress":
        predicted = probabilities(task, logits)
        loss = float(np.mean(((predicted - truth) / task.scale) ** 2))
        from scipy.stats import spearmanr

        varied = truth.size > 1 and np.ptp(predicted) > 0 and np.ptp(truth) > 0
        return {"loss": loss, "metric": float(np.asarray(spearmanr(predicted, truth))[0]) if varied else 0.0}
    given = probabilities(task, logits)
    if task.kind == "multilabel":
        chosen = given >= 0.5
        hit = float((chosen & truth).sum())
        wrong = -np.where(truth, np.log(given + 1e-12), np.log(1 - given + 1e-12)).mean()
        return {"loss": float(wrong), "metric": 2 * hit / max(1.0, float(chosen.sum() + truth.sum()))}
    right = given[np.arange(truth.size), truth]
    return {"loss": float(-np.log(right + 1e-12).mean()), "metric": float((given.argmax(1) == truth).mean())}
