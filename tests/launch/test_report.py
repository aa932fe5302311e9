"""The report: what it says of a run is what the run folder says, and the page works in a real browser."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from playwright.sync_api import Page

from launch.evaluate import main as evaluate
from launch.report.__main__ import main
from launch.report.photographs import Looked, _counts, look, photographs
from launch.report.run_history import read_story, sessions_of
from launch.report.summary import warnings
from launch.train import main as train
from shards.errors import UserError
from tests.support.browser import PHONE
from tests.support.small_run import SETTINGS
from tests.support.small_shard_set import small_set


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards, and two runs of six steps with three validations; the first went on once."""
    folder = tmp_path_factory.mktemp("report")
    small_set(folder / "shards", count=24, splits=("train", "val"))
    sets = [*SETTINGS, "batch_size=4", "log_every=1", "evaluate_every=2", "checkpoint_every=2"]
    for run, images, seed in (("one", 12, 0), ("one", 24, 0), ("two", 24, 1)):
        words = [
            "--recipe",
            "nampouri_unet",
            "--shards",
            str(folder / "shards"),
            "--run",
            str(folder / run),
        ]
        given = [word for setting in (*sets, f"seed={seed}") for word in ("--set", setting)]
        assert train([*words, "--images", str(images), "--tracker", "none", *given]) == 0
    assert main([str(folder / "one"), "--out", str(folder)]) == 0
    assert main([str(folder / "one"), str(folder / "two"), "--out", str(folder / "both")]) == 0
    return folder


def numbers(page: Page, table: str, column: int) -> list[float]:
    cells = page.locator(f"{table} tbody tr td:nth-of-type({column})").all_inner_texts()
    return [float(text.replace(",", "")) for text in cells if text]


def opened(page: Page, path: Path) -> Page:
    """The page from disk; anything else it asks for fails the test."""
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_timeout(200)
    assert [url for url in asked if not url.startswith("data:")] == [path.as_uri()]
    return page


def test_story_is_the_folders(place: Path) -> None:
    story = read_story(place / "one", "one")
    assert (len(story.train), len(story.validation), story.images) == (6, 4, 24)
    assert [(s.first, s.last, s.how) for s in story.sessions] == [
        (0, 12, "finished"),
        (12, 24, "finished"),
    ]
    assert story.metrics == story.validation[-1]["metrics"]
    assert [step for step, _ in story.samples] == [2, 3, 4, 6]


def test_sessions_tell_how_they_ended() -> None:
    def line(kind: str, images: int) -> dict[str, object]:
        return {"kind": kind, "step": images, "images": images, "time": 100.0 + images}

    lines = [
        line("start", 0),
        line("train", 4),
        line("stop", 4),
        line("start", 4),
        line("train", 8),
    ]
    lines += [line("start", 6), line("end", 9), line("start", 9)]
    assert [session.how for session in sessions_of(lines)] == [
        "stopped",
        "killed",
        "finished",
        "open",
    ]


def test_slider_goes_through_training(page: Page, place: Path) -> None:
    opened(page, place / "report.html")
    film = page.locator(".film").first
    assert film.locator("img:visible").count() == 1
    assert "step 6" in film.locator("output").inner_text()
    film.locator("input").focus()
    page.keyboard.press("Home")
    assert "step 2, 8 images" in film.locator("output").inner_text()
    assert film.locator("img").nth(0).is_visible()
    assert film.locator("img:visible").count() == 1


def test_table_sorts_by_its_heads(page: Page, place: Path) -> None:
    opened(page, place / "both" / "report.html")
    table = "#runs table"
    head = page.locator(f"{table} th button", has_text="PSNR, pooled")
    column = 5
    head.focus()
    page.keyboard.press("Enter")
    rising = numbers(page, table, column)
    assert len(rising) == 4  # two runs, grey and median; truth has none
    assert rising == sorted(rising)
    head.click()
    assert numbers(page, table, column) == rising[::-1]
    assert page.locator(f"{table} th[aria-sort=descending]").count() == 1


def test_curves_are_drawn_and_read_without_a_mouse(page: Page, place: Path) -> None:
    opened(page, place / "report.html")
    chart = page.locator(".chart", has_text="Reconstruction losses").first
    chart.locator("svg").focus()
    page.keyboard.press("ArrowLeft")
    last = read_story(place / "one", "one").train[-1]
    assert chart.locator(".reading").inner_text() == f"24 images: l1 {last['losses']['l1']:.4g}"


def test_legend_hides_a_line(page: Page, place: Path) -> None:
    opened(page, place / "both" / "report.html")
    chart = page.locator(".chart", has_text="Loss: l1").first
    assert chart.locator("path.curve").count() == 2
    chart.get_by_role("button", name="two").click()
    assert chart.locator("path.curve").count() == 1


@pytest.mark.parametrize("report", ["report.html", "both/report.html"])
def test_a_phone_shows_it_without_sideways_scrolling(page: Page, place: Path, report: str) -> None:
    page.set_viewport_size(PHONE)
    opened(page, place / report)
    assert page.evaluate("document.documentElement.scrollWidth") == PHONE["width"]


def test_dark_and_light_differ(page: Page, place: Path) -> None:
    opened(page, place / "report.html")
    colours = []
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme)
        colours.append(page.evaluate("getComputedStyle(document.body).backgroundColor"))
    assert colours == ["rgb(253, 252, 250)", "rgb(22, 21, 19)"]


def test_a_run_named_like_a_script_stays_text(page: Page, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "<img src=x onerror=alert(1)><!-- &lt;script>"
    run.symlink_to(place / "one")
    assert main([str(run), str(place / "two"), "--out", str(tmp_path / "out")]) == 0
    opened(page, tmp_path / "out" / "report.html")
    assert page.locator("#runs tbody th", has_text="<img src=x").count() == 1


def test_what_is_no_run_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"holds no run \(no recipe.json\)"):
        main([str(tmp_path), "--out", str(tmp_path / "out")])
    assert not (tmp_path / "out").exists()


def test_a_run_without_lines_is_told(page: Page, place: Path, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "recipe.json").write_bytes((place / "one" / "recipe.json").read_bytes())
    assert main([str(tmp_path / "run"), "--out", str(tmp_path)]) == 0
    opened(page, tmp_path / "report.html")
    assert page.locator("#summary").get_by_text("No held-out scores yet.").count() == 1


@pytest.fixture(scope="module")
def looked(place: Path) -> Looked:
    return look(place / "one", str(place / "shards"), 8)


def test_best_and_worst_are_ranked_by_their_gain_on_grey(looked: Looked) -> None:
    shown = photographs(looked, 3)
    gains = dict(zip(looked.numbers.tolist(), looked.gain.tolist(), strict=True))
    ranked = sorted(gains, key=lambda number: -gains[number])
    assert [photo["number"] for photo in shown["best"]] == ranked[:3]
    assert [photo["number"] for photo in shown["worst"]] == ranked[::-1][:3]
    assert shown["better"] == sum(gain > 0 for gain in gains.values())
    truth = torch.from_numpy(looked.truth)
    np.testing.assert_allclose(
        looked.rows["l1.grey"], truth[:, 1:].abs().mean(dim=(1, 2, 3)) / 110, rtol=1e-5
    )


def test_histograms_count_every_pixel_where_its_colour_lies() -> None:
    lab = np.zeros((1, 3, 2, 2), np.float32)
    lab[0, 1] = [[20, 20], [-110, 500]]  # beyond the reach: in the outermost cell
    lab[0, 2] = [[-40, -40], [0, 0]]
    counts = _counts(lab)
    middle = len(counts) // 2
    assert counts.sum() == 4
    assert counts[middle - 20, middle + 10] == 2
    assert counts[middle, 0] == counts[middle, -1] == 1


def test_before_and_after_slide(page: Page, place: Path) -> None:
    words = ["--shards", str(place / "shards"), "--photos", "8"]
    assert main([str(place / "one"), "--out", str(place / "photos"), *words]) == 0
    opened(page, place / "photos" / "report.html")
    stack = page.locator(".stack").first
    box = stack.bounding_box()
    assert box is not None

    def cut() -> float:
        return float(stack.evaluate("stack => getComputedStyle(stack).getPropertyValue('--cut')"))

    assert cut() == 0.5
    assert "inset" in stack.locator(".over.grey").evaluate(
        "image => getComputedStyle(image).clipPath"
    )
    stack.locator("input").focus()
    page.keyboard.press("End")
    assert cut() == 1
    stack.locator("input").click(position={"x": 0.25 * box["width"], "y": 0.5 * box["height"]})
    assert cut() == pytest.approx(0.25, abs=0.05)  # the line's own width is no part of the way
    page.get_by_label("as it is").check()
    assert stack.locator(".over.truth").is_visible()
    assert not stack.locator(".over.grey").is_visible()


def test_curves_mark_where_a_run_went_on(page: Page, place: Path) -> None:
    opened(page, place / "report.html")
    chart = page.locator(".chart", has_text="Reconstruction losses").first
    assert chart.locator("line.mark").count() == 1
    assert chart.locator("text", has_text="went on").count() == 1


def test_scores_of_the_evaluation_stand_with_their_intervals(
    page: Page, place: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "one", run)
    assert (
        evaluate(["--run", str(run), "--shards", str(place / "shards"), "--vgg16", "random"]) == 0
    )
    scores = json.loads((run / "evaluation.json").read_text())
    assert main([str(run), "--out", str(tmp_path)]) == 0
    opened(page, tmp_path / "report.html")
    row = page.locator("table.metrics tbody tr", has_text="L1 of ab").first
    low, high = scores["intervals"]["l1"]["generated"]
    assert f"{low:.4f} to {high:.4f}" in row.inner_text()
    assert page.get_by_text("VGG-16, random: comparable with nothing published").count() == 1
    assert page.get_by_text("not computed: fid").count() == 1
    page.locator("table.metrics th button", has_text="vs. grayscale").click()
    words = page.locator("table.metrics tbody tr td:nth-of-type(4)").all_inner_texts()
    said = [word for word in words if word]
    assert said == sorted(said)
    assert words[: len(said)] == said  # where nothing can be said is last, whichever way


@pytest.mark.parametrize(("step", "stands"), [(5, False), (6, True), (8, True)])
def test_scores_from_before_the_last_validation_are_not_the_runs(
    step: int, stands: bool, place: Path, tmp_path: Path
) -> None:
    shutil.copytree(place / "one", tmp_path / "run")
    evaluated = {"step": step, "metrics": {"l1": {"generated": 0.5}}}
    (tmp_path / "run" / "evaluation.json").write_text(json.dumps(evaluated))
    story = read_story(tmp_path / "run", "run")
    assert story.validation[-1]["step"] == 6
    assert story.scores == (evaluated if stands else story.validation[-1])


def test_a_run_that_diverged_has_a_page(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "one", run)
    last = read_story(run, "run").validation[-1]
    none = {name: dict.fromkeys(values) | {"grey": 0.1} for name, values in last["metrics"].items()}
    with open(run / "metrics.jsonl", "a") as stream:
        stream.write(json.dumps({**last, "step": 7, "metrics": none}) + "\n")
    assert main([str(run), str(place / "two"), "--out", str(tmp_path)]) == 0
    assert "No held-out scores yet." in (tmp_path / "report.html").read_text()


def test_warnings_of_the_journal_are_shown(place: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(place / "one", run)
    with open(run / "metrics.jsonl", "a") as stream:
        for step in (4, 5):
            line = {
                "kind": "warning",
                "step": step,
                "images": 4,
                "about": "critic",
                "text": f"it wins {step}",
            }
            stream.write(json.dumps(line) + "\n")
    assert "At step 5: it wins 5." in warnings(read_story(run, "run"))
    assert "At step 4: it wins 4." not in warnings(read_story(run, "run"))
