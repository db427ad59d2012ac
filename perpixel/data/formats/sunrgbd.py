"""SUN RGB-D, 37 classes: the published files with their toolbox, or folders of extracted labels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

from perpixel.data.formats.item import DataSource, Item, listed, require_files
from perpixel.data.formats.matrix_files import Hdf5Slice, mat_strings, opened_hdf5, read_mat
from perpixel.data.formats.named_pairs import files_ending
from perpixel.errors import DataError
from perpixel.labels import LabelSpace

__all__ = ["is_sunrgbd", "read_sunrgbd"]

_TOOLBOX = "SUNRGBDtoolbox"
_SEGMENTS = "Metadata/SUNRGBD2Dseg.mat"
_META = "Metadata/SUNRGBDMeta.mat"
_SPLIT = "traintestSUNRGBD/allsplit.mat"
_PACKED_LABELS = ("sunrgbd_train_test_labels", "train_test_labels", "labels37", "labels")
_SPLITS = ("train", "test")
_TEST_IMAGES = 5050  # labels of the packed form: these first, then those of the training images
_LAYOUT = (
    "SUN RGB-D has SUNRGBD/{kv1,kv2,realsense,xtion}/… (SUNRGBD.zip) and SUNRGBDtoolbox/ (SUNRGBDtoolbox.zip) with "
    f"{_SEGMENTS}, {_META} and {_SPLIT}; or the folders SUNRGBD-train_images/, SUNRGBD-test_images/ and "
    "sunrgbd_train_test_labels/ (ankurhanda/sunrgbd-meta-data); or image/{train,test}/ and label37/{train,test}/."
)


def is_sunrgbd(root: Path) -> bool:
    """Tells whether a folder holds the toolbox, or one of the forms with extracted labels."""
    return (root / _TOOLBOX / _SEGMENTS).is_file() or _is_packed(root) or (root / "label37" / "train").is_dir()


def read_sunrgbd(root: Path) -> DataSource:
    """Reads train and test (both with masks); pixels of id 0 are ignored.

    Raises:
        DataError: no known layout is here, or files are missing, damaged or contradict each other.
    """
    if (root / _TOOLBOX).is_dir():
        splits, notes = _published(root)
    elif _is_packed(root):
        splits, notes = _packed(root)
    elif (root / "label37").is_dir():
        there = [split for split in _SPLITS if (root / "label37" / split).is_dir()]
        splits = {split: _by_number(root / "image" / split, root / "label37" / split, 0) for split in there}
        notes = _absent(f"{root / 'label37' / split}" for split in _SPLITS if split not in there)
    else:
        raise DataError(f"{root}: no SUN RGB-D here. {_LAYOUT}")
    return DataSource(format="sunrgbd", root=root, splits=splits, labels=LabelSpace.load("sunrgbd37"), notes=notes)


def _published(root: Path) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    toolbox = root / _TOOLBOX
    for name in (_SEGMENTS, _META, _SPLIT):
        if not (toolbox / name).is_file():
            raise DataError(f"{toolbox / name}: the file is not there. {_LAYOUT}")
    meta = read_mat(toolbox / _META, ("SUNRGBDMeta",)).reshape(-1)
    if meta.dtype.names is None or not {"rgbpath", "rgbname"} <= set(meta.dtype.names):
        raise DataError(f"{toolbox / _META}: SUNRGBDMeta has no fields rgbpath and rgbname. {_LAYOUT}")
    places = [_folder_of(path, toolbox / _META) for path in mat_strings(meta["rgbpath"])]
    files = mat_strings(meta["rgbname"])
    odd = [name for name in files if PurePosixPath(name).name != name]
    if odd:
        raise DataError(f"{toolbox / _META}: rgbname is a plain file name, got {listed(odd, 3)}")
    with opened_hdf5(toolbox / _SEGMENTS) as opened:
        shape = getattr(opened.get("SUNRGBD2Dseg/seglabel"), "shape", None)
    if shape != (len(places), 1):
        raise DataError(
            f"{toolbox / _SEGMENTS}: SUNRGBD2Dseg/seglabel has shape {shape} and {_META} lists {len(places)} images"
        )
    base = root / "SUNRGBD" if (root / "SUNRGBD").is_dir() else root
    split_of = _split_of(toolbox / _SPLIT)
    splits: dict[str, list[Item]] = {"train": [], "test": []}
    outside = []
    for index, (place, file) in enumerate(zip(places, files, strict=True)):
        if place not in split_of:
            outside.append(place)
            continue
        mask = Hdf5Slice(toolbox / _SEGMENTS, "SUNRGBD2Dseg/seglabel", (index, 0), axes=(1, 0))
        name = place.replace("/", "__")
        splits[split_of[place]].append(Item(name=name, image=base / place / "image" / file, mask=mask))
    found = {split: tuple(items) for split, items in splits.items() if items}
    for split, items in found.items():
        require_files(items, split=split, way_out=f"Complete the data set. {_LAYOUT}")
    if not found:
        raise DataError(f"{toolbox / _SPLIT}: none of the {len(places)} images is in alltrain or alltest. {_LAYOUT}")
    if not outside:
        return found, ()
    return found, (f"{len(outside)} images are in neither split and were left out: {listed(outside)}",)


def _split_of(file: Path) -> Mapping[str, str]:
    """Returns the split of each folder; one in both is refused."""
    folders = {split: set(_folders(file, key)) for split, key in (("train", "alltrain"), ("test", "alltest"))}
    both = sorted(folders["train"] & folders["test"])
    if both:
        raise DataError(f"{file}: {len(both)} images are in both alltrain and alltest: {listed(both, 3)}")
    return {folder: split for split, members in folders.items() for folder in members}


def _folders(file: Path, key: str) -> list[str]:
    return [_inside(text, file) for text in mat_strings(read_mat(file, (key,)))]


def _folder_of(path: str, file: Path) -> str:
    """Cuts ``image/x.jpg`` off the path of an image."""
    return str(PurePosixPath(_inside(path, file)).parent.parent)


def _inside(path: str, file: Path) -> str:
    """Returns what follows SUNRGBD/ in a path of the authors' machine; nothing that leads elsewhere."""
    _, marker, rest = path.rstrip("/").partition("SUNRGBD/")
    parts = PurePosixPath(rest).parts
    if not marker or not parts or ".." in parts or parts[0] == "/" or "\\" in rest:
        raise DataError(f"{file}: expected a path with SUNRGBD/ and a folder below it, got {path!r}")
    return "/".join(parts)


def _is_packed(root: Path) -> bool:
    return any((root / f"SUNRGBD-{split}_images").is_dir() for split in ("train", "test"))


def _packed(root: Path) -> tuple[dict[str, tuple[Item, ...]], tuple[str, ...]]:
    labels = next((root / name for name in _PACKED_LABELS if (root / name).is_dir()), None)
    if labels is None:
        raise DataError(f"{root}: the folder of labels, {_PACKED_LABELS[0]}/, is not there. {_LAYOUT}")
    folders = {split: root / f"SUNRGBD-{split}_images" for split in _SPLITS}
    offsets = {"train": _TEST_IMAGES, "test": 0}
    splits = {split: _by_number(folder, labels, offsets[split]) for split, folder in folders.items() if folder.is_dir()}
    note = f"labels 1 to {_TEST_IMAGES} are those of the test images, training image n has label n + {_TEST_IMAGES}"
    return splits, (*_absent(str(folder) for folder in folders.values() if not folder.is_dir()), note)


def _absent(folders: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{folder} is not here, so its split is not either" for folder in folders)


def _by_number(images: Path, labels: Path, offset: int) -> tuple[Item, ...]:
    """Pairs files by the number at the end of their names."""
    for folder in (images, labels):
        if not folder.is_dir():
            raise DataError(f"{folder}: there is no such folder. {_LAYOUT}")
    pictures, drawn = _numbered(images, ".jpg"), _numbered(labels, ".png")
    if not pictures:
        raise DataError(f"{images}: no .jpg images with a number here. {_LAYOUT}")
    if min(pictures) > offset > 0:
        offset = 0
    missing = [path.name for number, path in pictures.items() if number + offset not in drawn]
    if missing:
        raise DataError(f"{len(missing)} images in {images} have no label in {labels}: {listed(missing)}. {_LAYOUT}")
    return tuple(Item(name=path.stem, image=path, mask=drawn[number + offset]) for number, path in pictures.items())


def _numbered(folder: Path, suffix: str) -> dict[int, Path]:
    found: dict[int, Path] = {}
    for stem, path in files_ending(folder, (suffix,), way_out=_LAYOUT).items():
        digits = stem[len(stem.rstrip("0123456789")) :]
        if not digits:
            continue
        if int(digits) in found:
            raise DataError(f"{path} and {found[int(digits)].name} have one number, so it is open which one is meant")
        found[int(digits)] = path
    return found
