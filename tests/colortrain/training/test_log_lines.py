"""Values of start lines and of the progress bar."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from colortrain.distributed.compute import ComputeConfig
from colortrain.training.log_lines import progress_fields, start_values


def test_start_lines_name_another_run_and_options_only_if_they_are_used() -> None:
    accelerator = Accelerator(cpu=True)
    values = {
        "images": 40,
        "dataset_id": "feed",
        "world": 1,
        "device": str(torch.device("cpu")),
        "mixed_precision": accelerator.mixed_precision,
    }
    plain = ComputeConfig()
    assert start_values(40, "feed", accelerator, None, plain) == values
    origin = {"run": "old", "step": 8}
    from_run = start_values(40, "feed", accelerator, origin, plain)
    assert from_run == {**values, "init_from": origin}
    options = ComputeConfig(resync=True, channels_last=True, compile=False)
    recorded = start_values(40, "feed", accelerator, None, options)
    assert recorded == {**values, "resync": True, "channels_last": True}


def test_the_progress_bar_shows_the_losses_there_are() -> None:
    losses = {"l1": 0.12345, "generator": 12.0, "score_real": 1.0}
    shown = progress_fields({"losses": losses, "data_wait": 0.0314})
    assert shown == {"generator": "12.000", "l1": "0.123", "data wait": "3.1%"}
    assert list(shown) == ["generator", "l1", "data wait"]
