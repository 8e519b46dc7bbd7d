"""Writer of CTranslate2 models, which faster-whisper reads. The conversion is that of the package ctranslate2."""

import copy
import json
from pathlib import Path
from tempfile import TemporaryDirectory

from whisper_ft.models.export.openai_layout import refuse_unlike_openai
from whisper_ft.models.whisper import LoadedWhisper

FIELDS = {
    "suppress_tokens": "suppress_ids",
    "begin_suppress_tokens": "suppress_ids_begin",
    "alignment_heads": "alignment_heads",
}
"""Fields of the generation config, with their names in config.json of CTranslate2."""


def refuse(loaded: LoadedWhisper) -> None:
    """Raise UsageError if CTranslate2 and faster-whisper cannot take the model."""
    refuse_unlike_openai(loaded, "CTranslate2")


def write(loaded: LoadedWhisper, out: Path, quantization: str) -> None:
    """Write model.bin, vocabulary.json and config.json into a folder. ctranslate2 must be installed.

    `quantization` is float32, float16, int8, or int8_float16, whose other weights are float16. config.json gets the
    model's suppressed tokens, alignment heads and languages. The converter takes them from other places if one is
    missing: every head of the last layers, for example.
    """
    from ctranslate2.converters import TransformersConverter

    model = copy.deepcopy(loaded.model)  # the converter quantises in place
    with TemporaryDirectory() as folder:
        model.config.save_pretrained(folder)
        converter = TransformersConverter(folder)
        # The model is in memory and checked already, so nothing is loaded again.
        converter.load_model = lambda *_, **__: model
        converter.load_tokenizer = lambda *_, **__: loaded.processor.tokenizer
        converted = out / "converted"
        converter.convert(str(converted), quantization=quantization)
    for path in converted.iterdir():
        path.rename(out / path.name)
    converted.rmdir()
    config = json.loads((out / "config.json").read_text(encoding="utf-8")) | stated_fields(loaded)
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def stated_fields(loaded: LoadedWhisper) -> dict[str, object]:
    """Return the fields of config.json that the generation config of the model states."""
    generation = loaded.model.generation_config
    fields = {name: getattr(generation, own, None) for own, name in FIELDS.items()}
    languages = getattr(generation, "lang_to_id", None)
    return {name: value for name, value in fields.items() if value is not None} | {
        "lang_ids": sorted((languages or {}).values())
    }
