"""Which dense CRF a network gets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from perpixel.build.crf_choice import choose_crf, published_crf, read_crf, write_crf
from perpixel.errors import ConfigError, InvalidValue, RunError
from perpixel.inference.dense_crf import DENSE_CRFS, DenseCRF
from perpixel.models import MODELS, create_model


@pytest.mark.parametrize(
    ("name", "options", "backbone", "published"),
    [
        ("deeplab_v1", {}, None, "deeplab_largefov"),
        ("deeplab_v1", {"fc6_kernel": 4}, None, "deeplab_v1"),
        ("deeplab_v1", {"msc": True}, None, "deeplab_v1_msc"),
        ("deeplab_v2", {}, "vgg16", "deeplab_v2_vgg16"),
        ("deeplab_v2", {}, "caffe_resnet50", "deeplab_v2_resnet101"),
        ("deconvnet", {}, None, "deconvnet"),
        ("unet", {}, None, "deeplab_v2_resnet101"),
    ],
)
def test_published_crf_is_the_networks_own(
    name: str, options: dict[str, Any], backbone: str | None, published: str
) -> None:
    small = MODELS[name].config.small()
    config = type(small)(**{**{f: getattr(small, f) for f in small.__dataclass_fields__}, **options})
    network = create_model(name, config, num_classes=2, backbone=backbone)
    assert published_crf(network) == published
    assert choose_crf(network, True) is DENSE_CRFS[published]


def test_choose_crf_behind_a_network_that_holds_one_is_refused_unless_named() -> None:
    network = create_model("crf_rnn", MODELS["crf_rnn"].config.small(), num_classes=2)
    with pytest.raises(InvalidValue, match="crf_rnn holds its own CRF; leave --crf away"):
        choose_crf(network, True)
    assert choose_crf(network, "crf_rnn").normalization == "after"


def test_choose_crf_takes_none_a_name_or_numbers() -> None:
    network = create_model("unet", MODELS["unet"].config.small(), num_classes=2)
    own = DenseCRF(iterations=3)
    assert choose_crf(network, False) is None
    assert choose_crf(network, "crf_rnn") is DENSE_CRFS["crf_rnn"]
    assert choose_crf(network, own) is own


@pytest.mark.parametrize(
    "crf",
    [
        DenseCRF(bilateral_weight=7, color_width=4.5, normalization="after"),
        DenseCRF(spatial_weight=(1.0, 2.0), bilateral_weight=((-1.0, 0.5), (0.5, -1.0)), iterations=3),
    ],
)
def test_crf_file_reads_back_and_is_chosen_by_its_name(crf: DenseCRF, tmp_path: Path) -> None:
    write_crf(tmp_path / "new" / "crf.yaml", crf)
    assert read_crf(tmp_path / "new" / "crf.yaml") == crf
    network = create_model("unet", MODELS["unet"].config.small(), num_classes=2)
    assert choose_crf(network, str(tmp_path / "new" / "crf.yaml")) == crf


def test_crf_file_with_some_numbers_takes_the_defaults_for_others(tmp_path: Path) -> None:
    (tmp_path / "crf.yml").write_text("bilateral_width: 80\n", encoding="utf-8")
    assert read_crf(tmp_path / "crf.yml") == DenseCRF(bilateral_width=80)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("- 3\n", "are a mapping with the keys bilateral_weight, bilateral_width"),
        ("color_widht: 3\n", "unknown key 'color_widht'; did you mean 'color_width'"),
        ("color_width: -3\n", r"crf.yaml: .*-3"),
        ("color_width: wide\n", r"crf.yaml: "),
        ("a: [\n", "cannot be read"),
    ],
)
def test_crf_file_of_another_form_is_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "crf.yaml").write_text(content, encoding="utf-8")
    with pytest.raises(ConfigError, match=message):
        read_crf(tmp_path / "crf.yaml")


def test_crf_file_that_is_missing_or_cannot_be_written_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no.yaml: the numbers of a dense CRF cannot be read"):
        read_crf(tmp_path / "no.yaml")
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(RunError, match="cannot be written"):
        write_crf(tmp_path / "file" / "crf.yaml", DenseCRF())
