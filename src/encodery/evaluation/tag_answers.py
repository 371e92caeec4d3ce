"""What a model says of the units of whole rows: windows merged, the best path, how sure it is of tags and spans."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from encodery.data.loader import Loader, Place
from encodery.data.store import TokenStore
from encodery.data.tags import SchemeName, Span, parse
from encodery.evaluation.calibration import fit_mix, least_weights
from encodery.heads.tagging.crf import (
    Chain,
    forward_backward,
    lay_out,
    marginals,
    path_score,
    span_probability,
    viterbi,
)
from encodery.heads.tagging.tags import TagReadout, units_of
from encodery.model import Model, answering

_NUMBERS_AT_ONCE = 1 << 20
"""Scores of pairs of tags that the search for the best path looks at in one step."""
_FITTED, _LEAST_FITTED = 400_000, 2_000
"""Scores (units, times tags) that weights are fitted to, and units at least."""
_NO_CUT = 1 << 40
"""Tokens to the end of a window where no text is cut off."""


@dataclass(frozen=True)
class UnitLogits:
    """Logits (U, C) of the units of all rows, in order, the row of each (U,), and what follows what; of the class of
    the whole text (rows, K) beside them. A unit here is what has a token of its own. Where the readout weighs two
    answers, `parts` are these, each with what it says of the class."""

    logits: Tensor
    row: Tensor
    rows: int
    chain: Chain
    classes: np.ndarray | None = None
    parts: tuple[UnitLogits, ...] = ()

    def chunks(self) -> Iterator[tuple[slice, Tensor, int, int]]:
        """Stretches of rows that fit in memory: (units, the row of each counted from 0, rows, the first row)."""
        most = max(1, _NUMBERS_AT_ONCE // self.logits.shape[1] ** 2) if self.logits.shape[1] else self.rows
        for first in range(0, self.rows, most):
            stop = min(self.rows, first + most)
            begin, end = np.searchsorted(self.row.numpy(), [first, stop]).tolist()
            yield slice(begin, end), self.row[begin:end] - first, stop - first, first

    def best(self) -> list[list[int]]:
        """The numbers of the tags of each row: the best path that is allowed (Viterbi)."""
        paths = [viterbi(self.logits[units], self.chain, row, rows)[0] for units, row, rows, _ in self.chunks()]
        return self.by_row(torch.cat(paths) if paths else self.row)

    def by_row(self, of_units: Tensor) -> list[list[int]]:
        """Something of all units as a list a row."""
        edges = np.searchsorted(self.row.numpy(), np.arange(self.rows + 1)).tolist()
        flat = of_units.tolist()
        return [flat[begin:end] for begin, end in pairwise(edges)]

    def shares(self) -> Tensor:
        """The probability of each tag at each unit, given the whole text, (U, C)."""
        found = [marginals(self.logits[units], self.chain, row, rows) for units, row, rows, _ in self.chunks()]
        return torch.cat(found) if found else self.logits.double()

    def span_shares(self, tags: Tensor, spans: list[list[Span]], goes_on: Tensor) -> list[list[float]]:
        """How probable each span of each row is, exactly as it stands; `tags` (U,) are the path they were read from."""
        result: list[list[float]] = [[] for _ in range(self.rows)]
        edges = np.searchsorted(self.row.numpy(), np.arange(self.rows + 1))
        for units, row, rows, first in self.chunks():
            wanted = [(number, span) for number in range(first, first + rows) for span in spans[number]]
            if not wanted:
                continue
            at = torch.tensor([[edges[r] + s.start, edges[r] + s.stop] for r, s in wanted]) - units.start
            found = span_probability(self.logits[units], self.chain, row, rows, tags[units], at, goes_on)
            for (number, _), share in zip(wanted, found.tolist()):
                result[number].append(min(1.0, share))
        return result

    def loss(self, tag: Tensor, *, crf: bool) -> tuple[float, int]:
        """Minus the log-likelihood of the tags (U,), summed, and the units that counted; -1 is a tag that is not known,
        and with crf nothing of its row counts."""
        if not crf:
            known = tag >= 0
            log_share = torch.log_softmax(self.logits[known].double(), dim=1)
            return float(-log_share.gather(1, tag[known][:, None]).sum()), int(known.sum())
        total, units = 0.0, 0
        for part, row, rows, _ in self.chunks():
            bad = torch.zeros(rows, dtype=torch.bool)
            bad[row[tag[part] < 0]] = True
            kept = ~bad[row]
            logits, own, owner = self.logits[part][kept], tag[part][kept], row[kept]
            steps = lay_out(owner, rows)
            log_z = forward_backward(logits, self.chain, steps).log_z
            score = path_score(logits, own, self.chain, steps, owner)
            whole = torch.isfinite(score)  # a text cut at its end may break off inside of a span
            total += float((log_z - score)[whole].sum())
            units += int(whole[owner].sum())
        return total, units

    def first(self, rows: int) -> UnitLogits:
        """The units of the first rows alone."""
        units = int(np.searchsorted(self.row.numpy(), rows))
        return UnitLogits(self.logits[:units], self.row[:units], min(rows, self.rows), self.chain)


def with_mix(found: UnitLogits, readout: TagReadout) -> UnitLogits:
    """The answer that its parts come to, as the readout weighs them now."""
    if not found.parts:
        return found
    encoder, linear = found.parts
    mix = readout.mix.cpu()
    chain = Chain(*(part.detach().cpu() for part in readout.chain()))
    classes = encoder.classes
    if classes is not None and linear.classes is not None:
        weights = readout.class_mix.cpu().numpy()
        classes = weights[0] * classes + weights[1] * linear.classes
    return replace(found, logits=mix[0] * encoder.logits + mix[1] * linear.logits, chain=chain, classes=classes)


def fit_tag_mix(readout: TagReadout, found: UnitLogits, tag: Tensor, *, crf: bool) -> None:
    """Weigh the answers of the readout so that the tags (U,) of some rows surprise it least."""
    if not found.parts or not len(tag):
        return
    most = max(_LEAST_FITTED, _FITTED // found.logits.shape[1])
    rows = int(found.row[min(most, len(found.row)) - 1]) + 1
    few = replace(found.first(rows), parts=tuple(part.first(rows) for part in found.parts))
    own = tag[: len(few.row)]

    def surprise(weights: np.ndarray) -> float:
        readout.mix.copy_(torch.from_numpy(weights))
        total, units = with_mix(few, readout).loss(own, crf=crf)
        return total / max(1, units)

    with torch.no_grad():
        readout.mix.copy_(torch.tensor(least_weights(surprise, 2, eps=1e-3)))


def fit_class_mix(readout: TagReadout, found: UnitLogits, label: np.ndarray) -> None:
    """The same for the answers about the class of the whole text, of all rows."""
    classes = [part.classes for part in found.parts if part.classes is not None]
    if len(classes) == 2:
        readout.class_mix.copy_(torch.tensor(fit_mix(classes, label)))


def unit_logits(model: Model, store: TokenStore, loader: Loader, dtype: torch.dtype) -> UnitLogits:
    """What the model says of every row of a store, in order. Of a unit that several windows hold, the window counts
    that has most of the text around it; logits of the whole text are averaged, weighted by tokens."""
    assert isinstance(model.readout, TagReadout), "only a tag readout tags units"
    assert not loader.shuffle, "the order of the data is kept"
    assert not store.paired, "tags are of one text a row"
    config, around = model.readout.config, loader.maker.around
    starts, sizes = np.asarray(store.starts), np.diff(store.starts)
    flat = np.flatnonzero(np.asarray(store.beside["tags"]))
    answers = 1 + config.linear
    logits = np.zeros((answers, flat.size, len(config.tags)), dtype=np.float32)
    context = np.full(flat.size, -1, dtype=np.int64)
    classes, weight = np.zeros((answers, store.rows, config.classes)), np.zeros(store.rows)
    with answering(model, dtype):
        chains = [Chain(*(part.float().cpu() for part in chain)) for chain in model.readout.chains()]
        for batch, _ in loader.epoch(Place()):
            output = model(batch.to(model.device))
            assert output.logits is not None
            layout, uids = batch.layout, batch.uids
            at = units_of(batch).cpu()
            document = layout.document.cpu()[at].numpy()
            row = uids[document]
            place = batch.values["place"].cpu()[at].numpy() - 1
            position, length = layout.position.cpu()[at].numpy(), layout.lengths.cpu().numpy()[document]
            left = position - len(around.before)
            right = length - len(around.after) - 1 - position
            left = np.where(place > left, left, _NO_CUT)
            right = np.where(place + right + 1 < sizes[row], right, _NO_CUT)
            # Of two windows that hold it equally well the first one counts, in whatever order they come.
            around_unit = 2 * np.minimum(left, right) + (left >= right)
            number = np.searchsorted(flat, starts[row] + place)
            # Windows of one row may stand in one batch: the best comes last, and what is written last stays.
            order = np.argsort(around_unit, kind="stable")
            order = order[around_unit[order] > context[number[order]]]
            context[number[order]] = around_unit[order]
            for own, part in zip(logits, output.parts or (output.logits,)):
                own[number[order]] = part.float().cpu().numpy()[order]
            if output.classes is not None:
                tokens = layout.lengths.cpu().numpy().astype(np.float64)
                for own, part in zip(classes, output.class_parts or (output.classes,)):
                    np.add.at(own, uids, part.float().cpu().numpy() * tokens[:, None])
                np.add.at(weight, uids, tokens)
    seen = context >= 0  # a text that was cut has units that no window holds: they get what the scheme makes of them
    assert seen.all() or loader.maker.long == "cut", "a unit was left out of the batches"
    row_U = np.searchsorted(starts, flat, "right") - 1
    whole = (classes / np.maximum(weight, 1e-9)[:, None]).astype(np.float32)
    row = torch.from_numpy(row_U)
    parts = tuple(
        UnitLogits(torch.from_numpy(own), row, store.rows, chain, of_text if config.classes else None)
        for own, chain, of_text in zip(logits, chains, whole)
    )
    found = replace(parts[0], parts=parts if config.linear else ())
    return with_mix(found, model.readout)


def continuing(names: tuple[str, ...], scheme: SchemeName) -> Tensor:
    """(C, C) [last, next]: whether a tag goes on with the span that the tag before it belongs to."""
    found = torch.zeros(len(names), len(names), dtype=torch.bool)
    if scheme == "none":
        return found
    parsed = [parse(name) for name in names]
    for last, (letter, label) in enumerate(parsed):
        for behind, (next_letter, next_label) in enumerate(parsed):
            found[last, behind] = letter in "BI" and next_letter in "IE" and label == next_label
    return found
