"""Check of a transcription before the start, without torch: missing model, GPU or files."""

import argparse

from whisper_ft.cli.transcribe.audio_files import AudioFile, find_audio
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_missing_gpu, refuse_missing_model
from whisper_ft.training.run_folder import model_of


def checked_files(args: argparse.Namespace) -> tuple[list[AudioFile], list[str]]:
    """Return the files to transcribe, and lines for the user about links that were left out.

    Raises UsageError if the model, the GPU or a file is missing.
    """
    if not args.model:
        raise UsageError("MODEL is empty: give a run directory, a folder of a model, or a name on the Hub")
    refuse_missing_model("", model_of(args.model))
    refuse_missing_gpu(args.device)
    return find_audio(args.files, args.out)
