"""Speech from text with espeak-ng, repeatable to the last sample.

espeak-ng keeps the state of its oscillators and noise generators between sentences, also after `espeak_Terminate`. So
the same sentence sounds slightly different each time. Here the library is loaded again for every sentence, which takes
3 ms, and its random seeds are fixed. So the samples depend only on the arguments.
"""

import _ctypes
import ctypes
import os
import threading
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

SAMPLE_RATE = 22_050  # Hz, espeak-ng's only rate

# From espeak-ng/speak_lib.h.
SYNCHRONOUS = 2  # AUDIO_OUTPUT_SYNCHRONOUS: samples go to the callback before espeak_Synth returns
DONT_EXIT = 0x8000  # espeakINITIALIZE_DONT_EXIT: without it espeak-ng ends the whole process on an error
POSITION_CHARACTER = 1
CHARACTERS_UTF8 = 1
PARAMETER_RATE = 1
PARAMETER_PITCH = 3

# Characters that espeak-ng would spell out, and the spelling of the same sound that it speaks.
RESPELLED = {
    "\u2019": "'",
    "\u02bc": "'",  # otherwise spoken as the English word "ejective" inside a Belarusian word
    "\u09af\u09bc": "\u09df",  # য়, in two code points after NFC; espeak-ng knows it in one
    "\u09a2\u09bc": "\u09f0\u09cd\u09b9",  # ঢ় as ৰ্হ; espeak-ng's Assamese has no rule for it
}

_SampleCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_int16), ctypes.c_int, ctypes.c_void_p)
_one_at_a_time = threading.Lock()  # the library's state is global to the process


def synthesise(
    text: str, language: str, voice: str = "m1", words_per_minute: int = 160, pitch: int = 50
) -> tuple[NDArray[np.int16], int]:  # [samples], Hz
    """Speak a text; return mono samples and their rate in Hz. `voice` is an espeak-ng variant such as m3, f2 or john.

    Raises ValueError for a voice, language, speed or pitch that espeak-ng does not have. Raises ModuleNotFoundError if
    espeak-ng is not installed, and RuntimeError if it fails or is loaded by something else.
    """
    if not 80 <= words_per_minute <= 450 or not 0 <= pitch <= 99:
        raise ValueError(
            f"espeak-ng speaks 80 to 450 words per minute at a pitch of 0 to 99, "
            f"got {words_per_minute} words per minute, pitch {pitch}"
        )
    _refuse_unknown(voice)
    with _one_at_a_time, _fresh_library() as library:
        _choose_voice(library, f"{language}+{voice}", words_per_minute, pitch)
        return _speak(library, respell(text)), SAMPLE_RATE


def respell(text: str) -> str:
    """Rewrite characters that espeak-ng would spell out: apostrophes, and some Assamese letters of two code points."""
    text = unicodedata.normalize("NFC", text)
    for written, spoken in RESPELLED.items():
        text = text.replace(written, spoken)
    return text


def _refuse_unknown(voice: str) -> None:
    """Raise ValueError for an unknown voice, which espeak-ng would silently replace by its default."""
    known = sorted(path.name for path in (Path(_paths()[1]) / "voices" / "!v").iterdir())
    if voice not in known:
        raise ValueError(f"espeak-ng has no voice {voice!r}, only {', '.join(known)}")


def _choose_voice(library: ctypes.CDLL, name: str, words_per_minute: int, pitch: int) -> None:
    """Set language, variant, speed and pitch of the next text."""
    if library.espeak_SetVoiceByName(name.encode()) != 0:
        raise ValueError(f"espeak-ng does not speak the language of {name!r}")
    library.espeak_SetParameter(PARAMETER_RATE, words_per_minute, 0)
    library.espeak_SetParameter(PARAMETER_PITCH, pitch, 0)


def _speak(library: ctypes.CDLL, text: str) -> NDArray[np.int16]:  # [samples]
    """Speak one text in the current voice, and return the samples."""
    pieces: list[bytes] = []

    def keep(samples: "ctypes._Pointer[ctypes.c_int16]", count: int, events: int | None) -> int:
        if samples and count > 0:
            pieces.append(ctypes.string_at(samples, 2 * count))
        return 0  # go on

    callback = _SampleCallback(keep)  # kept in a name, so that it outlives the call into C
    library.espeak_SetSynthCallback(callback)
    encoded = text.encode() + b"\0"
    size = ctypes.c_size_t(len(encoded))
    if library.espeak_Synth(encoded, size, 0, POSITION_CHARACTER, 0, CHARACTERS_UTF8, None, None) != 0:
        raise RuntimeError(f"espeak-ng could not speak {text!r}")
    library.espeak_Synchronize()
    return np.frombuffer(b"".join(pieces), dtype=np.int16)


@contextmanager
def _fresh_library() -> Iterator[ctypes.CDLL]:
    """Load the library in the state that it has in a new process, and unload it after the block."""
    library_path, data_path = _paths()
    _refuse_if_loaded(library_path)
    library = ctypes.CDLL(library_path)
    try:
        if library.espeak_Initialize(SYNCHRONOUS, 0, data_path.encode(), DONT_EXIT) != SAMPLE_RATE:
            raise RuntimeError(
                f"espeak-ng cannot read its data in {data_path} (its limit is 160 characters for a path)"
            )
        # Breathy voices draw noise from the library's own generator, seeded by the clock, and from that of libc.
        library.espeak_ng_SetRandSeed(ctypes.c_long(1))
        ctypes.CDLL(None).srand(1)
        yield library
    finally:
        library.espeak_Terminate()
        _ctypes.dlclose(library._handle)


def _paths() -> tuple[str, str]:
    """Return the paths of the library and of its data, both in the installed package espeakng_loader."""
    try:
        import espeakng_loader
    except ModuleNotFoundError as missing:
        raise ModuleNotFoundError(
            "the demo speaks through espeak-ng, which is not installed: pip install espeakng-loader==0.2.4"
        ) from missing
    return espeakng_loader.get_library_path(), espeakng_loader.get_data_path()


def _refuse_if_loaded(library_path: str) -> None:
    """Raise RuntimeError if the library is loaded already, because the samples would depend on earlier sentences."""
    try:
        ctypes.CDLL(library_path, mode=os.RTLD_NOLOAD)
    except OSError:  # raised by the loader if the library is not loaded, as required
        return
    raise RuntimeError("something else in this process holds espeak-ng open: synthesise in a process of its own")
