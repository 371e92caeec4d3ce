"""ViT: the hidden states of transformers for pictures alone and packed, and the way back bit by bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_cases import transformers

from encodery.encoders.options import TransformerConfig
from encodery.errors import DataError, WeightsError
from encodery.frontends.options import VisionConfig
from encodery.frontends.vision import batch_of_pictures, cut_in_patches
from encodery.interop.huggingface import read_huggingface
from encodery.interop.huggingface.vision import TrainedVision, read_vision, write_vision
from encodery.model import VisionModel, VisionModelConfig

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

SMALL = {"hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 48}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("ViTModel", {"image_size": 24, "patch_size": 8}),
    ("ViTForImageClassification", {"image_size": [16, 24], "patch_size": 4, "num_channels": 1, "qkv_bias": False}),
    ("ViTModel", {"image_size": 12, "patch_size": 4, "hidden_act": "gelu_new", "layer_norm_eps": 1e-6}),
]


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{case[1]['image_size']}")
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    kind, changes = request.param
    model = getattr(transformers, kind)(transformers.ViTConfig(**{**SMALL, **changes})).eval()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    model.save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def pictures(config: VisionConfig, number: int = 5) -> torch.Tensor:
    shape = (number, config.channels, config.height, config.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def their_states(folder: Path, pixels: torch.Tensor) -> torch.Tensor:
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="eager").eval()
    with torch.no_grad():
        return model(pixel_values=pixels).last_hidden_state


@pytest.mark.parametrize("together", [1, 2, 5])
def test_hidden_states_are_theirs_alone_and_packed(folder: Path, together: int) -> None:
    trained = read_vision(folder)
    pixels = pictures(trained.model.config.frontend)
    theirs = their_states(folder, pixels)
    batch = batch_of_pictures(pixels, trained.model.config.frontend, together=together)
    with torch.no_grad():
        states = trained.model.encode(batch)
        vectors = trained.model(batch).vectors
    layout = states.layout
    assert layout.documents == 5 and layout.rows == -(-5 // together)
    for number, (start, size) in enumerate(zip(layout.starts.tolist(), layout.lengths.tolist())):
        torch.testing.assert_close(states.vectors[start : start + size], theirs[number], atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors, theirs[:, 0], atol=1e-5, rtol=0)


def test_there_and_back_is_the_same_bits(folder: Path, tmp_path: Path) -> None:
    (folder / "preprocessor_config.json").write_text(json.dumps({"image_mean": [0.1], "do_resize": True}))
    trained = read_vision(folder)
    assert write_vision(trained, tmp_path / "ours") == "vit"
    again = read_vision(tmp_path / "ours")
    assert again.model.config == trained.model.config
    assert again.preprocessing == {"image_mean": [0.1], "do_resize": True}
    for name, value in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    pixels = pictures(trained.model.config.frontend)
    torch.testing.assert_close(their_states(tmp_path / "ours", pixels), their_states(folder, pixels), atol=1e-6, rtol=0)
    with pytest.raises(WeightsError, match="is there already"):
        write_vision(trained, tmp_path / "ours")


def test_a_model_of_our_own_is_written_when_vit_can_express_it(tmp_path: Path) -> None:
    frontend = VisionConfig(height=8, width=12, patch=4, channels=2)
    encoder = {"width": 32, "depth": 2, "heads": 4, "positions": "learned", "input_norm": False, "max_length": 7}
    encoder["qk_norm"] = False

    def made(**changes: Any) -> TrainedVision:
        own = TransformerConfig.model_validate({**encoder, **changes})
        return TrainedVision(VisionModel(VisionModelConfig(frontend=frontend, encoder=own)).initialise(3).eval())

    trained = made()
    write_vision(trained, tmp_path / "vit")
    pixels = pictures(frontend)
    with torch.no_grad():
        ours = trained.model.encode(batch_of_pictures(pixels, frontend)).vectors.view(5, 7, 32)
    torch.testing.assert_close(their_states(tmp_path / "vit", pixels), ours, atol=1e-5, rtol=0)
    assert json.loads((tmp_path / "vit" / "preprocessor_config.json").read_text())["size"] == {"height": 8, "width": 12}
    with pytest.raises(WeightsError, match=r"encoder\.norm_place: post, vit has pre"):
        write_vision(made(norm_place="post"), tmp_path / "other")


def test_patches_are_those_of_a_convolution() -> None:
    pixels = pictures(VisionConfig(height=6, width=9, patch=3))
    kernel = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(3))
    wanted = torch.nn.functional.conv2d(pixels, kernel, stride=3).flatten(2).transpose(1, 2)
    torch.testing.assert_close(cut_in_patches(pixels, 3) @ kernel.flatten(1).T, wanted)
    batch = batch_of_pictures(pixels, VisionConfig(height=6, width=9, patch=3))
    assert batch.layout.grid is not None
    assert batch.layout.grid[:7].tolist() == [[0, 0], [1, 1], [1, 2], [1, 3], [2, 1], [2, 2], [2, 3]]


def test_wrong_pictures_and_folders_are_refused(folder: Path) -> None:
    config = read_vision(folder).model.config.frontend
    with pytest.raises(DataError, match=r"pictures of shape"):
        batch_of_pictures(pictures(config)[:, :, :-1], config)
    with pytest.raises(ValueError, match="multiples of patch 5"):
        VisionConfig(height=10, width=12, patch=5)
    with pytest.raises(WeightsError, match=r"'vit' is a model of pictures[\s\S]*read_vision"):
        read_huggingface(folder)
    said = json.loads((folder / "config.json").read_text())
    for changes, message in (
        ({"patch_size": [4, 8]}, "4 by 8"),
        ({"hidden_act": "quick_gelu"}, "quick_gelu"),
        ({"intermediate_size": 64}, r"\[64, 32\], the file \[48, 32\]"),
        ({"model_type": "bert"}, "a model of pictures: vit"),
    ):
        (folder / "config.json").write_text(json.dumps({**said, **changes}))
        with pytest.raises(WeightsError, match=message):
            read_vision(folder)


def test_every_weight_of_a_vision_model_learns() -> None:
    config = VisionConfig(height=8, width=8, patch=4)
    encoder = TransformerConfig(width=32, depth=2, heads=4, positions="learned", input_norm=False, max_length=5)
    model = VisionModel(VisionModelConfig(frontend=config, encoder=encoder)).initialise(0)
    vectors = model(batch_of_pictures(pictures(config), config, together=2)).vectors
    weights = torch.randn(vectors.shape, generator=torch.Generator().manual_seed(4))
    (vectors * weights).sum().backward()
    assert not [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert not [name for name, value in model.named_parameters() if float(value.grad.abs().max()) == 0]
