"""Wrong input: every kind of bad row with its line, the policy on them, and files that cannot be used."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from encodery.data import ledger as kinds
from encodery.data.ledger import Ledger
from encodery.data.sources import DataConfig, Row, SourceConfig, read_rows, sample_rows
from encodery.errors import DataError, MissingExtra


def read(base: Path, labels: Any = "none", **data: Any) -> tuple[list[Row], Ledger]:
    ledger = Ledger()
    config = DataConfig.model_validate({"validation_share": 0, "bad_rows_share": 1.0, **data})
    return list(read_rows(config, "train", base=base, seed=0, labels=labels, ledger=ledger)), ledger


def refused(base: Path, labels: Any = "none", **data: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(base, labels, **data)
    return str(caught.value)


# ---- every kind of bad row, on line 3, between good ones ----

GOOD = '{"text": "good", "pair": "p", "label": "1"}'
JSON_CASES = [
    ('{"text": "broken', "none", kinds.BROKEN_JSON),
    ("[" * 100_000, "none", kinds.BROKEN_JSON),
    ('{"text": "a", "n": ' + "9" * 5000 + "}", "none", kinds.BROKEN_JSON),
    ('["text"]', "none", kinds.NOT_AN_OBJECT),
    ('{"text": ""}', "none", kinds.EMPTY_TEXT),
    ('{"text": null}', "none", kinds.EMPTY_TEXT),
    ('{"text": "\\u0000 \\u0000\\n\\u0007\\u200b\\ufeff"}', "none", kinds.EMPTY_TEXT),
    ('{"text": "\\ud83d"}', "none", kinds.EMPTY_TEXT),
    ('{"text": [["a"], "b"]}', "none", kinds.NOT_TEXT),
    ('{"text": []}', "none", kinds.EMPTY_TEXT),
    ('{"txt": "a"}', "none", kinds.MISSING_TEXT),
    ('{"text": "a"}', "class", kinds.MISSING_LABEL),
    ('{"text": "a", "label": null}', "class", kinds.MISSING_LABEL),
    ('{"text": "a", "label": " "}', "class", kinds.MISSING_LABEL),
    ('{"text": "a", "label": NaN}', "class", kinds.MISSING_LABEL),
    ('{"text": "a", "label": ["x"]}', "class", kinds.NOT_ONE_LABEL),
    ('{"text": "a", "label": [["x"]]}', "classes", kinds.NOT_A_LABEL_LIST),
    ('{"text": "a", "label": "[1,"}', "classes", kinds.NOT_A_LABEL_LIST),
    ('{"text": "a", "label": ["x", ""]}', "classes", kinds.NOT_A_LABEL_LIST),
    ('{"text": "a", "label": "much"}', "number", kinds.NOT_A_NUMBER),
    ('{"text": "a", "label": NaN}', "number", kinds.NOT_A_NUMBER),
    ('{"text": "a", "label": "inf"}', "number", kinds.NOT_A_NUMBER),
    ('{"text": "a", "label": true}', "number", kinds.NOT_A_NUMBER),
    ('{"text": "a", "label": "1_0"}', "number", kinds.NOT_A_NUMBER),
    ('{"text": "a", "label": 1' + "0" * 400 + "}", "number", kinds.NOT_A_NUMBER),
]


@pytest.mark.parametrize("line, labels, kind", JSON_CASES)
def test_a_bad_line_of_json(tmp_path: Path, line: str, labels: str, kind: str) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join([GOOD, "", line, GOOD]))
    rows, ledger = read(tmp_path, labels, train="a.jsonl", label="label")
    assert [row.where for row in rows] == ["a.jsonl:1", "a.jsonl:4"]
    (problem,) = ledger.problems()
    assert (problem.kind, problem.count, problem.places) == (kind, 1, ("a.jsonl:3",))
    message = refused(tmp_path, labels, train="a.jsonl", label="label", bad_rows="refuse")
    assert message.startswith(f"a.jsonl:3: {kind}")
    assert "to do:" in message


@pytest.mark.parametrize("pair, kind", [("", kinds.EMPTY_PAIR), (None, kinds.EMPTY_PAIR), (..., kinds.MISSING_PAIR)])
def test_a_bad_pair(tmp_path: Path, pair: Any, kind: str) -> None:
    bad = {"text": "a"} if pair is ... else {"text": "a", "pair": pair}
    (tmp_path / "a.jsonl").write_text(f"{GOOD}\n{json.dumps(bad)}\n")
    rows, ledger = read(tmp_path, train="a.jsonl", pair="pair")
    assert (len(rows), ledger.count(kind)) == (1, 1)


@pytest.mark.parametrize(
    "name, line, kind",
    [
        ("a.csv", "a,b,c", kinds.WRONG_FIELDS),
        ("a.csv", "a", kinds.WRONG_FIELDS),
        ("a.csv", '"a"b,c', kinds.BROKEN_QUOTES),
        ("a.csv", "  ,c", kinds.EMPTY_TEXT),
        ("a.csv", "a,", kinds.MISSING_LABEL),
        ("a.tsv", "a\tb\tc", kinds.WRONG_FIELDS),
        ("a.tsv", "\t1", kinds.EMPTY_TEXT),
    ],
)
def test_a_bad_line_of_a_table(tmp_path: Path, name: str, line: str, kind: str) -> None:
    sign = "," if name.endswith("csv") else "\t"
    head, good = f"text{sign}label", f'"good"{sign}1'
    (tmp_path / name).write_text("\n".join([head, good, line, good]))
    rows, ledger = read(tmp_path, "class", train=name, label="label")
    assert [row.where for row in rows] == [f"{name}:2", f"{name}:4"]
    assert [(p.kind, p.places) for p in ledger.problems()] == [(kind, (f"{name}:3",))]


def test_an_unclosed_quote_says_which_lines_are_lost(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('text,label\n"two\nlines",1\n"open,0\nx,1\ny,0\n')
    rows, ledger = read(tmp_path, train="a.csv")
    assert [(row.text, row.where) for row in rows] == [("two\nlines", "a.csv:2")]
    (problem,) = ledger.problems()
    assert problem.places == ("a.csv:4",)
    assert "lines 4 to 6" in problem.detail


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.tsv", "a.jsonl"])
@pytest.mark.parametrize("encoding, wrong", [("utf-8", b"\xff\xfe"), ("utf-8", b"\xe4\xbd"), ("gb18030", b"\xff")])
def test_a_wrong_byte_costs_one_row(tmp_path: Path, name: str, encoding: str, wrong: bytes) -> None:
    table = name[2:] in ("csv", "tsv")
    lines = [b'{"text": "%s"}' % t if name == "a.jsonl" else t for t in (b"one", b"tw" + wrong + b"o", b"three")]
    (tmp_path / name).write_bytes(b"\n".join([b"text", *lines] if table else lines) + b"\n")
    rows, ledger = read(tmp_path, train={"path": name, "encoding": encoding})
    assert [row.text for row in rows] == ["one", "three"]
    assert [(p.kind, p.places) for p in ledger.problems()] == [(kinds.WRONG_ENCODING, (f"{name}:{3 if table else 2}",))]


def test_wrong_bytes_in_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\nmore\n\ntwo\nb\xffd\n\nthree\n")
    rows, ledger = read(tmp_path, train={"path": "a.txt", "documents": "blank"})
    assert [row.text for row in rows] == ["one\nmore", "three"]
    assert ledger.problems()[0].places == ("a.txt:5",)
    assert "a.txt:5" in refused(tmp_path, train={"path": "a.txt", "documents": "file"})


def test_odd_characters_are_repaired_and_noted(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a\\u0000b"}\n{"text": "half \\ud83d"}\n{"text": "\\ud83d\\ude00"}\n')
    rows, ledger = read(tmp_path, train="a.jsonl")
    assert [row.text for row in rows] == ["ab", "half \ufffd", "😀"]
    assert ledger.bad == 0
    assert sorted(note.places for note in ledger.notes()) == [("a.jsonl:1",), ("a.jsonl:2",)]


def test_a_line_without_end_is_one_bad_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encodery.data.lines.LONGEST_LINE", 50)
    (tmp_path / "a.txt").write_text("x" * 50 + "\n" + "y" * 175 + "\nz\n")
    rows, ledger = read(tmp_path, train="a.txt")
    assert [(row.text[:1], row.where) for row in rows] == [("z", "a.txt:3")]
    assert ledger.count(kinds.LINE_TOO_LONG) == 2


# ---- the policy ----


def test_too_many_bad_rows_stop_the_run_early(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join([GOOD] * 960 + ["{"] * 60 + [GOOD] * 100_000))
    ledger = Ledger()
    data = DataConfig.model_validate({"train": "a.jsonl", "validation_share": 0})
    rows = read_rows(data, "train", base=tmp_path, seed=0, labels="none", ledger=ledger)
    with pytest.raises(DataError, match=r"a\.jsonl:961") as caught:
        list(rows)
    assert ledger.good + ledger.bad < 1100
    assert "bad_rows_share" in str(caught.value)


def test_the_share_is_judged_at_the_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join([GOOD] * 94 + ["{"] * 6))
    assert "6 of 100 rows are bad (6.0%)" in refused(tmp_path, train="a.jsonl", bad_rows_share=0.05)
    rows, ledger = read(tmp_path, train="a.jsonl", bad_rows_share=0.06)
    assert (len(rows), ledger.good, ledger.bad) == (94, 94, 6)


def test_all_rows_bad(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("{\n{\n")
    assert "all of them" in refused(tmp_path, train="a.jsonl", bad_rows_share=1.0)
    (tmp_path / "zh.txt").write_bytes("你好\n再见\n".encode("gb18030"))
    assert "encoding: gb18030" in refused(tmp_path, train="zh.txt")


def test_the_ledger_tells_people(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text("\n".join([GOOD] * 10 + ["{"] * 30 + ['{"text": ""}']))
    _, ledger = read(tmp_path, train="a.jsonl")
    problems = ledger.problems()
    assert [(p.kind, p.count, len(p.places)) for p in problems] == [
        (kinds.BROKEN_JSON, 30, 20),
        (kinds.EMPTY_TEXT, 1, 1),
    ]
    summary = ledger.summary()
    assert summary[0] == "10 good rows, 31 bad rows (75.61%) passed over"
    assert "broken JSON: 30 (a.jsonl:11, " in summary[1]
    assert "and 25 more" in summary[1]
    assert json.loads(json.dumps(ledger.to_dict()))["problems"]["broken JSON"]["count"] == 30
    assert set(kinds.FIXES) >= {p.kind for p in problems}


def test_set_aside_rows_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"row {i}" for i in range(200)))
    rows, ledger = read(tmp_path, train={"path": "a.txt", "weight": 1.5}, validation_share=0.3)
    assert ledger.good == 200
    assert ledger.set_aside == 200 - len({row.text for row in rows})
    assert "set aside" in ledger.summary()[0]


# ---- files that cannot be used ----


def test_missing_files_name_the_nearest(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("text\na\n")
    assert "did you mean 'train.csv'?" in refused(tmp_path, train="trian.csv")
    assert "did you mean 'train.csv'?" in refused(tmp_path, train="train.json")
    assert "no folder" in refused(tmp_path, train="nowhere/train.csv")
    assert "no file matches" in refused(tmp_path, train="*.jsonl")
    (tmp_path / "empty").mkdir()
    assert "without files" in refused(tmp_path, train="empty")
    assert "no file of format 'parquet'" in refused(tmp_path, train={"path": ".", "format": "parquet"})


def test_empty_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b""))
    (tmp_path / "blank.txt").write_text("\n\n \n")
    (tmp_path / "head.csv").write_text("text,label\n")
    for name, said in (
        ("a.txt", "is empty"),
        ("a.csv.gz", "is empty"),
        ("blank.txt", "no rows"),
        ("head.csv", "no rows"),
    ):
        message = refused(tmp_path, train=name)
        assert said in message
        assert name in message
    (tmp_path / "b.txt").write_text("b\n")
    rows, ledger = read(tmp_path, train="[ab].txt")
    assert [row.text for row in rows] == ["b"]
    assert ledger.problems()[0].places == ("a.txt",)


@pytest.mark.parametrize("name", ["a.txt", "a.csv", "a.jsonl", "a.json", "a.bin"])
def test_binary_files(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(bytes(range(256)) * 50)
    assert "a binary file" in refused(tmp_path, train=name)
    (tmp_path / name).write_bytes(b"PK\x03\x04" + bytes(range(1, 200)))
    assert "zip" in refused(tmp_path, train=name)
    (tmp_path / name).write_bytes("text".encode("utf-16"))
    assert "encoding: utf-16" in refused(tmp_path, train=name)


def test_one_binary_file_among_texts(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("fine\n")
    (tmp_path / "b.txt").write_bytes(bytes(range(256)) * 50)
    rows, ledger = read(tmp_path, train="*.txt")
    assert [row.text for row in rows] == ["fine"]
    assert [(p.kind, p.places) for p in ledger.problems()] == [(kinds.BINARY_FILE, ("b.txt",))]
    seen = sample_rows(SourceConfig(path="*.txt"), base=tmp_path)
    assert [row["text"] for row in seen.rows] == ["fine"]
    assert seen.problems == ["b.txt: a binary file (NUL bytes at its start)"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_damaged_packed_files(tmp_path: Path, suffix: str) -> None:
    data = "".join(f"line {i * i}\n" for i in range(100_000)).encode()
    whole = gzip.compress(data) if suffix == ".gz" else zstandard.compress(data)
    (tmp_path / f"cut.txt{suffix}").write_bytes(whole[: len(whole) // 2])
    assert "broke off after line" in refused(tmp_path, train=f"cut.txt{suffix}")
    (tmp_path / f"not.txt{suffix}").write_bytes(b"plain text all along")
    assert "cannot be read" in refused(tmp_path, train=f"not.txt{suffix}")


def test_columns_that_are_not_there(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sentence,label\na,1\n")
    (tmp_path / "a.jsonl").write_text('{"sentence": "a", "label": 1}\n')
    (tmp_path / "a.json").write_text('[{"sentence": "a", "label": 1}]')
    for name in ("a.csv", "a.jsonl", "a.json"):
        for policy in ("skip", "refuse"):
            message = refused(tmp_path, train=name, text="sentense", bad_rows=policy)
            assert "no column 'sentense', did you mean 'sentence'?" in message
            assert "'sentence', 'label'" in message
            assert name in message
        assert "no column 'topic'" in refused(tmp_path, "class", train=name, text="sentence", label="topic")
        assert "`data.label:`" in refused(tmp_path, "class", train=name, text="sentence")
    (tmp_path / "a.txt").write_text("a\n")
    assert "format: folder" in refused(tmp_path, "class", train="a.txt", label="label")
    assert "`pair`" in refused(tmp_path, train="a.txt", pair="other")


def test_headers_that_cannot_be_meant(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text;label\na;1\n")
    assert 'delimiter: ";"' in refused(tmp_path, train="a.csv")
    rows, _ = read(tmp_path, "class", train={"path": "a.csv", "delimiter": ";"}, label="label")
    assert (rows[0].text, rows[0].label) == ("a", "1")
    (tmp_path / "b.csv").write_text("text,text\na,1\n")
    assert "twice" in refused(tmp_path, train="b.csv")


def test_json_that_is_no_array(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{\n "data": [1]\n}')
    assert "array" in refused(tmp_path, train="a.json")
    (tmp_path / "b.json").write_text('[{"text": "a"},\n{"text": ]')
    assert "b.json:2" in refused(tmp_path, train="b.json")
    (tmp_path / "c.json").write_text('[{"text": "a"}, 3]')
    _, ledger = read(tmp_path, train="c.json")
    assert ledger.problems()[0].places == ("c.json:item 2",)


def test_parquet_that_is_none(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 but not really")
    assert "a.parquet" in refused(tmp_path, train="a.parquet")


@pytest.mark.parametrize(
    "package, path, extra", [("pyarrow", "a.parquet", "parquet"), ("datasets", "hub:owner/name", "hub")]
)
def test_missing_packages_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, path: str, extra: str
) -> None:
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=rf"encodery\[{extra}\]"):
        read(tmp_path, train=path)
