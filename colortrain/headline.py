"""What a paper reports for its system, as a field of the recipe that reproduces it.

The figures were measured on the paper's own photographs and at its own size. Compare
them with the grayscale baseline there; they are no goal for other data.
"""

from __future__ import annotations

from dataclasses import dataclass

from colortrain.metrics.registry import metric_named


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One reported number; `metric` is a name in `colortrain.metrics.registry`."""

    metric: str
    value: float


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The figures that a paper reports, where it does, and what numbers cannot say."""

    source: str = ""  # "table 1"
    figures: tuple[Figure, ...] = ()
    note: str = ""

    def values(self) -> dict[str, float]:
        """Return the reported numbers by the name of their metric."""
        return {figure.metric: figure.value for figure in self.figures}

    def text(self) -> str:
        """Return everything in one line; empty if the recipe is of no paper."""
        figures = [f"{metric_named(f.metric).label} {f.value:g}" for f in self.figures]
        parts = "; ".join([*([", ".join(figures)] if figures else []), *filter(None, [self.note])])
        return f"{self.source}: {parts}" if self.source else parts


def reported(source: str, note: str = "", **values: float) -> Headline:
    """Return a headline from keyword arguments: `reported("table 1", mae=5.1)`."""
    figures = tuple(Figure(metric=name, value=value) for name, value in values.items())
    return Headline(source=source, figures=figures, note=note)
