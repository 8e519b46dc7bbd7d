"""Audio clips inside a page, up to a limit of its size."""

import base64
from collections.abc import Callable

CLIP_BYTES = 1_000_000  # bytes of one clip: 30 s of 16 kHz wav are just below
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

        None if there is no clip or no room, if it is larger than CLIP_BYTES, or if browsers do not play its format.
        """
        if self._audio is None:
            return None
        clip = None if self._is_full else self._audio(utterance)
        if clip is None:
            self.left_out += self._is_full
            return None
        kind = media_type(clip)
        if kind is None or len(clip) > min(CLIP_BYTES, self._room):
            self._is_full = self._room < len(clip) <= CLIP_BYTES
            self.left_out += 1
            return None
        self._room -= len(clip)
        self.included += 1
        return f"data:{kind};base64,{base64.b64encode(clip).decode()}"


def media_type(clip: bytes) -> str | None:
    """Return the media type of an encoded file, from its first bytes; None for a format that browsers do not play."""
    if clip[:4] == b"RIFF" and clip[8:12] == b"WAVE":
        return "audio/wav"
    if clip[:4] in (b"fLaC", b"OggS"):
        return "audio/flac" if clip[:4] == b"fLaC" else "audio/ogg"
    if clip[:3] == b"ID3" or (len(clip) > 1 and clip[0] == 0xFF and clip[1] & 0xE6 == 0xE2):  # MPEG, layer 3
        return "audio/mpeg"
    return "audio/mp4" if clip[4:8] == b"ftyp" else None
