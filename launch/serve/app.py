"""The web application of `colortrain serve`: a page, and an endpoint for uploads.

Uploads are not trusted: their size is limited, their file names are ignored, nothing is
written to disk, and requests from pages of other sites are rejected.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import io
import threading
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

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
from shards.errors import is_out_of_memory
from shards.sources.decode import BOMB, UndecodableError, decode_image

T = TypeVar("T")
PAGE = Path(__file__).parent / "page"
_UPLOAD_TIMEOUT = 120.0  # seconds
_FORM_OVERHEAD = 1 << 14  # largest number of bytes in a request besides the file
# If a body is too large, up to this many times the limit is read and discarded before
# the rejection, because clients that are still sending do not read the response.
_MAX_DISCARDED = 8
_CLIENT_GONE = 499  # nginx's status for this; it reaches no client
# The page's addresses are relative: below a prefix, its own must end with a slash. Not
# every proxy redirects to that, and this server does not know the address.
_ADD_SLASH = (
    'if (!location.pathname.endsWith("/")) '
    "location.replace(`${location.pathname}/${location.search}`);"
)
_ADD_SLASH_HASH = base64.b64encode(hashlib.sha256(_ADD_SLASH.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": (
        f"default-src 'none'; script-src 'self' 'sha256-{_ADD_SLASH_HASH}'; style-src 'self'; "
        "img-src 'self' blob: data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
        "frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "same-origin",  # with no-referrer, plain forms would send no Origin
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True)
class Limits:
    """The largest accepted upload, in bytes of the file and pixels of the image."""

    bytes: int = 30 << 20
    pixels: int = 50_000_000


class RequestLimit:
    """Middleware that rejects requests of more than `limit` bytes with status 413.

    It also sets headers of all responses.
    """

    def __init__(self, app: ASGIApp, limit: int) -> None:
        self.app, self.limit = app, limit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        received = 0

        async def counted() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received <= self.limit:
                return message
            while message.get("more_body") and received < _MAX_DISCARDED * self.limit:
                message = await receive()
                received += len(message.get("body", b""))
            raise too_large(self.limit)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            await send(message)

        await self.app(scope, counted, with_headers)


def too_large(limit: int) -> HTTPException:
    """Return the exception, with status 413, for a file of more than `limit` bytes."""
    return HTTPException(
        413,
        f"This file is too large. The maximum is {limit >> 20} MB.",
        {"connection": "close"},  # the rest of the request is not read
    )


def check_request(request: Request, limit: int, origins: Sequence[str] = ()) -> None:
    """Raise HTTPException if a request must be rejected because of its headers alone.

    limit: a request that declares more than 8 times as many bytes is rejected; origins:
    hosts (HOST or HOST:PORT) of other sites whose pages may send requests.
    """
    origin, host = request.headers.get("origin"), request.headers.get("host")
    # A page of another site sends a different Origin.
    if origin is not None and origin.partition("://")[2] not in (host, *origins):
        raise HTTPException(403, "Photographs are accepted only from this server's own page.")
    # Smaller requests that are too large are rejected by `RequestLimit`.
    if int(request.headers.get("content-length") or 0) > _MAX_DISCARDED * limit:
        raise too_large(limit)
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        raise HTTPException(
            415, "Send one photograph as multipart/form-data, in a field named photo."
        )


class _InMemoryParser(MultiPartParser):
    """Starlette's parser of uploaded forms, but without temporary files."""

    # Starlette would write uploads above 1 MB to disk. `RequestLimit` limits the size.
    spool_max_size = 0  # 0: never written to disk


async def read_upload(request: Request) -> bytes:
    """Return the content of the uploaded file in the field `photo` of the form.

    Raises HTTPException if there is no such file, or if the upload is incomplete or
    slow.
    """
    try:
        with anyio.fail_after(_UPLOAD_TIMEOUT):
            form = await _InMemoryParser(
                request.headers, request.stream(), max_files=1, max_fields=1
            ).parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    except TimeoutError:
        raise HTTPException(408, f"The upload took more than {_UPLOAD_TIMEOUT:.0f} s.") from None
    except ClientDisconnect:
        raise HTTPException(400, "The upload is incomplete.") from None
    photo = form.get("photo")
    data = await photo.read() if isinstance(photo, UploadFile) else None
    await form.close()
    if data is None:
        raise HTTPException(400, "There is no file in the field photo.")
    return data


def colorize_image(
    network: Colorizer, data: bytes, max_pixels: int, gone: threading.Event
) -> bytes:
    """Decode and colorize an image file, and return the bytes of a PNG file.

    Raises HTTPException if the image cannot be decoded, has more than `max_pixels`, or
    needs more memory than there is, and ClientDisconnect if `gone` is set.
    """
    try:
        image = decode_image(data, max_pixels)
    except UndecodableError as error:
        if error.reason == BOMB:
            raise HTTPException(
                413,
                f"This image is too large to decode. The maximum is {max_pixels / 1e6:g} "
                "megapixels.",
            ) from None
        raise HTTPException(422, "This file is damaged or not a supported image.") from None
    raise_if_gone(gone)
    try:
        coloured = network.colorize(image)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        raise HTTPException(
            503, "This server has not enough free memory for this photograph. Try a smaller one."
        ) from None
    raise_if_gone(gone)
    stream = io.BytesIO()
    coloured.save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def raise_if_gone(gone: threading.Event) -> None:
    """Raise ClientDisconnect if `gone` is set."""
    if gone.is_set():
        raise ClientDisconnect


async def until_gone(request: Request, work: Coroutine[Any, Any, T], gone: threading.Event) -> T:
    """Return the result of `work`, but set `gone` if the client disconnects first.

    The request must have been read. Raises ClientDisconnect if `work` was cancelled.
    """
    scope = anyio.CancelScope()
    working = asyncio.create_task(_in_scope(scope, work))
    leaving = asyncio.create_task(_disconnected(request))
    try:
        await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            gone.set()
            # A running thread is waited for, because the next image must not be
            # colorized at the same time; work that waits for its turn is cancelled.
            scope.cancel()  # unlike a task's own `cancel`, it spares a running thread
        return await working
    finally:
        leaving.cancel()


async def _in_scope(scope: anyio.CancelScope, work: Coroutine[Any, Any, T]) -> T:
    with scope:
        return await work
    raise ClientDisconnect


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


Endpoint = Callable[[Request], Awaitable[Response]]


def colorize_endpoint(
    networks: Sequence[Colorizer], limits: Limits, origins: Sequence[str]
) -> Endpoint:
    """Return the endpoint POST /colorize/N, which colorizes an upload with network N.

    networks: N is the position in this list; origins: hosts (HOST or HOST:PORT) of
    other sites whose pages may send uploads.
    """
    # One image at a time, because colorizing uses all cores or the GPU.
    limiter = anyio.CapacityLimiter(1)

    async def colorize(request: Request) -> Response:
        check_request(request, limits.bytes + _FORM_OVERHEAD, origins)
        number = request.path_params["number"]
        if number >= len(networks):
            raise HTTPException(404, "There is no such network.")
        data = await read_upload(request)
        gone = threading.Event()
        work = anyio.to_thread.run_sync(
            colorize_image, networks[number], data, limits.pixels, gone, limiter=limiter
        )
        try:
            png = await until_gone(request, work, gone)
        except ClientDisconnect:
            return Response(status_code=_CLIENT_GONE)
        return Response(
            png,
            media_type="image/png",
            headers={"content-disposition": 'inline; filename="coloured.png"'},
        )

    return colorize


def static_endpoint(content: str, media_type: str) -> Endpoint:
    """Return an endpoint that always responds with `content`."""

    async def respond(_: Request) -> Response:
        return Response(content, media_type=media_type)

    return respond


def render_page(networks: Mapping[str, Colorizer], limits: Limits) -> str:
    """Return the HTML of the page, which shows the networks and the upload limits."""
    environment = Environment(
        loader=FileSystemLoader(PAGE), autoescape=True, undefined=StrictUndefined
    )
    descriptions = [(name, network.description) for name, network in networks.items()]
    maximum = {
        "bytes": limits.bytes,
        "mb": limits.bytes >> 20,
        "megapixels": f"{limits.pixels / 1e6:g}",
    }
    template = environment.get_template("page.html")
    return template.render(networks=descriptions, maximum=maximum, add_slash=_ADD_SLASH)


def make_app(
    networks: Mapping[str, Colorizer],
    limits: Limits,
    hosts: Sequence[str],
    origins: Sequence[str] = (),
) -> Starlette:
    """Return the web application.

    networks: by name; hosts: accepted values of the Host header, "*" for any; origins:
    hosts (HOST or HOST:PORT) of other sites whose pages may send uploads.
    """
    page = static_endpoint(render_page(networks, limits), "text/html")
    style = static_endpoint((PAGE / "page.css").read_text(encoding="utf-8"), "text/css")
    script = static_endpoint((PAGE / "page.js").read_text(encoding="utf-8"), "text/javascript")
    colorize = colorize_endpoint(list(networks.values()), limits, origins)
    routes = [
        Route("/", page),
        Route("/page.css", style),
        Route("/page.js", script),
        Route("/colorize/{number:int}", colorize, methods=["POST"]),
    ]
    middleware = [
        Middleware(RequestLimit, limit=limits.bytes + _FORM_OVERHEAD),
        Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
    ]
    return Starlette(
        routes=routes, middleware=middleware, exception_handlers={HTTPException: error_response}
    )


async def error_response(_: Request, error: Exception) -> Response:
    """Return a response with the message of an HTTPException as plain text."""
    assert isinstance(error, HTTPException)
    return PlainTextResponse(error.detail, error.status_code, error.headers)
