"""What may stand behind the verbs of the command line: every argument and option by name, with its help."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

# -- what stands before a verb, or belongs to most of them


def _show_version(wanted: bool) -> None:
    if wanted:
        from encodery import __version__

        typer.echo(f"encodery {__version__}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", help="Show the version and end.", is_eager=True, callback=_show_version)
]
Debug = Annotated[bool, typer.Option("--debug", help="Show tracebacks; may stand anywhere.")]

RecipeFile = Annotated[Path, typer.Argument(metavar="RECIPE", help="The recipe (YAML).")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE...", help="Changes to the recipe.")]
Files = Annotated[list[str], typer.Argument(metavar="FILE...", help="Files, folders, globs or hub:owner/name.")]
ModelFolder = Annotated[Path, typer.Argument(metavar="MODEL", help="Model folder, as training wrote it.")]
Precision = Annotated[str, typer.Option(help="fp32, bf16 or int8: faster, and a little less exact.")]
TextColumn = Annotated[str | None, typer.Option("--text", metavar="COLUMN", help="Column of the text.")]
LabelColumn = Annotated[str | None, typer.Option("--label", metavar="COLUMN", help="Column of the label.")]
PairColumn = Annotated[
    str | None,
    typer.Option("--pair", metavar="COLUMN", help="Column of the second text, or of the one to be written."),
]

# -- train, resume, demo

Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Show the result only.")]
RunFolder = Annotated[Path, typer.Argument(help="Folder of an interrupted run.")]
DemoFolder = Annotated[Path, typer.Option(metavar="FOLDER", help="Where its data, recipe and run go.")]

# -- new, inspect, tokenizer

NewRecipe = Annotated[Path, typer.Option("--output", "-o", metavar="RECIPE", help="Recipe to write.")]
TaskName = Annotated[
    str | None, typer.Option(metavar="TASK", help="classify, tag, answer, embed, write, ... or masked (no labels).")
]
Tokens = Annotated[int | None, typer.Option(help="Tokens of a document, for the FLOPs.", min=3)]
HelpTexts = Annotated[bool, typer.Option("--help-texts", help="Explain every key.")]
BatchRows = Annotated[int, typer.Option(help="Rows of the batch to show.", min=1)]
Steps = Annotated[int, typer.Option(help="Most steps on the one batch.", min=10)]
TokenizerFile = Annotated[Path, typer.Option("--output", "-o", help="A .json file, or a folder for it.")]
TokenizerKind = Annotated[str | None, typer.Option(help="wordpiece, bpe, byte_bpe, unigram, bytes or characters.")]
VocabSize = Annotated[str | None, typer.Option(metavar="TOKENS", help="Largest vocabulary.")]
Language = Annotated[str | None, typer.Option(metavar="CODE", help="auto, en, de, zh, ja, ...")]
MaxBytes = Annotated[str | None, typer.Option(metavar="BYTES", help="Text held for training.")]

# -- evaluate, predict

FiguresFile = Annotated[Path | None, typer.Option("--output", "-o", help="Write all figures as JSON.")]
ReportFile = Annotated[Path | None, typer.Option("--report", help="Write a report (HTML).")]
Mistakes = Annotated[int, typer.Option(help="Worst mistakes to show.", min=0)]
Texts = Annotated[list[str] | None, typer.Argument(help="Texts; without any, lines are read from stdin.")]
TextFile = Annotated[Path | None, typer.Option("--file", "-f", help="Read texts from a file, one a line.")]
Top = Annotated[int | None, typer.Option(help="Only the most probable labels.", min=1)]
Dimension = Annotated[
    int | None,
    typer.Option(metavar="N", help="Keep the first N numbers of each vector (Matryoshka)."),
]
Embed = Annotated[bool, typer.Option("--embed", help="Give vectors instead of labels.")]
AnswersFile = Annotated[
    Path | None, typer.Option("--output", "-o", help="Write to a file; vectors as a NumPy file (.npy).")
]
Prompt = Annotated[
    str | None, typer.Option(metavar="NAME", help="One of the model's prompts, to put before each text.")
]

Windows = Annotated[bool, typer.Option("--windows", help="Say of each part of a long text what it was taken for.")]

# -- write

Beam = Annotated[int | None, typer.Option(metavar="N", help="Keep the N likeliest texts at each step; 1 is greedy.")]
LengthPenalty = Annotated[float | None, typer.Option(help="For a beam: above 0 longer texts are preferred.")]
Sample = Annotated[bool, typer.Option("--sample", help="Draw tokens instead of taking the likeliest.")]
Temperature = Annotated[float | None, typer.Option(help="For samples: below 1 the likely becomes likelier.")]
TopK = Annotated[int | None, typer.Option(metavar="N", help="For samples: draw from the N likeliest tokens.")]
TopP = Annotated[
    float | None, typer.Option(metavar="SHARE", help="For samples: from those that hold this probability.")
]
Seed = Annotated[int | None, typer.Option(help="For samples: another seed draws other texts.")]
RepetitionPenalty = Annotated[float | None, typer.Option(help="Above 1 tokens that were written become less likely.")]
NoRepeat = Annotated[int | None, typer.Option("--no-repeat", metavar="N", help="No run of N tokens comes twice.")]
MinTokens = Annotated[int | None, typer.Option(metavar="N", help="No text ends before it has N tokens.")]
MaxTokens = Annotated[int | None, typer.Option(metavar="N", help="Every text ends when it has N tokens.")]
Best = Annotated[int | None, typer.Option("--top", metavar="N", help="For a beam: show the N best.", min=1)]

# -- convert, export

ForeignFolder = Annotated[
    Path,
    typer.Argument(
        metavar="FOLDER", help="As save_pretrained or sentence-transformers wrote it, or a Hub name: owner/model."
    ),
]
NewModelFolder = Annotated[Path, typer.Option("--output", "-o", help="The model folder to write.")]
Format = Annotated[str, typer.Option("--to", metavar="FORMAT", help="onnx or huggingface.")]
ExportFolder = Annotated[Path, typer.Option("--output", "-o", metavar="FOLDER", help="The folder to write.")]
Part = Annotated[
    str,
    typer.Option(metavar="PART", help="onnx: model, encoder (vectors of all tokens) or embedder (one vector a text)."),
]
Int8 = Annotated[bool, typer.Option("--int8", help="onnx: round matrices to 8 bits, and measure what that costs.")]
AcceptLoss = Annotated[bool, typer.Option("--accept-loss", help="onnx: write int8 even when it costs too much.")]
CompareFile = Annotated[
    Path | None, typer.Option("--texts", metavar="FILE", help="onnx: compare on these texts too, one a line.")
]
