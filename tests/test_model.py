"""Loading and exporting: what is checked, what is repaired, and that nothing is lost on the way."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from tests.model_files import content, edited
from whisper_ft.config.training import ModelConfig
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_parts, load_whisper, parameters_by_name
from whisper_ft.runtime.errors import UsageError


def test_the_sinusoids_of_the_encoder_are_not_trained(micro_whisper: Path):
    """In transformers they are fixed when made and, from 5.0 on, learn once they are loaded."""
    model, _ = load_whisper(str(micro_whisper))
    assert "model.encoder.embed_positions.weight" not in parameters_by_name(model)
    assert "model.decoder.embed_positions.weight" in parameters_by_name(model)


def test_weights_are_float32_also_where_they_are_stored_in_float16(tmp_path: Path, micro_whisper: Path):
    model = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    model.half().save_pretrained(tmp_path)
    WhisperProcessor.from_pretrained(micro_whisper).save_pretrained(tmp_path)
    loaded, _ = load_whisper(str(tmp_path))
    assert {parameter.dtype for parameter in loaded.parameters()} == {torch.float32}


def test_an_exported_model_is_the_same_model(tmp_path: Path, micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    model.generation_config.language = "be"
    export(model, config_files(model, processor), tmp_path, "# A model\n")
    again, again_processor = load_whisper(str(tmp_path))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))
    assert again.generation_config.to_dict() == model.generation_config.to_dict()
    assert again_processor.tokenizer.get_vocab() == processor.tokenizer.get_vocab()
    assert again_processor.feature_extractor.to_dict() == processor.feature_extractor.to_dict()
    assert (tmp_path / "README.md").exists()


def test_an_export_states_the_architecture_of_transformers_also_for_a_wrapped_model(micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    plain = config_files(model, processor)
    assert json.loads(plain["config.json"])["architectures"] == ["WhisperForConditionalGeneration"]
    model.__class__ = type("FSDPWhisper", (type(model),), {})  # as sharding does
    assert config_files(model, processor) == plain


def test_dropout_is_set_by_the_configuration(micro_whisper: Path):
    model, _ = load_whisper(str(micro_whisper), ModelConfig(dropout=0.25))
    assert model.model.encoder.layers[0].dropout == 0.25
    assert model.model.decoder.layers[0].dropout == 0.25


def test_dropout_of_the_training_is_not_exported_and_nothing_else_of_the_config_changes(
    tmp_path: Path, micro_whisper: Path
):
    source = edited(micro_whisper, tmp_path / "source", "config.json", lambda c: c.update(dropout=0.125, custom=[1]))
    model, processor = load_whisper(str(source), ModelConfig(dropout=0.5))
    assert model.model.decoder.dropout == model.model.encoder.layers[1].dropout == 0.5
    export(model, config_files(model, processor), tmp_path / "out", "")
    assert content(tmp_path / "out" / "config.json") == content(source / "config.json")


def refusal(folder: Path) -> str:
    """The message, one line, that refuses a folder; without the folder's name."""
    with pytest.raises(UsageError) as refused:
        load_whisper(str(folder))
    message = str(refused.value)
    assert "\n" not in message
    assert message.startswith(str(folder))
    return message.removeprefix(str(folder))


@pytest.mark.parametrize(
    ("edit", "facts"),
    [
        (lambda c: c["feature_extractor"].update(feature_size=128), r"80 mel bins.* 128"),
        (
            lambda c: c["feature_extractor"].update(chunk_length=30, n_samples=480000, nb_max_frames=3000),
            r"frames.* 3000",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(tmp_path: Path, micro_whisper: Path, edit: Any, facts: str):
    assert re.search(facts, refusal(edited(micro_whisper, tmp_path, "processor_config.json", edit)))


@pytest.mark.parametrize("method", ["bitsandbytes", "gptq"])
def test_a_quantised_model_is_refused_in_one_line(tmp_path: Path, micro_whisper: Path, method: str):
    quantised = {"quant_method": method, "load_in_4bit": True}
    model = edited(micro_whisper, tmp_path, "config.json", lambda c: c.update(quantization_config=quantised))
    assert all(fact in refusal(model) for fact in ("quantization_config", method))


@pytest.mark.parametrize("config", [{"model_type": "bert"}, {}])
def test_what_is_not_whisper_is_refused_in_one_line(tmp_path: Path, config: dict[str, Any]):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert f"model_type in config.json is {config.get('model_type')!r}" in refusal(tmp_path)


def test_a_folder_without_a_model_is_refused_in_one_line(tmp_path: Path):
    assert refusal(tmp_path)


def put(file: str, text: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_text(text)


def cut(file: str) -> Callable[[Path], Any]:
    return lambda folder: (folder / file).write_bytes(
        (folder / file).read_bytes()[: (folder / file).stat().st_size // 2]
    )


def lose(*files: str) -> Callable[[Path], Any]:
    return lambda folder: [(folder / file).unlink() for file in files]


def old_preprocessor(text: str) -> Callable[[Path], Any]:
    """As models from before transformers 5 have it."""
    return lambda folder: (lose("processor_config.json")(folder), put("preprocessor_config.json", text)(folder))


JSON_FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "generation_config.json",
    "processor_config.json",
)
DAMAGE: list[tuple[str, Callable[[Path], Any]]] = [
    *((f"{file}: {text!r}", put(file, text)) for file in JSON_FILES for text in ("", "[]", "null", "7", '{"a')),
    *((f"{file}: half", cut(file)) for file in (*JSON_FILES, "model.safetensors")),
    *((f"{file}: {{}}", put(file, "{}")) for file in ("config.json", "tokenizer.json", "processor_config.json")),
    ("weights: empty", put("model.safetensors", "")),
    ("weights: missing", lose("model.safetensors")),
    ("config: missing", lose("config.json")),
    ("config: a text for a number", put("config.json", '{"model_type": "whisper", "d_model": "wide"}')),
    ("tokenizer: missing", lose("tokenizer.json")),
    ("tokenizer: missing with its config", lose("tokenizer.json", "tokenizer_config.json")),
    ("tokenizer: without a model", put("tokenizer.json", '{"version": "1.0", "added_tokens": []}')),
    ("extractor: missing", lose("processor_config.json")),
    *((f"old extractor: {text}", old_preprocessor(text)) for text in ("", "[]", "{}", '{"feature_size": "x"}', "{")),
    ("generation: ids that are text", put("generation_config.json", '{"suppress_tokens": "1 2"}')),
    ("generation: no map", put("generation_config.json", '{"lang_to_id": ["be"]}')),
    ("generation: ids beyond", put("generation_config.json", '{"pad_token_id": 100000}')),
]


@pytest.mark.parametrize("damage", [damage for _, damage in DAMAGE], ids=[name for name, _ in DAMAGE])
def test_a_damaged_model_is_refused_in_one_line(tmp_path: Path, micro_whisper: Path, damage: Callable[[Path], Any]):
    shutil.copytree(micro_whisper, tmp_path / "m")
    damage(tmp_path / "m")
    assert refusal(tmp_path / "m")


def dropped(weights: dict[str, torch.Tensor]) -> None:
    del weights["model.encoder.layers.1.fc1.weight"], weights["model.encoder.layers.1.fc2.weight"]


def added(weights: dict[str, torch.Tensor]) -> None:
    weights["model.decoder.layers.2.fc1.weight"] = torch.zeros(2, 2)


def reshaped(weights: dict[str, torch.Tensor]) -> None:
    weights["model.encoder.conv1.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("edit", "facts"),
    [
        (dropped, r"\b2 .*missing.* model.encoder.layers.1.fc1.weight"),
        (added, r"\b1 .*unknown.*model.decoder.layers.2.fc1.weight"),
        (reshaped, r"\b1 .*another shape.*model.encoder.conv1.bias"),
    ],
)
def test_weights_that_are_not_the_models_are_refused_by_name_and_number(
    tmp_path: Path, micro_whisper: Path, edit: Callable[[dict[str, torch.Tensor]], None], facts: str
):
    shutil.copytree(micro_whisper, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    edit(weights)
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    assert re.search(facts, refusal(tmp_path / "m"))


def test_a_file_that_holds_the_tied_projection_too_is_loaded(tmp_path: Path, micro_whisper: Path):
    shutil.copytree(micro_whisper, tmp_path / "m")
    weights = load_file(tmp_path / "m" / "model.safetensors")
    assert "proj_out.weight" not in weights
    weights["proj_out.weight"] = weights["model.decoder.embed_tokens.weight"].clone()
    save_file(weights, tmp_path / "m" / "model.safetensors", {"format": "pt"})
    model, _ = load_whisper(str(tmp_path / "m"))
    assert torch.equal(model.proj_out.weight, weights["proj_out.weight"])


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize(
    ("role", "token"), [("decoder_start_token_id", "<|startoftranscript|>"), ("eos_token_id", "<|endoftext|>")]
)
def test_ids_that_are_not_the_tokenizers_are_refused(
    tmp_path: Path, micro_whisper: Path, file: str, role: str, token: str
):
    """513 is where decoding starts and 512 where it ends: swapped, each is the other's."""
    swapped = {"decoder_start_token_id": 512, "eos_token_id": 513}[role]
    message = refusal(edited(micro_whisper, tmp_path, file, lambda c: c.update({role: swapped})))
    assert message.startswith(f": {role} is {swapped} in {file}, but {token} is")


def test_another_place_of_notimestamps_is_refused(tmp_path: Path, micro_whisper: Path):
    """As in a generation config of large-v3, which has a language more, beside an older model."""
    folder = edited(micro_whisper, tmp_path, "generation_config.json", lambda c: c.update(no_timestamps_token_id=620))
    assert "no_timestamps_token_id is 620" in refusal(folder)


@pytest.mark.parametrize(("field", "key", "token"), [("lang_to_id", "<|be|>", "be"), ("task_to_id", "translate", "tr")])
def test_another_place_of_a_language_or_task_is_refused(
    tmp_path: Path, micro_whisper: Path, field: str, key: str, token: str
):
    """A file of another model is recognised by this alone if it does not name <|notimestamps|>."""
    folder = edited(micro_whisper, tmp_path, "generation_config.json", lambda c: c[field].update({key: 1}))
    assert refusal(folder).startswith(f": {field} has 1 for {key}, but <|{token}")


def test_a_language_of_the_users_own_may_stand_for_any_token(tmp_path: Path, micro_whisper: Path):
    folder = edited(
        micro_whisper, tmp_path, "generation_config.json", lambda c: c["lang_to_id"].update({"<|ckb|>": 520})
    )
    assert load_whisper(str(folder)).model.generation_config.lang_to_id["<|ckb|>"] == 520


@pytest.mark.parametrize(
    ("name", "on_the_hub"),
    [
        ("tiny.en", "openai/whisper-tiny.en"),
        ("large", "openai/whisper-large-v3"),
        ("large-v1", "openai/whisper-large"),
        ("turbo", "openai/whisper-large-v3-turbo"),
    ],
)
def test_openais_own_name_is_answered_with_that_of_the_hub(name: str, on_the_hub: str):
    with pytest.raises(UsageError) as refused:
        load_whisper(name)
    assert str(refused.value).startswith(f"{name}: ")
    assert str(refused.value).endswith(f" {on_the_hub}")


def test_weights_in_a_pickle_are_refused_with_a_command_that_rewrites_them(tmp_path: Path, micro_whisper: Path):
    shutil.copytree(micro_whisper, tmp_path / "m")
    model, _ = load_whisper(str(micro_whisper))
    lose("model.safetensors")(tmp_path / "m")
    torch.save(model.state_dict(), tmp_path / "m" / "pytorch_model.bin")
    _, python, program = refusal(tmp_path / "m").partition(' python -c "')
    assert python
    exec(program.removesuffix('"'), {})
    again, _ = load_whisper(str(tmp_path / "m"))
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values(), strict=True))


def test_a_model_that_says_nothing_of_its_ids_takes_the_tokenizers(tmp_path: Path, micro_whisper: Path):
    shutil.copytree(micro_whisper, tmp_path, dirs_exist_ok=True)
    for file in (tmp_path / "config.json", tmp_path / "generation_config.json"):
        roles = {"decoder_start_token_id", "eos_token_id", "no_timestamps_token_id"}
        silent = {key: value for key, value in content(file).items() if key not in roles}
        file.write_text(json.dumps(silent))
    complete = load_whisper(str(tmp_path)).model.generation_config
    assert (complete.decoder_start_token_id, complete.eos_token_id, complete.no_timestamps_token_id) == (513, 512, 619)


def test_a_tokenizer_without_a_padding_token_gets_whispers(tmp_path: Path, micro_whisper: Path):
    folder = edited(micro_whisper, tmp_path, "tokenizer_config.json", lambda c: c.pop("pad_token"))
    model, processor = load_whisper(str(folder))
    assert processor.tokenizer.pad_token_id == model.generation_config.pad_token_id == 512


def test_forced_decoder_ids_of_an_old_model_are_gone_from_the_export(tmp_path: Path, micro_whisper: Path):
    """They would win over the language that the model was trained on."""
    source = edited(
        micro_whisper,
        tmp_path / "old",
        "config.json",
        lambda c: c.update(forced_decoder_ids=[[1, 514]], max_length=448),
    )
    model, processor = load_whisper(str(source))
    export(model, config_files(model, processor), tmp_path / "out", "")
    assert not {"forced_decoder_ids", "max_length"} & content(tmp_path / "out" / "config.json").keys()


def test_labels_are_made_as_with_the_model_where_its_weights_are_not_there(tmp_path: Path, micro_whisper: Path):
    model, processor = load_whisper(str(micro_whisper))
    shutil.copytree(micro_whisper, tmp_path / "m", ignore=shutil.ignore_patterns("*.safetensors"))
    assert "weights" in refusal(tmp_path / "m")
    parts = load_parts(str(tmp_path / "m"))
    labels = [
        LabelEncoder.of(of, tokenizer, "be", "transcribe")("добры дзень")
        for of, tokenizer in ((model, processor.tokenizer), (parts, parts.processor.tokenizer))
    ]
    assert labels[0] == labels[1]
    assert parts.generation_config.to_dict() == model.generation_config.to_dict()


@pytest.mark.parametrize(
    ("file", "edit"),
    [
        ("config.json", lambda c: c.update(model_type="bert")),
        ("config.json", lambda c: c.update(max_source_positions=10)),
        ("config.json", lambda c: c.update(vocab_size=10)),
        ("processor_config.json", lambda c: c["feature_extractor"].update(feature_size=128)),
        ("generation_config.json", lambda c: c.update(decoder_start_token_id=1)),
    ],
)
def test_what_is_wrong_without_the_weights_is_told_in_the_same_words(
    tmp_path: Path, micro_whisper: Path, file: str, edit: Any
):
    folder = edited(micro_whisper, tmp_path, file, edit)
    with pytest.raises(UsageError) as refused:
        load_parts(str(folder))
    assert str(refused.value).removeprefix(str(folder)) == refusal(folder)
