"""Log of the finished windows of one recording, kept beside its transcripts until these are written.

The log is also a lock, so that several processes can share the files. The kernel frees it if its process is killed.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from whisper_ft.decoding.finished_window import FinishedWindow
from whisper_ft.runtime.atomic import disk_errors
from whisper_ft.runtime.jsonl import append_rows, rows_with
from whisper_ft.runtime.lock import lock_file


class WindowLog:
    """Open log of a recording. `known` has its finished windows by number, at first those of earlier starts.

    Parameters
        path: file of the log; it is made if it is missing
        job: everything on which the transcript depends, as JSON values; windows of another job are forgotten

    Raises LockedError if another process transcribes the recording, and DiskError if the file cannot be written.
    """

    def __init__(self, path: Path, job: Mapping[str, Any]) -> None:
        self._path, self.known = path, dict[int, FinishedWindow]()
        with disk_errors(path):
            self._lock = lock_file(path, "transcription")
            try:
                if rows_with(path, "job")[:1] == [{"job": job}]:
                    self._remember()
                else:
                    self._lock.truncate(0)
                    append_rows(path, [{"job": job}])
            except BaseException:
                self._lock.close()
                raise

    def _remember(self) -> None:
        for row in rows_with(self._path, "number"):
            with suppress(TypeError, LookupError):  # a row of another version of this program
                window = FinishedWindow.from_json(row)
                self.known[window.number] = window

    def append(self, window: FinishedWindow) -> None:
        """Add a finished window. Raises DiskError if it cannot be written."""
        with disk_errors(self._path):
            append_rows(self._path, [window.to_json()])
        self.known[window.number] = window

    def close(self, *, keep: bool) -> None:
        """Release the recording. The file is removed unless it is kept for the next start."""
        if not keep:
            with suppress(OSError):  # a folder that was removed meanwhile
                self._path.unlink()
        self._lock.close()
