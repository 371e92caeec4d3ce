"""Read rows from files: any format, mixed, split, and with every bad row counted and shown."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from made_text import messages, write_csv

from encodery.data.ledger import Ledger
from encodery.data.sources import DataConfig, read_rows

with tempfile.TemporaryDirectory() as name:
    folder = Path(name)
    write_csv(folder / "messages.csv", 60)
    lines = [json.dumps({"text": text, "topic": topic}) for text, topic in messages(40, seed=2)]
    lines[10] = '{"text": "this line was cut off'
    lines[20] = json.dumps({"text": "nobody said what this one is about"})
    (folder / "more.jsonl").write_text("\n".join(lines), encoding="utf-8")

    # One entry a source; a plain string is a path, an object can say more about it.
    data = DataConfig.model_validate(
        {
            "train": ["messages.csv", {"path": "more.jsonl", "weight": 2}],  # weight 2: each row twice an epoch
            "label": "topic",
            "validation_share": 0.2,  # kept apart by a hash of the text
        }
    )

    for split in ("train", "validation"):
        ledger = Ledger()
        rows = list(read_rows(data, split, base=folder, seed=1, labels="class", ledger=ledger))
        print(f"{split}: {len(rows)} rows; the first one:")
        print(f"  {rows[0].where}: {rows[0].label}: {rows[0].text}")

    # The ledger of the last reading: what was bad, and on which line.
    print("\n".join(ledger.summary()))
