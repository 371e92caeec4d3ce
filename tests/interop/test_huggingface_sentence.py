"""Folders of sentence-transformers: read as they say, written so that SentenceTransformer gives the same vectors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_cases import CASES, TEXTS, make_folder, their_ids, their_model, their_states
from safetensors.torch import save_file

from encodery.errors import DataError, WeightsError
from encodery.interop.huggingface import read_huggingface, write_huggingface
from encodery.trained import Trained
from encodery.use.predict import Predictor

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

BERT = next(case for case in CASES if str(case) == "BertModel-type_vocab_size=3")
T5 = next(case for case in CASES if str(case) == "T5EncoderModel")
ROBERTA = next(case for case in CASES if case.family == "roberta")


def modules(folder: Path, *kinds: str | tuple[str, dict[str, Any]]) -> Path:
    """A modules.json with these behind the Transformer, and their config files."""
    rows = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    for number, kind in enumerate(kinds, start=1):
        name, config = kind if isinstance(kind, tuple) else (kind, {})
        path = f"{number}_{name}"
        (folder / path).mkdir(exist_ok=True)
        (folder / path / "config.json").write_text(json.dumps(config), encoding="utf-8")
        kind = f"sentence_transformers.models.{name}"
        rows.append({"idx": number, "name": str(number), "path": path, "type": kind})
    (folder / "modules.json").write_text(json.dumps(rows), encoding="utf-8")
    return folder


def dense(folder: Path, number: int, inputs: int, outputs: int, *, bias: bool = True) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(number)
    weights = {"linear.weight": torch.randn(outputs, inputs, generator=generator)}
    weights |= {"linear.bias": torch.randn(outputs, generator=generator)} if bias else {}
    path = folder / f"{number}_Dense"
    path.mkdir(exist_ok=True)
    save_file(weights, path / "model.safetensors")
    return weights


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(BERT, tmp_path / "theirs")


def states_of(folder: Path) -> list[torch.Tensor]:
    return their_states(their_model(folder), their_ids(folder), 0)


MEAN = ("Pooling", {"pooling_mode_mean_tokens": True})
WAYS = {
    "mean": lambda states: states.mean(0),
    "cls": lambda states: states[0],
    "max": lambda states: states.max(0).values,
    "weightedmean": lambda states: (torch.arange(1.0, len(states) + 1) @ states) / sum(range(len(states) + 1)),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("new", [False, True])
def test_the_pooling_is_the_one_that_the_folder_names(folder: Path, way: str, new: bool) -> None:
    flag = {"pooling_mode": way} if new else {f"pooling_mode_{way}_token{'s' * (way != 'cls')}": True}
    wanted = torch.stack([WAYS[way](states) for states in states_of(folder)])
    trained = read_huggingface(modules(folder, ("Pooling", flag)))
    assert trained.task.kind == "vectors"
    found = Predictor(trained).embed(TEXTS, normalise=False)
    np.testing.assert_allclose(found, wanted.numpy(), atol=1e-5)
    assert not trained.model.readout.config.normalise
    assert read_huggingface(modules(folder, ("Pooling", flag), "Normalize")).model.readout.config.normalise


def test_linear_layers_stand_behind_the_pooling(folder: Path) -> None:
    first, second = dense(folder, 2, 32, 12), dense(folder, 3, 12, 5, bias=False)
    identity = "torch.nn.modules.linear.Identity"
    layers = [
        ("Dense", {"in_features": 32, "out_features": 12, "bias": True}),  # tanh when nothing is said
        ("Dense", {"in_features": 12, "out_features": 5, "bias": False, "activation_function": identity}),
    ]
    trained = read_huggingface(modules(folder, MEAN, *layers, "Normalize"))
    wanted = torch.stack([states.mean(0) for states in states_of(folder)])
    wanted = torch.tanh(wanted @ first["linear.weight"].T + first["linear.bias"]) @ second["linear.weight"].T
    np.testing.assert_allclose(Predictor(trained).embed(TEXTS, normalise=False), wanted.numpy(), atol=1e-5)
    assert Predictor(trained).width == 5


def test_lengths_prompts_and_small_letters_are_kept(folder: Path, tmp_path: Path) -> None:
    modules(folder, MEAN)
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 7, "do_lower_case": True}))
    said = {"prompts": {"query": "the dog ", "document": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    trained = read_huggingface(folder)
    assert (trained.task.max_tokens, trained.task.long) == (7, "cut")
    assert (trained.task.prompts, trained.task.prompt) == (said["prompts"], "query")
    found = Predictor(trained)
    assert np.array_equal(found.embed(["CAT SAT"], prompt=""), found.embed(["cat sat"], prompt=""))
    assert np.array_equal(found.embed(["cat"]), found.embed(["the dog cat"], prompt="document"))
    assert np.array_equal(found.embed(["cat " * 5], prompt=""), found.embed(["cat " * 9], prompt=""))
    with pytest.raises(DataError, match="'querry', did you mean 'query'"):
        found.embed(["cat"], prompt="querry")
    trained.save(tmp_path / "model", card="", metrics={})
    assert np.array_equal(Predictor(Trained.load(tmp_path / "model")).embed(TEXTS), found.embed(TEXTS))


def test_the_encoder_may_lie_in_a_folder_of_its_own(folder: Path) -> None:
    """As versions before 2.0 wrote it."""
    wanted = read_huggingface(modules(folder, MEAN))
    inside = folder / "0_Transformer"
    inside.mkdir()
    for file in [*folder.glob("*.json"), *folder.glob("*.safetensors")]:
        if file.name != "modules.json":
            file.rename(inside / file.name)
    rows = json.loads((folder / "modules.json").read_text())
    rows[0]["path"] = "0_Transformer"
    (folder / "modules.json").write_text(json.dumps(rows))
    (inside / "sentence_distilbert_config.json").write_text(json.dumps({"max_seq_length": 9}))
    trained = read_huggingface(folder)
    assert trained.task.max_tokens == 9
    assert np.array_equal(Predictor(trained).embed(["cat"]), Predictor(wanted).embed(["cat"]))


@pytest.mark.parametrize(
    ("kinds", "message"),
    [
        ([MEAN, "LSTM"], r"a module LSTM behind Transformer, Pooling\n  expected: Transformer, then Pooling"),
        ([MEAN, "Normalize", ("Dense", {})], r"a module Dense behind Transformer, Pooling, Normalize"),
        ([("Dense", {}), MEAN], r"a module Dense behind Transformer"),
        ([], r"has no Pooling"),
        ([("Pooling", {"pooling_mode_lasttoken": True})], r"the pooling lasttoken is not known here"),
        ([("Pooling", {"pooling_mode": ["cls", "mean"]})], r"the pooling cls and mean is not known here"),
        ([MEAN, ("Dense", {"activation_function": "my.Own"})], r"the activation 'my.Own'"),
        ([MEAN, ("Dense", {"use_residual": True})], r"added to its output"),
        (
            [MEAN, ("Dense", {"module_input_name": "token_embeddings"})],
            r"a layer on sentence_embedding, token_embeddings",
        ),
    ],
)
def test_modules_that_are_not_known_are_refused(folder: Path, kinds: list[Any], message: str) -> None:
    with pytest.raises(WeightsError, match=message):
        read_huggingface(modules(folder, *kinds))


def test_other_slips_of_such_a_folder_are_refused(folder: Path) -> None:
    dense(folder, 2, 32, 12, bias=False)
    modules(folder, MEAN, ("Dense", {"in_features": 32, "out_features": 12, "bias": True}))
    with pytest.raises(WeightsError, match=r"2_Dense holds linear\.weight\n  expected: linear\.bias, linear\.weight"):
        read_huggingface(folder)
    dense(folder, 2, 31, 12)
    with pytest.raises(WeightsError, match=r"readout\.dense\.0\.weight: the model has \[12, 32\], the file \[12, 31\]"):
        read_huggingface(folder)
    (folder / "modules.json").write_text("[{", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"modules\.json cannot be read"):
        read_huggingface(folder)
    (folder / "modules.json").write_text("{}", encoding="utf-8")
    with pytest.raises(WeightsError, match=r"no list of modules"):
        read_huggingface(folder)
    prompts = folder / "config_sentence_transformers.json"
    for said, message in (
        ({"prompts": {"query": 3}}, "prompts are {'query': 3}"),
        ({"prompts": {"query": "q: "}, "default_prompt_name": "other"}, "default_prompt_name is 'other'"),
        ({"prompts": {"query": "q: "}}, "leaves the words of the prompt out"),
    ):
        modules(folder, ("Pooling", {"pooling_mode": "mean", "include_prompt": False}))
        prompts.write_text(json.dumps(said))
        with pytest.raises(WeightsError, match=message):
            read_huggingface(folder)


@pytest.mark.parametrize("case", [BERT, T5, ROBERTA], ids=str)
def test_sentence_transformer_opens_what_is_written_and_gives_the_same_vectors(case: Any, tmp_path: Path) -> None:
    library = pytest.importorskip("sentence_transformers")
    folder = make_folder(case, tmp_path / "theirs")
    dense(folder, 2, 32, 9)
    layer = {"in_features": 32, "out_features": 9, "activation_function": "torch.nn.modules.activation.GELU"}
    modules(folder, ("Pooling", {"pooling_mode": "max", "word_embedding_dimension": 32}), ("Dense", layer), "Normalize")
    said = {"prompts": {"query": "red fox "}, "default_prompt_name": None}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(said))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"max_seq_length": 8, "do_lower_case": False}))
    trained = read_huggingface(folder)
    assert write_huggingface(trained, tmp_path / "ours") == case.family
    for path in (folder, tmp_path / "ours"):
        theirs = library.SentenceTransformer(str(path), device="cpu")
        for name in (None, "query"):
            vectors = theirs.encode(TEXTS, prompt_name=name)
            np.testing.assert_allclose(Predictor(trained).embed(TEXTS, prompt=name), vectors, atol=1e-5)
    again = read_huggingface(tmp_path / "ours")
    assert (again.task, again.model.config) == (trained.task, trained.model.config)
    for name, value in trained.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value), name
