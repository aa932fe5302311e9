"""Tests of storage backends: URLs, and what each scheme needs."""

from __future__ import annotations

import sys

import pytest

from shards.errors import UserError
from shards.read.backends import (
    BACKENDS,
    backend_of,
    credential_advice,
    filesystem,
    join_url,
    redact,
    scheme_of,
)


@pytest.mark.parametrize(
    ("location", "scheme"),
    [("s3://bucket/set", "s3"), ("HTTPS://host/a", "https"), ("/data/set", None), ("a:0.7", None)],
)
def test_scheme_of(location: str, scheme: str | None) -> None:
    assert scheme_of(location) == scheme


def test_redact_removes_password_and_query() -> None:
    assert redact("https://me:secret@host:8/a/b?key=secret#x") == "https://host:8/a/b"


def test_join_url_keeps_the_query_at_the_end() -> None:
    assert (
        join_url("https://host/set/?key=1", "train/0.tar") == "https://host/set/train/0.tar?key=1"
    )
    assert join_url("s3://bucket/set", "manifest.json") == "s3://bucket/set/manifest.json"


def test_redact_keeps_what_is_part_of_the_address() -> None:
    url = "abfs://container@account.dfs.core.windows.net/set"
    assert redact(url) == url
    assert redact("sftp://me:secret@host/set") == "sftp://me@host/set"


def test_no_scheme_belongs_to_two_backends() -> None:
    schemes = [scheme for backend in BACKENDS for scheme in backend.schemes]
    assert len(schemes) == len(set(schemes))
    assert all(backend_of(f"{scheme}://x/y").schemes for scheme in schemes)


def test_a_missing_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(UserError, match=r"a package is missing .*colortrain\[gcs\]"):
        filesystem("gs://bucket/set")


def test_an_unknown_scheme_is_one_line() -> None:
    with pytest.raises(UserError, match=r"^nosuch://x: unsupported URL"):
        filesystem("nosuch://x")
    assert "fsspec" in credential_advice("abfs://container@account/set")
