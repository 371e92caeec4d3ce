"""The front door: `encodery VERB ...`. Reads words, calls one function, prints; no logic lives here."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from encodery.errors import EncoderyError

app = typer.Typer(
    name="encodery",
    help="Make your own encoder: from raw data to a trained, measured, explained model.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Changes to the recipe.")]


@app.command()
def train(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).")],
    overrides: Overrides = None,
) -> None:
    """Carry out a recipe: tokenizer, pretraining, fine-tuning, scores, report.

    Example: encodery train recipes/topics.yaml training.budget=5m data.train=mine.csv
    """
    from encodery.training.start import train as carry_out

    result = carry_out(recipe, *(overrides or []), console=_console(), environment=os.environ, command=_command())
    _show(result)


@app.command()
def resume(folder: Annotated[Path, typer.Argument(help="Folder of an interrupted run.")]) -> None:
    """Go on with an interrupted run, to the same result as without the interruption.

    Example: encodery resume runs/topics
    """
    from encodery.training.start import resume as go_on

    _show(go_on(folder, console=_console(), command=_command()))


@app.command()
def predict(
    model: Annotated[Path, typer.Argument(help="Model folder.")],
    texts: Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines are read from stdin.")] = None,
    file: Annotated[Path | None, typer.Option("--file", "-f", help="Read texts from a file, one a line.")] = None,
    top: Annotated[int | None, typer.Option(help="Only the most probable labels.", min=1)] = None,
    embed: Annotated[bool, typer.Option("--embed", help="Give vectors instead of labels.")] = False,
) -> None:
    """Answer texts with JSON lines, in order. For a model of pairs, the two texts of a line stand apart by a tab.

    Example: echo "what a lovely day" | encodery predict runs/topics
    """
    from encodery.use.predict import load

    predictor = load(model)
    paired = predictor.trained.task.paired
    lines = iter(texts) if texts else _lines(file)
    given = (tuple(line.split("\t", 1)) if paired else line for line in lines)
    if embed:
        for vector in predictor.embed(given):  # type: ignore[arg-type]
            _print_json({"vector": [round(float(number), 6) for number in vector]})
        return
    for answer in predictor.stream(given, top=top):  # type: ignore[arg-type]
        _print_json(answer)


def _lines(file: Path | None) -> Iterator[str]:
    from encodery.errors import DataError

    if file is None:
        if sys.stdin.isatty():
            raise DataError("no texts", fix="give them as arguments, with --file, or on standard input")
        yield from (line.rstrip("\r\n") for line in sys.stdin)
        return
    try:
        with file.open(encoding="utf-8", errors="replace") as opened:
            yield from (line.rstrip("\r\n") for line in opened)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", fix="check the path") from error


def _print_json(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value, ensure_ascii=False) + "\n")


def _show(result: Any) -> None:
    """The table of a run and where its files lie."""
    from rich.table import Table

    from encodery.evaluation.wording import count_text, headline, interval_text, seconds_text, value_text

    record, console = result.record, _console()
    if record.comparison:
        table = Table(title=f"{record.name}: {record.main_metric.replace('_', ' ')}")
        for column in ("", record.main_metric.replace("_", " "), "95 % interval", "parameters", "time"):
            table.add_column(column, justify="left" if not column else "right")
        for row in record.comparison:
            table.add_row(
                row.name,
                value_text(row.metric.value, record.main_metric),
                interval_text(row.metric, record.main_metric),
                count_text(row.parameters) if row.parameters else "",
                seconds_text(row.seconds) if row.seconds is not None else "",
            )
        console.print(table)
    elif record.metrics:
        for name, metric in record.metrics.items():
            console.print(f"{name.replace('_', ' ')}: {metric['value']:.4f}", highlight=False)
    for line in [headline(record), *record.diagnoses, *record.notes]:
        if line:
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"model:  {result.folder}", highlight=False, markup=False, soft_wrap=True)
    console.print(f"report: {result.folder / 'report.html'}", highlight=False, markup=False, soft_wrap=True)


def _console() -> Any:
    from rich.console import Console

    return Console()


def _command() -> str:
    """The command as it was typed, for the report."""
    return " ".join(["encodery", *sys.argv[1:]])


def main() -> None:
    """Run the command line: a problem the user can mend is one message and an exit code, not a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    debug = "--debug" in sys.argv
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except EncoderyError as error:
        if debug:
            raise
        sys.stderr.write(f"error: {error}\n")
        sys.exit(error.exit_code)
    except BrokenPipeError:
        # The reader of our output went away (`encodery predict ... | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)


if __name__ == "__main__":
    main()
