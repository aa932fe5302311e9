"""Download files from URLs through fsspec.

Temporary failures are retried; permanent ones become a one-line UserError.
"""

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


@dataclass(frozen=True, kw_only=True)
class RetryPolicy:
    """How often and for how long to try a download.

    `tries` is the maximum number of attempts. `wait` is the time in seconds before the
    second attempt; it doubles for each further one, up to 30 s. An attempt ends after
    `timeout` seconds without data.
    """

    tries: int = 6
    wait: float = 1.0
    timeout: float = 60.0


class MismatchError(Exception):
    """Raised if a download does not have the expected size or SHA-256.

    The message states the received and the expected value.
    """


def fetch(
    url: str,
    path: Path,
    policy: RetryPolicy,
    *,
    bytes: int | None = None,
    sha256: str | None = None,
) -> None:
    """Download `url` to `path`, and check the size and the SHA-256 if they are given.

    Raises UserError if the file does not exist, access is denied, the content is wrong,
    or all attempts of `policy` fail.
    """

    def attempt() -> None:
        _download(url, path, policy.timeout)
        check(path, bytes, sha256)

    with_retries(url, attempt, policy, path)


def read(url: str, policy: RetryPolicy) -> bytes:
    """Return the content of a small file at `url`.

    Raises UserError if the file does not exist, access is denied, or all attempts of
    `policy` fail.
    """

    def attempt() -> bytes:
        system = filesystem(url)
        if not system.async_impl:
            return system.cat_file(url)
        return _run_with_timeout(system, lambda callback: system._cat_file(url), policy.timeout)

    return with_retries(url, attempt, policy)


def check(path: Path, bytes: int | None, sha256: str | None) -> None:
    """Raise MismatchError if a file does not have the given size and SHA-256.

    A value of None is not checked.
    """
    found = path.stat().st_size
    if bytes is not None and found != bytes:
        raise MismatchError(f"received {found} bytes, expected {bytes}")
    if sha256 is not None and (digest := sha256_of(path)) != sha256:
        raise MismatchError(f"received SHA-256 {digest}, expected {sha256}")


def _download(url: str, path: Path, timeout: float) -> None:
    system = filesystem(url)
    if not system.async_impl:
        system.get_file(url, str(path))
        return

    def start(callback: Any) -> Any:
        return system._get_file(url, str(path), callback=callback)

    _run_with_timeout(system, start, timeout)


def _run_with_timeout(system: Any, start: Callable[[Any], Any], timeout: float) -> Any:
    """Run a download on fsspec's thread; cancel it after `timeout` s without data.

    `start(callback)` returns the coroutine of the download, which reports received
    bytes to the callback. Raises TimeoutError if the download is cancelled. The
    libraries have different timeouts and retries; this timeout applies to all of them.
    """
    from fsspec.callbacks import Callback

    callback = Callback()
    future = asyncio.run_coroutine_threadsafe(start(callback), system.loop)
    received, since = 0, time.monotonic()
    try:
        while not concurrent.futures.wait([future], timeout=min(1.0, timeout / 4)).done:
            if callback.value != received:
                received, since = callback.value, time.monotonic()
            elif time.monotonic() - since > timeout:
                raise TimeoutError(f"no data for {timeout:g} s")
        return future.result()
    finally:
        future.cancel()  # has no effect if it has finished
        concurrent.futures.wait([future], timeout=5)


def with_retries(
    url: str, action: Callable[[], T], policy: RetryPolicy, path: Path | None = None
) -> T:
    """Call `action` and return its result; retry errors that may be temporary.

    The waits between the attempts follow `policy`. `path` is the file that the action
    writes: errors of this file are local and are not retried. Raises UserError for
    permanent errors and after the last attempt.
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
    """Raise UserError if `error` is one that a retry cannot fix.

    For example, the file does not exist or access is denied.
    """
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
    """Return the HTTP status of an error of aiohttp or gcsfs, or None without one."""
    status = getattr(error, "status", None) or getattr(error, "code", None)
    try:
        return int(status) if status is not None else None
    except (TypeError, ValueError):
        return None
