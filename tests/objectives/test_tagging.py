"""Tagging: targets at the units of a batch, edges of windows, the loss with and without neighbours' scores."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import Batch
from encodery.data.tag_field import NOT_TAGGED
from encodery.data.tags import SchemeName, misfits, tags_of
from encodery.data.tagsets import Tagset
from encodery.objectives.tagging import Tagging, TaggingConfig, edge_tags


def tagset(scheme: SchemeName = "bio") -> Tagset:
    names = ("N", "V", "X") if scheme == "none" else ("O", *tags_of(["a", "b"], scheme))
    return Tagset(scheme, scheme, "words", names)


def tagged_batch(known: Tagset, *, seed: int = 1, valid: bool = True) -> Batch:
    """Three documents, every second token a unit; the tags fit the scheme, or are any."""
    rng = np.random.default_rng(seed)
    batch = batch_of([documents_of([9, 6]), documents_of([12])], 16)
    stands = torch.zeros(batch.layout.positions, dtype=torch.int64)
    for start, length in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
        at = range(start + 1, start + length, 2)
        while True:
            tags = rng.integers(0, len(known.names), size=len(at))
            if not valid or not misfits([known.names[tag] for tag in tags], known.scheme):
                break
        stands[list(at)] = torch.from_numpy(tags) + NOT_TAGGED + 1
    return replace(batch, values={**batch.values, "tags": stands}, truth={"label": torch.tensor([0, 1, 1])})


def prepared(objective: Tagging, batch: Batch) -> Batch:
    return objective.prepare(batch, np.random.default_rng(0), 0.0)


@pytest.mark.parametrize("crf", [False, True])
@pytest.mark.parametrize("scheme", ["none", "bio", "bioes"])
def test_loss_is_a_sum_over_documents_that_do_not_see_each_other(scheme: SchemeName, crf: bool) -> None:
    known = tagset(scheme)
    objective = Tagging(TaggingConfig(crf=crf, drop_rate=0.0), known, [])
    model = tiny_model(readout=objective.readout().model_dump())
    batch = prepared(objective, tagged_batch(known))
    whole = objective.loss(model(batch), batch)
    assert whole.count == float((batch.values["tags"] > 0).sum()) == 4 + 3 + 6
    alone = 0.0
    for start, length in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist()):
        own = batch_of([[batch.values["ids"][start : start + length].numpy()]], 16)
        stands = torch.zeros(16, dtype=torch.int64)
        stands[:length] = batch.values["tags"][start : start + length]
        own = prepared(objective, replace(own, values={**own.values, "tags": stands}))
        alone += objective.loss(model(own), own).total.item()
    assert whole.total.item() == pytest.approx(alone, rel=1e-4)
    assert torch.isfinite(whole.total) and whole.total > 0


def test_without_neighbours_the_field_is_cross_entropy() -> None:
    """A field that has learned nothing yet, of tags that may stand anywhere."""
    known = tagset("none")
    batch = tagged_batch(known)
    totals, answer = [], {}
    for crf in (False, True):
        objective = Tagging(TaggingConfig(crf=crf, drop_rate=0.0, label_smoothing=0.1), known, [])
        model = tiny_model(readout=objective.readout().model_dump())
        if crf:
            for part in (model.readout.begin, model.readout.end, model.readout.between):
                part.data.zero_()
            model.readout.answer.load_state_dict(answer)
        answer = model.readout.answer.state_dict()
        ready = prepared(objective, batch)
        totals.append(objective.loss(model(ready), ready).total.item())
    assert totals[0] == pytest.approx(totals[1], rel=1e-5)


def test_every_parameter_learns_and_intent_weighs_what_it_should() -> None:
    known = tagset("bio")
    batch = tagged_batch(known)
    losses = {}
    for weight in (1.0, 3.0):
        objective = Tagging(TaggingConfig(intent=True, intent_weight=weight, drop_rate=0.0), known, ["x", "y"])
        model = tiny_model(readout=objective.readout().model_dump())
        ready = prepared(objective, batch)
        loss = objective.loss(model(ready), ready)
        losses[weight] = loss
        (loss.total / loss.count).backward()
        assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in model.parameters())
    parts = losses[1.0].parts
    means = [(losses[weight].total / losses[weight].count).item() for weight in (1.0, 3.0)]
    assert means[0] == pytest.approx((parts["tags"] + parts["class"]).item(), rel=1e-5)
    assert means[1] - means[0] == pytest.approx(2 * parts["class"].item(), rel=1e-4)


@pytest.mark.parametrize("scheme", ["bio", "bioes", "bmes"])
def test_windows_that_begin_or_end_inside_of_a_span_fit_the_scheme(scheme: SchemeName) -> None:
    known = tagset(scheme)
    begins, ends = edge_tags(known)
    for number, name in enumerate(known.names):
        alone = known.names[int(ends[begins[number]])]
        assert misfits([alone], scheme) == []
        assert alone[2:] == name[2:]
    objective = Tagging(TaggingConfig(), known, [])
    batch = prepared(objective, tagged_batch(known, valid=False))
    tags, owner = batch.truth["tag"], batch.truth["owner"]
    for number in range(3):
        own = [known.names[tag] for tag in tags[owner == number].tolist()]
        places = {one.place for one in misfits(own, scheme) if "the beginning" in one.why or "end a text" in one.why}
        assert not places


def test_units_whose_tag_is_not_known_count_for_nothing() -> None:
    known = tagset("bio")
    batch = tagged_batch(known)
    stands = batch.values["tags"].clone()
    first = int(batch.layout.starts[0]) + 1
    stands[first] = NOT_TAGGED
    unknown = replace(batch, values={**batch.values, "tags": stands})
    for crf in (False, True):
        objective = Tagging(TaggingConfig(crf=crf, drop_rate=0.0), known, [])
        model = tiny_model(readout=objective.readout().model_dump())
        ready = prepared(objective, unknown)
        assert ready.truth["tag"].min() == -1
        whole = prepared(objective, batch)
        less, more = objective.loss(model(ready), ready).total, objective.loss(model(whole), whole).total
        assert torch.isfinite(less) and less < more
