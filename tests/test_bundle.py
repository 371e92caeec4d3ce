"""A model folder is one whole model at every moment, and a damaged one says what is wrong."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from encodery import bundle, durable
from encodery.bundle import check_fit, known_names, read_bundle, write_bundle
from encodery.errors import WeightsError


def write(folder: Path, value: float = 1.0, **changes: Any) -> None:
    given: dict[str, Any] = {
        "config": {"encoder": {"width": 4, "名": "字"}, "value": value},
        "weights": {"a.weight": torch.full((3, 2), value), "b": torch.arange(4).to(torch.bfloat16)},
        "tokenizer_json": '{"model": "é"}',
        "card": f"# Card {value}\n",
        "metrics": {"accuracy": value},
        "knowledge_json": '{"entities": ["é"]}',
    }
    write_bundle(folder, **{**given, **changes})


def holds(folder: Path, value: float) -> None:
    files = read_bundle(folder)
    assert files.config == {"encoder": {"width": 4, "名": "字"}, "value": value}
    assert torch.equal(files.weights["a.weight"], torch.full((3, 2), value))
    assert files.weights["b"].dtype == torch.bfloat16
    assert files.metrics == {"accuracy": value}


def reseal(folder: Path, name: str, data: bytes) -> None:
    """Alter a file and its entry in the manifest, as a faulty writer would."""
    (folder / name).write_bytes(data)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["files"][name] = {"size": len(data), "sha256": durable.sha256_of(folder / name)}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_write_read_and_the_files(tmp_path: Path) -> None:
    folder = tmp_path / "runs" / "model"
    write(folder, 0.25)
    holds(folder, 0.25)
    assert read_bundle(folder).tokenizer_json == '{"model": "é"}'
    assert read_bundle(folder).knowledge_json == '{"entities": ["é"]}'
    assert sorted(path.name for path in folder.iterdir()) == sorted([*known_names, "manifest.json"])
    assert (folder / "card.md").read_text() == "# Card 0.25\n"
    write(folder, 0.5, knowledge_json=None)
    assert read_bundle(folder).knowledge_json is None and not (folder / "knowledge.json").exists()


def test_replacing_leaves_other_files_and_drops_what_the_new_model_lacks(tmp_path: Path) -> None:
    write(tmp_path, 1.0)
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "x").write_text("kept")
    (tmp_path / "journal.jsonl").write_text("kept")
    write(tmp_path, 2.0, tokenizer_json=None)
    holds(tmp_path, 2.0)
    assert read_bundle(tmp_path).tokenizer_json is None
    assert not (tmp_path / "tokenizer.json").exists()
    assert (tmp_path / "checkpoints" / "x").read_text() == (tmp_path / "journal.jsonl").read_text() == "kept"


def test_saving_again_gives_the_same_bytes(tmp_path: Path) -> None:
    write(tmp_path / "a")
    files = read_bundle(tmp_path / "a")
    write(tmp_path / "b", weights=files.weights, config=files.config)
    for name in (*known_names, "manifest.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


class Killed(BaseException):
    """Stands for a kill: nothing may catch it."""


def test_a_kill_at_any_moment_leaves_one_whole_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stop before the n-th change of the file system, for every n, and read what is there."""
    seen: set[float] = set()
    finished = False
    moment = 0
    while not finished:
        folder = tmp_path / str(moment)
        write(folder, 1.0)
        left = [moment]

        def counted(original: Any, left: list[int] = left) -> Any:
            def call(*args: Any, **kwargs: Any) -> Any:
                left[0] -= 1
                if left[0] < 0:
                    raise Killed
                return original(*args, **kwargs)

            return call

        with monkeypatch.context() as patch:
            for name in ("rename", "replace", "unlink", "mkdir"):
                patch.setattr(Path, name, counted(getattr(Path, name)))
            patch.setattr(durable, "write_synced", counted(durable.write_synced))
            # A killed process cleans nothing up.
            patch.setattr(shutil, "rmtree", counted(lambda *_, **__: None) if moment % 2 else counted(shutil.rmtree))
            try:
                write(folder, 2.0, tokenizer_json=None)
                finished = True
            except Killed:
                pass
        value = read_bundle(folder).metrics["accuracy"]
        holds(folder, value)
        assert (read_bundle(folder).tokenizer_json is None) == (value == 2.0)
        seen.add(value)
        write(folder, 3.0)  # the next writer finishes or sweeps away what it finds
        holds(folder, 3.0)
        assert sorted(path.name for path in folder.iterdir()) == sorted([*known_names, "manifest.json"])
        moment += 1
    assert seen == {1.0, 2.0}
    assert moment > 10


def test_a_full_disk_leaves_the_old_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, 1.0)

    def full(path: Path, content: durable.Content) -> dict[str, Any]:
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(durable, "write_synced", full)
        with pytest.raises(WeightsError, match="No space left on device"):
            write(tmp_path, 2.0)
    holds(tmp_path, 1.0)
    assert not list(tmp_path.glob(".*"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=10))
    with pytest.raises(WeightsError, match="too little free space"):
        write(tmp_path, 2.0)
    holds(tmp_path, 1.0)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "tokenizer.json", "metrics.json", "manifest.json"]
)
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_damage_is_named(tmp_path: Path, name: str, damage: str) -> None:
    write(tmp_path)
    file = tmp_path / name
    data = bytearray(file.read_bytes())
    if damage == "remove":
        file.unlink()
    else:
        data[len(data) // 2] ^= 0x15
        file.write_bytes(data if damage == "flip" else data[:-4])
    with pytest.raises(WeightsError) as caught:
        read_bundle(tmp_path)
    assert str(tmp_path) in caught.value.given
    assert f"{name}: " in caught.value.given or name == "manifest.json"
    if name != "manifest.json":
        assert {"flip": "altered", "cut": "size", "remove": "missing"}[damage] in caught.value.given
    assert caught.value.fix


def test_the_card_may_be_edited(tmp_path: Path) -> None:
    write(tmp_path)
    (tmp_path / "card.md").write_text("my own words")
    holds(tmp_path, 1.0)


def test_what_is_not_a_model_folder(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="does not exist"):
        read_bundle(tmp_path / "nothing")
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(WeightsError, match=r"is not a model folder: it holds notes\.txt"):
        read_bundle(tmp_path)
    with pytest.raises(WeightsError, match="is a file"):
        read_bundle(tmp_path / "notes.txt")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "not JSON"),
        (b"[1]", "holds a list"),
        (b'{"format": 2}', "newer version"),
        (b"{}", "format None"),
        (b'{"format": 1, "encodr": 3}', "did you mean 'encoder'"),
    ],
)
def test_a_config_that_does_not_say_what_it_should(tmp_path: Path, data: bytes, message: str) -> None:
    write(tmp_path)
    reseal(tmp_path, "config.json", data)
    with pytest.raises(WeightsError, match=message) as caught:
        read_bundle(tmp_path, known_keys=("encoder", "value"))
    assert "config.json" in caught.value.given


def test_a_newer_manifest_and_foreign_weights(tmp_path: Path) -> None:
    write(tmp_path)
    reseal(tmp_path, "model.safetensors", b"not tensors at all")
    with pytest.raises(WeightsError, match="not a safetensors file"):
        read_bundle(tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "format": bundle.format_version + 1}))
    with pytest.raises(WeightsError, match="newer version"):
        read_bundle(tmp_path)


def test_check_fit() -> None:
    expected = {"a": (2, 3), "b": (4,), **{f"m{i}": (1,) for i in range(12)}}
    with pytest.raises(WeightsError) as caught:
        check_fit(expected, {"a": torch.zeros(3, 2), "b": torch.zeros(4), "c": [7]})
    text = caught.value.given
    assert "12 missing in the file: m0 [1]; m1 [1];" in text
    assert "; and 2 more" in text
    assert "m9" in text
    assert "m10" not in text
    assert "1 unexpected in the file: c [7]" in text
    assert "1 of another shape: a: the model has [2, 3], the file [3, 2]" in text
    check_fit({"a": (2, 3)}, {"a": torch.zeros(2, 3)})
