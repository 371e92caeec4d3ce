"""Targets: read with their reasons, packed beside their sources with little padding, cut and counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_texts
from encodery.data import ledger
from encodery.data.fields import BadField
from encodery.data.loader import Place, StoredWindows
from encodery.data.pair_packing import plan_pairs, settled_shape
from encodery.data.samples import SampleMaker
from encodery.data.sources import Row
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.targets import TargetField, TargetFrame, TargetLoader, shape_of, target_facts
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.source import same_rows
from encodery.errors import DataError

FIELD = TargetField("summary", ("sentences",))


def pairs(number: int = 300, *, seed: int = 1) -> list[Row]:
    """Sources, each with its words from the last to the first."""
    found = []
    for place, (text, _) in enumerate(make_texts(number, seed=seed, most_words=20)):
        found.append(Row(text, None, None, f"x:{place}", (), {"target": (" ".join(text.split()[::-1]),)}))
    return found


def target_loader(store: TokenStore, tokenizer: Tokenizer, *, longest: int = 64, budget: int = 512) -> TargetLoader:
    maker, frame = SampleMaker.framed(tokenizer.frame, 64), TargetFrame.of(tokenizer, longest)
    plain = (StoredWindows(store, seed=3), maker, budget, tokenizer.pad_id, 3, True)
    return TargetLoader(*plain, frame=frame, shape=shape_of(store, maker, frame, budget))


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"summary": "A text."}, ("A text.",)),
        ({"summary": [" One. ", "", "Two."]}, ("One.", "Two.")),
        ({"summary": '["One.", "Two."]'}, ("One.", "Two.")),
        ({"summary": '["quoted" is how it begins'}, ('["quoted" is how it begins',)),
        ({"summary": np.array(["One."], dtype=object)}, ("One.",)),
        ({"summary": "a\x00b\ud800"}, ("ab\ufffd",)),
        ({"summary": 7}, ("7",)),
    ],
)
def test_targets_are_read(value: dict[str, Any], expected: tuple[str, ...]) -> None:
    assert FIELD.read(value, "") == expected


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ({"text": "x"}, ledger.MISSING_TARGET),
        ({"summary": None}, ledger.EMPTY_TARGET),
        ({"summary": " \u200b"}, ledger.EMPTY_TARGET),
        ({"summary": []}, ledger.EMPTY_TARGET),
        ({"summary": ["a", 3]}, ledger.BAD_TARGET),
        ({"summary": {"a": 1}}, ledger.BAD_TARGET),
        ({"summary": True}, ledger.BAD_TARGET),
    ],
)
def test_what_is_no_target_says_why(value: dict[str, Any], kind: str) -> None:
    with pytest.raises(BadField) as found:
        FIELD.read(value, "")
    assert found.value.kind == kind and kind in ledger.FIXES


def test_a_source_of_sentences_is_one_text() -> None:
    assert FIELD.text({"sentences": ["One. ", "Two."]}) == "One. Two."
    assert FIELD.text({"sentences": "One. Two."}) is None


def test_every_pair_comes_once_in_the_same_row_on_both_sides(tokenizer: Tokenizer) -> None:
    rows = pairs()
    store = store_in_memory(rows, tokenizer, fields=(FIELD,))
    loader, seen = target_loader(store, tokenizer), []
    shapes = set()
    for batch, _ in loader.epoch(Place()):
        target = batch.target
        assert target is not None and same_rows(target.layout, batch.layout)
        shapes.add((batch.layout.positions, target.layout.positions))
        seen += batch.uids.tolist()
        follows = target.truth["target"]
        for uid, start, size in zip(batch.uids, target.layout.starts.tolist(), target.layout.lengths.tolist()):
            read, wanted = target.values["ids"][start : start + size], follows[start : start + size]
            assert int(read[0]) == tokenizer.cls_id and int(wanted[-1]) == tokenizer.sep_id
            assert torch.equal(read[1:], wanted[:-1])
            assert tokenizer.decode(wanted.tolist()) == rows[uid].beside["target"][0]
        assert (follows[target.layout.document < 0] == -100).all()
    assert sorted(seen) == list(range(len(rows))) and len(shapes) == 1
    again = [batch.uids.tolist() for batch, _ in target_loader(store, tokenizer).epoch(Place())]
    assert [uid for uids in again for uid in uids] == seen


def test_a_target_that_is_cut_does_not_end(tokenizer: Tokenizer) -> None:
    rows = [Row("a film", None, None, "x:1", (), {"target": (" ".join(["river"] * 30),)})]
    store = store_in_memory(rows, tokenizer, fields=(FIELD,))
    (batch, _) = next(target_loader(store, tokenizer, longest=8).epoch(Place()))
    assert batch.target is not None
    follows = batch.target.truth["target"]
    assert tokenizer.sep_id not in follows.tolist() and int((follows >= 0).sum()) == 7
    assert target_facts(store, tokenizer, 8)["targets cut"] == 1


def test_hardly_any_padding_on_either_side() -> None:
    """Lengths like those of captions and their translations, and of abstracts and one-line summaries."""
    rng = np.random.default_rng(0)
    caption = np.clip(rng.gamma(9, 1.7, 6000), 4, 60)
    captions = np.stack([caption, np.clip(caption * rng.normal(1, 0.2, 6000), 3, 60)], axis=1).astype(int)
    abstracts = np.stack([np.clip(rng.gamma(9, 22, 1500), 60, 512), np.clip(rng.gamma(5, 5, 1500), 5, 60)], 1).astype(
        int
    )
    for lengths, budget, most in ((captions, 4096, 0.05), (abstracts, 8192, 0.1)):
        shape = settled_shape(lengths, budget, (512, 64))
        plans = plan_pairs(lengths, shape)
        placed = [number for plan in plans for row in plan.rows for number in row]
        assert sorted(placed) == list(range(len(lengths)))
        for plan in plans:
            assert len(plan.rows) * plan.length <= shape.budgets[0]
            for row in plan.rows:
                assert (lengths[row].sum(axis=0) <= (plan.length, plan.target_length)).all()
        used = sum(lengths[row].sum(axis=0) for plan in plans[:-1] for row in plan.rows)
        assert (1 - used / ((len(plans) - 1) * np.array(shape.budgets))).max() < most


@pytest.mark.parametrize(("source", "target"), [(200, 3), (3, 200), (1, 1)])
def test_lengths_that_differ_much_find_their_rows(source: int, target: int) -> None:
    lengths = np.full((50, 2), (source, target))
    shape = settled_shape(lengths, 2048, (256, 256))
    assert sum(len(row) for plan in plan_pairs(lengths, shape) for row in plan.rows) == 50


def test_a_script_that_the_tokenizer_never_saw_is_refused_and_some_of_it_counted(tokenizer: Tokenizer) -> None:
    foreign = [Row("a film", None, None, f"x:{n}", (), {"target": ("Добрый день всем",)}) for n in range(4)]
    with pytest.raises(DataError, match="script that it has never seen"):
        target_facts(store_in_memory(foreign, tokenizer, fields=(FIELD,)), tokenizer, 64)
    mixed = store_in_memory([*pairs(40), foreign[0]], tokenizer, fields=(FIELD,))
    assert target_facts(mixed, tokenizer, 64)["targets mostly unknown"] == 1
