"""Files of entities and triples, mentions in texts, and triples written behind them: right input and wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from conftest import PLAIN, make_texts
from encodery.data.branches import KnowledgeWriter
from encodery.data.composing import samples_of_row
from encodery.data.corpus import Reading, held_rows, length_facts, sample_lengths, training_store
from encodery.data.knowledge import (
    InjectionConfig,
    Knowledge,
    KnowledgeConfig,
    Triple,
    gather_knowledge,
    read_texts,
    read_triples,
)
from encodery.data.ledger import Ledger
from encodery.data.loader import Loader, Place, StoredWindows, StreamedWindows
from encodery.data.mentions import FIRST, Linker, NameFinder
from encodery.data.rows import Mention
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.sources import DataConfig, Row, read_rows
from encodery.data.store import TokenStore, store_in_memory, store_on_disk
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError


def written(folder: Path, name: str, text: str) -> str:
    (folder / name).write_text(text, encoding="utf-8")
    return name


# -- files ------------------------------------------------------------------------------------------


def test_triples_are_read_from_tabs_and_from_json(tmp_path: Path) -> None:
    wanted = [Triple("Q1", "is a", "river"), Triple("Q2", "lies in", "Q1")]
    tabs = written(tmp_path, "a.tsv", "head\trelation\ttail\nQ1\tis a\triver\n\nQ2\tlies in\tQ1 \n")
    lines = [json.dumps(dict(zip(("head", "relation", "tail"), one))) for one in wanted]
    objects = written(tmp_path, "a.jsonl", "\n".join(lines))
    bare = written(tmp_path, "b.txt", "Q1\tis a\triver\nQ2\tlies in\tQ1")
    for name in (tabs, objects, bare):
        assert list(read_triples(name, tmp_path)) == wanted
    names = written(tmp_path, "names.tsv", "id\tname\nQ1\tRiver Thames\nQ1\tThames\n")
    assert list(read_texts(names, tmp_path)) == [("Q1", "River Thames"), ("Q1", "Thames")]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("x.tsv", "a\tb\tc\na\tb\n", r"x\.tsv:2: 2 fields instead of 3: 'a\\tb'"),
        ("x.tsv", "a\tb\tc\td\n", r"x\.tsv:1: 4 fields instead of 3"),
        ("x.tsv", "a\t\tc\n", r"x\.tsv:1: an empty field"),
        ("x.tsv", "\n\n", "has no line of head, relation and tail"),
        ("x.tsv", "head\trelation\ttail\n", "has no line of"),
        ("x.jsonl", '{"head": "a", "relation": "b"}\n', r"x\.jsonl:1: not an object with head, relation and tail"),
        ("x.jsonl", '{"head": "a", "relation": "b", "tail": 3}\n', "not an object"),
        ("x.jsonl", "[1, 2, 3]\n", "not an object"),
        ("x.jsonl", "{broken\n", "not an object"),
    ],
)
def test_a_line_that_is_no_triple_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    written(tmp_path, name, text)
    with pytest.raises(DataError, match=said):
        list(read_triples(name, tmp_path))


def test_wrong_bytes_and_missing_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_bytes(b"a\tb\tc\n\xff\xfe\tb\tc\n")
    with pytest.raises(DataError, match=r"x\.tsv:2: wrong encoding"):
        list(read_triples("x.tsv", tmp_path))
    with pytest.raises(DataError, match="nowhere"):
        list(read_triples("nowhere.tsv", tmp_path))


def test_knowledge_is_gathered_from_all_that_names_an_entity(tmp_path: Path) -> None:
    written(tmp_path, "names.tsv", "Q2\tThames\nQ2\tRiver Thames\nQ1\tLondon\n")
    written(tmp_path, "relations.tsv", "P1\tlies on\n")
    written(tmp_path, "triples.tsv", "Q1\tP1\tQ2\nQ1\tP9\tQ7\nQ2\tP1\tQ1\n")
    given: dict[str, Any] = {"names": "names.tsv", "relations": "relations.tsv", "triples": "triples.tsv"}
    found = gather_knowledge(KnowledgeConfig(**given, inject=InjectionConfig()), tmp_path)
    assert found.entities == ("Q1", "Q2", "Q7")
    assert set(found.names) == {("Thames", 2), ("River Thames", 2), ("London", 1)}
    assert found.facts == ((1, "lies on Thames"), (1, "P9 Q7"), (2, "lies on London"))
    assert Knowledge.from_json(found.to_json()) == found
    # Rows that mark their mentions are not searched; what they mark is known too.
    marked = gather_knowledge(KnowledgeConfig(**given, mentions="entities"), tmp_path, ["Q9"])
    assert marked.entities == ("Q1", "Q2", "Q7", "Q9") and marked.names == () and marked.facts == ()
    assert Knowledge.from_json(marked.to_json()) == marked
    # A model that has learned its entities keeps their order, and knows no others.
    kept = gather_knowledge(KnowledgeConfig(**given, inject=InjectionConfig()), tmp_path, first=("Q2", "Q5"))
    assert kept.entities == ("Q2", "Q5") and kept.facts == ((1, "lies on London"),)
    assert set(kept.names) == {("Thames", 1), ("River Thames", 1)}
    # Without a file of names heads are looked for as they are called in the triples.
    assert gather_knowledge(KnowledgeConfig(triples="triples.tsv"), tmp_path).names == (("Q1", 1), ("Q2", 2))


def test_knowledge_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="tells of no entity"):
        gather_knowledge(KnowledgeConfig(mentions="entities"), tmp_path)
    with pytest.raises(ValidationError, match="inject needs triples"):
        KnowledgeConfig(inject=InjectionConfig())
    with pytest.raises(ValidationError, match="test_triples needs triples"):
        KnowledgeConfig(test_triples="x.tsv")
    with pytest.raises(ValidationError, match="text cannot be several"):
        DataConfig.model_validate({"train": "a", "text": ["a", "b"], "knowledge": {"mentions": "entities"}})


# -- mentions in rows -------------------------------------------------------------------------------


def rows_of(folder: Path, lines: list[dict[str, Any]], ledger: Ledger | None = None) -> list[Row]:
    written(folder, "rows.jsonl", "\n".join(json.dumps(line) for line in lines))
    data = {"train": "rows.jsonl", "validation_share": 0, "knowledge": {"mentions": "entities"}, "bad_rows_share": 1}
    book = ledger or Ledger()
    given = DataConfig.model_validate(data)
    return list(read_rows(given, "train", base=folder, seed=1, labels="none", ledger=book))


def test_rows_carry_their_mentions(tmp_path: Path) -> None:
    rows = rows_of(
        tmp_path,
        [
            {"text": "London lies on the Thames", "entities": [[0, 6, "Q1"], [19, 25, "Q2"]]},
            {"text": "no column here"},
            {"text": "none", "entities": []},
            {"text": "as JSON in a string", "entities": '[[0, 2, "Q3"]]'},
            {"text": "empty", "entities": ""},
            {"text": "\ufeffa\x00b London", "entities": [[5, 11, 7]]},
        ],
    )
    assert [row.mentions for row in rows] == [
        (Mention(0, 6, "Q1"), Mention(19, 25, "Q2")), (), (), (Mention(0, 2, "Q3"),), (), (Mention(3, 9, "7"),)
    ]  # fmt: skip
    assert rows[5].text[3:9] == "London"


@pytest.mark.parametrize(
    ("entities", "said"),
    [
        ([[0, 9, "Q1"]], "lies outside of the text"),
        ([[-1, 2, "Q1"]], "lies outside"),
        ([[2, 2, "Q1"]], "lies outside"),
        ([[0, 2]], "is not [start, stop, entity]"),
        ([["0", 2, "Q1"]], "is not [start, stop, entity]"),
        ([[True, 2, "Q1"]], "is not [start, stop, entity]"),
        ([[0, 2, None]], "is not [start, stop, entity]"),
        ({"a": 1}, "is not [start, stop, entity]"),
        (3, "is not [start, stop, entity]"),
        ("[[0, 2", "Expecting"),
    ],
)
def test_broken_mentions_make_a_bad_row(tmp_path: Path, entities: Any, said: str) -> None:
    ledger = Ledger()
    rows = rows_of(tmp_path, [{"text": "a text", "entities": entities}, {"text": "a good one"}], ledger)
    assert len(rows) == 1 and ledger.count("broken mentions") == 1
    assert said in ledger.problems()[0].detail


def test_names_are_found_the_longest_first() -> None:
    finder = NameFinder([("New York", 1), ("New York City", 2), ("york", 3), ("straße", 4), ("北京", 5), ("York", 9)])
    text = "From NEW-YORK City to new york, York's STRASSE and 我去北京大学。"
    found = [(text[start:stop], number) for start, stop, number in finder.find(text)]
    assert found == [("NEW-YORK City", 2), ("new york", 1), ("York", 3), ("STRASSE", 4), ("北京", 5)]
    assert finder.ambiguous == 1
    assert NameFinder([("", 1), ("!!", 2)]).find("!! anything") == []
    assert finder.find("") == [] and finder.find("new") == []


# -- tokens -----------------------------------------------------------------------------------------

KNOWN = Knowledge(
    ("house", "river", "under"), facts=((1, "the walked"), (1, "found"), (1, "saw with"), (2, "and then"))
)


def known_rows(tokenizer: Tokenizer) -> tuple[list[Row], TokenStore, Linker]:
    rows = [
        Row("the house under the river", None, None, "x:1", (Mention(4, 9, "house"), Mention(20, 25, "river"))),
        Row("a film", None, None, "x:2"),
        Row("the splendid house", None, None, "x:3", (Mention(4, 18, "river"), Mention(13, 18, "house"))),
        Row("house", None, None, "x:4", (Mention(0, 5, "castle"),)),
        Row("the house stood", None, None, "x:5", (Mention(6, 8, "house"),)),  # from inside a token to inside a token
    ]
    linker = Linker(KNOWN)
    return rows, store_in_memory(rows, tokenizer, linker=linker), linker


def test_mentions_are_aligned_to_every_token_they_touch(tokenizer: Tokenizer) -> None:
    rows, store, linker = known_rows(tokenizer)
    for number, row in enumerate(rows):
        mention = store.mention(number)
        (encoded,) = tokenizer.encode_batch([row.text])
        assert mention is not None and mention.size == encoded.ids.size
        for one in row.mentions[:1]:
            if one.entity in KNOWN.numbers:
                touched = [a < one.stop and one.start < b for a, b in encoded.offsets.tolist()]
                own = (mention & ~FIRST) == KNOWN.numbers[one.entity]
                assert own.tolist() == touched
                assert np.flatnonzero(own & ((mention & FIRST) != 0)).tolist() == np.flatnonzero(touched)[:1].tolist()
    assert linker.counts.to_dict() == {
        "mentions": 4, "mentions of unknown entities": 1, "mentions inside of others": 1
    }  # fmt: skip
    assert linker.counts.unknown_examples == ["castle"]
    assert store.facts["mentions"]["mentions"] == 4


def test_names_are_found_while_tokenising(tokenizer: Tokenizer) -> None:
    knowledge = Knowledge(("Q1", "Q2"), names=(("house", 1), ("the river", 2)))
    store = store_in_memory([Row("House by the river, a house", None, None, "x")], tokenizer, linker=Linker(knowledge))
    mention = store.mention(0)
    assert mention is not None
    assert [int(number & ~FIRST) for number in mention[(mention & FIRST) != 0]] == [1, 2, 1]


def test_byte_level_tokens_that_share_a_character_are_aligned(tokenizer: Tokenizer) -> None:
    del tokenizer
    texts = [text for text, _ in make_texts(100)]
    made = train_tokenizer(texts, TokenizerConfig(kind="bytes"), seed=1)
    knowledge = Knowledge(("Q1",), names=(("北京", 1),))
    store = store_in_memory([Row("我去北京", None, None, "x")], made, linker=Linker(knowledge))
    mention = store.mention(0)
    assert mention is not None and mention.size == 12
    assert (mention != 0).tolist() == [False] * 6 + [True] * 6 and mention[6] == FIRST | np.uint32(1)


def test_the_store_on_disk_keeps_mentions(tokenizer: Tokenizer, tmp_path: Path) -> None:
    rows, memory, _ = known_rows(tokenizer)
    first = store_on_disk(tmp_path / "s", lambda: rows, tokenizer, linker=Linker(KNOWN))
    again = store_on_disk(tmp_path / "s", lambda: 1 / 0, tokenizer)  # type: ignore[arg-type]
    assert memory.mentions is not None
    for store in (first, again):
        assert store.mentions is not None and np.array_equal(store.mentions, memory.mentions)
        assert store.facts["mentions"] == memory.facts["mentions"]
    (tmp_path / "s" / "mentions.bin").write_bytes(b"\x00" * 4)
    mended = store_on_disk(tmp_path / "s", lambda: rows, tokenizer, linker=Linker(KNOWN))
    assert mended.mentions is not None and np.array_equal(mended.mentions, memory.mentions)
    plain = store_on_disk(tmp_path / "p", lambda: rows, tokenizer)
    assert plain.mentions is None and plain.mention(0) is None


# -- samples ----------------------------------------------------------------------------------------


def maker_of(tokenizer: Tokenizer, longest: int, inject: dict[str, int] | None, **more: Any) -> SampleMaker:
    align = more.pop("align", "first")
    limits = None if inject is None else InjectionConfig(**inject)
    knowledge = Knowledge(KNOWN.entities, KNOWN.names, KNOWN.facts, align, limits)
    writer = KnowledgeWriter(knowledge, tokenizer)
    return SampleMaker.framed(tokenizer.frame, longest, writer=writer, **more)


def test_samples_name_their_entities_and_get_their_triples(tokenizer: Tokenizer) -> None:
    rows, store, _ = known_rows(tokenizer)
    counts = LengthCounts()
    (sample,) = samples_of_row(store, maker_of(tokenizer, 64, {"branches": 2, "tokens": 32}), 0, counts)
    assert sample.tree is not None and sample.entity is not None
    text = tokenizer.encode_batch([rows[0].text])[0].ids
    branches = [one.ids for one in tokenizer.encode_batch(["the walked", "found", "and then"])]
    wanted = [[tokenizer.cls_id, *text, tokenizer.sep_id], *branches]
    assert sample.ids.tolist() == [number for part in wanted for number in part]
    sizes = [len(part) for part in wanted]
    assert sample.tree.branch.tolist() == [n for n, size in enumerate(sizes) for _ in range(size)]
    # Positions: the text as if it stood alone, a branch from the end of its mention on.
    trunk = sizes[0]
    assert sample.tree.position[:trunk].tolist() == list(range(trunk))
    house, river = np.flatnonzero(sample.entity == 1)[0], np.flatnonzero(sample.entity == 2)[0]
    mention = store.mention(0)
    assert mention is not None
    after = {n: 1 + int(np.flatnonzero((mention & ~FIRST) == n)[-1]) + 1 for n in (1, 2)}
    first, second, third = np.split(sample.tree.position[trunk:], np.cumsum(sizes[1:-1]))
    assert first.tolist() == list(range(after[1], after[1] + sizes[1])) and second[0] == after[1]
    assert third.tolist() == list(range(after[2], after[2] + sizes[3]))
    # Who belongs to whom: the words of the first mention and its two branches, those of the second and its one.
    belongs = sample.tree.mention
    assert belongs[house] == 1 and belongs[river] == 2 and belongs[0] == 0
    assert set(belongs[trunk : trunk + sizes[1] + sizes[2]]) == {1} and set(belongs[-sizes[3] :]) == {2}
    assert (sample.entity[trunk:] == 0).all() and int((sample.entity > 0).sum()) == 2
    assert sample.starts_word[trunk] and (sample.segment == 0).all()
    assert counts.branches == 3 and counts.branch_tokens == sample.ids.size - trunk and not counts.branches_left_out


def test_a_text_that_mentions_nothing_stays_as_it_is(tokenizer: Tokenizer) -> None:
    _, store, _ = known_rows(tokenizer)
    maker = maker_of(tokenizer, 64, {"branches": 2, "tokens": 32})
    (sample,) = samples_of_row(store, maker, 1, LengthCounts())
    (plain,) = SampleMaker.framed(tokenizer.frame, 64).single(*store.text(1), 1, LengthCounts())
    assert sample.tree is None and sample.entity is not None and not sample.entity.any()
    assert np.array_equal(sample.ids, plain.ids)


def test_every_token_of_a_mention_can_name_it(tokenizer: Tokenizer) -> None:
    _, store, _ = known_rows(tokenizer)
    (one,) = samples_of_row(store, maker_of(tokenizer, 64, None), 2, LengthCounts())
    (every,) = samples_of_row(store, maker_of(tokenizer, 64, None, align="all"), 2, LengthCounts())
    assert one.entity is not None and every.entity is not None and one.tree is None
    assert (one.entity > 0).sum() == 1
    assert int((every.entity > 0).sum()) == len(tokenizer.encode_batch(["splendid house"])[0].ids)


@pytest.mark.parametrize(("limits", "written"), [((1, 32), 2), ((3, 32), 4), ((3, 2), 1), ((3, 3), 2)])
def test_limits_are_kept_and_what_is_left_out_is_counted(
    tokenizer: Tokenizer, limits: tuple[int, int], written: int
) -> None:
    """A triple that does not fit is left out whole; a shorter one behind it may still fit."""
    _, store, _ = known_rows(tokenizer)
    counts = LengthCounts()
    maker = maker_of(tokenizer, 64, {"branches": limits[0], "tokens": limits[1]})
    (sample,) = samples_of_row(store, maker, 0, counts)
    sizes = [one.ids.size for one in tokenizer.encode_batch(["the walked", "found", "saw with", "and then"])]
    assert sizes == [2, 1, 2, 2], "the limits of this test are made for these"
    assert counts.branches == written and counts.branch_tokens <= limits[1]
    assert counts.branches + counts.branches_left_out == min(limits[0], 3) + 1
    assert sample.ids.size == 2 + store.text(0)[0].size + counts.branch_tokens


@pytest.mark.parametrize("long", ["split", "cut"])
@pytest.mark.parametrize("longest", [8, 12, 20, 33])
def test_long_texts_leave_room_and_nothing_is_longer_than_the_limit(
    tokenizer: Tokenizer, longest: int, long: Any
) -> None:
    texts = [" ".join(PLAIN[(n * k) % len(PLAIN)] for k in range(1, 4 + 3 * n)) for n in range(1, 14)]
    rows = [Row(text, None, None, "x") for text in texts]
    knowledge = Knowledge(("a", "b"), (("river", 1), ("house", 2)), ((1, "the walked"), (2, "found saw")))
    known = Knowledge(knowledge.entities, knowledge.names, knowledge.facts, "first", InjectionConfig(tokens=6))
    store = store_in_memory(rows, tokenizer, linker=Linker(known))
    writer = KnowledgeWriter(known, tokenizer)
    maker = SampleMaker.framed(tokenizer.frame, longest, long, writer)
    loader = Loader(StoredWindows(store, seed=None), maker, 64 * 4, tokenizer.pad_id, 1, False)
    samples = loader.samples(store, np.arange(store.rows))
    assert max(sample.ids.size for sample in samples) <= longest
    assert loader.counts.branches > 0
    sizes = np.zeros(store.rows, dtype=np.int64)
    np.add.at(sizes, [sample.uid for sample in samples], [sample.ids.size for sample in samples])
    assert np.array_equal(sizes, sample_lengths(store, maker))
    facts = length_facts(store, maker)
    assert facts["triples written"] == loader.counts.branches
    assert facts["tokens of triples"] == loader.counts.branch_tokens
    assert facts["triples left out for lack of room"] == loader.counts.branches_left_out
    assert facts["mentions"] == store.facts["mentions"]["mentions"]
    assert facts["windows" if long == "split" else "rows cut"] == (
        loader.counts.windows if long == "split" else loader.counts.cut_rows
    )
    # No word of a text is lost when it is split, whatever room its windows leave.
    if long == "split":
        for row in range(store.rows):
            trunks = []
            for sample in samples:
                if sample.uid == row:
                    size = sample.ids.size if sample.tree is None else int((sample.tree.branch == 0).sum())
                    trunks += sample.ids[1 : size - 1].tolist()
            assert trunks == store.text(row)[0].tolist()


def test_pairs_have_mentions_in_both_texts(tokenizer: Tokenizer) -> None:
    known = Knowledge(("a",), (("river", 1),), ((1, "found"),), "first", InjectionConfig())
    store = store_in_memory([Row("the river", "a river saw", None, "x")], tokenizer, linker=Linker(known))
    maker = SampleMaker.framed(tokenizer.frame, 64, writer=KnowledgeWriter(known, tokenizer))
    (sample,) = samples_of_row(store, maker, 0, LengthCounts())
    assert sample.entity is not None and sample.tree is not None
    at = np.flatnonzero(sample.entity)
    assert sample.segment[at].tolist() == [0, 1]
    assert sample.segment[sample.tree.branch == 1].tolist() == [0]
    assert sample.segment[sample.tree.branch == 2].tolist() == [1]
    # Triples yield to the texts: in a pair that fills the sample there is no room for them.
    tight = SampleMaker.framed(tokenizer.frame, 8, writer=KnowledgeWriter(known, tokenizer))
    counts = LengthCounts()
    (full,) = samples_of_row(store, tight, 0, counts)
    assert full.ids.size == 8 and full.tree is None and counts.branches_left_out == 2


def reading_of(folder: Path, tokens: str = "cached") -> Reading:
    written(folder, "names.tsv", "Q1\triver\nQ2\thouse\n")
    written(folder, "triples.tsv", "Q1\tfound\tQ2\nQ2\tsaw\tQ1\n")
    texts = [{"text": text} for text, _ in make_texts(150)]
    written(folder, "train.jsonl", "\n".join(map(json.dumps, texts)))
    knowledge = {"names": "names.tsv", "triples": "triples.tsv", "inject": {"branches": 1}}
    given = {"train": "train.jsonl", "tokens": tokens, "knowledge": knowledge}
    data = DataConfig.model_validate(given)
    assert data.knowledge is not None
    known = gather_knowledge(data.knowledge, folder)
    return Reading(data, folder, 1, "none", folder / "cache", known)


def test_a_run_reads_and_counts_what_is_known(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reading = reading_of(tmp_path)
    store = training_store(reading, tokenizer)
    held = held_rows(reading, "validation", tokenizer, [])
    for known, texts in ((store, None), (held.store, held.texts)):
        facts = length_facts(known, SampleMaker.framed(tokenizer.frame, 64, "split", reading.writer(tokenizer)))
        assert facts["mentions"] == facts["triples written"] > 0
        if texts is not None:
            assert facts["mentions"] == sum(text.split().count(name) for text in texts for name in ("river", "house"))
    # Another file of names is another cache.
    keys = {reading.key("train", tokenizer, None)}
    written(tmp_path, "names.tsv", "Q1\triver\nQ2\tfilm\n")
    assert reading.data.knowledge is not None
    other = gather_knowledge(reading.data.knowledge, tmp_path)
    keys.add(Reading(reading.data, tmp_path, 1, "none", tmp_path / "cache", other).key("train", tokenizer, None))
    keys.add(Reading(reading.data, tmp_path, 1, "none", tmp_path / "cache").key("train", tokenizer, None))
    assert len(keys) == 3


def test_a_stream_is_linked_as_it_comes(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reading = reading_of(tmp_path, "streamed")
    windows = StreamedWindows(
        lambda epoch, skip: reading.rows("train", skip=skip), tokenizer, seed=1, linker=reading.linker()
    )
    maker = SampleMaker.framed(tokenizer.frame, 64, writer=reading.writer(tokenizer))
    loader = Loader(windows, maker, 256, tokenizer.pad_id, 1, True)
    batches = [batch for batch, _ in loader.epoch(Place())]
    assert any(batch.layout.branch is not None for batch in batches)
    assert all("entity" in batch.values for batch in batches)


def test_training_texts_that_mention_nothing_are_an_error(tokenizer: Tokenizer, tmp_path: Path) -> None:
    reading = reading_of(tmp_path)
    strange = Knowledge(("Q1",), (("submarine", 1),))
    with pytest.raises(DataError, match=r"none of the .* training rows mentions one of the 1 entities"):
        training_store(Reading(reading.data, tmp_path, 1, "none", tmp_path / "cache", strange), tokenizer)
