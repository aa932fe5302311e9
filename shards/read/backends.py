"""Storage backends: how to access each kind of URL (https, s3, gs, ...) through fsspec.

Downloading and retrying are in `shards.read.remote`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from shards.errors import UserError

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_BLOCK_BYTES = 8 << 20


@dataclass(frozen=True, kw_only=True)
class Backend:
    """How to access the URLs with one of `schemes`."""

    schemes: tuple[str, ...]
    extra: str = "remote"  # installs the packages: `pip install colortrain[EXTRA]`
    libraries: tuple[str, ...] = ()  # packages whose exceptions may be temporary
    credential_errors: tuple[str, ...] = ()  # names of exceptions for missing credentials
    credential_advice: str = ""  # how to provide them
    # Returns the arguments of fsspec's file system whose defaults do not suit large
    # files on clusters.
    options: Callable[[], dict[str, Any]] = dict


def _http_options() -> dict[str, Any]:
    import aiohttp

    # By default aiohttp aborts requests after five minutes and ignores proxies.
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return {"client_kwargs": {"timeout": timeout, "trust_env": True}}


def _s3_options() -> dict[str, Any]:
    # Ten concurrent blocks of 50 MiB, the default, time out on a slow connection.
    return {"default_block_size": _BLOCK_BYTES, "max_concurrency": 4}


# Any other scheme that fsspec supports works too. An entry is for a scheme that
# requires its own options, package or advice; its package must be in an extra in
# pyproject.toml.
BACKENDS = (
    Backend(
        schemes=("http", "https"),
        libraries=("aiohttp", "requests", "urllib3"),
        options=_http_options,
    ),
    Backend(
        schemes=("s3", "s3a"),
        libraries=("aiobotocore", "botocore", "s3fs"),
        credential_errors=("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound"),
        credential_advice="set AWS_PROFILE or similar, or FSSPEC_S3_ANON=true for a public bucket",
        options=_s3_options,
    ),
    Backend(
        schemes=("gs", "gcs"),
        extra="gcs",
        libraries=("gcsfs", "google"),
        credential_errors=("DefaultCredentialsError",),
        credential_advice="run `gcloud auth application-default login`, or set "
        "FSSPEC_GS_TOKEN=anon for a public bucket",
    ),
)
_OTHER = Backend(schemes=(), libraries=("fsspec",))
LIBRARIES = frozenset(name for backend in (*BACKENDS, _OTHER) for name in backend.libraries)
CREDENTIAL_ERRORS = frozenset(name for each in BACKENDS for name in each.credential_errors)


def backend_of(url: str) -> Backend:
    """Return the backend for the scheme of a URL, by default one without options."""
    scheme = scheme_of(url)
    return next((backend for backend in BACKENDS if scheme in backend.schemes), _OTHER)


def credential_advice(url: str) -> str:
    """Return a text that says how to provide the credentials for a URL."""
    return backend_of(url).credential_advice or "see fsspec's documentation for this scheme"


def scheme_of(location: str) -> str | None:
    """Return the scheme of a URL (`s3` for `s3://bucket/set`), None for a path."""
    match = _SCHEME.match(location)
    return match[1].lower() if match else None


def redact(url: str) -> str:
    """Return the URL without passwords and without the query, for messages."""
    # The query may contain a signature. In an http(s) URL, all text before @ is a login
    # and is removed. In other URLs the text before @ belongs to the address
    # (abfs://container@account/...), so only a password in it is removed.
    parts = urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    name = login.partition(":")[0]
    if name and parts.scheme not in ("http", "https"):
        host = f"{name}@{host}"
    return urlunsplit((parts.scheme, host, parts.path, "", ""))


def join_url(base: str, relative: str) -> str:
    """Return the URL of the file `relative` in the folder `base`, keeping the query."""
    parts = urlsplit(base)
    return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/{relative}"))


def filesystem(url: str) -> Any:
    """Return fsspec's file system object for a URL.

    Raises UserError for an unknown scheme or a missing package.
    """
    backend = backend_of(url)
    try:
        import fsspec

        # fsspec reuses one object within a process and creates a new one after a fork.
        return fsspec.filesystem(scheme_of(url), **backend.options())
    except ImportError as error:
        extra = backend.extra
        hint = f"pip install 'colortrain[{extra}]', or install what fsspec requires for this scheme"
        raise UserError(f"{redact(url)}: a package is missing ({error}): {hint}") from None
    except ValueError as error:
        raise UserError(
            f"{redact(url)}: unsupported URL ({error}): give a folder, or a URL with s3://, "
            "gs://, https:// or another scheme of fsspec"
        ) from None
