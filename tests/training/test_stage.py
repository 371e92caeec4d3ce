"""A stage that was interrupted, killed, damaged or out of disk comes to the same end as one that was not."""

from __future__ import annotations

import errno
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from rich.console import Console

import encodery.training.resume as resume_room
import encodery.training.stage as stage_room
from conftest import make_fit, make_rows, tiny_config
from encodery.data.loader import StreamedWindows
from encodery.data.tokenizers import Tokenizer
from encodery.errors import Interrupted, TrainingError, WeightsError
from encodery.model import Model
from encodery.training.journal import Progress, read_journal
from encodery.training.loop import Fit
from encodery.training.stage import Stage, log_unigram, unigram_entropy


class StopAt:
    """Stands for a signal that comes during the given step."""

    signal_number = 15

    def __init__(self, fit: Fit, step: int | None) -> None:
        self.fit, self.step = fit, step

    def __call__(self) -> bool:
        return self.step is not None and self.fit.state.step >= self.step


def stage_of(fit: Fit, folder: Path, stop: int | None = None, heard: list[str] | None = None) -> Stage:
    progress = Progress(Console(quiet=True))
    if heard is not None:
        progress.say = heard.append  # type: ignore[method-assign]
    return Stage(fit, folder, progress, "test", StopAt(fit, stop), "encodery resume x")  # type: ignore[arg-type]


def everything(fit: Fit) -> dict[str, torch.Tensor]:
    """Weights, averaged weights, best weights and the state of every optimizer."""
    found = {f"model/{name}": value for name, value in fit.model.state_dict().items()}
    if fit.averaged is not None:
        found |= {f"averaged/{name}": value for name, value in fit.averaged.weights.items()}
    if fit.best is not None:
        found |= {f"best/{name}": value for name, value in fit.best.items()}
    names = {id(parameter): name for name, parameter in fit.model.named_parameters()}
    for number, part in enumerate(fit.optimizers.parts):
        for parameter, state in part.state.items():
            for key, value in state.items():
                found[f"{number}/{names[id(parameter)]}/{key}"] = torch.as_tensor(value)
    return {name: value.detach().clone() for name, value in found.items()}


CLOCKS = {"seconds", "time", "tokens_per_second", "wait_share"}


def journal_of(folder: Path) -> list[dict[str, Any]]:
    rows = [row for row in read_journal(folder / "journal.jsonl") if row["kind"] in ("step", "validation")]
    return [{key: value for key, value in row.items() if key not in CLOCKS} for row in rows]


def numbers(fit: Fit) -> dict[str, Any]:
    return {key: value for key, value in vars(fit.state).items() if key not in ("seconds", "waited")}


CASES: dict[str, dict[str, Any]] = {
    "masked, muon, average, share schedule, dropout, accumulation": {
        "objective": {"share": 0.4, "final_share": 0.1, "unit": "span"},
        "encoder": {"drop_rate": 0.2, "attention_drop_rate": 0.2},
        "training": {"accumulate": 2, "average": 0.9, "validations": 5, "optim": {"kind": "muon"}},
        "validate": True,
    },
    "classify, adamw, layer decay, dropout": {
        "objective": {"kind": "classify", "drop_rate": 0.3},
        "encoder": {"drop_rate": 0.1, "positions": "learned"},
        "training": {"validations": 3, "optim": {"schedule": "linear", "layer_decay": 0.8}},
        "validate": True,
    },
    "blocks and batches that grow, muon, average, mean of the last": {
        "encoder": {"depth": 3, "drop_rate": 0.1},
        "training": {
            "accumulate": 3,
            "growth": {"blocks": 1, "batches": 1, "until": 0.6},
            "average": 0.9,
            "average_last": 2,
            "validations": 6,
            "optim": {"kind": "muon"},
        },
        "validate": True,
    },
    "no validation": {"training": {"optim": {"schedule": "wsd"}}},
}


@pytest.mark.parametrize("budget", ["13 steps", "5k tokens", "1.7 epochs"])
@pytest.mark.parametrize("case", list(CASES))
def test_resume_equals_the_uninterrupted_run(case: str, budget: str, tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Row 7: N steps equal k steps, a signal, and N - k more, bit for bit; also with two signals."""
    settings = {**CASES[case], "training": {**CASES[case]["training"], "budget": budget}}

    def fresh() -> Fit:
        return make_fit(tokenizer, **settings)

    whole = fresh()
    kept = stage_of(whole, tmp_path / "whole").run()
    kept = {name: value.clone() for name, value in kept.items()}
    steps = whole.state.step
    assert steps > 8
    for stops in ([0, 1], [3, 8], [steps - 1]):
        folder = tmp_path / str(stops)
        for stop in stops:
            fit = fresh()
            with pytest.raises(Interrupted, match="encodery resume x") as caught:
                stage_of(fit, folder, stop).run()
            assert caught.value.exit_code == 143 and fit.state.step == stop
        fit = fresh()
        found = stage_of(fit, folder).run()
        assert found.keys() == kept.keys() and all(torch.equal(found[name], kept[name]) for name in kept)
        one, other = everything(whole), everything(fit)
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)
        assert numbers(fit) == numbers(whole)
        assert journal_of(folder) == journal_of(tmp_path / "whole")


def test_a_run_killed_without_warning_goes_on_from_its_last_checkpoint(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """Checkpoints are written all the time; the rows after the last one are written again, not twice."""
    settings: dict[str, Any] = {
        "training": {"budget": "12 steps", "validations": 4, "save_every": 1e-6},
        "validate": True,
    }
    whole = make_fit(tokenizer, **settings)
    stage_of(whole, tmp_path / "whole").run()
    for save_every in (1e-6, 1e6):
        settings["training"]["save_every"] = save_every
        folder = tmp_path / f"killed-{save_every}"
        fit = make_fit(tokenizer, **settings)
        stage = stage_of(fit, folder)
        inner = fit.optimizers.step
        fit.optimizers.step = lambda *a, fit=fit, inner=inner, **k: (  # type: ignore[method-assign]
            inner(*a, **k) if fit.state.step < 7 else (_ for _ in ()).throw(MemoryError("killed"))
        )
        with pytest.raises(MemoryError):
            stage.run()
        assert (folder / "checkpoints").exists() == (save_every < 1)
        fit = make_fit(tokenizer, **settings)
        stage_of(fit, folder).run()
        assert all(torch.equal(a, b) for a, b in zip(everything(whole).values(), everything(fit).values()))
        assert journal_of(folder) == journal_of(tmp_path / "whole")


def test_a_damaged_checkpoint_is_passed_over_and_said(tokenizer: Tokenizer, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"training": {"budget": "9 steps"}}
    whole = make_fit(tokenizer, **settings)
    stage_of(whole, tmp_path / "whole").run()
    for stop in (3, 6):
        with pytest.raises(Interrupted):
            stage_of(fit := make_fit(tokenizer, **settings), tmp_path / "run", stop).run()
        assert fit.state.step == stop
    newest = tmp_path / "run" / "checkpoints" / "step-00000006" / "tensors.safetensors"
    content = bytearray(newest.read_bytes())
    content[len(content) // 2] ^= 1
    newest.write_bytes(content)
    heard: list[str] = []
    fit = make_fit(tokenizer, **settings)
    stage_of(fit, tmp_path / "run", heard=heard).run()
    assert any("damaged" in line and "step-00000006" in line for line in heard)
    assert any("going on from step 3" in line for line in heard)
    assert all(torch.equal(a, b) for a, b in zip(everything(whole).values(), everything(fit).values()))
    assert journal_of(tmp_path / "run") == journal_of(tmp_path / "whole")


def test_a_checkpoint_of_another_recipe_is_refused(tokenizer: Tokenizer, tmp_path: Path) -> None:
    with pytest.raises(Interrupted):
        stage_of(make_fit(tokenizer), tmp_path, 2).run()
    for other in ({"encoder": {"mlp_width": 64}}, {"encoder": {"depth": 3}}, {"training": {"optim": {"kind": "muon"}}}):
        with pytest.raises(WeightsError, match="does not fit") as caught:
            stage_of(make_fit(tokenizer, **other), tmp_path).run()
        assert "recipe" in str(caught.value)


def fail_from(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """The disk is full from the given call of save_checkpoint on."""
    calls = 0
    real = resume_room.fill_folder

    def full(*args: Any, **options: Any) -> None:
        nonlocal calls
        calls += 1
        if calls >= first:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(*args, **options)

    monkeypatch.setattr(resume_room, "fill_folder", full)


def test_a_full_disk_does_not_end_a_run_that_has_a_checkpoint(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []
    fail_from(monkeypatch, 3)
    fit = make_fit(tokenizer, training={"budget": "6 steps", "save_every": 1e-6})
    stage_of(fit, tmp_path, heard=heard).run()
    assert fit.state.step == 6
    said = [line for line in heard if "No space left" in line]
    assert len(said) == 4 and "free space" in said[0] and "step 2" in said[0]
    assert [path.name for path in sorted((tmp_path / "checkpoints").iterdir())] == ["step-00000001", "step-00000002"]


def test_a_full_disk_without_any_checkpoint_is_one_clear_error(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fail_from(monkeypatch, 1)
    with pytest.raises(TrainingError, match="No space left"):
        stage_of(make_fit(tokenizer, training={"save_every": 1e-6}), tmp_path).run()
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_full_disk_at_a_signal_is_said_and_the_older_checkpoint_serves(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings: dict[str, Any] = {"training": {"budget": "8 steps"}}
    whole = make_fit(tokenizer, **settings)
    stage_of(whole, tmp_path / "whole").run()
    with pytest.raises(Interrupted):
        stage_of(make_fit(tokenizer, **settings), tmp_path / "run", 3).run()
    fail_from(monkeypatch, 1)
    with pytest.raises(TrainingError, match="No space left"):
        stage_of(make_fit(tokenizer, **settings), tmp_path / "run", 5).run()
    monkeypatch.undo()
    fit = make_fit(tokenizer, **settings)
    stage_of(fit, tmp_path / "run").run()
    assert all(torch.equal(a, b) for a, b in zip(everything(whole).values(), everything(fit).values()))


def test_a_diverged_run_keeps_its_checkpoint(tokenizer: Tokenizer, tmp_path: Path) -> None:
    fit = make_fit(tokenizer, training={"budget": "100 steps"})
    stage = stage_of(fit, tmp_path)
    real = fit.objective.loss

    def loss(output: Any, batch: Any) -> Any:
        found = real(output, batch)
        if fit.state.step == 4:
            with stage_room.Journal(tmp_path / "other") as journal:
                stage._save(journal)
        if fit.state.step >= 6:
            found.total.mul_(math.nan)
        return found

    fit.objective.loss = loss  # type: ignore[method-assign]
    with pytest.raises(TrainingError, match="diverged"):
        stage.run()
    assert (tmp_path / "checkpoints" / "step-00000004").is_dir()


def test_a_finished_stage_is_taken_as_it_is(tokenizer: Tokenizer, tmp_path: Path) -> None:
    """A run that is interrupted in a later stage does not train the earlier ones again."""
    first = make_fit(tokenizer, training={"validations": 2}, validate=True)
    stage_of(first, tmp_path).run_into(first.model)
    again = make_fit(tokenizer, training={"validations": 2}, validate=True, seed=77)
    again.advance = lambda: pytest.fail("trained again")  # type: ignore[method-assign,assignment,return-value]
    stage_of(again, tmp_path).run_into(again.model)
    assert numbers(again) == numbers(first)
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


def test_a_damaged_finished_stage_is_trained_again(tokenizer: Tokenizer, tmp_path: Path) -> None:
    first = make_fit(tokenizer)
    stage_of(first, tmp_path).run_into(first.model)
    (path,) = (tmp_path / "finished").glob("*/tensors.safetensors")
    path.write_bytes(path.read_bytes()[:-5])
    again = make_fit(tokenizer)
    stage_of(again, tmp_path).run_into(again.model)
    for name, value in first.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)


def test_long_runs_write_few_rows(tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a resumed run writes rows of the same steps."""
    monkeypatch.setattr(stage_room, "_JOURNALLED_STEPS", 5)
    settings: dict[str, Any] = {"training": {"budget": "30 steps"}}
    stage_of(make_fit(tokenizer, **settings), tmp_path / "whole").run()
    steps = [row["step"] for row in journal_of(tmp_path / "whole")]
    assert steps == [1, 6, 12, 18, 24, 30]
    with pytest.raises(Interrupted):
        stage_of(make_fit(tokenizer, **settings), tmp_path / "run", 14).run()
    stage_of(make_fit(tokenizer, **settings), tmp_path / "run").run()
    assert journal_of(tmp_path / "run") == journal_of(tmp_path / "whole")


def test_a_full_journal_does_not_end_the_run(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk that has no room for a checkpoint has none for the journal either."""
    fit = make_fit(tokenizer, training={"budget": "5 steps"})
    stage = stage_of(fit, tmp_path)
    real = stage_room.Journal

    class Full(real):  # type: ignore[misc,valid-type]
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._file.close()
            self._file = Path("/dev/full").open("a", encoding="utf-8")  # noqa: SIM115

    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    monkeypatch.setattr(stage_room, "Journal", Full)
    stage.run()
    assert fit.state.step == 5


def test_the_unigram_line_by_hand() -> None:
    """Row 11: the entropy of token frequencies, which a stuck run never beats."""
    import numpy as np

    counts = np.array([0, 6, 2, 0])
    assert unigram_entropy(counts) == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    bias = log_unigram(counts)
    assert bias.dtype == torch.float32 and bias.tolist() == pytest.approx(np.log([0.5 / 9, 6 / 9, 2 / 9, 0.5 / 9]))
    assert unigram_entropy(np.zeros(4, int)) == 0.0
    model = Model(tiny_config(vocab_size=4))
    assert model.readout.bias.shape == bias.shape


@pytest.mark.parametrize("stop", [2, 5, 9])
def test_resume_of_a_streamed_corpus_equals_the_uninterrupted_run(
    stop: int, tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Row 7, for corpora that are tokenised on the fly, over several windows and epochs."""
    monkeypatch.setattr("encodery.data.loader.STREAM_WINDOW_ROWS", 20)
    rows = make_rows(50, seed=2)

    def fresh() -> Fit:
        fit = make_fit(tokenizer, training={"budget": "12 steps", "accumulate": 2}, encoder={"drop_rate": 0.1})
        fit.loader.windows = StreamedWindows(lambda epoch, skip: iter(rows[skip:]), tokenizer, seed=3)
        return fit

    whole = fresh()
    stage_of(whole, tmp_path / "whole").run()
    assert whole.state.place.epoch >= 1
    with pytest.raises(Interrupted):
        stage_of(fresh(), tmp_path / "run", stop).run()
    fit = fresh()
    stage_of(fit, tmp_path / "run").run()
    assert all(torch.equal(a, b) for a, b in zip(everything(whole).values(), everything(fit).values()))
    assert journal_of(tmp_path / "run") == journal_of(tmp_path / "whole")


def test_the_best_weights_survive_an_interruption(tokenizer: Tokenizer, tmp_path: Path) -> None:
    def fresh() -> Fit:
        fit = make_fit(tokenizer, training={"budget": "8 steps", "validations": 4}, validate=True)
        fit.validate = lambda model: {"score": 1.0 / fit.state.step}
        return fit

    whole = stage_of(fresh(), tmp_path / "whole").run()
    with pytest.raises(Interrupted):
        stage_of(fresh(), tmp_path / "run", 5).run()
    fit = fresh()
    found = stage_of(fit, tmp_path / "run").run()
    assert fit.state.kept_step == 2
    assert all(torch.equal(found[name], whole[name]) for name in whole)
