"""What decoding adds to `image_files`: palettes, damaged files told apart, and no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from perpixel.data.decoding import DamagedFile, read_mask, read_mask_file, read_pixels
from perpixel.data.image_files import read_image
from perpixel.errors import DataError

IDS = np.array([[0, 1, 2], [2, 1, 0]], np.uint8)


def test_read_mask_file_palette_is_that_of_the_file(tmp_path: Path) -> None:
    picture = Image.fromarray(IDS).convert("P")
    picture.putpalette([1, 2, 3, 4, 5, 6, 7, 8, 9])
    picture.save(tmp_path / "p.png")
    Image.fromarray(IDS).save(tmp_path / "l.png")
    found = read_mask_file(tmp_path / "p.png")
    assert found.palette is not None
    assert found.palette[:9] == bytes(range(1, 10))
    np.testing.assert_array_equal(found.ids, read_mask(tmp_path / "p.png"))
    assert read_mask_file(tmp_path / "l.png").palette is None


def test_read_mask_damaged_files_are_told_from_refused_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.png"
    Image.fromarray(IDS).save(path)
    whole = path.read_bytes()
    for content in (b"", b"no picture at all", whole[:50]):
        path.write_bytes(content)
        with pytest.raises(DamagedFile):
            read_mask(path)
    Image.fromarray(np.stack([IDS, IDS * 3, IDS], axis=-1)).save(path)
    with pytest.raises(DataError, match="the mask holds colours") as caught:
        read_mask(path)
    assert not isinstance(caught.value, DamagedFile)


def test_read_pixels_are_those_of_read_image(tmp_path: Path) -> None:
    rgb = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    Image.fromarray(rgb).save(tmp_path / "x.png")
    np.testing.assert_array_equal(read_pixels(tmp_path / "x.png"), rgb)
    np.testing.assert_array_equal(read_image(tmp_path / "x.png").permute(1, 2, 0).numpy(), rgb)


def test_data_names_load_on_first_use_and_functions_stay_functions() -> None:
    code = (
        "import sys, perpixel.data.infer_labels, perpixel.data as data\n"
        "assert 'torch' not in sys.modules\n"
        "assert all(hasattr(data, name) for name in data.__all__) and callable(data.infer_labels)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


def test_data_unknown_name_refused() -> None:
    import perpixel.data

    with pytest.raises(AttributeError, match=r"module 'perpixel\.data' has no attribute 'reed_mask'"):
        _ = perpixel.data.reed_mask
