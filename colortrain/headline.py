"""The scores that a paper reports, stored in the recipe that reproduces it.

The scores were measured on the paper's own photographs and at its own image size.
Compare them with the grayscale baseline on the same photographs; they are no target for
other data.
"""

from __future__ import annotations

from dataclasses import dataclass

from colortrain.metrics.registry import metric_named


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One reported score; `metric` is a name in `colortrain.metrics.registry`."""

    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The scores that a paper reports, their place in the paper, and a note."""

    source: str = ""  # place in the paper, for instance "table 1"
    figures: tuple[Figure, ...] = ()
    note: str = ""  # what the scores do not show

    def values(self) -> dict[str, float]:
        """Return the reported scores by metric name."""
        return {figure.metric: figure.value for figure in self.figures}

    def text(self) -> str:
        """Return everything on one line; "" if the recipe reproduces no paper."""
        figures = [f"{metric_named(f.metric).label} {f.value:g}" for f in self.figures]
        parts = "; ".join([*([", ".join(figures)] if figures else []), *filter(None, [self.note])])
        return f"{self.source}: {parts}" if self.source else parts


def reported(source: str, note: str = "", **values: float) -> Headline:
    """Return a headline from keyword arguments: `reported("table 1", mae=5.1)`."""
    figures = tuple(Figure(metric=name, value=value) for name, value in values.items())
    return Headline(source=source, figures=figures, note=note)
