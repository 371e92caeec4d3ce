"""Masked-word pretraining by hand, with the parts of the library: hide words, guess them, learn.

python 04_pretrain.py [STEPS]
"""

from __future__ import annotations

import sys

import numpy as np
import torch
from made_text import messages

from encodery.data.loader import Loader, Place, StoredWindows
from encodery.data.samples import SampleMaker
from encodery.data.sources import Row
from encodery.data.store import store_in_memory
from encodery.data.tokenizers import TokenizerConfig, train_tokenizer
from encodery.encoders.transformer import TransformerConfig
from encodery.frontends.cooccurrence import cooccurrence_embeddings
from encodery.frontends.text import TextConfig
from encodery.model import Model, ModelConfig
from encodery.objectives.masked import Masked, MaskedConfig

steps = int(sys.argv[1]) if len(sys.argv) > 1 else 200
rows = [Row(text, None, None, f"made:{number}") for number, (text, _) in enumerate(messages(3000))]
tokenizer = train_tokenizer([row.text for row in rows], TokenizerConfig(vocab_size=400), seed=1)
store = store_in_memory(rows, tokenizer)
counts = store.counts(tokenizer.vocab_size)
share = counts[counts > 0] / counts.sum()
print(f"guessing by frequency alone costs {-(share * np.log(share)).sum():.2f} nats a word")

encoder = TransformerConfig(width=64, depth=2, heads=2, max_length=64, drop_rate=0.0)
model = Model(ModelConfig(frontend=TextConfig(vocab_size=tokenizer.vocab_size), encoder=encoder)).initialise(seed=1)
words = model.frontend.words.weight
start = cooccurrence_embeddings(store.documents(), *words.shape, std=0.1, seed=1)
words.data.copy_(torch.from_numpy(start))  # which words are alike is known before the first step

objective = Masked(
    MaskedConfig(share=0.2, unit="word"),
    vocab_size=tokenizer.vocab_size,
    mask_id=tokenizer.mask_id,
    special_ids=frozenset(tokenizer.special_ids),
)
maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, encoder.max_length)
windows = StoredWindows(store, seed=1)
loader = Loader(windows, maker, 1024, tokenizer.pad_id, seed=1, shuffle=True, prepare=objective.prepare)
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
losses: list[float] = []
epoch = 0
while len(losses) < steps:
    for batch, _ in loader.epoch(Place(epoch=epoch)):
        loss = objective.loss(model(batch), batch)
        (loss.total / loss.count).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.total.detach()) / float(loss.count))
        if len(losses) % 25 == 0 or len(losses) == 1:
            print(f"step {len(losses):4d}: {losses[-1]:.2f} nats a hidden word")
        if len(losses) == steps:
            break
    epoch += 1
