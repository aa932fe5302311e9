"""The page itself: one HTML file that carries its style, its script, its numbers and its pictures.

A content security policy names the style and the script by hash and allows nothing else: no request leaves the page.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from colortrain.serialize import finite
from launch.report.curves import charts_of
from launch.report.embedded_images import frames
from launch.report.run_history import Story
from launch.report.summary import duration, summary
from launch.report.tables import (
    METRIC_COLUMNS,
    below_metrics,
    comparison,
    metric_rows,
    protocol,
    recipe_rows,
)

_SCRIPTS = ("charts.js", "controls.js")
_HOW = {
    "finished": "finished",
    "stopped": "stopped by a signal",
    "killed": "killed",
    "open": "running, or killed",
}


def page(stories: Sequence[Story], photos: Sequence[Any] | None = None) -> str:
    """The whole file. `photos`: for each run what `launch.report.photographs` made of it, or None."""
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    runs = [
        _run(story, len(stories), photos[i] if photos else None) for i, story in enumerate(stories)
    ]
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=" · ".join(story.name for story in stories),
            made=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            policy=f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; script-src '{_hash(script)}'",
            style=Markup(style),
            script=Markup(script),
            runs=runs,
            columns=METRIC_COLUMNS,
            comparison=comparison(stories) if len(stories) > 1 else None,
            data=_inert({"charts": charts_of(stories), "timeline": timeline(stories)}),
        )
    )


def _run(story: Story, runs: int, photos: Any) -> dict[str, Any]:
    return {
        "name": story.name,
        "summary": summary(story),
        "photos": photos,
        "frames": frames(story, runs),
        "metrics": metric_rows(story),
        "protocol": protocol(story),
        "notes": below_metrics(story),
        "recipe": recipe_rows(story),
        "sessions": [_session(session) for session in story.sessions],
    }


def _session(session: Any) -> dict[str, str]:
    began = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(session.began))
    return {
        "began": began,
        "lasted": duration(session.ended - session.began),
        "how": _HOW[session.how],
        "images": f"{session.first:,} to {session.last:,}",
        "where": f"{session.world} on {session.device}",
    }


def timeline(stories: Sequence[Story]) -> list[dict[str, Any]]:
    """For each run its sessions on the clock, and the moments of its checkpoints' scores."""
    return [
        {
            "name": story.name,
            "sessions": [
                {
                    "began": s.began,
                    "ended": s.ended,
                    "how": s.how,
                    "told": f"{_HOW[s.how]} at {s.last:,} images",
                }
                for s in story.sessions
            ],
        }
        for story in stories
    ]


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("launch.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _asset(name: str) -> str:
    return files("launch.report").joinpath("page", name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _inert(value: Any) -> Markup:
    """JSON that cannot end the script element it stands in."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", "\\u003c"))
