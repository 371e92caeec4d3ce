"""What `inspect` shows: data, models, settings, batches, before anything is trained. Nothing is computed here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.padding import Padding
from rich.text import Text

from encodery.evaluation.wording import shortened
from encodery.printing import bytes_text, say, table_of

if TYPE_CHECKING:
    from encodery.training.preview import BatchView, LearningView
    from encodery.training.preview_data import DataView, SplitView
    from encodery.training.preview_model import ModelView

_LABELS_SHOWN = 15


# -- data ------------------------------------------------------------------------------------------


def show_data(console: Console, view: DataView) -> None:
    """Every split beside the others, labels, lengths, copies, bad rows; at the end what to look at first."""
    for path, names in view.columns.items():
        say(console, f"{path}: columns {', '.join(names)}")
    say(console, f"tokens: {view.tokenizer}")
    table = table_of("", "", *(split.name for split in view.splits))
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
    for column in splits[-1].parts_in_train:
        shared = [share(s.parts_in_train[column], s) if s.parts_in_train else "" for s in splits]
        lines.append((f"with a {column} that is in train", shared))
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
    table = table_of("labels", "", "", *(split.name for split in splits), left=2)
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
    table = table_of(title, "", "", "", left=2)
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
        table = table_of(f"{stage}the model, for documents of {view.length} tokens", "", "parameters", "FLOPs a token")
        for part in view.parts:
            table.add_row(part.name, f"{part.parameters:,}", _flops(part.flops))
        table.add_row("total", f"{view.parameters:,}", _flops(view.forward_flops), style="bold")
        console.print(table)
        say(console, f"a training step: {_flops(3 * view.forward_flops)} FLOPs a token (forward and backward)")
        accumulated = f" x {view.accumulate} batches" if view.accumulate > 1 else ""
        say(console, f"positions a step: {view.positions:,}{accumulated}")
        for name, parts in (("training", view.training_bytes), ("use", view.inference_bytes)):
            each = ", ".join(f"{part} {bytes_text(size)}" for part, size in parts.items())
            say(console, f"memory in {name}, roughly: {bytes_text(sum(parts.values()))} ({each})")
    for note in dict.fromkeys(note for view in views for note in view.notes):
        say(console, note)


def _flops(number: float) -> str:
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}" if number else ""


def show_config(console: Console, rows: Sequence[tuple[str, Any, str, str]], *, help_texts: bool) -> None:
    """Every value with its source; values that are not defaults stand out."""
    if help_texts:
        for key, value, source, text in rows:
            console.print(Text(key, style="bold"), Text(_value(value)), Text(f"({source})", style="dim"))
            console.print(Padding(Text(text, style="italic"), (0, 0, 0, 4)))
        return
    table = table_of("", "key", "value", "from", left=3)
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
    table = table_of("", "step", "loss", "", left=0)
    table.columns[2].justify = "left"
    every = max(1, -(-len(view.losses) // 10))
    for step in sorted({*range(0, len(view.losses), every), len(view.losses) - 1}):
        loss = view.losses[step]
        table.add_row(str(step + 1), f"{loss:.4f}", _bar(round(1000 * loss), round(1000 * max(view.losses))))
    console.print(table)
    if view.accuracy is not None:
        say(console, f"right at the end: {view.accuracy:.1%}")
    console.print(Text(view.verdict, style="bold red" if view.outcome == "not" else "green"))
