"""Promises of the tokenizers: one file, the same ids everywhere, offsets into the text, bounded memory."""

from __future__ import annotations

import json
import pickle
import random
import subprocess
import sys
import time
import tracemalloc
import unicodedata
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tokenizers as hf
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from encodery.data.coverage import coverage
from encodery.data.languages import guess_language
from encodery.data.text_sample import sample_documents
from encodery.data.tokenizer_training import text_budget
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError

KINDS = ("wordpiece", "bpe", "byte_bpe", "unigram", "bytes", "characters")
TEXTS = {
    "en": "The quick brown fox doesn't jump over 12 lazy dogs, again and again.",
    "zh": "我们在北京大学学习自然语言处理,今天的天气很好。",
    "ja": "東京でコンピュータの勉強をしています。とても楽しいです。",
    "de": "Die Straße ist schön; Ärzte übergeben größere Flächen für Käufer.",
    "mixed": "Cafe\u0301 👩‍👩‍👧 is 好吃 😀! e\u0302tre ﬁne\tﾊﾟﾝ 한글 \u1112\u1161\u11ab ❤️ नमस्ते ไทยครับ",
}
HARD = [
    "",
    " ",
    "\x00\x01\x02",
    "😀😀🎉",
    "\ud800 lone",
    "a\u200bb\ufeff",
    "x" * 5000,
    "\u0301\u0301",
    "▁ ▁a",
    "🏳️‍🌈",
]


def corpus(name: str, documents: int = 60) -> list[str]:
    """Shuffled words (or characters) of the text, so that pieces repeat."""
    draw = random.Random(5)
    words = TEXTS[name].split(" ")
    return [" ".join(draw.choices(words, k=12)) + " " + TEXTS[name] for _ in range(documents)]


@cache
def trained(kind: str, name: str) -> Tokenizer:
    return train_tokenizer(corpus(name), TokenizerConfig(kind=kind, vocab_size=300), seed=3)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("kind", KINDS)
def test_one_file_gives_the_same_ids_through_the_tokenizers_library(kind: str, name: str, tmp_path: Path) -> None:
    ours = trained(kind, name)
    ours.save(tmp_path)
    theirs = hf.Tokenizer.from_file(str(tmp_path / "tokenizer.json"))  # pyright: ignore
    texts = [*TEXTS.values(), *corpus(name, 5), *(text for text in HARD if text != "\ud800 lone")]
    again = Tokenizer.load(tmp_path / "tokenizer.json")
    for text, first, second in zip(texts, ours.encode_batch(texts), again.encode_batch(texts)):
        plain = theirs.encode(text, add_special_tokens=False)
        assert first.ids.tolist() == plain.ids == second.ids.tolist()
        assert first.ids.dtype == np.uint32
        assert first.offsets.shape == (len(plain.ids), 2)
        assert theirs.encode(text).ids == [2, *plain.ids, 3]
        assert ours.decode(first.ids) == theirs.decode(plain.ids)
    pair = theirs.encode("a", TEXTS[name])
    assert pair.type_ids[-1] == 1
    assert pair.type_ids[0] == 0
    assert again.hash() == ours.hash() == pickle.loads(pickle.dumps(ours)).hash()
    assert (ours.pad_id, ours.unk_id, ours.cls_id, ours.sep_id, ours.mask_id) == (0, 1, 2, 3, 4)
    assert ours.special_ids == (0, 1, 2, 3, 4)


@pytest.mark.parametrize("name", ["en", "zh", "ja", "de"])
@pytest.mark.parametrize("kind", KINDS)
def test_text_comes_back(kind: str, name: str) -> None:
    tokenizer = trained(kind, name)
    text = TEXTS[name]
    normal = tokenizer.inner.normalizer.normalize_str(text)
    decoded = tokenizer.decode(tokenizer.encode_batch([text])[0].ids)
    if kind == "wordpiece":  # gives up white space, as always
        decoded, normal = "".join(decoded.split()), "".join(normal.split())
    assert decoded == normal


@pytest.mark.parametrize("kind", ["bytes", "byte_bpe"])
def test_bytes_give_back_any_text_they_never_saw(kind: str) -> None:
    config = TokenizerConfig(kind=kind, normalisation="none", vocab_size=300)  # type: ignore[arg-type]
    tokenizer = train_tokenizer(corpus("en", 5), config, seed=0)
    for text in (*TEXTS.values(), "\x00 \n\t\r", "😀😀", "  two  spaces "):
        encoded = tokenizer.encode_batch([text])[0]
        assert tokenizer.decode(encoded.ids) == text
        assert tokenizer.unk_id not in encoded.ids


def check_spans(tokenizer: Tokenizer, text: str, lossless: bool) -> None:
    encoded = tokenizer.encode_batch([text])[0]
    starts, stops = encoded.offsets[:, 0], encoded.offsets[:, 1]
    assert len(encoded.ids) == len(encoded.starts_word) == len(starts)
    assert (starts >= 0).all()
    assert (starts <= stops).all()
    assert (stops <= len(text)).all()
    assert (np.diff(starts) >= 0).all()
    assert (np.diff(stops) >= 0).all()
    # Two tokens overlap only where both stand for the same character.
    for row in np.flatnonzero(stops[:-1] > starts[1:]).tolist():
        assert stops[row] - starts[row + 1] == 1
    if len(encoded.ids):
        assert encoded.starts_word[0]
    if lossless:
        covered = np.zeros(len(text), dtype=bool)
        for start, stop in encoded.offsets.tolist():
            covered[start:stop] = True
        assert all(done or char.isspace() for done, char in zip(covered, text)), text
    assert tokenizer.encode_batch([text], with_offsets=False)[0].ids.tolist() == encoded.ids.tolist()


@pytest.mark.parametrize("kind", KINDS)
def test_offsets_point_into_the_text_as_given(kind: str) -> None:
    tokenizer = trained(kind, "mixed")
    alphabet = st.sampled_from(
        " \t\n▁#aeé\u0301\u0327Zß12,.。好吃東ひカーﾊﾟﬁ한\u1112\u1161\u11ab😀👩\u200d❤\ufe0fनมัไ\x00\u200b"
    )
    plain = st.one_of(st.text(max_size=30), st.text(alphabet, max_size=30))

    @settings(max_examples=120, deadline=None)
    @given(plain)
    def spans(text: str) -> None:
        check_spans(tokenizer, text, lossless=kind in ("bpe", "byte_bpe", "unigram", "bytes", "characters"))

    spans()


def test_offsets_by_example() -> None:
    text = "Cafe\u0301 😀 好吃"
    for kind in KINDS:
        encoded = trained(kind, "mixed").encode_batch([text])[0]
        spans = {text[start:stop] for start, stop in encoded.offsets.tolist()}
        assert "好" in spans or "好吃" in spans
        assert "😀" in spans
        assert kind == "bytes" or any(span.endswith("e\u0301") for span in spans), (
            kind
        )  # the accent merged by NFC is not lost
    lone = trained("bytes", "en").encode_batch(["é😀"])[0]
    assert lone.offsets.tolist() == [[0, 1]] * 2 + [[1, 2]] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_word_starts_are_those_of_the_words(kind: str) -> None:
    text = "the quick, brown fox"
    encoded = trained(kind, "en").encode_batch([text])[0]
    begins = encoded.offsets[encoded.starts_word, 0].tolist()
    assert begins == [0, 4, 9, 11, 17]
    if kind in ("bytes", "characters"):
        assert len(encoded.ids) == len(text)
    text = "我们学习"
    encoded = trained(kind, "zh").encode_batch([text])[0]
    spans = encoded.offsets[encoded.starts_word].tolist()
    assert all(stop - start <= 4 for start, stop in spans)
    if kind in ("wordpiece", "bytes", "characters"):
        assert encoded.offsets[encoded.starts_word, 0].tolist() == [0, 1, 2, 3]


def test_hard_texts_never_crash_and_empty_ones_are_empty() -> None:
    for kind in KINDS:
        tokenizer = trained(kind, "en")
        for text, encoded in zip(HARD, tokenizer.encode_batch(HARD)):
            check_spans(tokenizer, text, lossless=False)
            if text == "😀😀🎉":
                assert len(encoded.ids)
        empty = tokenizer.encode_batch([""])[0]
        assert (empty.ids.shape, empty.starts_word.shape, empty.offsets.shape) == ((0,), (0,), (0, 2))
        assert tokenizer.encode_batch([]) == []
        assert tokenizer.encode_flat([]).ids.shape == (0,)
        assert tokenizer.decode([]) == ""


@pytest.mark.parametrize("kind", KINDS)
def test_flat_rows_are_the_single_ones(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encodery.data.tokenizers._BLOCK_CHARACTERS", 100)
    tokenizer, texts = trained(kind, "mixed"), ["", *TEXTS.values(), " ", *HARD]
    flat = tokenizer.encode_flat(texts)
    stop = 0
    for text, length in zip(texts, flat.lengths.tolist()):
        alone = tokenizer.encode_batch([text])[0]
        assert flat.ids[stop : stop + length].tolist() == alone.ids.tolist()
        assert flat.starts_word[stop : stop + length].tolist() == alone.starts_word.tolist()
        stop += length
    assert stop == len(flat.ids)


def test_training_is_the_same_byte_for_byte_in_another_process() -> None:
    """The hash maps of the library are seeded per process, so one process is no proof."""
    program = (
        "import sys; sys.path.insert(0, sys.argv[1]); import test_tokenizers as t\n"
        "for kind in t.KINDS:\n"
        "    for name in ('en', 'ja', 'mixed'): print(t.trained(kind, name).hash())"
    )
    command = [sys.executable, "-c", program, str(Path(__file__).parent)]
    runs = {subprocess.run(command, capture_output=True, text=True, check=True).stdout for _ in range(2)}
    runs.add("".join(f"{trained(kind, name).hash()}\n" for kind in KINDS for name in ("en", "ja", "mixed")))
    assert len(runs) == 1


def test_memory_is_bounded_and_the_sample_is_not_a_prefix() -> None:
    def stream(documents: int = 20_000):
        for number in range(documents):
            yield f"{number:06d} " + "word " * 40

    tracemalloc.start()
    kept = sample_documents(stream(), 200_000, seed=1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    sizes = sum(len(document) for document in kept)
    assert 190_000 < sizes <= 200_000
    assert peak < 2_000_000  # of 4.1 MB in the stream
    numbers = [int(document[:6]) for document in kept]
    assert numbers == sorted(numbers)
    assert (np.histogram(numbers, 4, (0, 20_000))[0] > 100).all()
    assert kept == sample_documents(stream(), 200_000, seed=1)
    assert kept != sample_documents(stream(), 200_000, seed=2)


def test_one_giant_document_is_sampled_in_parts() -> None:
    giant = "".join(f"{number}:天地 " for number in range(100_000))
    kept = sample_documents([giant], 400_000, seed=0)
    assert 300_000 < sum(len(part.encode()) for part in kept) <= 400_000
    assert sample_documents([giant], 10_000_000, seed=0) != [giant]
    assert "".join(sample_documents([giant], 10_000_000, seed=0)) == giant
    assert text_budget(TokenizerConfig(kind="unigram")) < text_budget(TokenizerConfig(kind="bpe"))


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_a_megabyte_without_spaces_trains_in_seconds(kind: str) -> None:
    draw = random.Random(0)
    words = [
        "".join(chr(draw.randrange(0x4E00, 0x5200)) for _ in range(draw.choice((1, 2, 2, 3)))) for _ in range(3000)
    ]
    weights = [1 / rank for rank in range(1, 3001)]
    text = "".join(draw.choices(words, weights, k=160_000))
    assert len(text.encode()) > 800_000
    begin = time.process_time()
    tokenizer = train_tokenizer([text], TokenizerConfig(kind=kind, vocab_size=2000), seed=0)  # type: ignore[arg-type]
    assert time.process_time() - begin < 15, "processor time: a busy machine must not fail this"
    assert tokenizer.vocab_size == 2000
    assert coverage(tokenizer, [text[:10_000]]).tokens_per_character < 0.8  # frequent words became tokens


def test_unspaced_text_is_counted_within_its_own_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("encodery.data.tokenizer_training._UNSPACED_BYTES", 50_000)
    documents = corpus("zh", 400)
    full = sum(len(document.encode()) for document in documents)
    for kind, limit in (("bpe", 50_000), ("wordpiece", full)):
        config = TokenizerConfig(kind=kind, vocab_size=100)  # type: ignore[arg-type]
        held = train_tokenizer(documents, config, seed=0).facts()["bytes"]
        assert 0.7 * limit < held <= 1.2 * limit


def test_words_without_an_end_are_cut() -> None:
    text = "".join(random.Random(1).choices("acgt", k=300_000))
    for kind in KINDS:
        tokenizer = train_tokenizer([text], TokenizerConfig(kind=kind, vocab_size=128), seed=0)  # type: ignore[arg-type]
        encoded = tokenizer.encode_batch([text[:1000]])[0]
        assert encoded.starts_word.sum() == 10
        assert tokenizer.unk_id not in encoded.ids


def test_little_text_gives_a_small_vocabulary() -> None:
    for kind in KINDS:
        tokenizer = train_tokenizer(["hello world"] * 3, TokenizerConfig(kind=kind), seed=0)  # type: ignore[arg-type]
        assert 5 < tokenizer.vocab_size < 300
        assert tokenizer.facts()["vocab_size"] == tokenizer.vocab_size
        assert json.loads(json.dumps(tokenizer.facts())) == tokenizer.facts()
        assert len(tokenizer.encode_batch(["zebra"])[0].ids)
    with pytest.raises(DataError, match="no text"):
        train_tokenizer(["", "  "], TokenizerConfig(), seed=0)


def test_vocabulary_size_is_a_cap() -> None:
    many = ["".join(chr(0x4E00 + number) for number in range(start, start + 40)) for start in range(900)] * 2
    for kind in ("wordpiece", "bpe", "unigram", "characters"):
        assert train_tokenizer(many, TokenizerConfig(kind=kind, vocab_size=200), seed=0).vocab_size <= 200
        assert train_tokenizer(corpus("mixed"), TokenizerConfig(kind=kind, vocab_size=64), seed=0).vocab_size <= 64
    with pytest.raises(ValidationError):
        TokenizerConfig(vocab_size=63)


def test_language_rules() -> None:
    guessed = {name: guess_language(corpus(name, 3)) for name in TEXTS}
    assert (guessed["en"], guessed["zh"], guessed["ja"], guessed["de"]) == ("en", "zh", "ja", "latin")
    assert guess_language(["Привет мир"]) == "cyrillic"
    assert guess_language(["123 !?"]) == "unknown"

    def normal(text: str, **config: object) -> str:
        made = train_tokenizer([text], TokenizerConfig.model_validate(config), seed=0)
        return made.inner.normalizer.normalize_str(text)

    assert normal("Café", language="en") == "cafe"
    assert normal("Café und Ärzte", language="de") == "café und ärzte"
    assert normal("Café", kind="bpe", language="en") == "Café"
    assert normal("DIŞ ISI İZ", language="tr") == "dış ısı iz"
    assert normal("が नमस्ते й É", language="en", accents="strip") == "が नमस्ते й e"
    assert normal("ＡＢ　ｶﾞ", language="ja") == "AB ガ"


def test_files_that_are_missing_damaged_or_incomplete(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no tokenizer"):
        Tokenizer.load(tmp_path)
    file = tmp_path / "tokenizer.json"
    trained("bpe", "en").save(file)
    whole = file.read_text()
    for damaged in (whole[: len(whole) // 2], "", "{}", '{"model": 3}', "\x00\x01"):
        file.write_text(damaged)
        with pytest.raises(DataError, match="cannot be read"):
            Tokenizer.load(file)
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        Tokenizer.load(file)
    foreign = hf.Tokenizer(hf.models.WordLevel({"<s>": 0, "<pad>": 1, "a": 2, "</s>": 3}, unk_token="a"))  # pyright: ignore
    foreign.save(str(file))
    with pytest.raises(DataError, match="no mask"):
        Tokenizer.load(file)


def test_foreign_files_are_found_by_name_and_lose_truncation(tmp_path: Path) -> None:
    names = {"<s>": 0, "<pad>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4, "a": 5, "b": 6}
    foreign = hf.Tokenizer(hf.models.WordLevel(names, unk_token="<unk>"))  # pyright: ignore
    foreign.pre_tokenizer = hf.pre_tokenizers.Whitespace()  # pyright: ignore
    foreign.enable_truncation(2)
    foreign.enable_padding(length=9)
    foreign.save(str(tmp_path / "tokenizer.json"))
    tokenizer = train_tokenizer([], TokenizerConfig(path=str(tmp_path)), seed=0)
    assert (tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.mask_id) == (
        1,
        3,
        0,
        2,
        4,
    )
    assert tokenizer.encode_batch(["a b c a"])[0].ids.tolist() == [5, 6, 3, 5]
    assert tokenizer.tokens([5, 4]) == ["a", "<mask>"]
    with pytest.raises(DataError, match="not in the vocabulary"):
        tokenizer.token(7)


def test_coverage_counts_what_is_unknown() -> None:
    tokenizer = trained("characters", "en")
    seen = coverage(tokenizer, ["fox 好 好", "the", ""])
    assert (seen.texts, seen.tokens, seen.words) == (3, 10, 4)
    assert seen.unknown_share == pytest.approx(0.2)
    assert seen.most_unknown == (("好", 2),)
    assert seen.tokens_per_character == 1
    assert seen.bytes_per_token == pytest.approx(14 / 10)
    assert coverage(tokenizer, []).unknown_share == 0


def test_progress_is_told() -> None:
    told: list[tuple[str, float]] = []
    train_tokenizer(
        corpus("en"), TokenizerConfig(), seed=0, on_progress=lambda phase, share: told.append((phase, share))
    )
    assert {phase for phase, _ in told} == {"sample", "characters", "train"}
    assert told[-1] == ("train", 1.0)
    assert all(0 <= share <= 1 for _, share in told)


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "unigram"])
def test_the_spelling_of_the_tokens_is_the_text_without_its_spaces(kind: str) -> None:
    texts = ["the cats and the dogs were unhappily playing", "我们都喜欢这本书，因为它很好看"] * 30
    tokenizer = train_tokenizer(texts, TokenizerConfig.model_validate({"kind": kind, "vocab_size": 120}), seed=1)
    spelling = tokenizer.spelling()
    for text in texts[:2]:
        encoded = tokenizer.encode_batch([text])[0]
        written = "".join(spelling[number][0] for number in encoded.ids.tolist())
        plain = "".join(text.split())
        assert written in (plain, unicodedata.normalize("NFKC", plain))
    spaced = {spelling[number][0][:1]: spelling[number][1] for number in range(tokenizer.vocab_size)}
    assert spaced["c"] and not spaced["书"]
    assert spelling[tokenizer.sep_id] == ("\0", False)


def test_byte_level_tokens_are_spelled_in_bytes() -> None:
    texts = ["the café is closed", "书很好"] * 30
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind="byte_bpe", vocab_size=300), seed=1)
    spelling = tokenizer.spelling()
    encoded = tokenizer.encode_batch(["café"])[0]
    assert "".join(spelling[number][0] for number in encoded.ids.tolist()).encode("latin-1") == "café".encode()


@pytest.mark.parametrize("kind", KINDS)
def test_tokens_are_written_as_a_text_has_them(kind: str) -> None:
    """End to end they give the words back, a space before each; words alone are words, their pieces are none."""
    tokenizer = trained(kind, "en")
    written, words = tokenizer.written(), tokenizer.words()
    assert len(written) == len(words) == tokenizer.vocab_size
    for number in tokenizer.special_ids:
        assert written[number] is None and words[number] is None
    (encoded,) = tokenizer.encode_batch(["lazy fox dogs"])
    parts = [written[number] or "" for number in encoded.ids.tolist()]
    if kind in ("wordpiece", "bpe", "unigram"):
        assert "".join(parts) == " lazy fox dogs"
    elif kind == "byte_bpe":
        assert "".join(parts) == "lazy fox dogs"  # the first word of a text has no space of its own
    else:
        assert "".join(part[1:] for part in parts) == "lazy fox dogs"  # nothing says which letter begins a word
    fox = [number for number in encoded.ids.tolist() if (written[number] or "").strip() == "fox"]
    assert all(words[number] == "fox" for number in fox) and (fox or kind in ("bytes", "characters"))


def test_pieces_of_words_and_of_characters_are_no_words() -> None:
    piece, byte = trained("wordpiece", "mixed"), trained("byte_bpe", "mixed")
    pieces = {piece.token(number): word for number, word in enumerate(piece.words())}
    latin = {token: word for token, word in pieces.items() if token.startswith("##") and token.isascii()}
    assert latin and set(latin.values()) == {None}
    assert pieces["好"] == "好" and pieces["[MASK]"] is None
    halves = [
        text for text in byte.written() if text is not None and any("\udc80" <= char <= "\udcff" for char in text)
    ]
    assert halves and all(
        word is None for text, word in zip(byte.written(), byte.words()) if text is not None and text in halves
    )


def test_words_are_changed_as_texts_are() -> None:
    assert trained("wordpiece", "en").normaliser()("Café") == "cafe"
    assert trained("byte_bpe", "en").normaliser()("Café") == "Café"
    assert trained("bytes", "en").normaliser()("Café") == "Café"
