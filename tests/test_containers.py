"""Audio that libsndfile cannot read: containers, bare AAC, and MP3 behind other bytes, decoded by PyAV."""

import io
import os
import subprocess
import sys
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import ROOT, Trainer, digest
from tests.test_audio import encoded, gives_a_finite_waveform_or_a_reason, reason, tone
from whisper_ft.data.audio.decode import decode, decode_beginning
from whisper_ft.data.types import RejectedError

ADTS, EBML = b"\xff\xf1\x4c\x80\x24\xdf\xfc", b"\x1aE\xdf\xa3\x9fB\x86\x81"
MADE_BY: dict[str, tuple[str, str, dict[str, str]]] = {
    "m4a": ("ipod", "aac", {}),
    "mp4": ("mp4", "aac", {}),
    "mp4 in fragments": ("mp4", "aac", {"movflags": "frag_keyframe+empty_moov", "frag_duration": "500000"}),
    "mp4 with opus": ("mp4", "libopus", {}),
    "aac": ("adts", "aac", {}),
    "webm": ("webm", "libopus", {}),
    "live webm": ("webm", "libopus", {"live": "1"}),
    "mkv": ("matroska", "aac", {}),
    "mkv with flac": ("matroska", "flac", {}),
}
"""Format and codec of ffmpeg by kind; `live` is webm as a browser records it, without a length."""
UNSTATED = ("aac", "live webm")
"""Kinds without a length in their headers."""


class Pipe:
    """A file that cannot seek, so that nothing is filled in afterwards."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, part: bytes) -> int:
        self.content += part
        return len(part)


def written(kind: str, samples: np.ndarray, rate: int = 48000, pictures: int = 0) -> bytes:
    """Samples [n, channels] in a container, with so many pictures at 10 a second beside them."""
    form, codec, options = MADE_BY[kind]
    file: Any = Pipe() if options.get("live") else io.BytesIO()
    with av.open(file, "w", format=form, options=options) as container:
        video = container.add_stream("mpeg4", rate=10) if pictures else None
        if video is not None:
            video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        layout = "stereo" if samples.shape[1] == 2 else "mono"
        stream = container.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples.T, np.float32), format="fltp", layout=layout)
        frame.sample_rate, frame.pts = rate, 0
        resampler = av.AudioResampler(format=stream.codec_context.format, layout=layout, rate=rate)
        for part in [*resampler.resample(frame), *resampler.resample(None), None]:
            container.mux(stream.encode(part))
        if video is not None:
            for _ in range(pictures):
                container.mux(video.encode(av.VideoFrame(64, 64, "yuv420p")))
            container.mux(video.encode(None))
    return bytes(file.content) if isinstance(file, Pipe) else file.getvalue()


@cache
def contained(kind: str, seconds: float) -> bytes:
    """A tone of 220 Hz, of 440 Hz in the half second after the first one, with a second channel of silence."""
    samples = tone(seconds, 48000, channels=2)
    samples[48000:72000] = tone(seconds, 48000, channels=2, hertz=440.0)[48000:72000]
    return written(kind, samples)


@pytest.mark.parametrize("kind", MADE_BY)
def test_pyav_decodes_what_libsndfile_cannot(kind: str):
    with pytest.raises(soundfile.LibsndfileError):
        soundfile.info(io.BytesIO(contained(kind, 3.0)))
    waveform = decode(contained(kind, 3.0), 16000, 5.0)
    assert waveform.dtype == np.float32
    assert abs(len(waveform) / 16000 - 3.0) < 0.05
    spectrum = np.abs(np.fft.rfft(waveform))
    assert spectrum.argmax() * 16000 / len(waveform) == pytest.approx(220, abs=1)
    assert np.abs(waveform[4000:-4000]).max() == pytest.approx(0.15, rel=0.2), "the silent channel is averaged in"


@pytest.mark.parametrize("kind", ["m4a", "mp4", "webm", "live webm", "mkv with flac"])
def test_the_first_sample_is_that_of_the_recording(kind: str):
    """The encoder's delay, of 312 to 1,024 samples, is left out."""
    rng = np.random.default_rng(0)
    noise = np.convolve(rng.normal(0, 0.3, 48000), np.ones(8) / 8, "same").astype(np.float32)
    waveform = decode(written(kind, noise[:, None]), 48000, 5.0)
    length = min(len(noise), len(waveform))
    spectrum = np.fft.rfft(noise[:length]) * np.fft.rfft(waveform[:length]).conj()
    assert np.argmax(np.fft.irfft(spectrum, length)) == 0, "samples of shift"


@pytest.mark.parametrize("kind", MADE_BY)
def test_a_segment_has_exactly_the_samples_of_the_whole(kind: str):
    clip = contained(kind, 3.0)
    whole = decode(clip, 48000, 5.0)
    for offset, duration in ((0.0, 0.5), (1.0, 0.5), (0.01, 0.3), (2.5, None)):
        first = round(offset * 48000)
        expected = whole[first:] if duration is None else whole[first : first + round(duration * 48000)]
        np.testing.assert_array_equal(decode(clip, 48000, 5.0, offset, duration), expected)
    for offset, duration in ((2.0, 3.0), (4.0, None), (4.0, 1.0)):
        with pytest.raises(RejectedError, match="segment_outside"):
            decode(clip, 16000, 5.0, offset, duration)


@pytest.mark.long
@pytest.mark.parametrize("kind", MADE_BY)
def test_a_container_over_the_window_is_too_long_and_its_beginning_is_bounded(kind: str):
    long = contained(kind, 20.0)
    assert reason(long) == "too_long"
    waveform, seconds = decode_beginning(long, 16000, 5.0)
    assert len(waveform) == 80000
    assert seconds == pytest.approx(20.0, abs=0.05) or (kind in UNSTATED and 5.0 < seconds < 5.2)
    fits, seconds = decode_beginning(contained(kind, 3.0), 16000, 5.0)
    np.testing.assert_array_equal(fits, decode(contained(kind, 3.0), 16000, 5.0))
    assert seconds == pytest.approx(3.0, abs=0.05)


@pytest.mark.parametrize(("kind", "length"), [("mp4", 3.0), ("mkv", 3.0)])
def test_sound_beside_longer_pictures_is_whole(kind: str, length: float):
    clip = written(kind, tone(length, 48000)[:, None], pictures=80)
    assert abs(len(decode(clip, 16000, 5.0)) / 16000 - length) < 0.05


def test_a_container_that_is_cut_or_short_or_holds_no_sound_has_a_reason():
    webm, m4a = contained("webm", 3.0), contained("m4a", 3.0)
    assert reason(webm[: len(webm) // 2]) == "truncated"
    assert reason(m4a[:5000]) == "decode_error"
    for kind in ("m4a", "live webm"):
        assert reason(written(kind, tone(0.05, 48000)[:, None])) == "too_short"
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        video = container.add_stream("mpeg4", rate=10)
        video.width, video.height, video.pix_fmt = 64, 64, "yuv420p"
        container.mux([*video.encode(av.VideoFrame(64, 64, "yuv420p")), *video.encode(None)])
    assert reason(file.getvalue()) == "decode_error"


@given(st.sampled_from(sorted(MADE_BY)), st.data())
def test_damaged_containers_give_a_finite_waveform_or_a_reason(kind: str, data: st.DataObject):
    clip = bytearray(contained(kind, 0.5))
    for at in data.draw(st.lists(st.one_of(st.integers(8, 300), st.integers(8, len(clip) - 1)), max_size=20)):
        clip[at] = data.draw(st.integers(0, 255))
    damaged = bytes(clip[: data.draw(st.integers(8, len(clip)))])
    gives_a_finite_waveform_or_a_reason(decode, damaged)


MP3 = encoded(tone(3.0, 16000), 16000, "MP3")
JUNK = {
    "zeros": bytes(100),
    "text": b"HTTP/1.1 200 OK\r\nContent-Type: audio/mpeg\r\n\r\n",
    "the end of a frame": encoded(tone(1.0, 16000), 16000, "MP3")[1000:1077],
    "10 kB": np.random.default_rng(0).integers(0, 255, 10_000, np.uint8).tobytes(),
}


@pytest.mark.parametrize("junk", JUNK.values(), ids=JUNK)
def test_mp3_behind_bytes_that_are_no_frame_is_decoded_as_ffmpeg_does(junk: bytes):
    waveform = decode(junk + MP3, 16000, 5.0)
    with av.open(io.BytesIO(junk + MP3), format="mp3") as container:
        frames = []
        for packet in container.demux(audio=0):
            try:
                frames += [frame.to_ndarray()[0] for frame in packet.decode()]
            except av.error.InvalidDataError:  # a false frame in the junk, which ffmpeg leaves out
                continue
    np.testing.assert_array_equal(waveform, np.concatenate(frames))
    assert abs(len(waveform) / 16000 - 3.0) < 0.2
    middle = np.abs(np.fft.rfft(waveform[8000:40000]))
    assert middle.argmax() / 2 == pytest.approx(220, abs=1)


HOLE = MP3[:3000] + bytes(5000) + MP3[3000:]  # libsndfile opens it, and reading raises


def test_mp3_with_a_hole_is_decoded_as_ffmpeg_does():
    waveform = decode(HOLE, 16000, 5.0)
    assert abs(len(waveform) / 16000 - 3.0) < 0.2
    tones = [np.abs(np.fft.rfft(part)).argmax() for part in (waveform[:8000], waveform[-16000:-8000])]
    assert tones == pytest.approx([110, 110], abs=3), "in steps of 2 Hz"


@pytest.mark.parametrize(("at", "offset"), [(3000, 0.5), (8000, 2.0)])
def test_a_segment_behind_the_hole_is_the_one_of_the_whole_file(at: int, offset: float):
    """The read of libsndfile raises in the segment, and PyAV goes on from its offset."""
    noise = np.random.default_rng(1).uniform(-0.3, 0.3, 48_000).astype(np.float32)
    damaged = encoded(noise, 16000, "MP3")
    damaged = damaged[:at] + bytes(5000) + damaged[at:]
    whole, begin = decode(damaged, 16000, 30.0), int(offset * 16000)
    segment = decode(damaged, 16000, 30.0, offset, 0.4)
    assert np.abs(segment - whole[begin : begin + len(segment)]).max() == 0.0
    assert len(segment) == 6400


DECODED = """
import os, sys
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.types import RejectedError
for path in sys.argv[1:]:
    try:
        print(len(decode(open(path, "rb").read(), 16000, 5.0)))
    except RejectedError as error:
        print(error.reason)
print("of Python", file=sys.stderr)
os.write(2, b"of the descriptor")
"""


@pytest.mark.long
def test_a_damaged_mp3_makes_libmpg123_write_nothing_while_others_write(tmp_path: Path):
    damaged = bytearray(MP3)
    damaged[1000:4000:100] = b"x" * 30
    clips = {"hole": HOLE, "damaged": bytes(damaged), "tail": MP3 + b"TAG" * 200}
    paths = [tmp_path / name for name in clips]
    for path in paths:
        path.write_bytes(clips[path.name])
    command = [sys.executable, "-c", DECODED, *map(str, paths)]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert (done.returncode, done.stderr) == (0, "of Python\nof the descriptor")
    assert len(done.stdout.splitlines()) == 3
    heard = "import io, soundfile, sys; soundfile.read(io.BytesIO(open(sys.argv[1], 'rb').read()))"
    loud = subprocess.run([sys.executable, "-c", heard, str(paths[1])], capture_output=True, text=True)
    assert "mpg123" in loud.stderr, "without the silence there is noise"


@pytest.mark.parametrize(
    ("clip", "kind"),
    [
        (b"\0\0\0\x1cftypM4A " + bytes(200), "m4a"),
        (EBML + bytes(200), "webm"),
        (ADTS + bytes(200), "aac"),
        (b"ID3\4\0\0\0\0\1\2" + bytes(130) + ADTS + bytes(200), "aac"),
        (bytes(100) + MP3, "mp3"),
    ],
)
def test_a_file_that_needs_pyav_says_so_where_it_is_not_installed(
    clip: bytes, kind: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "av", None)  # the import then raises ImportError
    with pytest.raises(RejectedError) as unusable:
        decode(clip, 16000, 5.0)
    assert unusable.value.reason == "needs_pyav"
    assert all(text in unusable.value.detail for text in (kind, "pip install av", "ffmpeg -i"))


@pytest.mark.parametrize("clip", [b"#EXTM3U\nhttp://127.0.0.1/a.wav\n", b"ffconcat version 1.0\nfile /etc/passwd\n"])
def test_a_playlist_is_no_audio_whoever_could_follow_it(clip: bytes):
    assert reason(clip) == "decode_error"
    assert reason(bytes(8) + clip) == "decode_error"


@pytest.mark.matrix
def test_forked_workers_train_on_containers_as_the_process_itself_does(train: Trainer, corpus: Path, tmp_path: Path):
    rows = pq.read_table(corpus / "train").slice(0, 24).to_pylist()
    for number, row in enumerate(rows):
        samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), always_2d=True)
        kind = ("m4a", "aac", "mkv")[number % 3]
        row["audio"] = {"bytes": written(kind, samples, rate), "path": f"{number}.{kind}"}
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "data.parquet", row_group_size=8)
    settings = {"data__path": tmp_path / "data.parquet", "steps": 2, "eval__every": 0, "save__every": 2}
    runs = [train(f"run-{workers}", **settings, data__workers=workers) for workers in (0, 2)]
    assert digest(runs[0]) == digest(runs[1])
    assert not any((run / "quarantine.jsonl").exists() for run in runs)
