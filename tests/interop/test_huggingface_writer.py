"""Our own encoders as folders of Hugging Face: the same answers where an architecture fits, plain words where none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from huggingface_cases import in_rows, our_states, their_ids, their_model, their_states, transformers

from conftest import make_texts, tiny_model
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.errors import WeightsError
from encodery.interop.huggingface import read_huggingface, write_huggingface
from encodery.model import Model, ModelConfig
from encodery.trained import Task, Trained
from encodery.use.predict import Predictor

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

TEXTS = [text for text, _ in make_texts(8, seed=4)]
PLAIN = {"qk_norm": False}  # The default norms queries and keys, which few architectures do.
MODERN = {"activation": "geglu", "bias": False, "norm_bias": False, "first_norm": False}
LLAMA = {**PLAIN, "norm": "rmsnorm", "activation": "swiglu", "bias": False, "input_norm": False}

EXPRESSED: list[tuple[str, dict[str, Any]]] = [
    ("esm", {}),  # norms before, rotary, gelu, biases
    ("esm", {"input_norm": False}),
    ("esm", {"bias": False}),
    ("esm", {"bias": False, "norm_bias": True}),
    ("esm", {"rotary_base": 500.0}),
    ("esm", {"rotary_stretch": 4.0}),
    ("esm", {"kv_heads": 2}),
    ("esm", {"layer_scale": 0.1}),
    ("esm", {"distinct_blocks": 1}),
    ("esm", {"score_scale": False}),
    ("esm", {"kv_heads": 1, "bias": False, "layer_scale": 0.2, "distinct_blocks": 1, "depth": 3}),
    ("bert", {"positions": "learned", "norm_place": "post"}),
    # BERT's head has the activation of the blocks, ELECTRA's always gelu.
    ("electra", {"positions": "learned", "norm_place": "post", "bias": False, "activation": "relu"}),
    ("bert", {"positions": "sinusoidal", "norm_place": "post"}),
    ("bert", {"positions": "random", "norm_place": "post", "position_shift": 5}),
    ("bert", {"positions": "none", "norm_place": "post"}),
    ("roberta-prelayernorm", {"positions": "learned", "activation": "gelu_tanh", "position_shift": 3}),
    ("megatron-bert", {"positions": "learned", "input_norm": False}),
    ("modernbert", MODERN),
    ("modernbert", {**MODERN, "pattern": "window", "window": 3, "global_every": 2, "depth": 3}),
    ("modernbert", {**MODERN, "pattern": "window", "window": 2, "rotary_base_local": 50.0}),
    ("modernbert", {**MODERN, "bias": True, "activation": "swiglu"}),
    ("nomic_bert", {"norm_place": "post", "activation": "geglu", "bias": False, "norm_bias": True}),
    ("jina_embeddings_v3", {"norm_place": "post"}),
    (
        "deberta-v2",
        {"positions": "disentangled", "norm_place": "post", "relative_buckets": 8, "relative_reach": 20},
    ),
    ("electra", {"positions": "learned", "norm_place": "post", "frontend": {"width": 16}}),
    ("albert", {"positions": "learned", "norm_place": "post", "frontend": {"width": 16}, "distinct_blocks": 1}),
    ("bert", {"positions": "learned", "norm_place": "post", "frontend": {"segments": 0}}),
    ("esm", {"frontend": {"segments": 1}}),
    ("esm", {"frontend": {"embedding": "hashed", "hash_rows": 64}}),
    ("esm", {"frontend": {"embedding": "characters", "ngram_rows": 256}}),
]
VECTORS_ONLY: list[tuple[str, dict[str, Any]]] = [
    ("eurobert", {**LLAMA, "kv_heads": 2}),
    ("t5", {**LLAMA, "positions": "relative", "score_scale": False, "head_width": 6, "activation": "relu"}),
    ("t5", {**LLAMA, "positions": "relative", "kv_heads": 1}),
    ("persimmon", {}),  # the default
    ("persimmon", {"input_norm": False, "rotary_share": 0.5, "activation": "silu"}),
    ("persimmon", {"kv_heads": 2, "bias": False, "distinct_blocks": 1, "layer_scale": 0.1}),
    ("persimmon", {"frontend": {"segments": 0, "embedding": "hashed", "hash_rows": 64}}),
    ("persimmon", {**PLAIN, "activation": "relu"}),
]


def made(tokenizer: Tokenizer, readout: dict[str, Any], task: Task, **options: Any) -> Trained:
    """A tiny model whose weights all matter."""
    frontend = {"vocab_size": tokenizer.vocab_size, **options.pop("frontend", {})}
    encoder = {"kind": "transformer", "width": 32, "depth": 2, "heads": 4, "mlp_width": 48, "max_length": 64, **options}
    config = ModelConfig.model_validate({"frontend": frontend, "encoder": encoder, "readout": readout})
    model = Model(config)
    model.frontend.spell(tokenizer.written())
    model.initialise(3)
    generator = torch.Generator().manual_seed(4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return Trained(model.eval(), tokenizer, task)


def named(case: Any) -> str:
    return "-".join(f"{key}={value}" for key, value in case.items()) if isinstance(case, dict) else ""


def compare(trained: Trained, folder: Path, *, logits: bool) -> None:
    ids = their_ids(folder, TEXTS)
    pad = trained.tokenizer.pad_id
    for head in (False, True) if logits else (False,):
        theirs = their_states(their_model(folder, head=head), ids, pad)
        ours = our_states(trained, in_rows(ids, pad)["packed"], logits=head)
        for document, states in zip(ids, theirs):
            torch.testing.assert_close(ours[tuple(document.tolist())], states, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("family", "options"), EXPRESSED, ids=named)
def test_an_encoder_that_an_architecture_can_express_gives_the_same_answers_there(
    family: str, options: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    trained = made(tokenizer, {"kind": "word"}, Task("masked"), **PLAIN, **options)
    assert write_huggingface(trained, tmp_path / "theirs") == family
    compare(trained, tmp_path / "theirs", logits=True)
    again = read_huggingface(tmp_path / "theirs")
    assert again.task.kind == "masked"
    compare(again, tmp_path / "theirs", logits=True)


@pytest.mark.parametrize(("family", "options"), VECTORS_ONLY, ids=named)
def test_some_architectures_have_no_head_for_masked_words(
    family: str, options: dict[str, Any], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    trained = made(tokenizer, {"kind": "vector"}, Task("vectors"), **options)
    assert write_huggingface(trained, tmp_path / "theirs") == family
    compare(trained, tmp_path / "theirs", logits=False)
    guessing = made(tokenizer, {"kind": "word"}, Task("masked"), **options)
    said: list[str] = []
    assert write_huggingface(guessing, tmp_path / "bare", said.append) == family
    compare(guessing, tmp_path / "bare", logits=False)
    readme = (tmp_path / "bare" / "README.md").read_text()
    assert any("the head that guesses hidden words is left out" in note for note in said)
    assert any("transformers 5" in note for note in said) == (family == "persimmon")
    assert all(note in readme for note in said)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"kind": "recurrent"}, r"encoder\.kind: recurrent, \S+ has transformer"),
        (
            {"qk_norm": True, "positions": "learned", "norm_place": "post"},
            r"nearest is bert, and in the way stand\n  encoder\.qk_norm: true, bert has false",
        ),
        ({"pattern": "causal"}, r"nearest is esm[\s\S]*encoder\.pattern: causal, esm has full"),
        ({"positions": "alibi"}, r"encoder\.positions: alibi, roberta-prelayernorm has learned"),
        ({"activation": "geglu"}, r"nearest is modernbert[\s\S]*encoder\.first_norm: true, modernbert has false"),
        ({"experts": 2}, r"encoder\.experts: 2, esm has 0"),
        ({"norm": "batchnorm"}, r"encoder\.norm: batchnorm, esm has layernorm"),
        (
            {"mlp_kernel": 3, "halve_after": [1]},
            r"encoder\.mlp_kernel: 3, esm has 1\n  encoder\.halve_after: 1, esm has none\n",
        ),
        (
            {"positions": "none", "norm_place": "both"},
            r"nearest is bert[\s\S]*encoder\.norm_place: both, bert has post",
        ),
        ({"residual_scale": 1.5}, r"encoder\.residual_scale: 1\.5, esm has 1\.0"),
    ],
    ids=named,
)
def test_what_no_architecture_can_express_is_said_with_the_options_in_the_way(
    options: dict[str, Any], message: str, tokenizer: Tokenizer, tmp_path: Path
) -> None:
    plain = {} if options.get("kind") == "recurrent" else PLAIN
    model = tiny_model(vocab_size=tokenizer.vocab_size, **{**plain, **options})
    with pytest.raises(WeightsError, match=message):
        write_huggingface(Trained(model, tokenizer, Task("masked")), tmp_path / "theirs")
    assert not (tmp_path / "theirs").exists()


def test_what_tells_the_texts_of_a_pair_apart_is_never_dropped_from_a_model_of_pairs(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    alone = made(tokenizer, {"kind": "word"}, Task("masked"), **PLAIN)
    assert write_huggingface(alone, tmp_path / "alone") == "esm"
    assert "the vector of a second text is left out" in (tmp_path / "alone" / "README.md").read_text()
    pairs = Trained(alone.model, tokenizer, Task("masked", paired=True))
    with pytest.raises(WeightsError, match=r"nearest is esm[\s\S]*frontend\.segments: 2, esm has 0"):
        write_huggingface(pairs, tmp_path / "pairs")
    with torch.no_grad():
        alone.model.frontend.segments.weight[1] = alone.model.frontend.segments.weight[0]
    assert write_huggingface(pairs, tmp_path / "pairs") == "esm"
    # In a family with segments pairs keep them, and AutoTokenizer numbers the texts.
    post: dict[str, Any] = {**PLAIN, "positions": "learned", "norm_place": "post"}
    bert = made(tokenizer, {"kind": "word"}, Task("masked", paired=True), **post)
    assert write_huggingface(bert, tmp_path / "bert") == "bert"
    found = transformers.AutoTokenizer.from_pretrained(tmp_path / "bert")("the film", "a story")
    assert found["token_type_ids"] == [0, 0, 0, 0, 1, 1, 1]


HOSTILE = [
    "我们都喜欢这本书，因为它很好看 𠮷野家",
    "👩‍👩‍👧‍👦 🇩🇪 ❤️ ok",
    "e\u0301a\u0300\u0323 Å ﬁ ｶﾞ が",
    "a\x00b\x01\x02c\x7f \u200b\u200d\ufeff \u202eabc",
    "x" * 3000,
    "  leading, \t tabs \r\n and trailing   ",
    "[MASK] [CLS] <mask> [unused1]",
    ".",
    "\ud800 lone",
    "ÀÉÎ straße ΣΊΣΥΦΟΣ İstanbul",
    "١٢٣ हिन्दी ภาษาไทย 한국어",
]


@pytest.mark.parametrize("kind", ["wordpiece", "bpe", "byte_bpe", "unigram", "characters", "bytes"])
def test_autotokenizer_gives_our_ids_on_hostile_text(kind: str, tmp_path: Path) -> None:
    texts = [text for text, _ in make_texts(60)] + ["我们都喜欢这本书，因为它很好看", "naïve café déjà vu"] * 20
    size = {} if kind == "bytes" else {"vocab_size": 300}
    own = train_tokenizer(texts, TokenizerConfig.model_validate({"kind": kind, **size}), seed=1)
    trained = made(own, {"kind": "vector"}, Task("vectors"), max_length=4096)
    write_huggingface(trained, tmp_path / "theirs")
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "theirs")
    for text in [*HOSTILE, *texts[:5]]:
        clean = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        wanted = [own.cls_id, *own.encode_batch([clean])[0].ids.tolist(), own.sep_id]
        assert theirs(clean)["input_ids"] == wanted, repr(text)
    assert theirs.model_max_length == 4096
    assert (theirs.pad_token, theirs.mask_token, theirs.cls_token) == ("[PAD]", "[MASK]", "[CLS]")
    batch = theirs(["the film", "a"], padding=True)
    assert batch["input_ids"][1][-1] == own.pad_id


def test_a_classifier_is_written_as_linear_layers_of_sentence_transformers(
    tokenizer: Tokenizer, tmp_path: Path
) -> None:
    library = pytest.importorskip("sentence_transformers")
    readout = {"kind": "document", "outputs": 2, "hidden": True, "pooling": "max"}
    trained = made(tokenizer, readout, Task("classify", ("bad", "good"), temperature=1.7))
    assert write_huggingface(trained, tmp_path / "theirs") == "persimmon"
    logits = library.SentenceTransformer(str(tmp_path / "theirs"), device="cpu").encode(TEXTS)
    shares = torch.softmax(torch.from_numpy(logits), dim=-1).numpy()
    for answer, share in zip(Predictor(trained).predict(TEXTS), shares):
        np.testing.assert_allclose([answer["probabilities"][label] for label in ("bad", "good")], share, atol=1e-5)
    assert "bad, good" in (tmp_path / "theirs" / "README.md").read_text()

    number = made(tokenizer, {"kind": "document", "outputs": 1}, Task("regress", center=5.0, scale=2.5))
    write_huggingface(number, tmp_path / "number")
    found = library.SentenceTransformer(str(tmp_path / "number"), device="cpu").encode(TEXTS)
    np.testing.assert_allclose([one["number"] for one in Predictor(number).predict(TEXTS)], found[:, 0], atol=1e-5)


def test_answers_that_no_module_can_give_are_left_out_and_said(tokenizer: Tokenizer, tmp_path: Path) -> None:
    readout = {"kind": "document", "outputs": 2, "ngrams": 2}
    trained = made(tokenizer, readout, Task("classify", ("bad", "good")))
    write_huggingface(trained, tmp_path / "theirs")
    compare(trained, tmp_path / "theirs", logits=False)
    assert "the answers are left out" in (tmp_path / "theirs" / "README.md").read_text()
    attention = made(tokenizer, {"kind": "vector", "pooling": "attention"}, Task("vectors"))
    with pytest.raises(WeightsError, match=r"readout\.pooling is attention[\s\S]*one of first, mean, weighted, max"):
        write_huggingface(attention, tmp_path / "other")


def test_a_head_beside_that_for_masked_words_is_left_out_and_said(tokenizer: Tokenizer, tmp_path: Path) -> None:
    readout = {"kind": "links", "relations": 3, "link_width": 8, "norm_epsilon": 1e-6, "activation": "gelu"}
    trained = made(tokenizer, readout, Task("masked"), **PLAIN, norm_epsilon=1e-6)
    assert write_huggingface(trained, tmp_path / "theirs") == "esm"
    assert "the scores of relations between entities are left out" in (tmp_path / "theirs" / "README.md").read_text()
    compare(read_huggingface(tmp_path / "theirs"), tmp_path / "theirs", logits=True)
    compare(trained, tmp_path / "theirs", logits=False)


def test_a_folder_is_written_whole_or_not_at_all(tokenizer: Tokenizer, tmp_path: Path) -> None:
    trained = made(tokenizer, {"kind": "word"}, Task("masked"), **PLAIN)
    folder = tmp_path / "theirs"
    folder.mkdir()
    write_huggingface(trained, folder)  # an empty folder is as good as none
    files = {path.name for path in folder.iterdir()}
    wanted = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"}
    assert files == wanted | {"README.md"}
    with pytest.raises(WeightsError, match="is there already"):
        write_huggingface(trained, folder)
    with pytest.raises(WeightsError, match="is there already"):
        write_huggingface(trained, folder / "config.json")
    assert [path.name for path in tmp_path.iterdir()] == ["theirs"]
    config = json.loads((folder / "config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("esm", ["EsmForMaskedLM"])


def test_a_model_that_was_saved_in_between_goes_back_to_its_family(tmp_path: Path, tokenizer: Tokenizer) -> None:
    """ELECTRA and BERT are one architecture: which one a model came from is kept with it."""
    post: dict[str, Any] = {**PLAIN, "positions": "learned", "norm_place": "post"}
    bert = made(tokenizer, {"kind": "word"}, Task("masked"), **post)
    write_huggingface(bert, tmp_path / "bert")
    config = json.loads((tmp_path / "bert" / "config.json").read_text())
    assert config["model_type"] == "bert"
    vectors = made(tokenizer, {"kind": "vector"}, Task("vectors"), **post)
    write_huggingface(vectors, tmp_path / "electra")
    changed = json.loads((tmp_path / "electra" / "config.json").read_text())
    changed |= {"model_type": "electra", "architectures": ["ElectraModel"], "embedding_size": 32}
    (tmp_path / "electra" / "config.json").write_text(json.dumps(changed))
    read_huggingface(tmp_path / "electra").save(tmp_path / "model", card="", metrics={})
    assert write_huggingface(Trained.load(tmp_path / "model"), tmp_path / "back") == "electra"
