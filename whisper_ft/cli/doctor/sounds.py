"""Sounds of a report that its page can play."""

import base64
import io

import soundfile

from whisper_ft.cli.doctor.blocks import Sound
from whisper_ft.data.audio.containers import Waveform


def sound(title: str, waveform: Waveform, rate: int, text: str = "") -> Sound:
    """Return a waveform as a sound with its content in a `data:` address, as FLAC. Samples over full scale are cut."""
    encoded = io.BytesIO()
    soundfile.write(encoded, waveform.clip(-1.0, 1.0), rate, format="FLAC")
    return Sound(title, f"data:audio/flac;base64,{base64.b64encode(encoded.getvalue()).decode()}", text)
