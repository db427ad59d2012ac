"""A run that goes on learns from the files that it began with, whatever has happened to the folder since."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_runs import (
    Interrupt,
    blocks,
    events,
    same_weights,
    small_config,
    weights,
    write_blocks,
    write_pair,
)

from perpixel.build import train
from perpixel.build.run_files import changed_files, sizes_by_name, with_files_of
from perpixel.config import RunConfig, load_config
from perpixel.data.formats.item import Item
from perpixel.data.source import DataSource
from perpixel.errors import DataError, RunError

pytestmark = pytest.mark.usefixtures("no_report")


def undivided(folder: Path) -> Path:
    """Six images that a run divides into train and val itself."""
    for number in range(6):
        write_pair(folder, f"p{number}", *blocks(number))
    return folder


def broken_off(config: RunConfig, run: Path) -> Path:
    with pytest.raises(KeyboardInterrupt):
        train(config, out=run, on_progress=Interrupt(3))
    return run


def go_on(run: Path) -> list[str]:
    """Resumes a run with its own configuration and returns its warnings."""
    train(load_config(run / "config.yaml"), resume=run)
    return [event["message"] for event in events(run, "warning")]


def source_of(folder: Path, **splits: str) -> DataSource:
    """Items named by the letters of each split; no files."""
    items = {
        split: tuple(Item(name=name, image=folder / name, mask=None) for name in names)
        for split, names in splits.items()
    }
    return DataSource(format="folder", root=folder, splits=items, labels=None)


def names_of(source: DataSource) -> dict[str, str]:
    return {split: "".join(item.name for item in items) for split, items in source.splits.items()}


@pytest.mark.parametrize("divided", [False, True])
def test_resume_leaves_out_images_added_since_and_ends_as_if_they_were_not_there(tmp_path: Path, divided: bool) -> None:
    data = write_blocks(tmp_path / "data") if divided else undivided(tmp_path / "data")
    whole = train(small_config(data), out=tmp_path / "whole").folder
    run = broken_off(small_config(data), tmp_path / "run")
    image, mask = blocks(9)
    mask[mask == 2] = 7  # a class that the run does not have, in a file that sorts before all others
    write_pair(data / "train" if divided else data, "a new one", image, mask)
    said = [message for message in go_on(run) if "left out" in message]
    assert len(said) == 1
    assert "so that the run goes on as it began: 1 image added to the data since: a new one." in said[0]
    assert f"--from {run} in place of --resume" in said[0]
    assert same_weights(weights(run), weights(whole))
    assert "a new one" not in (run / "data.json").read_text()


@pytest.mark.parametrize("divided", [False, True])
def test_resume_without_an_image_that_it_began_with_is_refused_by_name(tmp_path: Path, divided: bool) -> None:
    data = write_blocks(tmp_path / "data") if divided else undivided(tmp_path / "data")
    run = broken_off(small_config(data), tmp_path / "run")
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    name, total = ("t1", 8) if divided else ("p1", 6)
    for kind in ("images", "masks"):
        (data / ("train" if divided else "") / kind / f"{name}.png").unlink()
    with pytest.raises(RunError, match=rf"of the {total} images that the run began .* no longer has 1: {name}\. "):
        go_on(run)
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file()} == before


def test_resume_with_an_image_of_other_content_names_it(tmp_path: Path) -> None:
    data = undivided(tmp_path / "data")
    run = broken_off(small_config(data), tmp_path / "run")
    Image.fromarray(np.zeros((40, 48, 3), np.uint8)).save(data / "images" / "p3.png")
    said = go_on(run)
    assert any(message.endswith("whose names are the same: images or masks of p3") for message in said)


def test_resume_with_a_mask_of_other_content_and_the_same_length_counts_its_pixels(tmp_path: Path) -> None:
    data = undivided(tmp_path / "data")
    for number in range(6):  # a format without compression
        (data / "masks" / f"p{number}.png").unlink()
        Image.fromarray(blocks(number)[1]).save(data / "masks" / f"p{number}.bmp")
    run = broken_off(small_config(data), tmp_path / "run")
    split = "train" if "p3" in json.loads((run / "split.json").read_text())["train"] else "val"
    stored = json.loads((run / "data.json").read_text())
    mask = blocks(3)[1]
    mask[mask == 2] = 1
    Image.fromarray(mask).save(data / "masks" / "p3.bmp")
    said = [message for message in go_on(run) if "the content of some masks: class 1 " in message]
    pixels = stored["splits"][split]["pixels_per_class"]
    assert len(said) == 1
    assert f"class 1 {pixels[1]} -> {pixels[1] + int((blocks(3)[1] == 2).sum())} pixels of {split}" in said[0]


def test_with_files_of_keeps_the_order_of_the_run_and_other_splits(tmp_path: Path) -> None:
    (tmp_path / "data.json").write_text(json.dumps({"files": {"train": {"c": "", "a": ""}, "val": {"v": ""}}}))
    found, said = with_files_of(tmp_path, source_of(tmp_path, train="abc", val="vw", test="xy"))
    assert names_of(found) == {"train": "ca", "val": "v", "test": "xy"}
    assert "2 images added to the data since: b, w." in said[0]
    same = source_of(tmp_path, train="ca", val="v")
    assert with_files_of(tmp_path, same)[1] == ()


def test_with_files_of_undivided_data_looks_at_all_parts_of_the_run(tmp_path: Path) -> None:
    (tmp_path / "split.json").write_text(json.dumps({"train": ["c", "a"], "val": ["v"]}))
    found, _ = with_files_of(tmp_path, source_of(tmp_path, all="abcv"))
    assert names_of(found) == {"all": "acv"}
    with pytest.raises(RunError, match=r"of the 3 images .* no longer has 2: c, v\. Put them back, or begin a new run"):
        with_files_of(tmp_path, source_of(tmp_path, all="ab"))


@pytest.mark.parametrize("content", [None, "", "[]", "{", '{"files": 3}', '{"files": {}}', "{}"])
def test_with_files_of_run_that_names_none_takes_what_is_there(tmp_path: Path, content: str | None) -> None:
    for name in ("data.json", "split.json"):
        if content is not None:
            (tmp_path / name).write_text(content)
    source = source_of(tmp_path, all="ab")
    assert with_files_of(tmp_path, source) == (source, ())


def test_changed_files_compares_what_both_name(tmp_path: Path) -> None:
    now = {"files": {"train": {"a": "1\t2", "b": "1\t3"}, "val": {"v": "5\t-"}}}
    assert changed_files({"files": {"train": {"a": "1\t2", "b": "1\t2"}}}, now) == ("b",)
    assert changed_files({}, now) == ()
    image = tmp_path / "i"
    image.write_bytes(b"123")
    assert sizes_by_name({"val": (Item(name="v", image=image, mask=None),)}) == {"val": {"v": "3\t-"}}
    with pytest.raises(DataError, match="gone: cannot be read"):
        sizes_by_name({"val": (Item(name="v", image=image, mask=tmp_path / "gone"),)})


def test_train_test_split_of_undivided_data_is_refused(tmp_path: Path) -> None:
    data = undivided(tmp_path / "data")
    with pytest.raises(DataError, match=r"data\.test_split = 'test': .* only train and val are made; leave"):
        train(small_config(data, data={"test_split": "test"}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
