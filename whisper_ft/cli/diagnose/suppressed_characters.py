"""Suppressed characters of a model: those that its generation config never lets it write.

The files of a model folder are read as JSON, because importing transformers would take seconds.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_ft.models.conversion.byte_level import VocabularyError, bytes_of
from whisper_ft.runtime.regular_file import read_regular, strict_json

LARGEST = 1 << 26  # bytes of the largest tokenizer.json that is read; that of large-v3 has 4 MB
FOLDERS = ("best", "final", "best-adapter", "final-adapter")


def suppressed_characters(run: Path, settings: Mapping[str, Any]) -> frozenset[str] | None:
    """Return the characters that are suppressed, alone and after a space; None if no model folder can be read.

    The published models of the run come first, then its start model, without the tokens that `model.suppress` released.
    """
    for name in FOLDERS:
        if (found := _of_folder(run / name, set())) is not None:
            return found
    choice, start = settings.get("model.suppress"), settings.get("model.name")
    if choice == "none":
        return frozenset()
    return _of_folder(Path(str(start)), set(choice) if isinstance(choice, list) else set()) if start else None


def _of_folder(folder: Path, released: set[int]) -> frozenset[str] | None:
    generation, vocabulary = _json(folder / "generation_config.json"), _vocabulary(folder)
    if not generation or not vocabulary:
        return None
    suppressed = {*(generation.get("suppress_tokens") or ())} - released
    texts = {text: number for token, number in vocabulary.items() if (text := _text(token)) is not None}
    alone = {text for text, number in texts.items() if len(text) == 1 and number in suppressed}
    return frozenset(one for one in alone if f" {one}" not in texts or texts[f" {one}"] in suppressed)


def _vocabulary(folder: Path) -> dict[str, int]:
    vocabulary = _json(folder / "vocab.json") or (_json(folder / "tokenizer.json").get("model") or {}).get("vocab")
    return vocabulary if isinstance(vocabulary, dict) else {}


def _text(token: str) -> str | None:
    """Return the text of a token, None for a part of a character and for a special token."""
    with suppress(VocabularyError, UnicodeDecodeError):
        return bytes_of(token).decode("utf-8")
    return None


def _json(path: Path) -> dict[str, Any]:
    with suppress(OSError, ValueError):
        value = strict_json(read_regular(path, LARGEST))
        return value if isinstance(value, dict) else {}
    return {}
