"""Checks of every request, and security headers of every answer.

A page of another site that is open in the same browser must neither read nor change anything here. So the ``Host`` of a
request has to be this server's (which stops DNS rebinding), and requests that change something have to come from this
server's page.
"""

from __future__ import annotations

import hmac
import ipaddress
import logging
import re
import secrets
import socket
from collections.abc import Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect, HTTPConnection
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from monai_fedlora.clinic.defects import describe_defect
from monai_fedlora.serve.refusal import BAD_REQUEST, DEFECT, FORBIDDEN, MISDIRECTED, UNAUTHORISED, Refused
from monai_fedlora.serve.settings import LOOPBACK_NAME, ServeSettings, is_loopback

logger = logging.getLogger(__name__)

CONTENT_POLICY = "; ".join(
    (
        "default-src 'self'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",  # NiiVue's font is a data address
        "connect-src 'self'",
        "worker-src 'none'",
        "object-src 'none'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
PAGE_KEY = "X-Page-Key"
UPLOAD_ID = "X-Upload-Id"
_KEY = re.compile("[0-9a-f]{64}")
_READING = frozenset({"GET", "HEAD"})
_OTHER_SITES = frozenset({"cross-site", "same-site"})


class Guard:
    """ASGI middleware that checks every request and puts :data:`HEADERS` on every answer.

    Args:
        app: the application behind it.
        settings: address and token of the server.
    """

    def __init__(self, app: ASGIApp, *, settings: ServeSettings) -> None:
        self.app = app
        self.settings = settings
        self._names = _own_names(settings)
        self._cookie = f"monai-fedlora-access-{settings.port}"
        self._key = secrets.token_urlsafe(32)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a permitted request on, and answer any other."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return

        has_begun = False

        async def send_guarded(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                if "cache-control" not in headers:
                    headers["Cache-Control"] = "no-store"
            await send(message)

        try:
            await (self._answer(scope) or self.app)(scope, receive, send_guarded)
        except ClientDisconnect:
            return
        except Exception as error:  # a defect; its text may name files
            logger.error("a request failed (%s)", describe_defect(error))
            if not has_begun:
                sentence = "this program has a defect; please report it, and what you did"
                await JSONResponse({"error": sentence}, status_code=DEFECT)(scope, receive, send_guarded)

    def _answer(self, scope: Scope) -> Response | None:
        """The answer to a request that is not passed on; None for a permitted one."""
        headers = Headers(scope=scope)
        try:
            self._check_place(scope["method"], headers)
            if self.settings.token is None:
                return None
            if token := _token_in_address(scope):
                return self._welcome(token)
            self._check_token(scope, headers)
        except Refused as refused:
            response = JSONResponse({"error": str(refused)}, status_code=refused.status)
            if refused.status == UNAUTHORISED:
                response.headers["WWW-Authenticate"] = "Bearer"
            return response
        return None

    def _check_place(self, method: str, headers: Headers) -> None:
        hosts = headers.getlist("host")
        if len(hosts) != 1 or not self._is_own(hosts[0]):
            raise Refused(
                MISDIRECTED,
                f"this server is not called {', '.join(hosts)[:80]!r}; open the address that was printed when it was "
                "started",
            )
        if method in _READING:
            return
        origin = headers.get("origin")
        foreign = origin is not None and _place(origin) != hosts[0].lower()
        if foreign or headers.get("sec-fetch-site") in _OTHER_SITES:
            raise Refused(FORBIDDEN, "the request comes from the page of another site; use the page of this server")

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        if "@" in host:
            return False
        try:
            address = ipaddress.ip_address(name)
        except ValueError:
            return name in self._names
        return self.settings.is_everywhere or name in self._names or (self.settings.is_local and address.is_loopback)

    def _check_token(self, scope: Scope, headers: Headers) -> None:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and self._is_token(given.strip()):
            return
        if _equal(HTTPConnection(scope).cookies.get(self._cookie, ""), self._key):
            return
        raise Refused(
            UNAUTHORISED, "this server asks for its token; open the address with ?token= that was printed at its start"
        )

    def _welcome(self, token: str) -> Response:
        """Redirect to the address without the token, and set a cookie that replaces the token."""
        if not self._is_token(token):
            raise Refused(UNAUTHORISED, "the token is wrong; copy the whole address that was printed at the start")
        response = RedirectResponse("/", status_code=303)
        response.set_cookie(self._cookie, self._key, httponly=True, samesite="strict", path="/")
        return response

    def _is_token(self, given: str) -> bool:
        return _equal(given, self.settings.token or "")


def set_session_cookie(response: Response, settings: ServeSettings, session: str) -> None:
    """Set the cookie of a session; no script and no other site can read it."""
    response.set_cookie(session_cookie(settings), session, httponly=True, samesite="strict", path="/")


def session_cookie(settings: ServeSettings) -> str:
    """Name of the session's cookie; with the port, because browsers share cookies between the ports of a host."""
    return f"monai-fedlora-session-{settings.port}"


def session_of(cookies: Mapping[str, str], settings: ServeSettings) -> str:
    """The session in a browser's cookies; empty if there is none."""
    return cookies.get(session_cookie(settings), "")


def page_key(headers: Mapping[str, str]) -> str:
    """The random key that this server's page sends beside the cookie; empty for other clients.

    Servers on other ports of the machine can read and set cookies. So the page draws a key, stores it where only its
    own origin can read it, and a session is found by this key.

    Raises:
        Refused: the header is no such key.
    """
    return _random_number(headers, PAGE_KEY, "key")


def upload_id(headers: Mapping[str, str]) -> str:
    """The random number by which the page recognises a study that it sent, also after a reload; may be empty.

    Raises:
        Refused: the header is no such number.
    """
    return _random_number(headers, UPLOAD_ID, "number")


def _random_number(headers: Mapping[str, str], name: str, what: str) -> str:
    given = headers.get(name, "")
    if given and not _KEY.fullmatch(given):
        raise Refused(BAD_REQUEST, f"{name} is no {what} of this server's page; leave it out, or use the page")
    return given


def _own_names(settings: ServeSettings) -> frozenset[str]:
    names = {settings.host.lower()}
    if is_loopback(settings.host) or settings.is_everywhere:
        names.add(LOOPBACK_NAME)
    if settings.is_everywhere:
        names.add(socket.gethostname().lower())
    return frozenset(names)


def _place(origin: str) -> str | None:
    """Host and port of an ``Origin`` header, in the form of a ``Host`` header; None if it is no address."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return None


def _token_in_address(scope: Scope) -> str:
    if scope["method"] != "GET" or scope["path"] != "/":
        return ""
    return parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]


def _equal(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode("utf-8", "replace"), expected.encode("utf-8"))
