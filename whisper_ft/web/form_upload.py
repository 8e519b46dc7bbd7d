"""Upload: the form of a request, whose file is streamed to a temporary file without a name."""

import errno
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import SpooledTemporaryFile

from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request

from whisper_ft.runtime.printable import printable
from whisper_ft.scoring.unicode_text import encodable
from whisper_ft.web.api_error import ApiError

FILE = "file"  # field of the form
MOST_FIELDS = 64
MOST_NAME = 255  # characters of a file name that are kept
MOST_FIELD_BYTES = 1 << 20


@dataclass(frozen=True)
class Upload:
    """Form of a request."""

    name: str
    """Name of the file for people, without folders."""
    path: Path
    """Path of the file, which can be opened until the end of the request."""
    form: FormData

    @property
    def fields(self) -> Mapping[str, str]:
        """Last value of each other field."""
        return {name: value for name, value in self.form.multi_items() if isinstance(value, str)}


@asynccontextmanager
async def upload_of(request: Request) -> AsyncIterator[Upload]:
    """Read the form of a request; its file is removed at the end of the block.

    Up to 1 MB of the file is in memory at a time. Raises ApiError if there is no file, no room on the disk, or the
    client leaves.
    """
    try:
        form = await request.form(max_files=1, max_fields=MOST_FIELDS, max_part_size=MOST_FIELD_BYTES)
    except HTTPException as error:
        raise ApiError(400, "bad_request", f"the form cannot be read: {error.detail}") from error
    except ClientDisconnect as error:  # its user has cancelled the upload; nobody reads the answer
        raise ApiError(400, "client_left", "the client left before its upload was complete") from error
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ApiError(507, "disk_full", "there is no room for the upload on this machine") from error
        raise
    try:
        file = form.get(FILE)
        if not isinstance(file, UploadFile):
            raise ApiError(400, "no_file", f"the form has no file; send it in the field {FILE!r}", field=FILE)
        yield Upload(_name_of(file), _path_of(file), form)
    finally:
        await form.close()


def _name_of(upload: UploadFile) -> str:
    name = encodable((upload.filename or "").replace("\\", "/").rpartition("/")[2])
    return printable(name[:MOST_NAME]).strip() or "recording"


def _path_of(upload: UploadFile) -> Path:
    """Return a path by which a temporary file without a name can be opened in this process."""
    file = upload.file
    assert isinstance(file, SpooledTemporaryFile), "made by starlette's parser"
    number = file.fileno()  # writes a small file, which was only in memory, to the disk
    file.flush()
    return Path(f"/dev/fd/{number}")
