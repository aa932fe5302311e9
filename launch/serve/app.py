"""The web application behind the page: three files, and uploads that are decoded, coloured and forgotten.

An upload is not trusted: its bytes are counted as they arrive, its pixels before they are decoded, its name is not
looked at, and nothing of it is written to a disk. Requests that other pages make are refused (Origin, Host).
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.datastructures import MutableHeaders, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from colortrain.inference.colorizer import Colorizer
from shards.sources.decode import BOMB, UndecodableError, decode_image

PAGE = Path(__file__).parent / "page"
_UPLOAD_SECONDS = 120.0
_AROUND = 1 << 14  # bytes of a request that are not its file
_HEARD = 8  # times the limit: so much is read, and thrown away, before a refusal
_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer a plain form would send no Origin
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """What an upload may take: bytes of the request, pixels of the picture."""

    bytes: int = 30 << 20
    pixels: int = 50_000_000


class Guard:
    """Counts what a request sends, refuses what other sites' pages send, and sets headers on every answer."""

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        came = 0

        async def counted() -> Message:
            nonlocal came
            message = await receive()
            came += len(message.get("body", b""))
            if came <= self.limit:
                return message
            while (
                message.get("more_body") and came < _HEARD * self.limit
            ):  # else who still sends does not hear us
                message = await receive()
                came += len(message.get("body", b""))
            raise too_large(self.limit)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, counted, with_headers)


def too_large(limit: int) -> HTTPException:
    """The refusal of a file that is too large; the connection is closed, for the rest of it is not read."""
    return HTTPException(
        413,
        f"This file is larger than {limit >> 20} MB, the most taken here.",
        {"connection": "close"},
    )


def check_request(request: Request, limit: int) -> None:
    """Raise `HTTPException` for what can be refused by its headers alone."""
    origin, host = request.headers.get("origin"), request.headers.get("host")
    if origin is not None and origin.partition("://")[2] != host:
        raise HTTPException(403, "Photographs are taken from this machine's own page alone.")
    if int(request.headers.get("content-length") or 0) > _HEARD * limit:
        raise too_large(limit)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(
            415, "Send one photograph as multipart/form-data, in a field named photo."
        )


class _InMemory(MultiPartParser):
    """Starlette's parser, without its temporary file for what is above 1 MB; `Guard` bounds what comes."""

    spool_max_size = 0  # never


async def read_upload(request: Request) -> bytes:
    """The bytes of the one file in the field `photo`; raises `HTTPException`."""
    try:
        with anyio.fail_after(_UPLOAD_SECONDS):
            form = await _InMemory(
                request.headers, request.stream(), max_files=1, max_fields=1
            ).parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    except TimeoutError:
        raise HTTPException(408, f"The upload took longer than {_UPLOAD_SECONDS:.0f} s.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The upload ended before it was whole.") from None
    photo = form.get("photo")
    data = await photo.read() if isinstance(photo, UploadFile) else None
    await form.close()
    if data is None:
        raise HTTPException(400, "There is no file in the field photo.")
    return data


def colorized(network: Colorizer, data: bytes, max_pixels: int) -> bytes:
    """The PNG of an encoded photograph in generated colours; raises `HTTPException` for what is no picture."""
    try:
        picture = decode_image(data, max_pixels)
    except UndecodableError as error:
        if error.reason == BOMB:
            most = f"{max_pixels / 1e6:g} megapixels"
            sentence = (
                f"This picture has more than {most}, the most taken here, or is as much to decode."
            )
            raise HTTPException(413, sentence) from None
        raise HTTPException(
            422, "This file is no picture that can be read here, or it is damaged."
        ) from None
    stream = io.BytesIO()
    network.colorize(picture).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


Endpoint = Callable[[Request], Awaitable[Response]]


def colorize_endpoint(networks: Sequence[Colorizer], limits: Limits) -> Endpoint:
    """POST /colorize/N: a photograph to network N; one at a time, for each takes the whole machine."""
    turn = anyio.CapacityLimiter(1)

    async def colorize(request: Request) -> Response:
        check_request(request, limits.bytes + _AROUND)
        number = request.path_params["number"]
        if number >= len(networks):
            raise HTTPException(404, "There is no such network here.")
        data = await read_upload(request)
        png = await anyio.to_thread.run_sync(
            colorized, networks[number], data, limits.pixels, limiter=turn
        )
        return Response(
            png,
            media_type="image/png",
            headers={"content-disposition": 'inline; filename="coloured.png"'},
        )

    return colorize


def constant(content: str, media_type: str) -> Endpoint:
    """GET of something that never changes."""

    async def answer(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return answer


def page(networks: Mapping[str, Colorizer], limits: Limits) -> str:
    """The page's HTML."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined
    )
    shown = [(name, network.description) for name, network in networks.items()]
    most = {
        "bytes": limits.bytes,
        "mb": limits.bytes >> 20,
        "megapixels": f"{limits.pixels / 1e6:g}",
    }
    return environment.get_template("page.html").render(networks=shown, most=most)


def make_app(networks: Mapping[str, Colorizer], limits: Limits, hosts: Sequence[str]) -> Starlette:
    """The application; `hosts`: by what names it may be addressed ("*": any)."""
    colorize = colorize_endpoint(list(networks.values()), limits)
    routes = [
        Route("/", constant(page(networks, limits), "text/html")),
        Route("/page.css", constant((PAGE / "page.css").read_text(), "text/css")),
        Route("/page.js", constant((PAGE / "page.js").read_text(), "text/javascript")),
        Route("/colorize/{number:int}", colorize, methods=["POST"]),
    ]
    middleware = [
        Middleware(Guard, limit=limits.bytes + _AROUND),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    return Starlette(routes=routes, middleware=middleware, exception_handlers={HTTPException: said})


async def said(_: Request, error: Exception) -> Response:
    """A refusal as one plain sentence."""
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)
