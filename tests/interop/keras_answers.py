"""What the Keras encoder says of the cases in a folder, as .npz files, and keras_checks.py; where torch is not.

python keras_answers.py FOLDER      each folder inside with an inputs.npz is a case
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from pathlib import Path

import keras
import numpy as np
import pytest

from encodery.interop import keras_encoder


def answer(case: Path, backend: str) -> None:
    """Vectors in context, and what the readout says, for the inputs of a case. Where there are labels as well, the
    model learns them first, and what came of it is written as a model folder."""
    trained = keras_encoder.load(case)
    inputs = dict(np.load(case / "inputs.npz", allow_pickle=False))
    labels = inputs.pop("labels", None)
    if labels is not None:
        keras.utils.set_random_seed(1)
        trained = trained.with_labels(["no", "yes", "maybe"], pooling="attention", hidden=True)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        # XLA on TensorFlow compiles longer than these models learn.
        trained.model.compile(optimizer=keras.optimizers.AdamW(0.01), loss=loss, jit_compile=backend == "jax")
        trained.model.fit(inputs, labels, epochs=3, verbose=0)
        trained.save(case / backend)
    states, answers = trained.model.encode(inputs), trained.model(inputs)
    numbers = {"states": states, "answers": answers}
    np.savez(case / f"{backend}.npz", **{name: keras.ops.convert_to_numpy(x) for name, x in numbers.items()})


def main(folder: Path) -> int:
    """Answer all cases, then check the rest; in one process, since what JAX has compiled for one serves the other."""
    backend = keras.backend.backend()
    said: dict[str, str] = {}
    for case in sorted(file.parent for file in folder.glob("*/inputs.npz")):
        begin = time.perf_counter()
        try:
            answer(case, backend)
            said[case.name] = f"done in {time.perf_counter() - begin:.1f} s"
        except Exception:
            said[case.name] = traceback.format_exc()
    said["torch"] = "imported" if "torch" in sys.modules else "not imported"
    (folder / f"{backend}.json").write_text(json.dumps(said, indent=1))
    checks = Path(__file__).with_name("keras_checks.py")
    alone = ["-p", "no:cacheprovider", "--noconftest", "-c", os.devnull, "--rootdir", str(checks.parent)]
    ours = [] if backend == "tensorflow" else ["-m", "not once"]
    return pytest.main(
        ["-q", "--durations=5", "-W", "ignore::pytest.PytestUnknownMarkWarning", *alone, *ours, str(checks)]
    )


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
