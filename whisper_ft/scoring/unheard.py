"""Utterances without audio: a note beside the rates of a set, and the refusal of a set in which nothing was heard."""

from whisper_ft.runtime.errors import DataError
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.scores import Scores
from whisper_ft.scoring.unicode_text import encodable


def unheard_note(scores: Scores) -> str:
    """Return the number of utterances that could not be read, as a phrase; "" if all could be."""
    count = scores.unheard
    return f"nothing could be read of {count:,} of {counted(scores.utterances, 'utterance')}" if count else ""


def refuse_unheard(scores: Scores, name: str) -> None:
    """Raise DataError if no utterance could be read, audio or label, because the rates would be those of silence.

    `name` is the data set, as the user knows it.
    """
    if scores.utterances and scores.unheard == scores.utterances:
        reasons = ", ".join(f"{encodable(reason)} {count:,}" for reason, count in scores.problems.items())
        raise DataError(
            f"{name}: nothing could be read of any of {counted(scores.utterances, 'utterance')} ({reasons}), so there "
            "is no score; `python -m whisper_ft doctor` names such rows, and data.audio_root is the folder of the audio"
        )
