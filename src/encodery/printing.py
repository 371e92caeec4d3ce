"""What the command line shows: tables of runs, data, models, batches. Nothing is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from encodery.evaluation.wording import (
    count_text,
    headline,
    interval_text,
    metric_text,
    seconds_text,
    shortened,
    value_text,
)

if TYPE_CHECKING:
    from pathlib import Path

    from encodery.data.tokenizers import Coverage
    from encodery.evaluation.record import RunRecord
    from encodery.training.draft import Draft
    from encodery.training.preview import BatchView, LearningView
    from encodery.training.preview_data import DataView, SplitView
    from encodery.training.preview_model import ModelView
    from encodery.training.run import RunResult
    from encodery.training.vocabulary import MadeTokenizer

_LABELS_SHOWN = 15
_CONFUSION_LABELS = 12


def say(console: Console, text: str) -> None:
    """One line as it is: no markup, never broken by us."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def _table(title: str, *columns: str, left: int = 1) -> Table:
    """A plain table; the first `left` columns hold words, the others figures."""
    table = Table(title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for number, column in enumerate(columns):
        table.add_column(column, justify="left" if number < left else "right", overflow="fold")
    return table


def show_run(console: Console, result: RunResult) -> None:
    """The table of a run and where its files lie."""
    record = result.record
    if record.comparison:
        title = record.main_metric.replace("_", " ")
        table = _table(f"{record.name}: {title}", "", title, "95 % interval", "parameters", "time")
        for row in record.comparison:
            table.add_row(
                Text(row.name),
                value_text(row.metric.value, record.main_metric),
                interval_text(row.metric, record.main_metric),
                count_text(row.parameters) if row.parameters else "",
                seconds_text(row.seconds) if row.seconds is not None else "",
            )
        console.print(table)
    elif record.metrics:
        for name in record.metrics:
            say(console, f"{name.replace('_', ' ')}: {value_text(record.metric(name).value, name)}")
    for line in [headline(record), *record.diagnoses, *record.notes]:
        if line:
            say(console, line)
    say(console, f"model:  {result.folder}")
    say(console, f"report: {result.folder / 'report.html'}")


# -- data ------------------------------------------------------------------------------------------


def show_data(console: Console, view: DataView) -> None:
    """Every split beside the others, labels, lengths, copies, bad rows; at the end what to look at first."""
    for path, names in view.columns.items():
        say(console, f"{path}: columns {', '.join(names)}")
    say(console, f"tokens: {view.tokenizer}")
    table = _table("", "", *(split.name for split in view.splits))
    for name, cells in _data_lines(view):
        table.add_row(name, *cells)
    console.print()
    console.print(table)
    _show_labels(console, view.splits)
    train = view.splits[0]
    step = f" (of every {train.token_step}th row)" if train.token_step > 1 else ""
    _show_histogram(console, "length in characters, train", train.characters)
    _show_histogram(console, f"length in tokens, train{step}; the limit is {view.max_length}", train.tokens)
    for split in view.splits:
        for title, found in (("texts that come more than once", split.repeated), ("also in train", split.shared)):
            if found:
                console.print(f"\n[bold]{split.name}: {title}[/bold]", highlight=False)
            for one in found:
                say(console, f"  {one.count} x  {shortened(one.text, 70)}  ({one.where})")
    for split in view.splits:
        if not split.made:
            console.print(f"\n[bold]{split.name}: rows as read[/bold]", highlight=False)
            for line in split.ledger.summary():
                say(console, f"  {line}")
    console.print("\n[bold]remarks[/bold]", highlight=False)
    for line in view.remarks or ["Nothing looks wrong."]:
        console.print(Text(f"- {line}"))


def _data_lines(view: DataView) -> list[tuple[str, list[str]]]:
    from encodery.training.preview_data import quantile

    splits = view.splits

    def share(part: int, split: SplitView, of: int | None = None) -> str:
        total = split.rows if of is None else of
        return f"{part:,} ({part / max(1, total):.1%})"

    lines: list[tuple[str, list[str]]] = [
        ("rows", [f"{s.rows:,}{' (from train)' if s.made else ''}" for s in splits]),
        ("language (guessed)", [s.language for s in splits]),
        ("median characters", [f"{quantile(s.characters, 0.5):,}" for s in splits]),
        ("longest, characters", [f"{s.longest[0]:,}" for s in splits]),
        ("median tokens", [f"{quantile(s.tokens, 0.5):,}" for s in splits]),
        ("99 % have up to, tokens", [f"{quantile(s.tokens, 0.99):,}" for s in splits]),
    ]
    fate = "split" if any(s.windows for s in splits) else "cut"
    over = [f"{s.too_long / max(1, s.tokens.total()):.1%}" for s in splits]
    lines.append((f"over {view.max_length} tokens: {fate}", over))
    lines.append(("copies of an earlier text", [share(s.copies, s) for s in splits]))
    if view.labels != "none":
        lines.append(("texts with several labels", [f"{s.contradictions:,}" for s in splits]))
    lines.append(("texts also in train", ["" if s.name == "train" else share(s.in_train, s) for s in splits]))
    lines.append(("bad rows", [f"{s.ledger.bad:,}" for s in splits]))
    if any(s.majority for s in splits) and view.labels == "class":
        lines.append(
            ("commonest label", [f"{s.majority[0]} ({s.majority[1]:.1%})" if s.majority else "" for s in splits])
        )
    for name in splits[0].numbers or {}:
        lines.append((f"label, {name}", [f"{(s.numbers or {}).get(name, float('nan')):.4g}" for s in splits]))
    return lines


def _show_labels(console: Console, splits: Sequence[SplitView]) -> None:
    if not splits[0].labels:
        return
    table = _table("labels", "", "", *(split.name for split in splits), left=2)
    ranked = splits[0].labels.most_common()
    most = ranked[0][1]
    for label, count in ranked[:_LABELS_SHOWN]:
        table.add_row(Text(shortened(label, 30)), _bar(count, most), *(f"{s.labels[label]:,}" for s in splits))
    if len(ranked) > _LABELS_SHOWN:
        rest = [label for label, _ in ranked[_LABELS_SHOWN:]]
        table.add_row(f"{len(rest)} more", "", *(f"{sum(s.labels[label] for label in rest):,}" for s in splits))
    console.print()
    console.print(table)


def _show_histogram(console: Console, title: str, lengths: Counter[int]) -> None:
    from encodery.training.preview_data import histogram

    bins = histogram(lengths)
    table = _table(title, "", "", "", left=2)
    table.show_header = False
    for low, high, count in bins:
        table.add_row(f"{low:,} to {high:,}", _bar(count, max(count for *_, count in bins)), f"{count:,}")
    console.print()
    console.print(table)


def _bar(count: int, most: int, width: int = 30) -> str:
    full = width * count / max(1, most)
    return "█" * int(full) + ("▌" if full % 1 >= 0.5 or (count and full < 0.5) else "")


# -- model, config ---------------------------------------------------------------------------------


def show_model(console: Console, views: Sequence[ModelView]) -> None:
    """Parameters, FLOPs and memory of each stage's model."""
    for number, view in enumerate(views):
        if number:
            console.print()
        stage = "" if len(views) == 1 else f"{view.stage}: "
        table = _table(f"{stage}the model, for documents of {view.length} tokens", "", "parameters", "FLOPs a token")
        for part in view.parts:
            table.add_row(part.name, f"{part.parameters:,}", _flops(part.flops))
        table.add_row("total", f"{view.parameters:,}", _flops(view.forward_flops), style="bold")
        console.print(table)
        say(console, f"a training step: {_flops(3 * view.forward_flops)} FLOPs a token (forward and backward)")
        accumulated = f" x {view.accumulate} batches" if view.accumulate > 1 else ""
        say(console, f"positions a step: {view.positions:,}{accumulated}")
        for name, parts in (("training", view.training_bytes), ("use", view.inference_bytes)):
            each = ", ".join(f"{part} {_bytes(size)}" for part, size in parts.items())
            say(console, f"memory in {name}, roughly: {_bytes(sum(parts.values()))} ({each})")
    for note in dict.fromkeys(note for view in views for note in view.notes):
        say(console, note)


def _flops(number: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}" if number else ""


def _bytes(number: float) -> str:
    for size, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f} B"


def show_config(console: Console, rows: Sequence[tuple[str, Any, str, str]], *, help_texts: bool) -> None:
    """Every value with its source; values that are not defaults stand out."""
    if help_texts:
        for key, value, source, text in rows:
            console.print(Text(key, style="bold"), Text(_value(value)), Text(f"({source})", style="dim"))
            console.print(Padding(Text(text, style="italic"), (0, 0, 0, 4)))
        return
    table = _table("", "key", "value", "from", left=3)
    for key, value, source, _ in rows:
        table.add_row(Text(key), Text(_value(value)), Text(source), style="dim" if source == "default" else "")
    console.print(table)


def _value(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(part) for part in value) + "]"
    return str(value)


# -- batch, learning -------------------------------------------------------------------------------


def show_batch(console: Console, view: BatchView, *, rows: int) -> None:
    """The batch row by row: documents apart by a bar, hidden tokens marked with what stood there."""
    if view.masked:
        kind = f"{view.stage} on masked words, {view.masked:,} hidden: \\[shown|hidden]"
    else:
        kind = view.stage
    console.print(f"[bold]first batch of {kind}[/bold]", highlight=False)
    say(
        console,
        f"{len(view.rows)} rows of {view.length} positions; {view.documents:,} documents; {view.real:,} of "
        f"{view.positions:,} positions filled ({view.fill:.1%}), {view.positions - view.real:,} padding",
    )
    say(console, f"tokens: {view.tokenizer}")
    for number, row in enumerate(view.rows[:rows]):
        line, last = Text(f"row {number + 1}: "), None
        for token in row:
            if token.document != last:
                line.append(" ▏" if last is not None else "▏", style="bold cyan")
                if view.labels:
                    line.append(f"({view.labels[token.document]}) ", style="bold cyan")
                last = token.document
            if token.hidden is not None:
                line.append(f"[{token.text.strip('[]')}|{token.hidden}]", style="bold yellow")
            else:
                line.append(token.text, style="dim" if token.text.startswith("[") else "")
            line.append(" ")
        line.append(f" ({view.length - len(row)} padding)", style="dim")
        console.print(line)
    if len(view.rows) > rows:
        say(console, f"... and {len(view.rows) - rows} rows more (--rows {len(view.rows)} shows all)")


def show_learning(console: Console, view: LearningView) -> None:
    """The loss on one batch, step by step, and the verdict."""
    size = f"{view.documents:,} documents, {view.positions:,} positions"
    console.print(f"[bold]{view.stage}: one batch learned by heart[/bold] ({size})", highlight=False)
    table = _table("", "step", "loss", "", left=0)
    table.columns[2].justify = "left"
    every = max(1, -(-len(view.losses) // 10))
    for step in sorted({*range(0, len(view.losses), every), len(view.losses) - 1}):
        loss = view.losses[step]
        table.add_row(str(step + 1), f"{loss:.4f}", _bar(round(1000 * loss), round(1000 * max(view.losses))))
    console.print(table)
    if view.accuracy is not None:
        say(console, f"right at the end: {view.accuracy:.1%}")
    console.print(Text(view.verdict, style="bold red" if view.outcome == "not" else "green"))


# -- new, tokenizer, evaluate ----------------------------------------------------------------------


def show_draft(console: Console, draft: Draft, path: Path) -> None:
    """What was seen in the files, and the next commands."""
    rows = f"{draft.rows:,} rows" if draft.all_rows else f"the first {draft.rows:,} rows"
    say(console, f"looked at {rows} of {draft.files['train'][0]} ({draft.format}, {draft.megabytes:.1f} MB)")
    text = draft.text if isinstance(draft.text, str) else " + ".join(draft.text)
    facts = [("columns", ", ".join(draft.columns)), ("text", text)]
    facts += [("second text", draft.pair)] if draft.pair else []
    if draft.label:
        shown = ", ".join(f"{shortened(label, 24)} ({n:,})" for label, n in draft.labels.most_common(5))
        more = f", and {len(draft.labels) - 5} more" if len(draft.labels) > 5 else ""
        facts.append(("label", f"{draft.label}: {len(draft.labels)} labels: {shown}{more}" if shown else draft.label))
    facts += [("task", draft.task), ("language", draft.language)]
    facts.append(
        ("length", f"median {draft.median_characters:,} characters; 99 % up to about {draft.long_tokens} tokens")
    )
    facts += [("splits", ", ".join(draft.files))] if len(draft.files) > 1 else []
    table = _table("", "", "", left=2)
    table.show_header = False
    for name, fact in facts:
        table.add_row(name, Text(fact))
    console.print(table)
    for line in [*draft.guesses, *(f"bad row: {problem}" for problem in draft.problems[:5])]:
        say(console, f"note: {line}")
    if len(draft.labels) == 1:
        say(console, "note: only one label was seen; training needs at least two")
    say(console, f"written: {path}")
    say(console, f"next:    encodery inspect data {path}")
    say(console, f"then:    encodery train {path}")


def show_tokenizer(console: Console, made: MadeTokenizer) -> None:
    """How the tokenizer fits texts it has not seen."""
    facts = made.tokenizer.facts()
    rules = facts.get("rules", {})
    said = f"{rules.get('kind', 'tokenizer')}, {made.tokenizer.vocab_size:,} tokens"
    if "bytes" in facts:
        said += f", language {rules.get('language')}, from {facts['documents']:,} texts ({_bytes(facts['bytes'])})"
    say(console, said)
    if made.coverage is None:
        say(console, "too few texts to keep some apart and measure on them")
    else:
        _show_coverage(console, made.coverage)
    if made.example is not None:
        console.print(Text(f"example: {shortened(made.example[0], 100)}"))
        console.print(Text(f"      -> {' '.join(made.example[1][:60])}"))
    say(console, f"written: {made.path}")
    say(console, f"use it:  encodery train RECIPE tokenizer.path={made.path.resolve()}")


def _show_coverage(console: Console, fit: Coverage) -> None:
    table = _table(f"on {fit.texts:,} texts kept apart", "", "")
    table.show_header = False
    table.add_row("tokens a word", f"{fit.tokens_per_word:.2f}")
    table.add_row("characters a token", f"{1 / max(fit.tokens_per_character, 1e-9):.2f}")
    table.add_row("bytes a token", f"{fit.bytes_per_token:.2f}")
    table.add_row("unknown tokens", f"{fit.unknown_share:.3%}")
    console.print(table)
    if fit.most_unknown:
        pieces = ", ".join(f"{piece} ({count:,})" for piece, count in fit.most_unknown[:8])
        console.print(Text(f"most often unknown: {pieces}"))


def show_evaluation(console: Console, record: RunRecord, *, errors: int = 5) -> None:
    """Every metric with its interval, the confusions, the worst mistakes."""
    for note in record.notes:
        say(console, note)
    for row in record.data_facts.get("bad_rows", []):
        say(console, f"bad rows passed over: {row['why']}: {row['where']}")
    intervals = any(interval_text(record.metric(name), name) for name in record.metrics)
    table = _table("", "", "value (95 % interval)" if intervals else "value")
    for name in record.metrics:
        shown = metric_text(record.metric(name), name)
        table.add_row(name.replace("_", " "), shown, style="bold" if name == record.main_metric else "")
    console.print(table)
    if record.confusion is not None and len(record.labels) <= _CONFUSION_LABELS:
        table = _table(
            "rows by true label (down) and answer (across)", "", *(shortened(label, 16) for label in record.labels)
        )
        for label, counts in zip(record.labels, record.confusion, strict=True):
            table.add_row(Text(shortened(label, 24)), *(f"{count:,}" for count in counts))
        console.print()
        console.print(table)
    if record.errors and errors:
        console.print("\n[bold]most wrong[/bold]", highlight=False)
    for error in record.errors[:errors]:
        true, answered = error["true"], error["predicted"]
        if isinstance(true, float):
            true, answered = f"{true:.4g}", f"{answered:.4g}"
        said = f"  {error['where']}: {true}, answered {answered}"
        if error.get("probability") is not None:
            said += f" (the true one got {error['probability']:.2f})"
        say(console, said)
        console.print(Text(f"    {shortened(error['text'], 150)}"))
    for line in record.diagnoses:
        say(console, line)


def show_counts(console: Console, counts: Iterable[tuple[int, int]], shown: bool) -> tuple[int, int]:
    """Carry out work that counts lines, showing how far it has come where there is a terminal; the last counts."""
    last, columns = (0, 0), (SpinnerColumn(), TextColumn("{task.completed:,.0f} lines"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not (shown and console.is_terminal)) as bar:
        task = bar.add_task("", total=None)
        for last in counts:
            bar.update(task, completed=last[0])
    return last
