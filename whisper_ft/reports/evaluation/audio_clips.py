"""Audio clips inside a page, up to a limit of its size."""

import base64
import io
from collections.abc import Callable

import numpy as np
import soundfile

CLIP_BYTES = 1_000_000  # bytes of one clip: 60 s of 16 kHz flac are below
FILE_BYTES = 12_000_000  # bytes of a file that is encoded anew: 30 s of two channels at 96 kHz and 16 bit are below
PAGE_BYTES = 12_000_000  # bytes of all clips: as base64 they are 16 MB, which a phone still opens

Audio = Callable[[str], bytes | None]  # id of an utterance -> its encoded file, or None without one


class AudioClips:
    """Audio clips of one page, in the order of the requests. When a clip finds no room, no further ones are read.

    `included` and `left_out` count clips, the latter those without room, too large or of an unplayable format.
    """

    def __init__(self, audio: Audio | None) -> None:
        self._audio = audio
        self._room, self._is_full = PAGE_BYTES, False
        self.included, self.left_out = 0, 0

    def address(self, utterance: str) -> str | None:
        """Return the clip of an utterance as a `data:` address.

        A clip without compression is encoded as FLAC, which halves it. None if there is no clip or no room, if it is
        larger than CLIP_BYTES, or if browsers do not play its format.
        """
        if self._audio is None:
            return None
        clip = None if self._is_full else self._audio(utterance)
        if clip is None:
            self.left_out += self._is_full
            return None
        clip = smaller(clip)
        kind = media_type(clip)
        if kind is None or len(clip) > min(CLIP_BYTES, self._room):
            self._is_full = self._room < len(clip) <= CLIP_BYTES
            self.left_out += 1
            return None
        self._room -= len(clip)
        self.included += 1
        return f"data:{kind};base64,{base64.b64encode(clip).decode()}"


def smaller(clip: bytes) -> bytes:
    """Return a file without compression as FLAC with one channel, at its own rate; any other file as it is.

    So is one that cannot be read, or would lose more than 16 bits keep, such as float samples above 1.
    """
    if media_type(clip) not in ("audio/wav", None) or len(clip) > FILE_BYTES:
        return clip
    try:
        samples, rate = soundfile.read(io.BytesIO(clip), dtype="float32", always_2d=True)
        mono = samples.mean(axis=1)
        if not len(mono) or not np.abs(mono).max() <= 1:
            return clip
        written = io.BytesIO()
        soundfile.write(written, mono, rate, format="FLAC", subtype="PCM_16")
    except (soundfile.LibsndfileError, ValueError):
        return clip
    return min(written.getvalue(), clip, key=len) if media_type(clip) else written.getvalue()


def media_type(clip: bytes) -> str | None:
    """Return the media type of an encoded file, from its first bytes; None for a format that browsers do not play."""
    if clip[:4] == b"RIFF" and clip[8:12] == b"WAVE":
        return "audio/wav"
    if clip[:4] in (b"fLaC", b"OggS"):
        return "audio/flac" if clip[:4] == b"fLaC" else "audio/ogg"
    if clip[:3] == b"ID3" or (len(clip) > 1 and clip[0] == 0xFF and clip[1] & 0xE6 == 0xE2):  # MPEG, layer 3
        return "audio/mpeg"
    return "audio/mp4" if clip[4:8] == b"ftyp" else None
