"""Adapter folders: peft reads ours and we read peft's, and one that does not fit its base is refused in one line."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import IA3Config, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from tests.adapter_files import foreign_adapter, hub_cache, logits_of, own_adapter
from tests.conftest import ROOT, environment
from whisper_ft.models.adapters.adapted_whisper import attach, checked_base, detach
from whisper_ft.models.adapters.adapter_config import is_adapter
from whisper_ft.models.adapters.adapter_folder import own_name, peft_name, read_adapter
from whisper_ft.models.inference import load_for_inference
from whisper_ft.models.whisper import LoadedWhisper, load_whisper, weights_sha256
from whisper_ft.runtime.errors import UsageError

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {
    "lora": {},
    "rslora": {"use_rslora": True},
    "dora": {"use_dora": True},
    "ranks by layer": {"rank_pattern": {"fc1": 2}, "alpha_pattern": {"fc1": 32}},
}


def loaded_with(folder: Path, base: Path) -> LoadedWhisper:
    loaded = load_whisper(str(base))
    attach(loaded, read_adapter(folder))
    return loaded


def refusal(folder: Path, base: str | None = None) -> str:
    """The one line with which a folder is refused."""
    with pytest.raises(UsageError) as caught:
        load_for_inference(str(folder), "fp32", CPU, lambda line: None, base)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_peft_itself_loads_our_folder_and_computes_our_logits(micro_whisper: Path, tmp_path: Path, kind: str):
    folder = own_adapter(micro_whisper, tmp_path / "adapter", **KINDS[kind])
    plain = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    before = logits_of(plain)
    theirs = logits_of(PeftModel.from_pretrained(plain, folder))
    ours = logits_of(loaded_with(folder, micro_whisper).model)
    assert torch.equal(ours, theirs)
    assert (ours - before).abs().max() > 0.01
    assert WhisperProcessor.from_pretrained(folder).tokenizer.get_vocab()


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_an_adapter_of_plain_peft_has_the_logits_that_peft_computes(micro_whisper: Path, tmp_path: Path, kind: str):
    folder = foreign_adapter(micro_whisper, tmp_path / "adapter", **KINDS[kind])
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    peft_model = PeftModel.from_pretrained(load_whisper(str(micro_whisper)).model, folder)
    theirs = logits_of(peft_model.base_model.model)  # the wrapper of this task passes input_ids, which Whisper refuses
    loaded = load_for_inference(str(folder), "fp32", CPU, lambda line: None, str(micro_whisper))
    assert torch.equal(logits_of(loaded.model), theirs)
    assert read_adapter(folder).identity is None


@pytest.mark.parametrize(
    ("own", "peft"),
    [
        ("a.q_proj.lora_A.default.weight", "a.q_proj.lora_A.weight"),
        ("a.q_proj.lora_B.default.bias", "a.q_proj.lora_B.bias"),
        ("a.q_proj.lora_magnitude_vector.default.weight", "a.q_proj.lora_magnitude_vector"),
        ("a.layer_norm.bias", "a.layer_norm.bias"),
    ],
)
def test_names_of_weights_are_those_of_the_model_in_memory_and_of_peft_on_disk(own: str, peft: str):
    assert peft_name(own) == f"base_model.model.{peft}"
    assert own_name(f"base_model.model.{peft}") == own_name(peft) == own_name(f"base_model.model.{own}") == own


@pytest.mark.long
def test_the_same_adapter_has_the_same_bytes_and_comes_back_as_it_was(micro_whisper: Path, tmp_path: Path):
    first, second = (own_adapter(micro_whisper, tmp_path / name, use_dora=True) for name in ("a", "b"))
    for path in first.iterdir():
        assert path.read_bytes() == (second / path.name).read_bytes(), path.name
    assert {"adapter_model.safetensors", "adapter_config.json", "base.json", "README.md", "generation_config.json",
            "evaluation.json", "tokenizer.json"} <= {path.name for path in first.iterdir()}  # fmt: skip
    assert not (first / "config.json").exists()
    model = loaded_with(first, micro_whisper).model.state_dict()
    tensors = read_adapter(first).tensors
    assert len(tensors) == 3 * (3 * 2 * 2 + 2 * 2)  # two matrices and a magnitude for each layer with an adapter
    assert all(torch.equal(model[name], tensor) for name, tensor in tensors.items())


def test_a_base_is_as_before_once_its_adapter_is_taken_out(micro_whisper: Path, tmp_path: Path):
    loaded = load_whisper(str(micro_whisper))
    before, logits = weights_sha256(loaded.model), logits_of(loaded.model)
    attach(loaded, read_adapter(own_adapter(micro_whisper, tmp_path / "adapter")))
    assert not torch.equal(logits_of(loaded.model), logits)
    detach(loaded.model)
    assert weights_sha256(loaded.model) == before
    assert torch.equal(logits_of(loaded.model), logits)
    attach(loaded, read_adapter(own_adapter(micro_whisper, tmp_path / "other", r=2)))


def test_language_and_suppressed_tokens_of_the_training_come_with_the_adapter(micro_whisper: Path, tmp_path: Path):
    folder = own_adapter(micro_whisper, tmp_path / "adapter")
    generation = json.loads((folder / "generation_config.json").read_text())
    written = generation | {"language": "be", "task": "transcribe", "suppress_tokens": [5]}
    (folder / "generation_config.json").write_text(json.dumps(written))
    found = loaded_with(folder, micro_whisper).model.generation_config
    assert (found.language, found.task, found.suppress_tokens) == ("be", "transcribe", [5])


def test_a_moved_base_is_named_by_the_user_and_another_one_refused(micro_whisper: Path, tmp_path: Path):
    shutil.copytree(micro_whisper, tmp_path / "here")
    folder = own_adapter(tmp_path / "here", tmp_path / "adapter")
    first = load_for_inference(str(folder), "fp32", CPU, lambda line: None)
    (tmp_path / "here").rename(tmp_path / "there")
    assert "--base" in refusal(folder)
    moved = load_for_inference(str(folder), "fp32", CPU, lambda line: None, str(tmp_path / "there"))
    assert moved.sha256 == first.sha256
    weights = load_file(tmp_path / "there/model.safetensors")
    weights["model.encoder.conv1.bias"] += 1
    save_file(weights, tmp_path / "there/model.safetensors", {"format": "pt"})
    found = checked_base(read_adapter(own_adapter(tmp_path / "there", tmp_path / "new")), None)
    assert found.sha256[:12] in refusal(folder, str(tmp_path / "there"))


FOUND = """
import sys
from whisper_ft.models.adapters.adapted_whisper import local_adapter
print(*map(local_adapter, sys.argv[1:]), sep="\\n")
"""


@pytest.mark.long
def test_an_adapter_on_the_hub_is_known_by_its_files(micro_whisper: Path, tmp_path: Path):
    models = {"lora": own_adapter(micro_whisper, tmp_path / "adapter"), "whole": micro_whisper}
    names = ["me/lora", "me/whole", "me/nothing"]
    cache = environment(1) | {"HF_HUB_CACHE": str(hub_cache(tmp_path / "cache", models))}
    found = subprocess.run([sys.executable, "-c", FOUND, *names], cwd=ROOT, env=cache, capture_output=True, text=True)
    adapter = tmp_path / "cache/models--me--lora/snapshots/abc"
    assert found.stdout.splitlines() == [str(adapter), "None", "None"], found.stderr


def test_a_base_is_refused_beside_a_whole_model(micro_whisper: Path):
    assert "--base" in refusal(micro_whisper, str(micro_whisper))


def as_pickle(folder: Path) -> None:
    (folder / "adapter_model.safetensors").rename(folder / "adapter_model.bin")


def cut(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def of_another_size(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    save_file({name: tensor[:, :3].contiguous() for name, tensor in load_file(path).items()}, path)


def without_a_weight(folder: Path) -> None:
    path = folder / "adapter_model.safetensors"
    tensors = load_file(path)
    del tensors[min(tensors)]
    save_file(tensors, path)


def with_field(name: str, value: object) -> Callable[[Path], object]:
    def change(folder: Path) -> None:
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {name: value}))

    return change


@pytest.mark.long
@pytest.mark.parametrize(
    ("damage", "told"),
    [
        (as_pickle, "save_file"),
        (cut, "adapter_model.safetensors"),
        (of_another_size, "does not fit its base"),
        (without_a_weight, "does not fit its base"),
        (lambda folder: (folder / "adapter_model.safetensors").unlink(), "adapter_model.safetensors"),
        (lambda folder: (folder / "adapter_config.json").write_text("{"), "adapter_config.json"),
        (lambda folder: (folder / "adapter_config.json").write_text("[]"), "object"),
        (lambda folder: (folder / "base.json").write_text('{"sha256": 1'), "base.json"),
        (lambda folder: (folder / "base.json").write_text('{"quantisation": "int3"}'), "int3"),
        (with_field("peft_type", "IA3"), "IA3"),
        (with_field("base_model_name_or_path", None), "--base"),
        (with_field("target_modules", ["no_such_layer"]), "no_such_layer"),
        (with_field("modules_to_save", ["proj_out"]), "proj_out"),
        (with_field("r", "four"), "does not fit"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused_in_one_line(
    micro_whisper: Path, tmp_path: Path, damage: Callable[[Path], object], told: str
):
    folder = own_adapter(micro_whisper, tmp_path / "adapter")
    damage(folder)
    assert told in refusal(folder)


def test_an_adapter_of_another_kind_is_refused(micro_whisper: Path, tmp_path: Path):
    config = IA3Config(target_modules=["q_proj"], feedforward_modules=[])
    get_peft_model(load_whisper(str(micro_whisper)).model, config).save_pretrained(str(tmp_path / "adapter"))
    assert "IA3" in refusal(tmp_path / "adapter")


def test_a_whole_model_with_a_left_over_adapter_config_is_refused(micro_whisper: Path, tmp_path: Path):
    shutil.copytree(micro_whisper, tmp_path / "model")
    own_adapter(micro_whisper, tmp_path / "adapter")
    assert is_adapter(tmp_path / "adapter")
    shutil.copy(tmp_path / "adapter/adapter_config.json", tmp_path / "model")
    assert not is_adapter(tmp_path / "model")
    assert "adapter_config.json" in refusal(tmp_path / "model")
