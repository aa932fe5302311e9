"""Assemble the report's page: one HTML file with style, script, data and images."""

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
from launch.report.curves import make_charts
from launch.report.embedded_images import sample_grids
from launch.report.run_history import RunHistory, Session
from launch.report.summary import END_LABELS, duration, summarize
from launch.report.tables import (
    METRIC_COLUMNS,
    comparison,
    metric_notes,
    metric_rows,
    protocol,
    recipe_rows,
)

_SCRIPTS = ("charts.js", "controls.js")


def render_page(histories: Sequence[RunHistory], photos: Sequence[Any] | None = None) -> str:
    """Return the report on the runs as one HTML page.

    photos: the data of each run's section of photographs, or None for no photographs.
    """
    style, script = _asset("page.css"), "\n".join(_asset(name) for name in _SCRIPTS)
    runs = [
        _run(history, len(histories), photos[i] if photos else None)
        for i, history in enumerate(histories)
    ]
    # By hashes of style and script, so that the page loads nothing from elsewhere.
    policy = (
        f"default-src 'none'; img-src data:; style-src '{_hash(style)}'; "
        f"script-src '{_hash(script)}'"
    )
    return (
        _environment()
        .get_template("page.html")
        .render(
            title=" · ".join(history.name for history in histories),
            created=time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
            policy=policy,
            style=Markup(style),
            script=Markup(script),
            runs=runs,
            columns=METRIC_COLUMNS,
            comparison=comparison(histories) if len(histories) > 1 else None,
            data=_script_safe({"charts": make_charts(histories), "timeline": timeline(histories)}),
        )
    )


def _run(history: RunHistory, num_runs: int, photos: Any) -> dict[str, Any]:
    return {
        "name": history.name,
        "summary": summarize(history),
        "photos": photos,
        "grids": sample_grids(history, num_runs),
        "metrics": metric_rows(history),
        "protocol": protocol(history),
        "notes": metric_notes(history),
        "recipe": recipe_rows(history),
        "sessions": [_session(session) for session in history.sessions],
    }


def _session(session: Session) -> dict[str, str]:
    return {
        "started": time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(session.started)),
        "duration": duration(session.ended - session.started),
        "end": END_LABELS[session.end],
        "images": f"{session.first:,} to {session.last:,}",
        "processes": f"{session.world} on {session.device}",
    }


def timeline(histories: Sequence[RunHistory]) -> list[dict[str, Any]]:
    """Return the name and the sessions of each run, to be drawn on a time line.

    A session lasts from one start of the run to its end.
    """
    return [
        {
            "name": history.name,
            "sessions": [
                {
                    "started": session.started,
                    "ended": session.ended,
                    "end": session.end,
                    "label": f"{END_LABELS[session.end]} at {session.last:,} images",
                }
                for session in history.sessions
            ],
        }
        for history in histories
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


def _script_safe(value: Any) -> Markup:
    """Return a value as JSON that can be placed inside a script element of HTML."""
    text = json.dumps(finite(value), separators=(",", ":"), allow_nan=False)
    # No text in the value can then end the element.
    return Markup(text.replace("<", "\\u003c"))
