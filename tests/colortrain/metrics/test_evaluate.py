"""Generation and scoring: modes, random state, exact sums, any number of processes."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from colortrain.lab import LabCodec, SymmetricCodec, stored_to_lab
from colortrain.metrics.accuracy import mae
from colortrain.metrics.evaluate import (
    ScoringConfig,
    ScoringStoppedError,
    SplitScorer,
    generate,
    one_behind,
    predict_lab,
    score_split,
)
from colortrain.metrics.extractors import FeatureExtractors
from colortrain.metrics.image_metrics import image_versions, l1, per_image
from colortrain.metrics.network_metrics import inception_extractor
from colortrain.metrics.score_tables import compared_with_grayscale, text_table
from colortrain.metrics.set_metrics import LAB_FIELDS
from colortrain.models.fully_convolutional import FullyConvolutionalConfig
from shards.read.dataset import Split
from tests.colortrain.metrics.test_network_metrics import Small

CODEC = SymmetricCodec()


def read(split: Split) -> Tensor:
    return stored_to_lab(torch.from_numpy(split.read(range(len(split)))))


def test_one_image_has_no_distances_between_sets(split: Split, generator: nn.Module) -> None:
    one, two = (
        score_split(generator, CODEC, split, "cpu", ScoringConfig(limit=limit)) for limit in (1, 2)
    )
    assert set(two["metrics"]) - set(one["metrics"]) == {"frechet_lab"}
    assert one["protocol"]["left_out"] == {
        "distances between sets": "a split of two images or more"
    }
    assert two["protocol"]["left_out"] == {}


def test_a_diverged_network_has_nan_scores(split: Split, generator: nn.Module) -> None:
    with torch.no_grad():
        generator.head.weight.fill_(math.nan)  # type: ignore[union-attr, operator]
    result = score_split(generator, CODEC, split, "cpu", ScoringConfig(metrics="core"))["metrics"]
    assert all(math.isnan(result[name]["generated"]) for name in ("l1", "frechet_lab"))
    assert result["frechet_lab"]["grey"] > 0


def test_generate_keeps_lightness_flags_and_state(split: Split, generator: nn.Module) -> None:
    lab = read(split)
    generator.train()
    generator.encoder[1].eval()  # type: ignore[index, union-attr]
    flags = [module.training for module in generator.modules()]
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    result = generate(generator, CODEC, lab)
    assert torch.equal(result[:, :1], lab[:, :1])
    assert not result.requires_grad
    assert [module.training for module in generator.modules()] == flags
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    expected = 110 * generator.eval()(lab[:, :1] / 50 - 1)
    torch.testing.assert_close(result[:, 1:], expected.detach())


def test_generate_ignores_the_true_colours(split: Split, generator: nn.Module) -> None:
    lab = read(split)
    assert torch.equal(
        generate(generator, CODEC, lab),
        generate(generator, CODEC, lab * torch.tensor([1.0, 0, 0])[:, None, None]),
    )


def test_dropout_is_off_by_default_and_depends_on_its_seed_only(
    split: Split, generator: nn.Module
) -> None:
    lab = read(split)
    plain = generate(generator, CODEC, lab)
    assert torch.equal(generate(generator, CODEC, lab, seed=9), plain)
    torch.manual_seed(1)
    one = generate(generator, CODEC, lab, dropout=True, seed=9)
    torch.manual_seed(2)
    again = generate(generator, CODEC, lab, dropout=True, seed=9)
    assert torch.equal(one, again)
    assert not torch.equal(one, plain)
    assert not torch.equal(one, generate(generator, CODEC, lab, dropout=True, seed=10))
    # BatchNorm is in evaluation mode: images do not depend on the others in the batch
    torch.testing.assert_close(generate(generator, CODEC, lab[:1]), plain[:1])


def test_generate_restores_the_random_state(split: Split, generator: nn.Module) -> None:
    torch.manual_seed(5)
    expected = torch.rand(4)
    torch.manual_seed(5)
    generate(generator, CODEC, read(split), dropout=True, seed=1)
    assert torch.equal(torch.rand(4), expected)


def test_training_flags_are_restored_after_an_error(generator: nn.Module) -> None:
    generator.train()
    with pytest.raises(RuntimeError):
        generate(generator, CODEC, torch.zeros(1, 3, 24, 17))
    assert all(module.training for module in generator.modules())


def test_scores_are_means_over_all_images(split: Split, generator: nn.Module) -> None:
    scores = score_split(generator, CODEC, split, "cpu", ScoringConfig(batch_size=4))
    lab = read(split)
    generated = generate(generator, CODEC, lab)
    rows = per_image(image_versions(generated, lab))
    metrics = scores["metrics"]
    assert scores["samples"] == 13
    assert metrics["l1"]["generated"] == pytest.approx(float(l1(generated, lab).mean()), rel=1e-5)
    assert metrics["l1"]["grey"] == pytest.approx(float(lab[:, 1:].abs().mean()) / 110, rel=1e-5)
    assert metrics["psnr"]["generated"] == pytest.approx(
        float(rows["psnr.generated"].mean()), rel=1e-5
    )
    assert metrics["psnr_pooled"]["grey"] == pytest.approx(
        -10 * np.log10(float(rows["mse.grey"].mean())), rel=1e-5
    )
    assert metrics["psnr_pooled"]["grey"] < metrics["psnr"]["grey"]  # Jensen
    ratio = metrics["colourfulness"]["generated"] / metrics["colourfulness"]["truth"]
    assert metrics["colourfulness_ratio"]["generated"] == pytest.approx(ratio)


def test_own_lightness_is_scored_if_the_network_predicts_it(split: Split) -> None:
    torch.manual_seed(4)
    generator = FullyConvolutionalConfig(base_channels=4, levels=2).build()
    lab = read(split)
    predicted = predict_lab(generator, LabCodec(), lab)
    displayed = generate(generator, LabCodec(), lab)
    assert not torch.equal(predicted[:, :1], lab[:, :1])
    assert torch.equal(displayed, torch.cat([lab[:, :1], predicted[:, 1:]], dim=1))
    scores = score_split(generator, LabCodec(), split, "cpu", ScoringConfig(batch_size=4))
    metrics = scores["metrics"]
    assert metrics["mae"]["generated"] == pytest.approx(float(mae(predicted, lab).mean()), rel=1e-5)
    assert metrics["mae"]["generated"] > float(mae(displayed, lab).mean())
    assert metrics["accuracy_5"]["generated"] < metrics["accuracy_ab_5"]["generated"]
    assert metrics["l1"]["generated"] == pytest.approx(float(l1(displayed, lab).mean()), rel=1e-5)
    assert scores["protocol"]["lightness"] == "made"
    assert "L generated" in text_table(scores)


def test_given_lightness_is_exact(split: Split, generator: nn.Module) -> None:
    lab = read(split)
    assert torch.equal(predict_lab(generator, CODEC, lab), generate(generator, CODEC, lab))
    scores = score_split(generator, CODEC, split, "cpu")
    assert scores["protocol"]["lightness"] == "given"
    for percent in (2, 5):
        metrics = scores["metrics"]
        assert (
            metrics[f"accuracy_{percent}"]["generated"]
            == metrics[f"accuracy_ab_{percent}"]["generated"]
        )


def test_core_metrics_leave_out_only_the_slow_ones(split: Split, generator: nn.Module) -> None:
    core, complete = (
        score_split(generator, CODEC, split, "cpu", ScoringConfig(limit=4, metrics=depth))
        for depth in ("core", "all")
    )
    assert "ssim" not in core["metrics"]
    assert core["metrics"] == {
        name: values for name, values in complete["metrics"].items() if name != "ssim"
    }
    assert core["protocol"] == complete["protocol"]


def test_limit_selects_the_first_samples(split: Split, generator: nn.Module) -> None:
    scores = score_split(generator, CODEC, split, "cpu", ScoringConfig(batch_size=4, limit=5))
    assert scores["samples"] == 5
    assert scores["metrics"]["l1"]["grey"] == pytest.approx(
        float(read(split)[:5, 1:].abs().mean()) / 110, rel=1e-5
    )


def test_a_scorer_scores_baselines_once_and_any_generator_like_a_new_scorer(
    split: Split, generator: nn.Module
) -> None:
    extracted: list[int] = []

    class Counting(Small):
        def forward(self, rgb: Tensor) -> tuple[Tensor, Tensor]:
            extracted.append(len(rgb))
            return super().forward(rgb)

    extractors = (LAB_FIELDS, inception_extractor(Counting(), splits=2))
    config = ScoringConfig(batch_size=4, extractors=FeatureExtractors(extractors))
    scorer = SplitScorer(CODEC, split, torch.device("cpu"), config)
    counts = []
    for change in (1, 0.5, math.nan):
        with torch.no_grad():
            generator.head.weight.mul_(change)  # type: ignore[union-attr, operator]
        extracted.clear()
        scores = json.dumps(scorer.score(generator))
        counts.append(sum(extracted))
        # the order of the versions is equal too, and NaN has a text
        assert scores == json.dumps(score_split(generator, CODEC, split, "cpu", config))
    # generated images, two baselines and the truth; then generated images only
    assert counts == [4 * 13, 13, 13]


def test_one_behind_makes_an_item_before_it_yields_the_one_before() -> None:
    made: list[int] = []

    def make(number: int) -> int:
        made.append(number)
        return number

    seen = [(item, max(made)) for item in one_behind(map(make, range(3)))]
    assert seen == [(0, 1), (1, 2), (2, 2)]
    assert list(one_behind([])) == []


def test_any_number_of_threads_gives_the_same_bits(split: Split, generator: nn.Module) -> None:
    threads = torch.get_num_threads()
    result = []
    for count in (1, 2, 3):
        torch.set_num_threads(count)
        result.append(score_split(generator, CODEC, split, "cpu", ScoringConfig(batch_size=3)))
        assert torch.get_num_threads() == count
    torch.set_num_threads(threads)
    assert result[0] == result[1] == result[2]


def test_progress_counts_up_to_all_samples(split: Split, generator: nn.Module) -> None:
    reported: list[int] = []
    score_split(
        generator, CODEC, split, "cpu", ScoringConfig(batch_size=4), progress=reported.append
    )
    assert reported == [4, 8, 12, 13]


@pytest.mark.parametrize("rank", range(3))
def test_all_ranks_ask_equally_often_whether_to_stop(
    split: Split, generator: nn.Module, rank: int
) -> None:
    """13 samples are four chunks of 4: rank 0 has two of them, the others one.

    Otherwise a collective operation in `should_stop` would hang.
    """
    asked: list[None] = []

    def stop_at_the_second() -> bool:
        asked.append(None)
        return len(asked) == 2

    with pytest.raises(ScoringStoppedError):
        score_split(
            generator,
            CODEC,
            split,
            "cpu",
            ScoringConfig(batch_size=4),
            rank=rank,
            world=3,
            should_stop=stop_at_the_second,
        )
    assert len(asked) == 2


def test_tables_compare_every_metric_with_the_grayscale_baseline(
    split: Split, generator: nn.Module
) -> None:
    scores = score_split(generator, CODEC, split, "cpu", ScoringConfig(limit=4))
    values = scores["metrics"]["l1"]
    low, high = scores["intervals"]["l1"]["generated"]
    text = text_table(scores)
    (row,) = [line for line in text.splitlines() if line.startswith("L1 of ab / 110 ")]
    interval = f"{low:.4f} to {high:.4f}"
    assert row.split("  ")[0] == "L1 of ab / 110"
    assert interval in row
    for version in ("generated", "grey", "median"):
        assert f" {values[version]:.4f}" in row
    assert scores["protocol"]["dataset_id"] in text
    assert "4 samples" in text
    assert len(text.splitlines()) == 3 + len(scores["metrics"])  # caption, head, note


@pytest.mark.parametrize(
    ("metric", "ends", "word"),
    [
        ("l1", [-0.2, -0.1], "better"),
        ("l1", [0.1, 0.2], "worse"),
        ("l1", [-0.1, 0.1], "level"),
        ("psnr", [0.1, 0.2], "better"),
        ("sepia", [0.1, 0.2], ""),
        ("frechet_lab", None, ""),
    ],
)
def test_better_than_grayscale_requires_an_interval_without_zero(
    metric: str, ends: list[float] | None, word: str
) -> None:
    assert (
        compared_with_grayscale(
            {"intervals": {metric: {"generated - grey": ends}} if ends else {}}, metric
        )
        == word
    )
