"""Loading and exporting: what is checked, what is repaired, and that nothing is lost on the way."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.failure import UsageError
from whisper_ft.model import export, load_whisper


def test_weights_are_float32_also_where_they_are_stored_in_float16(tmp_path: Path, micro_whisper: Path):
    model = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    model.half().save_pretrained(tmp_path)
    WhisperProcessor.from_pretrained(micro_whisper).save_pretrained(tmp_path)
    loaded, _ = load_whisper(str(tmp_path))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_a_missing_generation_config_is_completed_from_the_tokenizer(tmp_path: Path, micro_whisper: Path):
    """A model built from its config saves none of Whisper's fields, and `generate` then stops after 20 tokens."""
    original, processor = load_whisper(str(micro_whisper))
    WhisperForConditionalGeneration(WhisperConfig.from_pretrained(micro_whisper)).save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    repaired = load_whisper(str(tmp_path))[0].generation_config
    for name in (
        "lang_to_id",
        "task_to_id",
        "no_timestamps_token_id",
        "decoder_start_token_id",
        "eos_token_id",
        "max_length",
    ):
        assert getattr(repaired, name) == getattr(original.generation_config, name), name


def test_an_exported_model_is_the_same_model(tmp_path: Path, micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    model.generation_config.language = "be"
    export(model, processor, tmp_path, "# A model\n")
    again, again_processor = load_whisper(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    assert again_processor.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again_processor.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
    assert (tmp_path / "README.md").exists()


def test_dropout_is_set_by_the_configuration(micro_whisper: Path):
    model, _ = load_whisper(str(micro_whisper), dropout=0.25)
    assert model.model.encoder.layers[0].dropout == 0.25
    assert model.model.decoder.layers[0].dropout == 0.25


def edited(micro_whisper: Path, folder: Path, file: str, edit: Any) -> Path:
    model, processor = load_whisper(str(micro_whisper))
    export(model, processor, folder, "")
    content = json.loads((folder / file).read_text())
    edit(content)
    (folder / file).write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("edit", "told"),
    [
        (lambda c: c["feature_extractor"].update(feature_size=128), "takes 80 mel bins, its extractor makes 128"),
        (lambda c: c["feature_extractor"].update(chunk_length=30, n_samples=480000, nb_max_frames=3000), "frames"),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, micro_whisper: Path, edit: Any, told: str):
    with pytest.raises(UsageError, match=told):
        load_whisper(str(edited(micro_whisper, tmp_path, "processor_config.json", edit)))


def test_what_is_not_whisper_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(UsageError) as refused:
        load_whisper(str(tmp_path))
    assert "\n" not in str(refused.value)
