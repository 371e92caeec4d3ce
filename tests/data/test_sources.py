"""Rows from files of every format: configs, splits, weights, mixing, resuming, and bounded memory."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import itertools
import json
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from encodery.data.ledger import Ledger
from encodery.data.source_config import with_more
from encodery.data.sources import (
    DataConfig,
    Row,
    SourceConfig,
    columns,
    fingerprint,
    has_split,
    read_rows,
    sample_rows,
    total_bytes,
)
from encodery.errors import DataError


def rows_of(base: Path, split: Any = "train", labels: Any = "none", seed: int = 0, **data: Any) -> list[Row]:
    data.setdefault("validation_share", 0.0)
    config = DataConfig(**data)
    return list(read_rows(config, split, base=base, seed=seed, labels=labels, ledger=Ledger()))


def texts_of(base: Path, split: Any = "train", **more: Any) -> list[str]:
    return [row.text for row in rows_of(base, split, **more)]


def write_lines(path: Path, lines: list[str]) -> Path:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    return path


def write_jsonl(path: Path, values: list[dict[str, Any]]) -> Path:
    return write_lines(path, [json.dumps(value) for value in values])


# ---- config ----


def test_sources_may_be_written_short() -> None:
    short = DataConfig.model_validate({"train": "a.txt", "test": ["b.txt", {"path": "c.csv", "weight": 2}]})
    assert short.train == [SourceConfig(path="a.txt")]
    assert short.test == [SourceConfig(path="b.txt"), SourceConfig(path="c.csv", weight=2)]
    assert DataConfig.model_validate(short.model_dump()) == short
    assert DataConfig.model_validate({"train": {"path": "x"}}).train == [SourceConfig(path="x")]


@pytest.mark.parametrize(
    "wrong",
    [
        {"train": []},
        {"train": {"path": "x", "weight": 0}},
        {"train": {"path": "x", "encoding": "utf-9"}},
        {"train": {"path": "x", "encoding": "base64"}},
        {"train": "x", "validation_share": 1.0},
        {"train": "x", "text": []},
        {"train": "x", "txt": "body"},
    ],
)
def test_wrong_config_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        DataConfig.model_validate(wrong)


# ---- formats ----


def packed(path: Path, data: bytes, how: str) -> str:
    name = path.name + how
    if how == ".gz":
        data = gzip.compress(data)
    elif how == ".zst":
        data = zstandard.compress(data[: len(data) // 2]) + zstandard.compress(data[len(data) // 2 :])
    (path.parent / name).write_bytes(data)
    return name


@pytest.mark.parametrize("how", ["", ".gz", ".zst"])
@pytest.mark.parametrize(
    "name, content",
    [
        ("a.txt", "one\ntwo, 2\nthree\n"),
        ("a.log", "one\ntwo, 2\nthree\n"),
        ("a.csv", 'id,text\n1,one\n2,"two, 2"\n3,three\n'),
        ("a.tsv", "id\ttext\n1\tone\n2\ttwo, 2\n3\tthree\n"),
        ("a.jsonl", '{"text": "one"}\n\n{"text": "two, 2"}\n{"text": "three"}'),
        ("a.data", '{"text": "one"}\n{"text": "two, 2"}\n{"text": "three"}'),
        ("a.json", '[{"text": "one"},\n{"text": "two, 2"}, {"text": "three"}]'),
        ("b.json", '{"text": "one"}\n{"text": "two, 2"}\n{"text": "three"}'),
    ],
)
def test_every_format_packed_and_plain(tmp_path: Path, name: str, content: str, how: str) -> None:
    for start in ("", "\ufeff"):
        for break_ in ("\n", "\r\n"):
            data = (start + content.replace("\n", break_)).encode()
            file = packed(tmp_path / name, data, how)
            assert texts_of(tmp_path, train=file) == ["one", "two, 2", "three"]


def test_documents_of_plain_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"one\ntwo\n\n \nthree\n")
    for documents, expected in (
        ("line", [("one", "a.txt:1"), ("two", "a.txt:2"), ("three", "a.txt:5")]),
        ("blank", [("one\ntwo", "a.txt:1"), ("three", "a.txt:5")]),
        ("file", [("one\ntwo\n\n \nthree", "a.txt:1")]),
    ):
        rows = rows_of(tmp_path, train={"path": "a.txt", "documents": documents})
        assert [(row.text, row.where) for row in rows] == expected


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "latin-1", "utf-16-le"])
def test_other_encodings(tmp_path: Path, encoding: str) -> None:
    texts = ["dér", "zwei"] if encoding == "latin-1" else ["你好", "zwei"]
    (tmp_path / "a.txt").write_bytes("\n".join(texts).encode(encoding))
    assert texts_of(tmp_path, train={"path": "a.txt", "encoding": encoding}) == texts


def test_folder_names_become_labels(tmp_path: Path) -> None:
    for label, name, text in (("good", "1", "fine\nday"), ("bad", "2", "rain"), ("bad", "3", "storm")):
        (tmp_path / "data" / label).mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / label / f"{name}.txt").write_text(text)
    rows = rows_of(tmp_path, labels="class", train={"path": "data", "format": "folder"})
    assert sorted((row.label, row.text) for row in rows) == [
        ("bad", "rain"),
        ("bad", "storm"),
        ("good", "fine\nday"),
    ]
    with pytest.raises(DataError, match="format: folder"):
        rows_of(tmp_path, labels="class", train="data")


def test_folders_and_globs(tmp_path: Path) -> None:
    (tmp_path / "d" / "sub").mkdir(parents=True)
    write_lines(tmp_path / "d" / "a.txt", ["a"])
    write_lines(tmp_path / "d" / "sub" / "b.txt", ["b"])
    write_lines(tmp_path / "d" / "README.md", ["not data"])
    write_lines(tmp_path / "d" / ".hidden.txt", ["not data"])
    ledger = Ledger()
    data = DataConfig(train="d", validation_share=0)  # type: ignore[arg-type]
    rows = list(read_rows(data, "train", base=tmp_path, seed=0, labels="none", ledger=ledger))
    assert sorted(row.text for row in rows) == ["a", "b"]
    assert ledger.count("file passed over") == 1
    assert any("README.md" in line for line in ledger.summary())
    assert sorted(texts_of(tmp_path, train="d/**/*.txt")) == ["a", "b"]
    assert texts_of(tmp_path, train=str(tmp_path / "d" / "s*" / "*")) == ["b"]
    write_jsonl(tmp_path / "d" / "c.jsonl", [{"text": "c"}])
    assert texts_of(tmp_path, train="d") == ["c"]


def test_parquet_in_row_groups(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    table = pa.table({"text": [f"t{i}" for i in range(5000)], "label": [i % 2 for i in range(5000)], "x": [0] * 5000})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=700)
    rows = rows_of(tmp_path, train="a.parquet", labels="class", label="label")
    assert [row.text for row in rows] == [f"t{i}" for i in range(5000)]
    assert rows[1] == Row("t1", None, "1", "a.parquet:row 2")
    assert columns(SourceConfig(path="a.parquet"), tmp_path) == ["text", "label", "x"]


def test_hub_name_through_the_real_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "set").mkdir()
    write_jsonl(tmp_path / "set" / "train.jsonl", [{"text": "a", "label": 0}, {"text": "b", "label": 1}])
    write_jsonl(tmp_path / "set" / "test.jsonl", [{"text": "c", "label": 1}])
    name = f"hub:{tmp_path / 'set'}"
    rows = rows_of(tmp_path, train=name, labels="class", label="label")
    assert [(row.text, row.label) for row in rows] == [("a", "0"), ("b", "1")]
    assert texts_of(tmp_path, "test", train=name, test=name) == ["c"]
    assert texts_of(tmp_path, train=f"{name}@test") == ["c"]
    with pytest.raises(DataError, match="nowhere"):
        rows_of(tmp_path, train=f"{name}@nowhere")
    with pytest.raises(DataError, match="no column 'body'"):
        rows_of(tmp_path, train=name, text="body")


def test_class_names_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["neg", "pos"])})
    made = datasets.Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]}, features=features)
    asked: list[Any] = []

    def load(*args: Any, **more: Any) -> Any:
        asked.append((args, more))
        return made.to_iterable_dataset()

    monkeypatch.setattr(datasets, "load_dataset", load)
    rows = rows_of(tmp_path, train="hub:owner/name:config@part", labels="class", label="label")
    assert [row.label for row in rows] == ["neg", "pos"]
    assert asked[0] == (("owner/name", "config"), {"split": "part", "streaming": True})


# ---- columns and labels ----


def test_several_text_columns_and_pairs(tmp_path: Path) -> None:
    write_jsonl(
        tmp_path / "a.jsonl",
        [{"title": "T", "body": "b", "other": "o"}, {"title": None, "body": "c", "other": 7}],
    )
    rows = rows_of(tmp_path, train="a.jsonl", text=["title", "body"], pair="other")
    assert [(row.text, row.pair) for row in rows] == [("T b", "o"), ("c", "7")]
    rows = rows_of(tmp_path, train={"path": "a.jsonl", "text": "other"}, text="title")
    assert [row.text for row in rows] == ["o", "7"]


@pytest.mark.parametrize(
    "labels, given, expected",
    [
        ("class", 1, "1"),
        ("class", 1.0, "1"),
        ("class", "1.0", "1"),
        ("class", 1.5, "1.5"),
        ("class", True, "true"),
        ("class", " sports ", "sports"),
        ("classes", ["a", 1.0, "a"], ["a", "1"]),
        ("classes", "a|b", ["a", "b"]),
        ("classes", '["a", "b"]', ["a", "b"]),
        ("classes", [], []),
        ("number", "3.5", 3.5),
        ("number", 2, 2.0),
    ],
)
def test_labels_are_normalised(tmp_path: Path, labels: str, given: Any, expected: Any) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": "x", "y": given}])
    (row,) = rows_of(tmp_path, train="a.jsonl", labels=labels, label="y")
    assert row.label == expected
    assert type(row.label) is type(expected)


TEXT = st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Cf")), min_size=1, max_size=20).filter(
    lambda text: any(char.isalnum() for char in text)
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXT, TEXT), min_size=1, max_size=8))
def test_round_trip(tmp_path: Path, values: list[tuple[str, str]]) -> None:
    # Quotes, commas, tabs and line breaks inside a text are what tables are broken by.
    values = [(f'{a}", "\r\n{a}', b) for a, b in values]
    for name, delimiter, quotes in (("a.csv", ",", "auto"), ("a.tsv", "\t", "yes")):
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, delimiter=delimiter)
        writer.writerows([("text", "pair"), *values])
        (tmp_path / name).write_bytes(buffer.getvalue().encode())
        rows = rows_of(tmp_path, train={"path": name, "quotes": quotes}, pair="pair")
        assert [(row.text, row.pair) for row in rows] == values
    for escaped in (True, False):
        lines = [json.dumps({"text": a, "pair": b}, ensure_ascii=escaped) for a, b in values]
        (tmp_path / "a.jsonl").write_bytes("\n".join(lines).encode())
        rows = rows_of(tmp_path, train="a.jsonl", pair="pair")
        assert [(row.text, row.pair, row.where) for row in rows] == [
            (a, b, f"a.jsonl:{number}") for number, (a, b) in enumerate(values, 1)
        ]


def test_a_lone_quote_in_tsv_is_a_character(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text('text\tlabel\n"never closed\t0\n"said ""so"""\t1\n5" pipe\t0\n')
    assert texts_of(tmp_path, train="a.tsv") == ['"never closed', 'said "so"', '5" pipe']
    raw = {"path": "a.tsv", "quotes": "no"}
    assert texts_of(tmp_path, train=raw)[1] == '"said ""so"""'


# ---- splitting, weights, mixing ----


def test_a_made_split_keeps_copies_together_and_its_share(tmp_path: Path) -> None:
    texts = [f"text number {i % 3000}" for i in range(6000)]
    texts += [text.upper().replace(" ", "  ") for text in texts[:500]]
    write_lines(tmp_path / "a.txt", texts)
    train = texts_of(tmp_path, train="a.txt", validation_share=0.2)
    validation = texts_of(tmp_path, "validation", train="a.txt", validation_share=0.2)
    assert len(train) + len(validation) == len(texts)
    assert not {" ".join(t.lower().split()) for t in train} & {" ".join(t.lower().split()) for t in validation}
    assert 0.17 < len(validation) / len(texts) < 0.23
    assert set(validation) != set(texts_of(tmp_path, "validation", train="a.txt", validation_share=0.2, seed=1))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(TEXT, min_size=1, max_size=12), st.integers(0, 5), st.sampled_from([0.1, 0.5, 0.9]))
def test_every_row_falls_on_exactly_one_side(tmp_path: Path, texts: list[str], seed: int, share: float) -> None:
    write_jsonl(tmp_path / "a.jsonl", [{"text": text} for text in [*texts, *texts]])
    sides: list[list[str]] = []
    for split in ("train", "validation"):
        sides.append([])
        with contextlib.suppress(DataError):  # a side without rows
            sides[-1] = texts_of(tmp_path, split, train="a.jsonl", validation_share=share, seed=seed)
    assert sorted(sides[0] + sides[1]) == sorted([*texts, *texts])
    assert not set(sides[0]) & set(sides[1])


def test_rows_of_a_group_fall_on_the_same_side(tmp_path: Path) -> None:
    rows = [{"text": f"answer {i}", "patient": i % 100 if i % 2 else f" {i % 100}"} for i in range(2000)]
    write_jsonl(tmp_path / "a.jsonl", rows)
    made = {"train": "a.jsonl", "validation_share": 0.3, "group": "patient"}
    sides = [rows_of(tmp_path, split, **made) for split in ("train", "validation")]
    patients = [{row.group for row in side} for side in sides]
    assert [len(patients[0] | patients[1]), len(patients[0] & patients[1])] == [100, 0]
    assert sum(map(len, sides)) == 2000
    assert 10 < len(patients[1]) < 50
    # Where nothing is set apart, the column need not be there.
    assert len(rows_of(tmp_path, "test", **{**made, "test": "a.jsonl", "group": "another"})) == 2000


def test_a_group_that_is_not_there(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"answer {i}", "patient": i} for i in range(20)]
    write_jsonl(tmp_path / "a.jsonl", [*rows, {"text": "one more", "patient": None}, {"text": "b", "patient": [1]}])
    ledger = Ledger()
    data = DataConfig.model_validate(
        {"train": "a.jsonl", "group": "patient", "bad_rows_share": 0.5, "validation_share": 0.4}
    )
    found = list(read_rows(data, "train", base=tmp_path, seed=0, labels="none", ledger=ledger))
    assert len(found) < 20 and ledger.bad == 2
    assert {"missing group", "group is not a single value"} == set(ledger.to_dict()["problems"])
    with pytest.raises(DataError, match="no column 'doctor'"):
        rows_of(tmp_path, train="a.jsonl", validation_share=0.1, group="doctor")
    write_lines(tmp_path / "a.txt", ["one", "two"])
    with pytest.raises(DataError, match="no column 'patient' for `group`"):
        rows_of(tmp_path, train="a.txt", validation_share=0.5, group="patient")
    # Text that pretraining adds has no groups.
    more = with_more(data, [SourceConfig(path="a.txt")])
    assert len(list(read_rows(more, "train", base=tmp_path, seed=0, labels="none", ledger=Ledger()))) > len(found)


def test_splits_that_are_there(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", ["a"])
    data = DataConfig(train="a.txt")  # type: ignore[arg-type]
    assert [has_split(data, split) for split in ("train", "validation", "test")] == [True, True, False]
    with pytest.raises(DataError, match=r"data\.test"):
        rows_of(tmp_path, "test", train="a.txt")
    with pytest.raises(DataError, match="validation_share"):
        rows_of(tmp_path, "validation", train="a.txt")
    assert texts_of(tmp_path, "validation", train="nothing.txt", validation="a.txt") == ["a"]


@pytest.mark.parametrize("weight", [0.25, 1.0, 2.0, 2.5])
def test_weight_is_how_often_a_row_appears(tmp_path: Path, weight: float) -> None:
    write_lines(tmp_path / "a.txt", [f"row {i}" for i in range(2000)])
    counts = Counter(texts_of(tmp_path, train={"path": "a.txt", "weight": weight}))
    assert abs(sum(counts.values()) / 2000 - weight) < 0.05
    assert set(counts.values()) <= {int(weight), int(weight) + 1}
    if weight >= 1:
        assert len(counts) == 2000
    source = {"path": "a.txt", "weight": weight}
    assert len(texts_of(tmp_path, "validation", train=source, validation=[source])) == 2000


def test_sources_are_mixed_and_end_together(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", [f"a {i}" for i in range(6000)])
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress("".join(f"b 你好 {i}\n" for i in range(2000)).encode()))
    write_jsonl(tmp_path / "c.jsonl", [{"text": f"c {i}", "more": "x" * 200} for i in range(1000)])
    train = ["a.txt", {"path": "b.txt.gz", "weight": 2}, "c.jsonl"]
    texts = texts_of(tmp_path, train=train)
    assert texts == texts_of(tmp_path, train=train)
    assert texts != texts_of(tmp_path, train=train, seed=1)
    counts = Counter(text[0] for text in texts)
    assert counts == {"a": 6000, "b": 4000, "c": 1000}
    for part in range(4):
        quarter = Counter(text[0] for text in texts[part * 2750 : (part + 1) * 2750])
        for name, count in counts.items():
            assert 0.4 < quarter[name] / (count / 4) < 1.8, (part, name, quarter)


# ---- resuming, caches, looking ----


def test_skip_is_islice(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.txt", [f"a {i}" for i in range(300)])
    write_lines(tmp_path / "b.txt", [f"b {i}" for i in range(200)])
    data = DataConfig.model_validate({"train": [{"path": "a.txt", "weight": 1.5}, "b.txt"]})

    def rows(skip: int) -> tuple[list[Row], Ledger]:
        ledger = Ledger()
        return list(read_rows(data, "train", base=tmp_path, seed=3, labels="none", ledger=ledger, skip=skip)), ledger

    whole, ledger = rows(0)
    for skip in (1, 57, len(whole) - 1, len(whole) + 5):
        rest, again = rows(skip)
        assert rest == list(itertools.islice(whole, skip, None))
        assert again.to_dict() == ledger.to_dict()


def test_fingerprint_follows_files_and_config(tmp_path: Path) -> None:
    import os

    file = write_lines(tmp_path / "a.txt", ["a", "b"])
    base: dict[str, Any] = {"train": "a.txt", "validation": "a.txt", "text": "text"}

    def print_of(split: Any = "train", **more: Any) -> str:
        return fingerprint(DataConfig.model_validate({**base, **more}), split, base=tmp_path)

    first = print_of()
    assert first == print_of() == print_of(test="nothing-here.txt")
    different = {first, print_of("validation"), print_of(text="body"), print_of(validation=None)}
    different.add(print_of(train={"path": "a.txt", "documents": "file"}))
    os.utime(file, ns=(1, 1))
    different.add(print_of())
    file.write_text("a\nbc\n")
    different.add(print_of())
    assert len(different) == 7
    assert total_bytes(DataConfig.model_validate(base), "train", base=tmp_path) == 5


def test_looking_at_a_source(tmp_path: Path) -> None:
    write_lines(tmp_path / "a.jsonl", ['{"a": 1}', "{broken", '{"a": 2, "b": "x"}', '{"c": 3}'])
    looked = sample_rows(SourceConfig(path="a.jsonl"), base=tmp_path, count=2)
    assert (looked.format, looked.rows) == ("jsonl", [{"a": 1}, {"a": 2, "b": "x"}])
    assert looked.problems[0].startswith("a.jsonl:2: broken JSON")
    assert columns(SourceConfig(path="a.jsonl"), tmp_path) == looked.columns == ["a", "b", "c"]


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_memory_stays_bounded(tmp_path: Path, suffix: str) -> None:
    line = ("a line of text that is here to be read and forgotten " * 4 + "\n").encode()
    data = line * (20_000_000 // len(line))
    name = packed(tmp_path / "a.txt", data, suffix)
    del data
    config = DataConfig.model_validate({"train": name, "validation_share": 0})
    tracemalloc.start()
    try:
        count = sum(1 for _ in read_rows(config, "train", base=tmp_path, seed=0, labels="none", ledger=Ledger()))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == 20_000_000 // len(line)
    # Repetitive data is the worst case: a few hundred bytes of .zst unpack to megabytes.
    assert peak < 8_000_000


def test_more_text_beside_pairs_may_be_single_texts() -> None:
    """For what is learned without labels: single texts beside pairs take the pairs apart, pairs beside pairs do not."""
    data = DataConfig.model_validate({"train": "pairs.jsonl", "validation": "held.jsonl", "text": "a", "pair": "b"})

    def columns(more: list[dict[str, Any]]) -> tuple[str | None, list[tuple[str, Any, str | None]]]:
        found = with_more(data, [SourceConfig.model_validate(one) for one in more])
        assert len(found.validation or []) == (1 if found.pair else 2)
        return found.pair, [(one.path, one.text, one.pair) for one in found.train]

    assert columns([{"path": "also.jsonl"}]) == ("b", [("pairs.jsonl", None, None), ("also.jsonl", None, None)])
    apart = [("pairs.jsonl", None, None), ("pairs.jsonl", "b", None)]
    news = ("news.jsonl", ["title", "text"], None)
    assert columns([{"path": "news.jsonl", "text": ["title", "text"]}]) == (None, [*apart, news])
    assert columns([{"path": "plain.txt.gz"}]) == (None, [*apart, ("plain.txt.gz", None, None)])
    own = {"path": "own.jsonl", "text": "x", "pair": "y"}
    assert columns([own, {"path": "news.jsonl", "text": ["title", "text"]}]) == (
        None,
        [*apart, ("own.jsonl", "x", None), ("own.jsonl", "y", None), news],
    )
