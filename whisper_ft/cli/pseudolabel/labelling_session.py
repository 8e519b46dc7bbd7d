"""Session of pseudolabel: the transcriptions of the pool by all processes, then the shards and the page by one."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import torch
from rich.progress import Progress

from whisper_ft.cli.pseudolabel.audio_pool import AudioPool, open_pool
from whisper_ft.cli.pseudolabel.block_log import (
    BlockKey,
    BlockLog,
    LoggedBlock,
    is_complete,
    last_blocks,
    logged_blocks,
)
from whisper_ft.cli.pseudolabel.held_out_guard import HeldOutGuard
from whisper_ft.cli.pseudolabel.label_folder import REJECTED, LabelFolder, read_windows
from whisper_ft.cli.pseudolabel.label_page import PAGE, LabelPage, sounds_of
from whisper_ft.cli.pseudolabel.label_record import found_languages, read_record
from whisper_ft.cli.pseudolabel.label_records import LabelRecords, ModelOrigin
from whisper_ft.cli.pseudolabel.labelling import Labelling
from whisper_ft.cli.pseudolabel.pool_window import PoolWindow
from whisper_ft.cli.pseudolabel.turn import Turn, TurnDecoder, turns_of
from whisper_ft.cli.transcribe.display import Display
from whisper_ft.config.memory_advice import with_decoding_advice
from whisper_ft.config.pseudolabel import PseudolabelConfig
from whisper_ft.data.formats.fingerprint import changed
from whisper_ft.data.sources import open_source
from whisper_ft.models.inference import InferenceModel
from whisper_ft.models.whisper import quiet_libraries
from whisper_ft.reports.safe_console import SafeConsole
from whisper_ft.reports.text import duration
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import DataError, OutOfMemoryError, UsageError
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.parent import end_with_parent
from whisper_ft.runtime.printable import counted, say
from whisper_ft.runtime.processes import start_processes
from whisper_ft.runtime.redaction import redacted
from whisper_ft.scoring.normalizer import NormalizerFactory
from whisper_ft.scoring.transcript_agreement import disagreement
from whisper_ft.training.checkpoint_model import load_any_for_inference
from whisper_ft.training.run_folder import model_of, public_name

SCHEMA = 1
"""Version of the blocks; a folder of another version is refused."""


def pseudolabel(config: PseudolabelConfig, get_normalizer: NormalizerFactory) -> None:
    """Label a pool, in this process and in those that were started with it.

    Raises UsageError for settings that cannot work, and LockedError if another process fills the folder. Raises
    DataError if the data cannot be read, or no window is kept.
    """
    end_with_parent()
    quiet_libraries()
    keep_freed_memory()
    accelerator = start_processes(config.device)
    collectives = Collectives()
    try:
        collectives.run_on_all(partial(_label, config, accelerator.device, collectives, get_normalizer))
    except OutOfMemoryError as error:
        raise with_decoding_advice(error, config.decoding) from error


def _label(
    config: PseudolabelConfig, device: torch.device, collectives: Collectives, get_normalizer: NormalizerFactory
) -> None:
    assert config.out is not None
    out = config.out
    pool = open_pool(config.data)
    fingerprint = pool.fingerprint()
    folder = collectives.main_only(lambda: LabelFolder(out, config, fingerprint))
    stage = collectives.broadcast_from_main(lambda: folder.stage if folder else "")
    if stage == "transcribing" and config.keep_from is None:
        for line in pool.notes if folder else ():
            say(line, file=sys.stderr)
        _transcribe(config, pool, device, collectives, folder)
    collectives.main_only(lambda: _write(config, pool, folder, get_normalizer) if folder else None)


def _transcribe(
    config: PseudolabelConfig,
    pool: AudioPool,
    device: torch.device,
    collectives: Collectives,
    folder: LabelFolder | None,
) -> None:
    """Transcribe all parts in all turns, as far as they are not logged yet, and write the windows."""
    assert config.out is not None
    out, parts, loaded = config.out, range(len(pool.weights)), _Loaded(config, device, collectives.rank == 0)
    known, lasts = collectives.broadcast_from_main(lambda: _known(logged_blocks(out)))
    turns = turns_of(config)
    for turn in turns:
        todo = [part for part in parts if not is_complete(turn.number, part, lasts, known)]
        if not todo:
            continue
        if folder is not None and len(turns) > 1:
            say(f"transcription {turn.number + 1} of {len(turns)}: {turn}", file=sys.stderr)
        decoder = TurnDecoder(loaded.model(turn), config, turn, has_languages=pool.has_languages)
        if folder is not None and turn.is_main:
            say(*decoder.transcriber.notes, file=sys.stderr)
        collectives.main_only(lambda turn=turn, decoder=decoder: _begin(config, folder, turn, decoder))  # type: ignore[misc]
        mine = share_of([pool.weights[part] for part in todo], collectives.rank, collectives.world)
        with Display(0.0, has_bar=collectives.rank == 0) as display:
            log = BlockLog(out, collectives.rank)
            Labelling(pool, decoder, known, log, display).run([todo[place] for place in mine])
        collectives.gather(None)
    if folder is not None:
        folder.take_windows(joined_windows(logged_blocks(out), len(parts), len(turns)))


class _Loaded:
    """Model of the newest turn. A turn of the same model takes it again."""

    def __init__(self, config: PseudolabelConfig, device: torch.device, is_told: bool) -> None:
        self._config, self._device, self._is_told = config, device, is_told
        self._name: tuple[str, str | None] | None = None
        self._model: InferenceModel | None = None

    def model(self, turn: Turn) -> InferenceModel:
        """Return the model of a turn."""
        if self._model is None or self._name != (turn.model, turn.base):
            self._model = None  # its memory is free before the next one is loaded
            note: Callable[[str], object] = partial(say, file=sys.stderr) if self._is_told else lambda line: None
            name = model_of(turn.model)
            self._model = load_any_for_inference(name, self._config.precision, self._device, note, turn.base)
            self._name = turn.model, turn.base
        return self._model


def _known(blocks: Mapping[BlockKey, LoggedBlock]) -> tuple[set[BlockKey], dict[tuple[int, int], int]]:
    return set(blocks), last_blocks(blocks)


def _begin(config: PseudolabelConfig, folder: LabelFolder | None, turn: Turn, decoder: TurnDecoder) -> None:
    """Record the job of a turn on the main process."""
    assert folder is not None
    job = decoder.job | {"schema": SCHEMA}
    origin = {
        "name": public_name(config.model),
        "sha256": job["model"],
        "revision": decoder.revision,
        "settings": {name: job[name] for name in ("decoding", "language", "task", "precision")},
        "window": job["window"],
    }
    folder.begin_turn(turn.number, job, origin)


def share_of(weights: Sequence[int], rank: int, world: int) -> range:
    """Return the places of the parts of one process: consecutive, and of about equal weight for each process."""
    total = sum(weights) or 1
    ends = [*accumulate(weights, initial=0)]
    owners = [min(world * (begin + end) // (2 * total), world - 1) for begin, end in pairwise(ends)]
    mine = [place for place, owner in enumerate(owners) if owner == rank]
    return range(mine[0], mine[-1] + 1) if mine else range(0)


def joined_windows(blocks: Mapping[BlockKey, LoggedBlock], parts: int, turns: int) -> list[PoolWindow]:
    """Return the windows of all blocks in the order of the pool, each with its disagreement if there are more turns.

    Raises DataError if two turns read another number of windows.
    """
    lasts, windows = last_blocks(blocks), list[PoolWindow]()
    for part in range(parts):
        for block in range(lasts[0, part] + 1):
            found = [blocks.get(BlockKey(turn, part, block)) for turn in range(turns)]
            each = [one.windows for one in found if one is not None]
            if len(each) < turns or len({len(one) for one in each}) > 1:
                raise DataError(f"part {part} of the data has changed between two transcriptions; name another --out")
            for main, *others in zip(*each, strict=True):
                windows.append(_compared(PoolWindow(**main), [str(other["text"]) for other in others]))
    return windows


def _compared(window: PoolWindow, others: Sequence[str]) -> PoolWindow:
    if not others or window.problem is not None:
        return window
    differences = [round(disagreement(window.text, other), 4) for other in others]
    most = max(range(len(others)), key=differences.__getitem__)
    return PoolWindow(**window.to_json() | {"disagreement": differences[most], "other_text": others[most]})


def _write(config: PseudolabelConfig, pool: AudioPool, folder: LabelFolder, get_normalizer: NormalizerFactory) -> None:
    """Write the shards and the page, and say the summary. Raises DataError if no window is kept."""
    if folder.stage == "finished":
        _tell(folder, "nothing to do: ")
        return
    if folder.stage == "transcribing":
        _take_from(config, folder)
    windows, origin = read_windows(folder.out), ModelOrigin(**folder.record["origin"])
    guard = None
    if config.held_out:
        guard = HeldOutGuard([open_source(one) for one in config.held_out], *origin.window)
    records, console = LabelRecords(pool, windows, config, guard, origin), SafeConsole(stderr=True)
    with Progress(console=console, disable=not console.is_terminal) as progress:
        bar = progress.add_task("writing", total=records.total, completed=folder.state.done)
        folder.write(records, config, lambda done: progress.advance(bar, done))
    languages = Counter(window.language for window in windows if window.language)
    normalize = get_normalizer("golden", language=languages.most_common(1)[0][0] if languages else None)
    page = LabelPage(windows, folder.reasons(), config, normalize)
    page.write(
        folder.out, f"Labels of {Path(redacted(config.data.path)).name}", sounds_of(pool, page.samples(), origin.window)
    )
    folder.finish(folder.summary(windows))
    _tell(folder, "")


def _take_from(config: PseudolabelConfig, folder: LabelFolder) -> None:
    """Take the windows of a finished folder. Raises UsageError if it is of other data."""
    assert config.keep_from is not None
    record = read_record(config.keep_from)
    if other := changed(record["source"], folder.record["source"]):
        raise UsageError(f"--keep_from {config.keep_from}: is of other data: {other}")
    folder.record |= {"jobs": record["jobs"], "origin": record["origin"]}
    folder.take_windows(read_windows(config.keep_from))


def _tell(folder: LabelFolder, prefix: str) -> None:
    """Say the summary. Raises DataError if no window is kept."""
    summary: dict[str, Any] = folder.record["summary"]
    reasons = ", ".join(f"{reason} {count:,}" for reason, count in summary["reasons"].items())
    rejected = f"; {summary['rejected']:,} rejected ({reasons}): {folder.out / REJECTED}" if reasons else ""
    if found_languages(folder.record):
        found = ", ".join(f"{language} {count:,}" for language, count in summary["languages"].items())
        say(
            f"languages were detected: {found or 'none'}; --data.language names the one that is spoken", file=sys.stderr
        )
    if not summary["kept"]:
        raise DataError(f"{folder.out}: none of {counted(summary['windows'], 'window')} is kept{rejected}")
    say(
        f"{prefix}{folder.out}: {summary['kept']:,} of {counted(summary['windows'], 'window')} kept, "
        f"{duration(summary['kept_seconds'])} of {duration(summary['seconds'])}{rejected}"
    )
    say(f"{folder.out / PAGE} shows what each limit keeps, with windows to listen to")
