"""The page of `perpixel data check --html`: self-contained, with pictures, and safe against what files are named."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.inspection.inspect import inspect_data
from perpixel.errors import RunError
from perpixel.report.data_page import write_data_page


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "mine"
    ids = np.arange(40 * 48, dtype=np.uint16).reshape(40, 48) // 500
    for index, name in enumerate(("a", "b", "c", "d", "<script>alert(1)</script>".replace("/", "_"))):
        for kind in ("images", "masks"):
            (root / kind).mkdir(parents=True, exist_ok=True)
        light = np.random.default_rng(index).integers(0, 255, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(light).resize((48, 40), 0).save(root / "images" / f"{name}.png")
        Image.fromarray(np.roll(ids, index, axis=1).astype(np.uint8)).save(root / "masks" / f"{name}.png")
    Image.fromarray(np.zeros((40, 48, 3), np.uint8) + np.arange(48, dtype=np.uint8)[:, None]).save(
        root / "masks" / "a.png"
    )
    Image.open(root / "masks" / "b.png").save(root / "masks" / "b.png", format="JPEG")
    (root / "images" / "c.png").write_bytes(b"")
    Image.fromarray(np.full((40, 48), 9, np.uint16) * 300).save(root / "images" / "d.png")
    (root / "masks" / "<script>alert(1)<_script>.png").unlink()
    return root


def test_write_data_page_is_one_file_with_pictures_of_each_finding(data: Path, tmp_path: Path) -> None:
    found = inspect_data(data, labels="4")
    path = write_data_page(found, tmp_path / "new" / "page.html")
    page = path.read_text()
    for one in found.findings:
        assert one.kind in page
        assert str(one.why).split("'")[0][:30] in page
    assert page.count("data:image/") >= 5
    assert not re.search(r"(?:src|href)=\"(?!data:|#)", page)
    assert "the file is empty" in page


def test_write_data_page_names_are_text_and_no_markup(data: Path, tmp_path: Path) -> None:
    page = write_data_page(inspect_data(data, labels="4"), tmp_path / "page.html").read_text()
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_write_data_page_without_findings_or_labels_is_written(tmp_path: Path) -> None:
    for kind in ("images", "masks"):
        (tmp_path / "d" / kind).mkdir(parents=True)
        Image.fromarray(np.arange(1600, dtype=np.uint16).reshape(40, 40)).save(tmp_path / "d" / kind / "a.png")
    page = write_data_page(inspect_data(tmp_path / "d"), tmp_path / "page.html").read_text()
    assert "perpixel data check" in page


def test_write_data_page_that_cannot_be_written_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write the page to"):
        write_data_page(inspect_data(data), tmp_path)
