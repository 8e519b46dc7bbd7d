"""Guards against forgetting in real runs: a model that knows one synthetic language is tuned on another.

The loss on the first language rises, while that on the second falls.
"""

import json
import signal
import tarfile
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.conftest import Trainer, digest, made_once, metrics, run
from tests.test_best import best, is_the_model_of
from tests.test_eval_sets import as_sets
from tests.test_old_run import DATA, SETTINGS
from whisper_ft.checkpoint.format import newest_record
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.cli.demo.corpus import write_corpus
from whisper_ft.models.whisper import load_whisper, weights_sha256
from whisper_ft.scoring.scores import INVENTED
from whisper_ft.training.run_folder import model_of


@pytest.fixture(scope="session")
def swedish(shared: Path) -> Path:
    """24 spoken Swedish training sentences, and 4 for validation."""
    return made_once(shared / "sv", lambda folder: write_corpus(folder, "sv", train=24, validation=4, test=2))


@pytest.fixture
def tune(train: Trainer, trained: Path, swedish: Path) -> dict[str, Any]:
    """Settings of a run that tunes the Belarusian model on Swedish, chosen by its loss on Swedish."""
    return {
        "model__name": trained / "final",
        "model__dropout": 0,
        "data__path": swedish / "train",
        "data__language": "sv",
        "eval__path": swedish / "validation",
        "eval__every": 2,
        "eval__metric": "loss",
        "eval__max_new_tokens": 4,
        "optim__lr": 3e-3,
        "schedule__warmup": 1,
        "steps": 6,
        "save__keep": 5,
    }


def guard(train: Trainer, **fields: Any) -> str:
    """The set of the first language as a guard."""
    one = {"name": "be", "path": train.corpus / "validation", "language": "be", "max_utterances": 4, "metric": "loss"}
    return as_sets({**one, **fields})


def silent(train: Trainer) -> Path:
    """Two clips with empty texts."""
    rows = pq.read_table(next((train.corpus / "test").glob("*.parquet"))).to_pylist()[:2]
    path = train.folder / "silent.parquet"
    pq.write_table(pa.Table.from_pylist([{**row, "sentence": ""} for row in rows]), path)
    return path


def rows_of(run_dir: Path) -> dict[int, dict[str, Any]]:
    return metrics(run_dir, having="be/cer")


def state_of(run_dir: Path) -> TrainState:
    record = newest_record(run_dir / "checkpoints")
    assert record is not None
    return record.state


@pytest.mark.long
def test_a_guard_excludes_what_forgets_until_its_limit_is_changed(train: Trainer, tune: dict[str, Any]):
    """Everything is outside at first, a looser limit then gives the best of a run that had it from the start."""
    tune["average__of"] = "best"
    settings = {**tune, "eval__sets": guard(train, max_worse=0.0, rule="no_best")}
    ended = train.end("run", **settings)
    assert ended.code == 0, ended.err
    run_dir = train.folder / "run"
    rows, state = rows_of(run_dir), state_of(run_dir)
    assert list(rows) == [0, 2, 4, 6], "the start model is measured without eval.at_start"
    assert "wer" not in rows[0]
    start = rows[0]["be/eval_loss"]
    for step in (2, 4, 6):
        assert rows[step]["be/worse_by"] == pytest.approx(rows[step]["be/eval_loss"] - start)
        assert rows[step]["be/worse_by"] > 0
        assert (rows[step]["be/outside"], rows[step]["be/reference"]) == (True, start)
        low, high = rows[step]["be/change_interval"]
        assert low <= rows[step]["be/worse_by"] <= high
    assert (state.best, state.excluded) == (None, (2, 4, 6))
    assert state.set_history.start_weights == weights_sha256(load_whisper(str(tune["model__name"])).model)
    assert not (run_dir / "best").exists()
    assert not (run_dir / "average").exists()
    assert "guards" in (run_dir / "final/README.md").read_text()
    assert model_of(str(run_dir)) == str(run_dir / "final")
    warnings = [line for line in ended.out.splitlines() if line.startswith("warning: guard be")]
    assert len(warnings) == 3
    assert all("data.sources" in line and "docs/forgetting.md" in line for line in warnings)
    assert any("no best model" in line and "final" in line for line in ended.out.splitlines())

    losses = {step: row["eval_loss"] for step, row in metrics(run_dir, having="wer").items()}
    allowed = (rows[4]["be/worse_by"] + max(rows[2]["be/worse_by"], rows[6]["be/worse_by"])) / 2
    within = [step for step in (2, 4, 6) if rows[step]["be/worse_by"] <= allowed]
    expected = min(within, key=lambda step: losses[step])
    ended = train.end("run", **{**tune, "eval__sets": guard(train, max_worse=allowed, rule="no_best")})
    assert ended.code == 0, ended.err
    assert best(run_dir)["step"] == expected
    assert is_the_model_of(run_dir, expected)
    assert rows_of(run_dir) == rows, "nothing is scored again"
    assert all(str(step) in (run_dir / "average/README.md").read_text() for step in within)
    seen_in_the_report(run_dir, train)
    ended = train.end("run", **settings)
    assert ended.code == 0, ended.err
    assert [name for name in ("best", "average") if (run_dir / name).exists()] == [], "they are outside again"


def seen_in_the_report(run_dir: Path, train: Trainer) -> None:
    out = train.folder / "scored"
    arguments = ["--data.path", str(train.corpus / "validation"), "--data.language", "be", "--out", str(out)]
    ended = run("evaluate.py", "--model", str(run_dir), *arguments, "--max_utterances", "2")
    assert ended.code == 0, ended.err
    page = (out / "report.html").read_text(encoding="utf-8")
    assert 'id="guards"' in page


@pytest.mark.long
@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_guard_that_stops_ends_the_run_with_the_reason_in_its_status(
    train: Trainer, tune: dict[str, Any], processes: int
):
    silence = {"name": "silence", "path": silent(train), "metric": "invented_words_per_minute", "max_worse": 1e6}
    both = as_sets(*json.loads(guard(train, max_worse=0.0, rule="stop")), {**silence, "every": 100})
    run_dir = train("run", processes, **tune, eval__sets=both)
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["step"], status["exit_code"]) == ("finished", 2, 0)
    assert "guard be" in status["reason"]
    assert state_of(run_dir).excluded == (2,)
    of_silence = metrics(run_dir, having="silence/worse_by")
    assert of_silence.keys() == {0, 2}, "every set is scored at the end"
    for row in of_silence.values():
        minutes = row["silence/audio_seconds"] / 60
        words = row["silence/words_on_empty_references"]
        assert row["silence/invented_words_per_minute"] == pytest.approx(words / minutes, rel=1e-3)
    assert (run_dir / "final/model.safetensors").exists()
    train("run", processes, **tune, eval__sets=both)
    assert max(metrics(run_dir)) == 2, "a run that a guard has ended stays so"


@pytest.mark.matrix
def test_the_verdicts_do_not_depend_on_the_number_of_processes(train: Trainer, tune: dict[str, Any]):
    sets = guard(train, max_worse=0.0, rule="no_best")
    one, two = (train(f"{count}", count, **tune, eval__sets=sets) for count in (1, 2))
    assert state_of(one).excluded == state_of(two).excluded == (2, 4, 6)
    for step, row in rows_of(one).items():
        for name in ("worse_by", "reference", "limit"):
            assert rows_of(two)[step][f"be/{name}"] == pytest.approx(row[f"be/{name}"], rel=1e-3, abs=1e-4)


@pytest.mark.long
def test_a_killed_run_has_the_guard_and_the_best_of_one_that_was_not(train: Trainer, tune: dict[str, Any]):
    whole = train("plain", **tune, eval__sets=guard(train, max_worse=100))
    rows = rows_of(whole)
    limit = sorted(rows[step]["be/worse_by"] for step in (2, 4, 6))[1] + 1e-6  # one of the three is outside
    settings = {**tune, "eval__sets": guard(train, max_worse=limit, rule="no_best")}
    whole = train("whole", **settings)
    code = train.interrupt(
        "killed", lambda folder: (folder / "checkpoints/step-00000002").exists(), signal.SIGKILL, **settings
    )
    assert code == -signal.SIGKILL
    killed = train("killed", **settings)
    assert digest(killed) == digest(whole)
    assert state_of(killed) == state_of(whole)
    assert len(state_of(whole).excluded) == 1
    assert best(killed) == best(whole)
    assert digest(killed, "best/model.safetensors") == digest(whole, "best/model.safetensors")


@pytest.mark.long
def test_a_guard_added_on_resume_is_compared_with_the_start_model(train: Trainer, tune: dict[str, Any]):
    from_the_start = train("whole", **tune, eval__sets=guard(train, max_worse=0.0, rule="no_best"))
    run_dir = train("run", **{**tune, "steps": 2})
    assert best(run_dir)["step"] == 2
    more = {**tune, "eval__sets": guard(train, max_worse=0.0, rule="no_best"), "allow_change": "[steps]"}
    ended = train.end("run", **more)
    assert ended.code == 0, ended.err
    assert "warning: the start model" not in ended.out
    known, added = (rows_of(folder) for folder in (from_the_start, run_dir))
    assert added[0]["event"] == "start_model"
    assert list(added) == [0, 2, 4, 6], "the set is scored at the step of the resume, too"
    for step in (0, 2, 4, 6):
        assert added[step]["be/eval_loss"] == known[step]["be/eval_loss"]
    assert state_of(run_dir) == state_of(from_the_start)
    assert not (run_dir / "best").exists(), "the best model until then is outside"
    assert "best/ was removed" in ended.out


@pytest.mark.matrix
def test_the_guard_of_an_adapter_is_compared_with_its_base(train: Trainer, tune: dict[str, Any]):
    """Added on resume, when the adapter has no effect yet, as at the first start."""
    adapted = {**tune, "adapter__kind": "lora", "adapter__r": 4, "steps": 4}
    whole = train("whole", **adapted, eval__sets=guard(train, max_worse=0.0, rule="no_best"))
    run_dir = train("run", **{**adapted, "steps": 2})
    more = {**adapted, "eval__sets": guard(train, max_worse=0.0, rule="no_best"), "allow_change": "[steps]"}
    train("run", **more)
    known, added = rows_of(whole), rows_of(run_dir)
    assert [added[step]["be/eval_loss"] for step in (0, 2, 4)] == [known[step]["be/eval_loss"] for step in (0, 2, 4)]
    assert state_of(run_dir) == state_of(whole)
    assert not (run_dir / "best-adapter").exists()
    assert model_of(str(run_dir)) == str(run_dir / "final-adapter")


@pytest.mark.long
def test_a_run_of_the_code_before_resumes_with_a_guard(tmp_path: Path):
    with tarfile.open(DATA / "run-before-the-wings.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    sets = "[{name: again, path: data/validation.parquet, max_worse: 10, rule: no_best}]"
    settings = {**SETTINGS, "eval.sets": sets}
    ended = run(
        "train.py", *[text for name, value in settings.items() for text in (f"--{name}", str(value))], cwd=tmp_path
    )
    assert ended.code == 0, ended.out + ended.err
    rows = metrics(tmp_path / "run", having="again/worse_by")
    assert list(rows) == [2, 4]
    assert not any(row["again/outside"] for row in rows.values())
    assert state_of(tmp_path / "run").best is not None


@pytest.mark.long
@pytest.mark.parametrize("of_silence", [True, pytest.param(False, marks=pytest.mark.long)])
def test_a_guard_whose_figure_the_start_model_lacks_is_refused(train: Trainer, tune: dict[str, Any], of_silence: bool):
    """Silence has no word error rate, and a set without silence no invented words."""
    one: dict[str, Any] = {"metric": "auto", "path": silent(train)} if of_silence else {"metric": INVENTED}
    ended = train.end("run", **tune, eval__sets=guard(train, max_worse=1, **one))
    assert ended.code == 2
    assert all(fact in ended.err for fact in ("eval.sets: be", INVENTED, "wer"))
    assert len(ended.err.strip().splitlines()) == 1
