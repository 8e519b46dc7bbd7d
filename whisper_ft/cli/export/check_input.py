"""Input of a check: its clips, read before anything is written, and the data that they are from."""

from dataclasses import dataclass

from whisper_ft.cli.export.check_clips import CheckClip, read_clips
from whisper_ft.cli.export.check_data import CheckData, open_check_data
from whisper_ft.cli.export.export_arguments import DEFAULT_WORDS, CheckedModel
from whisper_ft.models.whisper import LoadedWhisper
from whisper_ft.runtime.errors import DataError, UsageError
from whisper_ft.runtime.printable import say


@dataclass(frozen=True)
class CheckInput:
    """Clips of a check, and the data that they are from."""

    data: CheckData
    clips: list[CheckClip]
    words: int


def read_check_input(arguments: CheckedModel, loaded: LoadedWhisper) -> CheckInput | None:
    """Read the clips of the check, before anything is written. None, with a line about it, if there is no check.

    Raises DataError if no clip can be read, and UsageError for a number of clips without data to take them from.
    """
    data = open_check_data(arguments, loaded)
    if data is None:
        if arguments.clips:
            raise UsageError(
                f"--check {arguments.clips}: the model belongs to no run with a held-out set; add a data set"
            )
        if arguments.clips is None:
            say(
                "unchecked: there are no clips, because the model belongs to no run with a held-out set; name a data "
                "set: --check DATA"
            )
        return None
    clips, words = read_clips(data.rows, loaded, data.encode, arguments.clips, DEFAULT_WORDS)
    if not clips:
        raise DataError(f"{data.name}: no audio could be read for the check; --check DATA names another set")
    if words < DEFAULT_WORDS:
        say(f"the check has {words:,} words; with fewer than {DEFAULT_WORDS:,} its error rates are rough")
    return CheckInput(data, clips, words)
