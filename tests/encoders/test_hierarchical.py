"""Hierarchical encoders: documents cut as said, each level its formula, both levels read, trained and paid for."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch
from pydantic import ValidationError

import encodery
from conftest import GOOD, PLAIN, batch_of, documents_of, make_fit, tiny_config, tiny_model
from encodery.batch import Batch, States, layout_of
from encodery.bricks.inference import can_prepare, prepare_for_use
from encodery.bricks.pooling import Pooling
from encodery.data.loader import Place
from encodery.data.tokenizers import Tokenizer
from encodery.encoders.hierarchical import HierarchicalAttention, HierarchicalTransformer
from encodery.encoders.hierarchical_options import HierarchicalConfig
from encodery.encoders.segments import cut
from encodery.encoders.watch import Watch
from encodery.errors import ConfigError
from encodery.model import Model, cost_table, count
from encodery.training.compilation import Compilation
from encodery.training.optim import Muon, OptimConfig, make_optimizer

HAN = {"kind": "hierarchical", "style": "han", "segment": 4}
GRU = {**HAN, "words": "recurrent", "segments": "recurrent"}
HAT = {"kind": "hierarchical", "style": "hat", "segment": 4, "cross_every": 1}
OPEN = {**HAT, "depth": 3, "cross_every": 2}  # its last block is one over words
KINDS = pytest.mark.parametrize("encoder", [HAN, GRU, HAT, OPEN], ids=["han", "gru", "hat", "open"])


# -- segments ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [4, 5, 16, 100])
def test_documents_are_cut_from_their_start(size: int) -> None:
    rows = [[9, 4, 1], [], [16], [3, 12]]
    layout = layout_of(rows, 20)
    parts = cut(layout, size)
    starts, lengths, counts = [], [], []
    for start, length in zip(layout.starts.tolist(), layout.lengths.tolist()):
        edges = range(start, start + length, size)
        starts += edges
        lengths += [min(size, start + length - edge) for edge in edges]
        counts.append(len(edges))
    assert parts.words.starts.tolist() == starts and parts.words.lengths.tolist() == lengths
    assert parts.layout.lengths.tolist() == counts and parts.layout.rows == layout.rows
    for number, (start, length) in enumerate(zip(starts, lengths)):
        span = slice(start, start + length)
        assert parts.words.document[span].tolist() == [number] * length
        assert parts.words.position[span].tolist() == list(range(length))
        assert parts.owner[span].tolist() == [parts.place[number]] * length
    padding = layout.document < 0
    assert (parts.words.document[padding] == -1).all() and (parts.owner[padding] == -1).all()
    # Segments of a document stand side by side, counted from 0, in the row of the document.
    above = parts.layout
    assert torch.equal(above.document[parts.place], torch.repeat_interleave(torch.tensor(counts)))
    assert above.position[parts.place].tolist() == [place for number in counts for place in range(number)]
    assert torch.equal(parts.place // above.length, parts.words.starts // layout.length)
    assert cut(layout, size) is parts


def test_vectors_of_segments_go_to_their_places_and_to_their_tokens() -> None:
    layout = layout_of([[5, 3]], 9)
    parts = cut(layout, 4)
    placed = parts.placed(torch.tensor([[1.0], [2.0], [3.0]]))
    assert placed[:, 0].tolist() == [1.0, 2.0, 3.0] + [0.0] * (len(placed) - 3)
    assert parts.spread(placed)[:, 0].tolist() == [1, 1, 1, 1, 2, 3, 3, 3, 0]


def by_hand(ends: list[bool], size: int) -> list[int]:
    """Lengths of the segments of one document: token by token."""
    found, at = [], 0
    while at < len(ends):
        room = min(size, len(ends) - at)
        if at + room < len(ends):
            room = next((n for n in range(room, 0, -1) if ends[at + n - 1]), room)
        found.append(room)
        at += room
    return found


@pytest.mark.parametrize("share", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("size", [4, 7, 30])
def test_segments_end_where_sentences_do(size: int, share: float) -> None:
    rng = np.random.default_rng(size)
    rows = [[40, 3], [], [1, 22, 17], [64]]
    layout = layout_of(rows, 64)
    ends = rng.random(layout.positions) < share
    parts = cut(layout, size, torch.from_numpy(ends))
    spans = list(zip(layout.starts.tolist(), layout.lengths.tolist()))
    hand = [by_hand(ends[start : start + length].tolist(), size) for start, length in spans]
    lengths = parts.words.lengths.tolist()
    assert lengths == [length for document in hand for length in document] and max(lengths) <= size
    assert parts.layout.lengths.tolist() == [len(document) for document in hand]
    for number, (start, length) in enumerate(zip(parts.words.starts.tolist(), lengths)):
        span = slice(start, start + length)
        assert parts.words.document[span].tolist() == [number] * length
        assert parts.words.position[span].tolist() == list(range(length))
        assert parts.owner[span].tolist() == [parts.place[number]] * length
    assert torch.equal(parts.words.document < 0, layout.document < 0)
    if share == 0:
        same = cut(layout, size)
        assert torch.equal(same.words.document, parts.words.document) and torch.equal(same.place, parts.place)


@pytest.mark.parametrize("size", [4, 5, 9])
def test_a_document_has_no_more_segments_than_there_are_positions_for(size: int) -> None:
    """The worst: short and long sentences in turn, so that no two fit into one segment."""
    for longest in (32, 37, 60):
        config = HierarchicalConfig(segment=size, max_length=longest, segment_at="sentences")
        ends = torch.zeros(longest, dtype=torch.bool)
        ends[0 :: size + 1] = True  # a sentence of one token, one of `size`
        ends[size :: size + 1] = True
        segments = cut(layout_of([[longest]], longest), size, ends).words.documents
        assert longest // (size + 1) * 2 <= segments <= config.most_segments
        assert config.segment_level.max_length >= config.most_segments


# -- formulas ----------------------------------------------------------------------------------------


def test_pooling_with_a_hidden_layer_is_the_formula_of_the_paper() -> None:
    """u = tanh(W h + b), a = softmax(u . context), s = sum of a h (Yang et al. 2016, equations 5 to 7)."""
    torch.manual_seed(0)
    layout = layout_of([[3, 5], [2]], 9)
    states = States(torch.randn(18, 8), layout)
    pooling = Pooling("attention", 8, hidden=True)
    assert pooling.hidden is not None and pooling.score is not None and pooling.score.bias is None
    found = pooling(states)
    for number, (start, size) in enumerate(zip(layout.starts.tolist(), layout.lengths.tolist())):
        h = states.vectors[start : start + size]
        u = torch.tanh(h @ pooling.hidden.weight.T + pooling.hidden.bias)
        a = torch.softmax(u @ pooling.score.weight[0], 0)
        torch.testing.assert_close(found[number], (a[:, None] * h).sum(0))


def segments_alone(ids: np.ndarray, size: int) -> list[Batch]:
    """Each segment as a batch of its own."""
    return [
        batch_of([[ids[start : start + size]]], len(ids[start : start + size])) for start in range(0, len(ids), size)
    ]


@pytest.mark.parametrize("encoder", [HAN, GRU], ids=["han", "gru"])
def test_han_reads_segments_alone_and_then_what_they_came_to(encoder: dict[str, Any]) -> None:
    model = tiny_model(**encoder)
    body = model.encoder
    assert isinstance(body, HierarchicalAttention)
    (ids,) = documents_of([14])
    with torch.inference_mode():
        states = model.encode(batch_of([[ids]], 16))
        words = [body.words(model.frontend(part)) for part in segments_alone(ids, 4)]
        pooled = torch.cat([body.pooling(one) for one in words])
        above = body.segments(States(pooled, layout_of([[4]], 4))).vectors
        tokens = torch.cat([one.vectors + above[number] for number, one in enumerate(words)])
    assert states.summary is not None
    torch.testing.assert_close(states.vectors[:14], tokens, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states.summary.vectors[:4], above, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_hat_takes_the_first_vectors_through_blocks_of_their_own(every: int) -> None:
    model = tiny_model(**{**HAT, "depth": 3, "cross_every": every})
    body = model.encoder
    assert isinstance(body, HierarchicalTransformer)
    (ids,) = documents_of([14])
    parts = segments_alone(ids, 4)
    above = layout_of([[4]], 4)
    with torch.inference_mode():
        states = model.encode(batch_of([[ids]], 16))
        x = [body.words.entered(model.frontend(part).vectors, part.layout) for part in parts]
        for one in x:
            one[0] += body.lead
        for layer, block in enumerate(body.words.blocks):
            x = [block(one, body.words.begin(part.layout, torch.float32, None), layer) for one, part in zip(x, parts)]
            if (layer + 1) % every == 0:
                number = layer // every
                first = torch.stack([one[0] for one in x])
                first = body.segments.blocks[number](first, body.segments.begin(above, torch.float32, None), number)
                for one, vector in zip(x, first):
                    one[0] = vector
        expected = body.segments.output_norm(torch.cat(x))
    assert states.summary is not None
    torch.testing.assert_close(states.vectors[:14], expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(states.summary.vectors[:4], expected[::4], atol=1e-5, rtol=1e-5)
    assert len(body.blocks) == 3 + 3 // every


def influence(encoder: dict[str, Any], length: int = 14) -> np.ndarray:
    """(tokens, tokens): does changing the second change the vector of the first?"""
    model = tiny_model(**encoder)
    (document,) = documents_of([length])
    changed = []
    with torch.inference_mode():
        before = model.encode(batch_of([[document]], length)).vectors
        for place in range(length):
            other = document.copy()
            other[place] = 5 + (other[place] - 4) % 45
            after = model.encode(batch_of([[other]], length)).vectors
            changed.append(((after - before).abs().amax(dim=1) > 0).numpy())
    return np.array(changed).T


def test_who_sees_whom() -> None:
    place = np.arange(14)
    together = place[:, None] // 4 == place // 4
    assert influence(HAN).all()
    # One block over words and one over segments: what the others say has come to the first vectors.
    assert np.array_equal(influence({**HAT, "depth": 1}), together | (place % 4 == 0)[:, None])
    # One more over words brings it to all.
    assert influence({**HAT, "depth": 3, "cross_every": 2}).all()


def test_order_matters_at_both_levels() -> None:
    (ids,) = documents_of([16])
    within, between = ids.copy(), np.concatenate([ids[8:12], ids[4:8], ids[:4], ids[12:]])
    within[[1, 2]] = within[[2, 1]]
    assert not np.array_equal(ids, within)
    for encoder in (HAN, GRU, {**HAT, "positions": "relative"}, {**HAT, "positions": "alibi"}):
        model = tiny_model(readout={"kind": "document", "outputs": 3}, **encoder)
        with torch.inference_mode():
            plain, one, other = (model(batch_of([[some]], 16)).logits for some in (ids, within, between))
        assert (plain - one).abs().max() > 1e-4 and (plain - other).abs().max() > 1e-4


# -- what readouts and objectives get ----------------------------------------------------------------


@KINDS
@pytest.mark.parametrize("pooling", ["first", "mean", "max", "attention"])
def test_a_document_is_read_from_its_segments(encoder: dict[str, Any], pooling: str) -> None:
    readout = {"kind": "document", "pooling": pooling, "outputs": 3}
    model = tiny_model(readout=readout, **encoder)
    batch = batch_of([documents_of([9, 6]), [], documents_of([13, 2], seed=1)], 16)
    with torch.inference_mode():
        summary = model.encode(batch).summary
        assert summary is not None and summary.layout.lengths.tolist() == [3, 2, 4, 1]
        output = model(batch)
        torch.testing.assert_close(output.vectors, model.readout.pooling(summary))
        for number, ids in enumerate([*documents_of([9, 6]), *documents_of([13, 2], seed=1)]):
            alone = model(batch_of([[ids]], ids.size))
            torch.testing.assert_close(output.logits[number], alone.logits[0], atol=1e-5, rtol=1e-5)
    assert model(batch_of([[], []], 16)).logits.shape == (0, 3)


@KINDS
def test_asked_for_some_positions_it_gives_what_it_gives_for_all(encoder: dict[str, Any]) -> None:
    model = tiny_model(**encoder)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    at = torch.tensor([20, 3, 3, 0, 30, 8])
    found = []
    for only in (None, at):
        model.zero_grad()
        states = model.encoder(model.frontend(batch), only)
        vectors = states.vectors[at] if only is None else states.vectors
        vectors.square().sum().backward()
        gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
        found.append((vectors.detach(), gradients))
    (every, one), (some, two) = found
    torch.testing.assert_close(some, every)
    assert one.keys() == two.keys()
    for name, gradient in one.items():
        torch.testing.assert_close(two[name], gradient, msg=name, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("encoder", [HAN, OPEN], ids=["han", "open"])
def test_long_documents_take_the_sparse_road_to_the_same_numbers(encoder: dict[str, Any]) -> None:
    """In rows of 1,024 segments are computed as blocks, alone in short rows as whole rows."""
    model = tiny_model(**{**encoder, "segment": 16, "max_length": 1024})
    documents = documents_of([700, 300, 24, 1000])
    with torch.inference_mode():
        together = model.encode(batch_of([documents[:3], documents[3:]], 1024))
        for number, ids in enumerate(documents):
            start = int(together.layout.starts[number])
            alone = model.encode(batch_of([[ids]], ids.size)).vectors
            torch.testing.assert_close(together.vectors[start : start + ids.size], alone, atol=2e-5, rtol=1e-5)


@KINDS
def test_watching_changes_nothing(encoder: dict[str, Any]) -> None:
    model = tiny_model(**encoder)
    batch = batch_of([documents_of([9, 5]), documents_of([14], seed=1)], 16)
    watch = Watch()
    with torch.inference_mode():
        plain, watched = model.encode(batch).vectors, model.encode(batch, watch).vectors
    real = batch.layout.document >= 0
    torch.testing.assert_close(watched[real], plain[real], atol=1e-5, rtol=1e-5)
    parts = cut(batch.layout, 4)
    kept = {id(layout): layout.documents for layout in watch.layouts}
    assert sorted(kept.values()) == sorted([parts.words.documents, parts.layout.documents])
    for vectors, layout in zip(watch.hidden, watch.layouts):
        assert len(vectors) == layout.positions
    assert len(watch.sizes) == len(list(model.encoder.blocks))
    if encoder is not GRU:
        assert len(watch.weights) == len(watch.sizes)
        for weight in (weight for weights in watch.weights for weight in weights):
            torch.testing.assert_close(weight.sum(-1), torch.ones(weight.shape[:2]))


# -- options -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"words": "recurrent"}, "style: hat is made of Transformer blocks.*style: han"),
        ({"depth": 2, "cross_every": 3}, "cross_every 3 is more than depth 2.*cross_every 2"),
        ({"segment": 512, "max_length": 512}, "segment 512 is not less than max_length 512.*segment 128"),
        ({"width": 30, "heads": 4}, "width 30 is not a multiple of heads 4; heads 3 fit"),
        ({"width": 12, "heads": 4}, "even head width, not 3; positions: alibi"),
        (
            {"style": "han", "words": "recurrent", "width": 33, "heads": 3, "positions": "alibi"},
            "width 33 cannot be halved.*width 34",
        ),
        ({"positions": "learned"}, "none.*rotary.*alibi"),
        ({"style": "hann"}, "han.*hat"),
        ({"segment": 3}, "greater than or equal to 4"),
        ({"pattern": "window"}, "pattern"),
        ({"preset": "base"}, "preset"),
    ],
)
def test_what_cannot_be_is_refused_with_what_can(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        HierarchicalConfig.model_validate(changes)


def test_a_recipe_says_what_is_wrong_with_its_encoder(tmp_path: Path, text_file: Callable[..., Path]) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"data: {{train: {text_file('train.jsonl', 20)}}}\nobjective: masked\n"
        "encoder: {kind: hierarchical, words: recurrent}\n",
        encoding="utf-8",
    )
    with pytest.raises(ConfigError, match="style: han"):
        encodery.train(recipe, f"output={tmp_path / 'run'}")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("preset", ["tiny", "mini", "small"])
@pytest.mark.parametrize("style", ["han", "hat"])
def test_presets_fill_sizes_and_given_keys_win(preset: str, style: str) -> None:
    config = HierarchicalConfig.model_validate({"preset": preset, "style": style, "mlp_width": 64})
    sizes = {"tiny": (128, 2, 2), "mini": (256, 4, 4), "small": (384, 6, 6)}[preset]
    assert (config.width, config.depth, config.heads, config.mlp_width) == (*sizes, 64)
    assert HierarchicalConfig.model_validate(config.model_dump(mode="json")) == config


@KINDS
def test_the_cost_table_counts_every_parameter_once(encoder: dict[str, Any]) -> None:
    model = Model(tiny_config(**encoder))
    assert sum(row.parameters for row in cost_table(model, length=16)) == count(model)


@pytest.mark.parametrize("style", ["han", "hat"])
def test_the_cost_of_a_token_does_not_grow_with_its_document(style: str) -> None:
    """That of a flat encoder does."""
    flat = {"width": 64, "depth": 2, "heads": 2, "max_length": 65_536}
    encoder = {**flat, "kind": "hierarchical", "style": style}
    growth, memory = {}, {}
    for name, one in (("flat", flat), (style, encoder)):
        config = tiny_config(**{"mlp_width": None, **one})
        with torch.device("meta"):
            model = Model(config)
        short, long = (sum(row.flops for row in cost_table(model, length=length)) for length in (1024, 32_768))
        growth[name] = long / short
        memory[name] = model.encoder.memory(32_768)[0] / model.encoder.memory(1024)[0]
    assert growth["flat"] > 10 and growth[style] < 1.1
    assert memory["flat"] > 10 and memory[style] < 1.1


@KINDS
def test_blocks_learn_by_their_place_and_matrices_by_muon(encoder: dict[str, Any]) -> None:
    model = Model(tiny_config(readout={"kind": "document", "outputs": 2}, **{**encoder, "positions": "relative"}))
    blocks = list(model.encoder.blocks)
    optim = OptimConfig(kind="muon", layer_decay=0.5, weight_decay=0.3)
    optimizers = make_optimizer(model, optim, depth=len(blocks))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    found: dict[str, tuple[type, float, float]] = {}
    for part in optimizers.parts:
        for group in part.param_groups:
            for parameter in group["params"]:
                assert names[id(parameter)] not in found
                found[names[id(parameter)]] = (type(part), group["weight_decay"], group["share"])
    assert set(found) == set(names.values())
    for number, block in enumerate(blocks):
        for parameter in block.parameters():
            owner, _, share = found[names[id(parameter)]]
            assert (owner is Muon) == (parameter.dim() == 2) and share == 0.5 ** (len(blocks) - number)
    inside = {id(parameter) for block in blocks for parameter in block.parameters()}
    for name, (owner, decay, share) in found.items():
        if id(dict(model.named_parameters())[name]) in inside:
            continue
        assert owner is not Muon
        assert not decay or "distance" not in name
        if name.startswith(("encoder.words.input_norm", "encoder.lead", "frontend")):
            assert share == 0.5 ** (len(blocks) + 1)
        if name.startswith("encoder.segments.output_norm"):
            assert share == 0.5


# -- use and training --------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp32", "bf16", "int8"])
@KINDS
def test_a_prepared_encoder_gives_its_vectors(
    encoder: dict[str, Any], precision: Literal["fp32", "bf16", "int8"]
) -> None:
    if not can_prepare(precision):
        pytest.skip(f"neither this build of PyTorch nor this processor has kernels for {precision}")
    model = tiny_model(**encoder)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    prepared = copy.deepcopy(model)
    prepared.frontend.to(prepare_for_use(prepared.encoder, precision))
    with torch.inference_mode():
        found, expected = prepared.encode(batch), model.encode(batch)
    assert found.summary is not None and expected.summary is not None
    for one, other in ((found, expected), (found.summary, expected.summary)):
        real = other.layout.document >= 0
        cosine = torch.nn.functional.cosine_similarity(one.vectors[real].float(), other.vectors[real])
        assert cosine.mean() > {"fp32": 0.99999, "bf16": 0.999, "int8": 0.98}[precision]


@KINDS
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_a_compiled_encoder_gives_the_same(encoder: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    model, twin = tiny_model(**encoder), tiny_model(**encoder)
    original = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, "compile", lambda self, **how: original(self, backend="eager", **how))
    Compilation(True, "").apply(model)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    torch.testing.assert_close(model.encode(batch).vectors, twin.encode(batch).vectors)


@KINDS
@pytest.mark.parametrize("objective", [{"kind": "masked"}, {"kind": "classify"}], ids=["masked", "classify"])
def test_it_learns(encoder: dict[str, Any], objective: dict[str, Any], tokenizer: Tokenizer) -> None:
    training = {"budget": "40 steps", "optim": {"kind": "muon", "lr": 3e-3}, "precision": "fp32"}
    fit = make_fit(tokenizer, training=training, objective=objective, encoder=encoder)
    losses: list[float] = []
    fit.on_step = lambda row: losses.append(row["loss"])
    fit.advance()
    assert np.mean(losses[-5:]) < 0.95 * np.mean(losses[:5])


RECIPE = """\
name: long
seed: 4
data: {{train: {train}, validation: {validation}, label: label}}
tokenizer: {{vocab_size: 150}}
encoder: {{kind: hierarchical, style: {style}, width: 32, depth: 2, heads: 2, segment: 32, max_length: 512}}
cache: {cache}
pretrain:
  training: {{budget: 20 steps, batch_tokens: 512, precision: fp32, validations: 1, optim: {{kind: muon}}}}
objective: {{kind: classify}}
training: {{budget: 150 steps, batch_tokens: 1024, precision: fp32, validations: 2, optim: {{lr: 3e-3}}}}
evaluation: {{compare: [majority, scratch], resamples: 100}}
"""


@pytest.mark.slow
@pytest.mark.parametrize("style", ["han", "hat"])
def test_long_documents_through_a_whole_recipe(style: str, tmp_path: Path) -> None:
    """Pretrained, fine-tuned and used: a word that decides may stand anywhere in some hundred tokens."""
    rng = random.Random(0)
    files: dict[str, Path] = {}
    rows: list[tuple[str, str]] = []
    for name, number in (("train", 160), ("validation", 60)):
        rows = []
        for _ in range(number):
            words = [rng.choice(PLAIN) for _ in range(rng.randint(60, 300))]
            label = rng.choice(["good", "plain"])
            for _ in range(8 if label == "good" else 0):
                words.insert(rng.randrange(len(words)), rng.choice(GOOD))
            if style == "hat":  # a sentence of 5 words, then of 6, ...
                words = [f"{word}." if number % 11 in (5, 10) else word for number, word in enumerate(words, start=1)]
            rows.append((" ".join(words), label))
        files[name] = tmp_path / f"{name}.jsonl"
        lines = [json.dumps({"text": text, "label": label}) for text, label in rows]
        files[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    recipe = tmp_path / "recipe.yaml"
    asked = f"{style}, segment_at: {'sentences' if style == 'hat' else 'tokens'}"
    recipe.write_text(RECIPE.format(**files, cache=tmp_path / "cache", style=asked), encoding="utf-8")
    trained = encodery.train(recipe, f"output={tmp_path / 'run'}")
    record = json.loads((trained.folder / "metrics.json").read_text(encoding="utf-8"))
    scores = {row["name"]: row["metric"]["value"] for row in record["comparison"]}
    assert scores["pretrained encoder"] > 0.9
    texts, labels = zip(*rows)
    given = [answer["label"] for answer in encodery.load(trained.folder).predict(texts)]
    assert np.mean(np.array(given) == labels) == pytest.approx(scores["pretrained encoder"])
    # Whichever way a document's vector is asked for, it is that of its segments.
    for folder in (trained.folder, trained.folder / "pretrained"):
        predictor = encodery.load(folder)
        (vector,) = predictor.embed(texts[:1], normalise=False)
        batch, _ = next(predictor.loader(predictor._store(texts[:1], 0)[1]).epoch(Place()))
        with torch.inference_mode():
            summary = predictor.model.encode(batch).summary
        assert summary is not None and summary.layout.documents == 1
        torch.testing.assert_close(torch.from_numpy(vector), Pooling("mean", 0)(summary)[0])
