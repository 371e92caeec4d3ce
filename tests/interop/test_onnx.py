"""ONNX: the file answers as the model does for every option, and what does not is never written."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import tokenizers
import torch
from torch import nn

from conftest import make_texts, tiny_model
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import DataError, EncoderyError, MissingExtra, WeightsError
from encodery.evaluation.evaluate import probabilities
from encodery.interop.onnx import why_not, write_onnx
from encodery.interop.onnx import writer as exporting
from encodery.interop.onnx.graph import Part, padded_rows, write_graph
from encodery.interop.onnx.operators import OPSET, known_operators
from encodery.interop.onnx.parity import ALLOWED, made_questions, text_questions
from encodery.interop.onnx.writer import check_parity, session_of, tokenizer_of
from encodery.trained import Task, Trained
from encodery.use.predict import Predictor
from options import NAMED
from test_promises import FRONTENDS, HIERARCHICAL, OPTIONS, PATTERNS, POSITIONS, SHAPES, named

SAMPLE = [
    *({**pattern, "positions": position} for pattern, position in zip(PATTERNS, POSITIONS)),
    *SHAPES[::3],
    *OPTIONS,
    *({"frontend": frontend} for frontend in FRONTENDS),
]
SAMPLE += [changes for changes in NAMED.values() if changes not in SAMPLE]
READOUTS: list[dict[str, Any]] = [
    {"kind": "word"},
    {"kind": "word", "tied": False, "activation": "relu"},
    *({"kind": "document", "pooling": pooling, "outputs": 3} for pooling in ("first", "mean", "max", "attention")),
    {"kind": "document", "outputs": 1, "hidden": True},
    {"kind": "document", "outputs": 3, "ngrams": 3, "ngram_buckets": 512},
    {"kind": "vector", "pooling": "attention"},
    {"kind": "vector", "pooling": "weighted"},
    {"kind": "vector", "normalise": False, "dense": [{"outputs": 7, "activation": "tanh"}]},
]
KINDS = {"word": "masked", "document": "classify", "vector": "vectors"}
LIBRARY: Any = tokenizers.Tokenizer
FILES = ["README.md", "config.json", "model.onnx", "tokenizer.json"]


def trained_with(tokenizer: Tokenizer, task: dict[str, Any] | None = None, **changes: Any) -> Trained:
    """A tiny model for the tokenizer, with weights that matter; its n-grams know nothing yet, so they are drawn."""
    readout = changes.get("readout", {"kind": "word"})
    model = tiny_model(vocab_size=tokenizer.vocab_size, **changes)
    lexical = getattr(model.readout, "lexical", None)
    if lexical is not None:
        generator = torch.Generator().manual_seed(5)
        with torch.no_grad():
            lexical.weight.normal_(0.0, 1.0, generator=generator)
            lexical.rarity.uniform_(0.5, 3.0, generator=generator)
        if lexical.letters:
            lexical.spell(tokenizer.spelling())
    labels = tuple(f"label {number}" for number in range(readout.get("outputs", 0)))
    return Trained(model, tokenizer, Task(**{"kind": KINDS[readout["kind"]], "labels": labels, **(task or {})}))


def exported(trained: Trained, folder: Path, part: Part = "model", **options: Any) -> dict[str, Any]:
    """Written without a word of complaint; its config.json."""
    lines = write_onnx(trained, folder, part=part, **options)
    assert sorted(file.name for file in folder.iterdir()) == FILES
    assert [file.name for file in folder.parent.iterdir() if file.name.startswith(".")] == []
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert config["parity"]["largest_difference"] < 2e-5
    assert str(folder / "model.onnx") in lines[0]
    return config


# -- every option ----------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", SAMPLE, ids=named)
def test_every_encoder_gives_the_same_vectors(encoder: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Or says in a sentence why it cannot be exported."""
    trained = trained_with(tokenizer, **encoder)
    reason = why_not(trained.model.config, "encoder")
    refused = "fuses entities" if "fusion" in encoder else "where sentences do" if "segment_at" in encoder else ""
    assert bool(reason) == bool(refused)
    if reason:
        with pytest.raises(WeightsError, match=refused):
            write_onnx(trained, tmp_path / "out", part="encoder")
        return
    rows, file = padded_rows(trained, "encoder"), tmp_path / "model.onnx"
    write_graph(rows, file)
    questions = list(made_questions(trained))
    assert {question.feed["input_ids"].shape for question in questions} >= {(1, 1), (1, 24), (6, 30), (3, 17), (3, 64)}
    parity = check_parity(trained, rows, file, questions)
    assert parity.texts == 14
    assert parity.largest < 2e-5


@pytest.mark.parametrize("part", ["model", "embedder"])
@pytest.mark.parametrize("readout", READOUTS, ids=named)
def test_every_readout_gives_the_same_answers(
    readout: dict[str, Any], part: Part, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    trained = trained_with(tokenizer, readout=readout)
    config = exported(trained, tmp_path / "out", part)
    kind = readout["kind"]
    assert config["output"] == ("sentence_embedding" if part == "embedder" or kind == "vector" else "logits")
    assert config["inputs"] == ["input_ids", "attention_mask", "token_type_ids"]
    assert config.get("normalised", True) == readout.get("normalise", True)
    assert ("temperature" in config) == (kind == "document" and part == "model")


@pytest.mark.parametrize("encoder", HIERARCHICAL[3:8], ids=named)
def test_readouts_read_from_every_kind(encoder: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Where an encoder makes a summary, the readout reads that."""
    exported(trained_with(tokenizer, readout={"kind": "document", "pooling": "attention"}, **encoder), tmp_path / "out")


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("kind", ["wordpiece", "byte_bpe", "unigram", "bytes"])
def test_letters_find_the_same_words(kind: str, paired: bool, tmp_path: Path) -> None:
    """Runs of letters know where words begin: that must come out of the numbers of the words, for every tokenizer."""
    texts = [text for text, _ in make_texts(300)] + ["  two  spaces ", "école et café", "这家酒店 很好"] * 5
    tokenizer = train_tokenizer(texts, TokenizerConfig(kind=kind, vocab_size=400), seed=1)  # type: ignore[arg-type]
    readout = {"kind": "document", "outputs": 3, "ngrams": 1, "letters": 4, "ngram_buckets": 4096, "sides": paired}
    trained = trained_with(tokenizer, {"paired": paired}, readout=readout)
    with torch.no_grad():
        trained.model.readout.mix[0] = 0.0  # type: ignore[union-attr,index]
    asked = ["  the  film   was  kind ", " a", "warm, (cold)", "[MASK] a [SEP] the", "\tthe\n\nfilm"]
    config = exported(trained, tmp_path / "out", texts=asked)
    assert config["inputs"][-1] == "word_ids"
    assert config["parity"]["texts"] >= 14 + len(asked)


def test_word_numbers_matter_to_letters(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """The test above would pass if nothing depended on them."""
    readout = {"kind": "document", "outputs": 3, "ngrams": 1, "letters": 4, "ngram_buckets": 4096}
    exported(trained_with(tokenizer, readout=readout), tmp_path / "out")
    session = session_of(tmp_path / "out" / "model.onnx")
    row = np.array([tokenizer.inner.encode("the splendid actor walked").ids])
    given = {"input_ids": row, "attention_mask": np.ones_like(row), "token_type_ids": np.zeros_like(row)}
    (apart,) = session.run(None, {**given, "word_ids": np.arange(row.size)[None]})
    (joined,) = session.run(None, {**given, "word_ids": np.zeros_like(row)})
    assert np.abs(apart - joined).max() > 1e-3


@pytest.mark.parametrize("task", ["classify", "multilabel", "regress"])
def test_the_config_gives_the_answers_of_predict(task: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    said = {"kind": task, "temperature": 1.7, "center": 3.0, "scale": 2.0}
    trained = trained_with(tokenizer, said, readout={"kind": "document", "outputs": 1 if task == "regress" else 3})
    config = exported(trained, tmp_path / "out")
    texts = [text for text, _ in make_texts(9, seed=4)]
    (logits,) = asked(tmp_path / "out", texts)
    if task == "regress":
        found = (logits * config["scale"] + config["center"])[:, 0]
        wanted = [answer["number"] for answer in Predictor(trained).predict(texts)]
    elif task == "multilabel":
        found = 1 / (1 + np.exp(-logits / config["temperature"]))
        wanted = [[answer["probabilities"][label] for label in config["labels"]] for answer in told(trained, texts)]
    else:
        found = np.exp(logits / config["temperature"])
        found /= found.sum(1, keepdims=True)
        wanted = [[answer["probabilities"][label] for label in config["labels"]] for answer in told(trained, texts)]
    np.testing.assert_allclose(found, wanted, atol=2e-6)
    assert probabilities(trained.task, logits) == pytest.approx(found, abs=2e-6)


def told(trained: Trained, texts: list[str]) -> list[dict[str, Any]]:
    return Predictor(trained).predict(texts)


def asked(folder: Path, texts: list[str]) -> list[np.ndarray]:
    """What a program gets that has the folder and nothing else."""
    rows = LIBRARY.from_file(str(folder / "tokenizer.json")).encode_batch(texts)
    feed = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    given = {name: np.array([getattr(row, part) for row in rows]) for name, part in feed.items()}
    return session_of(folder / "model.onnx").run(None, given)


def test_embeddings_are_those_of_predict(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trained = trained_with(tokenizer)
    exported(trained, tmp_path / "out", "embedder")
    texts = [text for text, _ in make_texts(7, seed=8)]
    np.testing.assert_allclose(asked(tmp_path / "out", texts)[0], Predictor(trained).embed(texts), atol=2e-6)


def test_long_texts_are_cut_and_prompts_are_told(tokenizer: Tokenizer, tmp_path: Path) -> None:
    task = {"max_tokens": 12, "prompts": {"query": "the film: "}, "prompt": "query", "long": "cut"}
    trained = trained_with(tokenizer, task, readout={"kind": "vector"})
    config = exported(trained, tmp_path / "out")
    assert (config["max_tokens"], config["prompt"], config["prompts"]) == (12, "query", {"query": "the film: "})
    texts = ["the river under the house and the morning over the child " * 3, "a film"]
    found = asked(tmp_path / "out", ["the film: " + text for text in texts])[0]
    np.testing.assert_allclose(found, Predictor(trained).embed(texts), atol=2e-6)
    assert "`query` is always used" in (tmp_path / "out" / "README.md").read_text(encoding="utf-8")


def test_a_tokenizer_that_frames_nothing_is_given_its_frame(tokenizer: Tokenizer) -> None:
    parts = json.loads(tokenizer.to_json())
    parts["post_processor"] = None
    bare = Tokenizer(LIBRARY.from_str(json.dumps(parts)))
    made = tokenizer_of(trained_with(bare))
    assert made.encode("the film").ids == tokenizer.inner.encode("the film").ids
    assert made.encode("the film", "a child").type_ids == tokenizer.inner.encode("the film", "a child").type_ids


def test_the_readme_runs(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number, (part, paired, shape) in enumerate([("model", True, (1, 3)), ("encoder", False, (2, None, 32))]):
        folder = tmp_path / str(number)
        readout = {"kind": "document", "outputs": 3, "ngrams": 1, "letters": 3, "ngram_buckets": 512}
        exported(trained_with(tokenizer, {"paired": paired}, readout=readout), folder, part)  # type: ignore[arg-type]
        text = (folder / "README.md").read_text(encoding="utf-8")
        code = text.split("```python\n")[1].split("```")[0]
        monkeypatch.chdir(folder)
        names: dict[str, Any] = {}
        exec(compile(code, "README.md", "exec"), names)
        assert len(names["output"].shape) == len(shape)
        assert all(wanted in (None, found) for wanted, found in zip(shape, names["output"].shape))


@pytest.mark.parametrize("encoder", [{}, {"kind": "recurrent"}, HIERARCHICAL[0], HIERARCHICAL[4]], ids=named)
def test_a_row_of_padding_alone_disturbs_nobody(encoder: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path) -> None:
    readout = {"kind": "document", "outputs": 3, "ngrams": 2, "ngram_buckets": 512}
    rows, file = padded_rows(trained_with(tokenizer, readout=readout, **encoder), "model"), tmp_path / "model.onnx"
    write_graph(rows, file)
    ids, mask = np.full((3, 9), 11), np.ones((3, 9), dtype=np.int64)
    mask[1] = 0
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": 0 * ids}
    (found,) = session_of(file).run(None, given)
    (alone,) = session_of(file).run(None, {name: value[[0]] for name, value in given.items()})
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[[0, 2]], np.concatenate([alone, alone]), atol=1e-6)


def test_texts_that_a_tokenizer_cannot_read_are_not_asked(tmp_path: Path) -> None:
    """One of letters alone, without a token for what it does not know."""
    from tokenizers import models, pre_tokenizers

    special = ["[PAD]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {token: number for number, token in enumerate([*special, *"abcdefghijklmnopqrstuvwxyz?"])}
    inner = LIBRARY(models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    inner.add_special_tokens(special)
    config = exported(trained_with(Tokenizer(inner)), tmp_path / "out", "embedder")
    assert 14 < config["parity"]["texts"] < 20


# -- the gate --------------------------------------------------------------------------------------


def nothing_written(folder: Path) -> bool:
    return list(folder.iterdir()) == []


@pytest.mark.parametrize("change", [1e-2, float("nan"), float("inf")])
def test_a_file_that_answers_differently_is_not_written(
    change: float, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def tampered(rows: Any, file: Path) -> None:
        with torch.no_grad():
            rows.model.encoder.blocks[0].attention.outer.bias[3] += change
        write_graph(rows, file)

    monkeypatch.setattr(exporting, "write_graph", tampered)
    with pytest.raises(WeightsError, match=r"does not give this model's own answers: last_hidden_state differs by"):
        write_onnx(trained_with(tokenizer), tmp_path / "out", part="encoder")
    assert nothing_written(tmp_path)


def test_a_file_that_does_not_know_all_shapes_is_not_written(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A number that Python read while tracing would be a constant of the graph."""

    def frozen(rows: Any, file: Path) -> None:
        forward = rows.forward
        rows.forward = lambda *given: forward(*given)[:, : int(given[0].shape[1])]
        write_graph(rows, file)

    monkeypatch.setattr(exporting, "write_graph", frozen)
    with pytest.raises(WeightsError, match=r"does not run as it should: answers of shape \(1, 9, 32\)"):
        write_onnx(trained_with(tokenizer), tmp_path / "out", part="encoder")
    assert nothing_written(tmp_path)


def test_a_damaged_file_is_not_written(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(rows: Any, file: Path) -> None:
        write_graph(rows, file)
        file.write_bytes(file.read_bytes()[:2000])

    monkeypatch.setattr(exporting, "write_graph", damaged)
    with pytest.raises(WeightsError, match="does not run as it should"):
        write_onnx(trained_with(tokenizer), tmp_path / "out")
    assert nothing_written(tmp_path)


def test_a_tokenizer_that_reads_differently_is_not_written(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def other(trained: Trained) -> Any:
        from tokenizers import normalizers

        made = tokenizer_of(trained)
        made.normalizer = normalizers.Replace("a", "the")
        return made

    monkeypatch.setattr(exporting, "tokenizer_of", other)
    with pytest.raises(WeightsError, match=r"reads .* in another way"):
        write_onnx(trained_with(tokenizer), tmp_path / "out")
    assert nothing_written(tmp_path)


def test_an_operator_that_nobody_can_write_is_named(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trained = trained_with(tokenizer)

    class Strange(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.special.bessel_j0(x)

    trained.model.encoder.input_norm = Strange()
    with pytest.raises(WeightsError, match="special_bessel_j0"):
        write_onnx(trained, tmp_path / "out")
    assert nothing_written(tmp_path)


# -- int8 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoder", [{}, {"kind": "recurrent"}, {"mlp_kernel": 3}, {"experts": 3}], ids=named)
def test_int8_is_smaller_and_its_loss_is_told(encoder: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path) -> None:
    trained = trained_with(tokenizer, readout={"kind": "document", "outputs": 3}, width=64, **encoder)
    exported(trained, tmp_path / "exact")
    config = exported(trained, tmp_path / "rounded", int8=True)
    sizes = [(tmp_path / name / "model.onnx").stat().st_size for name in ("exact", "rounded")]
    assert sizes[1] < 0.8 * sizes[0]
    assert config["precision"] == "int8"
    assert 0.98 <= config["int8"]["cosine"] < 1
    assert config["int8"]["same_answers"] >= 0.9
    texts = [text for text, _ in make_texts(40, seed=6)]
    exact, rounded = (asked(tmp_path / name, texts)[0] for name in ("exact", "rounded"))
    assert not np.array_equal(exact, rounded)
    assert (exact.argmax(1) == rounded.argmax(1)).mean() > 0.9
    assert "int8: the cosine to float32" in (tmp_path / "rounded" / "README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize("limit", ["LEAST_COSINE", "LEAST_SAME"])
def test_int8_that_costs_too_much_needs_a_word(
    limit: str, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, limit, 1.1)
    with pytest.raises(WeightsError, match="--accept-loss"):
        write_onnx(trained_with(tokenizer), tmp_path / "out", int8=True)
    assert nothing_written(tmp_path)
    exported(trained_with(tokenizer), tmp_path / "out", int8=True, accept_loss=True)


# -- wrong input -----------------------------------------------------------------------------------


def test_what_cannot_be_is_refused(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trained = trained_with(tokenizer)

    def refused(error: type[EncoderyError], words: str, **options: Any) -> None:
        with pytest.raises(error, match=words):
            write_onnx(trained, tmp_path / "out", **options)
        assert nothing_written(tmp_path)

    refused(DataError, "--part head", part="head")
    refused(DataError, "--accept-loss without --int8", accept_loss=True)
    knowing = replace(trained, knowledge=cast(Any, "of entities"))
    with pytest.raises(WeightsError, match="what it knows of the entities"):
        write_onnx(knowing, tmp_path / "out")
    monkeypatch.setattr("encodery.interop.onnx.graph.MOST_BYTES", 1000)
    refused(WeightsError, "an ONNX file ends at")
    monkeypatch.setattr(exporting, "find_spec", lambda name: None if name == "onnxruntime" else True)
    refused(MissingExtra, r"onnxruntime.*\n.*encodery\[onnx\]")


# -- operators -------------------------------------------------------------------------------------


class Operators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.RMSNorm(4, eps=0.3)
        self.norm.weight.data.uniform_(0.5, 2.0, generator=torch.Generator().manual_seed(1))

    def forward(self, whole: torch.Tensor, x: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, ...]:
        added = torch.zeros(3, 4).index_add(0, index, x)
        return whole ^ (whole * 7), whole >> 5, (whole ^ 12345) >> 1, x.unfold(0, 3, 1), self.norm(x), added


@pytest.mark.filterwarnings("ignore:You are using the legacy:DeprecationWarning")
def test_operators_are_those_of_torch(tmp_path: Path) -> None:
    """Negative numbers and the largest there are, windows as long as there are rows, rows added twice."""
    ends = torch.iinfo(torch.int64)
    whole = torch.tensor([-1, -31, -32, -33, 0, 31, 32, 33, ends.min, ends.max, -(1 << 40) - 1])
    module, file, names = Operators().eval(), tmp_path / "operators.onnx", ["whole", "x", "index"]
    generator = torch.Generator().manual_seed(2)
    given = (whole, torch.randn(5, 4, generator=generator), torch.tensor([0, 2, 2, 0, 2]))
    with known_operators():
        torch.onnx.export(
            module, given, str(file), dynamo=False, opset_version=OPSET, input_names=names,
            dynamic_axes={name: {0: name} for name in names},
        )  # fmt: skip
    for rows in (5, 3, 9):
        x, index = torch.randn(rows, 4, generator=generator), torch.arange(rows) % 3
        found = session_of(file).run(None, {"whole": whole.numpy(), "x": x.numpy(), "index": index.numpy()})
        with torch.no_grad():
            for mine, theirs in zip(found, module(whole, x, index)):
                np.testing.assert_allclose(mine, theirs.numpy(), atol=1e-6)


def test_parity_is_measured_by_share_where_answers_are_large(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A head whose logits are thousands rounds by more than the limit, and is as exact as any other."""
    trained = trained_with(tokenizer, readout={"kind": "document", "outputs": 3})
    with torch.no_grad():
        trained.model.readout.answer.weight.mul_(1e5)  # type: ignore[union-attr,operator]
    rows, file = padded_rows(trained, "model"), tmp_path / "model.onnx"
    write_graph(rows, file)
    questions = text_questions(trained, LIBRARY.from_str(tokenizer_of(trained).to_str()), [])
    assert check_parity(trained, rows, file, questions).largest < ALLOWED / 5
