"""What the columns of other people's tables are called."""

from collections.abc import Sequence

from whisper_ft.failure import UsageError

AUDIO_COLUMNS = ("audio", "path", "audio_filepath", "audio_file", "file_name", "file", "wav")
TEXT_COLUMNS = ("sentence", "text", "transcription", "transcript", "raw_text", "normalized_text")


def column_of(names: Sequence[str], wanted: str | None, usual: Sequence[str], setting: str, where: str) -> str:
    """The column that is `wanted`, or the first of the `usual` names that is there; else UsageError with the choice."""
    if wanted is None:
        found = next((name for name in usual if name in names), None)
        missing = f"none of the columns {', '.join(usual)}"
    else:
        found = wanted if wanted in names else None
        missing = f"no column {wanted!r}"
    if found is None:
        raise UsageError(f"{where}: has {missing}; set --data.{setting} to one of {', '.join(names)}")
    return found
