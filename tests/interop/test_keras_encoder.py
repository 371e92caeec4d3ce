"""The Keras encoder, on TensorFlow and on JAX, says what torch says: for every option, without importing torch."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import encodery
from conftest import batch_of, tiny_model
from encodery.batch import Batch
from encodery.data.embedded import write_demo_files
from encodery.data.tokenizers import Tokenizer, TokenizerConfig, train_tokenizer
from encodery.encoders.options import TransformerConfig
from encodery.interop.huggingface import read_huggingface
from encodery.model import Model, ModelConfig
from encodery.trained import Task, Trained
from options import NAMED

ROOT = Path(__file__).parent.parent.parent
BACKENDS = ["tensorflow", "jax"]
LENGTHS = [13, 4, 1, 9, 16, 7, 2, 11]
LONGEST = 20

# The processes with Keras answer everything at once: minutes, where the processor is busy.
pytestmark = pytest.mark.timeout(900)

# What the rows of the table of options (tests/options.py) leave out: other values, and options together.
OPTIONS: dict[str, dict[str, Any]] = {
    "default": {},
    "alibi, 3 heads": {"positions": "alibi", "heads": 3, "head_width": 8},
    "relative, default buckets": {"positions": "relative"},
    "disentangled, own matrices": {
        "positions": "disentangled",
        "share_position_keys": False,
        "relative_buckets": 16,
        "relative_reach": 16,
    },
    "disentangled, one term": {
        "positions": "disentangled",
        "disentangled": ["position_content"],
        "distance_norm": False,
        "relative_buckets": 6,
        "relative_reach": 24,
        "bias": False,
    },
    "position_start": {"positions": "learned", "position_start": 2, "position_shift": 5},
    "rotary_share, rotary_stretch": {"rotary_share": 0.5, "rotary_stretch": 4.0, "head_width": 12},
    "global tokens, dilated": {"pattern": "dilated", "window": 1, "dilation": 2, "global_tokens": 1},
    "random, relative": {"pattern": "random", "window": 1, "block": 4, "random_blocks": 2, "positions": "relative"},
    "kv_heads 1, value_width": {"kv_heads": 1, "head_width": 6, "value_width": 10, "qk_norm": True},
    "score_scale, norm_bias": {"score_scale": False, "input_norm": False, "first_norm": False, "norm_bias": False},
    "additive, causal": {"score": "additive", "positions": "relative", "kv_heads": 2, "pattern": "causal"},
    "geglu_tanh": {"activation": "geglu_tanh"},
    "mlp_kernel, gated": {"mlp_kernel": 5, "activation": "swiglu", "norm_place": "post"},
    "experts_per_token": {"experts": 3, "experts_per_token": 1, "activation": "geglu"},
    "rmsnorm, post": {"norm": "rmsnorm", "norm_place": "post", "norm_epsilon": 1e-3},
    "batchnorm, both": {"norm": "batchnorm", "norm_place": "both", "norm_bias": False},
    "halve_after twice": {"halve_after": [1, 2], "depth": 4, "positions": "alibi", "pattern": "window", "window": 2},
    "dropping": {"drop_rate": 0.2, "attention_drop_rate": 0.1, "depth_drop_rate": 0.2},
    "depth 0": {"depth": 0},
}


def in_keras(changes: dict[str, Any]) -> bool:
    """Whether a row of the table of options is one that Keras has: the others are refused (test_keras_options.py)."""
    frontend = changes.get("frontend", {})
    made_anew = frontend.get("embedding") in ("hashed", "characters") or not frontend.get("vectors", {}).get(
        "tune", True
    )
    return not made_anew and not {"kind", "fusion"} & set(changes)


OPTIONS |= {name: row for name, row in NAMED.items() if row not in OPTIONS.values() and in_keras(row)}
DENSE = [{"outputs": 12, "activation": name} for name in ("tanh", "gelu", "sigmoid", "relu", "silu")]
READOUTS: dict[str, dict[str, Any]] = {
    **{f"logits, {name}": {"kind": "document", "pooling": name, "outputs": 3} for name in ("first", "mean", "max")},
    "vector, weighted": {"kind": "vector", "pooling": "weighted"},
    "logits, attention, hidden": {"kind": "document", "pooling": "attention", "outputs": 3, "hidden": True},
    "vector, normalise": {"kind": "vector", "dense": [*DENSE, {"outputs": 5, "bias": False}]},
    "vector": {"kind": "vector", "pooling": "attention", "normalise": False},
    "words, not tied": {"kind": "word", "tied": False, "activation": "relu", "bias": False, "norm_epsilon": 1e-3},
}
PRESETS = [f"preset {name}" for name in TransformerConfig.presets]
OTHERS = ["factorised", "BERT", "ModernBERT", "learns"]
CASES = [*OPTIONS, *READOUTS, *PRESETS, *OTHERS]


# -- the cases, and what torch says of them --------------------------------------------------------


def documents(vocab_size: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Ids and segments of some documents."""
    rng = np.random.default_rng(3)
    return [(rng.integers(5, vocab_size, size=size), (np.arange(size) > size // 2) * 1) for size in LENGTHS]


def made(config: dict[str, Any], tokenizer: Tokenizer) -> Trained:
    frontend = {"vocab_size": tokenizer.vocab_size, **config.pop("frontend", {})}
    model = Model(ModelConfig.model_validate({"frontend": frontend, **config})).initialise(5).eval()
    return Trained(model, tokenizer, Task("masked"))


def imported(family: str, folder: Path) -> Trained:
    """A small model of transformers with random weights, read from its own folder."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijklmnopqrstuvwxyz"]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    sizes = {"hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 48, "initializer_range": 0.3}
    sizes |= {"vocab_size": len(words), "max_position_embeddings": 24, "pad_token_id": 0}
    torch.manual_seed(0)
    if family == "BERT":
        config = transformers.BertConfig(num_hidden_layers=3, **sizes)
        transformers.BertForMaskedLM(config).save_pretrained(folder)
    else:
        special = {"cls_token_id": 2, "sep_token_id": 3, "bos_token_id": 2, "eos_token_id": 3}
        local = {"local_attention": 6, "global_attn_every_n_layers": 3, "initializer_cutoff_factor": 5.0}
        config = transformers.ModernBertConfig(num_hidden_layers=5, **sizes, **special, **local)
        transformers.ModernBertForMaskedLM(config).save_pretrained(folder)
    transformers.BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    return read_huggingface(folder)


def cases(tokenizer: Tokenizer, place: Path) -> Iterator[tuple[str, Trained]]:
    """One at a time: the largest preset takes memory."""
    size = tokenizer.vocab_size
    for name, options in OPTIONS.items():
        yield name, Trained(tiny_model(vocab_size=size, **{"max_length": 24, **options}), tokenizer, Task("masked"))
    for name, readout in READOUTS.items():
        yield name, Trained(tiny_model(vocab_size=size, readout=readout), tokenizer, Task("masked"))
    for name in PRESETS:  # more than the twelve blocks of `base` would take a minute and tell nothing new
        preset = name.removeprefix("preset ")
        deep = {"depth": 4} if preset == "large" else {}
        yield name, made({"encoder": {"preset": preset, "max_length": 24, **deep}}, tokenizer)
    small = {"width": 32, "heads": 4, "depth": 2, "max_length": 24, "drop_rate": 0.1}
    yield "factorised", made({"frontend": {"width": 12, "segments": 0}, "encoder": small}, tokenizer)
    yield "learns", made({"encoder": small}, tokenizer)
    for family in ("BERT", "ModernBERT"):
        yield family, imported(family, place / f"transformers-{family}")


def write(trained: Trained, folder: Path, *, labels: bool) -> None:
    """The model folder, and the documents as padded rows; every third has its padding in front."""
    trained.save(folder, card="", metrics={})
    texts = documents(trained.tokenizer.vocab_size)
    ids, segments = np.zeros((len(texts), LONGEST), np.int32), np.zeros((len(texts), LONGEST), np.int32)
    mask = np.zeros((len(texts), LONGEST), bool)
    for row, (own, segment) in enumerate(texts):
        begin = LONGEST - own.size if row % 3 == 2 else 0
        span = slice(begin, begin + own.size)
        ids[row, span], segments[row, span], mask[row, span] = own, segment, True
    given = {"ids": ids, "mask": mask, "segments": segments}
    np.savez(folder / "inputs.npz", **given, **({"labels": np.arange(len(texts)) % 3} if labels else {}))


@torch.inference_mode()
def by_torch(trained: Trained) -> dict[str, np.ndarray]:
    """The vectors of all tokens, one document after the other, and what the readout says: of every token, or of each
    document."""
    texts = documents(trained.tokenizer.vocab_size)
    batch = batch_of([[ids] for ids, _ in texts], LONGEST)
    real = torch.nonzero(batch.layout.document >= 0)[:, 0]
    batch.values["segment"][real] = torch.from_numpy(np.concatenate([segments for _, segments in texts]))
    batch = Batch(batch.values, batch.layout, {"at": real})
    output = trained.model(batch)
    answers = output.vectors if output.logits is None else output.logits
    assert answers is not None
    return {"states": trained.model.encode(batch).vectors[real].numpy(), "answers": answers.numpy()}


# -- processes with Keras --------------------------------------------------------------------------


def start(backend: str, *arguments: str, **variables: str) -> subprocess.Popen[str]:
    """Python with Keras on this backend: of the environment that `make test` makes, or that ENCODERY_KERAS_PYTHON
    names. JAX compiles faster without optimisations that models of a few calls do not need."""
    python = Path(os.environ.get("ENCODERY_KERAS_PYTHON", ROOT / ".venv" / "keras" / "bin" / "python"))
    assert python.exists(), f"there is no {python}: `make .venv/keras/.installed` makes it"
    asked = {"KERAS_BACKEND": backend, "PYTHONPATH": str(ROOT / "src"), "CUDA_VISIBLE_DEVICES": ""}
    # TensorFlow asks the processor what it can, not oneDNN, and crashes in bf16 where this variable allows less.
    given = {name: value for name, value in os.environ.items() if name != "ONEDNN_MAX_CPU_ISA"}
    quiet = {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [str(python), *arguments],
        env={**given, **asked, **quiet, **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.fixture(scope="module")
def said(tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of all cases, in which both backends have answered."""
    folder = tmp_path_factory.mktemp("keras")
    for name, trained in cases(tokenizer, folder):
        write(trained, folder / name, labels=name == "learns")
        np.savez(folder / name / "torch.npz", **by_torch(trained))
    script = str(Path(__file__).with_name("keras_answers.py"))
    for backend, process in [(backend, start(backend, script, str(folder))) for backend in BACKENDS]:
        printed, _ = process.communicate(timeout=800)
        (folder / f"{backend}.txt").write_text(printed)
    for name in PRESETS:
        (folder / name / "model.safetensors").unlink()
    return folder


def reason(said: Path, name: str, backend: str) -> str:
    """Why there is no answer."""
    file = said / f"{backend}.json"
    return json.loads(file.read_text())[name] if file.exists() else (said / f"{backend}.txt").read_text()


def differences(said: Path, name: str, backend: str, expected: dict[str, np.ndarray]) -> dict[str, float]:
    """The largest difference of the vectors, and of the answers."""
    file = said / name / f"{backend}.npz"
    assert file.exists(), reason(said, name, backend)
    found, mask = dict(np.load(file)), np.load(said / name / "inputs.npz")["mask"]
    assert all(np.isfinite(numbers).all() for numbers in found.values()), "padding gives no numbers"
    real = {key: numbers[mask] if numbers.ndim == 3 else numbers for key, numbers in found.items()}
    assert {key: numbers.shape for key, numbers in real.items()} == {key: x.shape for key, x in expected.items()}
    return {key: float(np.abs(real[key] - expected[key]).max()) for key in expected}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", [name for name in CASES if name != "learns"])
def test_keras_says_what_torch_says(name: str, backend: str, said: Path) -> None:
    found = differences(said, name, backend, dict(np.load(said / name / "torch.npz")))
    assert max(found.values()) <= 1e-4, found


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_reads_what_keras_has_learned(backend: str, said: Path) -> None:
    """A new readout and the encoder below it learn in Keras; the folder that is written opens in torch and says the
    same."""
    before, after = Trained.load(said / "learns"), Trained.load(said / "learns" / backend)
    assert after.task.kind == "classify" and after.task.labels == ("no", "yes", "maybe")
    found = differences(said, "learns", backend, by_torch(after))
    assert max(found.values()) <= 1e-4, found
    own, learned = before.model.state_dict(), after.model.state_dict()
    body = [name for name in own if not name.startswith("readout.")]
    assert all(not torch.equal(own[name], learned[name]) for name in body)


@pytest.mark.parametrize("backend", BACKENDS)
def test_torch_is_never_imported(backend: str, said: Path) -> None:
    assert json.loads((said / f"{backend}.json").read_text())["torch"] == "not imported"


@pytest.mark.parametrize("backend", BACKENDS)
def test_it_is_what_keras_users_expect(backend: str, said: Path) -> None:
    """Masks, configs, saving, learning, wrong input: keras_checks.py, by pytest of the other environment."""
    printed = (said / f"{backend}.txt").read_text()
    last = printed.strip().splitlines()[-1]
    assert re.fullmatch(r"\d+ passed.* in .*", last) and "skipped" not in last, printed


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_example_learns_real_labels_and_torch_answers_alike(backend: str, tmp_path: Path) -> None:
    """On JAX it goes on from a model folder that torch wrote, on TensorFlow it starts from nothing."""
    files = write_demo_files(tmp_path / "data", labelled=2000, validation=0, test=1000)
    arguments = [str(ROOT / "examples" / "10_keras.py")]
    if backend == "jax":
        texts = [json.loads(line)["text"] for line in files.train.read_text(encoding="utf-8").splitlines()]
        own = train_tokenizer(texts, TokenizerConfig(vocab_size=2000), seed=1)
        encoder = {"preset": "tiny", "depth": 1, "max_length": 48, "positions": "learned"}
        made({"encoder": encoder}, own).save(tmp_path / "torch", card="", metrics={})
        arguments += [str(tmp_path / "torch"), str(tmp_path / "result")]
    process = start(backend, *arguments, JAX_DISABLE_MOST_OPTIMIZATIONS="0")
    printed, _ = process.communicate(timeout=800)
    assert process.returncode == 0, printed
    said = re.search(
        rf"^{backend}: accuracy ([\d.]+) on 1000 reviews; the more frequent label: ([\d.]+)$", printed, re.M
    )
    folder = re.search(r"^torch or not: False; now: encodery predict (\S+) ", printed, re.M)
    assert said is not None and folder is not None, printed
    assert float(said[1]) > float(said[2]) + 0.1
    rows = [json.loads(line) for line in files.test.read_text(encoding="utf-8").splitlines()]
    answers = encodery.load(folder[1]).predict([row["text"] for row in rows])
    right = np.mean([answer["label"] == row["label"] for answer, row in zip(answers, rows)])
    assert right == pytest.approx(float(said[1]), abs=1.01e-3)  # one row may stand on the edge between two labels
