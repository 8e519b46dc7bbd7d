"""Rows to windows: slots divided over ranks and workers, unusable rows as empty slots, evaluation sets whole."""

import io
import multiprocessing
import os
import signal
import traceback
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from transformers import WhisperProcessor

from collator import SpeechCollator
from tests.conftest import run_script
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.loader import StepBatches, TrainStream
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.order import Order, Place
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_source
from whisper_ft.data.types import Batch, Rejected, Row, Window
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.decoding.long_form import audio_windows
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.errors import DataError, LostWorkerError, UsageError

START, END = 1000, 1001  # any two numbers: nothing is predicted here


@pytest.fixture(scope="session")
def parts(micro_whisper: Path) -> tuple[Any, WhisperProcessor]:
    return load_whisper(str(micro_whisper))


@pytest.fixture(scope="session")
def encode(parts: tuple[Any, WhisperProcessor]) -> LabelEncoder:
    model, processor = parts
    return LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")


@pytest.fixture(scope="session")
def log_mel(parts: tuple[Any, WhisperProcessor]) -> LogMel:
    return LogMel(parts[1].feature_extractor)


class Rows:
    """A source in memory."""

    def __init__(self, rows: list[Row], chunk: int = 4) -> None:
        self._chunks = [rows[i : i + chunk] for i in range(0, len(rows), chunk)]
        self.rows = [len(chunk) for chunk in self._chunks]
        self.reads: list[int] = []

    def read(self, chunk: int) -> list[Row]:
        self.reads.append(chunk)
        return self._chunks[chunk]

    def row_id(self, chunk: int, row: int) -> str:
        return self._chunks[chunk][row].id

    def fingerprint(self) -> dict[str, Any]:
        return {}


def clip(seconds: float, loudness: float = 0.1) -> bytes:
    file = io.BytesIO()
    samples = loudness * np.sin(np.arange(int(seconds * 16000)) / 20)
    soundfile.write(file, samples, 16000, format="FLAC")
    return file.getvalue()


def spoken(number: int, **fields: Any) -> Row:
    return Row(**{"id": f"row-{number}", "audio": clip(1.0), "text": f"слова {number}"} | fields)


def stream(
    source: Any, encode: LabelEncoder, log_mel: LogMel, share: Partition, first_step: int = 0, workers: int = 0
) -> Any:
    order = Order(source.rows, seed=7, lanes=16, window=2)
    reader = WindowReader(source, log_mel, encode, cached_chunks=64)
    plan = BatchPlan(order, share, max(workers, 1))
    return TrainStream(reader, plan, KeepingCollator(log_mel), first_step=first_step, workers=workers)


class KeepingCollator(SpeechCollator):
    """The collator, with the windows of the batches that it made."""

    def __init__(self, log_mel: LogMel, start: int = START) -> None:
        super().__init__(start, END, (log_mel.bins, log_mel.frames))
        self.windows: list[Window] = []

    def __call__(self, windows: Sequence[Window]) -> Batch:
        self.windows += windows
        return super().__call__(windows)


def ids(step: StepBatches) -> list[str]:
    return [utterance for batch in step.micro_batches for utterance in batch.utterances]


@pytest.mark.parametrize(("world", "per_device"), [(1, 3), (2, 8), (3, 2), (4, 1)])
def test_ranks_together_draw_the_batch_that_one_process_draws(
    encode: LabelEncoder, log_mel: LogMel, world: int, per_device: int
):
    source = Rows([spoken(i) for i in range(20)])
    alone = stream(source, encode, log_mel, Partition(8, 8, 0, 1, 16))
    ranks = [stream(source, encode, log_mel, Partition(8, per_device, rank, world, 16)) for rank in range(world)]
    for _ in range(4):
        together = [ids(rank.draw()) for rank in ranks]
        whole = ids(alone.draw())
        assert [whole[rank::world] for rank in range(world)] == together


@pytest.mark.parametrize("first_step", [1, 5, 1000, 10**6])
def test_a_stream_that_starts_later_goes_on_as_if_it_had_started_at_zero(
    encode: LabelEncoder, log_mel: LogMel, first_step: int
):
    source = Rows([spoken(i) for i in range(20)])
    order = Order(source.rows, seed=7, lanes=16, window=2)
    drawn = ids(stream(source, encode, log_mel, Partition(8, 8, 0, 1, 16), first_step).draw())
    places = [order.locate(first_step * 8 + slot) for slot in range(8)]
    assert drawn == [source.row_id(place.chunk, place.row) for place in places]


def test_workers_hand_over_the_same_windows_in_the_same_slots(corpus: Path, encode: LabelEncoder, log_mel: LogMel):
    source = open_source(SourceConfig(path=str(corpus / "train")))
    share = Partition(7, 3, 0, 1, 16)
    inline = stream(source, encode, log_mel, share, first_step=2)
    in_workers = stream(source, encode, log_mel, share, first_step=2, workers=2)
    for _ in range(3):
        expected, drawn = inline.draw(), in_workers.draw()
        assert ids(drawn) == ids(expected)
    read = 3 * share.batch_size
    windows = zip(inline._collate.windows[:read], in_workers._collate.windows[:read], strict=True)
    for a, b in windows:
        assert torch.equal(a.features, b.features)
        assert b.features.shape[1] < b.audio_samples / 160 + 4, "no more frames than have sound, or one of silence"
        assert a.tokens == b.tokens


@pytest.mark.long
@pytest.mark.parametrize(
    ("number", "told"),
    [
        (signal.SIGKILL, "ended by SIGKILL: did memory run out?"),
        (signal.SIGBUS, r"ended by SIGBUS: shared memory \(/dev/shm\) is full"),
    ],
)
def test_a_worker_that_is_killed_is_told_with_what_to_do(
    corpus: Path, encode: LabelEncoder, log_mel: LogMel, number: int, told: str
):
    source, before = open_source(SourceConfig(path=str(corpus / "train"))), multiprocessing.active_children()
    with closing(stream(source, encode, log_mel, Partition(4, 4, 0, 1, 16), workers=2)) as windows:
        windows.draw()
        workers = [process for process in multiprocessing.active_children() if process not in before]
        assert len(workers) == 2
        os.kill(workers[0].pid or 0, number)
        with pytest.raises(LostWorkerError, match=told):
            for _ in range(100):
                windows.draw()
    workers[1].join(10)
    assert not workers[1].is_alive(), "the other one ends with the stream"


UNCLOSED = """
import tempfile
finalized_first = tempfile.TemporaryDirectory()  # as in any program; what is ended at exit has an order
import sys
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.loader import TrainStream
from collator import SpeechCollator
from whisper_ft.data.sampling.batch_plan import BatchPlan
from whisper_ft.data.sampling.order import Order, Place
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_source
from whisper_ft.data.window_reader import WindowReader
from whisper_ft.models.whisper import load_whisper

model, processor = load_whisper(sys.argv[1])
encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
source = open_source(SourceConfig(path=sys.argv[2]))
reader = WindowReader(source, LogMel(processor.feature_extractor), encode, cached_chunks=4)
order = Order(source.rows, seed=7, lanes=16, window=2)
plan = BatchPlan(order, Partition(4, 4, 0, 1, 16), 2)
collate = SpeechCollator(encode.start, processor.tokenizer.pad_token_id, (80, 500))
stream = TrainStream(reader, plan, collate, first_step=0, workers=2)
print(stream.draw().counts.utterances)
"""


@pytest.mark.long
def test_a_stream_that_nobody_closes_keeps_no_program_from_ending(corpus: Path, micro_whisper: Path):
    """Its workers ignore the signal that Python ends them with."""
    ended = run_script(UNCLOSED, str(micro_whisper), str(corpus / "train"))
    assert (ended.code, ended.out) == (0, "4\n"), ended.err


@pytest.fixture
def damaged(tmp_path: Path) -> Path:
    """8 row groups of 4 utterances, of which the sixth cannot be read."""
    path = tmp_path / "damaged.parquet"
    table = pa.table({"audio": [{"bytes": clip(1.0)} for _ in range(32)], "sentence": ["так"] * 32})
    pq.write_table(table, path, row_group_size=4)
    content = bytearray(path.read_bytes())
    column = pq.read_metadata(path).row_group(5).column(0)
    at = column.dictionary_page_offset or column.data_page_offset
    content[at : at + 16] = b"\xff" * 16
    path.write_bytes(content)
    return path


def failure(drawn: TrainStream) -> Exception:
    """The error of a stream that cannot be drawn to the end of its first epoch."""
    with closing(drawn), pytest.raises(Exception) as error:
        for _ in range(4):
            drawn.draw()
    return error.value


@pytest.mark.parametrize("workers", [0, 2])
def test_a_row_group_that_cannot_be_read_is_one_line_and_a_data_error(
    damaged: Path, encode: LabelEncoder, log_mel: LogMel, workers: int
):
    source = open_source(SourceConfig(path=str(damaged)))
    error = failure(stream(source, encode, log_mel, Partition(8, 8, 0, 1, 16), workers=workers))
    assert type(error) is DataError
    assert str(error).startswith(f"{damaged}: row group 5 cannot be read: ")
    assert str(error).isprintable()


@pytest.mark.long
def test_any_other_error_of_a_worker_keeps_type_and_message_and_shows_where_it_was(
    encode: LabelEncoder, log_mel: LogMel
):
    source = Rows([spoken(i) for i in range(8)])
    source.rows = [4, 5]  # one more than there are: a bug, and no fault of the data
    inline, of_worker = (
        failure(stream(source, encode, log_mel, Partition(8, 8, 0, 1, 16), workers=workers)) for workers in (0, 2)
    )
    assert type(of_worker) is type(inline) is IndexError
    assert str(of_worker) == str(inline)
    shown = "".join(traceback.format_exception(of_worker))
    assert "In data worker" in shown
    assert "window_reader.py" in shown


@pytest.mark.parametrize(
    ("audio", "text", "reason"),
    [
        (None, "так", "decode_error"),
        ({"bytes": None, "path": None}, "так", "decode_error"),
        ({"bytes": None, "path": "clips/1.mp3"}, "так", "decode_error"),
        ({"bytes": b"", "path": "clips/1.mp3"}, "так", "decode_error"),
        ({"bytes": clip(1.0), "path": None}, None, "empty_label"),
        (None, None, "empty_label"),
    ],
)
def test_a_row_with_nothing_in_it_is_unusable_and_heard_as_silence(
    tmp_path: Path, encode: LabelEncoder, log_mel: LogMel, audio: Any, text: str | None, reason: str
):
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"audio": pa.array([audio], kind), "sentence": pa.array([text], pa.string())})
    pq.write_table(table, tmp_path / "a.parquet")
    source = open_source(SourceConfig(path=str(tmp_path)))
    (window,) = WindowReader(source, log_mel, encode, cached_chunks=1).windows([Place(0, 0, 0)])
    assert isinstance(window, Rejected)
    assert (window.id, window.reason) == ("a.parquet#0", reason)
    (utterance,) = audio_windows(source, log_mel, 0, 1)
    assert utterance.features.isfinite().all()
    assert (utterance.problem is None) == (audio is not None and audio["bytes"] == clip(1.0))


def test_an_unusable_row_leaves_its_slot_empty_and_moves_no_other(encode: LabelEncoder, log_mel: LogMel):
    good = [spoken(i) for i in range(16)]
    bad = [*good]
    bad[3] = spoken(3, audio=b"not audio")
    bad[9] = spoken(9, text="  ")
    share = Partition(16, 4, 0, 1, 16)
    whole, holed = stream(Rows(good), encode, log_mel, share).draw(), stream(Rows(bad), encode, log_mel, share).draw()
    assert {(row.id, row.reason) for row in holed.rejected} == {("row-3", "decode_error"), ("row-9", "empty_label")}
    assert ids(holed) == [name for name in ids(whole) if name not in ("row-3", "row-9")]
    assert holed.counts.utterances == 14
    assert holed.counts.unusable == 2
    assert [len(batch.utterances) for batch in whole.micro_batches] == [4, 4, 4, 4]


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"audio": b""}, "decode_error"),
        ({"audio": bytes(range(256)) * 8}, "decode_error"),
        ({"audio": clip(1.0)[:-50]}, "decode_error"),
        ({"audio": clip(1.0).replace(b"fLaC", b"OggS")}, "decode_error"),
        ({"audio": b"ID3" + clip(1.0)}, "decode_error"),
        ({"audio": clip(6.0)}, "too_long"),
        ({"audio": clip(0.05)}, "too_short"),
        ({"audio": clip(1.0, loudness=0.0)}, "silent"),
        ({"text": ""}, "empty_label"),
        ({"text": "вельмі " * 80}, "label_too_long"),
    ],
)
def test_each_unusable_row_has_a_reason(encode: LabelEncoder, log_mel: LogMel, fields: dict[str, Any], reason: str):
    reader = WindowReader(Rows([spoken(0, **fields)]), log_mel, encode, cached_chunks=1)
    (window,) = reader.windows([Place(0, 0, 0)])
    assert isinstance(window, Rejected)
    assert window.reason == reason


def test_a_chunk_is_read_once_while_its_lane_is_in_it(encode: LabelEncoder, log_mel: LogMel):
    source = Rows([spoken(i) for i in range(32)])
    one_epoch = stream(source, encode, log_mel, Partition(8, 8, 0, 1, 16))
    for _ in range(4):
        one_epoch.draw()
    assert sorted(source.reads) == list(range(8))


def test_a_cache_keeps_to_its_bytes_and_gives_the_same_rows(encode: LabelEncoder, log_mel: LogMel):
    source = Rows([Row(f"{i}", bytes(1000 + i), "") for i in range(40)], chunk=4)
    cache = WindowReader(source, log_mel, encode, cached_chunks=8, cached_bytes=13_000)
    asked = [(chunk, row) for row in range(4) for chunk in range(10)]
    for chunk, row in asked:
        assert cache.row(chunk, row).id == f"{4 * chunk + row}"
        assert sum(len(one.audio) for rows in cache._chunks.values() for one in rows) <= 13_000
    assert len(source.reads) > 10, "chunks that had to go were read again"


def test_labels_carry_the_prompt_of_the_rows_own_language_and_task(parts: Any, encode: LabelEncoder):
    tokenizer = parts[1].tokenizer

    def prompt(tokens: list[int]) -> list[str]:
        return tokenizer.convert_ids_to_tokens(tokens)[:4]

    assert prompt(encode("а")) == ["<|startoftranscript|>", "<|be|>", "<|transcribe|>", "<|notimestamps|>"]
    assert prompt(encode("a", "sv", "translate")) == [
        "<|startoftranscript|>",
        "<|sv|>",
        "<|translate|>",
        "<|notimestamps|>",
    ]
    assert tokenizer.decode(encode("Раз’яднаць, сям'я!"), skip_special_tokens=True) == " Раз’яднаць, сям'я!"
    assert encode("а")[-1] == tokenizer.eos_token_id
    assert encode("а").count(tokenizer.eos_token_id) == 1


@pytest.mark.parametrize(
    ("given", "code"),
    [("be", "be"), ("Belarusian", "be"), ("be-BY", "be"), ("sv_SE", "sv"), ("zh-CN", "zh"), ("Mandarin", "zh")],
)
def test_a_language_may_be_a_code_a_locale_or_a_name(given: str, code: str):
    assert whisper_language(given) == code


@pytest.mark.parametrize("given", ["xx", "", "klingon"])
def test_an_unknown_language_is_refused(given: str):
    with pytest.raises(UsageError, match="not one of Whisper's"):
        whisper_language(given)


def test_windows_of_a_real_corpus_fit_the_model(corpus: Path, parts: Any, encode: LabelEncoder, log_mel: LogMel):
    model, _ = parts
    source = open_source(SourceConfig(path=str(corpus / "train")))
    reader = WindowReader(source, log_mel, encode, cached_chunks=8)
    windows = reader.windows([Place(0, chunk, row) for chunk, rows in enumerate(source.rows) for row in range(rows)])
    assert len(windows) == 100
    for window in windows:
        assert isinstance(window, Window), window
        frames = 2 * model.config.max_source_positions
        assert pad_windows([window.features], frames).shape == (1, model.config.num_mel_bins, frames)
        assert len(window.tokens) - 1 <= model.config.max_target_positions
