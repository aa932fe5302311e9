"""The `colortrain export` command: folder, model card, ONNX, uploads and errors."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from io import BytesIO, TextIOWrapper
from pathlib import Path

import numpy as np
import pytest

import colortrain
from colortrain.recipe import load_recipe, save_recipe
from colortrain.recipes import get_recipe
from launch.export import FILES, main
from shards.errors import UserError
from tests.support.fake_hub import fake_hub
from tests.support.processes import ROOT
from tests.support.small_run import small_run
from tests.support.small_shard_set import photograph

SCORES = {"generated": 0.1234567, "grey": 0.2, "median": 0.3}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with two checkpoints, averaged weights, a journal and an evaluation."""
    folder = tmp_path_factory.mktemp("export") / "run"
    small_run(folder, settings=("ema.half_life=100",))
    small_run(folder, step=5, seed=1, settings=("ema.half_life=100",))
    start = {"kind": "start", "step": 0, "world": 2, "device": "cuda:0", "mixed_precision": "bf16"}
    steps: list[dict[str, object]] = [
        {"kind": "train", "step": step, "images": 4, "seconds": 300.0} for step in (1, 2)
    ]
    (folder / "metrics.jsonl").write_text("\n".join(map(json.dumps, [start, *steps])))
    protocol = {"split": "val", "size": 32, "dataset_id": "feed"}
    document = {
        "step": 5,
        "ema": True,
        "samples": 74,
        "protocol": protocol,
        "metrics": {"l1": SCORES},
    }
    (folder / "evaluation.json").write_text(json.dumps(document))
    return folder


def export(run: Path, *args: object) -> int:
    return main(["--run", str(run), *map(str, args)])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_exported_folder_loads_and_contains_the_onnx_model(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "exported"
    assert export(run, "--out", out, "--onnx", out / "net.onnx", "--checkpoint", 3) == 0
    assert names(out) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "net.onnx",
        "recipe.json",
    ]
    network = colortrain.load(out)
    assert (network.description.step, network.description.weights) == (3, "ema")
    cat = photograph("chelsea")
    expected = colortrain.load(run, checkpoint=3).colorize(cat)
    assert np.array_equal(network.colorize(cat), expected)
    assert load_recipe(out / "recipe.json") == load_recipe(
        run / "checkpoints" / "step-000000003" / "recipe.json"
    )
    assert "opset 18, largest difference from PyTorch" in capsys.readouterr().out


def test_no_ema_exports_the_weights_of_the_last_step(run: Path, tmp_path: Path) -> None:
    assert export(run, "--out", tmp_path / "exported", "--no-ema") == 0
    assert colortrain.load(tmp_path / "exported").description.weights == "generator"


def test_the_model_card_has_the_facts_and_scores_of_the_run(run: Path, tmp_path: Path) -> None:
    export(run, "--out", tmp_path / "old-photos")
    card = (tmp_path / "old-photos" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: colortrain\n")
    assert "\n# old-photos\n" in card
    assert "`colortrain.visualize.recolor(rgb, ab)` puts these colours on a photograph" in card
    assert "10 minutes on 2 x cuda, precision bf16" in card
    assert "| L1 of ab / 110 ↓ | 0.1235 | 0.2000 | 0.3000 |" in card
    assert "On 74 photographs of split `val`, 32 px, dataset `feed`" in card
    code = (
        card.split("```python\n")[1].split("```")[0].replace("FOLDER", str(tmp_path / "old-photos"))
    )
    namespace = {"photograph": photograph("chelsea")}
    exec(code, namespace)
    assert namespace["coloured"].shape == photograph("chelsea").shape


def test_scores_of_another_checkpoint_are_not_in_the_model_card(run: Path, tmp_path: Path) -> None:
    for name, options in (("earlier", ["--checkpoint", 3]), ("last", ["--no-ema"])):
        export(run, "--out", tmp_path / name, *options)
        assert "This checkpoint has not been scored" in (tmp_path / name / "README.md").read_text()


def test_files_are_overwritten_only_with_force(run: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("my own")
    for options in ([], ["--force"]):
        with pytest.raises(UserError, match="exists and is not an export"):
            export(run, "--out", mine, *options)
    assert names(mine) == ["README.md"]
    export(run, "--out", tmp_path / "exported", "--checkpoint", 3)
    with pytest.raises(UserError, match=r"contains an export: .*--force"):
        export(run, "--out", tmp_path / "exported")
    export(run, "--out", tmp_path / "exported", "--force")
    assert colortrain.load(tmp_path / "exported").description.step == 5
    (tmp_path / "net.onnx").touch()
    with pytest.raises(UserError, match=r"net\.onnx exists"):
        export(run, "--onnx", tmp_path / "net.onnx")


@pytest.mark.parametrize("written", range(4))
def test_an_interrupted_export_can_be_repeated(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: int
) -> None:
    out, replace = tmp_path / "exported", Path.replace

    def replace_some(temporary: Path, path: Path) -> Path:
        if len(names(out)) == written + 1:  # with the temporary file
            temporary.with_name(f".{path.name}.node.1.tmp").write_bytes(
                b"left behind by a killed process"
            )
            raise KeyboardInterrupt
        return replace(temporary, path)

    monkeypatch.setattr(Path, "replace", replace_some)
    with pytest.raises(KeyboardInterrupt):
        export(run, "--out", out)
    monkeypatch.undo()
    assert len(names(out)) == written + 1
    with pytest.raises(UserError, match=r"contains an export: .*--force"):
        export(run, "--out", out)
    assert export(run, "--out", out, "--force") == 0
    assert colortrain.load(out).description.step == 5


def test_a_readme_and_a_recipe_are_not_an_export(run: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine")
    save_recipe(get_recipe("nampouri_unet"), tmp_path / "recipe.json")
    with pytest.raises(UserError, match="exists and is not an export"):
        export(run, "--out", tmp_path, "--force")
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_folder_of_another_library_is_not_an_export(run: Path, tmp_path: Path) -> None:
    others = ["README.md", "config.json", "model.safetensors", "recipe.json"]
    for name in others:
        (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match="exists and is not an export"):
        export(run, "--out", tmp_path, "--force")
    assert [(tmp_path / name).read_text() for name in others] == ["{}"] * 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "nothing to write: give --out DIR or --onnx FILE.onnx"),
        (["--onnx", "net.pt"], "ends in .onnx"),
        (
            ["--onnx", "n.onnx", "--push", "me/x"],
            "--push uploads the folder of --out: give --out DIR",
        ),
        (["--out", "o", "--push", "a/b/c"], "--push a/b/c"),
        (["--out", "o", "--push", "me/x"], "requires a token"),
        (["--out", "o", "--checkpoint", "4"], "no intact checkpoint of step 4"),
    ],
)
def test_errors_are_one_line_before_any_work(
    options: list[str], message: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("launch.export.get_token", lambda: None)
    with pytest.raises(UserError) as raised:
        export(run, *options)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
    assert names(tmp_path) == []


def push(run: Path, out: Path, url: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Export in a separate process, because the library reads the URL when imported."""
    line = [sys.executable, "-m", "launch.export", "--run", str(run), "--out", str(out), *options]
    env = {
        **os.environ,
        "HF_ENDPOINT": url,
        "HF_TOKEN": "hf_secret",
        "HF_HOME": str(out.parent / "home"),
    }
    env = {name: value for name, value in env.items() if not name.lower().endswith("_proxy")}
    return subprocess.run(
        line, env=env, cwd=ROOT, capture_output=True, text=True, timeout=200, check=False
    )


def test_only_the_files_of_the_export_are_uploaded(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "exported"
    export(run, "--out", out, "--checkpoint", 3)
    (out / "diary.txt").write_text("private")
    with fake_hub() as hub:
        options = (
            "--force",
            "--push",
            "me/old-photos",
            "--private",
            "--onnx",
            str(out / "model.onnx"),
        )
        done = push(run, out, hub.url, *options)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == f"{hub.url}/me/old-photos"
    assert sorted(hub.files) == [
        "README.md",
        "config.json",
        "model.onnx",
        "model.safetensors",
        "recipe.json",
    ]
    assert all(hub.files[name] == (out / name).read_bytes() for name in hub.files)
    assert 'colortrain.load(snapshot_download("me/old-photos"))' in hub.files["README.md"].decode()
    (created,) = hub.created
    assert created["name"] == "old-photos"
    assert (
        created.get("visibility") == "private" or created["private"] is True
    )  # newer and older clients
    assert hub.tokens == {"Bearer hf_secret"}
    received = tmp_path / "received"
    received.mkdir()
    for name, data in hub.files.items():
        (received / name).write_bytes(data)
    assert colortrain.load(received).description.step == 5


@pytest.mark.parametrize(
    "url", ["{hub}/nowhere", "http://127.0.0.1:9"], ids=["refused", "no network"]
)
def test_a_failed_upload_is_a_one_line_error(run: Path, tmp_path: Path, url: str) -> None:
    with fake_hub() as hub:
        done = push(run, tmp_path / "exported", url.format(hub=hub.url), "--push", "me/old-photos")
    assert done.returncode == 2
    assert "uploading me/old-photos to the Hub failed (" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "model.safetensors" in names(tmp_path / "exported")


def test_an_export_is_complete_even_if_nothing_can_be_printed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "größe→"
    monkeypatch.setattr(sys, "stdout", TextIOWrapper(BytesIO(), "ascii"))
    with pytest.raises(UnicodeEncodeError):
        export(run, "--out", out, "--onnx", out / "model.onnx")
    assert names(out) == sorted([*FILES, "model.onnx"])
