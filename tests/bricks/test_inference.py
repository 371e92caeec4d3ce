"""Layers prepared for use give what they were prepared from, as closely as their numbers allow."""

from __future__ import annotations

import copy

import pytest
import torch

from conftest import batch_of, documents_of, tiny_model
from encodery.bricks.inference import Int8Linear, PackedLinear, can_prepare, prepare_for_use
from encodery.bricks.products import Linear

pytestmark = pytest.mark.skipif(not can_prepare("int8"), reason="this build of PyTorch has no oneDNN")
WITHOUT_BF16 = pytest.mark.skipif(not can_prepare("bf16"), reason="this processor has no kernel for bf16")
BF16 = pytest.param("bf16", marks=WITHOUT_BF16)


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("fp32", 1e-5), pytest.param("bf16", 2e-2, marks=WITHOUT_BF16), ("int8", 4e-2)]
)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("after", ["none", "gelu"])
def test_a_prepared_layer_is_the_layer(kind: str, tolerance: float, bias: bool, after: str) -> None:
    torch.manual_seed(0)
    layer, x = Linear(64, 48, bias=bias), torch.randn(10, 64) * 3 + 1
    expected = layer(x) if after == "none" else torch.nn.functional.gelu(layer(x))
    if kind == "int8":
        prepared = Int8Linear(layer, torch.float32, after)
    else:
        prepared = PackedLinear(layer, torch.float32 if kind == "fp32" else torch.bfloat16, after)
    with torch.inference_mode():
        found = prepared(x).float()
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def test_int8_rounds_every_number_to_its_nearest_step() -> None:
    """With the identity as weights what comes out is what came in, within half a step of the input and one of 127."""
    layer = Linear(64, 64, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(64))
    x = torch.linspace(-1, 3, 64)[None]
    with torch.inference_mode():
        found = Int8Linear(layer, torch.float32, "none")(x)
    assert (found - x).abs().max() <= 4 / 254 / 2 * 1.01
    assert torch.equal(found.sort(dim=1).values, found)


@pytest.mark.parametrize("value", [0.0, 5.0, -5.0])
def test_int8_takes_numbers_that_are_all_the_same(value: float) -> None:
    layer = Linear(16, 8)
    x = torch.full((3, 16), value)
    with torch.inference_mode():
        found = Int8Linear(layer, torch.float32, "none")(x)
    torch.testing.assert_close(found, layer(x).detach(), atol=5e-2, rtol=5e-2)


@pytest.mark.parametrize("precision", ["fp32", BF16, "int8"])
@pytest.mark.parametrize("activation", ["gelu", "silu", "geglu"])
@pytest.mark.parametrize("place", ["pre", "post"])
def test_a_prepared_encoder_gives_its_vectors(precision: str, activation: str, place: str) -> None:
    model = tiny_model(activation=activation, norm_place=place)
    batch = batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    prepared = copy.deepcopy(model)
    prepared.frontend.to(prepare_for_use(prepared.encoder, precision))  # type: ignore[arg-type]
    assert not any(isinstance(part, Linear) for part in prepared.encoder.modules())
    with torch.inference_mode():
        real = batch.layout.document >= 0
        found, expected = prepared.encode(batch).vectors[real].float(), model.encode(batch).vectors[real]
    cosine = torch.nn.functional.cosine_similarity(found, expected).numpy()
    assert cosine.mean() > {"fp32": 0.999999, "bf16": 0.999, "int8": 0.98}[precision], cosine
    assert cosine.min() > {"fp32": 0.999999, "bf16": 0.99, "int8": 0.85}[precision], cosine
