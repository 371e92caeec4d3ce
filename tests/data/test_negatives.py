"""Wrong answers beside a pair: read from columns, kept as texts, laid into the row's samples; bad ones counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from encodery.data.composing import samples_of_row
from encodery.data.fields import BadField
from encodery.data.negatives import NegativesField, read_negatives
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import DataConfig, Ledger, Row, read_rows
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ("a text", ("a text",)),
        (["one", "two"], ("one", "two")),
        ('["one", "two"]', ("one", "two")),
        ("[not JSON", ("[not JSON",)),
        ("", ()),
        (None, ()),
        ([], ()),
    ],
)
def test_what_a_column_may_hold(given: Any, found: tuple[str, ...]) -> None:
    assert read_negatives(given) == found


@pytest.mark.parametrize("given", [3, ["a", " "], ["a", None], {"a": 1}, ["x"] * 300])
def test_what_it_may_not(given: Any) -> None:
    with pytest.raises(BadField, match="wrong answers"):
        NegativesField(("no",)).read({"no": given}, "text")


def test_a_row_without_the_column_is_counted(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    rows = [{"text": f"t{n}", "pair": f"p{n}", "no": ["a", "b"][: n % 3]} for n in range(40)]
    del rows[7]["no"]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    ledger, field = Ledger(), NegativesField(("no",))
    data = DataConfig.model_validate({"train": str(file), "pair": "pair", "validation_share": 0})
    given = {"base": tmp_path, "seed": 1, "labels": "none", "ledger": ledger, "fields": (field,)}
    found = list(read_rows(data, "train", **given))
    assert len(found) == 39 and found[1].beside["negatives"] == ("a",)
    assert "rows.jsonl:8" in str(ledger.to_dict())


def rows_with_negatives(number: int) -> list[Row]:
    wrong = [("the river",) * (place % 3) for place in range(number)]
    return [
        Row("the film", "a story", None, f"x:{place}", beside={"negatives": texts}) for place, texts in enumerate(wrong)
    ]


def test_texts_apart_twice_and_as_candidates(tokenizer: Tokenizer) -> None:
    field = NegativesField(("no",))
    store = store_in_memory(rows_with_negatives(4), tokenizer, fields=(field,))
    assert store.facts["fields"]["negatives"] == {
        "rows with 0 wrong answers": 2,
        "rows with 1 wrong answers": 1,
        "rows with 2 wrong answers": 1,
    }
    counts = LengthCounts()

    def made(compose: str, row: int, longest: int = 64) -> list[tuple[int, list[int]]]:
        maker = SampleMaker.framed(tokenizer.frame, longest, "split", None, compose)
        return [(one.part, one.ids.tolist()) for one in samples_of_row(store, maker, row, counts)]

    cls, sep = tokenizer.cls_id, tokenizer.sep_id
    first, second, wrong = (store.text(4)[0].tolist(), store.text(5)[0].tolist(), store.texts_of(2, "negatives"))
    apart = made("apart", 2)
    assert apart == [
        (part, [cls, *ids, sep]) for part, ids in enumerate([first, second, *(text.tolist() for text, _ in wrong)])
    ]
    assert made("candidates", 2)[2] == (2, [cls, *first, sep, *wrong[0][0].tolist(), sep])
    assert len(made("candidates", 0)) == 1 and len(made("candidates", 2)) == 3
    doubled = made("twice", 0)
    assert [part for part, _ in doubled] == [0, 1, 2, 3] and doubled[0][1] == doubled[1][1] == [cls, *first, sep]
    long = store_in_memory([Row("the film " * 40, None, None, "x")], tokenizer)
    maker = SampleMaker.framed(tokenizer.frame, 16, "split", None, "twice")
    windows = samples_of_row(long, maker, 0, LengthCounts())
    assert len(windows) > 4
    for one, other in zip(windows[::2], windows[1::2]):
        assert other.part == one.part + 1 and np.array_equal(one.ids, other.ids)
