"""A name of the Hub instead of a folder: only files that cannot run are fetched, and what goes wrong is said."""

from __future__ import annotations

import fnmatch
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_cases import CASES, make_folder

from encodery.errors import MissingExtra, WeightsError
from encodery.interop.huggingface import read_huggingface

pytestmark = pytest.mark.filterwarnings("ignore")  # transformers warns of much that is meant

hub = pytest.importorskip("huggingface_hub")
errors = pytest.importorskip("huggingface_hub.errors")


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[Any], None]:
    """Lets the Hub answer a name: with an error, or with a folder of which only what is asked for is fetched."""
    monkeypatch.chdir(tmp_path)

    def answer(with_: Any) -> None:
        def download(name: str, *, allow_patterns: list[str], ignore_patterns: list[str]) -> str:
            assert name == "owner/model"
            if isinstance(with_, Exception):
                raise with_
            fetched = tmp_path / "cache"
            for file in with_.rglob("*"):
                path = file.relative_to(with_).as_posix()
                wanted = any(fnmatch.fnmatch(path, pattern) for pattern in allow_patterns)
                if file.is_file() and wanted and not any(fnmatch.fnmatch(path, p) for p in ignore_patterns):
                    (fetched / path).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(file, fetched / path)
            return str(fetched)

        monkeypatch.setattr(hub, "snapshot_download", download)

    return answer


def test_a_name_is_fetched_without_anything_that_could_run(answers: Callable[[Any], None], tmp_path: Path) -> None:
    source = make_folder(CASES[0], tmp_path / "source")
    for name in ("modeling_own.py", "pytorch_model.bin", "training_args.bin", "onnx/model.onnx", "onnx/config.json"):
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    answers(source)
    for name in ("owner/model", "hub:owner/model", Path("owner/model")):
        assert read_huggingface(name).task.kind == "masked"
    fetched = {file.name for file in (tmp_path / "cache").rglob("*")}
    assert {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"} <= fetched
    assert not [name for name in fetched if name.endswith((".py", ".bin", ".onnx"))]
    assert "onnx" not in fetched


def test_a_folder_wins_over_a_name(answers: Callable[[Any], None], tmp_path: Path) -> None:
    make_folder(CASES[0], tmp_path / "owner" / "model")
    answers(AssertionError("nothing is fetched"))
    assert read_huggingface("owner/model").task.kind == "masked"


def test_what_keeps_a_model_from_being_fetched_is_said(answers: Callable[[Any], None]) -> None:
    for status in (404, 401):
        answer = SimpleNamespace(status_code=status, headers={}, request=None)
        answers(errors.HfHubHTTPError("no", response=answer))
        with pytest.raises(
            WeightsError, match=rf"no folder owner/model, and the Hub .*\({status}\)[\s\S]*log in first"
        ):
            read_huggingface("owner/model")
    offline = errors.LocalEntryNotFoundError("cannot find it on disk and\noutgoing traffic is disabled")
    for problem in (offline, ConnectionError("no route to host"), errors.OfflineModeIsEnabled("offline")):
        answers(problem)
        with pytest.raises(WeightsError, match=r"could not be fetched from the Hub[\s\S]*hf download owner/model"):
            read_huggingface("owner/model")


@pytest.mark.parametrize("name", ["../elsewhere", "/no/such/folder", "a/b/c", "own er/model", "hub:", "~/model"])
def test_what_is_neither_a_folder_nor_a_name_is_not_asked_for(answers: Callable[[Any], None], name: str) -> None:
    answers(AssertionError("nothing is fetched"))
    with pytest.raises(WeightsError, match=r"there is no folder .*[\s\S]*owner/model"):
        read_huggingface(name)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtra, match=r"owner/model, and fetching it from the Hub needs[\s\S]*encodery\[hub\]"):
        read_huggingface("owner/model")


def test_a_machine_without_a_network_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The real library, told to stay offline."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    with pytest.raises(WeightsError, match=r"could not be fetched from the Hub[\s\S]*check the network"):
        read_huggingface("owner/model-that-is-not-here")
