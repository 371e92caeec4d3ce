"""Readouts: words only where they were hidden, one answer a document."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F

from conftest import batch_of, documents_of, tiny_model
from encodery.batch import Batch


def hidden_at(batch: Batch, at: list[int]) -> Batch:
    return Batch(batch.values, batch.layout, {"at": torch.tensor(at)}, batch.uids, batch.parts)


def test_word_logits_exist_only_at_the_hidden_positions() -> None:
    model, batch = tiny_model(), batch_of([documents_of([9, 6]), documents_of([12], seed=1)], 16)
    everywhere = model(hidden_at(batch, list(range(32)))).logits
    some = model(hidden_at(batch, [20, 3, 3])).logits
    assert everywhere.shape == (32, 50) and some.shape == (3, 50)
    torch.testing.assert_close(some, everywhere[[20, 3, 3]])


def test_word_logits_are_products_with_the_embeddings() -> None:
    model, batch = tiny_model(), hidden_at(batch_of([documents_of([9])], 16), [0, 5])
    readout = model.readout
    x = model.encode(batch).vectors[[0, 5]]
    x = F.layer_norm(F.gelu(readout.transform(x)), (32,), readout.norm.weight, readout.norm.bias)  # type: ignore
    torch.testing.assert_close(model(batch).logits, x @ model.frontend.words.weight.T + readout.bias)


def test_the_embedding_table_is_one_parameter_also_in_a_copy() -> None:
    model = tiny_model()
    assert [name for name in model.state_dict() if "words" in name] == ["frontend.words.weight"]
    twin = copy.deepcopy(model)
    batch = hidden_at(batch_of([documents_of([4])], 4), [1])
    with torch.no_grad():
        twin.frontend.words.weight.zero_()
    torch.testing.assert_close(twin(batch).logits[0], twin.readout.bias)  # type: ignore[arg-type]
    assert model(batch).logits.abs().max() > 0


def test_document_answers_are_float32_and_a_map_of_the_pooled_vector() -> None:
    model = tiny_model(readout={"kind": "document", "outputs": 3, "hidden": True})
    batch = batch_of([documents_of([9, 6])], 16)
    with torch.autocast("cpu", torch.bfloat16):
        output = model(batch)
    assert output.logits.dtype == torch.float32 and output.logits.shape == (2, 3)
    readout = model.readout
    expected = readout.answer(torch.tanh(readout.hidden(output.vectors)))  # type: ignore[union-attr,operator]
    torch.testing.assert_close(output.logits, expected)
