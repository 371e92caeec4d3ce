"""Vectors from characters: n-grams and convolutions against loops over single letters; spelling that is saved."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

from conftest import spelled
from encodery.errors import ConfigError
from encodery.frontends.characters import (
    GOLDEN,
    MOST_CHARACTERS,
    NO_TEXT,
    NOTHING,
    ConvolvedCharacters,
    Ngrams,
    Spelled,
)
from encodery.frontends.hashing import mixed, rows_of

TOKENS = [None, None, " the", " other", "ther", "x", "", " ", "中", " " + "long" * 20, "\udce4"]


def ngrams(
    lengths: tuple[int, int] = (2, 3), tokens: list[str | None] = TOKENS, *, width: int = 6, rows: int = 50
) -> Ngrams:
    made = Ngrams(len(tokens), width, rows=rows, lengths=lengths)
    made.initialise(0.1, torch.Generator().manual_seed(1))
    made.spell(tokens)
    return made


def convolution(tokens: list[str | None] = TOKENS, highway_layers: int = 2) -> ConvolvedCharacters:
    sizes = {"rows": 30, "character_width": 5, "kernels": (1, 3), "filters": 2, "highway_layers": highway_layers}
    made = ConvolvedCharacters(len(tokens), 6, **sizes)  # type: ignore[arg-type]
    made.initialise(0.1, torch.Generator().manual_seed(1))
    made.spell(tokens)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(2)))
        made.center.fill_(0.3)
        made.scale.fill_(2.0)
    return made


def codes_of(number: int, token: str | None) -> list[int]:
    if token is None:
        return [NO_TEXT, *(NO_TEXT + 1 + int(digit) for digit in str(number))]
    return [ord(char) for char in token[:MOST_CHARACTERS]]


@pytest.mark.parametrize("lengths", [(2, 3), (1, 1), (3, 6), (5, 9)])
def test_ngram_vectors_by_loops_over_letters(lengths: tuple[int, int]) -> None:
    made = ngrams(lengths)
    for number, token in enumerate(TOKENS):
        codes = codes_of(number, token)
        rows = []
        for size in range(lengths[0], lengths[1] + 1):
            for start in range(len(codes) - size + 1):
                run = mixed(torch.tensor(codes[start]) + GOLDEN)
                for code in codes[start + 1 : start + size]:
                    run = mixed(run * 31 + code)
                rows.append(int(rows_of(run, 50)))
        whole = mixed(torch.tensor(codes[0] if codes else NOTHING) + GOLDEN)
        for code in codes[1:]:
            whole = mixed(whole * 37 + code)
        rows.append(int(rows_of(mixed(whole + 1), 50)))
        expected = made.table[rows].sum(0) / math.sqrt(len(rows))
        torch.testing.assert_close(made(torch.tensor([number]))[0], expected)


def test_convolved_vectors_by_loops_over_letters() -> None:
    made = convolution()
    for number, token in enumerate(TOKENS):
        if token == "":
            continue
        codes = codes_of(number, token)
        rows = [12 + code % 18 if code < NO_TEXT else 1 + code - NO_TEXT for code in codes] + [0] * 2
        found = []
        for kernel, layer in zip((1, 3), made.convolutions):
            windows = [made.characters[rows[start : start + kernel]].flatten() for start in range(len(codes))]
            found.append(torch.stack([layer(window) for window in windows]).amax(0))
        x = 2 * (torch.tanh(torch.cat(found)) - 0.3)
        for layer in made.highway:
            gate, changed = layer(x).chunk(2)
            x = torch.sigmoid(gate) * torch.relu(changed) + (1 - torch.sigmoid(gate)) * x
        torch.testing.assert_close(made(torch.tensor([number]))[0], made.outer(x), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("make", [ngrams, convolution])
def test_each_distinct_token_is_made_once_and_all_are_the_matrix(make: type, monkeypatch: pytest.MonkeyPatch) -> None:
    made = make()
    ids = torch.tensor([3, 3, 9, 0, 3, 10, 9])
    found = made(ids)
    torch.testing.assert_close(found, made.matrix()[ids], atol=1e-6, rtol=1e-5)
    assert torch.isfinite(made.matrix()).all()
    seen: list[int] = []
    name = "_made" if make is ngrams else "made"
    real = getattr(made, name)
    monkeypatch.setattr(made, name, lambda given: [seen.append(given.unique().numel()), real(given)][1])
    made(ids)
    assert seen == [4]


@pytest.mark.parametrize("make", [ngrams, convolution])
def test_no_two_tokens_are_alike_that_are_not_written_alike(make: type) -> None:
    """Special tokens have no letters, and still a vector each; a word differs from the piece of the same letters."""
    made = make(tokens=[None, None, None, " the", "the", " th", "e", " ", "th"])
    with torch.no_grad():
        distance = torch.cdist(made.matrix(), made.matrix()) + torch.eye(9)
    assert distance.min() > 1e-4


def test_words_of_the_same_parts_are_alike_from_the_start() -> None:
    made = Ngrams(4, 64, rows=4096, lengths=(3, 6))
    made.initialise(0.1, torch.Generator().manual_seed(1))
    made.spell([" playing", " played", " sorted", " player"])
    with torch.no_grad():
        alike = torch.cosine_similarity(made.matrix()[:, None], made.matrix()[None], dim=-1)
    assert alike[1, 3] > 0.5 and alike[0, 1] > 0.3 and alike[1, 2] < 0.3


@pytest.mark.parametrize("make", [ngrams, convolution])
def test_the_spelling_travels_with_the_weights(make: type) -> None:
    made = make()
    twin = make(tokens=[None] * len(TOKENS))
    twin.load_state_dict({name: value.clone() for name, value in made.state_dict().items()})
    assert torch.equal(twin.matrix(), made.matrix()) and torch.equal(twin.spelling, made.spelling)
    assert torch.equal(copy.deepcopy(made).matrix(), made.matrix())


@pytest.mark.parametrize("kind", [Ngrams, ConvolvedCharacters])
def test_without_spelling_there_is_no_vector(kind: type[Spelled]) -> None:
    sizes = {"lengths": (2, 3)}
    if kind is ConvolvedCharacters:
        sizes = {"character_width": 4, "kernels": (1,), "filters": 2, "highway_layers": 0}  # type: ignore[dict-item]
    made = kind(5, 6, rows=20, **sizes)  # type: ignore[call-arg]
    made.initialise(0.1, torch.Generator())  # type: ignore[operator]
    for ask in (lambda: made(torch.tensor([1])), made.matrix):
        with pytest.raises(ConfigError, match="spell") as caught:
            ask()  # type: ignore[operator]
        assert "tokenizer.written()" in caught.value.fix
    with pytest.raises(ConfigError, match="3 tokens for a model of 5"):
        made.spell([None, None, "a"])
    made.spell([None, None, "a", "b", "c"])
    assert torch.isfinite(made.matrix()).all()  # type: ignore[operator]


@pytest.mark.parametrize("make", [ngrams, convolution])
def test_a_batch_in_bf16_is_near_that_in_fp32(make: type) -> None:
    made = make()
    ids = torch.tensor([2, 3, 9])
    with torch.autocast("cpu", torch.bfloat16):
        found = made(ids)
    torch.testing.assert_close(found.float(), made(ids), atol=3e-2, rtol=3e-2)
    whole: nn.Module = copy.deepcopy(made).bfloat16()
    torch.testing.assert_close(whole(ids).float(), made(ids), atol=3e-2, rtol=3e-2)


def test_ngrams_start_near_given_vectors() -> None:
    """Tokens of much weight first."""
    rng = np.random.default_rng(0)
    wanted = (rng.normal(size=(200, 3)) @ rng.normal(size=(3, 16))).astype(np.float32)
    weight = np.ones(200)
    weight[:40] = 50.0
    made = ngrams((2, 4), spelled(200), width=16, rows=1000)
    made.start(wanted, weight)
    with torch.no_grad():
        error = (made.matrix().numpy() - wanted) ** 2
    assert error[:40].mean() < 0.05 * (wanted**2).mean()
    assert error[:40].mean() < error[40:].mean()


def test_fresh_convolved_vectors_are_as_far_apart_as_rows_of_a_table() -> None:
    """As the layers are drawn, all tokens are nearly alike, and training does not part them."""
    tokens = spelled(300)
    made = ConvolvedCharacters(300, 24, rows=99, character_width=16, kernels=(1, 2, 3), filters=20, highway_layers=1)
    made.initialise(0.1, torch.Generator().manual_seed(3))
    made.spell(tokens)

    def likeness() -> tuple[float, float]:
        with torch.no_grad():
            found = made.matrix()
        alike = torch.cosine_similarity(found[:, None], found[None], dim=-1)
        return float((alike.sum() - 300) / (300 * 299)), float(found.std())

    assert likeness()[0] > 0.5
    made.spread(0.1, np.ones(300))
    alike, std = likeness()
    assert abs(alike) < 0.02 and std == pytest.approx(0.1, rel=0.3)
    made.start(np.random.default_rng(0).normal(0, 3, size=(300, 24)), np.ones(300))
    assert likeness()[1] == pytest.approx(3, rel=0.3)
