"""Whisper's name of a task."""

from typing import get_args

from whisper_ft.config.data import Task


def whisper_task(value: object) -> str | None:
    """Return `transcribe` or `translate` for a value in any case; None for any other value."""
    name = value.strip().lower() if isinstance(value, str) else None
    return name if name in get_args(Task) else None
