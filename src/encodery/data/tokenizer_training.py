"""From documents to a vocabulary: sampling in bounded memory, per-language rules, and six kinds of training.

Two promises shape this file. Memory: only `max_bytes` of text are ever held, and no pre-token is longer than
100 characters (scripts without spaces are cut into short runs), so that pair counting cannot blow up.
Repeatability: the trainers of the `tokenizers` library keep words in randomly seeded hash maps, so WordPiece
numbers its `##` pieces, and Unigram sums its floats, in another order in every process. WordPiece is
therefore trained with its alphabet given in sorted order, and Unigram by the loop in this file, which leaves
to the library only what has one possible answer.
"""

# pyright: reportAttributeAccessIssue=false
# (the type stubs of `tokenizers` leave out its submodules)

from __future__ import annotations

import heapq
import math
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Literal

import numpy as np
import tokenizers
from pydantic import Field
from tokenizers import (
    Regex,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from encodery.config import Config

Kind = Literal["wordpiece", "bpe", "byte_bpe", "unigram", "bytes", "characters"]
Progress = Callable[[str, float], None]
Feed = Callable[[], Iterator[str]]
HfTokenizer = Any  # tokenizers.Tokenizer, whose type stubs leave out most of its methods

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_LONGEST_WORD = 100  # characters; also the limit above which WordPiece would answer [UNK]
_PART = 65_536  # bytes: a longer document is sampled in parts, so that one giant file is no special case
_UNIGRAM_BYTES = 32_000_000  # more text does not change a vocabulary of this kind, only the time it takes
_UNSPACED_BYTES = 24_000_000  # the same for pairs in Chinese, Japanese, Thai: about 1 GB of memory
_ENCODING_RUN = 64  # characters of unspaced script in one pre-token, once the vocabulary is made
_LONGEST_PIECE = 16  # characters in one Unigram piece, as in SentencePiece

# Scripts written without spaces between words. The long-vowel marks belong to no script of their own.
_IDEOGRAPHIC = r"\p{Han}\p{Hiragana}"
_KATAKANA = r"\p{Katakana}ーｰ"
_SOUTH_EAST = r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}"
_LATIN_LANGUAGES = (
    "latin en de fr es it pt nl sv da no nb nn fi is pl cs sk sl hr hu ro tr az vi id ms et lv lt ca eu gl"
)


class TokenizerConfig(Config):
    """How text becomes tokens. `None` means: chosen by language and kind."""

    kind: Kind = "wordpiece"
    """wordpiece, bpe, byte_bpe (never an unknown token), unigram, bytes (256 symbols), or characters."""
    vocab_size: int = Field(default=8000, ge=64)
    """Largest vocabulary, special tokens included. bytes: ignored (always 261); byte_bpe: at least 261;
    characters: a cap, the most frequent are kept. Too little text gives a smaller vocabulary."""
    language: str = "auto"
    """auto (looked up in the scripts of the sample) or a code such as en, de, zh, ja."""
    lowercase: bool | None = None
    """None: yes for wordpiece on a language written in Latin letters, else no."""
    accents: Literal["keep", "strip"] | None = None
    """strip makes é an e. None: strip for lower-cased English only, because elsewhere it makes other words.
    Only marks on Latin letters are ever stripped."""
    normalisation: Literal["nfc", "nfkc", "none"] | None = None
    """Unicode form. None: none for bytes, nfkc for unigram, Chinese and Japanese (not byte_bpe), else nfc."""
    cjk: Literal["characters", "runs"] | None = None
    """Chinese characters one by one, or in runs from which frequent words become tokens. None: characters for
    wordpiece and characters, runs for the others."""
    cjk_run: int = Field(default=8, ge=1, le=100)
    """Longest run while training, in characters, of unspaced scripts (Chinese, Japanese, Thai, ...)."""
    max_bytes: int = Field(default=100_000_000, ge=1000)
    """Text held for training, in bytes of UTF-8. A longer stream is sampled by documents over its
    whole length. unigram holds at most 32 MB; bpe, byte_bpe and unigram count
    at most 24 MB of Chinese, Japanese or Thai."""
    min_count: int = Field(default=2, ge=1)
    """Characters and pairs seen less often than this do not enter the vocabulary."""
    path: str | None = None
    """Use this tokenizer.json (or a folder with one) instead of training."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The choices of a TokenizerConfig with every `None` and `auto` settled."""

    kind: Kind
    language: str
    lowercase: bool
    strip_accents: bool
    normalisation: Literal["nfc", "nfkc", "none"]
    cjk: Literal["characters", "runs"]
    cjk_run: int


def clean_surrogates(text: str) -> str:
    """Replace lone surrogates (not valid Unicode text) by U+FFFD; lengths and offsets stay as they were."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return "".join("\ufffd" if "\ud800" <= char <= "\udfff" else char for char in text)
    return text


def sample_documents(texts: Iterable[str], max_bytes: int, seed: int, on_progress: Progress | None = None) -> list[str]:
    """Hold at most `max_bytes` (UTF-8) of documents, drawn evenly from the whole stream, in stream order.

    Every part of a document draws a key; when the budget is full the largest keys leave. This is a reservoir
    whose size is counted in bytes: one pass, the same answer for the same stream and seed.
    """
    draw = random.Random(seed).random
    kept: list[tuple[float, int, bytes]] = []  # a heap whose first entry has the largest key
    size, bar, number, seen = 0, 2.0, 0, 0
    for text in texts:
        encoded = clean_surrogates(text).encode("utf-8")
        seen += len(encoded)
        for part in _parts(encoded, min(_PART, max_bytes)):
            key, number = draw(), number + 1
            if key >= bar:
                continue
            heapq.heappush(kept, (-key, number, part))
            size += len(part)
            while size > max_bytes:
                worst = heapq.heappop(kept)
                bar = -worst[0]
                size -= len(worst[2])
        if on_progress is not None and number % 1024 == 0:
            on_progress("sample", min(1.0, seen / max_bytes))
    if on_progress is not None:
        on_progress("sample", 1.0)
    kept.sort(key=lambda item: item[1])
    return [part.decode("utf-8") for _, _, part in kept]


def _parts(encoded: bytes, limit: int) -> Iterator[bytes]:
    """Cut at white space where there is some, and never inside a character."""
    start = 0
    while len(encoded) - start > limit:
        stop = start + limit
        space = max(encoded.rfind(b" ", start + 1, stop), encoded.rfind(b"\n", start + 1, stop))
        if space > start + limit // 2:
            stop = space
        while encoded[stop] & 0xC0 == 0x80:
            stop -= 1
        yield encoded[start:stop]
        start = stop
    if start < len(encoded):
        yield encoded[start:]


_SCRIPTS: tuple[tuple[str, int, int], ...] = (
    ("latin", 0x41, 0x24F),
    ("latin", 0x1E00, 0x1EFF),
    ("greek", 0x370, 0x3FF),
    ("cyrillic", 0x400, 0x52F),
    ("hebrew", 0x590, 0x5FF),
    ("arabic", 0x600, 0x77F),
    ("indic", 0x900, 0xDFF),
    ("th", 0xE00, 0xE7F),
    ("lo", 0xE80, 0xEFF),
    ("my", 0x1000, 0x109F),
    ("km", 0x1780, 0x17FF),
    ("kana", 0x3041, 0x30FF),
    ("han", 0x3400, 0x9FFF),
    ("han", 0x20000, 0x323AF),
    ("ko", 0xAC00, 0xD7A3),
)


def script_shares(documents: Sequence[str]) -> dict[str, float]:
    """Share of each script among the letters of the documents (about 1 MB of them, spread evenly)."""
    step = max(1, sum(map(len, documents[:1000])) * max(1, len(documents) // 1000) // 1_000_000)
    codes = _codes("".join(document[:10_000] for document in documents[::step]))
    lower = codes | 0x20
    letters = codes[((lower >= 0x61) & (lower <= 0x7A)) | (codes >= 0xC0)]
    counts: Counter[str] = Counter()
    for script, first, last in _SCRIPTS:
        counts[script] += int(((letters >= first) & (letters <= last)).sum())
    counts["accented"] = int(((letters >= 0xC0) & (letters <= 0x24F)).sum())
    counts["accented"] += int(((letters >= 0x1E00) & (letters <= 0x1EFF)).sum())
    total = sum(counts.values()) - counts["accented"]
    return {script: count / total for script, count in counts.items()} if total else {}


def guess_language(documents: Sequence[str]) -> str:
    """A language code where the script decides (zh, ja, ko, th, lo, my, km), `en` for Latin letters almost
    without accents, else the name of the leading script (latin, cyrillic, ...), or `unknown`."""
    shares = script_shares(documents)
    if not shares:
        return "unknown"
    ideographic = shares["han"] + shares["kana"]
    if ideographic > 0.3:
        return "ja" if shares["kana"] > 0.1 * ideographic else "zh"
    leading = max((script for script in shares if script != "accented"), key=lambda script: shares[script])
    if leading == "latin":
        return "en" if shares["accented"] < 0.003 * shares["latin"] else "latin"
    return {"kana": "ja", "han": "zh"}.get(leading, leading)


def settle(config: TokenizerConfig, documents: Sequence[str]) -> Rules:
    """Choose what the config leaves open, from its kind and language."""
    language = guess_language(documents) if config.language == "auto" else config.language.lower()
    short = language.split("-")[0].split("_")[0]
    east = short in ("zh", "ja")
    lowercase = config.lowercase
    if lowercase is None:
        lowercase = config.kind == "wordpiece" and short in _LATIN_LANGUAGES.split()
    strip = config.accents == "strip" if config.accents else (short == "en" and lowercase)
    normalisation = config.normalisation
    if normalisation is None:
        by_kind = {"bytes": "none", "byte_bpe": "nfc", "unigram": "nfkc"}
        normalisation = by_kind.get(config.kind, "nfkc" if east else "nfc")
    cjk = config.cjk or ("characters" if config.kind in ("wordpiece", "characters") else "runs")
    return Rules(config.kind, language, lowercase, strip, normalisation, cjk, config.cjk_run)  # type: ignore[arg-type]


def normaliser(rules: Rules) -> normalizers.Normalizer:
    """The steps before cutting, as one object of the `tokenizers` library."""
    steps: list[normalizers.Normalizer] = []
    if rules.normalisation != "none":
        steps.append(normalizers.NFC() if rules.normalisation == "nfc" else normalizers.NFKC())
    if rules.kind == "wordpiece":
        # Invisible characters that would make an unknown word of a known one: soft hyphen, zero-width space,
        # directions, byte-order mark. The joiners U+200C and U+200D stay: Persian and emoji need them.
        invisible = "[\u00ad\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff]"
        steps.append(normalizers.Replace(Regex(invisible), ""))
    if rules.lowercase:
        if rules.language.split("-")[0] in ("tr", "az"):
            steps += [normalizers.Replace("I", "ı"), normalizers.Replace("İ", "i")]
        steps.append(normalizers.Lowercase())
    if rules.strip_accents:
        # StripAccents would take the vowels of Devanagari too; here only Latin letters lose marks.
        marks = normalizers.Replace(Regex(r"(?<=\p{Latin})[\x{0300}-\x{036f}]+"), "")
        steps += [normalizers.NFD(), marks, normalizers.NFC()]
    return normalizers.Sequence(steps)


def cutter(rules: Rules, training: bool = False) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer: words of at most 100 characters, runs of unspaced script of at most `cjk_run`.

    Only counting pairs needs the short runs. With a finished vocabulary of merges or pieces they are longer,
    because every cut may fall inside a word (3 % fewer tokens on Chinese reviews).
    """
    run = rules.cjk_run
    if not training and rules.kind in ("bpe", "byte_bpe", "unigram"):
        run = max(run, _ENCODING_RUN)
    ideographs = (
        rf"\p{{Han}}|\p{{Hiragana}}{{1,{run}}}" if rules.cjk == "characters" else f"[{_IDEOGRAPHIC}]{{1,{run}}}"
    )
    unspaced = rf"{ideographs}|[{_KATAKANA}]{{1,16}}|[{_SOUTH_EAST}]{{1,{run}}}\p{{M}}{{0,4}}"
    letters = rf"[\p{{L}}\p{{M}}\p{{N}}\x{{200c}}\x{{200d}}&&[^{_IDEOGRAPHIC}{_KATAKANA}{_SOUTH_EAST}]]"
    word = f"{letters}{{1,{_LONGEST_WORD}}}"
    if rules.kind == "wordpiece":
        symbol = r"[^\s\p{Cc}\p{L}\p{M}\p{N}][\p{M}\x{200d}]{0,4}"
        return pre_tokenizers.Split(Regex(f"{unspaced}|{word}|{symbol}"), "removed", invert=True)
    if rules.kind in ("bytes", "characters"):
        pieces = rf"{unspaced}|{word}|[^\s\p{{L}}\p{{M}}\p{{N}}]{{1,16}}|\s{{1,16}}"
        split = pre_tokenizers.Split(Regex(pieces), "isolated")
        return pre_tokenizers.Sequence([split, _bytes()]) if rules.kind == "bytes" else split
    space = " " if rules.kind == "byte_bpe" else "▁"
    blank, symbol = rf"[\s{space}]", rf"[^\s{space}\p{{L}}\p{{M}}\p{{N}}]{{1,16}}"
    # The last blank before a word belongs to the word; blanks before it are pieces of their own.
    pieces = rf"{unspaced}|{space}?{word}|{space}?{symbol}|{blank}{{1,16}}(?!{blank[:-1]}]|\S)|{blank}"
    split = pre_tokenizers.Split(Regex(pieces), "isolated")
    if rules.kind == "byte_bpe":
        return pre_tokenizers.Sequence([split, _bytes()])
    return pre_tokenizers.Sequence([_metaspace(rules), split])


def _bytes() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _scheme(rules: Rules) -> Literal["never", "first"]:
    """A text's first word gets the mark of a preceding space, except where words have no spaces."""
    return "never" if _is_unspaced(rules.language) else "first"


def _metaspace(rules: Rules) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=_scheme(rules), split=False)


def _decoder(rules: Rules) -> decoders.Decoder:
    if rules.kind in ("bytes", "byte_bpe"):
        return decoders.ByteLevel()
    if rules.kind == "characters":
        return decoders.Fuse()
    if rules.kind == "wordpiece":
        east = r"[\p{Han}\p{Hiragana}\p{Katakana}ー、-〟！-～]"
        glue = decoders.Replace(Regex(f"(?<={east}) (?={east})"), "")
        return decoders.Sequence([decoders.WordPiece("##"), decoders.Fuse(), glue])
    return decoders.Metaspace(replacement="▁", prepend_scheme=_scheme(rules))


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
    tokenizer.decoder = _decoder(rules)  # type: ignore[assignment]
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    tokenizer.post_processor = processors.TemplateProcessing(  # type: ignore[assignment]
        single="[CLS]:0 $A:0 [SEP]:0",
        pair="[CLS]:0 $A:0 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def _codes(text: str) -> np.ndarray:
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _alphabet(
    documents: Sequence[str], config: TokenizerConfig, rules: Rules, form: normalizers.Normalizer
) -> tuple[list[str], dict[int, str]]:
    """The characters that get a place of their own, most frequent first until the room is used, and a
    translation that turns all others into spaces. Else rare signs fill the vocabulary."""
    counts = np.zeros(0x110000, dtype=np.int64)
    for start in range(0, len(documents), 64):
        codes = _codes("\n".join(form.normalize_str(document) for document in documents[start : start + 64]))
        values, found = np.unique(codes, return_counts=True)
        counts[values] += found
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
    return models.WordPiece(vocab=vocabulary, unk_token="[UNK]", max_input_chars_per_word=_LONGEST_WORD)


def _unigram(
    feed: Feed, cut: pre_tokenizers.PreTokenizer, alphabet: list[str], config: TokenizerConfig
) -> models.Model:
    """Unigram language model of pieces (Kudo 2018, https://arxiv.org/abs/1804.10959), by Viterbi counts.

    Seeds are the pieces of a BPE several times too large; then, as in the paper, piece probabilities are
    re-estimated and the 30 % that cost the least likelihood are dropped, until `vocab_size` are left.
    """
    counted: Counter[str] = Counter()
    for document in feed():
        counted.update([piece for piece, _ in cut.pre_tokenize_str(document)])
    words = sorted(counted)
    weights = np.array([counted[word] for word in words], dtype=np.float64)
    room = config.vocab_size - len(SPECIAL_TOKENS)
    seeds = _fit(models.BPE(), _bpe_trainer(config, alphabet, 4 * config.vocab_size), feed, cut).get_vocab()
    pieces = {token for token in seeds if len(token) <= _LONGEST_PIECE} - set(SPECIAL_TOKENS) | set(alphabet)
    scores = _first_scores(words, weights, sorted(pieces))
    scores = _reestimate(words, weights, scores)
    while len(scores) > room:
        kept = _prune(scores, max(room, int(0.7 * len(scores))))
        if len(kept) == len(scores):  # nothing but single characters
            break
        scores = _reestimate(words, weights, kept)
    scores = _reestimate(words, weights, scores)
    rounded = [(token, round(score, 6)) for token, (score, _) in scores.items()]
    ranked = sorted(rounded, key=lambda item: (-item[1], item[0]))
    return models.Unigram(vocab=[(token, 0.0) for token in SPECIAL_TOKENS] + ranked, unk_id=1)


Scores = dict[str, tuple[float, float]]  # piece -> (log probability, count)


def _first_scores(words: list[str], weights: np.ndarray, pieces: list[str]) -> Scores:
    """Start from the frequency of every piece as a substring, in at most 200,000 evenly chosen words."""
    counts = dict.fromkeys(pieces, 0.5)
    step = max(1, len(words) // 200_000)
    for word, weight in zip(words[::step], weights[::step].tolist()):
        for start in range(len(word)):
            for stop in range(start + 1, min(len(word), start + _LONGEST_PIECE) + 1):
                piece = word[start:stop]
                if piece in counts:
                    counts[piece] += weight
    total = math.log(sum(counts.values()))
    return {piece: (math.log(count) - total, count) for piece, count in counts.items()}


def _reestimate(words: list[str], weights: np.ndarray, scores: Scores) -> Scores:
    """One round of Viterbi training: segment every word in the best way, count, take logarithms.

    A piece of several characters that no best segmentation uses is dropped.
    """
    vocabulary = [("[UNK]", 0.0), *((piece, score) for piece, (score, _) in scores.items())]
    viterbi: HfTokenizer = tokenizers.Tokenizer(models.Unigram(vocab=vocabulary, unk_id=0))
    counts = np.zeros(len(vocabulary), dtype=np.float64)
    for start in range(0, len(words), 65_536):
        rows = [encoding.ids for encoding in viterbi.encode_batch_fast(words[start : start + 65_536])]
        lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
        ids = np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(lengths.sum()))
        each = np.repeat(weights[start : start + len(rows)], lengths)
        counts += np.bincount(ids, each, minlength=len(counts))
    found = {
        piece: max(count, 0.5)
        for (piece, _), count in zip(vocabulary[1:], counts[1:].tolist())
        if count > 0 or len(piece) == 1
    }
    total = math.log(sum(found.values())) if found else 0.0
    return {piece: (math.log(count) - total, count) for piece, count in found.items()}


def _prune(scores: Scores, keep: int) -> Scores:
    """Keep single characters and the pieces that cost most to remove: count x (score - best replacement)."""
    losses: list[tuple[float, str]] = []
    single = [piece for piece in scores if len(piece) == 1]
    for piece, (score, count) in scores.items():
        if len(piece) > 1:
            losses.append((-count * (score - _replacement(piece, scores)), piece))
    losses.sort()
    kept = {*single, *(piece for _, piece in losses[: max(0, keep - len(single))])}
    return {piece: value for piece, value in scores.items() if piece in kept}


def _replacement(piece: str, scores: Scores) -> float:
    """Score of the best segmentation of `piece` into several other pieces; an unknown character costs 30."""
    best = [0.0] + [-math.inf] * len(piece)
    for stop in range(1, len(piece) + 1):
        best[stop] = best[stop - 1] - 30.0
        for start in range(0 if stop < len(piece) else 1, stop):
            entry = scores.get(piece[start:stop])
            if entry is not None and best[start] + entry[0] > best[stop]:
                best[stop] = best[start] + entry[0]
    return best[-1]


def text_budget(config: TokenizerConfig) -> int:
    """Bytes of text to hold for this config (unigram needs less than it is allowed)."""
    return min(config.max_bytes, _UNIGRAM_BYTES) if config.kind == "unigram" else config.max_bytes


def thin(documents: list[str], config: TokenizerConfig) -> list[str]:
    """Take every n-th document of a sample dear to count: nearly every run of unspaced script is a word
    of its own, and its pairs cost the library 40 bytes of memory for each byte of text (measured)."""
    size = sum(len(document.encode("utf-8")) for document in documents)
    dear = config.kind in ("bpe", "byte_bpe", "unigram") and _is_unspaced(settle(config, documents).language)
    return documents[:: math.ceil(size / _UNSPACED_BYTES)] if dear and size > _UNSPACED_BYTES else documents


def _is_unspaced(language: str) -> bool:
    return language.split("-")[0] in ("zh", "ja", "th", "lo", "my", "km")
