"""Folders of Hugging Face models: the same numbers as transformers gives, and one clear message for what is wrong."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from encodery.errors import WeightsError
from encodery.interop.huggingface import read_huggingface
from encodery.trained import Trained
from encodery.use.predict import Predictor

transformers = pytest.importorskip("transformers")

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
    store = predictor._store(TEXTS, 0)
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


def test_sentence_transformers_folders_say_how_to_pool(source: Path, tmp_path: Path) -> None:
    folder = copied(source, tmp_path)
    bare = {name: value for name, value in load_file(source / "model.safetensors").items() if name.startswith("bert.")}
    save_file({name.removeprefix("bert."): value for name, value in bare.items()}, folder / "model.safetensors")
    kinds = ["Transformer", "Pooling", "Normalize"]
    modules = [{"path": f"{n}_{kind}" if n else "", "type": f"x.y.{kind}"} for n, kind in enumerate(kinds)]
    (folder / "modules.json").write_text(json.dumps(modules), encoding="utf-8")
    (folder / "1_Pooling").mkdir()
    theirs = their_states(source, TEXTS)
    for key, wanted in (
        ("pooling_mode_mean_tokens", [states.mean(0) for states in theirs]),
        ("pooling_mode_cls_token", [states[0] for states in theirs]),
        ("pooling_mode_max_tokens", [states.max(0).values for states in theirs]),
    ):
        (folder / "1_Pooling" / "config.json").write_text(json.dumps({key: True}), encoding="utf-8")
        trained = read_huggingface(folder)
        assert trained.task.kind == "vectors"
        stacked = torch.nn.functional.normalize(torch.stack(wanted), dim=-1).numpy()
        np.testing.assert_allclose(Predictor(trained).embed(TEXTS), stacked, atol=1e-5)


def test_a_converted_model_is_saved_loaded_and_gone_on_from(source: Path, tmp_path: Path) -> None:
    trained = read_huggingface(source)
    trained.save(tmp_path / "model", card="", metrics={})
    again = Trained.load(tmp_path / "model")
    for name, value in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
    assert np.array_equal(Predictor(again).embed(TEXTS), Predictor(trained).embed(TEXTS))


def changed(folder: Path, **changes: Any) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **changes}), encoding="utf-8")


def test_what_is_wrong_with_a_folder_is_said(source: Path, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"no file .*config\.json"):
        read_huggingface(tmp_path)
    folder = copied(source, tmp_path)
    changed(folder, model_type="llama")
    with pytest.raises(WeightsError, match=r"model_type 'llama'[\s\S]*one of: bert"):
        read_huggingface(folder)
    changed(folder, model_type="bert", hidden_act="gelu_new")
    with pytest.raises(WeightsError, match="gelu_new"):
        read_huggingface(folder)
    changed(folder, hidden_act="gelu", num_attention_heads=5)
    with pytest.raises(WeightsError, match=r"sizes that cannot be.*not a multiple of heads 5"):
        read_huggingface(folder)
    changed(folder, num_attention_heads=4)
    (folder / "modules.json").write_text("[{", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"modules\.json cannot be read"):
        read_huggingface(folder)
    (folder / "modules.json").unlink()
    changed(folder, intermediate_size=48)
    with pytest.raises(WeightsError, match="mlp"):
        read_huggingface(folder)
    changed(folder, intermediate_size=64)
    weights = load_file(folder / "model.safetensors")
    weights.pop("bert.encoder.layer.1.output.dense.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(WeightsError, match=r"no weight bert\.encoder\.layer\.1\.output\.dense\.bias"):
        read_huggingface(folder)
    (folder / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="damaged"):
        read_huggingface(folder)
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(WeightsError, match=r"only pytorch_model\.bin"):
        read_huggingface(folder)
