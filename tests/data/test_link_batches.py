"""Triples to be learned: read, numbered, described, and drawn into batches beside the texts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from conftest import make_rows
from encodery.data.knowledge import KnowledgeConfig
from encodery.data.links import Answers, Described, JointLoader, describe, read_graph
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.samples import SampleMaker
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError


@pytest.fixture
def files(tmp_path: Path) -> KnowledgeConfig:
    """Twenty entities on a ring, each beside the next; some are described."""
    lines = [f"e{n:02d}\tbeside\te{(n + 1) % 20:02d}" for n in range(20)] + ["e03\tlike\te09", "e03\tlike\te10"]
    (tmp_path / "train.tsv").write_text("\n".join(lines), encoding="utf-8")
    (tmp_path / "dev.tsv").write_text("e03\tlike\te11\n", encoding="utf-8")
    (tmp_path / "test.tsv").write_text("e30\tlike\te09\ne05\tbeside\te19\n", encoding="utf-8")
    said = [f"e{n:02d}\tthe house {'river ' * n}story" for n in range(18)]
    (tmp_path / "said.tsv").write_text("\n".join(said), encoding="utf-8")
    (tmp_path / "names.tsv").write_text("e18\tmorning child\ne00\tteacher\n", encoding="utf-8")
    given = {"triples": "train.tsv", "validation_triples": "dev.tsv", "test_triples": "test.tsv"}
    return KnowledgeConfig(**given, descriptions="said.tsv", names="names.tsv")


def described(files: KnowledgeConfig, base: Path, tokenizer: Tokenizer, most: int = 16) -> Described:
    return describe(read_graph(files, base), files, base, tokenizer, most_tokens=most, frame_room=64)


def test_triples_are_numbered_and_their_answers_known(files: KnowledgeConfig, tmp_path: Path) -> None:
    graph = read_graph(files, tmp_path)
    assert graph.entities[:2] == ("e00", "e01") and graph.entities[-1] == "e30" and len(graph.entities) == 21
    assert graph.relations == ("beside", "like")
    assert [len(part) for part in (graph.train, graph.validation, graph.test)] == [22, 1, 2]
    assert graph.train[0].tolist() == [0, 0, 1] and graph.test[0].tolist() == [20, 1, 9]
    assert graph.learned.of(3, 1, for_tails=True).tolist() == [9, 10]
    assert graph.known.of(3, 1, for_tails=True).tolist() == [9, 10, 11]
    assert graph.known.of(9, 1, for_tails=False).tolist() == [3, 20]
    assert graph.known.of(9, 1, for_tails=True).tolist() == []
    assert Answers(np.zeros((0, 3), np.int64)).of(0, 0, for_tails=True).size == 0


def test_a_relation_that_is_never_learned_is_refused(files: KnowledgeConfig, tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text("e01\tunder\te02\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"test\.tsv: the relation 'under' is in none of the triples of train\.tsv"):
        read_graph(files, tmp_path)


def test_entities_are_described_by_the_best_that_is_there(
    files: KnowledgeConfig, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    found = described(files, tmp_path, tokenizer)
    texts = [tokenizer.decode(sample.ids) for sample in found.samples]
    assert texts[0] == "the house story" and texts[2] == "the house river river story"
    assert texts[18] == "morning child"
    # Nothing is said of e19 and e30: their ids stand for them.
    ids = [tokenizer.encode_batch([name])[0].ids.tolist() for name in ("e19", "e30")]
    assert [sample.ids[1:-1].tolist() for sample in found.samples[19:]] == ids
    assert max(sample.ids.size for sample in found.samples) == found.longest == 16
    assert found.facts == {
        "entities": 21,
        "entities without a description": 3,
        "descriptions cut": 6,
        "relations": 2,
        "triples learned": 22,
        "triples kept for validation": 1,
        "triples kept for the test": 2,
    }
    names = described(KnowledgeConfig(triples="train.tsv", names="names.tsv"), tmp_path, tokenizer)
    assert tokenizer.decode(names.samples[0].ids) == "teacher"


def test_all_descriptions_come_in_batches_with_their_numbers(
    files: KnowledgeConfig, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    found = described(files, tmp_path, tokenizer)
    seen = {}
    for batch, numbers in found.batches(128, 64, tokenizer.pad_id):
        for start, size, number in zip(batch.layout.starts.tolist(), batch.layout.lengths.tolist(), numbers.tolist()):
            seen[number] = batch.values["ids"][start : start + size].tolist()
    assert seen == {number: sample.ids.tolist() for number, sample in enumerate(found.samples)}


def joint(files: KnowledgeConfig, base: Path, tokenizer: Tokenizer, **changes: Any) -> JointLoader:
    store = store_in_memory(make_rows(120), tokenizer)
    given: dict[str, Any] = {
        "windows": StoredWindows(store, seed=1),
        "maker": SampleMaker.framed(tokenizer.frame, 64),
        "budget": 256,
        "pad_id": tokenizer.pad_id,
        "seed": 1,
        "shuffle": True,
        "described": described(files, base, tokenizer),
        "share": 0.5,
    }
    return JointLoader(**{**given, **changes})


@pytest.mark.parametrize("share", [0.25, 0.5, 0.75])
def test_every_batch_has_whole_texts_and_the_entities_of_its_triples(
    files: KnowledgeConfig, tmp_path: Path, tokenizer: Tokenizer, share: float
) -> None:
    loader = joint(files, tmp_path, tokenizer, share=share)
    assert (loader.entity_budget, loader.text_budget) == (round(256 * share), 256 - round(256 * share))
    assert loader.described is not None
    samples, graph = loader.described.samples, loader.described.graph
    true = {tuple(row) for row in graph.train.tolist()}
    texts: list[list[int]] = []
    for batch, _ in loader.epoch(Place()):
        layout, truth = batch.layout, batch.truth
        assert layout.positions == 256
        documents = [
            batch.values["ids"][start : start + size].tolist()
            for start, size in zip(layout.starts.tolist(), layout.lengths.tolist())
        ]
        entities = truth["entity"].tolist()
        assert entities == list(range(len(documents) - len(entities), len(documents)))
        texts += documents[: len(documents) - len(entities)]
        ids = truth["entity_id"].tolist()
        assert len(set(ids)) == len(ids)
        for document, number in zip(entities, ids):
            assert documents[document] == samples[number].ids.tolist()
        assert len(truth["triples"]) > 0
        found = {(ids[head], relation, ids[tail]) for head, relation, tail in truth["triples"].tolist()}
        assert found <= true and len(found) == len(truth["triples"])
        used = {part for head, _, tail in truth["triples"].tolist() for part in (head, tail)}
        assert used == set(range(len(ids))), "an entity that no triple of the batch has"
    plain = Loader(loader.windows, loader.maker, 256, loader.pad_id, 1, False)
    wanted = [sample.ids.tolist() for sample in plain.samples(loader.windows.store, np.arange(120))]  # type: ignore[attr-defined]
    assert sorted(texts) == sorted(wanted), "a text was lost, or came twice"


def test_the_same_place_gives_the_same_batch(files: KnowledgeConfig, tmp_path: Path, tokenizer: Tokenizer) -> None:
    """A resumed run sees what the uninterrupted one would have seen."""
    loader = joint(files, tmp_path, tokenizer)
    run = list(loader.epoch(Place()))
    again = joint(files, tmp_path, tokenizer)
    (later, _), *_ = again.epoch(run[2][1])
    assert torch.equal(later.values["ids"], run[3][0].values["ids"])
    assert torch.equal(later.truth["triples"], run[3][0].truth["triples"])
    (other, _), *_ = again.epoch(Place(epoch=1))
    assert not torch.equal(other.truth["triples"], run[0][0].truth["triples"])


def test_all_triples_come_in_time(files: KnowledgeConfig, tmp_path: Path, tokenizer: Tokenizer) -> None:
    loader = joint(files, tmp_path, tokenizer)
    assert loader.described is not None
    graph, seen = loader.described.graph, set()
    for epoch in range(4):
        for batch, _ in loader.epoch(Place(epoch)):
            ids = batch.truth["entity_id"].tolist()
            seen |= {(ids[head], relation, ids[tail]) for head, relation, tail in batch.truth["triples"].tolist()}
    assert seen == {tuple(row) for row in graph.train.tolist()}


def test_batches_without_room_for_both_are_refused(
    files: KnowledgeConfig, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(ConfigError, match="no room for texts and entities") as caught:
        list(joint(files, tmp_path, tokenizer, budget=64).epoch(Place()))
    assert "training.batch_tokens of 128" in caught.value.expected
