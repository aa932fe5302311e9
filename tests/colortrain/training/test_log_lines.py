"""Values of start lines and of the progress bar."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from colortrain.training.log_lines import progress_fields, start_values


def test_start_lines_name_another_run_only_if_its_weights_are_used() -> None:
    accelerator = Accelerator(cpu=True)
    values = {
        "images": 40,
        "dataset_id": "feed",
        "world": 1,
        "device": str(torch.device("cpu")),
        "mixed_precision": accelerator.mixed_precision,
    }
    assert start_values(40, "feed", accelerator, None) == values
    assert start_values(40, "feed", accelerator, None, resync=True) == {**values, "resync": True}
    origin = {"run": "old", "step": 8}
    assert start_values(40, "feed", accelerator, origin) == {**values, "init_from": origin}


def test_the_progress_bar_shows_the_losses_there_are() -> None:
    losses = {"l1": 0.12345, "generator": 12.0, "score_real": 1.0}
    shown = progress_fields({"losses": losses, "data_wait": 0.0314})
    assert shown == {"generator": "12.000", "l1": "0.123", "data wait": "3.1%"}
    assert list(shown) == ["generator", "l1", "data wait"]
