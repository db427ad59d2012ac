"""The ISBI 2012 challenge's stack of probabilities: written, and anybody's checked."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.inference import PostProcessing, Segmenter
from perpixel.inference.submissions import SUBMISSIONS, validate_submission, write_submission
from perpixel.inference.submissions.membrane_stack import read_slices, write_stack
from perpixel.labels import LabelSpace

SIZE = (6, 10)


@pytest.fixture(autouse=True)
def _small_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SUBMISSIONS, "isbi", replace(SUBMISSIONS["isbi"], counts=(3,), size=SIZE))


@pytest.fixture
def slices() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [Image.fromarray(random.integers(0, 60, SIZE, np.uint8)) for _ in range(3)]


def two_classes(fake: Any, names: tuple[str, str] = ("membrane", "cell interior"), **options: Any) -> Segmenter:
    labels = LabelSpace(name="cells", names=names, colors=((0, 0, 0), (255, 255, 255)), stored_to_train={0: 0, 255: 1})
    return Segmenter(fake(2), labels, **options)


def pages(path: Path) -> list[np.ndarray]:
    with Image.open(path) as image:
        return [np.asarray(image) for page in range(image.n_frames) if image.seek(page) is None]


@pytest.mark.parametrize("as_stack", [True, False])
@pytest.mark.parametrize("names", [("membrane", "cell interior"), ("inside", "Membrane")])
def test_stack_holds_the_probability_of_being_inside(
    as_stack: bool, names: tuple[str, str], slices: list[Image.Image], tmp_path: Path, fake_network: Any
) -> None:
    (tmp_path / "i").mkdir()
    if as_stack:
        slices[0].save(tmp_path / "i" / "test-volume.tif", save_all=True, append_images=slices[1:])
    else:
        for number, picture in zip((2, 9, 10), slices, strict=True):  # natural order, not that of the letters
            picture.save(tmp_path / "i" / f"{number}.png")
    segmenter = two_classes(fake_network, names)
    seen: list[int] = []
    done = write_submission(
        segmenter, [tmp_path / "i"], tmp_path / "o", "isbi", on_progress=lambda done, *_: seen.append(done)
    )
    assert (done.path, done.images, done.pixels, done.notes) == (tmp_path / "o" / "isbi.tif", 3, 180, ())
    assert seen == [1, 2, 3]
    inside = 1 - [name.casefold() for name in names].index("membrane")
    for page, picture in zip(pages(done.path), slices, strict=True):
        assert page.dtype == np.float32
        assert np.array_equal(page, segmenter(np.asarray(picture)).probabilities[inside])
    assert validate_submission(done.path, "isbi").count == 3


@pytest.mark.parametrize(
    ("names", "options", "error", "message"),
    [
        (
            ("a", "b"),
            {},
            DataError,
            "takes the two classes of label space 'isbi2012', membrane and cell interior; .*a, b",
        ),
        (
            ("membrane", "b"),
            {"postprocessing": PostProcessing(min_region=9)},
            InvalidValue,
            "takes probabilities; leave --min-region and --thresholds away",
        ),
    ],
)
def test_models_that_do_not_fit_are_refused(
    names: Any, options: Any, error: Any, message: str, slices: list[Image.Image], tmp_path: Path, fake_network: Any
) -> None:
    slices[0].save(tmp_path / "a.png")
    with pytest.raises(error, match=message):
        write_submission(two_classes(fake_network, names, **options), [tmp_path / "a.png"], tmp_path / "o", "isbi")


def test_slices_of_other_count_size_or_kind_are_refused(
    slices: list[Image.Image], tmp_path: Path, fake_network: Any
) -> None:
    segmenter = two_classes(fake_network)
    slices[0].save(tmp_path / "a.tif")
    with pytest.raises(DataError, match=r"1 images, the test set of the ISBI 2012 challenge has 3; .*--partial"):
        write_submission(segmenter, [tmp_path / "a.tif"], tmp_path / "o", "isbi")
    assert write_submission(segmenter, [tmp_path / "a.tif"], tmp_path / "o", "isbi", partial=True).images == 1
    slices[0].resize((4, 4)).save(tmp_path / "b.png")
    with pytest.raises(DataError, match=r"b.png: 4 x 4 pixels, slices have 6 x 10"):
        write_submission(segmenter, [tmp_path / "b.png"], tmp_path / "o", "isbi", partial=True)
    slices[0].convert("RGB").save(tmp_path / "c.tif")
    with pytest.raises(DataError, match=r"c.tif, page 1: 6 x 10 pixels of mode RGB; slices are 8- or 16-bit grey"):
        write_submission(segmenter, [tmp_path / "c.tif"], tmp_path / "o", "isbi", partial=True)
    (tmp_path / "d.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:20])
    with pytest.raises(DataError, match=r"d.tif: cannot be read as an image"):
        write_submission(segmenter, [tmp_path / "d.tif"], tmp_path / "o", "isbi", partial=True)


def test_read_slices_keeps_16_bits(tmp_path: Path) -> None:
    values = np.arange(60, dtype=np.uint16).reshape(SIZE) * 1000
    Image.fromarray(values).save(tmp_path / "a.tif")
    ((name, page),) = read_slices(tmp_path / "a.tif")
    assert name.endswith("a.tif, page 1")
    assert isinstance(page, np.ndarray)
    assert np.array_equal(page, values)


@pytest.mark.parametrize(
    ("stack", "expected", "message"),
    [
        ([np.zeros(SIZE)] * 2, None, "2 slices, 3 are expected"),
        ([np.zeros(SIZE)] * 3, ["a"], "3 slices, 1 are expected"),
        ([np.zeros((4, 4))] * 3, None, "page 1: 4 x 4 pixels, slices have 6 x 10"),
        ([np.zeros(SIZE), np.full(SIZE, 1.5), np.zeros(SIZE)], None, r"page 2: values from 1.5 to 1.5; probabilities"),
        ([np.full(SIZE, np.nan)] * 3, None, "page 1: values from nan to nan"),
    ],
)
def test_stacks_with_a_fault_are_refused(stack: Any, expected: Any, message: str, tmp_path: Path) -> None:
    write_stack(tmp_path / "s.tif", [page.astype(np.float32) for page in stack])
    with pytest.raises(DataError, match=message):
        validate_submission(tmp_path / "s.tif", "isbi", expected)


def test_files_that_are_no_stack_are_refused(slices: list[Image.Image], tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such file"):
        validate_submission(tmp_path / "s.tif", "isbi")
    slices[0].save(tmp_path / "s.png")
    with pytest.raises(DataError, match="not a TIFF file; the ISBI 2012 challenge takes one TIFF"):
        validate_submission(tmp_path / "s.png", "isbi")
    slices[0].save(tmp_path / "t.tif", save_all=True, append_images=slices[1:])
    with pytest.raises(DataError, match="page 1: mode L, not 32-bit float; write probabilities"):
        validate_submission(tmp_path / "t.tif", "isbi")
    (tmp_path / "u.tif").write_bytes((tmp_path / "t.tif").read_bytes()[:90])
    with pytest.raises(DataError, match=r"u.tif: (cannot be read as TIFF|. slices)"):
        validate_submission(tmp_path / "u.tif", "isbi")


def test_stack_that_cannot_be_written_is_refused(slices: list[Image.Image], tmp_path: Path, fake_network: Any) -> None:
    with pytest.raises(RunError, match=r"s.tif: cannot be written"):
        write_stack(tmp_path / "nowhere" / "s.tif", [np.zeros(SIZE, np.float32)])
    slices[0].save(tmp_path / "a.png")
    (tmp_path / "o").write_bytes(b"")
    with pytest.raises(RunError, match="results cannot be written"):
        write_submission(two_classes(fake_network), [tmp_path / "a.png"], tmp_path / "o", "isbi", partial=True)
