"""Bringing a file from a URL through fsspec: tried again where that may help, one clear line where it cannot."""

from __future__ import annotations

import asyncio
import concurrent.futures
import errno
import random
import re
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit, urlunsplit

from shards.errors import UserError
from shards.files import sha256_of

T = TypeVar("T")

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # what no other try mends
_LIBRARIES = (
    "aiohttp",
    "aiobotocore",
    "botocore",
    "fsspec",
    "gcsfs",
    "google",
    "requests",
    "s3fs",
    "urllib3",
)
_NO_CREDENTIALS = (
    "NoCredentialsError",
    "PartialCredentialsError",
    "DefaultCredentialsError",
    "ProfileNotFound",
)
_MISMATCH_TRIES = (
    3  # wrong bytes come from broken proxies, which a try or two tell from a wrong file
)
_PIECE = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long to go on: tries in all, seconds before the second (then doubled), and of silence that end a try."""

    tries: int = 6
    wait: float = 1.0
    silence: float = 60.0


class MismatchError(Exception):
    """What came is not what was expected; the text tells both."""


def scheme_of(location: str) -> str | None:
    """`s3` of `s3://bucket/set`; None for a path."""
    match = _SCHEME.match(location)
    return match[1].lower() if match else None


def shown(url: str) -> str:
    """The URL for messages, without passwords and signatures."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, "", ""))


def joined(base: str, relative: str) -> str:
    """The URL of a file below `base`, whose query (a signature) stays at the end."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{relative}"))


def filesystem(url: str) -> Any:
    """fsspec's file system for a URL; raises `UserError` for an unknown scheme and for a missing package.

    fsspec keeps one for each process, so that after a fork this gives a new one.
    """
    scheme = scheme_of(url)
    try:
        import fsspec

        return fsspec.filesystem(scheme, **_options(scheme or ""))
    except ImportError as error:
        extra = "gcs" if scheme in ("gs", "gcs") else "remote"
        hint = f"pip install 'colortrain[{extra}]', or what fsspec names for this scheme"
        raise UserError(f"{shown(url)}: a package is missing ({error}): {hint}") from None
    except ValueError as error:
        raise UserError(
            f"{shown(url)}: unusable address ({error}): give a folder, or a URL of s3://, gs://, https:// or another "
            "scheme of fsspec"
        ) from None


def _options(scheme: str) -> dict[str, Any]:
    """Settings that defaults get wrong for large files on clusters."""
    if scheme in ("http", "https"):
        import aiohttp

        # By default aiohttp ends every request after five minutes and knows nothing of proxies.
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
        return {"client_kwargs": {"timeout": timeout, "trust_env": True}}
    if scheme in ("s3", "s3a"):
        # Pieces of 50 MiB, ten at a time, would look like silence on a slow line.
        return {"default_block_size": _PIECE, "max_concurrency": 4}
    return {}


def fetch(
    url: str, path: Path, patience: Patience, *, bytes: int | None = None, sha256: str | None = None
) -> None:
    """Write what is at `url` to `path`, checked against `bytes` and `sha256` where given.

    Raises `UserError` if it is not there, not allowed, not what it should be, or out of reach for all of `patience`.
    """

    def once() -> None:
        _transfer(url, path, patience.silence)
        check(path, bytes, sha256)

    patiently(url, once, patience, path)


def read(url: str, patience: Patience) -> bytes:
    """What is at `url`, for small files; errors as `fetch`."""

    def once() -> bytes:
        system = filesystem(url)
        if not system.async_impl:
            return system.cat_file(url)
        return _watched(system, lambda callback: system._cat_file(url), patience.silence)

    return patiently(url, once, patience)


def check(path: Path, bytes: int | None, sha256: str | None) -> None:
    """Raise `MismatchError` unless a file has this length and this SHA-256, where they are given."""
    found = path.stat().st_size
    if bytes is not None and found != bytes:
        raise MismatchError(f"{found} bytes came, {bytes} were expected")
    if sha256 is not None and (digest := sha256_of(path)) != sha256:
        raise MismatchError(f"SHA-256 {digest} came, {sha256} was expected")


def _transfer(url: str, path: Path, silence: float) -> None:
    system = filesystem(url)
    if not system.async_impl:
        system.get_file(url, str(path))
        return
    _watched(system, lambda callback: system._get_file(url, str(path), callback=callback), silence)


def _watched(system: Any, start: Callable[[Any], Any], silence: float) -> Any:
    """Run a transfer on fsspec's thread, and end it when no byte has come for `silence` seconds.

    Every library has timeouts of its own, multiplied by retries of its own: this one holds for all of them.
    """
    from fsspec.callbacks import Callback

    callback = Callback()
    future = asyncio.run_coroutine_threadsafe(start(callback), system.loop)
    came, since = 0, time.monotonic()
    try:
        while not concurrent.futures.wait([future], timeout=min(1.0, silence / 4)).done:
            if callback.value != came:
                came, since = callback.value, time.monotonic()
            elif time.monotonic() - since > silence:
                raise TimeoutError(f"nothing came for {silence:g} s")
        return future.result()
    finally:
        future.cancel()  # nothing, if it has ended
        concurrent.futures.wait([future], timeout=5)


def patiently(url: str, action: Callable[[], T], patience: Patience, path: Path | None = None) -> T:
    """`action()`, tried again after growing waits where that may help; raises `UserError` in the end.

    `path` is the file that the action writes: its errors are this machine's, which no waiting mends.
    """
    attempt = 1
    while True:
        try:
            return action()
        except Exception as error:
            reason = _why_again(url, error, path)
            tries = (
                min(patience.tries, _MISMATCH_TRIES)
                if isinstance(error, MismatchError)
                else patience.tries
            )
            if attempt >= tries:
                raise UserError(_given_up(shown(url), error, reason, attempt)) from error
        # A random part, so that a thousand processes do not come back at the same instant.
        wait = min(30.0, patience.wait * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
        attempt += 1
        print(f"{shown(url)}: {reason}; try {attempt} of {tries} in {wait:.1f} s", file=sys.stderr)
        time.sleep(wait)


def _given_up(url: str, error: Exception, reason: str, attempts: int) -> str:
    advice = "check the address and the network, then run the same command again"
    if isinstance(error, MismatchError):
        advice = (
            "the file there is damaged or another than the manifest names, put the right one there"
        )
    return f"{url}: {reason} ({attempts} {'try' if attempts == 1 else 'tries'}): {advice}"


def _why_again(url: str, error: Exception, path: Path | None) -> str:
    """The reason of a failure that another try may mend, in words; raises for all others."""
    if isinstance(error, (UserError, MismatchError)):
        if isinstance(error, UserError):
            raise error
        return str(error)
    _raise_if_local(error, path)
    _raise_if_refused(shown(url), error)
    network = isinstance(error, (OSError, asyncio.TimeoutError, EOFError))
    if not network and type(error).__module__.partition(".")[0] not in _LIBRARIES:
        raise error
    return re.sub(r"\s+", " ", str(error).replace(url, shown(url)))[:200] or type(error).__name__


def _raise_if_local(error: Exception, path: Path | None) -> None:
    if path is None or not isinstance(error, OSError):
        return
    if error.errno in _DISK or error.filename == str(path):
        error.filename = str(path)  # "no space left" should say where
        raise error


def _raise_if_refused(url: str, error: Exception) -> None:
    """Raise the one line for what the server will answer every time."""
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        raise UserError(f"{url} does not exist: check the address") from error
    if isinstance(error, PermissionError) or status in (401, 403):
        raise UserError(f"{url}: access denied: check the address and your credentials") from error
    if type(error).__name__ in _NO_CREDENTIALS:
        hint = "set AWS_PROFILE or the like, or for a public bucket FSSPEC_S3_ANON=true or FSSPEC_GS_TOKEN=anon"
        raise UserError(f"{url}: no credentials: {hint}") from error
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        raise UserError(f"{url}: the server answers {status}: check the address") from error


def _status(error: Exception) -> int | None:
    """The HTTP status that an error of aiohttp or gcsfs carries."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    try:
        return int(status) if status is not None else None
    except (TypeError, ValueError):
        return None
