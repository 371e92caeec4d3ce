"""Train a tokenizer, look at its tokens, and find the way back from tokens to characters."""

from __future__ import annotations

import tempfile
from pathlib import Path

from made_text import messages

from encodery.data.coverage import coverage
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer

texts = [text for text, _ in messages(2000)]
for kind in ("wordpiece", "bpe", "unigram", "characters"):
    config = TokenizerConfig.model_validate({"kind": kind, "vocab_size": 300})
    tokenizer = train_tokenizer(texts, config, seed=1)
    fit = coverage(tokenizer, texts)
    print(f"{kind:>10}: {tokenizer.vocab_size} tokens, {fit.tokens_per_word:.2f} tokens a word")

tokenizer = train_tokenizer(texts, TokenizerConfig(vocab_size=150), seed=1)
text = "Hello, my kettle is too small"
encoded = tokenizer.encode_batch([text])[0]
print(text)
for number, starts, (begin, end) in zip(encoded.ids, encoded.starts_word, encoded.offsets, strict=True):
    word = "new word" if starts else "goes on"
    print(f"  id {number:3d}  {tokenizer.token(int(number)):>8}  {word}  characters {begin}-{end}: {text[begin:end]!r}")

# One file holds it all, and the `tokenizers` library of Hugging Face opens it.
with tempfile.TemporaryDirectory() as folder:
    tokenizer.save(Path(folder))
    again = Tokenizer.load(Path(folder))
    assert again.encode_batch([text])[0].ids.tolist() == encoded.ids.tolist()
print("saved and opened again: the same ids")
