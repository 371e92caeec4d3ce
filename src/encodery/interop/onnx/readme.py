"""The README of an exported folder: what goes in, what comes out, and the lines that run it."""

from __future__ import annotations

from typing import Any

_OUTPUTS = {
    "last_hidden_state": ("vectors of all tokens", "(batch, tokens, width); zeros where there is padding"),
    "sentence_embedding": ("one vector a text", "(batch, width)"),
    "logits": ("one row of logits a text", "(batch, labels)"),
    "words": ("logits of all words of the vocabulary at each token", "(batch, tokens, vocabulary)"),
}
_MEANING = {
    "classify": "`exp(logits / temperature)`, divided by its sum, are the probabilities of `labels`, in order.",
    "multilabel": "`1 / (1 + exp(-logits / temperature))` are the probabilities of `labels`, each on its own.",
    "regress": "The number is `logits * scale + center`.",
    "masked": "At a token `[MASK]` (see tokenizer.json) the largest logit is the word that the model expects there.",
}


def readme(config: dict[str, Any]) -> str:
    """README.md for a folder of this config.json."""
    words = config["output"] == "logits" and config["task"] == "masked"
    title, shape = _OUTPUTS["words" if words else config["output"]]
    meaning = _MEANING.get(config["task"], "") if config["output"] == "logits" else ""
    if config["output"] == "sentence_embedding" and config["normalised"]:
        meaning = "Vectors have length 1: the product of two is their cosine."
    given = "[('a first text', 'its second text')]" if config["paired"] else "['a text', 'another one']"
    feed = [f"    {name!r}: np.array([{_FEEDS[name]} for row in rows], dtype=np.int64)," for name in config["inputs"]]
    parts = [
        f"# An ONNX model: {title}",
        f"Made by {config['made_by']}, in {config['precision']}. Before it was written, its float32 form gave the "
        f"model's own answers on {config['parity']['texts']} texts (largest difference "
        f"{config['parity']['largest_difference']:.1e}).",
        "| file | what it is |\n|---|---|\n"
        "| model.onnx | the graph, for ONNX Runtime 1.14 or newer |\n"
        "| tokenizer.json | for the package `tokenizers`: sets special tokens, cuts and pads |\n"
        "| config.json | names, labels and numbers that give the output its meaning |",
        "## Inputs and output",
        "All inputs are int64, (batch, tokens), of any size up to "
        f"{config['max_tokens']:,} tokens. `attention_mask` is 1 for tokens and 0 for padding"
        + (", `word_ids` numbers the word of each token, -1 for special tokens." if _words(config) else "."),
        f"`{config['output']}` is float32, {shape}. {meaning}".rstrip(),
        "## Run it",
        "```python\nimport numpy as np\nimport onnxruntime\nimport tokenizers\n\n"
        'tokenizer = tokenizers.Tokenizer.from_file("tokenizer.json")\n'
        'session = onnxruntime.InferenceSession("model.onnx")\n'
        f"rows = tokenizer.encode_batch({given})\n"
        "inputs = {\n" + "\n".join(feed) + "\n}\n"
        "(output,) = session.run(None, inputs)\n```",
        f"Texts longer than {config['max_tokens']:,} tokens lose their end here; `encodery predict` splits such texts "
        "and averages the answers of the parts, weighted by their tokens.",
    ]
    if config.get("prompts"):
        used = f"; `{config['prompt']}` is always used" if config.get("prompt") else ""
        parts.append(f"The model was made with texts that stand before what is asked: `prompts` of config.json{used}.")
    if "int8" in config:
        loss = config["int8"]
        parts.append(
            f"int8: the cosine to float32 is {loss['cosine']:.4f} on average and {loss['least_cosine']:.4f} at least"
            + (
                f"; {loss['same_answers']:.1%} of the answers are the same."
                if loss["same_answers"] is not None
                else "."
            )
        )
    return "\n\n".join(parts) + "\n"


_FEEDS = {
    "input_ids": "row.ids",
    "attention_mask": "row.attention_mask",
    "token_type_ids": "row.type_ids",
    "word_ids": "[-1 if word is None else word for word in row.word_ids]",
}


def _words(config: dict[str, Any]) -> bool:
    return "word_ids" in config["inputs"]
