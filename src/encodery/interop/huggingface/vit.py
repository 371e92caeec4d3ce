"""The table of the Hugging Face family ViT: pictures in square patches (Dosovitskiy et al. 2021)."""

from __future__ import annotations

from encodery.errors import WeightsError
from encodery.interop.huggingface.lines import ACTIVATION, PRE_NORM, SIZES, without
from encodery.interop.huggingface.meaning import Flat
from encodery.interop.huggingface.tables import Computed, Family, Ids, Row, Shape, Size, Sizes, linear, taken, weight


def _pair(sizes: Sizes, name: str, default: int) -> tuple[int, int]:
    value = taken(sizes, name, default)
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return int(height), int(width)


def _picture(sizes: Sizes) -> Flat:
    height, width = _pair(sizes, "image_size", 224)
    patch, across = _pair(sizes, "patch_size", 16)
    if patch != across:
        raise WeightsError(f"patch_size of config.json is {patch} by {across}", expected="square patches")
    return {
        "frontend.height": height,
        "frontend.width": width,
        "frontend.patch": patch,
        "encoder.max_length": 1 + (height // patch) * (width // patch),
    }


def _picture_written(flat: Flat, ids: Ids) -> Sizes:
    height, width = flat["frontend.height"], flat["frontend.width"]
    return {"image_size": height if height == width else [height, width], "patch_size": flat["frontend.patch"]}


def _kernel(sizes: Sizes, ours: Shape) -> Shape:
    patch, _ = _pair(sizes, "patch_size", 16)
    return (ours[0], taken(sizes, "num_channels", 3), patch, patch)


_QKV = tuple(f"encoder.layer.*.attention.attention.{part}" for part in ("query", "key", "value"))


def _qkv_bias(sizes: Sizes) -> bool:
    return bool(taken(sizes, "qkv_bias", True))


VIT = Family(
    name="vit",
    models=("ViTModel", None),
    prefix=("vit.", ""),
    sizes=(
        *SIZES[1:],
        Size("num_channels", "frontend.channels", 3),
        Computed(_picture, _picture_written),
        Size("layer_norm_eps", "encoder.norm_epsilon", 1e-12),
        ACTIVATION,
        Size("hidden_dropout_prob", "encoder.drop_rate", 0.0),
        Size("attention_probs_dropout_prob", "encoder.attention_drop_rate", 0.0),
        Computed(lambda sizes: {}, lambda flat, ids: {"qkv_bias": True}),
    ),
    fixed={**PRE_NORM, "encoder.positions": "learned", "encoder.input_norm": False},
    rows=(
        Row("frontend.patches.weight", ("embeddings.patch_embeddings.projection.weight",), shape=_kernel),
        Row("frontend.patches.bias", ("embeddings.patch_embeddings.projection.bias",)),
        Row("frontend.whole", ("embeddings.cls_token",), shape=lambda sizes, ours: (1, 1, *ours)),
        Row(
            "encoder.positions.table.weight",
            ("embeddings.position_embeddings",),
            shape=lambda sizes, ours: (1, *ours),
        ),
        *weight("encoder.blocks.*.attention.qkv", *_QKV),
        Row("encoder.blocks.*.attention.qkv.bias", tuple(f"{name}.bias" for name in _QKV), when=_qkv_bias),
        Row("encoder.blocks.*.attention.qkv.bias", (), when=without(_qkv_bias)),
        *linear("encoder.blocks.*.attention.outer", "encoder.layer.*.attention.output.dense"),
        *linear("encoder.blocks.*.attention_norm", "encoder.layer.*.layernorm_before"),
        *linear("encoder.blocks.*.mlp.inner", "encoder.layer.*.intermediate.dense"),
        *linear("encoder.blocks.*.mlp.outer", "encoder.layer.*.output.dense"),
        *linear("encoder.blocks.*.mlp_norm", "encoder.layer.*.layernorm_after"),
        *linear("encoder.output_norm", "layernorm"),
    ),
    unused=("*pooler.*", "classifier.*", "decoder.*", "*mask_token"),
)
