"""Server as its routes see it: settings, queue, models, and the transcripts of the last requests."""

from collections import OrderedDict
from dataclasses import dataclass, field

from starlette.requests import Request

from whisper_ft.reports.transcript_formats import Transcript
from whisper_ft.web.api_error import ApiError
from whisper_ft.web.job_queue import JobQueue
from whisper_ft.web.loaded_models import LoadedModels
from whisper_ft.web.serve_settings import ServeSettings
from whisper_ft.web.transcription_job import TranscriptionJob

KEPT = 32
"""Most transcripts that are kept for a download. One of ten hours, with its words, takes about 30 MB."""


@dataclass(frozen=True)
class Server:
    """Everything that the routes share."""

    settings: ServeSettings
    queue: JobQueue
    models: LoadedModels
    jobs: dict[str, TranscriptionJob] = field(default_factory=dict)
    """Requests that wait or are decoded, by id."""
    transcripts: OrderedDict[str, Transcript] = field(default_factory=OrderedDict)
    """Transcripts of the last requests, by id, the newest last."""

    def keep(self, job: TranscriptionJob) -> None:
        """Keep the transcript of a finished job, and forget the oldest one beyond KEPT."""
        if job.transcript is not None:
            self.transcripts[job.id] = job.transcript
            while len(self.transcripts) > KEPT:
                self.transcripts.popitem(last=False)

    def end_requests(self) -> None:
        """End all requests that wait or are decoded, because the server stops."""
        for job in self.jobs.values():
            job.cancel(ApiError(503, "stopped", "the server was stopped"))


def server_of(request: Request) -> Server:
    """Return the server of a request."""
    server: Server = request.app.state.server
    return server
