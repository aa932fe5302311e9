"""The `colortrain serve` command: its errors, its address, and its end."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from launch.serve import main
from shards.errors import UserError
from tests.launch.serve.client import Site, post, request
from tests.support.processes import ROOT
from tests.support.small_run import small_run


def test_errors_of_the_command_are_one_line(site: Site, tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    small_run(tmp_path / "a" / "run")
    run = ["--run", str(tmp_path / "run")]
    with pytest.raises(UserError, match=f"cannot listen on 127.0.0.1:{site.port} .*another --port"):
        main([*run, "--port", str(site.port)])
    with pytest.raises(UserError, match=r"cannot listen on 203\.0\.113\.9"):
        main([*run, "--host", "203.0.113.9", "--port", "0"])
    with pytest.raises(UserError, match="is given twice"):
        main([*run, *run])
    with pytest.raises(UserError, match="contains no network"):
        main(["--run", str(tmp_path)])
    for host in ("https://hub.example.org", "*", "*.example.org", "hub.example.org/proxy", ""):
        with pytest.raises(UserError, match=r"--allow-host: must be a host name, .* got"):
            main([*run, "--allow-host", host])


def test_the_server_prints_its_address_and_stops_when_interrupted(tmp_path: Path) -> None:
    small_run(tmp_path / "run")
    line = [sys.executable, "-m", "launch.serve", "--run", str(tmp_path / "run"), "--port", "0"]
    line += ["--allow-host", "hub.example.org:8443"]
    with subprocess.Popen(line, cwd=ROOT, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout
            found = re.match(r"http://127\.0\.0\.1:(\d+)  ", server.stdout.readline())
            assert found
            site = Site(int(found[1]), {})
            assert request(site, "/")[0] == 200
            assert request(site, "/", headers={"Host": "hub.example.org:8443"})[0] == 200
            assert request(site, "/", headers={"Host": "elsewhere.example"})[0] == 400
            for origin, status in (("hub.example.org:8443", 422), ("hub.example.org", 403)):
                assert post(site, b"", Origin=f"https://{origin}")[0] == status
            server.send_signal(signal.SIGINT)
            assert server.wait(30) == 0
        finally:
            server.kill()
