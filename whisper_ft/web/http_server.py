"""HTTP server around the application: uvicorn, whose end first ends the open requests."""

import logging
import socket

import uvicorn
from starlette.applications import Starlette

from whisper_ft.web.server import Server

GRACE_SECONDS = 3
"""Time for the end of open requests, after which they are cut off."""


class HttpServer(uvicorn.Server):
    """Server of an application. `run` returns, or raises KeyboardInterrupt, after a signal."""

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="on",
            log_level="warning",
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )
        super().__init__(config)
        self._server: Server = app.state.server

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End all requests with an error, and then the server."""
        self._server.end_requests()
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # an upload that is cut off is no error
        await super().shutdown(sockets)
