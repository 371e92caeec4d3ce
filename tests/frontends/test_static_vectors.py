"""Word vectors from files: every form that is in use, matched to a vocabulary; damage counted by line or refused."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from encodery.data import ledger
from encodery.errors import DataError
from encodery.frontends.options import VectorsConfig
from encodery.frontends.static_vectors import SPACED, TWICE, StaticVectors, read_vectors, shape_of

WORDS = [None, "the", "Paris", "haus", ",", None, "straße"]
NUMBERS = {
    "the": "0.1 -0.2 3e-1",
    "paris": "1 2 3",
    "Haus": "4 5 6",
    ",": "7 8 9",
    "unused": "0 0 0",
}


def lines(numbers: dict[str, str] = NUMBERS) -> list[str]:
    return [f"{word} {row}" for word, row in numbers.items()]


@pytest.fixture
def read(tmp_path: Path) -> Callable[..., StaticVectors]:
    def reading(text: str | bytes, name: str = "v.txt", **options: object) -> StaticVectors:
        data = text if isinstance(text, bytes) else text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        config = VectorsConfig.model_validate({"path": name, **options})
        return read_vectors(config, tmp_path, WORDS, str.lower)

    return reading


FORMS = {
    "GloVe": ("v.txt", "\n".join(lines()) + "\n"),
    "word2vec": ("v.txt", "5 3\n" + "\n".join(lines()) + "\n"),
    "fastText, a space at the end": ("v.vec", "5 3\n" + " \n".join(lines()) + " \n"),
    "packed": ("v.vec.gz", "5 3\n" + "\n".join(lines()) + "\n"),
    "tabs, Windows": ("v.txt", "\r\n".join(lines()).replace(" ", "\t") + "\r\n"),
    "a mark at the start, no end of line": ("v.txt", "\ufeff" + "\n".join(lines())),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_rows(read: Callable[..., StaticVectors], form: str) -> None:
    name, text = FORMS[form]
    found = read(text, name)
    expected = np.zeros((7, 3), np.float32)
    expected[1:5] = [[0.1, -0.2, 0.3], [1, 2, 3], [4, 5, 6], [7, 8, 9]]
    np.testing.assert_array_equal(found.matrix, expected)
    # Exact; its word in small letters; a word of the file that the tokenizer would write in small letters; exact.
    assert found.way.tolist() == [0, 1, 2, 3, 1, 0, 0] and found.lines == 5 and found.ledger.bad == 0
    assert found.rows == 4 and found.remarks == []


def test_the_exact_word_wins_wherever_it_stands(read: Callable[..., StaticVectors]) -> None:
    found = read("HAUS 1 1\nParis 2 2\nparis 3 3\nhaus 4 4\nHaus 5 5\nPARIS 6 6\n")
    assert found.matrix[2].tolist() == [2, 2] and found.matrix[3].tolist() == [4, 4]
    assert found.way[2] == found.way[3] == 1


def test_among_words_that_the_tokenizer_writes_alike_the_first_wins(read: Callable[..., StaticVectors]) -> None:
    found = read("HAUS 1 1\nHaus 5 5\nthe 1 2\n")
    assert found.matrix[3].tolist() == [1, 1] and found.way[3] == 3


def test_damaged_lines_are_counted_with_their_numbers(read: Callable[..., StaticVectors]) -> None:
    good = [f"w{number} 1 2 3" for number in range(2000)]
    good[4] = "the 1 2"
    good[9] = "Paris 1 nan 3"
    good[14] = "unknown 1 inf 3"
    good[19] = "haus 1 x 3"
    good[24] = "the 1 2 3"
    good[29] = "the 9 9 9"
    good[34] = ". . . 1 2 3"
    good[39] = "joined 1 2 3 4 5 6"
    good[44] = "at name@domain 1 2 3"
    good[49] = ""
    good[54] = " 1 2 3"
    text = "\n".join(good).encode().replace(b"w60 ", b"w\xff60 ")
    found = read(text)
    places = {problem.kind: problem.places for problem in (*found.ledger.problems(), *found.ledger.notes())}
    assert places == {
        ledger.WRONG_NUMBERS: ("v.txt:5", "v.txt:40"),
        ledger.NOT_FINITE: ("v.txt:10", "v.txt:15"),
        ledger.BROKEN_NUMBERS: ("v.txt:20",),
        ledger.BLANK_LINE: ("v.txt:50",),
        ledger.NO_WORD: ("v.txt:55",),
        ledger.NOT_UTF8: ("v.txt:61",),
        TWICE: ("v.txt:30",),
        SPACED: ("v.txt:35", "v.txt:45"),
    }
    assert found.matrix[1].tolist() == [1, 2, 3] and found.way[2] == 0
    said = "\n".join(found.report(np.ones(7, int), [0, 5], str))
    assert "not UTF-8: 1 (v.txt:61)" in said and f"{TWICE}: 1 (v.txt:30)" in said


def test_too_many_damaged_lines_refuse_the_file(read: Callable[..., StaticVectors]) -> None:
    text = "\n".join(["the 1 2 3", *(f"w{n} 1 2" for n in range(3)), *(f"v{n} 1 2 3" for n in range(60))])
    with pytest.raises(DataError, match=r"3 of 64 rows are bad") as caught:
        read(text)
    assert "v.txt:2, v.txt:3, v.txt:4" in str(caught.value) and "fetch the file again" in caught.value.fix
    assert read(text, bad_rows_share=0.1).rows == 1


WRONG = {
    "a header that lies": ("2 300\nthe 1 2 3\n", "line 2 has 3"),
    "a header alone": ("2 300\n", "line 2 has 0"),
    "JSON Lines": ('{"text": "the film"}\n', "no number"),
    "a text": ("the film is good\nand so on\n", "no number"),
    "commas": ("the,1,2,3\n", "not a word with numbers"),
    "decimal commas": ("the 0,1 0,2\n", "no number"),
    "one column": ("the\nfilm\n", "not a word with numbers"),
    "not a number at all": ("the nan nan\n", "not finite"),
    "empty": ("", "is empty"),
    "binary word2vec": (b"2 3\nthe \x00\x00\x80\x3f\x00\x00\x00\x40\x01\x02\x03\x00\n", "not word vectors as text"),
    "an archive": (b"PK\x03\x04 and more of it", "zip"),
    "nothing of the vocabulary": ("le 1 2\nla 3 4\n", "none of its 2 words"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_with_what_to_do(read: Callable[..., StaticVectors], case: str) -> None:
    text, said = WRONG[case]
    with pytest.raises(DataError, match=said) as caught:
        read(text)
    assert caught.value.fix


def test_a_missing_file_is_said_with_its_neighbours(tmp_path: Path) -> None:
    (tmp_path / "glove.6B.100d.txt").write_text("the 1 2\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"did you mean 'glove.6B.100d.txt'"):
        shape_of("glove.6B.10d.txt", tmp_path)
    (tmp_path / "other.txt").write_text("the 1 2\n", encoding="utf-8")
    with pytest.raises(DataError, match="2 files"):
        shape_of(".", tmp_path)


def test_a_packed_file_that_breaks_off_is_refused(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    text = "\n".join(f"w{n} {rng.normal():.9f} {rng.normal():.9f}" for n in range(20_000))
    (tmp_path / "v.gz").write_bytes(gzip.compress(text.encode())[:-2000])
    with pytest.raises(DataError, match="broke off after line"):
        read_vectors(VectorsConfig(path="v.gz"), tmp_path, ["w1"])


def test_a_file_that_was_cut_off_says_so(read: Callable[..., StaticVectors]) -> None:
    text = "900 3\n" + "\n".join(lines())
    assert "promises 900 words" in read(text).remarks[0]
    assert read(text, first=2).remarks == []


def test_only_the_first_words_are_read(read: Callable[..., StaticVectors]) -> None:
    found = read("\n".join(lines()), first=2)
    assert found.lines == 2 and found.way.tolist() == [0, 1, 2, 0, 0, 0, 0]


def test_coverage_by_types_and_by_tokens(read: Callable[..., StaticVectors]) -> None:
    found = read("\n".join(lines()))
    counts = np.array([1000, 60, 10, 0, 10, 10, 10])
    # Tokens 0 and 5 are no text; of the five others four have a vector, and 80 of the 90 times that they come.
    types, tokens = found.coverage(counts, [0, 5])
    assert types == pytest.approx(0.8) and tokens == pytest.approx(80 / 90)
    said = found.report(counts, [0, 5], lambda number: str(WORDS[number]))
    assert "80.0% of the vocabulary" in said[1] and "88.9% of the training tokens" in said[1]
    assert "straße" in said[2]


def test_a_large_file_is_not_held_in_memory(tmp_path: Path) -> None:
    """Twelve megabytes of text, of which a few kilobytes are wanted."""
    row = " ".join(f"{number:.5f}" for number in np.random.default_rng(0).normal(size=150))
    with (tmp_path / "v.txt").open("w", encoding="utf-8") as file:
        for number in range(10_000):
            file.write(f"w{number} {row}\n")
    assert (tmp_path / "v.txt").stat().st_size > 12e6
    words = [f"w{number}" for number in range(0, 10_000, 500)]
    tracemalloc.start()
    found = read_vectors(VectorsConfig(path="v.txt"), tmp_path, words)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert found.rows == 20 and most < 1e6
