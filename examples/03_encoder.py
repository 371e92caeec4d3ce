"""Run an encoder by hand: texts into one packed batch, vectors out, and nothing leaks from text to text."""

from __future__ import annotations

import numpy as np
import torch
from made_text import messages

from encodery.batch import Batch
from encodery.data.packing import pack, plan_batches
from encodery.data.samples import LengthCounts, SampleMaker
from encodery.data.tokenizers import TokenizerConfig, train_tokenizer
from encodery.encoders.transformer import TransformerConfig
from encodery.frontends.text import TextConfig
from encodery.model import Model, ModelConfig, cost_table

texts = [text for text, _ in messages(200)]
tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=300), seed=1)
encoder = TransformerConfig(width=64, depth=2, heads=2, max_length=64, drop_rate=0.0)
model = Model(ModelConfig(frontend=TextConfig(vocab_size=tokenizer.vocab_size), encoder=encoder))
model.initialise(seed=1).eval()
for part in cost_table(model, length=32):
    print(f"{part.name:<34}{part.parameters:>9,} parameters")

# Texts -> samples: [CLS] text [SEP] as numbers.
maker = SampleMaker(tokenizer.cls_id, tokenizer.sep_id, encoder.max_length)
samples = []
for number, encoded in enumerate(tokenizer.encode_batch(texts)):
    samples += maker.single(encoded.ids, encoded.starts_word, number, LengthCounts())
lengths = np.array([sample.ids.size for sample in samples])


def packed(numbers: list[int], budget: int) -> Batch:
    """The first batch of these samples, of exactly `budget` positions."""
    chosen = [samples[number] for number in numbers]
    plan = plan_batches(lengths[numbers], budget, encoder.max_length)[0]
    return pack(chosen, plan, budget, tokenizer.pad_id)


# Samples -> one batch: whole documents side by side in rows of constant length, hardly any padding.
batch = packed(list(range(len(samples))), 1024)
layout = batch.layout
print(f"{layout.documents} documents in {layout.rows} rows of {layout.length}", end=": ")
print(f"{1 - layout.real_tokens / layout.positions:.1%} padding")
longest = int(lengths.max())
print(f"padded to the longest of all ({longest}) it would be {1 - lengths.mean() / longest:.1%}")

with torch.inference_mode():
    together = model.encode(batch).vectors
    # The same document alone in a batch, with padding behind it, has the same vectors.
    worst = 0.0
    for number in range(5):
        uid, start, length = int(batch.uids[number]), int(layout.starts[number]), int(layout.lengths[number])
        alone = model.encode(packed([uid], 64)).vectors[:length]
        worst = max(worst, float((together[start : start + length] - alone).abs().max()))
print(f"largest difference between a packed document and the same one alone: {worst:.1e}")
assert worst < 1e-4
