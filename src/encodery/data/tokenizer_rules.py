"""What a tokenizer is asked for, and what follows for a language: normalisation, cutting into words, decoding."""

# pyright: reportAttributeAccessIssue=false
# (the type stubs of `tokenizers` leave out its submodules)

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field
from tokenizers import Regex, decoders, normalizers, pre_tokenizers

from encodery.config import Config
from encodery.data.languages import guess_language, unspaced_language
from encodery.typed_paths import a_path

Kind = Literal["wordpiece", "bpe", "byte_bpe", "unigram", "bytes", "characters"]

LONGEST_WORD = 100  # characters; also the limit above which WordPiece would answer [UNK]
_ENCODING_RUN = 64  # characters of unspaced script in one pre-token, once the vocabulary is made

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
    path: Annotated[str | None, a_path] = None
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
    word = f"{letters}{{1,{LONGEST_WORD}}}"
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
    return "never" if unspaced_language(rules.language) else "first"


def _metaspace(rules: Rules) -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Metaspace(replacement="▁", prepend_scheme=_scheme(rules), split=False)


def decoder(rules: Rules) -> decoders.Decoder:
    if rules.kind in ("bytes", "byte_bpe"):
        return decoders.ByteLevel()
    if rules.kind == "characters":
        return decoders.Fuse()
    if rules.kind == "wordpiece":
        east = r"[\p{Han}\p{Hiragana}\p{Katakana}ー、-〟！-～]"
        glue = decoders.Replace(Regex(f"(?<={east}) (?={east})"), "")
        return decoders.Sequence([decoders.WordPiece("##"), decoders.Fuse(), glue])
    return decoders.Metaspace(replacement="▁", prepend_scheme=_scheme(rules))
