"""Sets scored beside the held-out set: the same scorer, a cadence of their own, and no part in the best model."""

import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from collator import SpeechCollator
from tests.conftest import Trainer, digest, logged
from tests.saving import record_of
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.cli.doctor.data_check import check_data
from whisper_ft.cli.plot import summary_line
from whisper_ft.config.parse import load_config
from whisper_ft.config.resume_policy import as_resumed, refuse_changes
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.curves.overview import curves_page
from whisper_ft.reports.curves.panel import panels_of
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.start import pinned_sets

SHORT: dict[str, Any] = {"model__dropout": 0, "save__every": 0}


def rows_of(run_dir: Path) -> list[dict[str, Any]]:
    """Rows of evaluations in the order of the log."""
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [row for row in rows if any(key.endswith("cer") for key in row)]


def names_in(row: dict[str, Any]) -> set[str]:
    """Names of the sets in a row; "" for the held-out set."""
    return {key.removesuffix("/wer").removesuffix("wer") for key in row if key == "wer" or key.endswith("/wer")}


def as_sets(*sets: dict[str, Any]) -> str:
    return json.dumps(
        [{name: str(value) if isinstance(value, Path) else value for name, value in one.items()} for one in sets]
    )


TRANSLATED = {"language": "be", "task": "translate", "metric": "loss", "max_worse": 100}


@pytest.fixture
def sets(corpus: Path) -> str:
    """The held-out set again, one with a cadence of its own, one in another language, and a guard of translation."""
    return as_sets(
        {"name": "again", "path": corpus / "validation", "max_utterances": 4},
        {"path": corpus / "test", "every": 3, "max_utterances": 2},
        {"name": "thai", "path": corpus / "test", "language": "th", "every": 100, "max_utterances": 2},
        {"name": "english", **TRANSLATED, "path": corpus / "test", "every": 100, "max_utterances": 2},
    )


@pytest.mark.long
def test_each_set_is_scored_by_the_same_scorer_when_it_is_due(train: Trainer, sets: str):
    run_dir = train("run", **SHORT, steps=4, eval__every=2, eval__at_start=True, eval__sets=sets)
    rows = rows_of(run_dir)
    everything = {"", "again", "test", "thai", "english"}
    due = {0: everything, 2: {"", "again"}, 3: {"test"}, 4: everything}
    assert [(row["step"], names_in(row)) for row in rows] == list(due.items())
    for row in rows:
        assert row["precision"] == "fp32"
        assert ("best" in row) == ("" in names_in(row))
        if "" in names_in(row):
            own = ("step", "best", "precision")
            held_out = {key: value for key, value in row.items() if "/" not in key and key not in own}
            assert {key: row[f"again/{key}"] for key in held_out} == held_out
    assert (rows[-1]["thai/unit"], rows[-1]["thai/normalizer"]["language"]) == ("characters", "th")
    assert rows[-1]["english/worse_by"] == pytest.approx(rows[-1]["english/eval_loss"] - rows[0]["english/eval_loss"])
    assert rows[-1]["english/eval_loss"] != rows[-1]["test/eval_loss"], "the same rows by another prompt"
    assert rows[-1]["unit"] == "words"
    transcripts = run_dir / "predictions"
    for name, steps in {
        "": [0, 2, 4],
        "again": [0, 2, 4],
        "test": [0, 3, 4],
        "thai": [0, 4],
        "english": [0, 4],
    }.items():
        assert [path.name for path in sorted((transcripts / name).glob("*.jsonl"))] == [
            f"step-{step:08d}.jsonl" for step in steps
        ]
    plain = train("plain", **SHORT, steps=4, eval__every=2)
    assert digest(run_dir) == digest(plain), "scoring changes no weight"
    assert (run_dir / "best.json").read_bytes() == (plain / "best.json").read_bytes()
    seen_in_the_curves(run_dir)


def seen_in_the_curves(run_dir: Path) -> None:
    history = read_history(run_dir)
    assert [row["step"] for row in history.evaluated.rows] == [0, 2, 4]
    assert {name: [row["step"] for row in curve.rows] for name, curve in history.sets.items()} == {
        "again": [0, 2, 4],
        "test": [0, 3, 4],
        "thai": [0, 4],
        "english": [0, 4],
    }
    assert {panel.of_set for panel in panels_of([history])} == {None, "again", "test", "thai", "english"}
    page = curves_page({"run": history}, "Run", 0.0)
    assert all(f"<bdi>{name}</bdi>" in page for name in history.sets)
    assert "test WER" in summary_line(history)
    assert "thai CER" in summary_line(history)


@pytest.mark.long
def test_the_figures_do_not_depend_on_the_number_of_processes(train: Trainer, sets: str):
    rows = [
        rows_of(train(f"{count}", count, **SHORT, steps=1, eval__every=1, eval__at_start=True, eval__sets=sets))[0]
        for count in (1, 2)
    ]
    assert rows[0].keys() == rows[1].keys()
    for key, value in rows[0].items():
        assert rows[1][key] == (pytest.approx(value, rel=1e-6) if isinstance(value, float) else value), key


@pytest.mark.long
def test_without_a_held_out_set_no_best_is_chosen(train: Trainer, sets: str):
    without = SHORT | {"eval__path": "", "eval__max_utterances": None, "eval__sets": sets}
    ended = train.end("run", **without, steps=2, eval__every=2)
    assert ended.code == 0, ended.err
    run_dir = train.folder / "run"
    at_the_end = {"again", "test", "thai", "english"}
    assert [(row["step"], names_in(row)) for row in rows_of(run_dir)] == [(0, {"english"}), (2, at_the_end)]
    assert not (run_dir / "best").exists()
    assert "no held-out set" in ended.out
    assert "step 2/2  test: " in ended.out


@pytest.mark.long
def test_patience_ends_a_run_with_every_set_scored(train: Trainer, corpus: Path):
    """No evaluation is better by a whole rate, so the second one ends the run, at which the set is not due."""
    sets = as_sets({"path": corpus / "test", "every": 100, "max_utterances": 2})
    patient = {"eval__patience": 1, "eval__min_delta": 1, "eval__every": 1, "eval__sets": sets}
    run_dir = train("run", **SHORT, steps=8, **patient)
    assert [(row["step"], names_in(row)) for row in rows_of(run_dir)] == [(1, {""}), (2, {"", "test"})]


@pytest.mark.long
def test_a_stopped_evaluation_is_repeated_whole(train: Trainer, corpus: Path):
    """The second set takes seconds: its utterances are decoded one by one, each to the token limit."""
    sets = as_sets({"name": "slow", "path": corpus / "train"})
    slow = {**SHORT, "steps": 3, "eval__every": 2, "eval__sets": sets, "eval__max_new_tokens": 60}
    assert train.interrupt("run", logged(2), signal.SIGTERM, **slow, eval__batch_size=1) == 75
    run_dir = train.folder / "run"
    assert json.loads((run_dir / "status.json").read_text())["step"] == 2
    assert rows_of(run_dir) == []
    train("run", **slow, eval__batch_size=50)
    assert [(row["step"], names_in(row)) for row in rows_of(run_dir)] == [(2, {"", "slow"}), (3, {"", "slow"})]


@pytest.mark.long
def test_a_changed_set_begins_anew_and_the_others_and_the_best_stay(train: Trainer, corpus: Path):
    kept = {"name": "kept", "path": corpus / "test", "max_utterances": 2}
    other = {"name": "other", "path": corpus / "test", "max_utterances": 2}
    settings = {**SHORT, "steps": 2, "eval__every": 1}
    run_dir = train("run", **settings, eval__sets=as_sets(kept, other))
    best, before = (run_dir / "best.json").read_bytes(), rows_of(run_dir)
    ended = train.end("run", **settings, eval__sets=as_sets(kept, other))
    assert ended.code == 0, ended.err
    assert rows_of(run_dir) == before, "nothing is scored twice"
    assert "eval.sets changed" not in ended.out
    new = {"name": "new", "path": corpus / "validation", "max_utterances": 2}
    ended = train.end("run", **settings, eval__sets=as_sets(new, {**other, "max_utterances": 3}, kept))
    assert ended.code == 0, ended.err
    assert "the set other of eval.sets changed" in ended.out
    assert "the set kept" not in ended.out
    (after,) = rows_of(run_dir)[len(before) :]
    assert (after["step"], names_in(after), after["other/utterances"]) == (2, {"new", "other"}, 3)
    assert "since step" not in next(line for line in ended.out.splitlines() if "other: WER" in line)
    assert (run_dir / "best.json").read_bytes() == best


@pytest.mark.long
def test_a_set_of_which_nothing_is_heard_ends_the_run_with_its_name(train: Trainer, corpus: Path, tmp_path: Path):
    rows = pq.read_table(next((corpus / "test").glob("*.parquet"))).to_pylist()[:2]
    silent = [{**row, "audio": {**row["audio"], "bytes": b"no audio"}} for row in rows]
    pq.write_table(pa.Table.from_pylist(silent), tmp_path / "broken.parquet")
    sets = as_sets({"name": "broken", "path": tmp_path / "broken.parquet"})
    ended = train.end("run", **SHORT, steps=2, eval__every=2, eval__sets=sets)
    assert ended.code == 4
    assert "the set broken of eval.sets" in ended.err


@pytest.mark.parametrize(
    ("sets", "facts"),
    [
        ("[{path: a/test}, {path: b/TEST}]", ["eval.sets", "'test'"]),
        ("[{name: held-out, path: a}]", ["eval.sets: name", "held-out"]),
        ("[{name: Held-Out, path: a}]", ["eval.sets: name", "held-out"]),
        ("[{name: a/b, path: a}]", ["eval.sets: name", "a/b", "a-b"]),
        ("[{name: ..., path: a}]", ["eval.sets: name"]),
        ("[{path: /}]", ["eval.sets: name"]),
        (f"[{{path: {'x' * 65}}}]", ["eval.sets: name", "64"]),
        ("[{name: a}]", ["eval.sets: path"]),
        ("[{name: a, path: b, evry: 3}]", ["'eval.sets.evry'", "'eval.sets.every'"]),
        ("[{name: a, path: b, lang: sv}]", ["'eval.sets.lang'", "'eval.sets.language'"]),
        ("[{name: a, path: b, weight: 3}]", ["'eval.sets.weight'"]),
        ("[{path: b, every: -1}]", ["eval.sets: every", "-1"]),
        ("[{path: b, max_utterances: 0}]", ["eval.sets: max_utterances", "0"]),
        ("{path: b}", ["--eval.sets"]),
        ("[{path: b, every: often}]", ["--eval.sets", "often"]),
        ("[{path: b, every: 1:30}]", ["eval.sets.every", "1:30", "decimal"]),
        ("[{path: b, task: sing}]", ["--eval.sets", "sing"]),
    ],
)
def test_a_set_that_cannot_be_used_is_refused_in_one_line(sets: str, facts: list[str]):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--data.path", "x", "--eval.sets", sets])
    assert all(fact in str(refused.value) for fact in facts), str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_set_has_the_labels_of_the_data_unless_it_names_its_own():
    argv = ["--data.path", "x", "--data.language", "be", "--eval.every", "7"]
    config = load_config(
        TrainingConfig,
        [*argv, "--eval.sets", "[{path: a/b, split: test}, {path: c, language: sv, every: 0}, {path: d, every: 2}]"],
    )
    found = config.eval.sets_beside(config.data)
    assert [(one.name, one.language, one.every) for one in found] == [("b-test", "be", 7), ("d", "be", 2)]


@pytest.mark.long
@pytest.mark.parametrize(
    ("one", "facts"),
    [
        ({"language": "xx"}, ["eval.sets: odd", "language", "xx"]),
        ({"audio_root": "elsewhere"}, ["eval.sets: odd", "audio_root"]),
        ({"text_column": "nothing"}, ["eval.sets: odd", "nothing"]),
    ],
)
def test_a_set_that_does_not_fit_ends_the_start_with_its_name(
    train: Trainer, corpus: Path, one: dict[str, Any], facts: list[str]
):
    ended = train.end("run", **SHORT, eval__sets=as_sets({"name": "odd", "path": corpus / "test", **one}))
    assert ended.code == 2, ended.err
    assert all(fact in ended.err for fact in facts), ended.err
    assert len(ended.err.strip().splitlines()) == 1


def test_a_missing_path_is_refused_before_the_start(train: Trainer):
    assert "nowhere" in str(train.refusal("run", eval__sets=as_sets({"path": "nowhere"})))


def test_every_setting_of_a_set_may_change_on_resume():
    argv = ["--data.path", "x", "--eval.sets"]
    saved = to_plain(load_config(TrainingConfig, [*argv, "[{path: a, split: test, task: translate}, {path: b}]"]))
    now = load_config(TrainingConfig, [*argv, "[{path: b, language: sv}, {path: a}, {path: c}]"])
    resumed = as_resumed(now, {"data.path", "eval.sets"}, saved)
    assert refuse_changes(saved, resumed) == []
    assert resumed.eval.sets == now.eval.sets, "nothing of another set at the same place is taken over"
    assert (
        refuse_changes({**saved, "eval": {name: value for name, value in saved["eval"].items() if name != "sets"}}, now)
        == []
    )


def test_a_set_on_the_hub_stays_at_the_commit_that_its_name_recorded():
    """No network is needed for a commit that is recorded, whatever the order of the sets is now."""
    hub = {"path": "owner/speech", "format": "hub", "config_name": "be"}
    first, second = {"name": "one", **hub, "split": "test"}, {"name": "two", **hub, "split": "validation"}
    argv = ["--data.path", "x", "--eval.sets"]
    saved = to_plain(load_config(TrainingConfig, [*argv, as_sets(first, second)]))
    protocols = {name: {"data": {"commit": f"commit-of-{name}"}} for name in ("one", "two")}
    record = replace(record_of(TrainState(step=1)), config=saved, set_protocols=protocols)
    pinned = pinned_sets(load_config(TrainingConfig, [*argv, as_sets(second, first)]), record)
    assert [(one.name, one.revision) for one in pinned] == [("two", "commit-of-two"), ("one", "commit-of-one")]


def test_the_doctor_names_each_set_and_warns_of_shared_recordings(micro_whisper: Path, corpus: Path):
    sets = as_sets(
        {"name": "own", "path": corpus / "test"}, {"name": "shared", "path": corpus / "train", "max_utterances": 5}
    )
    arguments = ["--model.name", micro_whisper, "--data.path", corpus / "train", "--data.language", "be"]
    config = load_config(TrainingConfig, [*map(str, arguments), "--eval.sets", sets])
    report = check_data(config, 20, "fast", lambda *_: None, SpeechCollator)
    data, leakage = "\n".join(report.text("data")), report.text("leakage")
    assert "set own: " in data
    assert "12 rows" in data
    assert "100 rows, 5 scored" in data
    about = leakage.index("set shared of eval.sets:")
    assert any("5 rows of the set" in line and "warning" in line for line in leakage[about:])
    assert not any(line.startswith(("warning", "LEAK")) and "bytes" in line for line in leakage[:about])
    assert not any("LEAK" in line for line in leakage)
    assert not any("held-out rows" in problem for problem in report.problems)
