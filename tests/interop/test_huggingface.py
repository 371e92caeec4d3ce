"""Folders of Hugging Face models: the same numbers as transformers gives, and one clear message for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encodery.errors import WeightsError
from encodery.interop.huggingface import read_huggingface, write_huggingface
from encodery.trained import Trained
from encodery.use.predict import Predictor

transformers = pytest.importorskip("transformers")
pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *["the", "a", "dog", "cat", "sat", "ran", "on", "under", "mat", "tree", "red", "blue", "##s", "##ly"],
]
TEXTS = ["the dog sat on the mat", "a red cat", "cats ran quickly under the blue tree and the dogs sat", "mat"]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A small BERT with a masked-word head and random weights, as `save_pretrained` writes it."""
    folder = tmp_path_factory.mktemp("bert")
    (folder / "vocab.txt").write_text("\n".join(WORDS) + "\n", encoding="utf-8")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(WORDS),
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=40,
        initializer_range=0.3,
    )
    transformers.BertForMaskedLM(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return folder


def their_states(folder: Path, texts: list[str]) -> list[torch.Tensor]:
    """Hidden states of each text, from one padded batch."""
    model = transformers.BertForMaskedLM.from_pretrained(folder).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        states = model.bert(**batch).last_hidden_state
    return [row[mask.bool()] for row, mask in zip(states, batch["attention_mask"])]


def copied(source: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in source.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


def test_packed_hidden_states_are_those_of_a_padded_batch_of_transformers(source: Path) -> None:
    trained = read_huggingface(source)
    predictor = Predictor(trained)
    _, store = predictor._store(TEXTS, 0)
    from encodery.data.loader import Place

    theirs = their_states(source, TEXTS)
    seen = 0
    for batch, _ in predictor.loader(store).epoch(Place()):
        with torch.no_grad():
            states = trained.model.encode(batch)
        for number, uid in enumerate(batch.uids.tolist()):
            ours = states.vectors[states.layout.document == number]
            torch.testing.assert_close(ours, theirs[uid], atol=1e-5, rtol=0)
            seen += 1
    assert seen == len(TEXTS)


def test_the_masked_word_head_gives_the_same_logits(source: Path) -> None:
    trained = read_huggingface(source)
    tokenizer = transformers.AutoTokenizer.from_pretrained(source)
    batch = tokenizer("the [MASK] sat on the mat", return_tensors="pt")
    with torch.no_grad():
        theirs = transformers.BertForMaskedLM.from_pretrained(source).eval()(**batch).logits[0]
    from encodery.batch import Batch, layout_of

    ids = batch["input_ids"][0]
    values = {"ids": ids, "segment": torch.zeros_like(ids), "starts_word": torch.ones_like(ids, dtype=torch.bool)}
    ours = trained.model(Batch(values, layout_of([[len(ids)]], len(ids)), {"at": torch.arange(len(ids))}))
    torch.testing.assert_close(ours.logits, theirs, atol=1e-5, rtol=0)
    assert trained.task.kind == "masked"


def test_a_converted_model_is_saved_loaded_and_gone_on_from(source: Path, tmp_path: Path) -> None:
    trained = read_huggingface(source)
    trained.save(tmp_path / "model", card="", metrics={})
    again = Trained.load(tmp_path / "model")
    for name, value in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert np.array_equal(Predictor(again).embed(TEXTS), Predictor(trained).embed(TEXTS))


def changed(folder: Path, **changes: Any) -> Path:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")
    return folder


def with_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> Path:
    weights = load_file(folder / "model.safetensors")
    change(weights)
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_folder_that_is_none_is_refused(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file .*config\.json"):
        read_huggingface(tmp_path)
    with pytest.raises(WeightsError, match=r"there is no folder .*missing[\s\S]*owner/model"):
        read_huggingface(tmp_path / "missing")
    with pytest.raises(WeightsError, match=r"is a file"):
        read_huggingface(source / "config.json")
    folder = copied(source, tmp_path)
    (folder / "config.json").write_text("[1]", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"config\.json holds a list"):
        read_huggingface(folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"model_type": "llama"},
            r"family model_type 'llama' is not known here\n  expected: one of: albert, bert(.|\n)*train an encoder",
        ),
        ({"model_type": "modern-bert"}, r"did you mean 'modernbert'\?"),
        ({"hidden_act": "quick_gelu"}, r"hidden_act of config\.json is 'quick_gelu'\n  expected: one of: gelu"),
        ({"hidden_act": ["gelu"]}, r"hidden_act"),
        ({"num_attention_heads": 5}, r"sizes that cannot be: .*not a multiple of heads 5"),
        ({"num_hidden_layers": -1}, r"sizes that cannot be: encoder\.depth"),
        ({"position_embedding_type": "relative_key"}, r"'relative_key': only a learned table[\s\S]*'absolute'"),
        ({"is_decoder": True}, r"is_decoder of config\.json is True: a decoder sees only"),
        ({"intermediate_size": None}, r"no 'intermediate_size'"),
    ],
)
def test_a_config_that_cannot_be_is_refused(
    source: Path, tmp_path: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(WeightsError, match=message):
        read_huggingface(changed(copied(source, tmp_path), **changes))


def test_weights_that_are_missing_misshapen_or_unknown_are_named_as_in_the_file(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)
    lost = "bert.encoder.layer.1.output.dense.bias"
    with_weights(folder, lambda weights: weights.pop(lost))
    with pytest.raises(
        WeightsError, match=rf"{folder}: the weights do not fit(.|\n)*1 missing in the file: {lost} \[32\]"
    ):
        read_huggingface(folder)
    with_weights(folder, lambda weights: weights.update({lost: torch.zeros(31)}))
    with pytest.raises(WeightsError, match=rf"{lost}: the model has \[32\], the file \[31\]"):
        read_huggingface(folder)
    extra = {lost: torch.zeros(32), "bert.encoder.layer.3.output.dense.bias": torch.zeros(32)}
    with_weights(folder, lambda weights: weights.update(extra))
    with pytest.raises(WeightsError, match=r"unexpected in the file: bert\.encoder\.layer\.3\.output\.dense\.bias"):
        read_huggingface(folder)
    with_weights(folder, lambda weights: weights.pop("bert.encoder.layer.3.output.dense.bias"))
    read_huggingface(folder)
    with pytest.raises(WeightsError, match=r"the model has \[48, 32\], the file \[64, 32\]"):
        read_huggingface(changed(folder, intermediate_size=48))
    with pytest.raises(WeightsError, match=r"no weight embeddings\.word_embeddings\.weight"):
        with_weights(folder, lambda weights: weights.pop("bert.embeddings.word_embeddings.weight"))
        read_huggingface(folder)


def test_a_folder_of_ours_need_not_be_converted(source: Path, tmp_path: Path) -> None:
    read_huggingface(source).save(tmp_path / "ours", card="", metrics={})
    with pytest.raises(WeightsError, match=r"ours is a model folder of encodery(.|\n)*start_from"):
        read_huggingface(tmp_path / "ours")


def test_weights_that_an_encoder_does_not_need_are_noted(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)
    spare = {
        "bert.pooler.dense.weight": torch.zeros(32, 32),
        "cls.seq_relationship.bias": torch.zeros(2),
        "bert.embeddings.position_ids": torch.arange(40),  # a buffer of older files, not a weight
    }
    trained = read_huggingface(with_weights(folder, lambda weights: weights.update(spare)))
    (note,) = trained.notes
    assert note.endswith("no place for them: bert.pooler.dense.weight, cls.seq_relationship.bias")
    assert read_huggingface(source).notes == ()


def test_norms_may_have_the_names_that_the_first_bert_gave_them(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)

    def old(weights: dict[str, torch.Tensor]) -> None:
        for name in list(weights):
            renamed = name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
            weights[renamed] = weights.pop(name)

    with_weights(folder, old)
    assert any("gamma" in name for name in load_file(folder / "model.safetensors"))
    weights = read_huggingface(source).model.state_dict()
    for name, value in read_huggingface(folder).model.state_dict().items():
        assert torch.equal(value, weights[name]), name


def test_shards_are_read_and_must_all_be_there(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = [sorted(weights)[::2], sorted(weights)[1::2]]
    files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]
    where = {name: file for file, part in zip(files, names) for name in part}
    for file, part in zip(files, names):
        save_file({name: weights[name] for name in part}, folder / file)
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {}, "weight_map": where}), encoding="utf-8")
    ours = read_huggingface(source).model.state_dict()
    for name, value in read_huggingface(folder).model.state_dict().items():
        assert torch.equal(value, ours[name]), name

    index.write_text(json.dumps({"weight_map": {**where, "lost": files[0]}}), encoding="utf-8")
    with pytest.raises(WeightsError, match="no shard holds: lost"):
        read_huggingface(folder)
    index.write_text(json.dumps({"weight_map": {**where, "x": "../other.safetensors"}}), encoding="utf-8")
    with pytest.raises(WeightsError, match=r"outside of its folder: \.\./other"):
        read_huggingface(folder)
    index.write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match="no weight_map"):
        read_huggingface(folder)
    index.write_text(json.dumps({"weight_map": where}), encoding="utf-8")
    (folder / files[1]).unlink()
    with pytest.raises(WeightsError, match=r"lacks 1 of 2 shards: model-00002"):
        read_huggingface(folder)


def test_pickles_and_damaged_files_are_refused(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        read_huggingface(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"only pytorch_model\.bin[\s\S]*can run code[\s\S]*save_pretrained"):
        read_huggingface(folder)
    (folder / "pytorch_model.bin").unlink()
    with pytest.raises(WeightsError, match=r"has no model\.safetensors\n"):
        read_huggingface(folder)


def test_a_tokenizer_that_is_missing_or_too_large_is_refused(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)
    (folder / "tokenizer.json").rename(folder / "kept.json")
    with pytest.raises(WeightsError, match=r"no tokenizer\.json[\s\S]*AutoTokenizer"):
        read_huggingface(folder)
    tokenizer = json.loads((folder / "kept.json").read_text(encoding="utf-8"))
    tokenizer["model"]["vocab"]["more"] = len(WORDS)
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    with pytest.raises(WeightsError, match=f"the tokenizer has {len(WORDS) + 1} tokens, the model {len(WORDS)}"):
        read_huggingface(folder)


def test_a_table_with_spare_rows_is_kept_whole(source: Path, tmp_path: Path) -> None:
    """Makers round vocabularies up: the tokenizer may have fewer tokens than the model has rows."""
    folder = changed(copied(source, tmp_path), vocab_size=len(WORDS) + 5)

    def grow(weights: dict[str, torch.Tensor]) -> None:
        for name in ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias"):
            rows = weights[name]
            weights[name] = torch.cat([rows, torch.zeros(5, *rows.shape[1:])])

    trained = read_huggingface(with_weights(folder, grow))
    trained.save(tmp_path / "model", card="", metrics={})
    again = Trained.load(tmp_path / "model")
    assert again.model.frontend.vocab_size == len(WORDS) + 5
    assert write_huggingface(again, tmp_path / "back") == "bert"
    assert read_huggingface(tmp_path / "back").model.config == trained.model.config
