"""Every family of Hugging Face: the hidden states of transformers, padded and packed, and the way back bit by bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from huggingface_cases import (
    CASES,
    TEXTS,
    Case,
    in_rows,
    make_folder,
    our_states,
    their_ids,
    their_model,
    their_states,
    transformers,
)

from encodery.data.samples import LengthCounts
from encodery.interop.huggingface import FAMILIES, read_huggingface, write_huggingface

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

MOST = 1e-5


@pytest.fixture(scope="module", params=CASES, ids=str)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Case, Path]:
    return request.param, make_folder(request.param, tmp_path_factory.mktemp("theirs") / "model")


def test_hidden_states_and_logits_are_theirs_padded_and_packed(folder: tuple[Case, Path]) -> None:
    case, path = folder
    trained = read_huggingface(path)
    ids = their_ids(path)
    assert trained.tokenizer.facts()["model_type"] == case.family
    pad = trained.tokenizer.pad_id
    head = trained.task.kind == "masked"
    assert head == (case.model.endswith("ForMaskedLM") and case.family != "eurobert")
    for logits in (False, True) if head else (False,):
        theirs = their_states(their_model(path, head=logits), ids, pad)
        assert all(float(one.std()) > 0.05 for one in theirs)
        for name, batch in in_rows(ids, pad).items():
            ours = our_states(trained, batch, logits=logits)
            for document, states in zip(ids, theirs):
                worst = float((ours[tuple(document.tolist())] - states).abs().max())
                assert worst <= MOST, (name, logits, worst)


def test_reading_writing_and_reading_gives_the_same_bits_and_a_folder_that_transformers_opens(
    folder: tuple[Case, Path], tmp_path: Path
) -> None:
    case, path = folder
    trained = read_huggingface(path)
    assert write_huggingface(trained, tmp_path / "ours") == case.family
    again = read_huggingface(tmp_path / "ours")
    assert again.model.config == trained.model.config
    assert again.task == trained.task
    weights, others = trained.model.state_dict(), again.model.state_dict()
    assert list(weights) == list(others)
    for name, value in weights.items():
        assert torch.equal(value, others[name]), name
    assert again.tokenizer.to_json() == trained.tokenizer.to_json()

    ids = their_ids(path)
    for one, other in zip(ids, their_ids(tmp_path / "ours")):
        assert one.tolist() == other.tolist()
    pad = trained.tokenizer.pad_id
    for head in (False, True) if trained.task.kind == "masked" else (False,):
        before = their_states(their_model(path, head=head), ids, pad)
        after = their_states(their_model(tmp_path / "ours", head=head), ids, pad)
        for one, other in zip(before, after):
            torch.testing.assert_close(one, other, atol=1e-6, rtol=0)


def test_samples_are_made_of_the_ids_of_autotokenizer(folder: tuple[Case, Path]) -> None:
    _, path = folder
    trained = read_huggingface(path)
    maker = trained.maker()

    for text, wanted in zip(TEXTS, their_ids(path)):
        (encoded,) = trained.tokenizer.encode_batch([text])
        (sample,) = maker.single(encoded.ids, encoded.starts_word, 0, LengthCounts())
        assert sample.ids.tolist() == wanted.tolist()


def test_every_family_has_a_case() -> None:
    assert {case.family for case in CASES} == set(FAMILIES)


NOT_OURS = ("pooler", "contact_head", "inv_freq", "predictions.bias", "lm_head.bias")
"""What a class of transformers may have beside: what an encoder does not need, and biases that an untied head has
twice and uses once."""


def test_transformers_finds_all_it_needs_and_nothing_more_in_a_written_folder(
    folder: tuple[Case, Path], tmp_path: Path
) -> None:
    case, path = folder
    trained = read_huggingface(path)
    write_huggingface(trained, tmp_path / "ours")
    kind = {"t5": "T5EncoderModel", "mt5": "MT5EncoderModel"}.get(case.family, "AutoModel")
    kind = "AutoModelForMaskedLM" if trained.task.kind == "masked" else kind
    _, info = getattr(transformers, kind).from_pretrained(tmp_path / "ours", output_loading_info=True)
    assert not info["mismatched_keys"] and not info["error_msgs"]
    assert not info["unexpected_keys"]
    assert not [name for name in info["missing_keys"] if not any(part in name for part in NOT_OURS)]
