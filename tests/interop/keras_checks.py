"""What a Keras user expects of layers and models; test_keras_encoder.py runs this where Keras is and torch is not."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from encodery.bundle import read_bundle
from encodery.data.samples import LengthCounts
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError, WeightsError
from encodery.interop import keras_encoder
from encodery.interop.keras_encoder import EncoderModel, KerasTrained
from encodery.interop.keras_encoder.attention import SelfAttention
from encodery.interop.keras_encoder.layers import ConvolutionFeedForward, Experts, FeedForward, Norm, PositionTable
from encodery.interop.keras_encoder.model import (
    DocumentReadout,
    Pooling,
    TextEmbedding,
    VectorReadout,
    WordReadout,
)
from encodery.interop.keras_encoder.transformer import Block, Transformer
from encodery.interop.keras_encoder.weights import get_weights, named_weights

# The sizes of the cases in test_keras_encoder.py: what JAX has compiled for one serves the other.
SIZES: dict[str, Any] = {"width": 32, "heads": 4, "mlp_width": 48, "depth": 2, "max_length": 24, "drop_rate": 0.0}
WORDS: dict[str, Any] = {"kind": "word"}
LABELS: dict[str, Any] = {"kind": "document", "outputs": 2, "drop_rate": 0.0}
TEXTS = ["the parcel is late", "the card was charged twice", "a warm and lovely film", "dull", "a cruel, cold story"]


JIT = keras.backend.backend() == "jax"
"""XLA on TensorFlow compiles longer than these models learn."""
once = pytest.mark.once
"""What does not depend on the backend is run on TensorFlow alone: JAX takes long to compile."""


def model_of(readout: dict[str, Any] | None = WORDS, **encoder: Any) -> EncoderModel:
    return EncoderModel({"frontend": {"vocab_size": 40}, "encoder": {**SIZES, **encoder}, "readout": readout})


def rows(
    lengths: tuple[int, ...] = (9, 4, 20, 1, 7, 13, 2, 5), width: int = 20, *, front: bool = False
) -> dict[str, np.ndarray]:
    """Random documents, their padding behind them or in `front`; padding is no zeros, so that only the mask tells."""
    rng = np.random.default_rng(0)
    ids, mask = np.full((len(lengths), width), 7, np.int32), np.zeros((len(lengths), width), bool)
    for row, size in enumerate(lengths):
        span = slice(width - size, width) if front else slice(0, size)
        ids[row, span], mask[row, span] = rng.integers(1, 40, size), True
    return {"ids": ids, "mask": mask}


def numbers(x: Any) -> np.ndarray:
    return keras.ops.convert_to_numpy(x)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return train_tokenizer(TEXTS * 5, TokenizerConfig(vocab_size=80), seed=1)


@pytest.fixture
def trained(tokenizer: Tokenizer) -> KerasTrained:
    return keras_encoder.from_config({"encoder": SIZES}, tokenizer, ["bad", "good"])


# -- as a Keras model ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "readout", [None, WORDS, LABELS, {"kind": "vector"}], ids=["none", "word", "document", "vector"]
)
def test_keras_saves_and_loads_it(readout: dict[str, Any] | None, tmp_path: Path) -> None:
    model, given = model_of(readout, positions="learned", layer_scale=0.5, norm="batchnorm"), rows()
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert isinstance(again, EncoderModel)
    assert again.get_config() == model.get_config()
    np.testing.assert_array_equal(numbers(model(given)), numbers(again(given)))
    again = EncoderModel.from_config(model.get_config())
    assert {name: weight.shape for name, weight in named_weights(again)} == {
        name: weight.shape for name, weight in named_weights(model)
    }


OPTIONS = {**SIZES, "positions": "disentangled", "qk_norm": True, "share_position_keys": False}
LAYERS = [
    Norm("batchnorm", 16, 1e-3, False),
    FeedForward(16, 32, "swiglu", bias=False),
    ConvolutionFeedForward(16, 32, "gelu", 3),
    Experts(16, 32, 3, 2, "relu"),
    PositionTable("learned", 20, 16, 2, 3),
    SelfAttention(OPTIONS),
    Block({**OPTIONS, "norm_place": "both", "layer_scale": 0.1}, 1),
    Transformer({**SIZES, "positions": "relative", "norm": "rmsnorm"}, 12),
    TextEmbedding({"vocab_size": 40, "segments": 1}, 16),
    Pooling("attention", 16),
    WordReadout({"tied": False}, 16, 12, 40),
    DocumentReadout({"pooling": "attention", "hidden": True, "outputs": 3}, 16),
    VectorReadout({"dense": [{"outputs": 5, "activation": "tanh"}]}, 16),
]


@once
@pytest.mark.parametrize("layer", LAYERS, ids=lambda layer: type(layer).__name__)
def test_layers_are_made_again_from_their_config(layer: Any) -> None:
    config = layer.get_config()
    again = type(layer).from_config(config)
    layer.build()
    again.build()
    assert again.get_config() == config
    shapes = [{name: weight.shape for name, weight in named_weights(one)} for one in (layer, again)]
    assert shapes[0] == shapes[1] and shapes[0]


def test_it_is_a_layer_of_other_models() -> None:
    """Masks travel through it: the average that Keras takes behind it is over real tokens."""
    model, given = model_of(None), rows()
    ids = keras.Input((None,), dtype="int32")
    vectors = model(ids)
    assert vectors.shape == (None, None, 32)
    answer = keras.layers.GlobalAveragePooling1D()(vectors)
    whole = keras.Model(ids, answer)
    padded = np.where(given["mask"], given["ids"], 0)  # 0 is the id of padding
    found = numbers(whole(padded))
    states = numbers(model.encode(given))
    for row, mask in enumerate(given["mask"]):
        np.testing.assert_allclose(found[row], states[row][mask].mean(0), atol=1e-5)


def test_the_transformer_alone_takes_vectors_and_a_mask() -> None:
    layer = Transformer(SIZES)
    given, mask = np.random.default_rng(0).normal(size=(8, 20, 32)).astype("float32"), np.ones((8, 20), bool)
    mask[1, 4:] = False
    found = numbers(layer(given, mask=mask))
    assert found.shape == (8, 20, 32)
    given[1, 4:] = 100.0
    np.testing.assert_allclose(numbers(layer(given, mask=mask))[mask], found[mask], atol=1e-6)


@pytest.mark.parametrize("encoder", [{}, {"halve_after": [1]}, {"mlp_kernel": 3}], ids=str)
def test_padding_tells_nothing(encoder: dict[str, Any]) -> None:
    """Neither its ids nor the side it stands on, nor how much of it there is."""
    model = model_of(None, **encoder)
    behind, other, front = rows(), rows(), rows(front=True)
    other["ids"] = np.where(other["mask"], other["ids"], 9)
    expected = numbers(model(behind))[behind["mask"]]
    for given in (other, front, *([] if encoder else [rows(width=24)])):
        np.testing.assert_allclose(numbers(model(given))[given["mask"]], expected, atol=2e-5)


@pytest.mark.parametrize("pooling", ["first", "mean", "weighted", "max", "attention"])
def test_rows_of_padding_are_finite(pooling: str) -> None:
    found = numbers(model_of({**LABELS, "pooling": pooling})(rows((9, 0, 20, 0, 7, 13, 2, 5))))
    assert np.isfinite(found).all()
    np.testing.assert_array_equal(found[1], found[3])


def test_the_mask_of_words_is_that_of_the_inputs() -> None:
    given = rows()
    for readout, kept in ((None, True), (WORDS, True), (LABELS, False), ({"kind": "vector"}, False)):
        model = model_of(readout)
        mask = model.compute_mask(given)
        assert (mask is not None) == kept
        if kept:
            np.testing.assert_array_equal(numbers(mask), given["mask"])
            np.testing.assert_array_equal(numbers(model.compute_mask(np.array([[5, 6, 0]]))), [[True, True, False]])


@once
def test_half_precision_is_near() -> None:
    config = {"frontend": {"vocab_size": 40}, "encoder": SIZES, "readout": LABELS}
    plain = EncoderModel(config)
    mixed = EncoderModel(config, weights=get_weights(plain), dtype="mixed_bfloat16")
    states, near = numbers(plain.encode(rows())), numbers(keras.ops.cast(mixed.encode(rows()), "float32"))
    assert 0 < np.abs(states - near).max() < 0.2
    assert keras.backend.standardize_dtype(mixed(rows()).dtype) == "float32"


# -- learning --------------------------------------------------------------------------------------

DROPPING = {"drop_rate": 0.1, "attention_drop_rate": 0.1, "depth_drop_rate": 0.2}
EVERYTHING = [
    {
        "positions": "learned",
        "position_shift": 3,
        "score": "additive",
        "layer_scale": 0.1,
        "experts": 2,
        "norm": "batchnorm",
        **DROPPING,
    },
    {
        "positions": "disentangled",
        "share_position_keys": False,
        "kv_heads": 1,
        "qk_norm": True,
        "halve_after": [1],
        "mlp_kernel": 3,
    },
    {
        "positions": "relative",
        "pattern": "random",
        "window": 1,
        "block": 2,
        "norm_place": "both",
        "distinct_blocks": 1,
        "activation": "geglu",
    },
]


@pytest.mark.parametrize("encoder", EVERYTHING, ids=lambda encoder: encoder["positions"])
def test_every_weight_learns(encoder: dict[str, Any]) -> None:
    """One step of `fit` changes each of them, and the running averages of BatchNorm."""
    keras.utils.set_random_seed(3)
    model = model_of({**LABELS, "pooling": "attention", "hidden": True, "drop_rate": 0.1}, **encoder)
    for weight in model.trainable_weights:  # far from zero, so that nothing is hidden behind a zero
        weight.assign(weight + 0.3 * np.random.default_rng(1).normal(size=weight.shape).astype("float32"))
    given = rows()
    given["segments"] = np.random.default_rng(0).integers(0, 2, given["ids"].shape)
    before = get_weights(model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.SGD(1.0), loss=loss, jit_compile=JIT)
    model.fit(given, np.arange(8) % 2, batch_size=8, verbose=0)
    after = get_weights(model)
    unmoved = [name for name, value in before.items() if np.array_equal(value, after[name])]
    # A softmax does not see what is added to all of its scores.
    unseen = ("pooling.score.bias", "position_keys.bias", "key_norm.bias")
    assert all(name.endswith(unseen) for name in unmoved), unmoved
    assert all(np.isfinite(value).all() for value in after.values())


def test_words_are_learned_without_those_of_padding() -> None:
    """Keras leaves out of the loss what the mask of the answers says."""
    keras.utils.set_random_seed(3)
    model, given = model_of(depth=1), rows()
    entropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=entropy, jit_compile=JIT)
    padded = {"ids": np.where(given["mask"], given["ids"], 0)}
    loss = model.evaluate(padded, given["ids"], batch_size=8, verbose=0)
    scores = numbers(keras.ops.log_softmax(model(given), axis=-1))
    each = -np.take_along_axis(scores, given["ids"][..., None], axis=-1)[..., 0]
    assert loss == pytest.approx(each[given["mask"]].mean(), rel=1e-3)
    history = model.fit(padded, given["ids"], batch_size=8, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.5 * history[0]


# -- model folders ---------------------------------------------------------------------------------


def test_a_folder_gives_back_the_model(trained: KerasTrained, tmp_path: Path) -> None:
    given = trained.inputs(TEXTS)
    trained.save(tmp_path / "model", metrics={"note": "by hand"})
    again = keras_encoder.load(tmp_path / "model")
    np.testing.assert_array_equal(numbers(trained.model(given)), numbers(again.model(given)))
    assert again.task["labels"] == ["bad", "good"] and again.task["kind"] == "classify"
    again.save(tmp_path / "again", metrics={"note": "by hand"})
    for name in ("model.safetensors", "config.json", "tokenizer.json", "metrics.json"):
        assert (tmp_path / "model" / name).read_bytes() == (tmp_path / "again" / name).read_bytes()


def test_new_labels_keep_the_encoder(trained: KerasTrained, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    bare = keras_encoder.load(tmp_path / "model", readout=False)
    other = bare.with_labels(["a", "b", "c"], pooling="first", hidden=True)
    given = trained.inputs(TEXTS)
    np.testing.assert_array_equal(numbers(bare.model(given)), numbers(trained.model.encode(given)))
    np.testing.assert_array_equal(numbers(other.model.encode(given)), numbers(trained.model.encode(given)))
    assert numbers(other.model(given)).shape == (5, 3)
    assert other.model.readout.options.pooling == "first"
    with pytest.raises(WeightsError, match="with_labels"):
        bare.save(tmp_path / "bare")
    with pytest.raises(DataError, match="'a' stands twice"):
        bare.with_labels(["a", "b", "a"])
    with pytest.raises(WeightsError, match="did you mean 'pooling'"):
        bare.with_labels(["a", "b"], poling="first")
    with pytest.raises(WeightsError, match=r"readout\.ngrams is 2"):
        bare.with_labels(["a", "b"], ngrams=2)


@once
def test_texts_become_rows(trained: KerasTrained) -> None:
    tokenizer, counts = trained.tokenizer, LengthCounts()
    short, long = (one.ids for one in tokenizer.encode_batch(["a film", "a " * 40]))
    given = trained.inputs(["a film", "a " * 40], counts=counts)
    assert given["ids"].shape == (2, 24) and counts.cut_rows == 1 and counts.cut_tokens == 40 - 22
    assert given["mask"].sum(1).tolist() == [short.size + 2, 24]
    np.testing.assert_array_equal(given["ids"][0, 1 : 1 + short.size], short)
    np.testing.assert_array_equal(given["ids"][1, 1:-1], long[:22])
    assert given["ids"][0, 0] == tokenizer.cls_id and given["ids"][1, -1] == tokenizer.sep_id
    assert trained.inputs(["a film"])["ids"].shape == (1, 16)
    assert trained.inputs(["a film"], length=8)["ids"].shape == (1, 8)
    assert trained.inputs([])["ids"].shape == (0, 16)
    trained.task.update(prompts={"ask": "the card "}, prompt="ask")
    asked = trained.inputs(["a film"])["ids"]
    np.testing.assert_array_equal(asked, trained.inputs(["the card a film"], prompt="")["ids"])
    with pytest.raises(DataError, match=r"'asc', did you mean 'ask'\?"):
        trained.inputs(["a film"], prompt="asc")


@once
def test_pairs_become_rows(trained: KerasTrained) -> None:
    trained.task["paired"] = True
    given = trained.inputs([("a film", "the card"), ("dull", "dull")])
    sizes = [one.ids.size for one in trained.tokenizer.encode_batch(["a film", "the card"])]
    first = given["segments"][0][given["mask"][0]].tolist()
    assert first == [0] * (sizes[0] + 2) + [1] * (sizes[1] + 1)
    for wrong in ("a film", ("a", "b", "c"), 5):
        with pytest.raises(DataError, match="this model reads pairs"):
            trained.inputs([wrong])  # type: ignore[list-item]


@once
def test_the_page_runs(trained: KerasTrained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The blocks of docs/10_keras.md, one after the other."""
    page = Path(__file__).parent.parent.parent / "docs" / "10_keras.md"
    blocks = re.findall(r"^```py\n(.*?)^```$", page.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 3
    monkeypatch.chdir(tmp_path)
    trained.save("runs/mine")
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["logits"].shape == (2, 2) and names["vectors"].shape[-1] == SIZES["width"]
    assert keras_encoder.load("runs/tuned").task["labels"] == ["calm", "angry"]


# -- what is refused -------------------------------------------------------------------------------


@once
def test_wrong_inputs_are_refused(trained: KerasTrained) -> None:
    with pytest.raises(DataError, match=r"text 2 is \('a', 'b'\)"):
        trained.inputs(["a", ("a", "b")])
    with pytest.raises(DataError, match="length 25"):
        trained.inputs(["a"], length=25)
    with pytest.raises(DataError, match=r"30 tokens long(.|\n)*at most 24"):
        trained.model(np.ones((1, 30), np.int32))
    with pytest.raises(DataError, match="ids, tokens"):
        trained.model({"ids": np.ones((1, 3), np.int32), "tokens": np.ones((1, 3), np.int32)})
    with pytest.raises(DataError, match="given mask"):
        trained.model({"mask": np.ones((1, 3), np.int32)})


@once
def test_wrong_weights_are_refused(trained: KerasTrained, tmp_path: Path) -> None:
    trained.save(tmp_path / "model")
    files = read_bundle(tmp_path / "model", tensors="np")
    weights = dict(files.weights)
    weights["extra"] = weights.pop("readout.answer.bias")
    weights["frontend.words.weight"] = weights["frontend.words.weight"][:-1]
    with pytest.raises(WeightsError) as refused:
        EncoderModel(files.config["model"], weights=weights)
    for part in ("readout.answer.bias", "1 unexpected in the file: extra", "frontend.words.weight: the model has"):
        assert part in str(refused.value)
    file = tmp_path / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(WeightsError, match="damaged"):
        keras_encoder.load(tmp_path / "model")
    with pytest.raises(WeightsError, match="does not exist"):
        keras_encoder.load(tmp_path / "nothing")


@once
def test_a_tokenizer_of_another_model_is_refused(trained: KerasTrained, tmp_path: Path) -> None:
    trained.tokenizer = train_tokenizer(["other words altogether"] * 9, TokenizerConfig(vocab_size=64), seed=1)
    trained.save(tmp_path / "model")
    with pytest.raises(WeightsError, match="the tokenizer has"):
        keras_encoder.load(tmp_path / "model")


def test_torch_is_not_there() -> None:
    assert "torch" not in sys.modules
