"""Replaced words: what is drawn, what counts, who learns from what; the faults that re-implementations make."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from conftest import batch_of, documents_of, tiny_config, tiny_model
from encodery.batch import Batch, States
from encodery.encoders.kinds import make_encoder
from encodery.encoders.watch import Watch
from encodery.errors import ConfigError
from encodery.frontends.text import TextFrontend
from encodery.heads.options import GeneratorConfig, ReplacedReadoutConfig
from encodery.heads.replaced import ReplacedReadout, generator_config
from encodery.objectives.cross_entropy import IGNORED
from encodery.objectives.replaced import Replaced, ReplacedConfig

SPECIAL = frozenset(range(5))


class Parts:
    """Frontend, encoder and readout side by side, as a model puts them together."""

    def __init__(self, *, encoder: dict[str, Any] | None = None, **readout: Any) -> None:
        config = tiny_config(**(encoder or {}))
        self.frontend = TextFrontend(config.frontend, config.encoder.width)
        self.encoder = make_encoder(config.encoder, self.frontend.width)
        self.readout = ReplacedReadout(ReplacedReadoutConfig(**readout), config.encoder, self.frontend)
        self.read: list[Batch] = []
        generator = torch.Generator().manual_seed(0)
        for part in (self.frontend, self.encoder, self.readout):
            part.initialise(generator)
            with torch.no_grad():
                for parameter in part.parameters():
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.15)
        if self.readout.difference is not None:
            torch.nn.init.zeros_(self.readout.difference)

    def encode(
        self, batch: Batch, at: Tensor | None = None, *, watch: Watch | None = None, words: Tensor | None = None
    ) -> States:
        self.read.append(batch)
        return self.encoder(self.frontend(batch, words), at, watch)

    def answer(self, batch: Batch):
        return self.readout.run(self.encode, batch)


def objective(**config: Any) -> Replaced:
    config = {"share": 0.4, **config}
    return Replaced(ReplacedConfig(**config), vocab_size=50, mask_id=4, special_ids=SPECIAL)


def framed(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    """Documents between [CLS] and [SEP]."""
    return [np.concatenate([[2], ids, [3]]) for ids in documents_of(lengths, seed=seed)]


def prepared(judge: Replaced, *, length: int = 32, seed: int = 0) -> tuple[Batch, Batch]:
    one, two, three = framed([11, 9, 20])
    batch = batch_of([[one, two], [three], []], length)
    return batch, judge.prepare(batch, np.random.default_rng(seed), 0.0)


def test_words_are_drawn_as_the_generator_says() -> None:
    """The shares of 200,000 draws follow softmax(logits / temperature); special tokens and impossible words never
    come, whatever the number that decides."""
    torch.manual_seed(0)
    logits = torch.randn(1, 50) * 2
    logits[0, 7] = -1e9
    for temperature in (1.0, 0.5):
        readout = Parts(temperature=temperature, special_ids=tuple(sorted(SPECIAL))).readout
        draws = torch.from_numpy(np.random.default_rng(0).random(200_000, dtype=np.float32))
        found = torch.bincount(readout.drawn(logits.expand(200_000, -1), draws), minlength=50) / 200_000
        wanted = logits[0] / temperature
        wanted[:5] = -torch.inf
        torch.testing.assert_close(found, torch.softmax(wanted, 0), atol=6e-3, rtol=0)
        ends = readout.drawn(logits.expand(3, -1), torch.tensor([0.0, 0.99999994, 1.0]))
        assert not np.isin(ends.numpy(), [*SPECIAL, 7]).any()


def test_special_tokens_and_padding_are_never_replaced_or_scored() -> None:
    judge, parts = objective(share=0.9), Parts(generator=GeneratorConfig(), special_ids=tuple(sorted(SPECIAL)))
    for seed in range(5):
        batch, done = prepared(judge, seed=seed)
        output = parts.answer(done)
        read, ids = parts.read[-1].values["ids"], batch.values["ids"]
        counts = (batch.layout.document >= 0) & (ids >= 5)
        assert torch.equal(done.truth["told"], counts)
        assert torch.equal(read[~counts], ids[~counts])  # [CLS], [SEP] and padding stand as they stood
        assert not output.replaced[~counts].any() and (read[counts] >= 5).all()
        assert int(judge.loss(output, done).count) == int(counts.sum()) == 40


def test_every_hidden_word_is_filled_in_and_no_other_token_is_touched() -> None:
    judge, parts = objective(), Parts(generator=GeneratorConfig(), special_ids=tuple(sorted(SPECIAL)))
    batch, done = prepared(judge)
    parts.answer(done)
    read, ids = parts.read[-1].values["ids"], batch.values["ids"]
    at = done.truth["at"][done.truth["target"] != IGNORED]
    assert at.numel() == 16 and (read != 4).all()
    others = np.setdiff1d(np.arange(ids.numel()), at.numpy())
    assert torch.equal(read[others], ids[others])
    # Slots that are not needed point at position 0, which may be hidden itself: they write nothing there.
    assert done.truth["at"].numel() > at.numel()


def test_a_drawn_word_that_is_the_right_one_counts_as_original() -> None:
    judge, parts = objective(), Parts(generator=GeneratorConfig())
    batch, done = prepared(judge)
    with torch.no_grad():  # a generator that always says 9
        parts.readout.generator.words.bias.zero_()
        parts.readout.generator.words.bias[9] = 1e4
    ids = batch.values["ids"].clone()
    ids[done.truth["at"][:3]] = 9
    target = done.truth["target"].clone()
    target[:3] = 9
    done = Batch(done.values, done.layout, {**done.truth, "target": target}, done.uids, done.parts)
    output = parts.answer(done)
    expected = torch.zeros_like(output.replaced)
    real = target != IGNORED
    expected[done.truth["at"][real]] = target[real] != 9
    assert torch.equal(output.replaced, expected)
    assert not output.replaced[done.truth["at"][:3]].any() and output.replaced.any()


def test_the_loss_by_hand() -> None:
    judge, parts = objective(weight=50.0, generator_weight=2.0), Parts(generator=GeneratorConfig())
    _, done = prepared(judge)
    output = parts.answer(done)
    loss = judge.loss(output, done)
    told = output.logits.detach()[done.truth["told"]].double().tolist()
    other = output.replaced[done.truth["told"]].tolist()
    each = [np.log1p(np.exp(-x if was else x)) for x, was in zip(told, other)]
    rows = [
        (row, t) for row, t in zip(output.generated.detach().double().tolist(), done.truth["target"].tolist()) if t >= 0
    ]
    words = [np.log(np.exp(row).sum()) - row[t] for row, t in rows]
    expected = 50 * np.mean(each) + 2 * np.mean(words)
    assert float(loss.total.detach() / loss.count) == pytest.approx(expected, rel=1e-5)
    assert float(loss.parts["told_loss"]) == pytest.approx(np.mean(each), rel=1e-5)
    assert float(loss.parts["generator_loss"]) == pytest.approx(np.mean(words), rel=1e-5)
    right = sum((x > 0) == was for x, was in zip(told, other))
    assert int(loss.correct) == right
    assert float(loss.parts["replaced_found"]) == pytest.approx(
        sum(x > 0 and was for x, was in zip(told, other)) / sum(other)
    )


def gradients(sharing: str, *, generator: bool, encoder: bool) -> dict[str, bool]:
    """Which parts learn from the generator's loss, the encoder's, or both."""
    judge = objective()
    parts = Parts(generator=GeneratorConfig(sharing=sharing), special_ids=tuple(sorted(SPECIAL)))  # type: ignore[arg-type]
    _, done = prepared(judge)
    output = parts.answer(done)
    wanted = torch.zeros(())
    if generator:
        wanted = wanted + output.generated.float().square().mean()
    if encoder:
        wanted = wanted + output.logits.square().mean()
    wanted.backward()

    def moved(*parameters: Tensor | None) -> bool:
        return any(p is not None and p.grad is not None and bool(p.grad.abs().max() > 0) for p in parameters)

    made = parts.readout.generator
    return {
        "generator": moved(*made.encoder.parameters(), *made.words.parameters()),
        "encoder": moved(*parts.encoder.parameters(), *parts.readout.answer.parameters()),
        "words": moved(parts.frontend.words.weight),
        "own": made.own is not None and moved(made.own.words.weight),
        "difference": moved(parts.readout.difference),
    }


@pytest.mark.parametrize("sharing", ["tied", "disentangled", "separate"])
def test_no_gradient_passes_from_the_encoder_into_the_generator(sharing: str) -> None:
    mine, others = gradients(sharing, generator=False, encoder=True), gradients(sharing, generator=True, encoder=False)
    assert mine["encoder"] and not mine["generator"] and not mine["own"]
    assert others["generator"] and not others["encoder"] and not others["difference"]
    # Word vectors: both losses teach a tied table; of a disentangled one the encoder teaches the difference alone.
    assert mine["words"] == (sharing != "disentangled") and mine["difference"] == (sharing == "disentangled")
    assert others["words"] == (sharing != "separate") and others["own"] == (sharing == "separate")


def test_tied_word_vectors_are_one_parameter() -> None:
    parts = Parts(generator=GeneratorConfig())
    table = parts.frontend.words.weight
    assert parts.readout.generator.frontend.words.weight is table
    assert all(parameter is not table for parameter in parts.readout.parameters())  # it belongs to the frontend


def test_a_disentangled_table_begins_as_the_generators() -> None:
    """He et al. 2021: the difference begins at 0, so the encoder's answers are those of the shared table."""
    judge = objective()
    tied, apart = (Parts(generator=GeneratorConfig(sharing=name)) for name in ("tied", "disentangled"))  # type: ignore[arg-type]
    for one, other in (
        (tied.frontend, apart.frontend),
        (tied.encoder, apart.encoder),
        (tied.readout, apart.readout),
    ):
        other.load_state_dict(one.state_dict(), strict=False)
    _, done = prepared(judge)
    torch.testing.assert_close(tied.answer(done).logits, apart.answer(done).logits, atol=1e-5, rtol=1e-5)
    with torch.no_grad():
        apart.readout.difference[:, 0] += 1.0
    before = apart.answer(done)
    assert not torch.allclose(tied.answer(done).logits, before.logits, atol=1e-3)
    # At the end the model gets the table that its encoder has read: the answers stay.
    kept = Parts()
    kept.encoder.load_state_dict(apart.encoder.state_dict())
    kept.readout.load_state_dict(apart.readout.state_dict(), strict=False)
    read = apart.read[-1]
    apart.readout.settle()
    kept.frontend.load_state_dict(apart.frontend.state_dict())
    torch.testing.assert_close(kept.answer(read).logits, before.logits, atol=1e-5, rtol=1e-5)


def test_without_a_generator_a_text_is_read_as_it_is() -> None:
    parts = Parts()
    batch, done = prepared(objective())
    assert parts.readout.generator is None
    output = parts.answer(batch)
    assert output.logits.shape == (96,) and output.generated is None
    assert parts.read == [batch] and torch.equal(parts.answer(done).logits, parts.answer(done).logits)


@pytest.mark.parametrize(
    "encoder",
    [
        {"width": 256, "heads": 4, "depth": 4},
        {"width": 768, "heads": 12, "depth": 12, "kv_heads": 4},
        {"width": 32, "heads": 1, "depth": 1},
        {"width": 96, "heads": 3, "depth": 5, "activation": "swiglu", "positions": "alibi"},
        {"width": 64, "heads": 4, "depth": 3, "halve_after": [1], "distinct_blocks": 1},
        {"kind": "recurrent", "width": 128, "depth": 2},
    ],
)
@pytest.mark.parametrize("share", [0.25, 1 / 3, 0.5, 1.0])
def test_the_generator_has_its_share_of_the_size(encoder: dict[str, Any], share: float) -> None:
    config = tiny_config(**encoder, **({"mlp_width": None} if encoder.get("kind") != "recurrent" else {})).encoder
    made = generator_config(GeneratorConfig(width=share, depth=share), config)
    assert made.depth == max(1, round(share * config.depth)) and made.max_length == config.max_length
    assert 0.6 * share * config.width <= made.width <= 1.5 * share * config.width + 8
    assert getattr(config, "positions", "rotary") == made.positions


def test_shapes_do_not_depend_on_what_is_drawn() -> None:
    """A constant number of slots and positions: what compiled products and bf16 kernels need."""
    judge, parts = objective(share=0.15), Parts(generator=GeneratorConfig())
    sizes = set()
    for seed, lengths in enumerate(([5, 6, 7], [30, 20, 9], [1, 2, 3])):
        batch = batch_of([[ids] for ids in framed(lengths)], 32)
        output = parts.answer(judge.prepare(batch, np.random.default_rng(seed), 0.0))
        sizes.add((output.logits.shape, output.generated.shape))
    assert len(sizes) == 1


def test_nothing_to_replace_is_no_loss() -> None:
    judge, parts = objective(), Parts(generator=GeneratorConfig())
    for rows in ([[], []], [[np.array([2, 3])], []]):
        done = judge.prepare(batch_of(rows, 16), np.random.default_rng(0), 0.0)  # type: ignore[arg-type]
        loss = judge.loss(parts.answer(done), done)
        assert float(loss.total.detach()) == 0.0 and int(loss.count) == 0
        loss.total.backward()


def test_wrong_options_are_refused() -> None:
    with pytest.raises(ValueError, match="draws at random"):
        ReplacedConfig(generator_weight=0)
    model = tiny_model(frontend={"embedding": "characters", "ngram_lengths": [1, 3], "ngram_rows": 64})
    for sharing in ("separate", "disentangled"):
        with pytest.raises(ConfigError, match="characters"):
            ReplacedReadout(
                ReplacedReadoutConfig(generator=GeneratorConfig(sharing=sharing)),  # type: ignore[arg-type]
                model.config.encoder,
                model.frontend,
            )
