"""What a run says of rows: many that stand in train, many words that the tokenizer does not know."""

from __future__ import annotations

from collections.abc import Iterable

from conftest import make_texts
from encodery.data.rows import Row
from encodery.data.store import TokenStore, store_in_memory
from encodery.data.targets import TargetField
from encodery.data.tokenizers import Tokenizer
from encodery.training.row_notes import NamedRows, flattery, rows_in_train, unknown_targets, unknown_texts

FIELD = TargetField("summary", ("text",))
FOREIGN = "Добрый день"


def row(text: str, number: int, pair: str | None = None, target: str = "a film") -> Row:
    return Row(text, pair, None, f"x:{number}", (), {"target": (target,)})


def notes(rows: Iterable[Row], tokenizer: Tokenizer, *, fields: tuple[TargetField, ...] = ()) -> list[str]:
    rows = list(rows)
    store = store_in_memory(rows, tokenizer, fields=fields)
    given = [NamedRows("test", store, lambda: rows)]
    return unknown_texts(given, tokenizer) + unknown_targets(given, tokenizer)


def known(number: int) -> list[Row]:
    return [row(text, place) for place, (text, _) in enumerate(make_texts(number, seed=1))]


def test_known_words_and_a_few_others_are_not_worth_a_sentence(tokenizer: Tokenizer) -> None:
    assert notes(known(60), tokenizer, fields=(FIELD,)) == []
    assert notes([*known(200), row(FOREIGN, 200)], tokenizer) == []


def test_texts_that_cannot_be_read_are_named_by_their_first_rows(tokenizer: Tokenizer) -> None:
    (line,) = notes([*known(3), *(row(FOREIGN, number) for number in range(3, 9))], tokenizer)
    assert "of the tokens of the test texts (x:3, 4, 5, ...). So it cannot tell them apart" in line
    assert "tokenizer.kind=byte_bpe" in line
    (line,) = notes([row("a film", 0, "good"), row("a film", 1, FOREIGN)], tokenizer)
    assert "(x:1)" in line


def test_targets_that_cannot_be_written(tokenizer: Tokenizer) -> None:
    given = [*known(3), row("a film", 3, target=FOREIGN * 4)]
    (line,) = notes(given, tokenizer, fields=(FIELD,))
    assert "of the tokens of the test targets (x:3). So it cannot write them" in line
    assert notes(given, tokenizer) == []


def test_held_rows_that_stand_in_train(tokenizer: Tokenizer) -> None:
    def store(rows: list[Row]) -> TokenStore:
        return store_in_memory(rows, tokenizer)

    texts = known(100)
    held = {"validation": store(texts[:5] + [row("another film", 100)] * 15), "test": store([row("other", 101)])}
    in_train = rows_in_train(store(texts), held)
    assert in_train == {"validation": 5, "test": 0}
    (line,) = flattery(in_train, held)
    assert line.startswith("25% of the validation rows (5) stand in train as well")
