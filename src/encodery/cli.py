"""The front door: `encodery VERB ...`. Reads words, calls one function, prints; no logic lives here."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import typer

from encodery import cli_options as option
from encodery.errors import ConfigError, DataError, in_words

_help_width = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
_looks: dict[str, Any] = {
    "no_args_is_help": True,
    "rich_markup_mode": None,
    "context_settings": _help_width,
}
app = typer.Typer(
    name="encodery",
    help="Make your own encoder: from raw data to a trained, measured, explained model.\n\n"
    "Begin with: encodery new my_texts.csv",
    add_completion=False,
    pretty_exceptions_enable=False,
    **_looks,
)
inspect = typer.Typer(
    name="inspect",
    help="See what will happen before it happens.\n\nExample: encodery inspect data recipes/topics.yaml",
    **_looks,
)
app.add_typer(inspect)


@app.callback()
def _root(version: option.Version = False, debug: option.Debug = False) -> None:
    del version, debug  # --debug is taken out of the arguments by main


# -- train -----------------------------------------------------------------------------------------


@app.command()
def train(recipe: option.RecipeFile, overrides: option.Overrides = None, quiet: option.Quiet = False) -> None:
    """Carry out a recipe, from the tokenizer to the report.

    Example: encodery train recipes/topics.yaml training.budget=5m data.train=mine.csv
    """
    from encodery.printing import show_run
    from encodery.training.start import train as carry_out

    console = None if quiet else _console()
    result = carry_out(recipe, *(overrides or []), console=console, environment=os.environ, command=_command())
    show_run(_console(), result)


@app.command()
def resume(folder: option.RunFolder) -> None:
    """Go on with an interrupted run.

    The result is the same as without the interruption.

    Example: encodery resume runs/topics
    """
    from encodery.printing import show_run
    from encodery.training.start import resume as go_on

    show_run(_console(), go_on(folder, console=_console(), command=_command()))


@app.command()
def demo(overrides: option.Overrides = None, folder: option.DemoFolder = Path("demo")) -> None:
    """The whole road in minutes, on text that came with the installation.

    Trains a tokenizer, pretrains an encoder, fine-tunes it, measures it beside its baselines, writes a report.

    Example: encodery demo pretrain.training.budget=5m
    """
    from encodery.printing import show_run
    from encodery.training.demo import write_demo
    from encodery.training.start import train as carry_out

    recipe = write_demo(folder)
    console = _console()
    console.print(f"recipe: {recipe}", highlight=False, markup=False)
    show_run(_console(), carry_out(recipe, *(overrides or []), console=console, command=_command()))


# -- before training -------------------------------------------------------------------------------


@app.command()
def new(
    files: option.Files,
    output: option.NewRecipe = Path("recipe.yaml"),
    task: option.TaskName = None,
    text: option.TextColumn = None,
    label: option.LabelColumn = None,
    pair: option.PairColumn = None,
) -> None:
    """Look at your files and write a commented recipe for them.

    Files with test, dev or valid in their names become those splits, also beside a train file and in a folder.

    Example: encodery new reviews.csv --output recipes/reviews.yaml
    """
    from encodery.printing import show_draft
    from encodery.training.draft import look_at_files, task_named, write_draft

    draft = look_at_files(files, task=task_named(task), text=text, label=label, pair=pair)
    show_draft(_console(), draft, write_draft(draft, output))


@inspect.command("data")
def inspect_data(recipe: option.RecipeFile, overrides: option.Overrides = None) -> None:
    """Rows, labels, lengths, copies, overlaps, bad rows.

    Example: encodery inspect data recipes/topics.yaml data.train=mine.csv
    """
    from encodery.printing_previews import show_data
    from encodery.training.preview_data import look_at_data

    show_data(_console(), look_at_data(_resolved(recipe, overrides)))


@inspect.command("model")
def inspect_model(recipe: option.RecipeFile, overrides: option.Overrides = None, length: option.Tokens = None) -> None:
    """Parameters, FLOPs and memory, part by part.

    Example: encodery inspect model recipes/topics.yaml encoder.preset=small
    """
    from encodery.printing_previews import show_model
    from encodery.training.preview_model import look_at_model

    show_model(_console(), look_at_model(_resolved(recipe, overrides), length=length))


@inspect.command("config")
def inspect_config(
    recipe: option.RecipeFile, overrides: option.Overrides = None, help_texts: option.HelpTexts = False
) -> None:
    """Every value of the recipe and where it comes from.

    Example: encodery inspect config recipes/topics.yaml --help-texts
    """
    from encodery.config import explain
    from encodery.printing_previews import show_config

    show_config(_console(), explain(_resolved(recipe, overrides)), help_texts=help_texts)


@inspect.command("batch")
def inspect_batch(recipe: option.RecipeFile, overrides: option.Overrides = None, rows: option.BatchRows = 4) -> None:
    """The first batch of every stage, to be read.

    Example: encodery inspect batch recipes/topics.yaml --rows 2
    """
    from encodery.printing_previews import show_batch
    from encodery.training.preview import look_at_batch
    from encodery.training.preview_model import stages_of

    resolved = _resolved(recipe, overrides)
    for stage in stages_of(resolved.config):
        show_batch(_console(), look_at_batch(resolved, stage), rows=rows)


@inspect.command("learning")
def inspect_learning(recipe: option.RecipeFile, overrides: option.Overrides = None, steps: option.Steps = 100) -> None:
    """Can it learn one batch by heart?

    Trains every stage on one batch alone: the loss must fall near 0. Exits with 5 if it does not.

    Example: encodery inspect learning recipes/topics.yaml
    """
    from encodery.printing_previews import show_learning
    from encodery.training.preview import check_learning
    from encodery.training.preview_model import stages_of

    resolved, console = _resolved(recipe, overrides), _console()
    learned = True
    for stage in stages_of(resolved.config):
        with console.status(f"{stage.name}: learning one batch by heart") if console.is_terminal else nullcontext():
            view = check_learning(resolved, stage, steps=steps)
        show_learning(console, view)
        learned = learned and view.outcome != "not"
    if not learned:
        raise typer.Exit(5)


@app.command()
def tokenizer(
    files: option.Files,
    output: option.TokenizerFile = Path("tokenizer.json"),
    kind: option.TokenizerKind = None,
    vocab_size: option.VocabSize = None,
    language: option.Language = None,
    max_bytes: option.MaxBytes = None,
    text: option.TextColumn = None,
) -> None:
    """Train a tokenizer on files and measure it on texts kept apart.

    Example: encodery tokenizer corpus.txt --kind unigram --vocab-size 8000 --output tokenizer.json
    """
    from encodery.printing import show_tokenizer
    from encodery.training.vocabulary import make_tokenizer_file

    options = {"kind": kind, "vocab_size": vocab_size, "language": language, "max_bytes": max_bytes}
    show_tokenizer(_console(), make_tokenizer_file(files, output, options=options, text=text))


# -- after training --------------------------------------------------------------------------------


@app.command()
def evaluate(
    model: option.ModelFolder,
    files: option.Files,
    text: option.TextColumn = None,
    label: option.LabelColumn = None,
    pair: option.PairColumn = None,
    output: option.FiguresFile = None,
    report: option.ReportFile = None,
    errors: option.Mistakes = 5,
    precision: option.Precision = "fp32",
) -> None:
    """Score a model on labelled rows.

    Shows every metric with its 95 % interval, the confusions and the worst mistakes. Columns that are not named are
    those the model was trained with. With --precision bf16 or int8 it says what that costs against fp32.

    Example: encodery evaluate runs/topics test.csv --label topic
    """
    from encodery.printing import say, show_evaluation
    from encodery.use.score import Columns, write_evaluation
    from encodery.use.score import evaluate as score

    record = score(model, files, columns=Columns(text, pair, label), precision=precision, command=_command())
    console = _console()
    show_evaluation(console, record, errors=errors)
    for path in write_evaluation(record, metrics=output, report=report):
        say(console, f"written: {path}")


@app.command()
def predict(
    model: option.ModelFolder,
    texts: option.Texts = None,
    file: option.TextFile = None,
    top: option.Top = None,
    embed: option.Embed = False,
    output: option.AnswersFile = None,
    precision: option.Precision = "fp32",
    prompt: option.Prompt = None,
    dimension: option.Dimension = None,
    windows: option.Windows = False,
) -> None:
    """Answer texts with JSON lines: one a line, in order. For a model of pairs, a tab stands between two texts.

    A line without text is answered with {"error": ...} (in a file of vectors: a row of NaN), so that answers and lines
    stay side by side; the exit code is 3 when no line at all could be answered. Any number of lines, in memory that
    does not grow with them.

    Example: echo "what a lovely day" | encodery predict runs/topics
    """
    from encodery.use.lines import write_answers, write_vectors
    from encodery.use.predict import load

    lines = _given(texts, file, output)
    predictor = load(model, precision=precision, dimension=dimension)
    if embed and output is not None:
        counts = write_vectors(predictor, lines, output, prompt=prompt)
    else:
        to = output or sys.stdout
        counts = write_answers(predictor, lines, to, top=top, embed=embed, prompt=prompt, windows=windows)
    _watched(counts, output)


def _given(texts: list[str] | None, file: Path | None, output: Path | None) -> Iterator[str]:
    if texts and file is not None:
        raise DataError("texts are given as arguments and with --file", fix="leave out one of them")
    if output is not None and output.is_dir():
        raise DataError(f"--output {output} is a folder", expected="the name of a file to write")
    return iter(texts) if texts else _lines(file)


def _watched(counts: Iterator[tuple[int, int]], output: Path | None) -> None:
    """Let the answers be written, and say how it goes."""
    from encodery.printing import show_counts

    # Where answers scroll by, they are progress enough.
    watched = output is not None or not sys.stdout.isatty()
    given, answered = show_counts(_console(stderr=True), counts, watched)
    if given > answered:
        sys.stderr.write(f"{given - answered:,} of {given:,} lines could not be answered\n")
    if not given:
        raise DataError("no texts", fix="give them as arguments, with --file, or on standard input")
    if not answered:
        raise typer.Exit(DataError.exit_code)


@app.command()
def write(
    model: option.ModelFolder,
    texts: option.Texts = None,
    file: option.TextFile = None,
    output: option.AnswersFile = None,
    precision: option.Precision = "fp32",
    top: option.Best = None,
    beam: option.Beam = None,
    length_penalty: option.LengthPenalty = None,
    sample: option.Sample = False,
    temperature: option.Temperature = None,
    top_k: option.TopK = None,
    top_p: option.TopP = None,
    seed: option.Seed = None,
    repetition_penalty: option.RepetitionPenalty = None,
    no_repeat: option.NoRepeat = None,
    min_tokens: option.MinTokens = None,
    max_tokens: option.MaxTokens = None,
) -> None:
    """Write a text for each text (translate, sum up, ask), or with a language model go on from each prompt.

    Answers are JSON lines, as those of predict. What is not given is as the model's recipe says.

    Example: encodery write runs/translation "Two dogs run in the snow." --beam 4
    """
    from encodery.use.lines import write_answers
    from encodery.use.predict import load
    from encodery.use.writing import generation_of

    given = {
        "beam": beam,
        "length_penalty": length_penalty,
        "sample": sample or None,
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "seed": seed,
        "repetition_penalty": repetition_penalty,
        "no_repeat_ngram": no_repeat,
        "min_tokens": min_tokens,
        "max_tokens": max_tokens,
    }
    predictor = load(model, precision=precision)
    if predictor.trained.task.kind not in ("write", "causal"):
        raise ConfigError(f"{model} does not write", fix="ask it with: encodery predict")
    changes = {name: value for name, value in given.items() if value is not None}
    predictor.generation = generation_of(predictor.trained.task, changes)
    _watched(write_answers(predictor, _given(texts, file, output), output or sys.stdout, top=top), output)


@app.command()
def convert(folder: option.ForeignFolder, output: option.NewModelFolder) -> None:
    """Read a Hugging Face model into a model folder: to predict --embed with, or to go on from (start_from).

    Example: encodery convert sentence-transformers/all-MiniLM-L6-v2 --output models/minilm
    """
    from encodery.interop.huggingface import read_huggingface

    trained = read_huggingface(folder)
    notes = "".join(f"\n- {note}" for note in trained.notes)
    card = f"# {folder.resolve().name}\n\nConverted by `encodery convert` from a model of Hugging Face.\n{notes}\n"
    trained.save(output, card=card, metrics={"converted_from": str(folder)})
    for note in trained.notes:
        typer.echo(note)
    typer.echo(f"model: {output}")


@app.command()
def export(
    model: option.ModelFolder,
    to: option.Format,
    output: option.ExportFolder,
    part: option.Part = "model",
    int8: option.Int8 = False,
    accept_loss: option.AcceptLoss = False,
    texts: option.CompareFile = None,
) -> None:
    """Write a model for other programs: ONNX Runtime, or Hugging Face.

    The ONNX file is first asked the same as the model, in batches of many shapes, and written only if it answers the
    same. The folder holds the tokenizer and a README with the lines that run it.

    Example: encodery export runs/topics --to onnx --output topics-onnx --int8
    """
    from encodery.interop.export import export as write

    compared = [] if texts is None else list(_lines(texts))
    for line in write(model, to, output, part=part, int8=int8, accept_loss=accept_loss, texts=compared):
        typer.echo(line)


# -- shared ----------------------------------------------------------------------------------------


def _lines(file: Path | None) -> Iterator[str]:
    """Lines of the file or of standard input; bytes that are no UTF-8 become U+FFFD."""
    if file is None:
        if sys.stdin.isatty():
            raise DataError("no texts", fix="give them as arguments, with --file, or on standard input")
        stream = io.TextIOWrapper(sys.stdin.buffer, encoding="utf-8", errors="replace", newline="\n")
        yield from (line.rstrip("\r\n") for line in stream)
        return
    try:
        with file.open(encoding="utf-8", errors="replace", newline="\n") as opened:
            yield from (line.rstrip("\r\n") for line in opened)
    except OSError as error:
        raise DataError(f"cannot read {file}: {error.strerror}", fix="check the path") from error


def _resolved(recipe: Path, overrides: list[str] | None) -> Any:
    from encodery.config import load_config
    from encodery.training.recipe import Recipe

    return load_config(Recipe, recipe, overrides or [], environment=os.environ)


def _console(*, stderr: bool = False) -> Any:
    from rich.console import Console

    return Console(stderr=stderr)


def _command() -> str:
    """The command as it was typed, for the report."""
    return " ".join(["encodery", *sys.argv[1:]])


def main() -> None:
    """Run the command line: a problem is one message and an exit code, not a traceback."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    # Threads of torch that wait for one another spin shorter than they would: as fast on an idle machine, and not as
    # slow on one where something else runs too (with one busy neighbour on two cores, 0.70 s a step for 0.89 s).
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    debug = "--debug" in sys.argv[:end]
    if debug:
        sys.argv.remove("--debug")
    try:
        app()
    except BrokenPipeError:
        # The reader of our output went away (`encodery predict ... | head`).
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        text, code = in_words(error)
        sys.stdout.flush()
        sys.stderr.write(f"error: {text}\n")
        sys.exit(code)


if __name__ == "__main__":
    main()
