"""Fields of .mat files and slices of HDF5 files: read as the reference readers do, and hostile ones refused."""

from __future__ import annotations

import builtins
import pickle
import struct
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import scipy.io
import scipy.sparse
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perpixel.data.decoding import DamagedFile, image_size, read_mask, read_pixels
from perpixel.data.formats import mat5, matrix_files
from perpixel.data.formats.mat5 import read_variable
from perpixel.data.formats.matrix_files import Hdf5Slice, MatField, mat_strings, read_mat
from perpixel.errors import DataError

IDS = (np.arange(20, dtype=np.uint8) % 7).reshape(4, 5)


def element(kind: int, data: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def matrix(kind: int, name: bytes, inner: bytes, shape: tuple[int, ...] = (1, 1), order: str = "<") -> bytes:
    flags = element(6, struct.pack(f"{order}II", kind, 0), order)
    sizes = element(5, struct.pack(f"{order}{len(shape)}i", *shape), order)
    return element(14, flags + sizes + element(1, name, order) + inner, order)


def mat_file(path: Path, *variables: bytes, order: str = "<") -> Path:
    head = b"MATLAB 5.0 MAT-file".ljust(124) + (b"\x00\x01IM" if order == "<" else b"\x01\x00MI")
    path.write_bytes(head + b"".join(variables))
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int32, np.float64])
def test_mat_field_top_variable_is_read_as_stored(tmp_path: Path, kind: Any, packed: bool) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"x": 1, "S": IDS.astype(kind), "y": "text"}, do_compression=packed)
    field = pickle.loads(pickle.dumps(MatField(tmp_path / "a.mat", ("S",))))
    assert image_size(field) == (4, 5)
    np.testing.assert_array_equal(read_mask(field), IDS)
    assert read_mask(field).dtype == (np.uint8 if kind is np.uint8 else np.uint16)
    assert str(field) == f"{tmp_path / 'a.mat'}: S"


def test_mat_field_nested_structures_are_followed(tmp_path: Path) -> None:
    inner = {"Segmentation": IDS, "Boundaries": np.zeros((2, 1), object)}
    scipy.io.savemat(tmp_path / "a.mat", {"GTcls": inner})
    np.testing.assert_array_equal(read_mask(MatField(tmp_path / "a.mat", ("GTcls", "Segmentation"))), IDS)


def test_mat_field_changed_file_is_read_again(tmp_path: Path) -> None:
    field = MatField(tmp_path / "a.mat", ("S",))
    scipy.io.savemat(tmp_path / "a.mat", {"S": IDS})
    assert read_mask(field).max() == 6
    scipy.io.savemat(tmp_path / "a.mat", {"S": np.zeros((9, 9), np.uint8)})
    assert read_mask(field).shape == (9, 9)


def test_read_variable_all_kinds_equal_the_plain_reader(tmp_path: Path) -> None:
    cells = np.empty((1, 2), object)
    cells[0, 0], cells[0, 1] = "one", np.eye(3)
    content = {
        "numbers": np.linspace(0, 1, 7),
        "complex": np.array([1 + 2j]),
        "text": "aeroplane",
        "cells": cells,
        "empty": np.zeros((0, 3)),
        "records": np.array([(1, "a"), (2, "b")], dtype=[("n", "O"), ("s", "O")]),
        "flag": np.array([True, False]),
    }
    for packed in (False, True):
        scipy.io.savemat(tmp_path / "a.mat", content, do_compression=packed)
        plain = scipy.io.loadmat(tmp_path / "a.mat")
        for name in content:
            assert repr(read_variable(tmp_path / "a.mat", name)) == repr(plain[name])


def test_read_variable_big_endian_file_is_read(tmp_path: Path) -> None:
    data = element(4, np.array([3, 4], ">u2").tobytes(), ">")
    file = mat_file(tmp_path / "a.mat", matrix(11, b"S", data, (1, 2), ">"), order=">")
    assert read_variable(file, "S").tolist() == [[3, 4]]


def test_read_variable_bare_tag_is_an_empty_array(tmp_path: Path) -> None:
    file = mat_file(tmp_path / "a.mat", matrix(1, b"S", element(14, b"")))
    assert read_variable(file, "S")[0, 0].shape == (0, 0)


def test_mat_strings_flatten_cells_and_leave_others_empty(tmp_path: Path) -> None:
    cells = np.empty((1, 3), object)
    cells[0, :] = ["a b", np.eye(2), ""]
    scipy.io.savemat(tmp_path / "a.mat", {"names": cells})
    assert mat_strings(read_mat(tmp_path / "a.mat", ("names",))) == ["a b", "", ""]


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (("LabelMap",), r"no variable 'LabelMap' in this file; it holds S, G, N"),
        (("S", "a"), r"S has no field 'a'; it is an array of shape \(4, 5\)"),
        (("G", "b"), r"G has no field 'b'; it has the fields a"),
        (("N", "n"), r"N is 2 structures, and one was expected"),
        (("G",), r"an array of type .* and shape \(1, 1\) is no image and no mask"),
        (("G", "a"), r"shape \(1, 1, 4\) is no image"),
    ],
)
def test_mat_field_wrong_key_or_shape_is_named(tmp_path: Path, keys: tuple[str, ...], message: str) -> None:
    records = np.array([(1,), (2,)], dtype=[("n", "O")])
    scipy.io.savemat(tmp_path / "a.mat", {"S": IDS, "G": {"a": np.ones((1, 1, 4))}, "N": records})
    with pytest.raises(DataError, match=r"a\.mat.*" + message):
        read_mask(MatField(tmp_path / "a.mat", keys))


@pytest.mark.parametrize("values", [np.array([[0.5]]), np.array([[-1]]), np.array([[70000]]), np.array([[np.nan]])])
def test_mat_field_values_that_are_no_ids_are_refused(tmp_path: Path, values: Any) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"S": values})
    with pytest.raises(DataError, match=r"S: values from .* are not all whole numbers in \[0, 65535\]"):
        read_mask(MatField(tmp_path / "a.mat", ("S",)))


def test_mat_field_empty_array_is_refused(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"S": np.zeros((0, 0))})
    with pytest.raises(DataError, match=r"S: an array of type float64 and shape \(0, 0\) holds no pixels"):
        read_mask(MatField(tmp_path / "a.mat", ("S",)))


def test_mat_field_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"gone\.mat: cannot be read: No such file"):
        read_mask(MatField(tmp_path / "gone.mat", ("S",)))
    with pytest.raises(DataError, match=r"gone\.mat: there is no such file"):
        read_variable(tmp_path / "gone.mat", "S")
    with pytest.raises(DataError, match=r"cannot be read: Is a directory"):
        read_variable(tmp_path, "S")


def test_mat_field_version_7_3_is_named(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "a.mat", "w", userblock_size=512) as file:
        file["S"] = IDS.T
    content = (tmp_path / "a.mat").read_bytes()
    for start in (b"", b"MATLAB 7.3 MAT-file"):
        (tmp_path / "b.mat").write_bytes(start + content[len(start) :])
        with pytest.raises(DataError, match=r"b\.mat: this is a \.mat file of version 7\.3 \(HDF5\).*-v7"):
            read_mask(MatField(tmp_path / "b.mat", ("S",)))


def test_read_variable_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mat").write_bytes(b"not a mat file" * 20)
    with pytest.raises(DataError, match=r"not a \.mat file of versions 5 to 7\.2"):
        read_variable(tmp_path / "a.mat", "S")
    (tmp_path / "a.mat").write_bytes(b"")
    with pytest.raises(DataError, match=r"not a \.mat file"):
        read_variable(tmp_path / "a.mat", "S")
    monkeypatch.setattr(mat5, "MAX_BYTES", 100)
    scipy.io.savemat(tmp_path / "a.mat", {"S": IDS})
    with pytest.raises(DataError, match=r"bytes are more than the limit of 100"):
        read_variable(tmp_path / "a.mat", "S")


def nested(depth: int) -> bytes:
    inner = matrix(9, b"", element(2, b"\x01"))
    for _ in range(depth):
        inner = matrix(1, b"", inner)
    return matrix(1, b"S", inner)


NAMES = element(5, struct.pack("<i", 8)) + element(1, b"field\0\0\0")
HOSTILE = {
    "deep": (nested(5000), "more than 32 deep"),
    "cells": (matrix(1, b"S", b"", (100_000, 10_000)), "1000000000 arrays are stated in 0 bytes"),
    "structures": (matrix(2, b"S", NAMES, (10_000, 10_000)), "100000000 arrays are stated in 0 bytes"),
    "numbers": (
        matrix(9, b"S", element(2, b"\x01"), (2**30, 2**30)),
        r"numbers at byte .* are 1 for the dimensions \(1073741824, 1073741824\)",
    ),
    "negative": (matrix(9, b"S", element(2, b"\x01"), (-1, 1)), r"states the dimensions \(-1, 1\)"),
    "fields": (matrix(2, b"S", element(5, bytes(4)) + element(1, b"ab")), "field names at byte .* 2 bytes of 0 each"),
    "field length": (
        matrix(2, b"S", element(5, b"\0\0") + element(1, b"")),
        "length of field names .* not stated in 4 bytes",
    ),
    "short form": (matrix(9, b"S", struct.pack("<HHI", 2, 5, 0)), "short element .* states 5 bytes"),
    "too long": (matrix(9, b"S", struct.pack("<II", 2, 4096)), "states 4096 bytes and 0 are left"),
    "no matrix": (matrix(1, b"S", element(2, b"\x01")), "an array was expected .* kind 2"),
    "cut within": (matrix(1, b"S", matrix(9, b"", b""), (1, 2)), "it ends at byte .* where an element should begin"),
    "flags": (element(14, element(6, b"") + element(5, bytes(8)) + element(1, b"S")), "flags at byte .* 0 bytes"),
    "number type": (matrix(9, b"S", element(8, bytes(8))), "numbers at byte .* unknown type 8"),
    "within a number": (matrix(9, b"S", element(9, bytes(7))), "end within a number"),
    "text type": (matrix(4, b"S", element(9, bytes(8))), "text at byte .* unknown type 9"),
    "text code": (matrix(4, b"S", element(16, b"\xff")), "text at byte .* is no utf-8"),
    "text length": (matrix(4, b"S", element(16, b"ab")), r"has 2 letters for the dimensions \(1, 1\)"),
    "axes": (matrix(9, b"S", element(2, b"\x01"), (1,) * 9), "states the dimensions"),
    "field twice": (matrix(2, b"S", element(5, struct.pack("<i", 2)) + element(1, b"a\0a\0")), "repeated: a, a"),
    "top kind": (element(9, bytes(16)), "element of kind 9 with 16 bytes"),
}


@pytest.mark.parametrize("fault", HOSTILE)
def test_read_variable_file_that_contradicts_itself_is_refused(tmp_path: Path, fault: str) -> None:
    variable, message = HOSTILE[fault]
    file = mat_file(tmp_path / "a.mat", variable)
    with pytest.raises(DamagedFile, match=rf"a\.mat: variable 'S' is damaged: .*{message}"):
        read_variable(file, "S")


@pytest.mark.parametrize("kind", [5, 16, 17])
def test_read_variable_of_a_class_that_is_not_read_is_refused(tmp_path: Path, kind: int) -> None:
    file = mat_file(tmp_path / "a.mat", matrix(kind, b"S", matrix(9, b"", b"")))
    with pytest.raises(DataError, match=rf"a\.mat: variable 'S' holds an array of class {kind}, which is neither"):
        read_variable(file, "S")


def test_read_variable_structure_without_fields_is_empty(tmp_path: Path) -> None:
    file = mat_file(tmp_path / "a.mat", matrix(2, b"S", element(5, bytes(4)) + element(1, b""), (2**30, 2**30)))
    assert read_variable(file, "S").size == 0


MATLAB_FILES = Path(scipy.io.__file__).parent / "matlab" / "tests" / "data"


@pytest.mark.skipif(not MATLAB_FILES.is_dir(), reason="SciPy was installed without the files of its tests")
def test_read_variable_files_of_matlab_equal_the_plain_reader() -> None:
    compared = 0
    for file in sorted(MATLAB_FILES.glob("*_7.4_GLNX86.mat")):
        if any(kind in file.name for kind in ("sparse", "func", "hdf5", "object")):
            continue
        for name, plain in scipy.io.loadmat(file).items():
            if not name.startswith("__"):
                assert repr(read_variable(file, name)) == repr(plain), file.name
                compared += 1
    assert compared >= 10


def test_read_variable_objects_keep_their_fields(tmp_path: Path) -> None:
    body = element(1, b"Classname") + NAMES + matrix(9, b"", element(2, b"\x05"))
    file = mat_file(tmp_path / "a.mat", matrix(3, b"S", body))
    assert read_mat(file, ("S", "field")).item() == 5


def test_read_variable_shape_that_no_array_can_have_is_refused(tmp_path: Path) -> None:
    file = mat_file(tmp_path / "a.mat", matrix(9, b"S", element(9, b""), (0, *[2**31 - 1] * 4)))
    with pytest.raises(DataError, match=r"a\.mat: cannot be read as a \.mat file"):
        read_variable(file, "S")


def test_read_variable_decompression_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mat5, "MAX_BYTES", 100_000)
    bomb = matrix(9, b"S", element(2, bytes(10_000_000)), (1, 10_000_000))
    file = mat_file(tmp_path / "a.mat", struct.pack("<II", 15, len(zlib.compress(bomb))) + zlib.compress(bomb))
    with pytest.raises(DataError, match=r"variable 'S' unpacks to more than 100000 bytes"):
        read_variable(file, "S")


@pytest.mark.parametrize("packed", [False, True])
def test_read_variable_cut_file_is_refused_at_every_length(tmp_path: Path, packed: bool) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"S": {"a": IDS, "b": "text"}}, do_compression=packed)
    whole = (tmp_path / "a.mat").read_bytes()
    for length in range(0, len(whole), 7):
        (tmp_path / "b.mat").write_bytes(whole[:length])
        with pytest.raises(DataError, match=r"b\.mat"):
            read_variable(tmp_path / "b.mat", "S")


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(128, 700), value=st.integers(0, 255))
def test_read_variable_damaged_byte_raises_data_errors_alone(tmp_path: Path, place: int, value: int) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"S": {"a": IDS, "b": np.array(["x", 1], object)}}, do_compression=False)
    content = bytearray((tmp_path / "a.mat").read_bytes())
    content[place % len(content)] = value
    (tmp_path / "b.mat").write_bytes(content)
    try:
        read_mat(tmp_path / "b.mat", ("S", "a"))
    except DataError as error:
        assert "b.mat" in str(error)


def hdf5(path: Path) -> Path:
    """Images (H 4, W 5, 3, N 2), labels and a column of references as MATLAB lays them down."""
    image = np.arange(4 * 5 * 3 * 2, dtype=np.uint8).reshape(4, 5, 3, 2)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["images"] = image.T
        file["labels"] = np.stack([IDS, IDS + 1], axis=2).astype(np.uint16).T
        refs = file.create_group("#refs#")
        refs["a"] = IDS.T
        refs["group/x"] = 1
        kind = h5py.special_dtype(ref=h5py.Reference)
        column = file.create_dataset("T/seglabel", (3, 1), dtype=kind)
        column[0, 0], column[1, 0] = refs["a"].ref, refs["group"].ref
        file["names"] = np.array([b"#refs#/a"], dtype=h5py.string_dtype())
        file["half"] = np.full((5, 4), 0.5)
    return path


def test_hdf5_slice_is_turned_as_matlab_shows_it(tmp_path: Path) -> None:
    file = hdf5(tmp_path / "a.mat")
    picture = Hdf5Slice(file, "images", (1,), axes=(2, 1, 0))
    assert image_size(picture) == (4, 5)
    expected = np.arange(4 * 5 * 3 * 2, dtype=np.uint8).reshape(4, 5, 3, 2)[..., 1]
    np.testing.assert_array_equal(read_pixels(picture), expected)
    np.testing.assert_array_equal(read_mask(Hdf5Slice(file, "labels", (1,))), IDS + 1)
    reference = pickle.loads(pickle.dumps(Hdf5Slice(file, "T/seglabel", (0, 0))))
    np.testing.assert_array_equal(read_mask(reference), IDS)
    assert read_mask(reference).dtype == np.uint8
    assert str(reference) == f"{file}: T/seglabel[0, 0]"
    np.testing.assert_array_equal(Hdf5Slice(file, "#refs#/a").read(), IDS)


@pytest.mark.parametrize(
    ("dataset", "index", "message"),
    [
        ("label", (0,), r"label\[0\]: there is no 'label'; the file holds #refs#, T, half, images"),
        ("T/other", (0,), r"there is no 'other'; the file holds seglabel there"),
        ("images/x", (), r"there is no 'x'; the file holds nothing there"),
        ("T", (), r"this is a group of datasets, not a dataset"),
        ("labels", (2,), r"the dataset has shape \(2, 5, 4\), so there is no such slice"),
        ("labels", (-1,), r"there is no such slice"),
        ("labels", (0, 0, 0, 0), r"there is no such slice"),
        ("labels", (), r"a slice of shape \(2, 5, 4\) does not have the 2 axes of a picture"),
        ("T/seglabel", (1, 0), r"this is a group of datasets"),
        ("T/seglabel", (2, 0), r"the reference is empty"),
        ("names", (0,), r"a slice of shape \(\) does not have the 2 axes"),
        ("half", (), r"half: values from 0\.5 to 0\.5 are not all whole numbers"),
    ],
)
def test_hdf5_slice_wrong_place_or_shape_is_named(
    tmp_path: Path, dataset: str, index: tuple[int, ...], message: str
) -> None:
    with pytest.raises(DataError, match=r"a\.mat: " + f".*{message}"):
        read_mask(Hdf5Slice(hdf5(tmp_path / "a.mat"), dataset, index))


def test_hdf5_slice_version_5_and_other_files_are_named(tmp_path: Path) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"S": IDS})
    with pytest.raises(DataError, match=r"a\.mat: this is a \.mat file of an older version than 7\.3.*-v7\.3"):
        read_mask(Hdf5Slice(tmp_path / "a.mat", "S"))
    (tmp_path / "a.mat").write_bytes(b"something else")
    with pytest.raises(DamagedFile, match=r"a\.mat: cannot be read as HDF5, damaged or cut short"):
        read_mask(Hdf5Slice(tmp_path / "a.mat", "S"))
    with pytest.raises(DataError, match=r"gone\.mat: there is no such file"):
        read_mask(Hdf5Slice(tmp_path / "gone.mat", "S"))
    whole = hdf5(tmp_path / "b.mat").read_bytes()
    (tmp_path / "b.mat").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=r"b\.mat: cannot be read as HDF5"):
        read_mask(Hdf5Slice(tmp_path / "b.mat", "labels", (0,)))


def test_hdf5_slice_links_to_other_files_are_not_followed(tmp_path: Path) -> None:
    hdf5(tmp_path / "other.h5")
    (tmp_path / "raw").write_bytes(bytes(20))
    layout = h5py.VirtualLayout((5, 4), "u1")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "#refs#/a", (5, 4))
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["S"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/#refs#/a")
        file.create_dataset("raw", (5, 4), "u1", external=[(str(tmp_path / "raw"), 0, 20)])
        file.create_virtual_dataset("view", layout)
        file["loop"] = h5py.SoftLink("/loop")
    with pytest.raises(DataError, match=r"a\.h5: S: 'S' is a link into another file, which is not followed"):
        read_mask(Hdf5Slice(tmp_path / "a.h5", "S"))
    for name in ("raw", "view"):
        with pytest.raises(DataError, match=rf"a\.h5: {name}: the values lie in other files"):
            read_mask(Hdf5Slice(tmp_path / "a.h5", name))
    with pytest.raises(DataError, match=r"a\.h5"):
        read_mask(Hdf5Slice(tmp_path / "a.h5", "loop"))


def test_hdf5_slice_above_the_limits_is_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file.create_dataset("S", (50_000, 50_000), "u1", chunks=(10, 10))
        file.create_dataset("T", (60, 60), "u1", chunks=(60, 60))
    with pytest.raises(DataError, match=r"2500000000 pixels are more than the limit"):
        read_mask(Hdf5Slice(tmp_path / "a.h5", "S"))
    with pytest.raises(DataError, match=r"a slice of shape \(50000, 50000\) is larger than"):
        Hdf5Slice(tmp_path / "a.h5", "S").read()
    monkeypatch.setattr(matrix_files, "MAX_BYTES", 1000)
    with pytest.raises(DataError, match=r"T: chunks of \(60, 60\) values are larger than 1000 bytes"):
        read_mask(Hdf5Slice(tmp_path / "a.h5", "T"))


def test_hdf5_slice_without_h5py_names_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = hdf5(tmp_path / "a.mat")
    real = builtins.__import__

    def without_h5py(name: str, *args: Any, **kwargs: Any) -> Any:
        if name == "h5py":
            raise ImportError(name)
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without_h5py)
    with pytest.raises(DataError, match=r"a\.mat: HDF5 files are read by h5py.*pip install 'perpixel\[formats\]'"):
        read_mask(Hdf5Slice(file, "labels", (0,)))


def test_read_mat_sparse_field_beside_the_mask_is_passed_over(tmp_path: Path) -> None:
    boundaries = np.empty((2, 1), object)
    boundaries[:, 0] = [scipy.sparse.csc_matrix(k == IDS) for k in range(2)]
    content = {"GTcls": {"Boundaries": boundaries, "Segmentation": IDS, "Edge": scipy.sparse.csc_matrix(IDS)}}
    scipy.io.savemat(tmp_path / "a.mat", content, do_compression=True)
    np.testing.assert_array_equal(read_mask(MatField(tmp_path / "a.mat", ("GTcls", "Segmentation"))), IDS)
    with pytest.raises(DataError, match=r"a\.mat: GTcls\.Edge is an array of class 5, which is neither"):
        read_mat(tmp_path / "a.mat", ("GTcls", "Edge"))
