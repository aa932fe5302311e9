"""Scoring on a GPU stand-in: the host waits once a chunk, and scores are the CPU's."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.support.gpu_stand_in.processes import needs_stand_in, run_on_gpus
from tests.support.score_on_gpu import CHUNK
from tests.support.small_shard_set import small_set

pytestmark = needs_stand_in

NUM_CHUNKS = 4


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What `score_on_gpu` writes, for four chunks of images."""
    folder = tmp_path_factory.mktemp("scores")
    shards = small_set(folder / "set", count=NUM_CHUNKS * CHUNK - 1)
    out = folder / "results.json"
    done = run_on_gpus("tests.support.score_on_gpu", [shards, out])
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(out.read_text())
    return document


def test_scores_equal_those_of_the_cpu(results: dict[str, Any]) -> None:
    assert results["cuda"]["scores"] == results["cpu"]["scores"]
    assert results["cpu"]["scores"][0]["bright_spots"]["generated"] > 0


def test_the_host_waits_for_two_events_a_chunk(results: dict[str, Any]) -> None:
    """One for the values of images, and one for features, which are copied with them.

    Nothing else waits, and no copy comes from memory that is not pinned.
    """
    for counts in results["cuda"]["events"]:
        assert counts.keys() == {
            "event.synchronize",
            "copy to device, pinned",
            "copy to host, pinned",
        }
        assert counts["event.synchronize"] == 2 * NUM_CHUNKS
        assert counts["copy to device, pinned"] == NUM_CHUNKS  # the images


def test_later_generators_are_scored_without_the_baselines(results: dict[str, Any]) -> None:
    first, later = (counts["copy to host, pinned"] for counts in results["cuda"]["events"])
    assert later < first / 2
