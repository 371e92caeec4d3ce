"""What a run knows of the words of its targets: their own tokenizer, where they have one, and how words begin."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from encodery.config import Config
from encodery.data.corpus import Reading
from encodery.data.store import TokenStore
from encodery.data.targets import TARGET, TargetField, target_facts
from encodery.data.tokenizers import Tokenizer, train_tokenizer
from encodery.durable import replace_file
from encodery.evaluation.judges.writing import target_tokenizer_of
from encodery.evaluation.texts import bleu_tokenizer, require_scorers
from encodery.frontends.cooccurrence import cooccurrence_embeddings
from encodery.heads.decoding.decoder import Decoder
from encodery.objectives.writing import Writing, WritingConfig
from encodery.trained import Trained
from encodery.training.stage import log_unigram

if TYPE_CHECKING:
    from encodery.training.run import Run


def with_target_tokenizer(run: Run, config: Config, reading: Reading, start: Trained | None) -> Reading:
    """The reading, with the tokenizer of the targets where they have one of their own: that of the starting point, the
    one this run has trained before, or a new one."""
    if not isinstance(config, WritingConfig) or config.decoder.vocabulary != "own":
        return reading
    tokenizer = target_tokenizer_of(start.task) if start is not None else None
    file, facts = run.folder / "target_tokenizer.json", run.folder / "target_tokenizer_facts.json"
    if tokenizer is None and file.exists() and facts.exists():
        tokenizer = Tokenizer.load(file, json.loads(facts.read_text(encoding="utf-8")))
    if tokenizer is None:
        run.progress.say("training the tokenizer of the targets")
        texts = (row.beside[TARGET][0] for row in reading.rows("train"))
        settings = config.tokenizer
        if settings.path is not None:
            settings = settings.model_copy(update={"path": str(reading.base / settings.path)})

        def heed(phase: str, share: float) -> None:
            run.heed_stop("training the tokenizer of the targets")

        tokenizer = train_tokenizer(texts, settings, seed=reading.seed, on_progress=heed)
        replace_file(file, tokenizer.to_json().encode())
        replace_file(facts, json.dumps(tokenizer.facts(), ensure_ascii=False).encode())
        run.progress.say(f"tokenizer of the targets: {settings.kind}, {tokenizer.vocab_size:,} tokens")
    made = [replace(one, own_tokenizer=tokenizer) if isinstance(one, TargetField) else one for one in reading.fields]
    return replace(reading, fields=tuple(made))


def tokenizer_of_targets(reading: Reading, tokenizer: Tokenizer) -> Tokenizer:
    """That of the targets, where they have one of their own; else that of the texts."""
    own = (one.own_tokenizer for one in reading.fields if isinstance(one, TargetField))
    return next((one for one in own if one is not None), tokenizer)


def writing_objective(config: WritingConfig, store: TokenStore, tokenizer: Tokenizer) -> Writing:
    """The objective for the training rows; `tokenizer` is that of the targets.

    Raises MissingExtra when what is written could not be scored, DataError when the tokenizer knows too little of it.
    """
    require_scorers()
    target_facts(store, tokenizer, config.longest or store.tokens.size)
    some = [tokenizer.decode(store.texts_of(row, TARGET)[0][0]) for row in range(min(store.rows, 500))]
    detail: dict[str, Any] = {
        "metric": config.metric,
        "bleu_tokenizer": bleu_tokenizer(some),
        "generation": config.generation.model_dump(mode="json"),
        "tried": config.tried,
        "most_tokens": config.longest,
    }
    if config.decoder.vocabulary == "own":
        detail["target_tokenizer"] = {"json": tokenizer.to_json(), "facts": tokenizer.facts()}
    return Writing(config, store, tokenizer, detail)


def target_documents(store: TokenStore) -> Iterator[np.ndarray]:
    """The ids of each target, in order."""
    for row in range(store.rows):
        yield store.texts_of(row, TARGET)[0][0]


def target_counts(store: TokenStore, vocab_size: int) -> np.ndarray:
    """How often each id occurs in the targets, (V,)."""
    if TARGET not in store.texts_beside:
        return np.zeros(vocab_size, dtype=np.int64)
    return np.bincount(np.concatenate([*target_documents(store), np.zeros(0, np.int64)]), minlength=vocab_size)


@torch.no_grad()
def start_decoder(decoder: Decoder, store: TokenStore, seed: int, *, cooccurrence: bool) -> None:
    """Output bias from how often each token is written; an own table of words from their neighbours."""
    counts = target_counts(store, decoder.vocab_size).astype(np.float64)
    decoder.bias.copy_(log_unigram(counts))
    if decoder.words is None or not cooccurrence:
        return
    width, std = decoder.words.weight.shape[1], decoder.config.embedding_std
    wanted = cooccurrence_embeddings(target_documents(store), decoder.vocab_size, width, std=std, seed=seed)
    decoder.words.start(wanted, np.sqrt(counts + 1.0))


def documents_and_targets(store: TokenStore, most_tokens: int) -> Iterator[np.ndarray]:
    """The texts of a store and the targets beside them, which have the same words."""
    if TARGET not in store.texts_beside:
        return store.documents(most_tokens)
    return chain(store.documents(most_tokens), target_documents(store))
