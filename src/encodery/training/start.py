"""Begin a run or take one up again: where its folder lies, and what it was started with."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from encodery.config import Resolved, load_config
from encodery.durable import replace_file
from encodery.errors import ConfigError, DataError
from encodery.training.journal import Progress
from encodery.training.preflight import check_before
from encodery.training.recipe import Recipe
from encodery.training.run import Run, RunResult
from encodery.training.signals import StopRequest

RECIPE_FILE = "recipe.yaml"
RUN_FILE = "run.json"


def train(
    recipe: str | Path | Mapping[str, Any] | Recipe,
    *overrides: str,
    console: Console | None = None,
    environment: Mapping[str, str] | None = None,
    command: str = "",
) -> RunResult:
    """Carry out a recipe: a file, a mapping, or a Recipe; `overrides` are 'dotted.key=value', with paths meant from
    the working directory.

    The run's folder is `output`, by default runs/NAME, and is never written over: when it holds a run already, a
    number is added to the name. `${NAME}` in it is looked up in `environment`, which the command line hands in and a
    program may (os.environ). Raises ConfigError, DataError, WeightsError, TrainingError, Interrupted.
    """
    if isinstance(recipe, Recipe):
        recipe = recipe.model_dump(mode="json")
    path = Path(recipe) if isinstance(recipe, str | Path) else None
    defaults: dict[str, Any] | None = None
    if isinstance(recipe, Mapping):
        defaults = {str(key): value for key, value in recipe.items()}
    resolved = load_config(Recipe, path, overrides, environment=environment or {}, defaults=defaults)
    notes = check_before(resolved)
    folder = free_folder(resolved.config)
    _write_down(folder, resolved, command)
    return _carry_out(folder, resolved.config, resolved.base, console, command, notes)


def resume(folder: str | Path, *, console: Console | None = None, command: str = "") -> RunResult:
    """Go on with an interrupted run, to the result it would have come to without the interruption.

    Raises DataError when the folder holds no run, or one that is complete.
    """
    folder = Path(folder)
    if not (folder / RUN_FILE).exists():
        raise DataError(
            f"{folder} is not the folder of a run: it has no {RUN_FILE}",
            expected="the folder that 'encodery train' named when it began",
            fix="look into runs/",
        )
    if (folder / "config.json").exists():
        raise DataError(f"the run in {folder} is complete", fix=f"look at {folder / 'report.html'}")
    started = json.loads((folder / RUN_FILE).read_text(encoding="utf-8"))
    recipe = load_config(Recipe, folder / RECIPE_FILE, [], environment={}).config
    return _carry_out(folder, recipe, Path(started["base"]), console, started["command"] or command)


def free_folder(recipe: Recipe) -> Path:
    """The run's folder, or the next free one beside it when a run is there already."""
    wanted = Path(recipe.output) if recipe.output else Path("runs") / recipe.name
    folder, number = wanted, 1
    while (folder / RUN_FILE).exists() or (folder / "config.json").exists():
        number += 1
        folder = wanted.with_name(f"{wanted.name}-{number}")
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output: {folder} is a file", expected="a folder, or a name that is free")
    return folder


def _write_down(folder: Path, resolved: Resolved[Recipe], command: str) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        replace_file(folder / RECIPE_FILE, resolved.to_yaml().encode())
        started = {"base": str(resolved.base.resolve()), "command": command}
        replace_file(folder / RUN_FILE, json.dumps(started).encode())
    except OSError as error:
        raise ConfigError(
            f"cannot write the run's folder {folder}: {error.strerror or error}",
            fix="choose another place with output=FOLDER",
        ) from error


def _carry_out(
    folder: Path, recipe: Recipe, base: Path, console: Console | None, command: str, notes: Sequence[str] = ()
) -> RunResult:
    progress = Progress(console)
    for line in (f"run folder: {folder}", *notes):
        progress.say(line)
    with StopRequest() as stop:
        run = Run(recipe, base, folder, progress, stop, command, f"encodery resume {folder}")
        return run.carry_out()
