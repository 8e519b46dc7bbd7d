"""Runs whose labels have times and previous text: what they log, what they leave out, and what they refuse."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.conftest import Trainer, metrics

ROWS = 12
BAD = {3: "<|1.00|> {}<|0.50|>", 4: "<|0.00|> {}<|60.00|>"}
"""Texts of the rows whose times cannot be used."""


@pytest.fixture
def listed(train: Trainer, tmp_path: Path) -> str:
    """A manifest of clips of the corpus, by one speaker, whose texts hold times."""
    shard = min((train.corpus / "train").glob("*.parquet"))
    lines = []
    for number, row in enumerate(pq.read_table(shard).slice(0, ROWS).to_pylist()):
        (tmp_path / f"{number}.flac").write_bytes(row["audio"]["bytes"])
        text = BAD.get(number, "<|0.10|> {}<|0.90|>").format(row["sentence"])
        lines.append(json.dumps({"audio": f"{number}.flac", "text": text, "speaker": "a"}))
    (tmp_path / "list.jsonl").write_text("\n".join(lines) + "\n")
    return str(tmp_path / "list.jsonl")


@pytest.mark.long
def test_a_run_logs_the_loss_of_text_and_names_the_rows_whose_times_cannot_be_used(train: Trainer, listed: str):
    settings: dict[str, Any] = {"data__path": listed, "data__text_times": "true", "eval__every": 0, "steps": 3}
    run_dir = train("run", labels__timestamps_share=1, labels__prompt_share=0.5, **settings)
    rows = metrics(run_dir)
    assert len(rows) == 3
    assert all(0 < row["text_loss"] != row["loss"] for row in rows.values())
    left_out = [json.loads(line) for line in (run_dir / "quarantine.jsonl").read_text().splitlines()]
    assert sorted((row["id"], row["reason"]) for row in left_out) == [
        (f"{number}.flac", "bad_times") for number in sorted(BAD)
    ]
    assert not any("text_loss" in row for row in metrics(train.reference()).values())


@pytest.mark.long
def test_a_run_is_refused_whose_labels_cannot_have_previous_text(train: Trainer, listed: str):
    lines = [json.loads(line) for line in Path(listed).read_text().splitlines()]
    Path(listed).write_text("".join(json.dumps({**line, "speaker": n}) + "\n" for n, line in enumerate(lines)))
    ended = train.end("run", data__path=listed, labels__prompt_share=0.5)
    assert ended.code == 2, ended.err
    assert "labels.prompt_share" in ended.err
