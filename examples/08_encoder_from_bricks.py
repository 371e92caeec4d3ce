"""Build an encoder from the bricks and train it for some seconds on hidden words of real text: docs/encoder."""

from __future__ import annotations

import torch
from real_text import RealText
from torch import Tensor, nn

from encodery.batch import Batch, States
from encodery.bricks.layers import FeedForward, initialise, make_norm
from encodery.bricks.positions import Rotary
from encodery.encoders.attention import Attention, Pass
from encodery.encoders.options import TransformerConfig
from encodery.encoders.patterns import Pattern
from encodery.frontends.text import TextConfig, TextFrontend
from encodery.heads.readouts import WordReadout, WordReadoutConfig
from encodery.objectives.masked import Loss
from encodery.training.optim import OptimConfig, make_optimizer

V, D, STEPS = 1000, 128, 200


class Block(nn.Module):
    """Tokens look at each other, then each is worked on alone; both changes are added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.attention_norm, self.attention = make_norm("layernorm", D), Attention(TransformerConfig(width=D, heads=2))
        self.mlp_norm, self.mlp = make_norm("layernorm", D), FeedForward(D, 4 * D, activation="gelu")

    def forward(self, x_PD: Tensor, run: Pass) -> Tensor:
        x_PD = x_PD + self.attention(self.attention_norm(x_PD), run, Pattern("full"))
        return x_PD + self.mlp(self.mlp_norm(x_PD))


encoder = nn.ModuleDict({"blocks": nn.ModuleList([Block(), Block()]), "norm": make_norm("layernorm", D)})
rotary = Rotary(128, D // 2)
frontend = TextFrontend(TextConfig(vocab_size=V), D)
readout = WordReadout(WordReadoutConfig(), D, frontend)
model = nn.ModuleDict({"frontend": frontend, "encoder": encoder, "readout": readout})


def loss_of(batch: Batch) -> Loss:
    x_PD, layout, at = frontend(batch).vectors, batch.layout, batch.truth["at"]
    run = Pass(layout, layout.document >= 0, rotary.angles(layout.position, x_PD.dtype))
    for block in encoder["blocks"]:
        x_PD = block(x_PD, run)
    return text.objective.loss(readout(States(encoder["norm"](x_PD)[at], layout), batch), batch)


text = RealText(vocab_size=V, max_length=128, batch_tokens=1024)
initialise(model, std=0.02, depth=2, generator=torch.Generator().manual_seed(1))
text.start(frontend.words.weight, readout.bias)  # from counts, in a second: which tokens are alike, and how frequent
optimizers = make_optimizer(model, OptimConfig(kind="muon", lr=3e-3, muon_lr=0.02, weight_decay=0.3), depth=2)
for step, batch in enumerate(text.batches(STEPS)):
    loss = loss_of(batch)
    loss.total.backward()
    optimizers.step(step / STEPS, scale=1 / float(loss.count))
print(f"guessing by frequency costs {text.entropy():.2f} nats a token, this encoder {text.loss(loss_of):.2f}")
