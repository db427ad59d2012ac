"""What test servers take: written by perpixel, and archives of anybody checked; sizes and counts are shrunk here."""

from __future__ import annotations

import tarfile
import zipfile
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from perpixel.errors import DataError, InvalidValue, RunError
from perpixel.inference import PostProcessing, Segmenter
from perpixel.inference.submissions import SUBMISSIONS, MaskServer, validate_submission, write_submission
from perpixel.inference.submissions.archives import write_archive
from perpixel.inference.submissions.servers import id_table
from perpixel.labels import LabelSpace

SIZE = (6, 10)
IMAGES = {
    "voc": ["2008_000006", "2009_000123"],
    "cityscapes": ["berlin_000000_000019_leftImg8bit", "berlin_000001_000019_leftImg8bit"],
    "ade20k": ["ADE_test_00000001", "ADE_test_00000002"],
    "bdd100k": ["cabc30fc-e7726578", "cabc30fc-eb673c5a"],
}
MEMBERS = {
    "voc": "results/VOC2012/Segmentation/comp6_test_cls/2008_000006.png",
    "cityscapes": "berlin_000000_000019_labelIds.png",
    "ade20k": "ADE_test_00000001.png",
    "bdd100k": "cabc30fc-e7726578.png",
}
FIRST_IDS = {"voc": [0, 1, 2], "cityscapes": [7, 8, 11], "ade20k": [1, 2, 3], "bdd100k": [0, 1, 2]}


@pytest.fixture(autouse=True)
def _small_servers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, server in list(SUBMISSIONS.items()):
        size = None if server.size is None else SIZE
        monkeypatch.setitem(SUBMISSIONS, name, replace(server, counts=(2,), size=size))  # type: ignore[type-var]


def server_of(name: str) -> MaskServer:
    server = SUBMISSIONS[name]
    assert isinstance(server, MaskServer)
    return server


def write_image(path: Path, classes: Any, **options: Any) -> Path:
    """An image that `BrightnessNetwork` segments into these classes (H, W)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat((np.asarray(classes) * 20).astype(np.uint8)[..., None], 3, 2)).save(path, **options)
    return path


def classes_like(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    classes = np.random.default_rng(seed).integers(0, 3, size)
    classes[0, :3] = [0, 1, 2]
    return classes


@pytest.fixture
def images(tmp_path: Path) -> Any:
    """Writes the two test images of a server."""

    def build(name: str) -> Path:
        for number, stem in enumerate(IMAGES[name]):
            write_image(tmp_path / "images" / f"{stem}.png", classes_like(number))
        return tmp_path / "images"

    return build


def segmenter_for(brightness_network: Any, space: str, **options: Any) -> Segmenter:
    labels = LabelSpace.load(space)
    return Segmenter(brightness_network(labels.num_classes), labels, **options)


def read_archive(path: Path) -> dict[str, bytes]:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    with tarfile.open(path) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar.getmembers()}  # type: ignore[union-attr]


def png(ids: Any, *, server: str = "ade20k", mode: str | None = None) -> bytes:
    picture = Image.fromarray(np.asarray(ids, np.uint8))
    if server.startswith("voc"):
        picture.putpalette(LabelSpace.load("voc").palette())
    buffer = BytesIO()
    (picture if mode is None else picture.convert(mode)).save(buffer, "PNG")
    return buffer.getvalue()


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, BytesIO(content))
    return path


def good_members(name: str) -> dict[str, bytes]:
    """Two masks as the server takes them."""
    server = server_of(name)
    ids = np.array(FIRST_IDS[name])[classes_like()]
    return {server.member(server.key(stem) or ""): png(ids, server=name) for stem in IMAGES[name]}


# Writing


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_write_submission_has_the_servers_names_ids_and_sizes(
    name: str, images: Any, tmp_path: Path, brightness_network: Any
) -> None:
    server = server_of(name)
    seen: list[tuple[int, int]] = []
    segmenter = segmenter_for(brightness_network, server.space)
    done = write_submission(
        segmenter, [images(name)], tmp_path / "o", name, on_progress=lambda done, total, _: seen.append((done, total))
    )
    assert (done.path, done.images, done.pixels, done.notes) == (
        tmp_path / "o" / f"{name}.{server.archive}",
        2,
        120,
        (),
    )
    assert seen == [(1, 2), (2, 2)]
    members = read_archive(done.path)
    assert len(members) == 2
    assert MEMBERS[name] in members
    mask = Image.open(BytesIO(members[MEMBERS[name]]))
    assert mask.mode == ("P" if name == "voc" else "L")
    assert np.array_equal(np.asarray(mask), np.array(FIRST_IDS[name])[classes_like(0)])
    assert (tmp_path / "o" / name / MEMBERS[name]).read_bytes() == members[MEMBERS[name]]
    assert validate_submission(done.path, name).count == 2


def test_write_submission_twice_gives_the_same_bytes(images: Any, tmp_path: Path, brightness_network: Any) -> None:
    segmenter = segmenter_for(brightness_network, "voc")
    written = []
    for out in ("a", "b", "b"):
        written.append(write_submission(segmenter, [images("voc")], tmp_path / out, "voc").path.read_bytes())
    assert written[0] == written[1] == written[2]


def test_write_comp5_lies_in_its_own_folder(images: Any, tmp_path: Path, brightness_network: Any) -> None:
    done = write_submission(segmenter_for(brightness_network, "voc"), [images("voc")], tmp_path / "o", "voc-comp5")
    assert "results/VOC2012/Segmentation/comp5_test_cls/2008_000006.png" in read_archive(done.path)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mask_of_a_turned_photo_has_the_size_of_the_stored_pixels(
    orientation: int, tmp_path: Path, brightness_network: Any
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = classes_like(size=(5, 9))
    photo = write_image(tmp_path / "ADE_test_00000001.png", stored, exif=exif)
    segmenter = segmenter_for(brightness_network, "ade20k150")
    assert segmenter(photo).size == ((9, 5) if orientation >= 5 else (5, 9))
    done = write_submission(segmenter, [photo], tmp_path / "o", "ade20k", partial=True)
    mask = np.asarray(Image.open(BytesIO(read_archive(done.path)["ADE_test_00000001.png"])))
    assert np.array_equal(mask, stored + 1)
    assert done.notes == (
        "1 images, the test set of ADE20K scene parsing (SceneParse150) has 2: a trial, which the server would refuse",
    )


def test_post_processing_applies_and_pixels_without_class_get_the_servers_id(
    images: Any, tmp_path: Path, brightness_network: Any
) -> None:
    after = PostProcessing(thresholds={"road": 1.0}, fallback="ignore")
    segmenter = segmenter_for(brightness_network, "cityscapes_train_ids", postprocessing=after)
    for name, unlabelled in (("cityscapes", 0), ("bdd100k", 255)):
        done = write_submission(segmenter, [images(name)], tmp_path / name, name)
        values = set(np.unique(np.asarray(Image.open(BytesIO(read_archive(done.path)[MEMBERS[name]])))).tolist())
        assert values == {unlabelled, *FIRST_IDS[name][1:]}
        for file in (tmp_path / "images").iterdir():
            file.unlink()


# Models that fit, and others


def test_classes_are_matched_by_name_in_any_order() -> None:
    voc = LabelSpace.load("voc")
    names = tuple(reversed([name.upper().replace("TVMONITOR", "TV/Monitor") for name in voc.names]))
    turned = LabelSpace(name="x", names=names, colors=voc.colors, stored_to_train={i: i for i in range(21)})
    table, notes = id_table(turned, server_of("voc"))
    assert table[:22].tolist() == [*range(20, -1, -1), -1]
    assert not notes


def test_unnamed_classes_of_the_right_number_are_taken_in_order_and_said() -> None:
    table, notes = id_table(LabelSpace.numbered(19), server_of("cityscapes"))
    assert table[:4].tolist() == [7, 8, 11, 12]
    assert table[255] == 0
    assert notes == ("the model's classes have no names and are taken in the order of label space 'cityscapes'",)


@pytest.mark.parametrize(
    ("space", "name", "message"),
    [
        (
            "camvid11",
            "cityscapes",
            "takes the 19 classes of label space 'cityscapes'; the model's label space 'camvid11' of 11 classes lacks "
            "sidewalk, wall, .* and 5 more and has Pavement, .* which the server does not know. Submit .*--labels "
            "cityscapes",
        ),
        ("voc", "ade20k", "takes the 150 classes .* lacks wall"),
        ("20", "voc", "takes the 21 classes"),
    ],
)
def test_model_with_other_classes_is_refused(
    space: str, name: str, message: str, images: Any, tmp_path: Path, brightness_network: Any
) -> None:
    with pytest.raises(DataError, match=message):
        write_submission(segmenter_for(brightness_network, space), [images(name)], tmp_path / "o", name)
    assert not (tmp_path / "o").exists()


@pytest.mark.parametrize(
    ("name", "bad", "message"),
    [
        ("voc", "cat", "cat.png: not the name of a test image of PASCAL VOC 2012, .* named like 2008_000006"),
        ("ade20k", "ADE_val_00000001", "ADE_val_00000001.png: not the name of a test image"),
        ("bdd100k", "b1", "b1.png: not the name"),
        ("cityscapes", "berlin_19", "berlin_19.png: not the name"),
        ("cityscapes", "berlin_000000_000019_again", "are both image berlin_000000_000019; give each test image once"),
        ("voc", "2011_000001", r"3 images, the test set of .* has 2; give all of them, or --partial for a trial"),
    ],
)
def test_images_with_other_names_or_count_are_refused_before_predicting(
    name: str, bad: str, message: str, images: Any, tmp_path: Path, brightness_network: Any
) -> None:
    folder = images(name)
    write_image(folder / f"{bad}.png", classes_like())
    segmenter = segmenter_for(brightness_network, server_of(name).space)
    with pytest.raises(DataError, match=message):
        write_submission(segmenter, [folder], tmp_path / "o", name)
    assert not segmenter.network.seen


def test_images_of_another_size_are_refused_before_predicting(
    images: Any, tmp_path: Path, brightness_network: Any
) -> None:
    folder = images("cityscapes")
    write_image(folder / f"{IMAGES['cityscapes'][1]}.png", classes_like(size=(3, 5)))
    segmenter = segmenter_for(brightness_network, "cityscapes")
    message = r"berlin_000001_.*: 3 x 5 pixels, the test images of Cityscapes .* have 6 x 10"
    with pytest.raises(DataError, match=message):
        write_submission(segmenter, [folder], tmp_path / "o", "cityscapes")
    assert not segmenter.network.seen


def test_unreadable_image_is_named_and_nothing_is_packed(images: Any, tmp_path: Path, brightness_network: Any) -> None:
    folder = images("voc")
    broken = folder / "2009_000123.png"
    broken.write_bytes(broken.read_bytes()[:60])
    with pytest.raises(DataError, match=r"1 of 2 images could not be predicted, nothing is packed:\n.*2009_000123"):
        write_submission(segmenter_for(brightness_network, "voc"), [folder], tmp_path / "o", "voc")
    assert not (tmp_path / "o" / "voc.tar.gz").exists()


def test_other_files_in_the_result_folder_are_refused(images: Any, tmp_path: Path, brightness_network: Any) -> None:
    write_image(tmp_path / "o" / "voc" / "old.png", classes_like())
    with pytest.raises(DataError, match=r"old.png: left from something else .*; give another out folder"):
        write_submission(segmenter_for(brightness_network, "voc"), [images("voc")], tmp_path / "o", "voc")


def test_image_in_the_place_of_its_mask_is_refused(tmp_path: Path, brightness_network: Any) -> None:
    image = write_image(tmp_path / "o" / "ade20k" / "ADE_test_00000001.png", classes_like())
    before = image.read_bytes()
    with pytest.raises(DataError, match="is an input and would be replaced by its mask; give another out folder"):
        write_submission(
            segmenter_for(brightness_network, "ade20k150"), [image], tmp_path / "o", "ade20k", partial=True
        )
    assert image.read_bytes() == before


def test_ignored_pixels_for_a_server_without_an_id_for_them_are_refused(
    images: Any, tmp_path: Path, brightness_network: Any
) -> None:
    after = PostProcessing(thresholds={"cat": 0.5}, fallback="ignore")
    segmenter = segmenter_for(brightness_network, "voc", postprocessing=after)
    with pytest.raises(InvalidValue, match="has no id for pixels without a class; give --fallback next or a class"):
        write_submission(segmenter, [images("voc")], tmp_path / "o", "voc")


def test_failed_check_leaves_no_archive(
    images: Any, tmp_path: Path, brightness_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("perpixel.inference.submissions.write.id_table", lambda *_: (np.full(256, 99, np.int16), ()))
    segmenter = segmenter_for(brightness_network, "voc")
    with pytest.raises(DataError, match="value 99 on 60 pixels"):
        write_submission(segmenter, [images("voc")], tmp_path / "o", "voc")
    assert sorted(path.name for path in (tmp_path / "o").iterdir()) == ["voc"]


def test_unknown_format_is_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(InvalidValue, match="no submission format 'cityscape'; did you mean 'cityscapes'"):
        validate_submission(tmp_path / "x.zip", "cityscape")


# Checking anybody's archive


@pytest.mark.parametrize("name", sorted(IMAGES))
def test_archives_in_order_pass(name: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"a.{server_of(name).archive}", good_members(name))
    expected = [f"/data/{stem}.jpg" for stem in IMAGES[name]]
    checked = validate_submission(path, name, expected, expected_sizes={IMAGES[name][0]: SIZE})
    assert (checked.path, checked.format, checked.count) == (path, name, 2)


def test_cityscapes_takes_any_depth_and_palette_masks(tmp_path: Path) -> None:
    ids = np.full(SIZE, 7)
    members = {
        "run/berlin/berlin_000000_000019.png": png(ids),
        "run/berlin_000001_000019_leftImg8bit_x.png": png(ids, server="voc"),
    }
    assert validate_submission(pack(tmp_path / "a.zip", members), "cityscapes").count == 2


def changed(name: str, how: Any) -> dict[str, bytes]:
    members = good_members(name)
    first = next(iter(members))
    how(members, first)
    return members


def drop(members: dict[str, bytes], first: str) -> None:
    del members[first]


def put(content: bytes) -> Any:
    return lambda members, first: members.update({first: content})


def move(to: str) -> Any:
    return lambda members, first: members.update({to: members.pop(first)})


def add(name: str) -> Any:
    return lambda members, first: members.update({name: members[first]})


OFF = np.full(SIZE, 150)


@pytest.mark.parametrize(
    ("name", "how", "message"),
    [
        ("voc", drop, "1 faults:\n  1 masks, the test set has 2 images"),
        ("voc", move("2008_000006.png"), "2008_000006.png: has no place in the archive, .* results/VOC2012/Seg"),
        ("voc", add("results/VOC2012/Segmentation/comp6_test_cls/.DS_Store"), "DS_Store: has no place"),
        ("voc", put(png(OFF, server="voc")), "value 150 on 60 pixels, .*row 0, column 0; the server takes 0..20"),
        ("voc", put(png(classes_like(), server="voc", mode="L")), "not an indexed PNG; write class indices"),
        ("voc", put(png(classes_like(), server="voc", mode="RGB")), "not an indexed PNG"),
        ("ade20k", move("x/ADE_test_00000001.png"), "x/ADE_test_00000001.png: has no place in the archive"),
        ("ade20k", move("../ADE_test_00000001.png"), "has no place"),
        ("ade20k", move("ADE_val_00000001.png"), "ADE_val_00000001.png: has no place"),
        ("ade20k", put(png(OFF + 1)), "value 151 on 60 pixels"),
        ("ade20k", put(png(OFF, mode="RGB")), "not one 8-bit id per pixel"),
        ("ade20k", put(png(OFF, mode="1")), "not one 8-bit id per pixel"),
        ("ade20k", put(b"GIF89a"), "not a PNG file"),
        ("ade20k", put(png(np.arange(60).reshape(SIZE))[:-30]), "cannot be decoded, damaged or cut short"),
        ("bdd100k", put(png(np.full(SIZE, 19))), "value 19 on 60 pixels"),
        ("bdd100k", put(png(np.zeros((10, 6)))), "10 x 6 pixels, its image has 6 x 10"),
        ("cityscapes", put(png(np.full(SIZE, 1))), "value 1 on 60 .* look like train ids, the server takes label ids"),
        ("cityscapes", add("x/berlin_000000_000019_b.png"), "a second mask of image berlin_000000_000019, beside"),
        ("cityscapes", put(png(np.full((5, 10), 7))), "5 x 10 pixels, its image has 6 x 10"),
    ],
)
def test_archives_with_a_fault_are_refused(name: str, how: Any, message: str, tmp_path: Path) -> None:
    path = pack(tmp_path / f"a.{server_of(name).archive}", changed(name, how))
    with pytest.raises(DataError, match=message):
        validate_submission(path, name)


@pytest.mark.parametrize(
    ("how", "sizes", "message"),
    [
        (drop, {}, r"2 faults:\n  no mask of image ADE_test_00000001; predict it\n  1 masks for 2 images"),
        (move("ADE_test_00000009.png"), {}, "ADE_test_00000009.png: belongs to no expected image; remove it"),
        (lambda *_: None, {"ADE_test_00000002": (7, 10)}, "00000002.png: 6 x 10 pixels, its image has 7 x 10"),
    ],
)
def test_archives_without_the_expected_masks_are_refused(how: Any, sizes: Any, message: str, tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", changed("ade20k", how))
    with pytest.raises(DataError, match=message):
        validate_submission(path, "ade20k", IMAGES["ade20k"], expected_sizes=sizes)


def test_archives_with_many_faults_name_twenty(tmp_path: Path) -> None:
    members = {f"x/{number}.png": b"" for number in range(30)}
    with pytest.raises(DataError, match=r"31 faults:(\n  x/.*){20}\n  and 11 more"):
        validate_submission(pack(tmp_path / "a.zip", members), "ade20k")


def test_palette_of_another_data_set_is_refused(tmp_path: Path) -> None:
    picture = Image.fromarray(classes_like().astype(np.uint8))
    picture.putpalette([9] * 768)
    buffer = BytesIO()
    picture.save(buffer, "PNG")
    path = pack(tmp_path / "a.tar.gz", changed("voc", put(buffer.getvalue())))
    with pytest.raises(DataError, match="its palette is not VOC's"):
        validate_submission(path, "voc")


def test_archives_that_cannot_be_read_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    good = pack(tmp_path / "a.zip", good_members("ade20k"))
    with pytest.raises(DataError, match=r"a.zip: cannot be read as tar.gz: .*; the server takes a tar.gz archive"):
        validate_submission(good, "voc")
    with pytest.raises(DataError, match="there is no such archive"):
        validate_submission(tmp_path / "b.zip", "ade20k")
    (tmp_path / "c.zip").write_bytes(good.read_bytes()[:100])
    with pytest.raises(DataError, match="cannot be read as zip"):
        validate_submission(tmp_path / "c.zip", "ade20k")
    monkeypatch.setattr("perpixel.inference.submissions.archives._LARGEST_MEMBER", 10)
    with pytest.raises(DataError, match="more than any mask"):
        validate_submission(good, "ade20k")


def test_links_and_passwords_are_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar.gz", "w:gz") as tar:
        entry = tarfile.TarInfo(MEMBERS["voc"])
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc/hostname"
        tar.addfile(entry)
    with pytest.raises(DataError, match="is a link or a device; pack plain files"):
        validate_submission(tmp_path / "a.tar.gz", "voc")
    path = pack(tmp_path / "a.zip", good_members("ade20k"))
    content = bytearray(path.read_bytes())
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    content[content.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(bytes(content))
    with pytest.raises(DataError, match="is encrypted; pack it without a password"):
        validate_submission(path, "ade20k")


def test_mask_whose_header_says_too_many_pixels_is_not_decoded(tmp_path: Path) -> None:
    content = bytearray(png(np.zeros(SIZE)))
    content[16:24] = b"\x00\x01\x00\x00\x00\x01\x00\x00"
    path = pack(tmp_path / "a.zip", changed("ade20k", put(bytes(content))))
    with pytest.raises(DataError, match="65536 x 65536 pixels are more than any test image has"):
        validate_submission(path, "ade20k")


def test_pixels_that_the_network_leaves_without_a_class_are_named(
    images: Any, tmp_path: Path, brightness_network: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    empty = (np.full(256, -1, np.int16), ())
    monkeypatch.setattr("perpixel.inference.submissions.write.id_table", lambda *_: empty)
    with pytest.raises(DataError, match="60 pixels have no class and the server has no id for such"):
        write_submission(segmenter_for(brightness_network, "voc"), [images("voc")], tmp_path / "o", "voc")


def test_results_that_cannot_be_written_are_refused(images: Any, tmp_path: Path, brightness_network: Any) -> None:
    (tmp_path / "o").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written"):
        write_submission(segmenter_for(brightness_network, "voc"), [images("voc")], tmp_path / "o", "voc")
    with pytest.raises(RunError, match=r"o.zip: cannot be written"):
        write_archive(tmp_path / "o" / "o.zip", "zip", tmp_path, [])
