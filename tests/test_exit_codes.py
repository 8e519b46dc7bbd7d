"""Every way in which a run can end early: one line, its exit code, the same in status.json, and nothing damaged.

2, 3 and 75 have their tests where they belong: test_commandline, test_resume, test_train_invariants.
"""

import json
import os
import signal
from contextlib import nullcontext
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import (
    ROOT,
    START_SECONDS,
    Trainer,
    digest,
    logged,
    metrics,
    parent,
    ranks,
    run,
    run_script,
    script_in,
)
from whisper_ft.checkpoint.state import Counts, TrainState
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import DataError
from whisper_ft.training.step_log import refuse_untrained


def status(run_dir: Path) -> dict[str, Any]:
    return dict(json.loads((run_dir / "status.json").read_text()))


def with_bad_rows(corpus: Path, out: Path, bad: int, copies: int = 1) -> Path:
    """The training set as one file, its first `bad` rows cut short; row groups of 10."""
    rows = pq.read_table(corpus / "train").to_pylist() * copies
    for row in rows[:bad]:
        row["audio"]["bytes"] = row["audio"]["bytes"][:20]
    pq.write_table(pa.Table.from_pylist(rows), out, row_group_size=10)
    return out


def test_unusable_rows_are_listed_once_and_too_many_end_the_run(train: Trainer, corpus: Path, tmp_path: Path):
    data = with_bad_rows(corpus, tmp_path / "data.parquet", bad=30)
    ended = train.end("run", data__path=data, steps=20, eval__every=0, save__every=2)
    assert ended.code == 4
    assert "--data.max_unusable_share" in ended.err
    listed = [json.loads(line) for line in (tmp_path / "run/quarantine.jsonl").read_text().splitlines()]
    assert len(listed) == len({row["id"] for row in listed}) >= 20
    assert all(row["reason"] == "decode_error" and int(row["id"].split("#")[1]) < 30 for row in listed)
    assert status(tmp_path / "run") | {"state": "failed", "exit_code": 4} == status(tmp_path / "run")
    assert status(tmp_path / "run")["reason"] in ended.err


@pytest.mark.matrix
def test_a_few_bad_rows_do_not_add_up_over_the_epochs(train: Trainer, corpus: Path, tmp_path: Path):
    """One row in 100, met 28 times, was 28 slots of 2,800; but 1 % of all rows is not over 1 %."""
    rows = pq.read_table(corpus / "train").slice(0, 8).to_pylist()
    rows[3]["audio"]["bytes"] = b"not audio"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    train("run", data__path=tmp_path / "data.parquet", steps=28, eval__every=0, save__every=0, log__every=28)
    assert metrics(tmp_path / "run")[28]["unusable"] == 28
    assert len((tmp_path / "run/quarantine.jsonl").read_text().splitlines()) == 1
    # Also where a batch holds the data many times over.
    whole = {"batch__size": 256, "batch__per_device": 64, "steps": 1, "eval__every": 0, "data__max_unusable_share": 0.2}
    train("large", data__path=tmp_path / "data.parquet", **whole)


@pytest.mark.long
@pytest.mark.parametrize("processes", [pytest.param(1, marks=pytest.mark.matrix), 2])
def test_a_run_that_trained_no_utterance_ends_and_exports_nothing(
    train: Trainer, corpus: Path, tmp_path: Path, processes: int
):
    """Twelve rows, too few for the limit of unusable rows, in an epoch of three steps, with an evaluation in each."""
    rows = pq.read_table(corpus / "train").slice(0, 12).to_pylist()
    for row in rows:
        row["audio"]["bytes"] = b"not audio"
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet")
    settings = {"data__path": tmp_path / "data.parquet", "batch__size": 4, "eval__every": 1, "save__every": 1}
    ended = train.end("run", processes, **settings, batch__per_device=2)
    run_dir = tmp_path / "run"
    assert ended.code == status(run_dir)["exit_code"] == 4, ended.out + ended.err
    assert status(run_dir)["reason"] in ended.err
    assert "steps 1 to 3" in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert len((run_dir / "quarantine.jsonl").read_text().splitlines()) == 12
    assert not any((run_dir / name).exists() for name in ("best", "final"))
    again = train.end("run", processes, **settings, batch__per_device=2)
    assert (again.code, "steps 1 to 3" in again.err) == (4, True), "a resumed run decides alike"


@pytest.mark.parametrize(
    ("rows", "steps", "batch", "untrained", "utterances", "ends"),
    [
        (1000, 100, 4, 19, 0, False),
        (1000, 100, 4, 20, 0, True),  # 20 steps
        (40, 100, 4, 9, 0, False),
        (40, 100, 4, 10, 0, True),  # an epoch
        (1000, 6, 4, 5, 0, False),
        (1000, 6, 4, 6, 0, True),  # the end of the run
        (40, 100, 4, 19, 50, False),
        (40, 100, 4, 20, 50, True),  # a disk that is gone in a later epoch
    ],
)
def test_a_run_ends_after_so_many_steps_without_an_utterance(
    rows: int, steps: int, batch: int, untrained: int, utterances: int, ends: bool
):
    class Data(NamedTuple):
        rows: int
        steps: int

    trained = Counts(label_tokens=9, utterances=utterances)
    state = TrainState().after_step(trained, applied=True) if utterances else TrainState()
    for _ in range(untrained):
        state = TrainState.from_json(state.after_step(Counts(unusable=batch), applied=True).to_json())
    config = load_config(TrainingConfig, ["--batch.size", str(batch), "--data.path", "x"])
    with pytest.raises(DataError) if ends else nullcontext():
        refuse_untrained(state, config, Data(rows, steps))  # type: ignore[arg-type]


@pytest.mark.long
def test_a_held_out_set_of_which_nothing_is_heard_ends_the_run(train: Trainer, tmp_path: Path):
    (tmp_path / "held.jsonl").write_text('{"audio": "no1.wav", "text": "так"}\n{"audio": "no2.wav", "text": "не"}\n')
    ended = train.end("run", eval__path=tmp_path / "held.jsonl", eval__every=2, steps=4)
    assert ended.code == status(tmp_path / "run")["exit_code"] == 4, ended.out + ended.err
    assert "missing_file 2" in ended.err
    assert not (tmp_path / "run/best").exists()


@pytest.mark.long
def test_a_closed_output_hides_neither_exit_code_nor_status(train: Trainer, corpus: Path, tmp_path: Path):
    data = with_bad_rows(corpus, tmp_path / "data.parquet", bad=30)
    arguments = train.arguments("run", data__path=data, steps=20, eval__every=0)
    reader, writer = os.pipe()
    with os.fdopen(reader) as lines, os.fdopen(writer, "w") as output:
        started = parent().start("train.py", arguments, ROOT, output, output)
        output.close()
        assert lines.readline()  # as `| head -1` does
    assert started.wait(START_SECONDS) == 4
    assert (status(tmp_path / "run")["state"], status(tmp_path / "run")["exit_code"]) == ("failed", 4)


def test_gradients_that_stay_non_finite_end_the_run_and_are_never_saved(train: Trainer):
    ended = train.end("run", optim__lr=1e30, optim__clip_norm=0, steps=60, schedule__warmup=0, eval__every=0)
    run_dir = train.folder / "run"
    assert ended.code == status(run_dir)["exit_code"] == 5, ended.out + ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert not list((run_dir / "checkpoints").iterdir()), "the first update broke it, and the rest could not mend it"


LIMITED = """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, ({size}, {size}))  # bytes of a file, as `ulimit -f` sets
import train
train.main()
"""


def test_a_full_disk_ends_the_run_in_one_line_and_the_next_start_goes_on(train: Trainer, tmp_path: Path):
    train.interrupt("run", logged(5), signal.SIGKILL, eval__every=0)
    newest = tmp_path / "run/checkpoints/step-00000004/model.safetensors"
    before = newest.read_bytes()
    ended = run_script(LIMITED.format(size=len(before) // 2), *train.arguments("run", eval__every=0))
    assert ended.code == status(tmp_path / "run")["exit_code"] == 6, ended.out + ended.err
    assert str(tmp_path / "run/checkpoints") in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert newest.read_bytes() == before
    assert not list((tmp_path / "run/checkpoints").glob(".tmp-*"))
    assert digest(train("run", eval__every=0)) == digest(train.reference())


@pytest.mark.long
def test_a_folder_that_is_no_place_for_a_run_is_told(train: Trainer, tmp_path: Path):
    (tmp_path / "file").write_text("")
    ended = train.end("file/run")
    assert (ended.code, len(ended.err.strip().splitlines())) == (6, 1), ended.err


FAILS_AT_THE_START = """
import train
from whisper_ft.runtime.errors import UsageError
def fails(*_, **__):
    raise UsageError("model.name: the folder is empty on this machine")
train.build_learner = fails
train.main()
"""


def test_an_error_of_one_rank_at_the_start_ends_both_with_its_message(train: Trainer, tmp_path: Path):
    """All ranks have the settings of rank 0, but the files of their own machine."""
    arguments = train.arguments("run")
    main, other = ranks(("train.py", arguments), (script_in(tmp_path, FAILS_AT_THE_START), arguments))
    assert (main.code, other.code) == (2, 2), main.err + other.err
    assert main.err.startswith("error: rank 1: model.name")
    assert len(main.err.strip().splitlines()) == 1
    assert other.err == ""
    assert status(tmp_path / "run") | {"state": "failed", "exit_code": 2} == status(tmp_path / "run")


@pytest.mark.long
@pytest.mark.parametrize("workers", [pytest.param(0, marks=pytest.mark.matrix), 1])
def test_data_that_one_rank_cannot_read_ends_both_with_its_message(
    train: Trainer, corpus: Path, tmp_path: Path, workers: int
):
    data = with_bad_rows(corpus, tmp_path / "data.parquet", bad=0)
    size = data.stat().st_size
    with data.open("r+b") as file:  # audio in the middle of the file, and so the row groups that hold it
        file.seek(size // 3)
        file.write(os.urandom(size // 3))
    settings = {"data__path": data, "data__workers": workers, "steps": 30, "eval__every": 0, "save__every": 0}
    main, other = ranks(*[("train.py", train.arguments("run", **settings))] * 2)
    assert (main.code, other.code) == (4, 4), main.err + other.err
    assert str(data) in main.err
    assert len(main.err.strip().splitlines()) == 1
    assert status(tmp_path / "run")["exit_code"] == 4


FAILS_IN_A_STEP = """
import train
def fails(*_):
    raise MemoryError("no memory for 3 GB")
train.cross_entropy_sum = fails
train.main()
"""


@pytest.mark.long
def test_an_error_of_one_rank_in_a_step_is_the_reason_of_both(train: Trainer, tmp_path: Path):
    """The other rank already waits for its gradients, and only sees that it is gone."""
    arguments = train.arguments("run", steps=4, eval__every=0)
    script = script_in(tmp_path, FAILS_IN_A_STEP)
    main, other = ranks(("train.py", arguments), (script, arguments))
    assert (main.code, other.code) == (1, 1)
    assert main.err == "error: rank 1: MemoryError: no memory for 3 GB\n"
    assert "Traceback" in other.err, "a bug of ours is shown whole where it was met"
    assert status(tmp_path / "run")["reason"] == "rank 1: MemoryError: no memory for 3 GB"
    ended = run("train.py", *arguments)
    assert ended.code == 0, ended.err
    assert not list((tmp_path / "run").glob(".last-words-*"))


@pytest.mark.long
def test_an_error_about_a_connection_is_not_reported_as_a_lost_process(train: Trainer):
    fails = FAILS_IN_A_STEP.replace("MemoryError", "RuntimeError").replace("no memory for 3 GB", "Connection timed out")
    ended = run_script(fails, *train.arguments("run", steps=4, eval__every=0))
    assert ended.code == 1
    assert "RuntimeError: Connection timed out" in ended.err
    assert "another process" not in ended.err


def test_a_source_does_not_inherit_the_language_of_another_source(train: Trainer, corpus: Path):
    sources = f"[{{path: {corpus / 'train'}, language: be}}, {{path: {corpus / 'validation'}}}]"
    ended = train.end("run", data__path="", data__sources=sources, data__language="null")
    assert ended.code == 2
    assert "--data.language" in ended.err
