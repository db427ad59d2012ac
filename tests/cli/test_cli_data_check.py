"""``perpixel data check``: what is printed, written and returned."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from perpixel.data.fixes import load_fixes, open_with_fixes


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Twelve pairs; one mask has a foreign id, one is missing, and ten images have blanks in their names."""
    root = tmp_path / "data"
    ids = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) // 500
    for index in range(12):
        name = f"a {index:02}.png" if index > 1 else f"a{index:02}.png"
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        light = np.random.default_rng(index).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(light).resize((48, 40), 0).save(root / "images" / name)
        mask = np.roll(ids, index, axis=1).astype(np.uint8)
        if index == 0:
            mask[5:9, 5:9] = 200
        Image.fromarray(mask).save(root / "masks" / name)
    (root / "masks" / "a01.png").unlink()
    return root


def test_data_check_errors_are_printed_with_files_why_and_repair(run_cli, data: Path) -> None:
    done = run_cli("data", "check", data)
    assert done.code == 1
    assert "error: unknown_ids" in done.out
    assert "masks/a00.png: 200 on 16 pixels" in done.out
    assert "error: missing_mask" in done.out
    assert "why: There is nothing to learn from them" in done.out
    assert "repair: Add the masks" in done.out
    assert "and 10 more; --json FILE lists all" in done.out  # 20 names with blanks
    assert "2 errors, 0 warnings" in done.out


def test_data_check_sound_data_returns_zero(run_cli, data: Path) -> None:
    (data / "masks" / "a00.png").unlink()
    for name in ("a00.png", "a01.png"):
        (data / "images" / name).unlink()
    done = run_cli("data", "check", data / "images", data / "masks")
    assert done.code == 0
    assert "nothing stands in the way of training" in done.out


def test_data_check_json_lists_every_file(run_cli, data: Path, tmp_path: Path) -> None:
    done = run_cli("data", "check", data, "--json", "-")
    found = {one["kind"]: one for one in json.loads(done.out)["findings"]}
    assert set(found["unknown_ids"]) == {"kind", "severity", "count", "files", "message", "why", "fix"}
    assert found["unknown_ids"]["files"] == ["masks/a00.png"]
    assert len(found["name_blank"]["files"]) == 20
    assert found["name_blank"]["severity"] == "note"


def test_data_check_fix_writes_a_file_that_opens_the_data(run_cli, data: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in data.rglob("*.png")}
    done = run_cli("data", "check", data, "--fix")
    assert "leaves out 2 images and rereads 0 masks; train with data.fixes=perpixel-fixes.yaml" in done.out
    file = tmp_path / "perpixel-fixes.yaml"
    assert yaml.safe_load(file.read_text())["exclude"] == ["images/a00.png", "images/a01.png"]
    assert len(open_with_fixes(data, load_fixes(file)).splits["all"]) == 10
    assert {path: path.read_bytes() for path in data.rglob("*.png")} == before
    again = run_cli("data", "check", data, "--fix")
    assert again.code == 2
    assert "is there already and would be lost" in again.err
    assert run_cli("data", "check", data, "--fix", "other.yaml").code == 1
    assert (tmp_path / "other.yaml").exists()
    assert run_cli("data", "check", data / "images", data / "masks", "--fix", "third.yaml").code == 1
    assert "a00.png" in (tmp_path / "third.yaml").read_text()


def test_data_check_fix_without_anything_to_mend_writes_nothing(run_cli, data: Path, tmp_path: Path) -> None:
    for name in ("images/a00.png", "masks/a00.png", "images/a01.png"):
        (data / name).unlink()
    assert "nothing that a mapping file could mend" in run_cli("data", "check", data, "--fix").out
    assert not (tmp_path / "perpixel-fixes.yaml").exists()


def test_data_check_wrong_requests_are_refused_before_the_work(run_cli, data: Path) -> None:
    done = run_cli("data", "check", data / "images", data / "masks", "x.yaml")
    assert done.code == 2
    assert "a third name is the file of --fix" in done.err
    done = run_cli("data", "check", data, "--fix", "none/x.yaml")
    assert done.code == 2
    assert "there is no folder" in done.err
    assert run_cli("data", "check", data, "--split", "val").code == 2


def test_data_check_html_writes_the_page(run_cli, data: Path, tmp_path: Path) -> None:
    done = run_cli("data", "check", data, "--html", "page.html", "--labels", "4", "--size", "20", "24", "--stride", "4")
    assert "page: page.html" in done.out
    assert "unknown_ids" in (tmp_path / "page.html").read_text()


def test_data_check_control_characters_of_names_do_not_reach_the_terminal(run_cli, data: Path) -> None:
    for kind in ("images", "masks"):
        (data / kind / "a 05.png").rename(data / kind / "a\x1b[31m05.png")
    done = run_cli("data", "check", data)
    assert "\x1b[31m" not in done.out
    assert "\\x1b[31m05.png" in done.out
