"""Errors of the routes, and their answers in JSON: our own shape, and that of OpenAI below `/v1`."""

from collections.abc import Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from whisper_ft.runtime.printable import json_text, printable

OPENAI_PATHS = "/v1/"
OPENAI_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
"""Types of OpenAI's errors by status; other ones below 500 are `invalid_request_error`."""


class ApiError(Exception):
    """Error that a client gets as JSON, under a status from 400 on.

    Parameters
        code: name of the kind of error, for programs
        message: one line for people
        retry_after: seconds after which the same request may succeed
        field: field of the form that is wrong, for OpenAI's shape
    """

    def __init__(
        self, status: int, code: str, message: object, retry_after: int | None = None, field: str | None = None
    ) -> None:
        self.status, self.code, self.message = status, code, printable(message)
        self.retry_after, self.field = retry_after, field
        super().__init__(self.message)

    def answer(self, path: str) -> Response:
        """Return the answer to a request of a path."""
        body: dict[str, Any] = {"code": self.code, "message": self.message}
        if path.startswith(OPENAI_PATHS):
            kind = OPENAI_TYPES.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")
            body |= {"type": kind, "param": self.field}
        headers = {} if self.retry_after is None else {"Retry-After": str(self.retry_after)}
        return json_answer({"error": body}, self.status, headers)


async def answer_error(request: Request, error: Exception) -> Response:
    """Return the answer to a request that raised an ApiError."""
    assert isinstance(error, ApiError), "registered for this class"
    return error.answer(request.url.path)


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Return a JSON answer. Raises ValueError for NaN and infinity, which JSON lacks."""
    return Response(json_text(value) + "\n", status, headers, "application/json")
