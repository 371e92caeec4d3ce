"""Trained -> a folder for ONNX Runtime: the graph, its tokenizer, what its numbers mean and how to run it."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast, get_args

import tokenizers
from tokenizers import processors

from encodery.data.frames import frame_of
from encodery.durable import whole_folder
from encodery.errors import DataError, MissingExtra, WeightsError
from encodery.interop.onnx.graph import PaddedRows, Part, padded_rows, write_graph
from encodery.interop.onnx.operators import OPSET
from encodery.interop.onnx.parity import (
    ALLOWED,
    Parity,
    Question,
    RoundingLoss,
    Session,
    compare,
    made_questions,
    rounding_loss,
    text_questions,
)
from encodery.interop.onnx.readme import readme
from encodery.trained import Trained

MODEL, TOKENIZER, CONFIG, README = "model.onnx", "tokenizer.json", "config.json", "README.md"
LEAST_COSINE = 0.98
"""Of int8 beside float32, on average over the texts; less is refused."""
LEAST_SAME = 0.9
"""Share of the answers that int8 must leave as they are, where there are answers to decide."""


def write_onnx(
    trained: Trained,
    folder: Path,
    *,
    part: str = "model",
    int8: bool = False,
    accept_loss: bool = False,
    texts: Sequence[str] = (),
) -> list[str]:
    """Write the model as ONNX into the new folder; lines that say what was written and how exact it is.

    `part`: model (with its readout), encoder (vectors of tokens) or embedder (a vector a text). With `int8` matrices
    and embeddings are rounded to 8 bits (dynamic quantisation); `accept_loss` writes the file even when that costs more
    than is allowed. `texts` are compared beside those that always are. Nothing is written when the file does not give
    the model's own answers: WeightsError. MissingExtra without the packages onnx and onnxruntime.
    """
    if part not in get_args(Part):
        raise DataError(f"--part {part}", expected=f"one of {', '.join(get_args(Part))}")
    if accept_loss and not int8:
        raise DataError("--accept-loss without --int8", expected="--accept-loss beside --int8: fp32 loses nothing")
    for package in ("onnx", "onnxruntime"):
        if find_spec(package) is None:
            raise MissingExtra(package, "onnx", "exporting to ONNX")
    rows = padded_rows(trained, cast(Part, part))
    with whole_folder(folder) as beside:
        tokenizer = tokenizer_of(trained)
        tokenizer.save(str(beside / TOKENIZER), pretty=False)
        file = beside / MODEL
        write_graph(rows, file)
        spoken = text_questions(trained, tokenizers.Tokenizer.from_file(str(beside / TOKENIZER)), texts)
        parity = check_parity(trained, rows, file, [*made_questions(trained), *spoken])
        loss = None
        if int8:
            loss = _round(rows, file, spoken, accept_loss)
        config = config_of(trained, rows, parity, loss)
        (beside / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        (beside / README).write_text(readme(config), encoding="utf-8")
        size = file.stat().st_size
    return _told(folder, rows, size, parity, loss)


def check_parity(trained: Trained, rows: PaddedRows, file: Path, questions: Sequence[Question]) -> Parity:
    """Compare the file with the model. Raises WeightsError when they differ by more than ALLOWED."""
    try:
        parity = compare(trained, rows, session_of(file), questions)
    except WeightsError:
        raise
    except Exception as problem:  # ONNX Runtime's have no class of their own
        raise WeightsError(
            f"the exported file does not run as it should: {str(problem).splitlines()[0]}",
            fix="nothing was written; leave the readout out (--part encoder), or export to Hugging Face",
        ) from problem
    if not parity.largest <= ALLOWED:
        raise WeightsError(
            f"the ONNX file does not give this model's own answers: {rows.output} differs by {parity.largest:.3g} "
            f"({parity.where})",
            expected=f"a difference of at most {ALLOWED:g}, for answers larger than 1 as a share of the largest",
            fix="nothing was written; leave the readout out (--part encoder), or export to Hugging Face",
        )
    return parity


def _round(rows: PaddedRows, file: Path, questions: Sequence[Question], accept_loss: bool) -> RoundingLoss:
    """Replace the file by one in int8. Raises WeightsError when that costs more than is allowed."""
    rounded = file.with_suffix(".int8.onnx")
    quantise(file, rounded)
    loss = rounding_loss(rows, session_of(file), session_of(rounded), questions)
    too_far = not loss.cosine >= LEAST_COSINE or (loss.same is not None and loss.same < LEAST_SAME)
    if too_far and not accept_loss:
        raise WeightsError(
            f"in int8 this model says something else: {loss_text(loss)}",
            expected=f"a cosine of {LEAST_COSINE} or more on average, and {LEAST_SAME:.0%} of the answers the same",
            fix="nothing was written; leave --int8 out, or take the loss: --accept-loss",
        )
    rounded.replace(file)
    return loss


def quantise(file: Path, rounded: Path) -> None:
    """Matrices and embeddings in 8 bits, a scale for each column of a matrix; what comes in is rounded at each call.

    The second half of each feed-forward layer keeps floating point, as in bricks/inference.py: what comes out of the
    activation spans such a range that rounding it costs half of all (all-MiniLM-L6-v2: a cosine of 0.984, not 0.991).
    Weights take seven of the bits: processors without VNNI add pairs of products in 16 bits, and eight would overflow
    there.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    model = onnx.load(str(file))
    # Else the library tells everyone to run a preparation that is of no use for this graph.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    # Of the tables that rows are taken from, only that of the words is large, and safe to round.
    nodes = [(node.op_type, node.name) for node in model.graph.node]
    kept = [name for kind, name in nodes if kind == "Gather" and "/frontend/words/" not in name]
    # The library renames what it takes apart.
    kept += [f"{name}_MatMul" for kind, name in nodes if kind == "Gemm" and re.search(r"/mlp/(.+/)?outer/", name)]
    quantize_dynamic(
        model,
        rounded,
        op_types_to_quantize=["MatMul", "LSTM", "Gather"],
        nodes_to_exclude=kept,
        per_channel=True,
        reduce_range=True,
        weight_type=QuantType.QInt8,
    )


def session_of(file: Path) -> Session:
    """An ONNX file, ready to run on the CPU."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors; they are raised as well
    return cast(Session, onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"]))


def tokenizer_of(trained: Trained) -> Any:
    """The tokenizer with all that its file can say: special tokens around texts, where they are cut, padding."""
    ours, maker = trained.tokenizer, trained.maker()
    made: Any = tokenizers.Tokenizer.from_str(ours.to_json())
    frame = maker.around
    if frame_of(made) != frame:
        named = {number: ours.token(number) for number in {*frame.before, *frame.between, *frame.after}}
        before, between, after = (
            [f"{named[number]}:0" for number in part] for part in (frame.before, frame.between, frame.after)
        )
        last = [f"{named[number]}:{frame.second}" for number in frame.after]
        made.post_processor = processors.TemplateProcessing(
            single=[*before, "$A:0", *after],
            pair=[*before, "$A:0", *between, f"$B:{frame.second}", *last],
            special_tokens=[(token, number) for number, token in named.items()],
        )
    made.enable_truncation(max_length=maker.max_length)
    made.enable_padding(pad_id=ours.pad_id, pad_token=ours.token(ours.pad_id))
    return made


def config_of(trained: Trained, rows: PaddedRows, parity: Parity, loss: RoundingLoss | None) -> dict[str, Any]:
    """What a program must know to use the file: config.json."""
    from encodery import __version__

    task, readout = trained.task, trained.model.config.readout
    found: dict[str, Any] = {
        "made_by": f"encodery {__version__}",
        "part": rows.part,
        "task": task.kind,
        "precision": "fp32" if loss is None else "int8",
        "opset": OPSET,
        "inputs": rows.inputs,
        "output": rows.output,
        "max_tokens": trained.maker().max_length,
        "paired": task.joins_pairs,
    }
    if rows.output == "logits" and readout.kind == "document":
        found |= {"labels": list(task.labels)}
        found |= {"center": task.center, "scale": task.scale} if task.kind == "regress" else {}
        found |= {} if task.kind == "regress" else {"temperature": task.temperature}
    if rows.output == "sentence_embedding":
        found["normalised"] = readout.normalise if readout.kind == "vector" else True
    if task.prompts:
        found |= {"prompts": task.prompts, "prompt": task.prompt}
    found["parity"] = {"texts": parity.texts, "largest_difference": parity.largest, "allowed": ALLOWED}
    if loss is not None:
        found["int8"] = {"cosine": loss.cosine, "least_cosine": loss.least_cosine, "same_answers": loss.same}
    return found


def loss_text(loss: RoundingLoss) -> str:
    """The cost of int8 in words."""
    said = f"cosine to float32 {loss.cosine:.4f} on average and {loss.least_cosine:.4f} at least, on {loss.texts} texts"
    return said if loss.same is None else f"{said}; {loss.same:.1%} of the answers are the same"


def _told(folder: Path, rows: PaddedRows, size: int, parity: Parity, loss: RoundingLoss | None) -> list[str]:
    lines = [
        f"onnx: {folder / MODEL} ({size / 1e6:,.1f} MB), {', '.join(rows.inputs)} -> {rows.output}",
        f"the same answers as the model on {parity.texts} texts: they differ by {parity.largest:.1e} at most",
    ]
    if loss is not None:
        lines.append(f"int8: {loss_text(loss)}")
    return [*lines, f"how to run it: {folder / README}"]
