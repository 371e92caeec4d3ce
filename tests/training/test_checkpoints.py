"""A checkpoint is whole or it does not count: kills, full disks, flipped bytes, cut files."""

from __future__ import annotations

import errno
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from encodery import durable
from encodery.errors import TrainingError, WeightsError
from encodery.training.resume import (
    Checkpoint,
    latest_checkpoint,
    load_checkpoint,
    pack_state,
    restore_rng,
    rng_state,
    save_checkpoint,
    unpack_state,
)


def tensors_of(step: int) -> dict[str, torch.Tensor]:
    return {
        "w": torch.full((4, 3), float(step)),
        "bf": torch.arange(5).to(torch.bfloat16),
        "n": torch.tensor(step),
    }


def save(folder: Path, step: int, **more: Any) -> Path:
    return save_checkpoint(folder, step, tensors_of(step), {"step": step}, {"notes/a.txt": b"hello"}, **more)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_save_and_load(tmp_path: Path) -> None:
    folder = tmp_path / "run" / "checkpoints"
    assert latest_checkpoint(folder) is None
    path = save(folder, 7)
    assert path.name == "step-00000007"
    found = latest_checkpoint(folder)
    assert found == Checkpoint(path, 7, [])
    assert found is not None
    for source in (found, path):
        tensors, state = load_checkpoint(source)
        assert state == {"step": 7}
        assert {name: tensor.dtype for name, tensor in tensors.items()} == {
            "w": torch.float32, "bf": torch.bfloat16, "n": torch.int64,
        }  # fmt: skip
        assert all(torch.equal(tensors[name], tensor) for name, tensor in tensors_of(7).items())
    assert (path / "notes/a.txt").read_text() == "hello"


def test_tied_and_transposed_tensors(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(3, 4, generator=torch.Generator().manual_seed(0)))
    path = save_checkpoint(tmp_path, 1, {"a": weight, "tied": weight, "view": weight[1:], "t": weight.T}, {})
    tensors, _ = load_checkpoint(path)
    assert torch.equal(tensors["tied"], weight)
    assert torch.equal(tensors["view"], weight[1:])
    assert torch.equal(tensors["t"], weight.T)


def test_only_the_newest_are_kept(tmp_path: Path) -> None:
    for step in range(1, 6):
        save(tmp_path, step, keep=2)
    assert names(tmp_path) == ["step-00000004", "step-00000005"]
    save(tmp_path, 5, keep=2)  # the same step again replaces the first
    assert names(tmp_path) == ["step-00000004", "step-00000005"]
    save(tmp_path, 6, keep=1)
    assert names(tmp_path) == ["step-00000006"]


def test_the_manifest_lists_size_and_hash(tmp_path: Path) -> None:
    path = save(tmp_path, 3)
    manifest = json.loads((path / "MANIFEST.json").read_text())
    assert manifest["step"] == 3
    assert set(manifest["files"]) == {"notes/a.txt", "state.json", "tensors.safetensors"}
    for name, entry in manifest["files"].items():
        assert entry == {"size": (path / name).stat().st_size, "sha256": durable.sha256_of(path / name)}


@pytest.mark.parametrize("name", ["tensors.safetensors", "state.json", "notes/a.txt", "MANIFEST.json"])
@pytest.mark.parametrize("damage", ["flip first", "flip middle", "cut", "empty", "remove", "longer"])
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, name: str, damage: str) -> None:
    first, second = save(tmp_path, 1), save(tmp_path, 2)
    file = second / name
    data = bytearray(file.read_bytes())
    if damage.startswith("flip"):
        data[0 if damage.endswith("first") else len(data) // 2] ^= 0x5A
    changed = {"cut": data[: len(data) // 2], "empty": b"", "longer": data + b"x"}.get(damage, data)
    file.write_bytes(changed)
    if damage == "remove":
        file.unlink()
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.path == first
    (line,) = found.rejected
    assert line.startswith(f"step-00000002/{name}: ")
    if name != "MANIFEST.json":
        assert {"flip": "hash", "remove": "missing"}.get(damage.split()[0], "size") in line
    with pytest.raises(WeightsError, match="step-00000002 is damaged"):
        load_checkpoint(second)


def test_every_byte_of_the_manifest_matters_or_is_harmless(tmp_path: Path) -> None:
    path = save(tmp_path, 2)
    manifest = path / "MANIFEST.json"
    whole = manifest.read_bytes()
    for place in range(len(whole)):
        manifest.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        with pytest.raises(WeightsError):
            load_checkpoint(path)


def test_all_damaged_is_an_error_that_lists_them(tmp_path: Path) -> None:
    for step in (1, 2):
        (save(tmp_path, step) / "state.json").unlink()
    with pytest.raises(WeightsError) as caught:
        latest_checkpoint(tmp_path)
    assert "step-00000001/state.json: missing" in str(caught.value)
    assert "step-00000002/state.json: missing" in str(caught.value)


def test_going_on_after_a_damaged_one_removes_it(tmp_path: Path) -> None:
    save(tmp_path, 5)
    (save(tmp_path, 10) / "state.json").write_text("{}")
    save(tmp_path, 7)
    assert names(tmp_path) == ["step-00000005", "step-00000007"]


def test_a_full_disk_leaves_the_earlier_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = save(tmp_path, 1)
    written = durable.write_synced

    def failing(path: Path, content: durable.Content) -> dict[str, Any]:
        if path.name == "tensors.safetensors":
            path.write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        return written(path, content)

    monkeypatch.setattr(durable, "write_synced", failing)
    with pytest.raises(TrainingError) as caught:
        save(tmp_path, 2)
    assert "No space left" in str(caught.value)
    assert "earlier checkpoints are untouched: step 1" in str(caught.value)
    assert "free space" in caught.value.fix
    assert names(tmp_path) == [first.name]
    assert load_checkpoint(first)[1] == {"step": 1}


def test_too_little_space_is_seen_before_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    with pytest.raises(TrainingError, match="too little free space; there is no earlier checkpoint"):
        save(tmp_path / "new", 2)
    assert names(tmp_path / "new") == []


def test_a_disk_that_stores_other_bytes_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, 1)
    written = durable.write_synced

    def lying(path: Path, content: durable.Content) -> dict[str, Any]:
        entry = written(path, content)
        if path.name == "state.json":
            path.write_bytes(path.read_bytes().replace(b"2", b"3"))
        return entry

    monkeypatch.setattr(durable, "write_synced", lying)
    with pytest.raises(TrainingError, match=r"does not read back: state\.json: hash"):
        save(tmp_path, 2, keep=1)
    assert names(tmp_path) == ["step-00000001"]


limited = """
import resource, signal, sys, torch
from pathlib import Path
from encodery.errors import TrainingError
from encodery.training.resume import save_checkpoint
folder = Path(sys.argv[1])
save_checkpoint(folder, 1, {"w": torch.zeros(100)}, {})
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000))
try:
    save_checkpoint(folder, 2, {"w": torch.zeros(100_000)}, {})
except TrainingError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_a_real_write_that_is_cut_short(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", limited, str(tmp_path)], capture_output=True, text=True)
    assert done.returncode == 5, done.stderr
    assert "step 2 was not saved" in done.stdout
    assert names(tmp_path) == ["step-00000001"]


endless = """
import sys, torch
from pathlib import Path
from encodery.training.resume import save_checkpoint
folder = Path(sys.argv[1])
step = int(sys.argv[2])
print("ready", flush=True)
while True:
    step += 1
    save_checkpoint(folder, step, {"w": torch.full((200_000,), float(step))}, {"step": step})
    print(step, flush=True)
"""


def test_kill_while_saving(tmp_path: Path) -> None:
    pauses = np.random.default_rng(0).uniform(0.0, 0.06, size=3)
    reached = 0
    for pause in pauses:
        command = [sys.executable, "-c", endless, str(tmp_path), str(reached)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            said = int(process.stdout.readline())  # this one is promised to be there
            time.sleep(pause)
            process.send_signal(signal.SIGKILL)
            said = max([said, *(int(line) for line in process.stdout.read().split("\n")[:-1])])
        found = latest_checkpoint(tmp_path)
        assert found is not None
        assert found.rejected == []
        assert found.step >= said
        tensors, state = load_checkpoint(found)
        assert state == {"step": found.step}
        assert torch.equal(tensors["w"], torch.full((200_000,), float(found.step)))
        reached = found.step
    save(tmp_path, reached + 1)
    assert not list(tmp_path.glob(".tmp-*"))  # what the killed ones left is swept away


leaves = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
keys = st.integers(-5, 5) | st.text(max_size=3)


def same(a: Any, b: Any) -> bool:
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return (math.isnan(a) and math.isnan(b)) or a.hex() == b.hex()
    return a == b


@given(
    st.recursive(
        leaves,
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.lists(inner, max_size=3).map(tuple)
            | st.dictionaries(keys, inner, max_size=3)
        ),
        max_leaves=10,
    )
)
def test_state_survives_packing(nested: Any) -> None:
    tensors, packed = pack_state(nested)
    assert same(unpack_state(tensors, json.loads(json.dumps(packed))), nested)


def test_packed_tensors_and_arrays() -> None:
    nested = {1: torch.ones(2), "1": torch.zeros(2), "a": [(np.arange(3, dtype=np.uint64), np.zeros((0, 2)))]}
    tensors, packed = pack_state(nested)
    again = unpack_state(tensors, json.loads(json.dumps(packed)))
    assert torch.equal(again[1], torch.ones(2))
    assert torch.equal(again["1"], torch.zeros(2))
    whole, empty = again["a"][0]
    assert whole.dtype == np.uint64
    assert whole.tolist() == [0, 1, 2]
    assert empty.shape == (0, 2)


def test_what_cannot_be_saved_is_named() -> None:
    with pytest.raises(TypeError, match="state at '/a/1' is a set"):
        pack_state({"a": [1, {2}]})
    with pytest.raises(TypeError, match=r"state at '/a' has the key \(1, 2\)"):
        pack_state({"a": {(1, 2): 3}})


@pytest.mark.parametrize("bits", [np.random.PCG64, np.random.MT19937, np.random.Philox, np.random.SFC64])
def test_optimizer_and_generators_go_on_as_if_nothing_happened(tmp_path: Path, bits: Any) -> None:
    def fresh() -> tuple[torch.nn.Linear, torch.optim.AdamW, dict[str, Any]]:
        model = torch.nn.Linear(3, 2)
        generators = {"np": np.random.Generator(bits(1)), "torch": torch.Generator().manual_seed(1)}
        return model, torch.optim.AdamW(model.parameters(), lr=0.1, betas=(0.9, 0.98)), generators

    def step(model: torch.nn.Linear, optimizer: torch.optim.Optimizer, generators: dict[str, Any]) -> None:
        x = torch.randn(4, 3, generator=generators["torch"])
        scale = float(generators["np"].normal())
        optimizer.zero_grad()
        (model(x) * scale).square().sum().backward()
        optimizer.step()

    run = fresh()
    step(*run)
    nested = {"optimizer": run[1].state_dict(), "random": rng_state(run[2])}
    tensors, packed = pack_state(nested)
    weights = {f"model.{name}": tensor for name, tensor in run[0].state_dict().items()}
    path = save_checkpoint(tmp_path, 1, {**tensors, **weights}, {"state": packed})
    other = fresh()
    loaded, state = load_checkpoint(path)
    again = unpack_state(loaded, state["state"])
    other[0].load_state_dict({name: loaded[f"model.{name}"] for name in other[0].state_dict()})
    other[1].load_state_dict(again["optimizer"])
    restore_rng(other[2], again["random"])
    for _ in range(3):
        step(*run)
        step(*other)
    assert all(torch.equal(a, b) for a, b in zip(run[0].parameters(), other[0].parameters(), strict=True))
    with pytest.raises(ValueError, match="random states"):
        restore_rng({}, again["random"])
