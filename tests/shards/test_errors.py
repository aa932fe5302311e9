"""TODO."""

from __future__ import annotations


def test_a_bug_is_told_apart_from_images_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("shards", lambda _: 1 // 0) == 70
    assert "ZeroDivisionError" in capsys.readouterr().err
