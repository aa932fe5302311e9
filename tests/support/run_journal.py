"""Lines of metrics.jsonl, for tests that read run folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def write_journal(run: Path, *lines: dict[str, Any], incomplete: str = "") -> None:
    """Write metrics.jsonl; `incomplete` is a last line without its end."""
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (run / "metrics.jsonl").write_text(text + incomplete)


def start_line(step: int) -> dict[str, Any]:
    """Return the line of a start, with 4 images per step."""
    return {"kind": "start", "step": step, "images": 4 * step}


def train_line(step: int) -> dict[str, Any]:
    """Return a line of training: 4 images per step, 10 steps per epoch, 2 images/s."""
    return {
        "kind": "train",
        "step": step,
        "images": 4 * step,
        "epoch": step / 10,
        "images_per_second": 2.0,
    }
