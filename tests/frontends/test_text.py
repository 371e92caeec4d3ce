"""The text frontend: which kind of embedding the config names, what cannot be, and the same vectors as one table."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from conftest import batch_of, documents_of, spelled, tiny_config, tiny_model
from encodery.errors import ConfigError
from encodery.frontends.characters import ConvolvedCharacters, Ngrams
from encodery.frontends.embeddings import HashedTable, LearnedTable, StillTable
from encodery.frontends.options import OWN_OPTIONS, TextConfig, VectorsConfig
from encodery.frontends.text import TextFrontend, make_words
from encodery.heads.options import DocumentReadoutConfig, WordReadoutConfig
from encodery.model import Model, cost_table, count, with_own_matrix

VECTORS = {"path": "vectors.txt", "rows": 20}
KINDS: list[tuple[dict[str, Any], type]] = [
    ({}, LearnedTable),
    ({"embedding": "hashed", "hash_rows": 30}, HashedTable),
    ({"embedding": "characters"}, Ngrams),
    ({"embedding": "characters", "character_model": "convolution"}, ConvolvedCharacters),
    ({"embedding": "static", "vectors": VECTORS}, LearnedTable),
    ({"embedding": "static", "vectors": {**VECTORS, "tune": False}}, StillTable),
]


@pytest.mark.parametrize(("frontend", "kind"), KINDS, ids=lambda value: str(value))
def test_the_config_names_the_kind(frontend: dict[str, Any], kind: type) -> None:
    model = tiny_model(frontend=frontend)
    assert type(model.frontend.words) is kind
    assert model.frontend.matrix().shape == (50, 32) and model.device.type == "cpu"
    again = TextConfig.model_validate(model.config.frontend.model_dump(mode="json"))
    assert again == model.config.frontend


class Tomorrow(TextConfig):
    """A later version, in which every option that one kind of embedding has begins with another value."""

    hash_rows: int = 99
    hashes: int = 3
    hash_weights: int = 77
    character_model: Literal["ngrams", "convolution"] = "convolution"
    ngram_lengths: tuple[int, int] = (2, 5)
    ngram_rows: int = 98
    character_width: int = 7
    character_rows: int = 97
    character_kernels: tuple[int, ...] = (2, 4)
    character_filters: int = 9
    highway_layers: int = 2
    vectors: VectorsConfig | None = VectorsConfig(path="of-tomorrow.txt")


def test_tomorrow_has_other_defaults_throughout() -> None:
    usual, later = TextConfig.model_fields, Tomorrow.model_fields
    assert all(usual[name].default != later[name].default for names in OWN_OPTIONS.values() for name in names)


@pytest.mark.parametrize(("frontend", "kind"), KINDS, ids=lambda value: str(value))
def test_a_model_of_today_can_be_read_when_defaults_have_changed(frontend: dict[str, Any], kind: type) -> None:
    written = tiny_model(frontend=frontend).config.model_dump(mode="json")["frontend"]
    later = Tomorrow.model_validate(written)
    assert later.model_dump(mode="json") == written
    assert type(make_words(later, 50, 32)) is kind


@pytest.mark.parametrize(("frontend", "kind"), KINDS, ids=lambda value: str(value))
def test_the_same_vectors_as_one_table(frontend: dict[str, Any], kind: type) -> None:
    """What other frameworks read: the same states, and no other kind of weights."""
    model = tiny_model(frontend=frontend)
    batch = batch_of([documents_of([9, 4]), documents_of([12], seed=1)], 16)
    table = model.frontend.as_table()
    assert table.config.embedding == "learned" and set(table.state_dict()) == {"words.weight", "segments.weight"}
    torch.testing.assert_close(table(batch).vectors, model.frontend(batch).vectors, atol=1e-6, rtol=1e-5)


IMPOSSIBLE: list[tuple[dict[str, Any], str]] = [
    ({"hash_rows": 100}, "hash_rows needs embedding: hashed"),
    ({"embedding": "characters", "hashes": 3}, "hashes needs embedding: hashed; .* embedding: characters"),
    ({"embedding": "hashed", "ngram_rows": 99}, "ngram_rows needs embedding: characters and character_model: ngrams"),
    (
        {"embedding": "characters", "character_model": "convolution", "ngram_rows": 99},
        "ngram_rows needs embedding: characters and character_model: ngrams",
    ),
    ({"embedding": "characters", "highway_layers": 2}, "highway_layers needs .* character_model: convolution"),
    ({"character_model": "convolution"}, "character_model needs embedding: characters"),
    ({"embedding": "static"}, "needs the file of the vectors"),
    ({"vectors": {"path": "glove.txt"}}, "vectors needs embedding: static"),
    ({"embedding": "characters", "ngram_lengths": [6, 3]}, "the smaller first"),
    ({"embedding": "characters", "character_model": "convolution", "character_kernels": [3, 1]}, "in order"),
    ({"embedding": "characters", "character_model": "convolution", "character_kernels": []}, "names no width"),
    ({"embedding": "hashd"}, "hashed"),
]


@pytest.mark.parametrize(("frontend", "said"), IMPOSSIBLE, ids=lambda value: str(value))
def test_what_cannot_be_is_refused_with_what_can(frontend: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        TextConfig.model_validate(frontend)


def test_vectors_may_be_written_as_their_path_alone() -> None:
    config = TextConfig.model_validate({"embedding": "static", "vectors": "glove.txt"})
    assert config.vectors is not None and config.vectors.path == "glove.txt" and config.vectors.tune


@pytest.mark.parametrize("tune", [True, False])
def test_vectors_of_a_file_get_the_spread_of_the_others(tune: bool) -> None:
    config = TextConfig.model_validate(
        {"vocab_size": 50, "embedding": "static", "vectors": {"path": "x", "rows": 20, "tune": tune}}
    )
    frontend = TextFrontend(config, 16)
    frontend.initialise(torch.Generator().manual_seed(0))
    before = frontend.matrix().detach().clone()
    vectors, found = np.zeros((50, 16), np.float32), np.zeros(50, bool)
    found[7:47:2] = True
    vectors[found] = np.random.default_rng(0).normal(0, 3, size=(20, 16))
    frontend.fill(vectors, found)
    after = frontend.matrix().detach()
    assert float(after[found].numpy().std()) == pytest.approx(0.1, rel=1e-4)
    torch.testing.assert_close(after[found] / after[7, 0], torch.from_numpy(vectors[found] / vectors[7, 0]))
    if tune:
        assert torch.equal(after[~found], before[~found])
    else:
        assert set(dict(frontend.named_parameters())) == {"words.words.weight", "segments.weight"}


def test_a_word_readout_has_its_own_matrix_only_where_the_shared_one_is_dear() -> None:
    dear = TextConfig.model_validate({"embedding": "characters", "character_model": "convolution"})
    word, document = WordReadoutConfig(), DocumentReadoutConfig()
    assert with_own_matrix(word, dear) == WordReadoutConfig(tied=False)
    assert with_own_matrix(document, dear) is document
    for frontend, _ in (KINDS[0], KINDS[1], KINDS[2], KINDS[4]):
        assert with_own_matrix(word, TextConfig.model_validate(frontend)) is word


@pytest.mark.parametrize(("frontend", "kind"), KINDS, ids=lambda value: str(value))
def test_the_cost_table_counts_every_kind(frontend: dict[str, Any], kind: type) -> None:
    with torch.device("meta"):
        model = Model(tiny_config(frontend=frontend))
    rows = cost_table(model, length=16)
    assert sum(row.parameters for row in rows) == count(model)
    assert (rows[0].flops > 0) == (kind is ConvolvedCharacters)


def test_spelling_of_another_vocabulary_is_refused() -> None:
    model = tiny_model(frontend={"embedding": "characters"})
    with pytest.raises(ConfigError, match="49 tokens for a model of 50"):
        model.frontend.spell(spelled(49))
    tiny_model().frontend.spell(spelled(49))  # a table asks for none
