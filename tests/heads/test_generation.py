"""Writing: with a cache as without one, a beam as by hand, what options forbid, and what cannot be asked."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
import torch

from conftest import batch_of, tiny_model
from encodery.batch import Sample
from encodery.data.tokenizers import Tokenizer
from encodery.errors import ConfigError, DataError
from encodery.heads.decoding.generation import Rules, Written, in_groups, search, shaped_distribution, without_repeats
from encodery.heads.decoding.generation_options import GenerationConfig
from encodery.heads.decoding.writing import DecoderSteps, LanguageSteps, write_from_prompts, write_from_sources
from heads.writers import TinyWriter, pairs_of, tiny_writer, written_batch

END = 2
RULES = Rules(END, torch.tensor([0, 1, 3, 4]))
SIZES = [9, 3, 14, 6, 11]
WRITERS: list[dict[str, Any]] = [
    {},
    {"decoder": {"pointer": True}, "positions": "relative", "kv_heads": 2},
    {"kind": "recurrent", "decoder": {"pointer": True}},
    {"decoder": {"vocabulary": "own", "vocab_size": 30, "stack": {"kind": "recurrent", "width": 24, "depth": 2}}},
    {"positions": "learned", "norm_place": "post", "distinct_blocks": 1, "score": "additive"},
    {"positions": "disentangled"},
]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"beam": 4},
    {"beam": 3, "length_penalty": 0.0, "no_repeat_ngram": 2, "repetition_penalty": 1.3, "min_tokens": 3},
    {"sample": True, "temperature": 1.5, "top_k": 20, "top_p": 0.9},
]
LANGUAGE: list[dict[str, Any]] = [
    {"pattern": "causal"},
    {"pattern": "causal", "positions": "alibi", "kv_heads": 1},
    {"kind": "recurrent", "directions": "forward"},
]


class Recomputed:
    """Steps that read every text from its beginning each time, one by one and without a cache."""

    def __init__(self, model: Any, sources: list[np.ndarray] | None, texts: int) -> None:
        self.model, self.sources, self.texts = model, sources, texts
        self.read: torch.Tensor | None = None

    def next(self, tokens_RT: torch.Tensor) -> torch.Tensor:
        self.read = tokens_RT if self.read is None else torch.cat([self.read, tokens_RT], dim=1)
        texts, size = list(self.read.numpy()), self.read.shape[1]
        if self.sources is not None:
            sources = [self.sources[row // self.texts] for row in range(len(texts))]
            return torch.log_softmax(mixture(self.model, sources, texts), dim=-1)
        batch = batch_of([[ids] for ids in texts], size)
        batch.truth["at"] = torch.arange(1, len(texts) + 1) * size - 1
        return torch.log_softmax(self.model(batch).logits, dim=-1)

    def chosen(self, rows: torch.Tensor) -> None:
        assert self.read is not None
        self.read = self.read[rows]

    def kept(self, sources: torch.Tensor, rows: torch.Tensor) -> None:
        self.chosen(rows)
        if self.sources is not None:
            self.sources = [self.sources[number] for number in sources.tolist()]


def mixture(model: TinyWriter, sources: list[np.ndarray], texts: list[np.ndarray]) -> torch.Tensor:
    """Logits of the next token of each text; where words can be copied, by asking for the copy of every token."""
    asked = [(row, token) for row, source in enumerate(sources) for token in (set(source.tolist()) or {0})]
    if model.readout.pointer is None:
        asked = [(row, 0) for row in range(len(texts))]
    many = [[number] for number in range(len(asked))]
    size = texts[0].size
    batch = written_batch(many, [sources[row] for row, _ in asked], [texts[row] for row, _ in asked], (32, size))
    batch.target.truth["target"][:] = torch.tensor([token for _, token in asked]).repeat_interleave(size)
    output = model(batch)
    if output.copied is None:
        return output.logits[size - 1 :: size]
    gate_A, copied_A = output.copied[:, size - 1 :: size]
    first = torch.searchsorted(torch.tensor([row for row, _ in asked]), torch.arange(len(texts)))
    words = gate_A[first, None] * torch.softmax(output.logits[size - 1 :: size][first], dim=-1)
    place = tuple(torch.tensor(asked).T)
    return torch.log(words.index_put(place, (1 - gate_A) * copied_A, accumulate=True))


def cached(model: TinyWriter, sources: list[np.ndarray], texts: int) -> DecoderSteps:
    batch = batch_of([[ids] for ids in sources], 16)
    return DecoderSteps(model.readout, model.readout.begin(model.encode(batch), batch.values["ids"], texts))


def same(found: list[list[Written]], expected: list[list[Written]]) -> None:
    assert [[one.ids for one in texts] for texts in found] == [[one.ids for one in texts] for texts in expected]
    flat, other = ([one.score for texts in given for one in texts] for given in (found, expected))
    np.testing.assert_allclose(flat, other, atol=1e-3)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("writer", WRITERS, ids=str)
def test_a_cache_changes_nothing(writer: dict[str, Any], options: dict[str, Any]) -> None:
    model = tiny_writer(**writer)
    sources, _ = pairs_of(SIZES, SIZES, vocab_size=model.readout.vocab_size)
    asked, limits = GenerationConfig(**options), [12, 5, 9, 12, 7]
    begins = [np.array([1])] * len(sources)
    with torch.inference_mode():
        found = search(cached(model, sources, asked.beam), begins, limits, asked, RULES)
        expected = search(Recomputed(model, sources, asked.beam), begins, limits, asked, RULES)
    same(found, expected)
    assert all(len(texts) == asked.beam for texts in found)
    assert all(len(one.ids) <= limit for texts, limit in zip(found, limits) for one in texts)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("encoder", LANGUAGE, ids=str)
def test_a_language_model_goes_on_from_prompts_of_any_length(encoder: dict[str, Any], options: dict[str, Any]) -> None:
    """Read together as far as the shortest goes: the same as each prompt alone, without a cache."""
    model, asked = tiny_model(**encoder), GenerationConfig(**options)
    begins = [np.concatenate([[1], ids]) for ids in pairs_of([4, 1, 7], [1])[0]]
    with torch.inference_mode():
        found = search(LanguageSteps(model, 3 * asked.beam), begins, [6, 8, 4], asked, RULES)
        for number, begin in enumerate(begins):
            steps = Recomputed(model, None, asked.beam)
            same([found[number]], search(steps, [begin], [[6, 8, 4][number]], asked, RULES, [number]))


def test_a_beam_of_one_is_greedy() -> None:
    model = tiny_writer()
    sources, _ = pairs_of(SIZES, SIZES)
    with torch.inference_mode():
        found = search(cached(model, sources, 1), [np.array([1])] * 5, [15] * 5, GenerationConfig(), RULES)
        for ids, (text,) in zip(sources, found):
            steps, written = Recomputed(model, [ids], 1), [1]
            for _ in range(16):
                logp = steps.next(torch.tensor([written[-1:]]))[0]
                logp[RULES.never] = -torch.inf
                written.append(int(logp.argmax()))
                if written[-1] == END:
                    break
            assert tuple(written[1:16]) == (*text.ids, END)[:15]


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_a_wide_beam_finds_the_best_of_all_texts(power: float) -> None:
    """Every text of up to three of three words, scored one by one."""
    model = tiny_writer(seed=5, vocab_size=8)
    (source,), _ = pairs_of([6], [1], vocab_size=8)
    with torch.inference_mode():
        options = GenerationConfig(beam=100, length_penalty=power)
        (found,) = search(cached(model, [source], 100), [np.array([1])], [3], options, RULES)
        expected = []
        for size in range(4):
            for words in product((5, 6, 7), repeat=size):
                ids = np.array([1, *words])
                logits = model(written_batch([[0]], [source], [ids], (32, ids.size))).logits
                logp = torch.log_softmax(logits, dim=-1).gather(1, torch.tensor([*words, END])[:, None]).sum()
                expected.append((float(logp) / ((5 + size + 1) / 6) ** power, words))
    expected.sort(reverse=True)
    assert len(found) == len(expected) == 40
    assert found[0].ids == expected[0][1]
    np.testing.assert_allclose([one.rank for one in found], [rank for rank, _ in expected], atol=1e-4)


def samples_of(sources: list[np.ndarray]) -> list[Sample]:
    return [Sample(ids, np.ones(ids.size, bool), np.zeros(ids.size, np.int64), uid) for uid, ids in enumerate(sources)]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_what_is_written_does_not_depend_on_the_other_sources(
    options: dict[str, Any], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_writer(vocab_size=tokenizer.vocab_size)
    sources, _ = pairs_of([9, 3, 14, 6, 11, 3, 3, 20], [1], vocab_size=tokenizer.vocab_size)
    asked = GenerationConfig(**options, max_tokens=8)
    given = (samples_of(sources), tokenizer, asked, tokenizer.pad_id, torch.float32)
    together = write_from_sources(model, *given)
    monkeypatch.setattr("encodery.heads.decoding.writing.ROWS_AT_ONCE", 2 * asked.beam)
    same(write_from_sources(model, *given), together)
    special = set(tokenizer.special_ids)
    assert not special & {token for texts in together for one in texts for token in one.ids}


def test_rules_are_kept() -> None:
    model = tiny_writer(seed=3)
    sources, _ = pairs_of(SIZES, SIZES)
    begins, limits = [np.array([1])] * 5, [20] * 5
    with torch.inference_mode():
        free = search(cached(model, sources, 1), begins, limits, GenerationConfig(), RULES)
        asked = GenerationConfig(no_repeat_ngram=2, min_tokens=12)
        ruled = search(cached(model, sources, 1), begins, limits, asked, RULES)
    pairs = [list(zip(one.ids, one.ids[1:])) for (one,) in ruled]
    assert all(len(set(found)) == len(found) for found in pairs)
    assert all(12 <= len(one.ids) <= 20 for (one,) in ruled)
    assert any(len(set(zip(one.ids, one.ids[1:]))) < len(one.ids) - 1 for (one,) in free), "the free ones repeat"


def test_runs_that_were_there_are_forbidden() -> None:
    tokens = torch.tensor([[5, 6, 7, 5, 6], [5, 5, 5, 5, 5], [5, 6, 7, 8, 9]])
    found = without_repeats(torch.zeros(3, 10), tokens, 3)
    assert [torch.nonzero(row < 0).flatten().tolist() for row in found] == [[7], [5], []]


def test_the_distribution_is_shaped_as_asked() -> None:
    logp = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]]))
    few = shaped_distribution(logp, GenerationConfig(sample=True, top_k=2))
    torch.testing.assert_close(few, torch.tensor([[0.625, 0.375, 0, 0]]))
    mass = shaped_distribution(logp, GenerationConfig(sample=True, top_p=0.75))
    torch.testing.assert_close(mass, torch.tensor([[0.625, 0.375, 0, 0]]))
    cold = shaped_distribution(logp, GenerationConfig(sample=True, temperature=0.5))
    torch.testing.assert_close(cold, torch.tensor([[0.25, 0.09, 0.0225, 0.0025]]) / 0.365)


def test_samples_follow_the_distribution_and_the_seed() -> None:
    class Coin:
        def next(self, tokens_RT: torch.Tensor) -> torch.Tensor:
            return torch.log(torch.tensor([[1e-9, 1e-9, 0.5, 1e-9, 1e-9, 0.375, 0.125]])).repeat(len(tokens_RT), 1)

        def chosen(self, rows: torch.Tensor) -> None: ...

        def kept(self, sources: torch.Tensor, rows: torch.Tensor) -> None: ...

    def first_tokens(seed: int) -> list[tuple[int, ...]]:
        asked = GenerationConfig(sample=True, seed=seed)
        return [one.ids for (one,) in search(Coin(), [np.array([1])] * 3000, [4] * 3000, asked, RULES)]

    found = first_tokens(1)
    begins = [ids[0] if ids else END for ids in found]
    shares = [begins.count(token) / 3000 for token in (END, 5, 6)]
    np.testing.assert_allclose(shares, [0.5, 0.375, 0.125], atol=0.05)
    assert first_tokens(1) == found and first_tokens(2) != found


def test_sources_of_like_length_are_written_together() -> None:
    groups = in_groups([3, 9, 3, 8, 1], GenerationConfig(beam=2), most_rows=4, most_tokens=100)
    assert groups == [[1, 3], [0, 2], [4]]
    assert in_groups([50, 60, 1], GenerationConfig(), most_rows=10, most_tokens=100) == [[1], [0, 2]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"beam": 0},
        {"beam": 4, "sample": True},
        {"temperature": 0.5},
        {"top_p": 0.5, "beam": 2},
        {"sample": True, "top_p": 0.0},
        {"min_tokens": 9, "max_tokens": 3},
        {"max_tokens": 0},
    ],
)
def test_options_that_cannot_be(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        GenerationConfig(**wrong)


def test_a_prompt_longer_than_the_model_holds_is_refused(tokenizer: Tokenizer) -> None:
    model = tiny_model(pattern="causal", vocab_size=tokenizer.vocab_size, max_length=16)
    prompts = [np.array([7, 8]), np.arange(20) + 7]
    with pytest.raises(DataError, match=r"prompt 2 has 20 tokens; the model can hold 15"):
        write_from_prompts(model, prompts, tokenizer, GenerationConfig(), torch.float32)
    (short, nothing) = write_from_prompts(
        model, [prompts[0], np.zeros(0, np.int64)], tokenizer, GenerationConfig(min_tokens=13), torch.float32
    )
    assert len(short[0].ids) == 13 and 13 <= len(nothing[0].ids) <= 15
    with pytest.raises(ConfigError, match="cannot go on"):
        write_from_prompts(
            tiny_model(vocab_size=tokenizer.vocab_size), prompts[:1], tokenizer, GenerationConfig(), torch.float32
        )
