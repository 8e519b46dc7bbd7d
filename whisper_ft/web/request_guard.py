"""Guard around all routes: it refuses other sites, missing tokens and large uploads, and sets the security headers.

A page of any site can send requests to 127.0.0.1 from the browser of a user. `Host` unmasks a site whose name was
pointed at this machine (DNS rebinding), and `Origin` and `Sec-Fetch-Site` unmask any other site.
"""

import asyncio
import hmac
import re
from contextlib import suppress
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qsl, urlencode

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from whisper_ft.web.api_error import ApiError
from whisper_ft.web.serve_settings import ServeSettings, is_loopback

COOKIE = "whisper-ft-"  # and the port, because servers on several ports of a host share cookies
PUBLIC = "/healthz"  # path that needs no token
DRAIN_SECONDS = 20.0
"""Longest time for the rest of a refused upload. A client reads the answer only after it has sent its request."""
IDLE_SECONDS = 60.0
"""Longest pause of a client within its upload, because an upload occupies a place in the queue."""
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "media-src 'self' data: blob:; connect-src 'self'; worker-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(), geolocation=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
"""Headers of every answer that does not set them itself."""


class RequestGuard:
    """ASGI middleware that lets only permitted requests through to `app`."""

    def __init__(self, app: ASGIApp, settings: ServeSettings) -> None:
        self._app, self._token, self._most = app, settings.token, settings.max_mb * 1_000_000
        self._max_mb, self._cookie = settings.max_mb, f"{COOKIE}{settings.port}"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        body = _BoundedBody(receive, self._most, self._max_mb)
        # A client that waits for `100 Continue` gets the refusal before it sends its body.
        is_asking = "expect" in Headers(scope=scope)

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if message["status"] >= 400 and not is_asking:
                    await body.drain()
            await send(message)

        answer = self._refusal(scope)
        await (answer or self._app)(scope, body.receive, send_guarded)

    def _refusal(self, scope: Scope) -> Response | None:
        """Return the answer to a request that is not let through; None for others."""
        headers = Headers(scope=scope)
        try:
            self._refuse_other_sites(scope, headers)
            if self._token is not None and scope["path"] != PUBLIC:
                if entry := self._entry(scope):
                    return entry
                self._refuse_without_token(headers)
            if _stated_bytes(headers) > self._most:
                raise _too_large(self._max_mb)
        except ApiError as error:
            return error.answer(scope["path"])
        return None

    def _refuse_other_sites(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if self._token is None and not is_loopback(_name_of(host)):
            raise ApiError(403, "wrong_host", f"Host {host!r}: expected localhost or 127.0.0.1, without a token")
        origin = headers.get("origin")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            raise ApiError(403, "wrong_origin", f"Origin {origin!r}: only pages of this server may send requests")
        site = headers.get("sec-fetch-site", "same-origin")
        is_link = scope["method"] == "GET" and headers.get("sec-fetch-mode") == "navigate"
        if site not in ("same-origin", "none") and not is_link:
            raise ApiError(403, "wrong_origin", "the request comes from a page of another site")

    def _entry(self, scope: Scope) -> Response | None:
        """Return the answer to a page with `?token=`: a cookie, and the way to the same page without the token."""
        query = parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)
        given = next((value for name, value in query if name == "token"), None)
        if scope["method"] != "GET" or given is None:
            return None
        if not self._is_token(given):
            raise _no_token()
        rest = urlencode([pair for pair in query if pair[0] != "token"])
        # Two slashes at the start of a path would lead to another host.
        path = "/" + scope["path"].lstrip("/\\")
        answer = RedirectResponse(path + (f"?{rest}" if rest else ""), status_code=303)
        answer.set_cookie(self._cookie, given, httponly=True, samesite="strict")
        return answer

    def _refuse_without_token(self, headers: Headers) -> None:
        kind, _, bearer = headers.get("authorization", "").partition(" ")
        cookie = SimpleCookie()
        with suppress(CookieError):
            cookie.load(headers.get("cookie", ""))
        in_cookie = cookie[self._cookie].value if self._cookie in cookie else ""
        if not self._is_token(bearer.strip() if kind.lower() == "bearer" else in_cookie):
            raise _no_token()

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), (self._token or "").encode())


class _BoundedBody:
    """Body of a request, which ends with an error once it is larger than allowed."""

    def __init__(self, receive: Receive, most: int, max_mb: int) -> None:
        self._receive, self._left, self._max_mb = receive, most, max_mb
        self._is_read = False

    async def receive(self) -> Message:
        """Return the next message. Raises ApiError if the body is too large."""
        try:
            async with asyncio.timeout(None if self._is_read else IDLE_SECONDS):
                message = await self._receive()
        except TimeoutError:
            self._is_read = True  # nothing more is expected
            raise ApiError(408, "stalled", f"the upload paused for {IDLE_SECONDS:.0f} s") from None
        self._note(message)
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            raise _too_large(self._max_mb)
        return message

    async def drain(self) -> None:
        """Read the rest of the body and forget it."""
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while not self._is_read:
                    self._note(await self._receive())

    def _note(self, message: Message) -> None:
        self._is_read = message["type"] != "http.request" or not message.get("more_body", False)


def _name_of(host: str) -> str:
    """Return the name or address in a Host header, without port and brackets; "" if it has no such form."""
    found = re.fullmatch(r"\[([0-9a-f:.]+)\](:\d*)?|([^\s:/@\[\]]+)(:\d*)?", host)
    return (found[1] or found[3]) if found else ""


def _stated_bytes(headers: Headers) -> int:
    stated = headers.get("content-length", "0")
    return int(stated) if stated.isdecimal() else 0


def _too_large(max_mb: int) -> ApiError:
    return ApiError(413, "too_large", f"the upload has more than {max_mb:,} MB, the limit of this server (--max_mb)")


def _no_token() -> ApiError:
    return ApiError(401, "no_token", "the token is missing or wrong; open the address that the server printed")
