"""Session of transcribe: the model and its decoding, the share of each process, and the summary at the end."""

import argparse
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

import torch

from whisper_ft.cli.transcribe.audio_files import AudioFile, shared_out
from whisper_ft.cli.transcribe.display import Display
from whisper_ft.cli.transcribe.transcription import FileCounts, Task, Transcription
from whisper_ft.config.evaluation import DecodingConfig
from whisper_ft.config.memory_advice import with_decoding_advice
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.audio.recording import stated_seconds
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.types import RejectedError
from whisper_ft.decoding.transcriber import Transcriber
from whisper_ft.decoding.transcript_options import (
    AUTO,
    TranscriptOptions,
    batch_size_on,
    decoding_of,
    message_about_option,
)
from whisper_ft.models.inference import InferenceModel
from whisper_ft.models.suppression import fingerprint
from whisper_ft.models.whisper import quiet_libraries
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import DataError, OutOfMemoryError, UsageError
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.printable import counted, say
from whisper_ft.runtime.processes import start_processes
from whisper_ft.runtime.redaction import redacted
from whisper_ft.tracking.console.eta import clock
from whisper_ft.training.checkpoint_model import load_any_for_inference
from whisper_ft.training.run_folder import model_of

SCHEMA = 1  # version of the windows in a log; windows of another version are transcribed again


def transcribe(args: argparse.Namespace, files: Sequence[AudioFile]) -> None:
    """Transcribe files, in this process and in those that were started with it.

    Raises DataError at the end if a file could not be read, or not to its end.
    """
    end_with_parent()
    quiet_libraries()
    keep_freed_memory()
    accelerator = start_processes(args.device)
    collectives = Collectives()
    try:
        collectives.run_on_all(partial(_transcribe, args, files, accelerator.device, collectives))
    except OutOfMemoryError as error:
        settings = DecodingConfig(
            batch_size=batch_size_on(accelerator.device, args.batch_size), num_beams=args.num_beams
        )
        raise with_decoding_advice(error, settings) from error


def _transcribe(
    args: argparse.Namespace, files: Sequence[AudioFile], device: torch.device, collectives: Collectives
) -> None:
    def note(line: str) -> None:
        if collectives.rank == 0:
            say(line, file=sys.stderr)

    if args.language not in (None, AUTO):
        with _own_names():
            whisper_language(args.language)
    todo, lengths = collectives.broadcast_from_main(lambda: _surveyed(files, args))
    if not todo:
        note(f"nothing to do: the transcripts of {counted(len(files), 'file')} exist; --overwrite replaces them")
        return
    mine = shared_out(lengths, collectives.world)[collectives.rank]
    loaded = load_any_for_inference(model_of(args.model), args.precision, device, note, args.base)
    transcriber, task = prepare(args, loaded, note)
    log_mel, total = LogMel(loaded.processor.feature_extractor), sum(lengths[place] or 0.0 for place in mine)
    with Display(total, has_bar=collectives.rank == 0) as display:
        transcription = Transcription(transcriber, log_mel, [todo[place] for place in mine], task, display)
        counts, speed = transcription.run(), display.speed
    counts = sum(collectives.gather(counts), FileCounts(kept=len(files) - len(todo)))
    note(_summary(counts, speed, collectives.world))
    if counts.damaged:
        raise DataError(f"{counted(counts.damaged, 'file')} could not be read, or not to the end; named above")


def _surveyed(files: Sequence[AudioFile], args: argparse.Namespace) -> tuple[list[AudioFile], list[float | None]]:
    """Return the files without transcripts, and their lengths in seconds as far as the headers state them."""
    todo = [file for file in files if args.overwrite or not all(map(_exists, file.outputs(args.to).values()))]
    return todo, [_stated_seconds(file) for file in todo]


def _exists(path: Any) -> bool:
    return bool(path.exists())


def _stated_seconds(file: AudioFile) -> float | None:
    try:
        return stated_seconds(file.path)
    except RejectedError:  # it is named when its turn comes
        return None


def prepare(
    args: argparse.Namespace, loaded: InferenceModel, note: Callable[[str], object]
) -> tuple[Transcriber, Task]:
    """Build the decoding of a model. Raises UsageError if the model lacks something that an option needs.

    Without --language, the language is that of the model's fine-tuning, and is detected if there is none.
    """
    options = TranscriptOptions(
        language=args.language,
        task=args.task,
        timestamps=args.timestamps,
        words=args.words,
        prompt=args.prompt,
        num_beams=args.num_beams,
        max_new_tokens=args.max_new_tokens,
        no_speech_threshold=args.no_speech_threshold,
        temperature_fallback=args.temperature_fallback,
        batch_size=batch_size_on(loaded.model.device, args.batch_size),
    )
    with _own_names():
        decoding = decoding_of(loaded, options)
    for line in decoding.transcriber.notes:
        note(line)
    job = {
        "schema": SCHEMA,
        "model": loaded.sha256,
        "decoding": {**asdict(decoding.settings), "batch_size": None},
        "language": decoding.language,
        "task": args.task,
        "words": args.words,
        "precision": loaded.precision,
        "suppressed": fingerprint(loaded.model.generation_config),
    }
    name = redacted(model_of(args.model))
    task = Task(args.to, args.overwrite, options.batch_size, job, name, decoding.language)
    return decoding.transcriber, task


@contextmanager
def _own_names() -> Iterator[None]:
    """Name the options of this command in errors about settings of evaluate.py, which have other names."""
    try:
        yield
    except UsageError as error:
        raise UsageError(message_about_option(error)) from error


def _summary(counts: FileCounts, speed: float, processes: int) -> str:
    parts = [f"{counted(counts.written, 'file')} transcribed"]
    if counts.seconds:
        speed *= processes
        parts[0] += f" ({clock(counts.seconds)} of audio, {speed:.1f} times faster than real time)"
    if counts.kept:
        parts.append(f"{counts.kept:,} kept, because their transcripts exist")
    if counts.in_use:
        parts.append(f"{counts.in_use:,} left to another process")
    return "; ".join(parts)
