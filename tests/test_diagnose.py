"""The rules of `diagnose`, on run directories that a test writes: each fault is named by its kind, and no other."""

import json
import math
import re
import tarfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Trainer
from whisper_ft import COMMANDS
from whisper_ft.cli.diagnose.__main__ import main
from whisper_ft.cli.diagnose.run_examination import examine
from whisper_ft.config import yaml12
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import leaves
from whisper_ft.reports.curves.history import Curve
from whisper_ft.reports.diagnosis.data_sample import DataSample, SampledText
from whisper_ft.reports.diagnosis.diagnosis import diagnose
from whisper_ft.reports.diagnosis.language_letters import OWN, SCRIPTS_OF, mismatch
from whisper_ft.reports.diagnosis.loss_curve import LossCurve
from whisper_ft.reports.diagnosis.run_facts import read_run_facts

SENTENCES = (
    "Mamma dricker kaffe idag.", "Pappa äter fisk hemma.", "Flickan läser boken ikväll!", "Vår vän köper bröd nu.",
    "Åsa ser älgen ute.", "Läraren dricker te, men aldrig vatten.", "Min bror äter soppa.", "Björn läser brevet här.",
    "Det är kallt ute nu.", "Pojken ser sjön idag.", "Varför äter inte Märta glass?", "Din syster köper fisk.",
)  # fmt: skip
STEPS = 200


def falling(step: float, first: float = 4.0, last: float = 0.3) -> float:
    """A loss that falls soon and then stays, as in a run that went well."""
    return last + (first - last) * math.exp(-step / 25)


class Written:
    """A run directory in the making: everything of a healthy run, of which a test changes some parts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "run"
        self.config: dict[str, Any] = {
            "steps": STEPS,
            "model": {"name": "nowhere"},
            "data": {"path": "nowhere", "language": "sv", "normalizer": "keep", "max_unusable_share": 0.01},
            "batch": {"size": 16},
            "optim": {"name": "adamw", "lr": 1e-3, "clip_norm": 1.0},
            "schedule": {"kind": "linear", "warmup": 0.1},
        }
        self.status: dict[str, Any] = {"state": "finished", "step": STEPS, "reason": "", "exit_code": 0}
        self.loss: Callable[[float], float] = falling
        self.held_out: Callable[[float], float] = lambda step: 1.1 * falling(step)
        self.hyps: Callable[[int, Sequence[str]], Sequence[str]] = lambda step, refs: (
            refs if step else ["ja"] * len(refs)
        )
        self.refs: Sequence[str] = SENTENCES
        self.language = "sv"
        self.evaluated = (0, 50, 100, 150, 200)
        self.last = STEPS
        self.extra: list[dict[str, Any]] = []

    def write(self) -> Path:
        """Write the files, and return the folder."""
        (self.folder / "predictions").mkdir(parents=True)
        (self.folder / "config.yaml").write_text(yaml12.dump(self.config))
        (self.folder / "status.json").write_text(json.dumps(self.status))
        noise = [1.0, 1.04, 0.97, 1.02, 0.95, 1.03]
        rows: list[dict[str, Any]] = [
            {
                "step": step,
                "loss": self.loss(step) * noise[step // 2 % len(noise)],
                "lr": 1e-3 * min(step / 20, (STEPS - step) / (STEPS - 20)),
                "grad_norm": 1.0,
                "skipped": 0,
                "label_tokens": 200,
            }
            for step in range(2, self.last + 1, 2)
        ]
        rows += [self._evaluation(step) for step in self.evaluated if step <= self.last]
        rows.sort(key=lambda row: (row["step"], "cer" in row))
        lines = [json.dumps(row) for row in [*rows, *self.extra]]
        (self.folder / "metrics.jsonl").write_text("\n".join(lines) + "\n")
        return self.folder

    def _evaluation(self, step: int) -> dict[str, Any]:
        records = []
        for number, (ref, hyp) in enumerate(zip(self.refs, self.hyps(step, self.refs), strict=True)):
            record = {"id": f"{number}", "ref": ref, "hyp": hyp, "audio_seconds": 2.0, "hyp_tokens": len(hyp)}
            record |= {"language": self.language, "ref_norm": _plain(ref), "hyp_norm": _plain(hyp)}
            records.append(record)
        path = self.folder / f"predictions/step-{step:08d}.jsonl"
        path.write_text("".join(json.dumps(record) + "\n" for record in records))
        from whisper_ft.scoring.stored_scores import stored_scores

        scores = stored_scores(path, "words")
        assert scores is not None
        return {"step": step, "wer": scores.wer, "cer": scores.cer, "unit": "words", "eval_loss": self.held_out(step)}


def _plain(text: str) -> str:
    return " ".join("".join(sign if sign.isalnum() else " " for sign in text.lower()).split())


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path)


def kinds(folder: Path) -> list[str]:
    return [finding.kind for finding in examine(folder, None, 0).findings]


def test_a_healthy_run_has_no_finding_and_says_what_was_looked_at(written: Written, capsys: pytest.CaptureFixture[str]):
    folder = written.write()
    assert main([str(folder), "--rows", "0"]) == 0
    out = capsys.readouterr().out
    assert "nothing wrong was found" in out
    for part in ("100 logged steps", "5 evaluations", "12 transcripts"):
        assert f"looked at: {part}" in out
    assert "not looked at: size of the data" in out


def _jumps(run: Written) -> None:
    run.loss = lambda step: falling(step) + (3.0 if step > 60 else 0.0)
    run.held_out = run.loss
    run.hyps = lambda step, refs: ["ja"] * len(refs)


def _destroys(run: Written) -> None:
    """The jump is before the first logged step: the loss only falls, and the WER rises."""
    run.loss = lambda step: 3.0 + math.exp(-step / 50)
    run.held_out = lambda step: run.loss(step) if step else 1.0
    run.hyps = lambda step, refs: ["nu"] * len(refs) if step else [*refs[:8], *["nu"] * 4]


def _overfits(run: Written) -> None:
    run.loss = lambda step: falling(step, last=0.01)
    run.held_out = lambda step: 1.5 + abs(step - 60) / 50
    run.hyps = lambda step, refs: [f"{ref} nej" for ref in refs] if step else ["ja"] * len(refs)


def _is_short(run: Written) -> None:
    run.loss = run.held_out = lambda step: 5 * math.exp(-step / 150)
    run.hyps = lambda step, refs: ["Pappa ser huset i morgon."] * 6 + [*refs[6:]] if step else ["ja"] * len(refs)


def _warms_up_long(run: Written) -> None:
    run.config["schedule"]["warmup"] = 0.9


def _is_lower_case(run: Written) -> None:
    run.config["data"]["normalizer"] = "golden"
    run.hyps = lambda step, refs: [_plain(ref) for ref in refs]


def _has_numbers(run: Written) -> None:
    run.refs = [f"{sentence} Klockan är {number}." for number, sentence in enumerate(SENTENCES, 10)]
    run.hyps = lambda step, refs: [f"{sentence} Klockan är tio." for sentence in SENTENCES]


def _has_the_wrong_token(run: Written) -> None:
    run.language = run.config["data"]["language"] = "en"
    run.refs = SENTENCES * 2


def _loops(run: Written) -> None:
    run.hyps = lambda step, refs: [*refs[:8], *["tack " * 40] * 4]


def _invents(run: Written) -> None:
    run.refs = [*SENTENCES, *[""] * 4]
    run.hyps = lambda step, refs: [*SENTENCES, *["Tack för att ni tittade."] * 4]


def _leaves_out_ends(run: Written) -> None:
    run.hyps = lambda step, refs: [" ".join(ref.split()[: len(ref.split()) // 2]) for ref in refs]


def _is_noise(run: Written) -> None:
    run.config["batch"]["size"] = 1
    run.loss = lambda step: falling(step) * (1 + 0.9 * math.sin(step * 1.3))


def _is_clipped(run: Written) -> None:
    run.config["optim"]["clip_norm"] = 1e-3


FAULTS: dict[str, Callable[[Written], None]] = {
    "rate_too_high": _jumps,
    "rate_too_high, before the first logged step": _destroys,
    "overfitting": _overfits,
    "too_few_steps": _is_short,
    "warm_up_too_long": _warms_up_long,
    "labels_convention": _is_lower_case,
    "labels_convention, of numbers": _has_numbers,
    "wrong_language": _has_the_wrong_token,
    "loops": _loops,
    "loops, on silence": _invents,
    "truncated_labels": _leaves_out_ends,
    "batch_too_small": _is_noise,
    "gradient_clipped": _is_clipped,
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_by_its_kind_alone(written: Written, fault: str):
    FAULTS[fault](written)
    assert kinds(written.write()) == [fault.partition(",")[0]]


@pytest.mark.parametrize(("held_out", "found"), [(6, []), (60, ["labels_convention"])])
def test_a_few_references_may_lack_numbers_by_chance(written: Written, held_out: int, found: list[str]):
    written.refs = (SENTENCES * 5)[:held_out]
    facts = read_run_facts(written.write())
    texts = [SampledText(str(number), f"{text} 12", "sv") for number, text in enumerate(SENTENCES * 10)]
    texts = [one if number % 4 == 0 else replace(one, text=one.text[:-3]) for number, one in enumerate(texts)]
    diagnosis = diagnose(replace(facts, sample=DataSample(texts, len(texts))))
    assert [finding.kind for finding in diagnosis.findings] == found


def test_a_serious_finding_gives_exit_code_8_and_its_evidence(written: Written, capsys: pytest.CaptureFixture[str]):
    _jumps(written)
    folder = written.write()
    assert main([str(folder), "--json", "--rows", "0"]) == 8
    told = json.loads(capsys.readouterr().out)
    (finding,) = told["findings"]
    assert (told["state"], told["step"], told["planned_steps"], told["serious"]) == ("finished", STEPS, STEPS, True)
    assert (finding["kind"], finding["severity"]) == ("rate_too_high", "serious")
    assert any("rose from" in line for line in finding["evidence"])
    assert any("optim.lr" in line for line in finding["remedy"])


def test_a_notice_alone_gives_exit_code_0(written: Written, capsys: pytest.CaptureFixture[str]):
    _is_clipped(written)
    assert main([str(written.write()), "--rows", "0"]) == 0
    assert "gradient_clipped (notice)" in capsys.readouterr().out


def test_a_run_that_goes_on_is_not_called_too_short(written: Written):
    _is_short(written)
    written.status, written.last = {"state": "running", "step": 60}, 60
    assert kinds(written.write()) == []


def test_a_failed_run_is_told_with_its_reason(written: Written, capsys: pytest.CaptureFixture[str]):
    written.status, written.last = {"state": "failed", "step": 40, "reason": "no gradient", "exit_code": 5}, 40
    folder = written.write()
    assert main([str(folder), "--rows", "0"]) == 8
    out = capsys.readouterr().out
    assert "no gradient" in out
    assert kinds(folder) == ["failed", "rate_too_high"]


def test_an_early_end_by_patience_is_told_if_the_rate_was_still_high(written: Written):
    written.config["eval"] = {"patience": 2}
    written.last = written.status["step"] = 60
    written.held_out = lambda step: 1.1 * falling(step, last=0.1)
    assert kinds(written.write()) == ["early_end"]


def test_another_held_out_set_after_a_resume_is_told(written: Written):
    folder = written.write()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [row | {"utterances": 12 if row["step"] < 150 else 99} if "cer" in row else row for row in rows]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert kinds(folder) == ["changed_on_resume"]


@pytest.mark.long
def test_more_steps_after_a_resume_change_no_figure(train: Trainer):
    run = train("longer", steps=2, eval__every=2)
    assert train("longer", steps=4, eval__every=2, allow_change="[steps]") == run
    assert len(read_run_facts(run).records) > 1
    assert "changed_on_resume" not in [finding.kind for finding in examine(run, None, 0).findings]


def test_sources_on_a_server_are_not_read_and_no_path_takes_their_place(
    written: Written, capsys: pytest.CaptureFixture[str]
):
    written.config["data"] = {"sources": [{"path": "google/fleurs"}, {"path": "a"}]}
    folder = written.write()
    (line,) = (line for line in examine(folder, None, 4).facts.missing if line.startswith("training data"))
    assert "google/fleurs" in line
    assert "--data.path" not in line
    assert main([str(folder), "--data.path", "a"]) == 2
    assert "data.sources" in capsys.readouterr().err


def test_the_rules_name_settings_that_exist():
    names = {name for name, _ in leaves(TrainingConfig)}
    sections = {name.partition(".")[0] for name in names if "." in name}
    used = {
        name
        for folder in ("reports/diagnosis", "cli/diagnose")
        for path in (ROOT / "whisper_ft" / folder).glob("*.py")
        for name in re.findall(r'"((?:[a-z_]+\.)+[a-z_0-9]+)"', path.read_text(encoding="utf-8"))
        if name.partition(".")[0] in sections
    }
    assert len(used) > 20
    assert used <= names | {"data.sources", "eval.sets"}


def test_an_adapter_with_a_tiny_scale_is_told(written: Written):
    written.config["adapter"] = {"kind": "lora", "r": 32, "alpha": 1.0, "rslora": False}
    assert kinds(written.write()) == ["adapter_scale"]


def test_missing_parts_are_named_and_nothing_fails_for_them(written: Written, capsys: pytest.CaptureFixture[str]):
    folder = written.write()
    for name in ("config.yaml", "status.json"):
        (folder / name).unlink()
    for path in (folder / "predictions").iterdir():
        path.write_text('{"id": "1", "re')
    assert main([str(folder)]) == 0
    out = capsys.readouterr().out
    for part in ("settings", "state of the run", "transcripts", "training data"):
        assert f"not looked at: {part}" in out


@pytest.mark.parametrize(
    ("held_out", "compared", "missing"),
    [
        ("{corpus}/validation", "8 rows of the held-out set", None),
        ("{corpus}/nowhere", "12 references", "nowhere"),
        ("hf://datasets/google/fleurs/be", "12 references", "hf://datasets/google/fleurs/be"),
        (None, "12 references", "eval.path"),
    ],
)
def test_rows_that_were_compared_are_named_and_a_held_out_set_that_was_not(
    written: Written, corpus: Path, held_out: str | None, compared: str, missing: str | None
):
    written.config["data"] |= {"path": str(corpus / "train"), "language": "be"}
    if held_out is not None:
        written.config["eval"] = {"path": held_out.format(corpus=corpus)}
    told = examine(written.write(), None, 8).to_json()
    (line,) = (line for line in told["looked_at"] if "of the training data" in line)
    assert "8 rows of the training data" in line
    assert compared in line
    lines = [line for line in told["not_looked_at"] if "share" in line]
    assert [missing in line for line in lines if missing] == ([True] if missing else [])


def test_training_rows_that_were_compared_with_nothing_are_not_called_compared(written: Written, corpus: Path):
    written.config["data"] |= {"path": str(corpus / "train"), "language": "be"}
    written.evaluated = ()
    (line,) = (line for line in examine(written.write(), None, 4).looked_at if "of the training data" in line)
    assert "compared" not in line


@pytest.mark.parametrize(
    ("data", "advised"),
    [
        ({"path": "corpora/nowhere"}, True),
        ({"path": "hf://datasets/google/fleurs"}, True),
        ({"sources": [{"path": "/nowhere/a"}]}, False),
    ],
)
def test_a_path_in_place_of_moved_data_is_advised_where_it_is_accepted(
    written: Written, data: dict[str, Any], advised: bool
):
    written.config["data"] = data
    (line,) = (line for line in examine(written.write(), None, 4).facts.missing if line.startswith("training data"))
    assert line.count("--data.path ") == (1 + ("corpora" in line) if advised else 0)
    assert "replay" not in line


def test_a_run_without_settings_is_told_without_an_option_of_another_command(written: Written):
    folder = written.write()
    (folder / "config.yaml").unlink()
    (line,) = (line for line in examine(folder, None, 4).facts.missing if line.startswith("training data"))
    assert "--" not in line


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["RUN/none"], "no such folder"),
        (["RUN"], "no run directory"),
        (["RUN/run", "--rows", "-1"], "--rows"),
        (["RUN/run", "--rows", "0", "--data.path", "a"], "--data.path a"),
    ],
)
def test_a_folder_without_a_run_is_refused_in_one_line(
    written: Written, arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
):
    folder = written.write().parent
    assert main([argument.replace("RUN", str(folder)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert (fact in error, error.count("\n")) == (True, 1)


def test_a_run_that_logged_nothing_yet_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "status.json").write_text('{"state": "running"}')
    assert main([str(tmp_path)]) == 2
    assert "nothing was logged" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("language", "text", "fits"),
    [
        ("sv", " ".join(SENTENCES * 2), True),
        ("en", " ".join(SENTENCES * 2), False),
        ("sv", "my brother reads the newspapers today and drinks milk " * 12, False),
        ("en", "my brother reads the newspapers today and drinks milk " * 12, True),
        ("be", "маці п'е малако і чытае цікавую кнігу ў вёсцы " * 12, True),
        ("ru", "маці п'е малако і чытае цікавую кнігу ў вёсцы " * 12, False),
        ("be", "мама пьёт молоко и читает интересную книгу в деревне " * 12, False),
        ("ru", "мама пьёт молоко и читает интересную книгу, мы ели этот хлеб " * 12, True),
        ("as", "মায়ে ৰাতিপুৱা ঘৰত কিতাপ পঢ়ে আৰু গাখীৰ খায় " * 30, True),
        ("bn", "মায়ে ৰাতিপুৱা ঘৰত কিতাপ পঢ়ে আৰু গাখীৰ খায় " * 30, False),
        ("de", "маці п'е малако " * 40, False),
        ("xx", "маці п'е малако " * 40, True),
        ("ru", "маці", True),
    ],
)
def test_letters_tell_if_a_text_can_be_in_a_language(language: str, text: str, fits: bool):
    assert (mismatch(language, [text]) is None) == fits


def test_the_languages_that_fit_are_named():
    found = mismatch("ru", ["маці п'е малако і чытае цікавую кнігу ў вёсцы " * 12])
    assert found is not None
    assert "be" in found.candidates
    assert set(OWN) <= set(SCRIPTS_OF)


def test_noise_is_no_rise_of_the_loss():
    def curve(*losses: float) -> LossCurve:
        return LossCurve.of(Curve([{"step": n, "loss": loss} for n, loss in enumerate(losses, 1)], []))

    noisy = [1.0, 1.8, 0.7, 1.5, 0.9, 1.9, 0.8, 1.4] * 5
    assert curve(*noisy).largest_rise() is None
    rise = curve(*([1.0, 1.1] * 10 + [2.0, 2.1] * 10)).largest_rise()
    assert rise is not None
    assert rise.ratio == pytest.approx(2.05 / 1.05, rel=0.01)


@pytest.mark.long
def test_a_held_out_set_from_the_training_data_is_told(train: Trainer, capsys: pytest.CaptureFixture[str]):
    run = train("leaking", eval__path=train.corpus / "train", steps=4)
    assert main([str(run), "--json"]) == 8
    told = json.loads(capsys.readouterr().out)
    assert "leakage" in [finding["kind"] for finding in told["findings"]]
    assert any("training data" in line for line in told["looked_at"])


def test_a_run_is_diagnosed_from_another_place_with_the_path_of_its_data(
    train: Trainer, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    run = train.copy_reference()
    config = yaml12.load((run / "config.yaml").read_text())
    assert config["data"]["path"]
    assert main([str(run), "--data.path", str(train.folder / "nowhere")]) == 2
    assert "nowhere" in capsys.readouterr().err
    main([str(run), "--data.path", str(train.corpus / "train")])
    assert "looked at: 100 rows of the training data" in capsys.readouterr().out


@pytest.mark.long
def test_the_end_of_a_run_and_the_help_lead_to_the_command(train: Trainer):
    ended = train.end("run", steps=2, eval__every=2)
    assert f"python -m whisper_ft diagnose {train.folder / 'run'}" in ended.out
    assert "diagnose" in COMMANDS


def test_a_run_of_an_early_version_is_diagnosed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    with tarfile.open(Path(__file__).parent / "data/run-before-the-wings.tar.gz") as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    assert main(["run"]) == 0
    out = capsys.readouterr().out
    assert "not looked at: held-out loss" in out
    assert "not looked at: the start model" in out
    assert "looked at: 4 rows of the training data" in out


def test_the_start_model_detects_the_language_of_clips(train: Trainer, capsys: pytest.CaptureFixture[str]):
    main([str(train.copy_reference()), "--listen", "2"])
    assert "looked at: 2 clips in which the start model detected the language" in capsys.readouterr().out
