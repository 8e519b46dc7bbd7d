"""The audio of utterances inside of the page, as far as its size allows."""

import base64
from collections.abc import Callable

CLIP_BYTES = 1_000_000  # 30 s of 16 kHz wav are just below
PAGE_BYTES = 12_000_000  # of all clips; base64 makes 16 MB of them, which a phone still opens

Audio = Callable[[str], bytes | None]  # id of an utterance -> an encoded file, or None where there is none


class Sound:
    """The clips of one page: those asked for first are in it, until one finds no room. No more are read then."""

    def __init__(self, audio: Audio | None) -> None:
        self._audio = audio
        self._room, self._is_full = PAGE_BYTES, False
        self.played, self.left_out = 0, 0

    def player(self, utterance: str) -> str:
        """A player for an utterance, or nothing if there is no room for it, or no browser plays its format."""
        if self._audio is None:
            return ""
        clip = None if self._is_full else self._audio(utterance)
        if clip is None:
            self.left_out += self._is_full
            return ""
        kind = kind_of(clip)
        if kind is None or len(clip) > min(CLIP_BYTES, self._room):
            self._is_full = self._room < len(clip) <= CLIP_BYTES
            self.left_out += 1
            return ""
        self._room -= len(clip)
        self.played += 1
        source = f"data:{kind};base64,{base64.b64encode(clip).decode()}"
        return f'<audio controls="" preload="none" src="{source}"></audio>'


def kind_of(clip: bytes) -> str | None:
    """The media type of an encoded file by its first bytes; None for what browsers do not play."""
    if clip[:4] == b"RIFF" and clip[8:12] == b"WAVE":
        return "audio/wav"
    if clip[:4] in (b"fLaC", b"OggS"):
        return "audio/flac" if clip[:4] == b"fLaC" else "audio/ogg"
    if clip[:3] == b"ID3" or (len(clip) > 1 and clip[0] == 0xFF and clip[1] & 0xE6 == 0xE2):  # MPEG, layer 3
        return "audio/mpeg"
    return "audio/mp4" if clip[4:8] == b"ftyp" else None
