"""Small things that many tests need: texts, a tokenizer, rows and models, made from fixed seeds."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from encodery.batch import Batch, layout_of
from encodery.data.corpus import sample_lengths
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.samples import SampleMaker
from encodery.data.sources import Row
from encodery.data.store import LabelKind, store_in_memory
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.evaluation.record import RunRecord
from encodery.model import Model, ModelConfig
from encodery.objectives.masked import Masked, MaskedConfig
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.training.loop import Fit
from encodery.training.precision import Precision
from encodery.training.training_config import TrainingConfig

torch.set_num_threads(1)

LABELS_OF: dict[str, LabelKind] = {"masked": "none", "classify": "class"}

GOOD = ["bright", "lovely", "warm", "kind", "honest", "gentle", "splendid", "clever"]
BAD = ["dull", "cruel", "cold", "rotten", "bitter", "shabby", "dreadful", "clumsy"]
PLAIN = [
    "the", "a", "film", "story", "actor", "house", "river", "morning", "child",
    "teacher", "walked", "found", "saw", "with", "under", "over", "and", "then",
]  # fmt: skip


def make_texts(number: int, *, seed: int = 0, most_words: int = 30) -> list[tuple[str, str]]:
    """(text, label) whose label can be told from its words; lengths vary."""
    rng = random.Random(seed)
    rows = []
    for _ in range(number):
        label = rng.choice(["good", "bad"])
        words = [rng.choice(PLAIN) for _ in range(rng.randint(2, most_words))]
        for _ in range(max(1, len(words) // 4)):
            words.insert(rng.randrange(len(words) + 1), rng.choice(GOOD if label == "good" else BAD))
        rows.append((" ".join(words), label))
    return rows


def make_rows(number: int, *, seed: int = 0, most_words: int = 30) -> list[Row]:
    texts = make_texts(number, seed=seed, most_words=most_words)
    return [Row(text, None, label, f"rows.txt:{place + 1}") for place, (text, label) in enumerate(texts)]


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """A WordPiece tokenizer of about 200 tokens."""
    return train_tokenizer([text for text, _ in make_texts(400)], TokenizerConfig(vocab_size=200), seed=1)


@pytest.fixture
def rows() -> list[Row]:
    return make_rows(120)


def tiny_config(**changes: Any) -> ModelConfig:
    """Width 32, depth 2; keys of the encoder, and `vocab_size`, `frontend`, `readout`, can be changed."""
    frontend = {"vocab_size": changes.pop("vocab_size", 50), **changes.pop("frontend", {})}
    readout = changes.pop("readout", {"kind": "word"})
    encoder = {"width": 32, "depth": 2, "max_length": 64, "drop_rate": 0.0, **changes}
    if encoder.get("kind", "transformer") == "transformer":
        encoder = {"heads": 4, "mlp_width": 48, **encoder}
    elif encoder["kind"] == "recurrent":
        encoder = {key: value for key, value in encoder.items() if key not in ("heads", "positions")}
    return ModelConfig.model_validate({"frontend": frontend, "encoder": encoder, "readout": readout})


def tiny_model(seed: int = 0, **changes: Any) -> Model:
    """A model whose weights are large enough that every part matters to the result."""
    model = Model(tiny_config(**changes)).initialise(seed)
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
    if model.frontend.asks_for_spelling:
        model.frontend.spell(spelled(model.frontend.vocab_size))
    return model.eval()


def spelled(vocab_size: int) -> list[str | None]:
    """Made-up tokens: five that are no text, then words and pieces of words of different lengths, no two alike; one in
    seven ends a sentence."""
    letters = "abcdefgh"
    parts = [letters[n % 8] + letters[n // 8 % 8] * (n % 3) + letters[n // 5 % 8] for n in range(vocab_size)]
    return [None if n < 5 else f"{' ' * (n % 2)}{parts[n]}{n}{'.' * (n % 7 == 6)}" for n in range(vocab_size)]


def batch_of(rows: list[list[np.ndarray]], length: int, pad_id: int = 0) -> Batch:
    """Documents (arrays of ids), row by row, as a Batch."""
    layout = layout_of([[ids.size for ids in row] for row in rows], length)
    ids = np.full(layout.positions, pad_id, dtype=np.int64)
    for start, document in zip(layout.starts.tolist(), [ids for row in rows for ids in row]):
        ids[start : start + document.size] = document
    number = layout.documents
    return Batch(
        values={
            "ids": torch.from_numpy(ids),
            "segment": torch.zeros(layout.positions, dtype=torch.int64),
            "starts_word": torch.ones(layout.positions, dtype=torch.bool),
            # Every fourth word names one of twelve entities.
            "entity": torch.from_numpy(np.where(ids % 4 == 1, ids // 4 % 12 + 1, 0)),
        },
        layout=layout,
        uids=np.arange(number),
        parts=np.zeros(number, np.int64),
    )


def documents_of(lengths: list[int], *, vocab_size: int = 50, seed: int = 0) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [rng.integers(5, vocab_size, size=length) for length in lengths]


@pytest.fixture
def text_file(tmp_path: Path) -> Callable[..., Path]:
    """Writes n labelled rows as JSON lines and gives the path."""
    import json

    def write(name: str, number: int, *, seed: int = 0, most_words: int = 30) -> Path:
        path = tmp_path / name
        lines = [
            json.dumps({"text": text, "label": label})
            for text, label in make_texts(number, seed=seed, most_words=most_words)
        ]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    return write


def make_fit(
    tokenizer: Tokenizer,
    *,
    rows: list[Row] | None = None,
    training: dict[str, Any] | None = None,
    objective: dict[str, Any] | None = None,
    encoder: dict[str, Any] | None = None,
    validate: bool = False,
    seed: int = 3,
) -> Fit:
    """A training of the tiny model on made texts, exactly as a run puts one together."""
    kind = (objective or {}).get("kind", "masked")
    store = store_in_memory(make_rows(150, seed=2) if rows is None else rows, tokenizer, labels=LABELS_OF[kind])
    held = store_in_memory(make_rows(40, seed=99), tokenizer, labels=LABELS_OF[kind])
    judge: Any
    if kind == "masked":
        given = {"vocab_size": tokenizer.vocab_size, "mask_id": tokenizer.mask_id}
        special = frozenset(tokenizer.special_ids)
        judge = Masked(MaskedConfig.model_validate(objective or {}), **given, special_ids=special)
    else:
        judge = Supervised(SupervisedConfig.model_validate(objective), labels=store.label_names)
    changes = {"vocab_size": tokenizer.vocab_size, "readout": judge.readout().model_dump(), **(encoder or {})}
    model = Model(tiny_config(**changes)).initialise(seed)
    config = TrainingConfig.model_validate({"budget": "8 steps", "batch_tokens": 256, **(training or {})})
    maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, 64)
    loader = Loader(StoredWindows(store, seed=seed), maker, 256, tokenizer.pad_id, seed, True, judge.prepare)
    scoring = Loader(StoredWindows(held, seed=None), maker, 256, tokenizer.pad_id, 7, False, judge.prepare)

    def score(model: Model) -> dict[str, float]:
        model.eval()
        with torch.inference_mode():
            losses = [judge.loss(model(batch), batch) for batch, _ in scoring.epoch(Place())]
        loss = sum(float(one.total) for one in losses) / sum(float(one.count) for one in losses)
        return {"score": -loss, "validation_loss": loss, "metric": 1 / (1 + loss)}

    tokens = int(sample_lengths(store, maker).sum())
    precision = Precision(torch.float32, "fp32, for the test")
    return Fit(model, judge, loader, config, precision, seed, tokens, score if validate else None)


def compared_in_pairs(record: RunRecord) -> None:
    """Every model of the table but the run itself was scored on the same draws of the rows."""
    *others, own = record.comparison
    assert others and all(row.gain is not None and row.gain.low is not None for row in others)
    assert own.gain is None
