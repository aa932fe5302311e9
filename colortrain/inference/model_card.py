"""The model card of an exported network: what it is, how to use it, what it scored, its limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from colortrain.inference.colorizer import Colorizer, Description
from colortrain.models.initialise import num_parameters
from colortrain.recipe import Recipe
from colortrain.runs.history import read_document, read_journal
from colortrain.runs.layout import evaluation_file

_SHOWN = {
    "l1": "L1 (ab / 110), lower is better",
    "psnr": "PSNR, dB",
    "ssim": "SSIM",
    "mae": "MAE",
    "accuracy_5": "accuracy at 5 %",
    "colourfulness_ratio": "colourfulness / truth, 1 is right",
}
_BESIDE = {"generated": "this network", "grey": "grey", "median": "one constant colour"}
_HEAD = """\
---
library_name: colortrain
pipeline_tag: image-to-image
tags:
- image-colorization
- gan
---
"""
_USE = """\
## Use

```python
import colortrain{download}

network = colortrain.load({folder})
coloured = network.colorize(photograph)  # uint8 (H, W, 3) or (H, W), or a PIL image
```
"""
_LIMITS = """\
## Limits

The colours are plausible at best: they are guesses from lightness, not what was there. The network sees a photograph
at {size} x {size} pixels, so small things take the colour of what surrounds them; the lightness is the photograph's
own. It knows what its training photographs show and nothing else. No licence is stated here; that of the training
photographs may bind.
"""


def model_card(name: str, network: Colorizer, recipe: Recipe, run: Path) -> str:
    """README.md for an export of `run` to a folder or a repository `name` ("me/old-photos").

    The run's metrics.jsonl and evaluation.json are used where they are there.
    """
    parts = [
        _HEAD,
        f"# {name}\n\nGives black-and-white photographs colours; trained by colortrain's recipe `{recipe.name}`.\n",
        _use(name),
        _facts(network, recipe, run),
        _scores(read_document(evaluation_file(run)), network.description),
        _LIMITS.format(size=network.description.size),
    ]
    return "\n".join(part for part in parts if part)


def is_model_card(text: str) -> bool:
    """Whether a README.md is one of `model_card`."""
    return text.startswith(_HEAD)


def _use(name: str) -> str:
    if "/" not in name:
        return _USE.format(download="", folder='"FOLDER"')
    download = "\nfrom huggingface_hub import snapshot_download"
    return _USE.format(download=download, folder=f'snapshot_download("{name}")')


def _facts(network: Colorizer, recipe: Recipe, run: Path) -> str:
    about = network.description
    rows = {
        "generator": f"{type(about.generator).__name__}, {num_parameters(network.generator):,} parameters",
        "trained at": f"{about.size} x {about.size} pixels, batches of {recipe.batch_size}",
        "images seen": f"{about.images:,} (step {about.step:,})",
        "weights": "averaged over training" if about.weights == "ema" else "of the last step",
        "dropout when colouring": "on" if about.test_dropout else "off",
        "data set": f"`{about.dataset_id}`",
        **_training(run),
    }
    lines = [f"| {name} | {value} |" for name, value in rows.items()]
    return "\n".join(["## Training", "", "| | |", "|---|---|", *lines, ""])


def _training(run: Path) -> dict[str, str]:
    starts = read_journal(run, "start")
    seconds = sum(line.get("seconds", 0.0) for line in read_journal(run, "train"))
    if not starts or not seconds:
        return {}
    last = starts[-1]
    machine = f"{last.get('world', 1)} x {str(last.get('device', '')).partition(':')[0]}"
    return {
        "time": f"{seconds / 60:,.0f} minutes on {machine}, precision {last.get('mixed_precision', 'no')}"
    }


def _scores(evaluation: dict[str, Any], about: Description) -> str:
    """The table of scores, if they are of this step and of these weights."""
    if (evaluation.get("step"), evaluation.get("ema")) != (about.step, about.weights == "ema"):
        return "## Scores\n\nThis checkpoint has not been scored (`launch.evaluate`).\n"
    metrics, protocol = evaluation["metrics"], evaluation.get("protocol", {})
    rows = [
        f"| {title} | "
        + " | ".join(_number(metrics[name].get(version)) for version in _BESIDE)
        + " |"
        for name, title in _SHOWN.items()
        if name in metrics
    ]
    where = f"{evaluation.get('samples')} photographs of split `{protocol.get('split')}`, {protocol.get('size')} px"
    head = ["| | " + " | ".join(_BESIDE.values()) + " |", "|---|" + "--:|" * len(_BESIDE)]
    return "\n".join(
        [
            "## Scores",
            "",
            f"On {where}, data set `{protocol.get('dataset_id')}`:",
            "",
            *head,
            *rows,
            "",
        ]
    )


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) else ""
