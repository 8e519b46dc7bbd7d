"""Guard of held-out sets: windows with their audio or their sentences are not learned."""

from collections import defaultdict
from collections.abc import Iterator, Sequence

from whisper_ft.cli.pseudolabel.rejection import HELD_OUT_AUDIO, HELD_OUT_TEXT, Reason
from whisper_ft.data.audio.containers import Waveform
from whisper_ft.data.audio.decode import decode_beginning
from whisper_ft.data.audio.sound_print import SoundIndex, SoundPrint, sound_print
from whisper_ft.data.leakage import Kind, keys_of
from whisper_ft.data.types import RejectedError, Row, Source
from whisper_ft.decoding.long_form import MAX_RECORDING_SECONDS, split_at_silence
from whisper_ft.scoring.transcript_agreement import letters_of

LEAST_LETTERS = 16
"""Letters and digits of the shortest text that is searched within others: shorter ones, such as greetings, occur in any
speech. A shorter sentence must be equal."""
AUDIO_KINDS: tuple[Kind, ...] = ("audio", "pcm")


class HeldOutGuard:
    """Index of held-out sets, with which each window is compared.

    Parameters
        sets: held-out sets; all rows are read when the object is created
        window_samples: samples of a window, because a long recording is compared window by window
    """

    def __init__(self, sets: Sequence[Source], window_samples: int, sample_rate: int) -> None:
        self._sounds: dict[bytes, str] = {}
        self._sample_rate, prints, names = sample_rate, list[SoundPrint](), list[str]()
        self._sentences: dict[str, str] = {}
        self._starts: dict[str, list[str]] = defaultdict(list)  # sentences by their first letters
        for row in (row for one in sets for chunk in range(len(one.rows)) for row in one.read(chunk)):
            pieces = _pieces(row, window_samples, sample_rate)
            for key in _keys(row, pieces):
                self._sounds.setdefault(key, row.id)
            prints += [sound_print(piece, sample_rate) for piece in pieces]
            names += [row.id] * len(pieces)
            letters = letters_of(row.text) if isinstance(row.text, str) else ""
            if letters and letters not in self._sentences:
                self._sentences[letters] = row.id
                if len(letters) >= LEAST_LETTERS:
                    self._starts[letters[:LEAST_LETTERS]].append(letters)
        self._all, self._prints = "\n".join(self._sentences), SoundIndex(prints, names)

    def sound_of(self, audio: bytes, waveform: Waveform) -> Reason | None:
        """Return the reason to leave a window out by its sound; None if no set has it, and none has 2 s of it.

        Parameters
            audio: encoded audio of the window, b"" if it is a part of a recording
            waveform: samples of the window
        """
        keys = keys_of(Row("", audio, ""), waveform)
        found = next((self._sounds[key] for key in keys.values() if key in self._sounds), None)
        if found is not None:
            return Reason(HELD_OUT_AUDIO, f"the audio of {found}")
        shared = self._prints.find(sound_print(waveform, self._sample_rate))
        return None if shared is None else Reason(HELD_OUT_AUDIO, f"shares a stretch of audio with {shared}")

    def sentence_of(self, text: str) -> Reason | None:
        """Return the reason to leave a window out by its text; None if no set has it.

        A held-out sentence within a longer text counts, and so does a text within a longer held-out sentence.
        """
        letters = letters_of(text)
        found = self._sentences.get(letters) or self._within(letters)
        return None if found is None else Reason(HELD_OUT_TEXT, f"the sentence of {found}")

    def _within(self, letters: str) -> str | None:
        for begin in range(len(letters) - LEAST_LETTERS + 1):
            for sentence in self._starts.get(letters[begin : begin + LEAST_LETTERS], ()):
                if letters.startswith(sentence, begin):
                    return self._sentences[sentence]
        if len(letters) >= LEAST_LETTERS and (place := self._all.find(letters)) >= 0:
            begin = self._all.rfind("\n", 0, place) + 1
            return self._sentences[self._all[begin:].partition("\n")[0]]
        return None


def _pieces(row: Row, window_samples: int, sample_rate: int) -> list[Waveform]:
    """Return the windows of a row; none if its audio cannot be read."""
    if row.problem or not row.audio:
        return []
    try:
        waveform, _ = decode_beginning(row.audio, sample_rate, MAX_RECORDING_SECONDS, row.offset, row.duration)
    except RejectedError:  # it is not heard in an evaluation, either
        return []
    return split_at_silence(waveform, window_samples, sample_rate)


def _keys(row: Row, pieces: Sequence[Waveform]) -> Iterator[bytes]:
    """Yield the keys of a row's bytes, and of the samples of its windows."""
    each = [keys_of(row), *(keys_of(Row("", b"", ""), piece) for piece in pieces)]
    yield from (keys[kind] for keys in each for kind in AUDIO_KINDS if kind in keys)
