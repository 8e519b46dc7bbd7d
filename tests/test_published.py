"""best/, final/ and what is exported: whole folders that load without a word, also after a kill."""

import json
import logging
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from tests.saving import record_of
from whisper_ft.checkpoint.format import path_of
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.checkpoint.writer import contents_of, write
from whisper_ft.cli.checkpoint import main
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_whisper
from whisper_ft.training.directory import RunDir
from whisper_ft.training.published_models import publish_best, publish_final, repair_best

BEST = Best(2, "wer", 0.5)


@pytest.fixture(scope="module")
def whisper(micro_whisper: Path) -> tuple[Any, Any]:
    """Model and processor, its weights changed by what a training might do."""
    model, processor = load_whisper(str(micro_whisper))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.001
    return model, processor


@pytest.fixture
def run(tmp_path: Path, whisper: tuple[Any, Any], micro_whisper: Path) -> RunDir:
    """A run with checkpoints of steps 1 to 3, of which 2 is the best."""
    folder = RunDir(tmp_path / "run")
    folder.open()
    for step in (1, 2, 3):
        record = record_of(TrainState(step=step, best=BEST if step > 1 else None))
        record = replace(record, config={**record.config, "model": {"name": str(micro_whisper)}})
        write(folder.checkpoints, None, contents_of(whisper[0], {}, record, copied=False))
    return folder


def loaded_without_a_word(folder: Path, caplog: pytest.LogCaptureFixture) -> Any:
    """The model that from_pretrained makes of a folder, with its weights complete and the tie in place."""
    transformers.logging.set_verbosity_warning()
    transformers.logging.enable_propagation()
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        model, problems = WhisperForConditionalGeneration.from_pretrained(folder, output_loading_info=True)
        WhisperProcessor.from_pretrained(folder)
    transformers.logging.disable_propagation()
    assert not caplog.records
    assert not any(problems.values()), problems
    assert model.proj_out.weight.data_ptr() == model.model.decoder.embed_tokens.weight.data_ptr()
    return model


def test_best_and_final_load_without_a_word_and_are_the_model(
    run: RunDir, whisper: tuple[Any, Any], caplog: pytest.LogCaptureFixture
):
    model, processor = whisper
    publish_best(run, BEST, path_of(run.checkpoints, 2), config_files(model, processor))
    publish_final(run, TrainState(step=3, best=BEST), model, config_files(model, processor))
    for folder in (run.best, run.final):
        loaded = loaded_without_a_word(folder, caplog)
        pairs = zip(loaded.state_dict().items(), model.state_dict().items(), strict=True)
        assert all(name == other and torch.equal(left, right) for (name, left), (other, right) in pairs)
    # What the one is made of from a checkpoint and the other by `save_pretrained` is the same but for the README.
    assert {path.name for path in run.best.iterdir()} == {path.name for path in run.final.iterdir()}
    for path in run.best.iterdir():
        if path.name not in ("README.md", "model.safetensors"):
            assert path.read_bytes() == (run.final / path.name).read_bytes(), path.name
    assert "step 2" in (run.best / "README.md").read_text()


@pytest.mark.parametrize("left", ["nothing", "best.json alone", "the one before"])
def test_a_best_that_a_kill_left_half_published_is_made_anew(run: RunDir, whisper: tuple[Any, Any], left: str):
    source = path_of(run.checkpoints, 2)
    if left == "the one before":
        publish_best(run, Best(1, "wer", 0.9), path_of(run.checkpoints, 1), config_files(*whisper))
    elif left == "best.json alone":
        (run.path / "best.json").write_text(json.dumps({"step": 2, "metric": "wer", "value": 0.5}))
    state, message = repair_best(run, TrainState(step=3, best=BEST), source, lambda: config_files(*whisper))
    assert (state.best, run.published) == (BEST, BEST)
    assert str(source) in str(message)
    assert (run.best / "model.safetensors").read_bytes() == (source / "model.safetensors").read_bytes()
    assert repair_best(run, state, source, lambda: config_files(*whisper)) == (state, None)


def test_the_list_shows_steps_in_the_order_of_saves_with_their_role(
    run: RunDir, whisper: tuple[Any, Any], capsys: pytest.CaptureFixture[str]
):
    publish_best(run, BEST, path_of(run.checkpoints, 2), config_files(*whisper))
    (run.checkpoints / "step-00000001/pinned").touch()
    (run.checkpoints / "step-00000003/trainer.json").write_text("short")
    assert main(["list", str(run.path)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if "step-0" in line]
    assert [row.split()[1] for row in rows] == ["step-00000003", "step-00000002", "step-00000001"]
    assert "trainer.json has 5 bytes" in rows[0]
    assert "best" in rows[1]
    assert "pinned" in rows[2]


def test_verify_names_what_is_damaged_and_ends_with_code_3(run: RunDir, capsys: pytest.CaptureFixture[str]):
    assert main(["verify", str(run.path)]) == 0
    assert capsys.readouterr().out.splitlines() == [f"step-0000000{step}: whole" for step in (3, 2, 1)]
    newest = run.checkpoints / "step-00000003"
    weights = newest / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert main(["verify", str(newest)]) == 3
    printed = capsys.readouterr()
    assert all(fact in printed.out for fact in ("step-00000003", "model.safetensors", "sha256"))
    assert printed.err.startswith("error: 1 of 1 checkpoint ")
    assert printed.err.count("\n") == 1


def test_an_export_is_a_model_and_passes_over_what_is_damaged(
    run: RunDir, whisper: tuple[Any, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str], caplog: Any
):
    (run.checkpoints / "step-00000003/model.safetensors").write_bytes(b"")
    assert main(["export", str(run.path), "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr()
    assert all(fact in printed.out for fact in ("step-00000002", str(tmp_path / "out")))
    assert all(fact in printed.err for fact in ("step-00000003", "model.safetensors", "0 bytes"))
    loaded = loaded_without_a_word(tmp_path / "out", caplog)
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), whisper[0].parameters(), strict=True))


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["list", "{nowhere}"], "nowhere: "),
        (["export", "{run}", "--out", "{run}"], "is there already"),
        (["export", "{run}", "--out", "{nowhere}", "--model", "{run}"], "--model"),
        (["export", "{run}"], "the following arguments are required: --out"),
        (["mend", "{run}"], "invalid choice: 'mend'"),
        ([], "the following arguments are required: command"),
    ],
)
def test_what_cannot_be_done_with_checkpoints_is_one_line(
    run: RunDir, tmp_path: Path, arguments: list[str], fact: str, capsys: pytest.CaptureFixture[str]
):
    places = {"run": run.path, "nowhere": tmp_path / "nowhere"}
    assert main([argument.format(**places) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert fact in err
    assert len(err.splitlines()) == 1
    assert not (tmp_path / "nowhere").exists()


def test_an_export_that_fails_leaves_nothing(run: RunDir, whisper: tuple[Any, Any], tmp_path: Path):
    with pytest.raises(FileNotFoundError):
        export(tmp_path / "nowhere", config_files(*whisper), tmp_path / "out", "")
    assert not (tmp_path / "out").exists()
    assert not list(tmp_path.glob(".tmp-*"))
