"""Labelling of a pool: blocks of windows are read, decoded and logged, one after the other."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from whisper_ft.cli.pseudolabel.audio_pool import AudioPool, PieceReader, PoolItem
from whisper_ft.cli.pseudolabel.block_log import BlockKey, BlockLog, LoggedBlock
from whisper_ft.cli.pseudolabel.pool_window import DECIMALS, PoolWindow, window_id
from whisper_ft.cli.pseudolabel.turn import TurnDecoder
from whisper_ft.cli.transcribe.display import Display
from whisper_ft.data.labels.transcript import is_blank, text_problem
from whisper_ft.data.types import Row
from whisper_ft.decoding.confidence import rounded
from whisper_ft.decoding.long_form import AudioWindow
from whisper_ft.decoding.transcribe import batches_of
from whisper_ft.decoding.window_transcript import WindowTranscript
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import DecodingMemoryError
from whisper_ft.runtime.prefetch import prefetch
from whisper_ft.scoring.unicode_text import encodable

BLOCK_WINDOWS = 32
"""Windows of a block. A kill loses a block at most. A window's log-mel takes 1 MB, or 1.5 MB with 128 mel bins."""
BLOCKS_AHEAD = 2
"""Blocks that are read ahead."""


class ReadWindow(NamedTuple):
    """Window that was read."""

    window: PoolWindow
    audio: AudioWindow | None
    """None if the audio cannot be read, or if the block is known already."""
    row: Row


class ReadBlock(NamedTuple):
    """Consecutive windows of a part."""

    key: BlockKey
    is_last: bool
    windows: Sequence[ReadWindow]


@dataclass(frozen=True)
class Labelling:
    """Work of one process in one turn."""

    pool: AudioPool
    decoder: TurnDecoder
    known: Collection[BlockKey]
    log: BlockLog
    display: Display

    def run(self, parts: Sequence[int]) -> None:
        """Transcribe the blocks of some parts that are not known yet. Raises DiskError and OutOfMemoryError."""
        told = memory_errors("while transcribing", DecodingMemoryError)
        with told, self.decoder.transcriber.inference(), closing(prefetch(self._read(parts), BLOCKS_AHEAD)) as blocks:
            for block in blocks:
                if block.key not in self.known:
                    self.log.append(block.key, LoggedBlock(block.is_last, self._transcribe(block)))

    def _read(self, parts: Sequence[int]) -> Iterator[ReadBlock]:
        """Yield the blocks of some parts. It runs in a thread, which is ahead of the decoding."""
        for part in parts:
            held: list[ReadWindow] = []
            number = 0
            for window in self._windows(part):
                if len(held) == BLOCK_WINDOWS:
                    yield ReadBlock(BlockKey(self.decoder.turn.number, part, number), False, held)
                    held, number = [], number + 1
                held.append(window)
            yield ReadBlock(BlockKey(self.decoder.turn.number, part, number), True, held)

    def _windows(self, part: int) -> Iterator[ReadWindow]:
        """Yield the windows of a part, with log-mels in the blocks that are not known."""
        count = 0
        for place, item in enumerate(self.pool.items(part)):
            for window, waveform in self._windows_of(item, PoolWindow(part, place, 0, item.row.id, "", 0.0, 0.0)):
                audio, row = None, replace(item.row, audio=b"")
                key = BlockKey(self.decoder.turn.number, part, count // BLOCK_WINDOWS)
                if waveform is not None and key not in self.known:
                    index, seconds = count % BLOCK_WINDOWS, window.seconds
                    features = self.decoder.log_mel(waveform)
                    audio = AudioWindow(
                        index, row, features, seconds, None, window.number, 1, window.begin, window.seconds
                    )
                count += 1
                yield ReadWindow(window, audio, row)

    def _windows_of(self, item: PoolItem, begun: PoolWindow) -> Iterator[tuple[PoolWindow, Any]]:
        """Yield the windows of an item with their samples, and at the end one with the problem of its audio."""
        row, log_mel = item.row, self.decoder.log_mel
        speaker = encodable(row.speaker) if isinstance(row.speaker, str) else None
        begun = replace(begun, source=row.id, speaker=speaker, task=self.decoder.task_of(row))
        if problem := self.decoder.label_problem(row):
            yield replace(begun, problem=problem[0], detail=problem[1]), None
            return
        reader = PieceReader(item)
        number = 0
        for piece in reader.pieces(log_mel.window_samples, log_mel.sample_rate):
            begin, seconds = row.offset + piece.begin, len(piece.waveform) / log_mel.sample_rate
            number = piece.number + 1
            yield (
                replace(
                    begun,
                    number=piece.number,
                    id=window_id(row.id, begin, is_whole=piece.is_whole),
                    begin=round(begin, DECIMALS),
                    seconds=round(seconds, DECIMALS),
                    is_whole=piece.is_whole,
                    reference=_reference(row) if piece.is_whole else None,
                ),
                piece.waveform,
            )
        if reader.problem is not None:
            begin = row.offset + reader.seconds
            name = window_id(row.id, begin, is_whole=number == 0)
            reason, detail = reader.problem
            begin = round(begin, DECIMALS)
            yield replace(begun, number=number, id=name, begin=begin, problem=reason, detail=detail), None

    def _transcribe(self, block: ReadBlock) -> list[dict[str, Any]]:
        """Transcribe the windows of a block, and return them as JSON values: of another turn than the main one, texts.

        The batches depend on nothing but the block, so its figures are the same to the last bit after any stop.
        """
        decoder = self.decoder
        todo = [read.audio for read in block.windows if read.audio is not None]
        found: dict[int, WindowTranscript] = {}
        for batch in batches_of(todo, decoder.batch_size, decoder.transcriber.prompt):
            transcripts = decoder.transcriber.generate(batch, decoder.transcriber.prompt(batch[0]))
            for window, transcript in zip(batch, transcripts, strict=True):
                found[window.index] = transcript
                self.display.advance(window.window_seconds, window.row.id)
        windows = [self._labelled(read, found.get(index)) for index, read in enumerate(block.windows)]
        return [window.to_json() if decoder.turn.is_main else {"text": window.text} for window in windows]

    def _labelled(self, read: ReadWindow, transcript: WindowTranscript | None) -> PoolWindow:
        """Return a window with its text and figures."""
        if transcript is None:
            return read.window
        confidence = transcript.confidence
        phrases = [
            [round(phrase.start, DECIMALS), round(min(end, read.window.seconds), DECIMALS), phrase.text]
            for phrase in transcript.phrases
            if (end := read.window.seconds if phrase.end is None else phrase.end) > phrase.start
        ]
        return replace(
            read.window,
            text=transcript.text,
            language=self.decoder.language_of(read.row, transcript.language),
            detected_language=transcript.language,
            avg_logprob=rounded(confidence.avg_logprob),
            no_speech_prob=rounded(confidence.no_speech_prob),
            compression_ratio=rounded(confidence.compression_ratio),
            temperature=confidence.temperature,
            hit_token_limit=transcript.hit_limit,
            segments=phrases or None,
        )


def _reference(row: Row) -> str | None:
    """Return the text of a row if it has one that a reference can be."""
    return None if text_problem(row.text) or is_blank(row.text) else row.text
