"""Text to token ids and back: one `tokenizer.json`, word starts for every kind, offsets into the text."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tokenizers

from encodery.data.frames import Frame, frame_of
from encodery.data.text_sample import clean_surrogates, sample_documents
from encodery.data.tokenizer_rules import TokenizerConfig
from encodery.data.tokenizer_training import HfTokenizer, text_budget, thin, train_model
from encodery.data.vocabulary_pieces import pieces, vocabulary_tables
from encodery.errors import DataError

__all__ = ["Encoded", "FlatIds", "Tokenizer", "TokenizerConfig", "train_tokenizer"]

_BLOCK_CHARACTERS = 1_000_000  # texts are encoded in blocks: the library needs ~100 bytes a token

# The names other makers use for the same five tokens, first match wins.
_NAMES = {
    "pad": ("[PAD]", "<pad>", "<|padding|>"),
    "unk": ("[UNK]", "<unk>"),
    "cls": ("[CLS]", "<s>", "<cls>", "<bos>", "<|startoftext|>", "<|endoftext|>"),
    "sep": ("[SEP]", "</s>", "<sep>", "<eos>", "<|endoftext|>"),
    "mask": ("[MASK]", "<mask>", "<|mask|>"),
}


@dataclass(frozen=True, slots=True)
class Encoded:
    """One text as T tokens, without special tokens around it."""

    ids: np.ndarray
    """(T,) uint32"""
    starts_word: np.ndarray
    """(T,) bool: the token begins a word. The first token always does; in scripts without spaces every
    token that begins with an ideograph does; a token of white space only belongs to the word before it."""
    offsets: np.ndarray
    """(T, 2) int32: [start, stop) in characters of the text as it was given; (0, 2) when not wanted.
    Tokens that share one character (byte-level) both carry it. Leading white space is left out of a span."""


class FlatIds(NamedTuple):
    """Many texts end to end: (N,) uint32 ids, (N,) bool word starts, (rows,) int64 lengths."""

    ids: np.ndarray
    starts_word: np.ndarray
    lengths: np.ndarray


class Tokenizer:
    """A `tokenizers.Tokenizer` without truncation and padding, with numpy answers and known special tokens.

    As in that library, the name of a special token written in a text (`[MASK]`) is read as that token.
    Raises DataError when pad, cls, sep or mask are missing; `unk_id` is None where nothing can be unknown.
    `facts["special"]` may name the token of a role ({"cls": "<|begin|>"}), `facts["may_lack"]` roles that may be
    missing.
    """

    def __init__(self, inner: HfTokenizer, facts: dict[str, Any] | None = None, *, where: str = "tokenizer") -> None:
        inner.no_truncation()
        inner.no_padding()
        self._inner = inner
        self._facts = dict(facts or {})
        named = {role: (token,) for role, token in self._facts.get("special", {}).items()}
        found = {role: _first(inner, names) for role, names in {**_NAMES, **named}.items()}
        optional = {"unk", *self._facts.get("may_lack", ())}
        missing = [role for role, number in found.items() if number is None and role not in optional]
        if missing:
            raise DataError(
                f"{where} has no {' and no '.join(missing)} token",
                expected="; ".join(f"{role}: one of {' '.join(_NAMES[role])}" for role in missing),
                fix="add the tokens to the file (add_special_tokens), or train a tokenizer of your own",
            )
        self._special = {role: number for role, number in found.items() if number is not None}
        self._blank, self._unspaced = vocabulary_tables(inner)
        self._frame: Frame | None = None

    @classmethod
    def load(cls, path: Path | str, facts: dict[str, Any] | None = None) -> Tokenizer:
        """Open a tokenizer.json, or the one in a folder. DataError when missing, damaged or incomplete."""
        file = Path(path)
        if file.is_dir():
            file = file / "tokenizer.json"
        try:
            text = file.read_bytes().decode("utf-8")
            json.loads(text)
            inner = _open(text)
        except FileNotFoundError:
            raise DataError(
                f"no tokenizer at {file}",
                expected="a tokenizer.json of the Hugging Face `tokenizers` library, or a folder with one",
                fix="check the path, or make one: encodery tokenizer",
            ) from None
        except KeyboardInterrupt:
            raise
        except BaseException as problem:  # the library panics (not an Exception) on some damaged files
            raise DataError(
                f"{file} cannot be read as a tokenizer: {problem}",
                expected="an undamaged tokenizer.json of the Hugging Face `tokenizers` library",
                fix="copy the file again from its source, or train the tokenizer again",
            ) from problem
        return cls(inner, facts, where=str(file))

    def save(self, path: Path | str) -> None:
        """Write one tokenizer.json (into `path`, or below it when it is a folder)."""
        file = Path(path)
        if file.is_dir():
            file = file / "tokenizer.json"
        file.write_bytes(self.to_json().encode("utf-8"))

    def to_json(self) -> str:
        """The content of tokenizer.json."""
        return self._inner.to_str(pretty=False)

    def facts(self) -> dict[str, Any]:
        """How it was made: config, settled rules, sample size, vocabulary. Empty for a foreign file."""
        return dict(self._facts)

    def hash(self) -> str:
        """BLAKE2b (16 bytes, hex) of tokenizer.json: names what was made with exactly this tokenizer."""
        return hashlib.blake2b(self.to_json().encode("utf-8"), digest_size=16).hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        return {"json": self.to_json(), "facts": self._facts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(_open(state["json"]), state["facts"])

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        return f"Tokenizer({self._facts.get('rules', {}).get('kind', 'foreign')}, {self.vocab_size} tokens)"

    @property
    def inner(self) -> HfTokenizer:
        """The `tokenizers.Tokenizer` itself."""
        return self._inner

    @property
    def vocab_size(self) -> int:
        """One more than the largest id: the rows an embedding needs."""
        return len(self._blank)

    @property
    def pad_id(self) -> int:
        return self._special["pad"]

    @property
    def unk_id(self) -> int | None:
        return self._special.get("unk")

    @property
    def cls_id(self) -> int:
        return self._id_of("cls")

    @property
    def sep_id(self) -> int:
        return self._id_of("sep")

    @property
    def mask_id(self) -> int:
        return self._id_of("mask")

    def _id_of(self, role: str) -> int:
        if role not in self._special:
            raise DataError(
                f"this tokenizer has no {role} token",
                fix="its model was made without one: use it for vectors, or train a tokenizer of your own",
            )
        return self._special[role]

    @property
    def special(self) -> dict[str, str]:
        """The special tokens by role (pad, unk, cls, sep, mask), as the file spells them."""
        return {role: self.token(number) for role, number in self._special.items()}

    @property
    def blank(self) -> np.ndarray:
        """(V,) bool: the tokens that are white space and nothing else."""
        return self._blank

    @property
    def frame(self) -> Frame:
        """What its file puts around texts; `[CLS] a [SEP] b [SEP]` where the file says nothing."""
        if self._frame is None:
            found = frame_of(self._inner)
            if found is None:
                found = Frame((self.cls_id,), (self.sep_id,), (self.sep_id,))
            self._frame = found
        return self._frame

    @property
    def special_ids(self) -> tuple[int, ...]:
        """Ids that are never content and never masked, ascending."""
        marked = {number for number, token in self._inner.get_added_tokens_decoder().items() if token.special}
        return tuple(sorted(marked | set(self._special.values())))

    def encode_batch(self, texts: Sequence[str], with_offsets: bool = True) -> list[Encoded]:
        """Encode texts, in order, in parallel threads. An empty text gives arrays of length 0."""
        answers: list[Encoded] = []
        none = np.zeros((0, 2), dtype=np.int32)
        for block in text_blocks(texts):
            encodings = self._run(block)
            flat = self._flatten(encodings)
            stops = np.cumsum(flat.lengths)
            for row, (encoding, stop) in enumerate(zip(encodings, stops.tolist())):
                span = slice(stop - int(flat.lengths[row]), stop)
                offsets = _offsets(encoding.offsets, block[row]) if with_offsets else none
                answers.append(Encoded(flat.ids[span].copy(), flat.starts_word[span].copy(), offsets))
        return answers

    def encode_flat(self, texts: Sequence[str]) -> FlatIds:
        """Encode many texts for a cache: ids, word starts and row lengths, without an object per text."""
        parts = [self._flatten(self._run(block)) for block in text_blocks(texts)]
        if not parts:
            parts = [self._flatten([])]
        return FlatIds(*(np.concatenate(column) for column in zip(*parts)))

    def decode(self, ids: Iterable[int], keep_special: bool = False) -> str:
        """Text of the ids; special tokens (also [UNK]) are left out unless asked for."""
        return self._inner.decode([int(number) for number in ids], skip_special_tokens=not keep_special)

    def token(self, number: int) -> str:
        """The token with this id as the file spells it. Raises DataError for an id outside the vocabulary."""
        token = self._inner.id_to_token(int(number)) if number >= 0 else None
        if token is None:
            where = f"0 to {self.vocab_size - 1}"
            raise DataError(f"token id {number} is not in the vocabulary", expected=where)
        return token

    def tokens(self, ids: Iterable[int]) -> list[str]:
        return [self.token(number) for number in ids]

    def spelling(self) -> list[tuple[str, bool]]:
        """Per id: its letters without white space (bytes as letters in byte-level vocabularies), and whether a space
        stands before it where it begins a word. Tokens that are no text, like [SEP], are one letter no text has."""
        found = [("\0", False)] * self.vocab_size
        for number, piece in pieces(self._inner):
            text = piece.decode("latin-1") if isinstance(piece, bytes) else piece
            found[number] = "".join(text.split()), not self._unspaced[number]
        return found

    def written(self) -> list[str | None]:
        """Per id: the token as a text has it, with a space before it where it begins a word; None for tokens that are
        no text, like [SEP]. Bytes that are part of a character are lone surrogates. Where the vocabulary does not
        say which tokens begin a word, all of them do."""
        found: list[str | None] = [None] * self.vocab_size
        for number, piece in pieces(self._inner):
            found[number] = piece if isinstance(piece, str) else piece.decode("utf-8", "surrogateescape")
        if any(text is not None and len(text) > 1 and text[0] == " " for text in found):
            return found
        prefix = json.loads(self._inner.to_str())["model"].get("continuing_subword_prefix")
        for number, text in enumerate(found):
            goes_on = bool(prefix) and self.token(number).startswith(prefix) if text is not None else True
            if text is not None and not goes_on and not self._unspaced[number]:
                found[number] = f" {text}"
        return found

    def words(self) -> list[str | None]:
        """Per id: the word or sign that the token is when it stands alone; None for what only goes on a word, for white
        space, for parts of a character and for tokens that are no text."""
        found: list[str | None] = []
        for number, text in enumerate(self.written()):
            begins = text is not None and (text[:1] == " " or self._unspaced[number] or not _goes_on(text[:1]))
            word = text.strip() if begins and text is not None else ""
            found.append(word if word.isprintable() and word else None)
        return found

    def normaliser(self) -> Callable[[str], str]:
        """How a word is changed before it is cut: lower-cased, without accents, or not at all."""
        normalizer = self._inner.normalizer
        if normalizer is None:
            return str
        return lambda word: normalizer.normalize_str(word).replace("▁", " ").strip()

    def _run(self, block: list[str]) -> list[Any]:
        try:
            return self._inner.encode_batch(block, add_special_tokens=False)
        except Exception as problem:
            raise DataError(
                f"the tokenizer cannot encode these texts: {problem}",
                expected="a tokenizer that has an unknown token, or that covers every character",
                fix="train a tokenizer on your own text, or use one with an unknown token",
            ) from problem

    def _flatten(self, encodings: list[Any]) -> FlatIds:
        lengths = np.fromiter(map(len, encodings), dtype=np.int64, count=len(encodings))
        total = int(lengths.sum())
        ids = np.fromiter(chain.from_iterable(e.ids for e in encodings), dtype=np.uint32, count=total)
        numbers = (-1 if word is None else word for e in encodings for word in e.word_ids)
        words = np.fromiter(numbers, dtype=np.int64, count=total)
        first = np.zeros(total, dtype=bool)
        first[(np.cumsum(lengths) - lengths)[lengths > 0]] = True
        starts = np.empty(total, dtype=bool)
        starts[:1] = True
        starts[1:] = (words[1:] != words[:-1]) | (words[1:] < 0)
        blank = self._blank[ids]
        starts[1:] |= blank[:-1] & ~first[:-1]
        starts |= self._unspaced[ids]
        return FlatIds(ids, (starts & ~blank) | first, lengths)


def _open(text: str) -> HfTokenizer:
    library: HfTokenizer = tokenizers.Tokenizer
    return library.from_str(text)


def _first(inner: HfTokenizer, names: Sequence[str]) -> int | None:
    return next((number for name in names if (number := inner.token_to_id(name)) is not None), None)


def text_blocks(texts: Sequence[str]) -> Iterator[list[str]]:
    """As many texts at a time as are encoded at once, without halves of characters."""
    block: list[str] = []
    size = 0
    for text in texts:
        block.append(clean_surrogates(text))
        size += len(text) + 1
        if size >= _BLOCK_CHARACTERS:
            yield block
            block, size = [], 0
    if block:
        yield block


def _offsets(spans: list[tuple[int, int]], text: str) -> np.ndarray:
    """(T, 2) spans without leading white space, with the combining marks that normalisation merged away."""
    offsets = np.array(spans, dtype=np.int32).reshape(-1, 2)
    if not len(offsets):
        return offsets
    starts, stops = offsets[:, 0], offsets[:, 1]
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32)
    space = np.append(_SPACES[np.minimum(codes, len(_SPACES) - 1)], False)
    moving = np.flatnonzero(space[starts] & (stops - starts > 1))
    while moving.size:
        starts[moving] += 1
        moving = moving[space[starts[moving]] & (stops[moving] - starts[moving] > 1)]
    following = np.append(starts[1:], len(codes))
    for row in np.flatnonzero((stops < following) & ~space[stops]).tolist():
        stop = int(stops[row])
        while stop < following[row] and _joins(text[stop]):
            stop += 1
        stops[row] = stop
    return offsets


_SPACES = np.array([chr(code).isspace() for code in range(0x3001)] + [False])


def _joins(char: str) -> bool:
    """Combining marks, Korean vowels and finals, half-width voicing marks: merged into the one before."""
    return unicodedata.category(char)[0] == "M" or "\u1160" <= char <= "\u11ff" or char in "\uff9e\uff9f"


def _goes_on(char: str) -> bool:
    """A letter or a mark, which without a space before it belongs to the word before."""
    return char.isalpha() or (char != "" and unicodedata.category(char)[0] == "M")


def train_tokenizer(
    texts: Iterable[str],
    config: TokenizerConfig,
    *,
    seed: int,
    on_progress: Callable[[str, float], None] | None = None,
) -> Tokenizer:
    """Train on `texts` (or open `config.path`) in about `config.max_bytes` of text held.

    The same texts, config and seed give the same tokenizer.json, byte for byte. `on_progress` gets the phase
    (sample, characters, train) and its share done. Raises DataError when there is no text at all.
    """
    if config.path is not None:
        return Tokenizer.load(Path(config.path))
    documents = sample_documents(texts, text_budget(config), seed, on_progress)
    if not any(document.strip() for document in documents):
        raise DataError("there is no text to train a tokenizer on", fix="check the text column and the paths")
    documents = thin(documents, config)
    inner, rules = train_model(documents, config, on_progress or (lambda phase, share: None))
    facts = {
        "config": config.model_dump(mode="json"),
        "rules": asdict(rules),
        "seed": seed,
        "documents": len(documents),
        "bytes": sum(len(document.encode("utf-8")) for document in documents),
        "vocab_size": inner.get_vocab_size(),
    }
    return Tokenizer(inner, facts)
