"""The scores that a paper reports, stored in the recipe that reproduces the paper."""

from __future__ import annotations

from dataclasses import dataclass

from colortrain.metrics.registry import metric_named


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One score that a paper reports."""

    metric: str  # its name in `colortrain.metrics.registry`
    value: float


@dataclass(frozen=True, kw_only=True)
class Headline:
    """The scores that a paper reports, where in the paper they are, and a note."""

    # The authors measured the scores on their own photographs and at their own image
    # size. Compare them with the scores of the grayscale baseline on those photographs;
    # they are no target for other data.
    source: str = ""  # place in the paper, for instance "table 1"
    figures: tuple[Figure, ...] = ()
    note: str = ""  # what the scores do not show

    def values(self) -> dict[str, float]:
        """Return a dict that maps metric names to the reported scores."""
        return {figure.metric: figure.value for figure in self.figures}

    def text(self) -> str:
        """Return the source, scores and note in one line, or "" if there are none."""
        figures = [f"{metric_named(f.metric).label} {f.value:g}" for f in self.figures]
        parts = "; ".join([*([", ".join(figures)] if figures else []), *filter(None, [self.note])])
        return f"{self.source}: {parts}" if self.source else parts


def reported(source: str, note: str = "", **values: float) -> Headline:
    """Return a `Headline` from scores that are given as keyword arguments.

    The keywords are names of metrics, as in `reported("table 1", mae=5.1)`.
    """
    figures = tuple(Figure(metric=name, value=value) for name, value in values.items())
    return Headline(source=source, figures=figures, note=note)
