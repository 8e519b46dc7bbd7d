"""How small programs end: their exit codes, and Ctrl-C that comes at a bad moment."""

import io
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import soundfile

from whisper_ft.runtime.command import exit_code_of
from whisper_ft.runtime.errors import DiskError, PreemptedError
from whisper_ft.runtime.signals import interrupt_held


def raises(error: BaseException) -> Callable[[], None]:
    def program() -> None:
        raise error

    return program


@pytest.mark.parametrize(
    ("program", "code", "line"),
    [
        (lambda: None, 0, ""),
        (raises(DiskError("no room")), 6, "error: no room\n"),
        (raises(PreemptedError("later")), 75, "error: later\n"),
        (raises(KeyboardInterrupt()), 130, "stopped\n"),
    ],
)
def test_a_small_program_ends_with_one_line_and_its_code(
    program: Callable[[], None], code: int, line: str, capsys: pytest.CaptureFixture[str]
):
    assert exit_code_of(program) == code
    assert capsys.readouterr().err == line


class Interrupted(io.BytesIO):
    """A file during whose reading somebody presses Ctrl-C."""

    def readinto(self, buffer: Any) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return super().readinto(buffer)


def test_ctrl_c_inside_of_a_decoder_is_not_lost(capfd: pytest.CaptureFixture[str]):
    """Without the block it is printed, and the file is taken for a bad one."""
    sound = io.BytesIO()
    soundfile.write(sound, [0.0] * 1600, 16_000, format="WAV")
    read = []
    with pytest.raises(KeyboardInterrupt), interrupt_held():
        read.append(soundfile.read(Interrupted(sound.getvalue()))[0])
    assert len(read[0]) == 1600
    assert capfd.readouterr().err == ""
    with pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()
