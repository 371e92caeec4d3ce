"""Contenders: sentence vectors of all-MiniLM-L6-v2 by other libraries. Prints one JSON line.

st-*: sentence-transformers (batches of 32, sorted by length by itself). ort-*, ov-*: ONNX Runtime and OpenVINO on the
exported graph, batches of 32 of similar lengths, mean of the last states. fastembed: the same graph as fastembed runs
it, in the order and the batches it has by default.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

BATCH = 32
LONGEST = 256  # tokens of a text that sentence-transformers reads with this model
KINDS = {"st": ["fp32", "bf16", "onnx", "openvino"], "ort": ["fp32", "int8"], "ov": ["fp32", "bf16", "int8"]}
PEERS = [*(f"{library}-{kind}" for library, kinds in KINDS.items() for kind in kinds), "fastembed"]
Encode = Callable[[list[str]], np.ndarray]


def sentence_transformers(model: Path, kind: str) -> Encode:
    import torch
    from sentence_transformers import SentenceTransformer

    if kind in ("onnx", "openvino"):
        loaded = SentenceTransformer(str(model), backend=kind, device="cpu")
    else:
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        loaded = SentenceTransformer(str(model), device="cpu", model_kwargs={"torch_dtype": dtype})
    return lambda texts: loaded.encode(texts, batch_size=BATCH, convert_to_numpy=True, show_progress_bar=False)


def exported(model: Path, work: Path) -> Path:
    """The graph of the encoder, any batch and length, written once."""
    file = work / "minilm.onnx"
    if not file.exists():
        import torch
        from transformers import AutoModel

        loaded = AutoModel.from_pretrained(model, attn_implementation="eager").eval()

        class States(torch.nn.Module):
            def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, token_type_ids: torch.Tensor):
                return loaded(
                    input_ids=input_ids, attention_mask=attention_mask, token_type_ids=token_type_ids
                ).last_hidden_state

        names = ["input_ids", "attention_mask", "token_type_ids"]
        shape = {0: torch.export.Dim("batch"), 1: torch.export.Dim("length", max=512)}
        torch.onnx.export(
            States(),
            tuple(torch.ones(2, 16, dtype=torch.int64) for _ in names),
            str(file),
            input_names=names,
            output_names=["states"],
            dynamic_shapes=dict.fromkeys(names, shape),
            dynamo=True,
        )
    return file


def on_graph(model: Path, run: Callable[[dict[str, np.ndarray]], np.ndarray]) -> Encode:
    """Batches of similar lengths through `run`, then the mean over real tokens, scaled to length 1."""
    import tokenizers

    tokenizer = tokenizers.Tokenizer.from_file(str(model / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)

    def encode(texts: list[str]) -> np.ndarray:
        rows = [encoding.ids for encoding in tokenizer.encode_batch(texts)]
        order = sorted(range(len(rows)), key=lambda number: -len(rows[number]))
        found = np.zeros((len(rows), 384), dtype=np.float32)
        for at in range(0, len(order), BATCH):
            chosen = order[at : at + BATCH]
            length = len(rows[chosen[0]])
            ids = np.zeros((len(chosen), length), dtype=np.int64)
            mask = np.zeros_like(ids)
            for place, number in enumerate(chosen):
                ids[place, : len(rows[number])] = rows[number]
                mask[place, : len(rows[number])] = 1
            states = run({"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)})
            mean = (states * mask[:, :, None]).sum(axis=1) / mask.sum(axis=1, keepdims=True)
            found[chosen] = mean / np.linalg.norm(mean, axis=1, keepdims=True)
        return found

    return encode


def onnxruntime(model: Path, work: Path, kind: str, threads: int) -> Encode:
    import onnxruntime as ort

    file = exported(model, work)
    if kind == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        small = work / "minilm_int8.onnx"
        if not small.exists():
            quantize_dynamic(file, small, weight_type=QuantType.QInt8, per_channel=True)
        file = small
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    session = ort.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    return on_graph(model, lambda given: np.asarray(session.run(None, given)[0]))


def openvino(model: Path, work: Path, kind: str, threads: int) -> Encode:
    import openvino as ov

    core = ov.Core()
    graph = core.read_model(str(work / "minilm_int8.onnx" if kind == "int8" else exported(model, work)))
    settings: dict[str, Any] = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
    settings["INFERENCE_PRECISION_HINT"] = "bf16" if kind == "bf16" else "f32"
    compiled = core.compile_model(graph, "CPU", settings)
    return on_graph(model, lambda given: np.asarray(compiled(given)[0]))


def fastembed(model: Path, work: Path, threads: int) -> Encode:
    from fastembed import TextEmbedding

    folder = work / "fastembed"
    folder.mkdir(exist_ok=True)
    for name in ("config.json", "tokenizer.json", "special_tokens_map.json"):
        shutil.copyfile(model / name, folder / name)
    settings = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    settings["model_max_length"] = LONGEST
    (folder / "tokenizer_config.json").write_text(json.dumps(settings), encoding="utf-8")
    graph = exported(model, work)
    shutil.copyfile(graph, folder / "model.onnx")
    for weights in work.glob(f"{graph.name}.*"):
        shutil.copyfile(weights, folder / weights.name)
    name = "sentence-transformers/all-MiniLM-L6-v2"
    loaded = TextEmbedding(name, threads=threads, specific_model_path=str(folder))
    return lambda texts: np.stack(list(loaded.embed(texts)))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--peer", choices=PEERS, required=True)
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--vectors", type=Path)
    asked = parser.parse_args()
    import tokenizers

    library, _, kind = asked.peer.partition("-")
    if library == "st":
        import torch

        torch.set_num_threads(asked.threads)
        encode = sentence_transformers(asked.model, kind)
    elif library == "ort":
        encode = onnxruntime(asked.model, asked.work, kind, asked.threads)
    elif library == "fastembed":
        encode = fastembed(asked.model, asked.work, asked.threads)
    else:
        encode = openvino(asked.model, asked.work, kind, asked.threads)
    lines = (asked.work / "texts.jsonl").read_text(encoding="utf-8").splitlines()[: asked.texts]
    texts = [json.loads(line)["text"] for line in lines]
    counting = tokenizers.Tokenizer.from_file(str(asked.model / "tokenizer.json"))
    counting.no_padding()
    counting.no_truncation()
    tokens = sum(len(encoding.ids) for encoding in counting.encode_batch(texts))
    encode(texts[:200])
    begin = time.perf_counter()
    vectors = encode(texts)
    seconds = time.perf_counter() - begin
    one = " ".join(["word"] * 30)
    latencies = []
    for _ in range(60):
        begin = time.perf_counter()
        encode([one])
        latencies.append(time.perf_counter() - begin)
    if asked.vectors:
        np.save(asked.vectors, np.asarray(vectors, dtype=np.float32))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    p50 = 1000 * float(np.median(latencies[20:]))
    print(json.dumps({"tokens": tokens, "seconds": seconds, "p50_ms": p50, "peak_mb": peak}))


if __name__ == "__main__":
    main()
