"""From sampled documents to a vocabulary: six kinds of training.

Two promises shape this file. Memory: no pre-token is longer than 100 characters (scripts without spaces are cut into
short runs), so that pair counting cannot blow up. Repeatability: the trainers of the `tokenizers` library keep words in
randomly seeded hash maps, so WordPiece numbers its `##` pieces, and Unigram sums its floats, in another order in every
process. WordPiece is therefore trained with its alphabet given in sorted order, and Unigram by a loop of our own
(unigram.py), which leaves to the library only what has one possible answer.
"""

# pyright: reportAttributeAccessIssue=false
# (the type stubs of `tokenizers` leave out its submodules)

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import tokenizers
from tokenizers import models, normalizers, pre_tokenizers, processors, trainers

from encodery.data.languages import codes, unspaced_language
from encodery.data.text_sample import Progress
from encodery.data.tokenizer_rules import LONGEST_WORD, Rules, TokenizerConfig, cutter, decoder, normaliser, settle
from encodery.data.unigram import LONGEST_PIECE, fit_pieces

Feed = Callable[[], Iterator[str]]
HfTokenizer = Any  # tokenizers.Tokenizer, whose type stubs leave out most of its methods

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_UNIGRAM_BYTES = 32_000_000  # more text does not change a vocabulary of this kind, only the time it takes
_UNSPACED_BYTES = 24_000_000  # the same for pairs in Chinese, Japanese, Thai: about 1 GB of memory


def text_budget(config: TokenizerConfig) -> int:
    """Bytes of text to hold for this config (unigram needs less than it is allowed)."""
    return min(config.max_bytes, _UNIGRAM_BYTES) if config.kind == "unigram" else config.max_bytes


def thin(documents: list[str], config: TokenizerConfig) -> list[str]:
    """Take every n-th document of a sample dear to count: nearly every run of unspaced script is a word
    of its own, and its pairs cost the library 40 bytes of memory for each byte of text (measured)."""
    size = sum(len(document.encode("utf-8")) for document in documents)
    dear = config.kind in ("bpe", "byte_bpe", "unigram") and unspaced_language(settle(config, documents).language)
    return documents[:: math.ceil(size / _UNSPACED_BYTES)] if dear and size > _UNSPACED_BYTES else documents


def train_model(documents: Sequence[str], config: TokenizerConfig, on_progress: Progress) -> tuple[HfTokenizer, Rules]:
    """Train on documents already sampled; gives the complete pipeline and the rules that were settled."""
    rules = settle(config, documents)
    if rules.kind == "bytes":
        model: models.Model = _symbols(sorted(pre_tokenizers.ByteLevel.alphabet()), None)
    else:
        form = normaliser(rules)
        alphabet, rare = ([], {}) if rules.kind == "byte_bpe" else _alphabet(documents, config, rules, form)
        on_progress("characters", 1.0)
        if rules.kind == "characters":
            model = _symbols(alphabet, "[UNK]")
        else:

            def feed() -> Iterator[str]:
                for number, document in enumerate(documents):
                    if number % 256 == 0:
                        on_progress("train", number / len(documents))
                    yield form.normalize_str(document).translate(rare)

            fits = {"byte_bpe": _byte_bpe, "bpe": _bpe, "wordpiece": _wordpiece, "unigram": _unigram}
            model = fits[rules.kind](feed, cutter(rules, training=True), alphabet, config)
    on_progress("train", 1.0)
    return _assemble(model, rules), rules


def _assemble(model: models.Model, rules: Rules) -> HfTokenizer:
    tokenizer: HfTokenizer = tokenizers.Tokenizer(model)
    tokenizer.normalizer = normaliser(rules)  # type: ignore[assignment]
    tokenizer.pre_tokenizer = cutter(rules)  # type: ignore[assignment]
    tokenizer.decoder = decoder(rules)  # type: ignore[assignment]
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _alphabet(
    documents: Sequence[str], config: TokenizerConfig, rules: Rules, form: normalizers.Normalizer
) -> tuple[list[str], dict[int, str]]:
    """The characters that get a place of their own, most frequent first until the room is used, and a
    translation that turns all others into spaces. Else rare signs fill the vocabulary."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for start in range(0, len(documents), 64):
        found = codes("\n".join(form.normalize_str(document) for document in documents[start : start + 64]))
        values, times = np.unique(found, return_counts=True)
        counts[values] += times
    known = np.flatnonzero(counts)
    order = known[np.lexsort((known, -counts[known]))]
    room = config.vocab_size - len(SPECIAL_TOKENS)
    room = room if rules.kind == "characters" else int(room * (0.75 if rules.kind == "wordpiece" else 0.6))
    chosen: list[str] = []
    for code in order.tolist():
        char = chr(code)
        if rules.kind == "wordpiece" and (char.isspace() or code < 32):
            continue
        # In wordpiece most characters take two places: at the start of a word, and inside it with ##.
        room -= 2 if rules.kind == "wordpiece" and not 0x3400 <= code <= 0x9FFF else 1
        if counts[code] < config.min_count or room < 0:
            break
        chosen.append(char)
    if rules.kind in ("bpe", "unigram"):
        chosen = ["▁" if char == " " else char for char in chosen if char != "▁"] or ["▁"]
    rare = {code: " " for code in set(order.tolist()) - set(map(ord, chosen)) if not chr(code).isspace()}
    return sorted(set(chosen)), rare


def _symbols(alphabet: list[str], unknown: str | None) -> models.Model:
    """Single symbols and nothing else: a BPE without merges, so that symbols still know their word."""
    vocabulary = {token: number for number, token in enumerate((*SPECIAL_TOKENS, *alphabet))}
    return models.BPE(vocab=vocabulary, merges=[], unk_token=unknown)


def _fit(model: models.Model, trainer: trainers.Trainer, feed: Feed, cut: object) -> HfTokenizer:
    tokenizer: HfTokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = cut  # type: ignore[assignment]
    tokenizer.train_from_iterator(feed(), trainer)
    return tokenizer


def _bpe_trainer(config: TokenizerConfig, alphabet: list[str], vocab_size: int) -> trainers.BpeTrainer:
    return trainers.BpeTrainer(
        vocab_size=vocab_size,
        min_frequency=config.min_count,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=alphabet,
        show_progress=False,
    )


def _bpe(feed: Feed, cut: object, alphabet: list[str], config: TokenizerConfig) -> models.Model:
    return _fit(models.BPE(unk_token="[UNK]"), _bpe_trainer(config, alphabet, config.vocab_size), feed, cut).model


def _byte_bpe(feed: Feed, cut: object, _: list[str], config: TokenizerConfig) -> models.Model:
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    return _fit(models.BPE(), _bpe_trainer(config, alphabet, config.vocab_size), feed, cut).model


def _wordpiece(feed: Feed, cut: object, _: list[str], config: TokenizerConfig) -> models.Model:
    """WordPiece by pair frequency. A first pass only finds which symbols occur, first in words and inside."""

    def fit(vocab_size: int, first: list[str]) -> dict[str, int]:
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=config.min_count,
            special_tokens=first,
            show_progress=False,
        )
        return _fit(models.WordPiece(unk_token="[UNK]"), trainer, feed, cut).get_vocab(with_added_tokens=True)

    symbols = sorted(set(fit(0, list(SPECIAL_TOKENS))) - set(SPECIAL_TOKENS))
    vocabulary = fit(config.vocab_size, [*SPECIAL_TOKENS, *symbols])
    return models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=LONGEST_WORD)


def _unigram(
    feed: Feed, cut: pre_tokenizers.PreTokenizer, alphabet: list[str], config: TokenizerConfig
) -> models.Model:
    """Unigram; its pieces are first those of a BPE several times too large."""
    counted: Counter[str] = Counter()
    for document in feed():
        counted.update([piece for piece, _ in cut.pre_tokenize_str(document)])
    words = sorted(counted)
    weights = np.array([counted[word] for word in words], dtype=np.float64)
    seeds = _fit(models.BPE(), _bpe_trainer(config, alphabet, 4 * config.vocab_size), feed, cut).get_vocab()
    pieces = {token for token in seeds if len(token) <= LONGEST_PIECE} - set(SPECIAL_TOKENS) | set(alphabet)
    ranked = fit_pieces(words, weights, sorted(pieces), config.vocab_size - len(SPECIAL_TOKENS))
    return models.Unigram(vocab=[(token, 0.0) for token in SPECIAL_TOKENS] + ranked, unk_id=1)
