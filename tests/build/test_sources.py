"""Where a run's images come from: mapping files are applied when asked for, and mentioned when not."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_runs import write_blocks

from perpixel.build.sources import open_source
from perpixel.config import DataChoice
from perpixel.data.fixes import FIXES_FILE
from perpixel.errors import ConfigError, DataError


def test_open_source_with_fixes_leaves_out_what_they_say(tmp_path: Path) -> None:
    root = write_blocks(tmp_path / "d")
    file = tmp_path / "fixes.yaml"
    names = sorted(path.name for path in (root / "train" / "images").iterdir())
    (root / "train" / "masks" / names[0]).unlink()
    with pytest.raises(DataError, match="have no mask"):
        open_source(DataChoice(source=str(root)))
    file.write_text(f"exclude: ['train/images/{names[0]}']\n")
    source = open_source(DataChoice(source=str(root), fixes=str(file)))
    assert source is not None
    assert len(source.splits["train"]) == len(names) - 1
    assert any("1 images are left out" in note for note in source.notes)
    folder = root / "train"
    file.write_text(f"exclude: [{Path(names[0]).stem}]\n")
    pair = open_source(DataChoice(images=str(folder / "images"), masks=str(folder / "masks"), fixes=str(file)))
    assert pair is not None
    assert len(pair.splits["all"]) == len(names) - 1


def test_open_source_fixes_beside_the_data_are_mentioned_and_not_used(tmp_path: Path) -> None:
    root = write_blocks(tmp_path / "d")
    (root / FIXES_FILE).write_text("exclude: [nothing]\n")
    source = open_source(DataChoice(source=str(root)))
    assert source is not None
    assert any("is not used; data.fixes=FILE applies it" in note for note in source.notes)


def test_open_source_without_such_a_mapping_file_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the mapping file cannot be read"):
        open_source(DataChoice(source=str(write_blocks(tmp_path / "d")), fixes=str(tmp_path / "none.yaml")))
