"""Where a run's images come from: the user's files, or street scenes generated into the run folder."""

from __future__ import annotations

from dataclasses import replace

from perpixel.config import SCENES, DataChoice, SceneChoice
from perpixel.data import DataSource, SceneConfig, open_data, open_folders, write_scenes
from perpixel.data.fixes import FIXES_FILE, load_fixes, open_with_fixes
from perpixel.engine import RunFolder
from perpixel.errors import ConfigError

__all__ = ["generate_scenes", "open_source"]


def open_source(choice: DataChoice) -> DataSource | None:
    """Opens the data that a configuration names, mended as its mapping file says; None for generated scenes.

    Raises:
        ConfigError: it names no data, or its mapping file is none.
        DataError: the data is not there or has another layout.
    """
    spec = choice.source if choice.images is None else choice.images
    if choice.fixes is not None and spec is not None and spec != SCENES:
        return open_with_fixes(spec, load_fixes(choice.fixes), masks=choice.masks)
    source = _opened(choice)
    if source is not None and (source.root / FIXES_FILE).is_file():
        note = f"{source.root / FIXES_FILE} lies beside the data and is not used; data.fixes=FILE applies it"
        return replace(source, notes=(*source.notes, note))
    return source


def _opened(choice: DataChoice) -> DataSource | None:
    if choice.images is not None and choice.masks is not None:
        return open_folders(choice.images, choice.masks)
    if choice.source is None:
        raise ConfigError(
            "no data: give --data [format:]PATH (camvid:/d, voc:/d, /folder), two folders of images and masks, or "
            "data.source=scenes for generated street scenes."
        )
    return None if choice.source == SCENES else open_data(choice.source)


def generate_scenes(choice: DataChoice, run: RunFolder) -> DataSource:
    """Writes the street scenes of a configuration into the run folder, unless they are there already.

    Raises:
        RunError: the disk refuses.
    """
    folder = run.path / "scenes"
    scenes = choice.scenes or SceneChoice()
    if not (folder / "labels.yaml").exists():
        settings = SceneConfig(
            height=scenes.height,
            width=scenes.width,
            inconsistency=scenes.inconsistency,
            indistinction=scenes.indistinction,
            seed=scenes.seed,
        )
        with run.replace("scenes") as unfinished:
            write_scenes(unfinished, settings, train=scenes.train, val=scenes.val, test=scenes.test)
    note = (
        f"{scenes.train} + {scenes.val} street scenes of {scenes.height}x{scenes.width} were generated with "
        f"inconsistency {scenes.inconsistency} and indistinction {scenes.indistinction}"
    )
    source = open_data(folder)
    return replace(source, notes=(note, *source.notes))
