"""Draws the pictures of docs/encoder from the code itself, into docs/images/encoder, the same ones every time.

python docs/pictures.py [NAME ...]     all of them, or some; a minute in all, since three small encoders are trained
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import matplotlib
import numpy as np
import torch
from matplotlib.colors import BoundaryNorm, ListedColormap
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples"))

from real_text import RealText  # noqa: E402

from encodery.batch import Batch, States, layout_of  # noqa: E402
from encodery.bricks.layers import ACTIVATIONS, initialise  # noqa: E402
from encodery.bricks.positions import GridPositions, RandomPositions, Rotary, rotate, sinusoidal_table  # noqa: E402
from encodery.bricks.relative import Alibi, deberta_bucket, t5_bucket  # noqa: E402
from encodery.encoders.hierarchical import make_hierarchical  # noqa: E402
from encodery.encoders.hierarchical_options import HierarchicalConfig  # noqa: E402
from encodery.encoders.options import TransformerConfig  # noqa: E402
from encodery.encoders.patterns import Pattern, allowed_pairs  # noqa: E402
from encodery.encoders.recurrent import Reading, Recurrent, RecurrentConfig  # noqa: E402
from encodery.encoders.transformer import Transformer  # noqa: E402
from encodery.encoders.visible_tree import visible_pairs  # noqa: E402
from encodery.encoders.watch import Watch  # noqa: E402
from encodery.frontends.text import TextConfig  # noqa: E402
from encodery.model import Model, ModelConfig  # noqa: E402
from encodery.training.optim import OptimConfig, make_optimizer  # noqa: E402

FOLDER = ROOT / "docs" / "images" / "encoder"
SENTENCE = "If the list is empty, the function returns the value of the first argument."
BLUE, ORANGE, GREEN, RED, VIOLET, GREY = "#2f6fb0", "#d9822b", "#3f9457", "#c0504d", "#7d5ba6", "#b8b8b8"
COLOURS = [BLUE, ORANGE, GREEN, RED, VIOLET]
SHARES = "Blues"
MAY_LOOK = ListedColormap(["#eeeeee", BLUE])
STYLE = {
    "figure.facecolor": "white",
    "axes.facecolor": "white",
    "font.family": "DejaVu Sans",
    "font.size": 9.5,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "lines.linewidth": 1.8,
}


# -- positions -------------------------------------------------------------------------------------


def position_tables() -> Figure:
    """How alike the vectors of two positions are, for every kind of table."""
    zeros = torch.zeros(64, 128)
    place = torch.arange(64)
    grid = GridPositions(8, 128)(zeros, torch.stack([place // 8, place % 8], dim=1))
    tables = {
        "sinusoidal": sinusoidal_table(64, 128),
        "learned, after 300 steps": trained(300, positions="learned").model.encoder.positions.table.weight[:64],
        "random": RandomPositions(64, 128)(zeros, place),
        "grid: 8 rows of 8 places": grid,
    }
    figure = Figure(figsize=(7, 6.4), layout="constrained")
    axes = figure.subplots(2, 2).flatten()
    for axis, (title, table) in zip(axes, tables.items()):
        unit = torch.nn.functional.normalize(table.detach() - table.detach().mean(0), dim=1)
        shown = axis.imshow((unit @ unit.T).numpy(), cmap="RdBu_r", vmin=-1, vmax=1)
        axis.set(title=title, xlabel="position", ylabel="position", xticks=range(0, 64, 16), yticks=range(0, 64, 16))
    figure.colorbar(shown, ax=axes, label="cosine of the two vectors, their mean taken off", shrink=0.6)
    return figure


def positions_by_distance() -> Figure:
    """What the distance does to a score: rotary, ALiBi, and the buckets of T5 and DeBERTa."""
    figure = Figure(figsize=(7, 5.4), layout="constrained")
    (turned, falling), (t5, deberta) = figure.subplots(2, 2)
    place = torch.arange(513)
    for base, colour in zip((1e4, 1e6), COLOURS):
        angles = Rotary(513, 64, base).angles(place, torch.float32)
        same = rotate(torch.ones(513, 1, 64) / 8, *angles)[:, 0]
        turned.plot(place, same @ same[0], color=colour, label=f"base {base:,.0f}", linewidth=1.3)
    turned.set(title="rotary: a vector with itself", xlabel="distance", ylabel="product")
    turned.legend()
    far = torch.arange(-64, 65)
    for number, (line, colour) in enumerate(zip(Alibi(4)(far), COLOURS)):
        falling.plot(far, line, color=colour)
        end = max(float(line[-1]), -7.2)
        beside = 66 if end > -7 else -7.0 / float(line[-1]) * -64 + 4
        falling.text(beside, end, f"head {number + 1}", color=colour, va="center")
    falling.set(
        title="alibi, 4 heads",
        xlabel="distance (key - query)",
        ylabel="added to the score",
        ylim=(-8, 0.4),
        xlim=(-66, 100),
    )
    falling.set_xticks([-50, 0, 50])
    far = torch.arange(-200, 201)
    t5.step(far, t5_bucket(far, 32, 128), color=BLUE, where="mid")
    t5.set(title="relative (T5): 32 buckets, reach 128", xlabel="distance (key - query)", ylabel="bucket")
    deberta.step(far, deberta_bucket(far, 32, 128), color=BLUE, where="mid")
    deberta.set(title="disentangled: 32 buckets, reach 128", xlabel="distance (query - key)", ylabel="bucket")
    return figure


# -- attention -------------------------------------------------------------------------------------


def attention_maps() -> Figure:
    """Where the heads of a small encoder look that has learned for half a minute."""
    learned = trained(400)
    watch, tokens = watched(learned, SENTENCE)
    figure = Figure(figsize=(7, 6.6), layout="constrained")
    axes = figure.subplots(2, 2)
    for row, block in zip(axes, (0, 1)):
        for axis, head in zip(row, CHOSEN_HEADS[block]):
            shown = axis.imshow(watch.weights[block][0][head].numpy(), cmap=SHARES, vmin=0, vmax=1)
            axis.set_xticks(range(len(tokens)), tokens, rotation=90, fontsize=8)
            axis.set_yticks(range(len(tokens)), tokens, fontsize=8)
            axis.set(title=f"block {block + 1}, head {head + 1}")
        row[0].set_ylabel("who looks (query)")
    for axis in axes[1]:
        axis.set_xlabel("at whom (key)")
    figure.colorbar(shown, ax=axes, label="attention weight", shrink=0.5)
    return figure


CHOSEN_HEADS = {0: (0, 2), 1: (0, 2)}


def packed_batch() -> Figure:
    """Real paragraphs packed into rows, and who may look at whom in one of the rows."""
    layouts = [batch.layout for batch in reference().batches(40)]
    # One that shows much: many paragraphs, and some padding.
    layout = max((one for one in layouts if one.positions - one.real_tokens > 50), key=lambda one: one.documents)
    figure = Figure(figsize=(7, 4.9), layout="constrained")
    top, bottom = figure.subfigures(2, 1, height_ratios=[1, 1.15])
    axis = top.subplots()
    for row in range(layout.rows):
        axis.add_patch(Rectangle((0, row - 0.4), layout.length, 0.8, facecolor="#dddddd", edgecolor="white"))
    for number, (start, length) in enumerate(zip(layout.starts.tolist(), layout.lengths.tolist())):
        row, place = divmod(start, layout.length)
        colour = COLOURS[number % len(COLOURS)]
        axis.add_patch(Rectangle((place, row - 0.4), length, 0.8, facecolor=colour, edgecolor="white"))
        if length > 6:
            axis.text(place + length / 2, row, str(length), color="white", ha="center", va="center", fontsize=8.5)
    share = 1 - layout.real_tokens / layout.positions
    axis.set(
        xlim=(0, layout.length),
        ylim=(layout.rows - 0.5, -0.5),
        yticks=range(layout.rows),
        xlabel="position in the row",
        ylabel="row",
        title=f"{layout.documents} paragraphs in {layout.rows} rows of {layout.length}, {share:.1%} padding (grey)",
    )
    padded = (layout.document < 0).view(layout.rows, -1).sum(1)
    shown = int(padded.argmax())
    for axis, (title, pattern) in zip(
        bottom.subplots(1, 3),
        {"full": Pattern("full"), "causal": Pattern("causal"), "window of 8": Pattern("window", radius=8)}.items(),
    ):
        axis.imshow(allowed_pairs(layout, pattern)[shown].numpy(), cmap=MAY_LOOK, vmin=0, vmax=1)
        axis.set(title=f"{title}, row {shown}", xlabel="key", xticks=[0, layout.length], yticks=[0, layout.length])
        axis.set_ylabel("query", labelpad=-12)
    return figure


# -- patterns --------------------------------------------------------------------------------------

PATTERNS = {
    "full": Pattern("full"),
    "causal": Pattern("causal"),
    "window of 3": Pattern("window", radius=3),
    "dilated:\n3 steps of 2": Pattern("dilated", radius=3, dilation=2),
    "block of 8": Pattern("block", block=8),
    "random: window of 3,\n1 block of 8": Pattern("random", radius=3, block=8, random_blocks=1),
    "window of 3,\n1 global token": Pattern("window", radius=3, global_tokens=1),
    "window of 3,\nevery 3rd layer full": Pattern("window", radius=3),
}


def seen_after(layers: int, pattern: Pattern, length: int, full_every: int = 0) -> torch.Tensor:
    """Which tokens (keys) a token (query) has heard of after so many layers: (T, T) bool."""
    layout = layout_of([[length]], length)
    reached = torch.eye(length)
    for layer in range(layers):
        # The first of every `full_every` blocks looks at all, as in ModernBERT; here it is drawn last, to be seen.
        full = full_every and (layer + 1) % full_every == 0
        one = allowed_pairs(layout, Pattern("full") if full else pattern)[0].float()
        reached = (one @ reached).clamp_max(1)
    return reached > 0


def receptive_fields() -> Figure:
    """After how many layers a token has heard of another one, for every pattern."""
    figure = Figure(figsize=(7, 4.7), layout="constrained")
    colours = ["#08306b", "#2f6fb0", "#7fb2dc", "#cfe1f2", "#f3f3f3"]
    for axis, (title, pattern) in zip(figure.subplots(2, 4).flatten(), PATTERNS.items()):
        layers = torch.full((48, 48), 5)
        for number in (4, 3, 2, 1):
            layers[seen_after(number, pattern, 48, 3 if "every" in title else 0)] = number
        axis.imshow(layers.numpy(), cmap=ListedColormap(colours), norm=BoundaryNorm(range(1, 7), 5))
        axis.set_title(title, fontsize=9)
        axis.set(xticks=[0, 24, 47], yticks=[0, 24, 47])
        axis.spines[:].set_visible(False)
    for axis in figure.axes[4:]:
        axis.set_xlabel("key")
    for axis in (figure.axes[0], figure.axes[4]):
        axis.set_ylabel("query")
    names = ["1 layer", "2 layers", "3 layers", "4 layers", "not yet"]
    handles = [Patch(facecolor=colour, edgecolor="#999999", label=name) for colour, name in zip(colours, names)]
    figure.legend(handles=handles, loc="outside lower center", ncols=5)
    return figure


def reach_through_depth() -> Figure:
    """How many tokens the middle one of 512 has heard of, layer by layer."""
    figure = Figure(figsize=(7, 3.3), layout="constrained")
    axis = figure.subplots()
    patterns = {
        "full": (Pattern("full"), 0),
        "window of 16, every 3rd layer full": (Pattern("window", radius=16), 3),
        "window of 16, 1 global token": (Pattern("window", radius=16, global_tokens=1), 0),
        "random: window of 16, 2 blocks of 16": (Pattern("random", radius=16, block=16, random_blocks=2), 0),
        "window of 16": (Pattern("window", radius=16), 0),
        "dilated: 16 steps of 4": (Pattern("dilated", radius=16, dilation=4), 0),
        "block of 32": (Pattern("block", block=32), 0),
    }
    for (label, (pattern, full_every)), colour in zip(patterns.items(), [*COLOURS[:4], "#222222", VIOLET, GREY]):
        heard = [int(seen_after(layers, pattern, 512, full_every)[256].sum()) for layers in range(9)]
        dashes = "--" if "dilated" in label else "-"
        axis.plot(range(9), heard, dashes, marker="o", markersize=4, label=label, color=colour)
    axis.set(xlabel="layers", ylabel="tokens heard of", xticks=range(9), ylim=(0, 530))
    axis.legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return figure


def hierarchical_reach() -> Figure:
    """Which tokens a token has heard of in a hierarchical encoder, step by step."""
    figure = Figure(figsize=(7, 2.8), layout="constrained")
    # Blocks over words, and which of the vectors that are kept to look at: words, segments, words again.
    steps = {"a block over words": (1, 1), "then one over segments": (1, None), "then one over words": (2, 3)}
    for axis, (title, (depth, kept)) in zip(figure.subplots(1, 3), steps.items()):
        config = HierarchicalConfig(width=32, heads=2, depth=depth, cross_every=1, segment=12, max_length=48)
        encoder = make_hierarchical(config).eval()
        initialise(encoder, std=0.15, depth=1, generator=torch.Generator().manual_seed(1))
        straight = torch.randn(48, 32, generator=torch.Generator().manual_seed(2))
        # Of 48 copies each has another token changed: who moves has heard of it.
        copies = straight.repeat(48, 1, 1)
        copies[torch.arange(48), torch.arange(48)] *= -1
        found = []
        for vectors in (straight[None], copies):
            watch, layout = Watch(), layout_of([[48]] * len(vectors), 48)
            with torch.no_grad():
                after = encoder(States(vectors.flatten(0, 1), layout), watch=watch).vectors
            found.append((after if kept is None else watch.hidden[kept]).view(-1, 48, 32))
        heard = ((found[1] - found[0]).abs().amax(2) > 0).T
        axis.imshow(heard.numpy(), cmap=MAY_LOOK, vmin=0, vmax=1)
        axis.set(title=title, xlabel="key", xticks=range(0, 48, 12), yticks=range(0, 48, 12))
    figure.axes[0].set_ylabel("query")
    return figure


def visible_tree() -> Figure:
    """Who sees whom where two triples are written behind a text."""
    words = "Tim Cook visits Beijing now | CEO of Apple | capital of China".replace(" | ", " ").split()
    tree = {
        "position": [0, 1, 2, 3, 4, 2, 3, 4, 4, 5, 6],
        "branch": [0, 0, 0, 0, 0, 1, 1, 1, 2, 2, 2],
        "mention": [1, 1, 0, 2, 0, 1, 1, 1, 2, 2, 2],
    }
    layout = replace(layout_of([[11]], 11), **{name: torch.tensor(numbers) for name, numbers in tree.items()})
    figure = Figure(figsize=(5.2, 4.6), layout="constrained")
    axis = figure.subplots()
    axis.imshow(visible_pairs(layout)[0].numpy(), cmap=MAY_LOOK, vmin=0, vmax=1)
    labels = [f"{word} ({place})" for word, place in zip(words, tree["position"])]
    axis.set_xticks(range(11), words, rotation=90)
    axis.set_yticks(range(11), labels)
    for place in (4.5, 7.5):
        axis.axhline(place, color="white", linewidth=2)
        axis.axvline(place, color="white", linewidth=2)
    axis.set(xlabel="is seen (key)", ylabel="sees (query, with its soft position)")
    return figure


# -- feed-forward, norms, recurrence ----------------------------------------------------------------


def activations() -> Figure:
    """The activation functions and their slopes."""
    figure = Figure(figsize=(7, 2.9), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, colour in zip(("relu", "gelu", "silu"), COLOURS):
        x = torch.linspace(-4, 4, 401, requires_grad=True)
        y = ACTIVATIONS[name](x)
        (slope,) = torch.autograd.grad(y.sum(), x)
        left.plot(x.detach(), y.detach(), color=colour, label=name)
        right.plot(x.detach(), slope, color=colour, label=name)
    left.set(title="value", xlabel="what comes in", ylabel="what goes out", ylim=(-0.6, 3))
    right.set(title="slope", xlabel="what comes in", ylabel="change of it", ylim=(-0.3, 1.3))
    left.legend()
    return figure


def norms_through_depth() -> Figure:
    """The length of the vectors and of the gradients in 24 fresh blocks, for every place of the norm."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    lengths, gradients = figure.subplots(1, 2)
    for place, colour in zip(("pre", "post", "both"), COLOURS):
        found = np.mean([_lengths_and_gradients(place, seed) for seed in range(8)], axis=0)
        lengths.plot(range(25), found[0], color=colour, label=place)
        gradients.plot(range(1, 25), found[1, 1:], color=colour, label=place)
    lengths.set(title="length of the vectors", xlabel="after block", ylabel="mean L2 norm", ylim=0)
    gradients.set(title="gradient of the feed-forward matrix", xlabel="block", ylabel="L2 norm", ylim=0)
    lengths.legend(title="norm_place")
    return figure


def _lengths_and_gradients(place: Literal["pre", "post", "both"], seed: int) -> np.ndarray:
    """After the embeddings and after each of 24 blocks: the mean length of the vectors, and of the gradient (0 for the
    embeddings)."""
    config = TransformerConfig(width=64, heads=4, depth=24, norm_place=place, positions="none", drop_rate=0.0)
    encoder, generator = Transformer(config), torch.Generator().manual_seed(seed)
    encoder.initialise(generator)
    for parameter in encoder.parameters():
        if parameter.dim() == 2:
            torch.nn.init.xavier_normal_(parameter, generator=generator)
    watch, layout = Watch(), layout_of([[32]] * 8, 32)
    vectors, wanted = torch.randn(2, 256, 64, generator=generator)
    (encoder(States(vectors, layout), watch=watch).vectors * wanted).sum().backward()
    sizes = [0.0, *(float(block.mlp.outer.weight.grad.norm()) for block in encoder.blocks)]
    return np.array([[float(hidden.norm(dim=1).mean()) for hidden in watch.hidden], sizes])


def recurrent_memory() -> Figure:
    """How much a state still depends on a token that was read some steps ago, before any training."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axis = figure.subplots()
    for cell, colour in zip(("rnn", "gru", "lstm"), COLOURS):
        config = RecurrentConfig(cell=cell, width=64, depth=1, directions="forward", residual=False, drop_rate=0.0)
        encoder = Recurrent(config)
        generator = torch.Generator().manual_seed(1)
        encoder.initialise(generator)
        vectors = torch.randn(8 * 64, 64, generator=generator, requires_grad=True)
        layout = layout_of([[64]] * 8, 64)
        last = encoder.blocks[0](encoder.input_norm(vectors), Reading(layout)).view(8, 64, 64)[:, -1]
        (slope,) = torch.autograd.grad((last * torch.randn(8, 64, generator=generator)).sum(), vectors)
        size = slope.view(8, 64, 64).norm(dim=2).mean(0).flip(0)
        axis.plot(range(64), size / size[0], color=colour, label=cell)
    axis.set(xlabel="tokens ago", ylabel="influence, the last token = 1", yscale="log", xlim=(0, 63))
    axis.legend()
    return figure


# -- learning --------------------------------------------------------------------------------------


def loss_while_learning() -> Figure:
    """The loss of hidden words, from embeddings out of counts and from random ones."""
    figure = Figure(figsize=(7, 3.3), layout="constrained")
    axis = figure.subplots()
    for label, counts, colour in (("random embeddings", False, ORANGE), ("embeddings from counts", True, BLUE)):
        losses = trained(400, counts=counts).losses
        smooth = np.convolve(losses, np.ones(15) / 15, mode="valid")
        axis.plot(np.arange(len(smooth)) + 8, smooth, color=colour, label=label)
    axis.axhline(reference().entropy(), color="#555555", linestyle="--", linewidth=1.2)
    axis.text(400, reference().entropy() + 0.06, "token entropy", ha="right", color="#555555")
    axis.set(xlabel="step", ylabel="nats a hidden token", xlim=(0, 400))
    axis.legend(loc="lower left")
    return figure


def sizes_by_token() -> Figure:
    """How long the vectors are that attention and feed-forward add, token by token, in a trained encoder."""
    learned = trained(400)
    watch, tokens = watched(learned, SENTENCE)
    figure = Figure(figsize=(7, 4.2), layout="constrained")
    axes = figure.subplots(2, 1, sharex=True)
    place = np.arange(len(tokens))
    for number, (axis, sizes) in enumerate(zip(axes, watch.sizes)):
        axis.bar(place - 0.3, watch.hidden[number].norm(dim=1), 0.28, color=GREY, label="what comes in")
        axis.bar(place, sizes["attention"], 0.28, color=BLUE, label="attention adds")
        axis.bar(place + 0.3, sizes["feed_forward"], 0.28, color=ORANGE, label="feed-forward adds")
        axis.set(ylabel="L2 norm", title=f"block {number + 1}")
    axes[1].set_xticks(place, tokens, rotation=90)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return figure


# -- the encoders that learn for the pictures ---------------------------------------------------------


@dataclass
class Learned:
    model: Model
    losses: list[float]


@cache
def reference() -> RealText:
    return RealText(vocab_size=1000, max_length=128, batch_tokens=1024)


@cache
def trained(steps: int, counts: bool = True, **options: Any) -> Learned:
    """A small encoder that has guessed hidden words of the Python reference for so many steps."""
    text = reference()
    encoder = TransformerConfig(width=128, depth=2, heads=4, max_length=128, drop_rate=0.0, **options)
    model = Model(ModelConfig(frontend=TextConfig(vocab_size=1000), encoder=encoder)).initialise(1)
    words, bias = model.frontend.words.weight, model.readout.bias
    text.start(words if counts else torch.empty_like(words), bias)
    optim = OptimConfig(kind="muon", lr=3e-3, muon_lr=0.02, weight_decay=0.3)
    optimizers = make_optimizer(model, optim, depth=2)
    losses = []
    for step, batch in enumerate(text.batches(steps)):
        loss = text.objective.loss(model(batch), batch)
        loss.total.backward()
        optimizers.step(step / steps, scale=1 / float(loss.count))
        losses.append(float(loss.total.detach()) / float(loss.count))
    return Learned(model.eval(), losses)


def watched(learned: Learned, sentence: str) -> tuple[Watch, list[str]]:
    """What the encoder thought about a sentence, and its tokens."""
    tokenizer = reference().tokenizer
    ids = [tokenizer.cls_id, *tokenizer.encode_batch([sentence])[0].ids.tolist(), tokenizer.sep_id]
    values = {"ids": torch.tensor(ids), "segment": torch.zeros(len(ids), dtype=torch.int64)}
    watch = Watch()
    with torch.no_grad():
        learned.model.encode(Batch(values, layout_of([[len(ids)]], len(ids))), watch)
    return watch, tokenizer.tokens(ids)


# -- files -----------------------------------------------------------------------------------------

DRAWN: list[Callable[[], Figure]] = [
    position_tables,
    positions_by_distance,
    attention_maps,
    packed_batch,
    receptive_fields,
    reach_through_depth,
    activations,
    norms_through_depth,
    recurrent_memory,
    hierarchical_reach,
    visible_tree,
    loss_while_learning,
    sizes_by_token,
]
TRAINED = {"position_tables", "attention_maps", "loss_while_learning", "sizes_by_token"}
"""Pictures that need an encoder to learn first."""


def draw(name: str, folder: Path) -> Path:
    """Draw one picture into a folder, in few colours so that the file is small."""
    torch.set_num_threads(1)
    with matplotlib.rc_context(STYLE):
        figure = next(one for one in DRAWN if one.__name__ == name)()
        made = io.BytesIO()
        figure.savefig(made, dpi=150)
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{name}.png"
    Image.open(made).convert("RGB").quantize(192, dither=Image.Dither.NONE).save(file, optimize=True)
    return file


if __name__ == "__main__":
    for name in sys.argv[1:] or [one.__name__ for one in DRAWN]:
        print(draw(name, FOLDER).relative_to(ROOT))
