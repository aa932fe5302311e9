"""Download files from URLs through fsspec, and retry after temporary failures."""

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

from shards.errors import UserError
from shards.files import sha256_of
from shards.read.backends import (
    CREDENTIAL_ERRORS,
    LIBRARIES,
    credential_advice,
    filesystem,
    redact,
)

T = TypeVar("T")

_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)  # retrying does not help
# A few attempts distinguish a faulty proxy from a wrong file on the server.
_MISMATCH_TRIES = 3
_MAX_ERROR_PAGE = 1 << 20  # bytes

Limit = Callable[[int | None, int], None]  # called with the size and the bytes received


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often to try a download, how long to wait, and when to give up an attempt."""

    tries: int = 6  # maximum number of attempts
    wait: float = 1.0  # seconds before the second attempt; doubles for each one, up to 30 s
    # An attempt ends when fewer than `least_speed` bytes per second have arrived in the
    # last `timeout` seconds.
    timeout: float = 60.0
    least_speed: float = 10_000.0


class MismatchError(Exception):
    """Raised if a download does not have the expected size or SHA-256."""


def fetch(
    url: str,
    path: Path,
    policy: RetryPolicy,
    *,
    max_bytes: int,
    bytes: int | None = None,
    sha256: str | None = None,
) -> None:
    """Download `url` to `path`, and check the size and the SHA-256 if they are given.

    Raises UserError if the file does not exist or is larger than `max_bytes`, access is
    denied, the content is wrong, or all attempts of `policy` fail.
    """

    def limit(size: int | None, received: int) -> None:
        """Raise an error if the stated size or the bytes received are too large."""
        # The size of a page with an error message may be stated before its status.
        most = max(received, (size or 0) - _MAX_ERROR_PAGE)
        if bytes is not None and most > bytes:
            raise MismatchError(f"received more than {bytes} bytes, expected {bytes}")
        if most > max_bytes:
            raise UserError(
                f"{redact(url)} has more than the {max_bytes:,} bytes allowed: check the address"
            )

    def attempt() -> None:
        _download(url, path, policy, limit)
        check(path, bytes, sha256)

    with_retries(url, attempt, policy, path)


def check(path: Path, bytes: int | None, sha256: str | None) -> None:
    """Raise MismatchError if a file does not have the given size and SHA-256."""
    found = path.stat().st_size
    if bytes is not None and found != bytes:
        raise MismatchError(f"received {found} bytes, expected {bytes}")
    if sha256 is not None and (digest := sha256_of(path)) != sha256:
        raise MismatchError(f"received SHA-256 {digest}, expected {sha256}")


def _download(url: str, path: Path, policy: RetryPolicy, limit: Limit) -> None:
    """Download `url` to `path`, and call `limit` with the size and the bytes received.

    Raises TimeoutError if the download is too slow for `policy`.
    """
    system, speed = filesystem(url), _SpeedCheck(policy)
    if system.async_impl:
        _download_async(system, url, path, speed, limit)
        return
    received = 0
    with system.open(url, "rb") as source, open(path, "wb") as target:
        while chunk := source.read(1 << 20):
            target.write(chunk)
            received += len(chunk)
            limit(None, received)
            speed.check(received)


def _download_async(system: Any, url: str, path: Path, speed: _SpeedCheck, limit: Limit) -> None:
    """Download on fsspec's thread, and cancel the download if it is too slow."""
    from fsspec.callbacks import Callback

    # The libraries have different timeouts and retries; these checks apply to all.
    callback = Callback(hooks={"limit": limit})
    future = asyncio.run_coroutine_threadsafe(
        system._get_file(url, str(path), callback=callback), system.loop
    )
    try:
        while not concurrent.futures.wait([future], timeout=min(1.0, speed.seconds / 4)).done:
            speed.check(callback.value)
        future.result()
    finally:
        future.cancel()  # has no effect if it has finished
        concurrent.futures.wait([future], timeout=5)


class _SpeedCheck:
    """Checks that enough bytes arrive in each period of `policy.timeout` seconds."""

    def __init__(self, policy: RetryPolicy) -> None:
        self.seconds, self._least = policy.timeout, policy.timeout * policy.least_speed
        self._received, self._since = 0, time.monotonic()

    def check(self, received: int) -> None:
        """Raise TimeoutError if too few bytes were received in the last period."""
        if time.monotonic() - self._since < self.seconds:
            return
        if (new := received - self._received) < self._least:
            amount = f"only {new:,} bytes in" if new else "no data for"
            raise TimeoutError(f"{amount} {self.seconds:g} s")
        self._received, self._since = received, time.monotonic()


def with_retries(
    url: str, action: Callable[[], T], policy: RetryPolicy, path: Path | None = None
) -> T:
    """Call `action` and return its result; retry errors that may be temporary.

    `path` is the file that the action writes; its errors are not retried. Raises
    UserError for permanent errors and after the last attempt.
    """
    attempt = 1
    while True:
        try:
            return action()
        except Exception as error:
            reason = _retry_reason(url, error, path)
            tries = policy.tries
            if isinstance(error, MismatchError):
                tries = min(tries, _MISMATCH_TRIES)
            if attempt >= tries:
                raise UserError(_failure_message(redact(url), error, reason, attempt)) from error
        # Randomised, so that many processes do not retry at the same time.
        wait = min(30.0, policy.wait * 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
        attempt += 1
        print(f"{redact(url)}: {reason}; try {attempt} of {tries} in {wait:.1f} s", file=sys.stderr)
        time.sleep(wait)


def _failure_message(url: str, error: Exception, reason: str, attempts: int) -> str:
    advice = "check the address and the network, then run the same command again"
    if isinstance(error, MismatchError):
        advice = "the file is damaged or does not belong to the manifest, replace it"
    return f"{url}: {reason} ({attempts} {'try' if attempts == 1 else 'tries'}): {advice}"


def _retry_reason(url: str, error: Exception, path: Path | None) -> str:
    """Return a message for an error that may be temporary; raise all other errors."""
    if isinstance(error, (UserError, MismatchError)):
        if isinstance(error, UserError):
            raise error
        return str(error)
    _raise_if_local(error, path)
    _raise_if_permanent(redact(url), error)
    network = isinstance(error, (OSError, asyncio.TimeoutError, EOFError))
    if not network and type(error).__module__.partition(".")[0] not in LIBRARIES:
        raise error
    return re.sub(r"\s+", " ", str(error).replace(url, redact(url)))[:200] or type(error).__name__


def _raise_if_local(error: Exception, path: Path | None) -> None:
    """Raise `error` again if it comes from writing `path` and not from the network."""
    if path is None or not isinstance(error, OSError):
        return
    if error.errno in _DISK_ERRORS or error.filename == str(path):
        error.filename = str(path)  # so that "no space left" names the file
        raise error


def _raise_if_permanent(url: str, error: Exception) -> None:
    """Raise UserError if a retry cannot fix `error`, such as a missing file."""
    status = _status(error)
    if isinstance(error, FileNotFoundError) or status in (404, 410):
        raise UserError(f"{url} does not exist: check the address") from error
    if isinstance(error, PermissionError) or status in (401, 403):
        raise UserError(f"{url}: access denied: check the address and your credentials") from error
    if type(error).__name__ in CREDENTIAL_ERRORS:
        raise UserError(f"{url}: no credentials: {credential_advice(url)}") from error
    if status is not None and 400 <= status < 500 and status not in (408, 425, 429):
        raise UserError(f"{url}: the server returned {status}: check the address") from error


def _status(error: Exception) -> int | None:
    """Return the HTTP status that an error of aiohttp or gcsfs contains, or None."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    try:
        return int(status) if status is not None else None
    except (TypeError, ValueError):
        return None
