"""Damage to a checkpoint: it is used with the same result or passed over with a line, whatever is in its place."""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tests.saving import contents_at, save, sign, start
from whisper_ft.checkpoint.checkpoint_manifest import MANIFEST, OWN_SHA256, read_manifest
from whisper_ft.checkpoint.format import foreign_folders, list_checkpoints, newest_record, verify
from whisper_ft.checkpoint.loading import load_optimizer
from whisper_ft.checkpoint.record import TRAINER, CheckpointRecord, read_record
from whisper_ft.checkpoint.resume_choice import choose
from whisper_ft.checkpoint.retention import retain
from whisper_ft.checkpoint.state import Best, Counts, TrainState, read_best
from whisper_ft.checkpoint.writer import Contents, write
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.runtime.errors import ResumeError
from whisper_ft.training.directory import RunDir

Damage = Callable[[Path], object]


def complete(step: int) -> Contents:
    """A small checkpoint whose record has a value in every field."""
    counts = Counts(label_tokens=900, utterances=64, unusable=1, unusable_rows=1, audio_samples=16_000)
    state = TrainState(step, counts=counts, evaluated=((1, 0.5), (step, None)), best=Best(1, "wer", 0.5))
    config = to_plain(TrainingConfig(run_dir=Path("run"), steps=8))
    config["data"]["lanes"] = 16
    record = CheckpointRecord(
        state, config, {"lanes": 16, "rows": 100}, lr=1e-3, world=2, scaler={"scale": 65536.0}, versions={"torch": "2"}
    )
    return replace(contents_at(step, 8), record=json.dumps(record.to_json(), indent=2).encode())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Checkpoints of steps 1 and 2."""
    for step in (1, 2):
        write(tmp_path / "checkpoints", None, complete(step))
    return tmp_path / "checkpoints"


def check_every_flip(folder: Path, name: str, every: int) -> None:
    """Flip bits of a file of the newest checkpoint, one at a time, and choose a checkpoint as a start does."""
    older, newer = folder / "step-00000001", folder / "step-00000002"
    records = {path: read_record(path) for path in (older, newer)}
    content = (newer / name).read_bytes()
    outcomes = set()
    for bit in range(0, 8 * len(content), every):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (newer / name).write_bytes(damaged)
        lines: list[str] = []
        chosen = choose(folder, "auto", None, lines.append)
        assert chosen is not None
        assert read_record(chosen) == records[chosen], bit
        assert newest_record(folder) == records[chosen], bit
        assert (chosen == newer) == (lines == []), bit
        assert len("".join(lines).splitlines()) == len(lines), bit
        outcomes.add(chosen)
    assert older in outcomes


@pytest.mark.parametrize("name", [MANIFEST, TRAINER])
def test_a_flipped_bit_of_a_json_is_passed_over_or_changes_nothing(folder: Path, name: str):
    check_every_flip(folder, name, every=37)


@pytest.mark.matrix
@pytest.mark.parametrize("name", [MANIFEST, TRAINER])
def test_every_flipped_bit_of_a_json_is_passed_over_or_changes_nothing(folder: Path, name: str):
    check_every_flip(folder, name, every=1)


def without_own_sha256(path: Path) -> None:
    """Make a manifest what early versions wrote."""
    fields = json.loads((path / MANIFEST).read_text())
    del fields[OWN_SHA256]
    (path / MANIFEST).write_text(json.dumps(fields, indent=2) + "\n")


@pytest.mark.long
def test_a_manifest_of_before_is_valid_and_no_flip_of_it_is_a_dead_end(folder: Path):
    newer = folder / "step-00000002"
    without_own_sha256(newer)
    assert choose(folder, "auto", None, pytest.fail) == newer
    content = (newer / MANIFEST).read_bytes()
    records = {path: read_record(path) for path in folder.iterdir()}
    for bit in range(0, 8 * len(content), 11):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (newer / MANIFEST).write_bytes(damaged)
        chosen = choose(folder, "auto", None, lambda line: None)
        assert chosen is not None
        assert read_record(chosen) == records[chosen], bit


def record_with(path: Path, **fields: object) -> None:
    """Write other fields into a record, with a fitting hash."""
    signed(path, TRAINER, json.dumps(json.loads((path / TRAINER).read_text()) | fields).encode())


def state_of(path: Path, **values: object) -> None:
    record_with(path, state=json.loads((path / TRAINER).read_text())["state"] | values)


def in_place_of(path: Path, make: Damage) -> None:
    path.unlink()
    make(path)


def signed(path: Path, name: str, content: bytes) -> None:
    (path / name).write_bytes(content)
    sign(path)


NO_TENSORS = (2).to_bytes(8, "little") + b"{}"
DAMAGES: dict[str, Damage] = {
    "infinity in the manifest": lambda path: (path / MANIFEST).write_text('{"save": 1e999, "files": {}}'),
    "infinity with a fitting sha256": lambda path: sign(path, save=float("inf")),
    "a save that is a float": lambda path: sign(path, save=2.0),
    "a save below zero": lambda path: sign(path, save=-1),
    "a truth for a save": lambda path: sign(path, save=True),
    "more digits than Python reads": lambda path: (path / MANIFEST).write_text('{"save": ' + "9" * 5000 + "}"),
    "another step in the manifest": lambda path: sign(path, step=7),
    "nesting": lambda path: (path / MANIFEST).write_text("[" * 100_000 + "]" * 100_000),
    "some nesting": lambda path: sign(path, parent=json.loads("[" * 500 + "]" * 500)),
    "a name of 5,000 characters": lambda path: sign(path, {"x" * 5000: {"bytes": 1, "sha256": "0" * 64}}),
    "a name with NUL": lambda path: sign(path, {"x\0": {"bytes": 1, "sha256": "0" * 64}}),
    "half of a character": lambda path: sign(path, {"\ud800": {"bytes": 1, "sha256": "0" * 64}}),
    "a file of another folder": lambda path: sign(path, {"..": {"bytes": 1, "sha256": "0" * 64}}),
    "files that are a list": lambda path: (path / MANIFEST).write_text('{"files": []}'),
    "a size that is a text": lambda path: sign(path, {"model.safetensors": {"bytes": "8", "sha256": "0" * 64}}),
    "a large manifest": lambda path: (path / MANIFEST).write_text(" " * 2_000_000),
    "bytes that are no text": lambda path: (path / MANIFEST).write_bytes(b"\xff\xfe\0{"),
    "a name twice": lambda path: (path / MANIFEST).write_text('{"save": 1, "save": 2}'),
    "an empty optimizer file": lambda path: signed(path, "optimizer.safetensors", b""),
    "an optimizer file without tensors": lambda path: signed(path, "optimizer.safetensors", NO_TENSORS),
    "a model file without tensors": lambda path: signed(path, "model.safetensors", NO_TENSORS),
    "a model file of zeros": lambda path: signed(path, "model.safetensors", bytes(64)),
    "a record that is a list": lambda path: signed(path, TRAINER, b"[]"),
    "a state that is a number": lambda path: record_with(path, state=1),
    "a config that is none": lambda path: record_with(path, config=None),
    "a nested record": lambda path: signed(path, TRAINER, b"[" * 100_000),
    "a step below zero": lambda path: state_of(path, step=-3),
    "another step in the record": lambda path: state_of(path, step=1),
    "a step that is a text": lambda path: state_of(path, step="2"),
    "more skipped than made": lambda path: state_of(path, skipped=5),
    "evaluations that are none": lambda path: state_of(path, evaluated=[[1, 2, 3]]),
    "a best without a figure": lambda path: state_of(path, best={"step": 1, "metric": "wer", "value": None}),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES.keys())
def test_an_odd_checkpoint_is_passed_over_with_a_line(folder: Path, damage: Damage):
    passes_over(folder, damage)


@pytest.mark.parametrize("name", [MANIFEST, TRAINER, "model.safetensors", "optimizer.safetensors"])
@pytest.mark.parametrize(
    "make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/dev/zero"), lambda path: path.symlink_to(path)],
    ids=["a FIFO", "a folder", "/dev/zero", "a link to itself"],
)  # fmt: skip
def test_something_else_in_place_of_a_file_is_passed_over_with_a_line(folder: Path, name: str, make: Damage):
    passes_over(folder, lambda path: in_place_of(path / name, make))


def passes_over(folder: Path, damage: Damage) -> None:
    """Damage the newest checkpoint, and use the folder in every way in which a run does."""
    older, newer = folder / "step-00000001", folder / "step-00000002"
    damage(newer)
    lines: list[str] = []
    assert choose(folder, "auto", None, lines.append) == older
    assert [newer.name in line and "\n" not in line for line in lines] == [True]
    assert newest_record(folder) == read_record(older)
    with pytest.raises(ResumeError, match="not usable"):
        choose(folder, str(newer), None, lines.append)
    retain(folder, 2, ())
    assert verify(older) is None
    assert write(folder, newer.name, complete(3)) == choose(folder, "auto", None, lines.append)
    run = RunDir(folder.parent)
    run.open()
    assert json.loads((folder.parent / "status.json").read_text())["last_checkpoint"] == "step-00000003"


@pytest.mark.parametrize("name", ["step-²", "step-٣", "step-1e3", "step-", "step-+1", "step-1 "])
def test_a_folder_with_an_odd_number_is_passed_over_with_a_line(folder: Path, name: str):
    shutil.copytree(folder / "step-00000002", folder / name)
    lines: list[str] = []
    assert choose(folder, "auto", None, lines.append) == folder / "step-00000002"
    assert (len(lines), name in lines[0]) == (1, True)
    assert foreign_folders(folder) == [name]
    assert len(list_checkpoints(folder)) == 2


def test_a_run_whose_updates_were_all_skipped_has_no_moments_and_is_whole(folder: Path):
    contents = complete(2)
    record = json.loads(contents.record)
    record["state"] |= {"skipped": 2, "skipped_in_a_row": 2}
    path = write(folder, None, replace(contents, optimizer={}, record=json.dumps(record).encode()))
    assert verify(path) is None
    assert load_optimizer(path) == {}


def test_the_manifest_says_what_it_lists_and_covers_itself(folder: Path):
    manifest = read_manifest(folder / "step-00000002")
    assert (manifest.step, manifest.save) == (2, 2)
    assert manifest.bytes == sum((folder / "step-00000002" / name).stat().st_size for name in manifest.files)
    fields = json.loads((folder / "step-00000002" / MANIFEST).read_text())
    (folder / "step-00000002" / MANIFEST).write_text(json.dumps(dict(reversed(fields.items()))))
    assert read_manifest(folder / "step-00000002") == manifest, "the order of the fields and spaces are no content"


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"step": "2"}', '{"step": 2, "metric": "wer", "value": 1e999}'])
def test_a_best_json_that_is_damaged_is_none(tmp_path: Path, content: str):
    (tmp_path / "best.json").write_text(content)
    assert read_best(tmp_path / "best.json") is None
    (tmp_path / "best.json").unlink()
    os.mkfifo(tmp_path / "best.json")
    assert read_best(tmp_path / "best.json") is None


def test_tensors_of_a_save_are_read_again_after_the_check(tmp_path: Path):
    run = start(tmp_path)
    save(run, 1, elements=8)
    assert verify(tmp_path / "checkpoints/step-00000001") is None
    moments = load_optimizer(tmp_path / "checkpoints/step-00000001")
    assert torch.equal(moments["w/exp_avg"], torch.ones(8))
