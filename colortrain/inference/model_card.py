"""The model card of an exported network: usage, training, scores and limitations."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from colortrain.inference.colorizer import Colorizer, Description
from colortrain.metrics.registry import Metric, ordered
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe
from colortrain.runs.history import read_evaluation, read_journal

_METRICS = ("l1", "psnr", "ssim", "mae", "accuracy_5", "colourfulness_ratio")
# versions of the images, as keys of scores, and their column titles
_COLUMNS = {
    "generated": "this network",
    "grey": "grayscale baseline",
    "median": "constant-colour baseline",
}
_HEAD = """\
---
library_name: colortrain
pipeline_tag: image-to-image
tags:
- image-colorization
- gan
---
"""
_USAGE = """\
## Usage

```python
import colortrain{download}

network = colortrain.load({folder})
coloured = network.colorize(photograph)  # uint8 (H, W, 3) or (H, W), or a PIL image
```

An ONNX file of this network returns ab in CIELAB units and no RGB image.
`colortrain.visualize.recolor(rgb, ab)` puts these colours on a photograph of any size and keeps
its lightness. To do the same without colortrain, combine ab with the photograph's own L, and
where the colour is outside sRGB, scale ab towards 0 until it fits: clipping the RGB channels
would change the lightness.
"""
_LIMITATIONS = """\
## Limitations

The colours are plausible guesses from the lightness; they need not be the original ones.
The network processes a photograph at {size} x {size} pixels, so small objects take the colour
of their surroundings; the lightness is that of the photograph. Results are poor for subjects
that the training photographs do not show. No licence is stated here; the licence of the
training photographs may apply.
"""


def model_card(name: str, network: Colorizer, recipe: Recipe, run: Path) -> str:
    """Return the text of README.md, the model card, for a network exported from `run`.

    `name` is the name of the exported folder, or of a Hugging Face repository such as
    "me/old-photos".
    """
    parts = [
        _HEAD,
        f"# {name}\n\nThis network colorizes grayscale photographs. It was trained with the recipe "
        f"`{recipe.name}` of colortrain.\n",
        _usage(name),
        _training(network, recipe, run),
        _scores(read_evaluation(run), network.description),
        _LIMITATIONS.format(size=network.description.size),
    ]
    return "\n".join(part for part in parts if part)


def is_model_card(text: str) -> bool:
    """Return whether this text of a README.md was written by `model_card`."""
    return text.startswith(_HEAD)


def _usage(name: str) -> str:
    if "/" not in name:
        return _USAGE.format(download="", folder='"FOLDER"')
    download = "\nfrom huggingface_hub import snapshot_download"
    return _USAGE.format(download=download, folder=f'snapshot_download("{name}")')


def _training(network: Colorizer, recipe: Recipe, run: Path) -> str:
    description = network.description
    parameters = num_parameters(network.generator)
    rows = {
        "generator": f"{type(description.generator).__name__}, {parameters:,} parameters",
        "image size": f"{description.size} x {description.size} pixels",
        "batch size": f"{recipe.batch_size}",
        "images seen": f"{description.images:,} (step {description.step:,})",
        "weights": "averaged over training" if description.weights == "ema" else "of the last step",
        "dropout when colorizing": "on" if description.test_dropout else "off",
        "dataset": f"`{description.dataset_id}`",
        **_time(run),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines, ""])


def _time(run: Path) -> dict[str, str]:
    starts = read_journal(run, "start")
    seconds = sum(line.get("seconds", 0.0) for line in read_journal(run, "train"))
    if not starts or not seconds:
        return {}
    last = starts[-1]
    machine = f"{last.get('world', 1)} x {str(last.get('device', '')).partition(':')[0]}"
    precision = last.get("mixed_precision", "no")
    return {"time": f"{seconds / 60:,.0f} minutes on {machine}, precision {precision}"}


def _scores(evaluation: dict[str, Any], description: Description) -> str:
    """Return the section with the network's scores, or one that says there are none."""
    # evaluation.json may be of another step or of other weights
    key = (description.step, description.weights == "ema")
    if (evaluation.get("step"), evaluation.get("ema")) != key or "metrics" not in evaluation:
        return "## Scores\n\nThis checkpoint has not been scored with `colortrain evaluate`.\n"
    metrics, protocol = evaluation["metrics"], evaluation.get("protocol", {})
    rows = [_row(metric, metrics[metric.name]) for metric in ordered(set(metrics) & set(_METRICS))]
    samples = (
        f"{evaluation.get('samples')} photographs of split `{protocol.get('split')}`, "
        f"{protocol.get('size')} px, dataset `{protocol.get('dataset_id')}`"
    )
    head = ["| | " + " | ".join(_COLUMNS.values()) + " |", "|---|" + "--:|" * len(_COLUMNS)]
    lines = ["## Scores", "", f"On {samples}:", "", *head, *rows, ""]
    return "\n".join(lines)


def _row(metric: Metric, values: Mapping[str, float | None]) -> str:
    cells = [f"{metric.label} {metric.symbol}", *(metric.text(values.get(v)) for v in _COLUMNS)]
    return f"| {' | '.join(cells)} |"
