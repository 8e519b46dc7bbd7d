"""Checkpoints: exact both ways, verified before use, and never removed when they are needed."""

import json
import os
import pickle
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration

from tests.saving import record_of, sign
from whisper_ft.checkpoint import safetensors_stream
from whisper_ft.checkpoint.checkpoint_manifest import read_manifest
from whisper_ft.checkpoint.format import list_checkpoints, newest_record, verify
from whisper_ft.checkpoint.loading import load_optimizer, load_weights
from whisper_ft.checkpoint.record import read_record
from whisper_ft.checkpoint.resume_choice import choose
from whisper_ft.checkpoint.retention import PINNED, retain
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.checkpoint.writer import contents_of, write
from whisper_ft.config.optimization import OptimConfig
from whisper_ft.models.whisper import parameters_by_name
from whisper_ft.optim import optimizer as optim
from whisper_ft.runtime.errors import NonFiniteError, ResumeError


@pytest.fixture
def model(micro_whisper: Path) -> Any:
    return WhisperForConditionalGeneration.from_pretrained(micro_whisper)


def train_a_little(model: Any, steps: int = 3) -> torch.optim.Optimizer:
    """An optimizer with moments in it."""
    optimizer = optim.build_optimizer(parameters_by_name(model), OptimConfig(lr=1e-3, weight_decay=0.1))
    features = torch.randn(2, model.config.num_mel_bins, 2 * model.config.max_source_positions)
    for _ in range(steps):
        tokens = torch.randint(0, 200, (2, 5))
        model(input_features=features, decoder_input_ids=tokens, use_cache=False).logits.square().mean().backward()
        optim.apply_update(optimizer, torch.tensor(1.0))
    return optimizer


def save(folder: Path, step: int, model: Any, optimizer: torch.optim.Optimizer | None = None) -> Path:
    tensors = optim.state_tensors(optimizer, parameters_by_name(model)) if optimizer else {}
    return commit(folder, step, model, tensors)


def commit(folder: Path, step: int, model: Any, tensors: dict[str, torch.Tensor], best: Best | None = None) -> Path:
    record = record_of(TrainState(step=step, best=best))
    return write(folder, None, contents_of(model, tensors, record, copied=False))


def test_weights_and_moments_come_back_to_the_bit(tmp_path: Path, model: Any, micro_whisper: Path):
    optimizer = train_a_little(model)
    path = save(tmp_path, 3, model, optimizer)
    other = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    load_weights(path, other)
    restored = optim.build_optimizer(parameters_by_name(other), OptimConfig(lr=1e-3, weight_decay=0.1))
    optim.load_state_tensors(restored, parameters_by_name(other), load_optimizer(path))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True))
    before, after = optimizer.state_dict(), restored.state_dict()
    for index, state in before["state"].items():
        assert all(torch.equal(value, after["state"][index][key]) for key, value in state.items())
    assert other.proj_out.weight.data_ptr() == other.model.decoder.embed_tokens.weight.data_ptr(), "still tied"


def test_a_restored_optimizer_has_the_rates_that_are_configured_now(tmp_path: Path, model: Any):
    path = save(tmp_path, 3, model, train_a_little(model))
    now = optim.build_optimizer(parameters_by_name(model), OptimConfig(lr=5e-4, weight_decay=0.2, eps=1e-7))
    optim.load_state_tensors(now, parameters_by_name(model), load_optimizer(path))
    assert [(group["lr"], group["weight_decay"], group["eps"]) for group in now.param_groups] == [
        (5e-4, 0.2, 1e-7),
        (5e-4, 0.0, 1e-7),
    ]


@pytest.mark.parametrize("fault", ["shape", "foreign", "missing"])
def test_optimizer_state_of_another_model_is_refused_by_name(tmp_path: Path, model: Any, fault: str):
    path = save(tmp_path, 3, model, train_a_little(model))
    tensors = load_optimizer(path)
    first = "model.encoder.conv1.weight/exp_avg"
    if fault == "shape":
        tensors[first] = tensors[first][:-1]
    elif fault == "foreign":
        tensors["model.encoder.nothing/exp_avg"] = tensors[first]
    else:
        tensors = {name: value for name, value in tensors.items() if not name.startswith("model.encoder.conv1.weight/")}
    optimizer = optim.build_optimizer(parameters_by_name(model), OptimConfig(lr=1e-3))
    with pytest.raises(ResumeError, match=r"conv1\.weight|model\.encoder\.nothing"):
        optim.load_state_tensors(optimizer, parameters_by_name(model), tensors)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ("damage", "fact"),
    [
        (lambda folder: truncate(folder / "model.safetensors"), "model.safetensors has"),
        (lambda folder: flip(folder / "model.safetensors"), "model.safetensors is damaged"),
        (lambda folder: flip(folder / "optimizer.safetensors"), "optimizer.safetensors is damaged"),
        (lambda folder: flip(folder / "trainer.json"), "trainer.json is damaged"),
        (lambda folder: (folder / "trainer.json").unlink(), "trainer.json is missing"),
        (lambda folder: (folder / "manifest.json").unlink(), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text(""), "manifest.json cannot be read"),
        (lambda folder: [path.unlink() for path in folder.iterdir()], "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text("[]"), "manifest.json cannot be read"),
        (lambda folder: (folder / "manifest.json").write_text('{"save": 9, "files": {}}'), "its fields are not"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(tmp_path: Path, model: Any, damage: Any, fact: str):
    older, newer = save(tmp_path, 1, model), save(tmp_path, 2, model)
    damage(newer)
    lines: list[str] = []
    assert choose(tmp_path, "auto", None, lines.append) == older
    assert len(lines) == 1
    assert fact in lines[0]
    assert "step-00000002 is not usable" in lines[0]


def test_a_manifest_that_points_outside_is_refused(tmp_path: Path, model: Any):
    path = save(tmp_path, 1, model)
    sign(path, {"../../etc/passwd": {"bytes": 1, "sha256": "0" * 64}})
    assert "outside" in (verify(path) or "")


def test_without_any_usable_checkpoint_nothing_starts_from_zero(tmp_path: Path, model: Any):
    flip(save(tmp_path, 1, model) / "model.safetensors")
    with pytest.raises(ResumeError, match="none is usable"):
        choose(tmp_path, "auto", None, lambda line: None)


def test_what_is_not_a_checkpoint_is_left_alone(tmp_path: Path, model: Any):
    (tmp_path / "step-notes").mkdir()
    (tmp_path / "step-00000009").write_text("a file")
    (tmp_path / "other").mkdir()
    path = save(tmp_path, 1, model)
    assert [saved.path for saved in list_checkpoints(tmp_path)] == [path]
    retain(tmp_path, 2, ())
    assert len(list(tmp_path.iterdir())) == 4


def test_the_newest_is_the_last_saved_whatever_step_or_clock_say(tmp_path: Path, model: Any):
    save(tmp_path, 9, model)
    again = save(tmp_path, 4, model)  # a branch that went on from an older checkpoint
    os.utime(again, (0, 0))
    assert choose(tmp_path, "auto", None, lambda line: None) == again


def test_a_clock_that_is_set_back_between_two_saves_changes_nothing(
    tmp_path: Path, model: Any, monkeypatch: pytest.MonkeyPatch
):
    save(tmp_path, 1, model)
    save(tmp_path, 2, model)
    monkeypatch.setattr(time, "gmtime", lambda: time.struct_time((1970, 1, 1, 0, 0, 0, 3, 1, 0)))
    newest = save(tmp_path, 3, model)
    for inner in (newest, *newest.iterdir()):
        os.utime(inner, (0, 0))
    assert read_manifest(newest).time == "1970-01-01T00:00:00Z"
    assert choose(tmp_path, "auto", None, lambda line: None) == newest
    retain(tmp_path, 2, ())
    assert [saved.step for saved in list_checkpoints(tmp_path)] == [3, 2]


def test_the_newest_and_the_named_ones_are_kept(tmp_path: Path, model: Any):
    for step in range(1, 7):
        save(tmp_path, step, model)
    retain(tmp_path, 2, {2})
    assert sorted(saved.step for saved in list_checkpoints(tmp_path)) == [2, 5, 6]


def test_the_best_of_every_kept_checkpoint_is_kept(tmp_path: Path, model: Any):
    """When the newest turns out to be damaged, the run goes on from the one before, and needs the best of that time."""
    for step, best in ((1, 1), (2, 1), (3, 3), (4, 3), (5, 1), (6, 6)):
        commit(tmp_path, step, model, {}, Best(best, "wer", 1 / step))
    retain(tmp_path, 2, ())
    assert sorted(saved.step for saved in list_checkpoints(tmp_path)) == [1, 5, 6]


def test_regular_and_pinned_ones_are_kept_besides(tmp_path: Path, model: Any):
    for step in range(1, 10):
        save(tmp_path, step, model)
    (tmp_path / "step-00000002" / PINNED).touch()
    assert retain(tmp_path, 2, (), every=3) == []
    assert sorted(saved.step for saved in list_checkpoints(tmp_path)) == [2, 3, 6, 8, 9]
    assert verify(tmp_path / "step-00000002") is None, "a pin is no damage"


def test_what_is_visibly_damaged_is_not_one_of_the_two_that_are_kept(tmp_path: Path, model: Any):
    for step in range(1, 5):
        save(tmp_path, step, model)
    truncate(tmp_path / "step-00000003/optimizer.safetensors")
    retain(tmp_path, 2, ())
    assert sorted(path.name[-1] for path in tmp_path.iterdir()) == ["2", "3", "4"]


def test_a_link_is_no_checkpoint_and_what_it_points_to_is_left_alone(tmp_path: Path, model: Any):
    folder, elsewhere = tmp_path / "checkpoints", tmp_path / "elsewhere"
    precious = save(elsewhere, 1, model)
    for step in (2, 3, 4):
        save(folder, step, model)
    (folder / "step-00000001").symlink_to(precious)
    retain(folder, 2, ())
    assert verify(precious) is None
    assert [saved.step for saved in list_checkpoints(folder)] == [4, 3]
    assert (folder / "step-00000001").is_symlink()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "optimizer.pt", "custom_checkpoint_0.pkl", "RNG.PICKLE"])
def test_a_pickle_in_a_checkpoint_is_refused_by_name_and_never_read(tmp_path: Path, model: Any, name: str):
    class Evil:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "executed",))

    older, newer = save(tmp_path / "run", 1, model), save(tmp_path / "run", 2, model)
    (newer / name).write_bytes(pickle.dumps(Evil()))
    lines: list[str] = []
    assert choose(tmp_path / "run", "auto", None, lines.append) == older
    assert name in lines[0]
    with pytest.raises(ResumeError, match=name):
        choose(tmp_path / "run", str(newer), None, lines.append)
    assert not (tmp_path / "executed").exists()
    pickle.loads((newer / name).read_bytes())
    assert (tmp_path / "executed").exists(), "it would have been"


def test_a_file_of_another_step_is_found_out(tmp_path: Path, model: Any):
    older, newer = save(tmp_path, 1, model, train_a_little(model)), save(tmp_path, 2, model, train_a_little(model))
    shutil.copy(older / "optimizer.safetensors", newer)
    assert verify(newer) == "optimizer.safetensors is damaged (its sha256 differs)"


def test_a_moved_and_a_copied_checkpoint_is_as_good(tmp_path: Path, model: Any):
    path = save(tmp_path / "a", 1, model)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    moved = (tmp_path / "a").rename(tmp_path / "c")
    assert verify(tmp_path / "b" / path.name) is None
    assert choose(moved, "auto", None, lambda line: None) == moved / path.name


def test_any_tensor_comes_back_as_the_format_has_it(tmp_path: Path):
    """Read by the format's own library; each type, no dimensions, nothing in it, not contiguous."""
    tensors = {f"{dtype}": torch.arange(6).to(dtype).reshape(2, 3) for dtype in safetensors_stream.DTYPES}
    tensors |= {
        "step": torch.tensor(3.0),
        "ünï": torch.zeros(0, 4),
        "transposed": torch.randn(3, 5).T,
        "a part": torch.randn(8)[1:4],
    }
    (tmp_path / "x").write_bytes(b"".join(safetensors_stream.parts(tensors)))
    read = load_file(tmp_path / "x")
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, tmp_path / "y", {"format": "pt"})
    assert (tmp_path / "x").stat().st_size == (tmp_path / "y").stat().st_size


def test_a_weight_that_is_not_finite_is_never_saved(tmp_path: Path, model: Any):
    with torch.no_grad():
        model.model.encoder.conv1.weight[0, 0, 0] = float("nan")
    with pytest.raises(NonFiniteError, match=r"conv1\.weight has values that are not finite at step 5"):
        save(tmp_path, 5, model)
    assert list(tmp_path.iterdir()) == []


def test_saving_a_step_again_replaces_it(tmp_path: Path, model: Any):
    save(tmp_path, 1, model)
    path = save(tmp_path, 1, model)
    assert verify(path) is None
    assert [saved.save for saved in list_checkpoints(tmp_path)] == [2]


def test_weights_of_another_shape_are_refused_in_one_line(tmp_path: Path, model: Any):
    path = save(tmp_path, 1, model)
    tensors = load_file(path / "model.safetensors")
    tensors["model.encoder.conv1.weight"] = tensors["model.encoder.conv1.weight"][:-1].contiguous()
    save_file(tensors, path / "model.safetensors")
    with pytest.raises(ResumeError) as refused:
        load_weights(path, model)
    assert "do not fit this model" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_non_finite_gradient_leaves_weights_and_moments_untouched(model: Any):
    optimizer = train_a_little(model)
    before = [p.clone() for p in model.parameters()]
    moments = {key: value.clone() for key, value in optim.state_tensors(optimizer, parameters_by_name(model)).items()}
    for parameter in parameters_by_name(model).values():
        parameter.grad = torch.full_like(parameter, float("nan"))
    assert optim.apply_update(optimizer, torch.tensor(float("nan"))) is False
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    now = optim.state_tensors(optimizer, parameters_by_name(model))
    assert all(torch.equal(value, now[key]) for key, value in moments.items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_weight_decay_is_for_matrices_only(model: Any):
    parameters = parameters_by_name(model)
    decaying = {name for name, parameter in parameters.items() if optim.decays(name, parameter)}
    assert all("layer_norm" not in name and not name.endswith("bias") and "positions" not in name for name in decaying)
    assert {"model.encoder.conv1.weight", "model.decoder.layers.0.fc1.weight"} <= decaying


@pytest.mark.parametrize("resume", ["auto", "best"])
def test_a_record_of_another_version_is_one_line_however_a_run_resumes(tmp_path: Path, model: Any, resume: str):
    """Its bytes are as they were written, so it is not damaged; it only cannot be understood."""
    path = commit(tmp_path, 1, model, {}, Best(1, "wer", 0.5))
    record = json.loads((path / "trainer.json").read_text())
    record["state"]["a_later_count"] = 7
    (path / "trainer.json").write_text(json.dumps(record))
    sign(path)
    assert verify(path) is None
    assert newest_record(tmp_path) is None
    with pytest.raises(ResumeError, match="a_later_count"):
        choose(tmp_path, resume, 1, lambda line: None)
        read_record(path)


def test_weights_may_be_saved_and_loaded_in_part(tmp_path: Path, model: Any, micro_whisper: Path):
    """As with a frozen base: the checkpoint leaves it out, and the model that loads the rest keeps its own."""
    base = frozenset(name for name, _ in model.named_parameters() if name.startswith("model.encoder."))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.5
    path = write(tmp_path, None, contents_of(model, {}, record_of(TrainState(step=1)), copied=False, without=base))
    with safe_open(path / "model.safetensors", "pt") as file:
        assert file.keys()
        assert not base & set(file.keys())
    other = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    before = {name: tensor.clone() for name, tensor in other.state_dict().items()}
    load_weights(path, other, without=base)
    for name, tensor in other.named_parameters():
        assert torch.equal(tensor, before[name] if name in base else model.state_dict()[name])
    with pytest.raises(ResumeError, match="do not fit"):
        load_weights(path, other, without=frozenset(list(base)[1:]))
    with pytest.raises(ResumeError, match="do not fit"):
        load_weights(path, other)
