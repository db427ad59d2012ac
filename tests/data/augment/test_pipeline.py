"""data.augment.pipeline, mixing, cropping and plugged: what reaches a batch, and that it depends on its key alone."""

from __future__ import annotations

import pickle
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import albumentations
import numpy as np
import pytest
import torch
from torchvision import tv_tensors
from torchvision.transforms import v2

from perpixel.data.augment.cropping import draw_around, largest_share, limited
from perpixel.data.augment.mixing import chosen_classes, draw_cells, draw_rectangle, half_of_classes, pasted
from perpixel.data.augment.pipeline import SamplePipeline
from perpixel.data.augment.plugged import PluggedByName, call_plugged
from perpixel.data.augment.settings import Augment
from perpixel.data.batches import TrainBatches
from perpixel.data.transforms import Augmentation, Window, apply, draw, labels_inside, sample_rng
from perpixel.errors import DataError, InvalidValue

PADS = (0.5, 0.4, 0.3)
EVERYTHING = Augment(
    affine=0.5, shear=10, stretch=1.2, translate=0.1, blur=0.5, noise=0.5, gamma=0.5, hue=0.5, grayscale=0.3,
    cutout=0.5, cutmix=0.5, classmix=0.5, copy_paste=0.5, copy_paste_classes=(3,), mosaic=0.3, max_class_share=0.75,
)  # fmt: skip
GEOMETRY = {
    "affine": Augment(affine=1, rotate=180, shear=20, stretch=1.5, translate=0.3),
    "mirrored": Augment(affine=1, rotate=180, border="mirror"),
    "cutout": Augment(cutout=1, cutout_holes=3),
    "cutmix": Augment(cutmix=1),
    "classmix": Augment(classmix=1),
    "copy_paste": Augment(copy_paste=1, copy_paste_classes=(1, 4)),
    "mosaic": Augment(mosaic=1),
    "share": Augment(max_class_share=0.3),
    "pixels": Augment(blur=1, gamma=1, hue=1, grayscale=1, noise=1),
    "all": EVERYTHING,
}


class Coded:
    """Samples whose colour says their label: 40 times the label, in blocks; channel 1 says which sample it is."""

    def __init__(self, count: int = 5, *, depth: str = "8", masked: bool = True) -> None:
        self.count, self.depth, self.masked = count, depth, masked

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Any:
        rng = np.random.default_rng(index)
        labels = np.kron(rng.integers(0, 5, (4, 5), np.uint8), np.ones((9, 8), np.uint8))
        pixels = np.stack([labels * 40, np.full_like(labels, 10 * index), 200 - labels * 40], axis=-1)
        image = torch.from_numpy(pixels).permute(2, 0, 1)
        if self.depth == "16" or (self.depth == "mixed" and index % 2):
            image = image.int() * 257
        target = torch.from_numpy(labels) if self.masked else None
        return SimpleNamespace(image=image, target=target, name=f"sample-{index}", size=(36, 40))


def pipeline(settings: Augment | None, dataset: Any = None, **changes: Any) -> SamplePipeline:
    augmentation = Augmentation(**{"crop_size": (20, 24), "scale_range": (0.8, 1.6), "augment": settings, **changes})
    return SamplePipeline(Coded() if dataset is None else dataset, augmentation, 3, PADS)


@pytest.mark.parametrize("name", GEOMETRY)
def test_pipeline_creates_no_id_and_keeps_the_contract(name: str) -> None:
    source = pipeline(GEOMETRY[name])
    for index in range(12):
        image, target, _, _ = source(index // 5, index % 5)
        assert image.shape == (3, 20, 24)
        assert image.dtype == target.dtype == torch.uint8
        assert image.permute(1, 2, 0).is_contiguous()
        assert set(target.unique().tolist()) <= {0, 1, 2, 3, 4, 255}


@pytest.mark.parametrize("name", ["affine", "mirrored", "cutout", "cutmix", "classmix", "copy_paste", "mosaic"])
def test_pipeline_image_and_labels_stay_aligned(name: str) -> None:
    source = pipeline(GEOMETRY[name], scale_range=None)  # not resized: but for affine maps, colours stay exact
    share = []
    for index in range(20):
        image, target, _, _ = source(index // 5, index % 5)
        labelled = target != 255
        difference = (image[0].int() - 40 * target.int())[labelled].abs()
        if "affine" in name or name == "mirrored":
            share.append((difference > 20).float().mean().item())
        else:
            assert not difference.any()
            assert ((image[0].int() == 128) | labelled).all()
    assert not share or np.mean(share) < 0.12  # edges between blocks, where neighbours are blended


@pytest.mark.parametrize("name", ["cutmix", "mosaic", "classmix", "copy_paste"])
def test_pipeline_mixtures_show_another_sample(name: str) -> None:
    source = pipeline(GEOMETRY[name], scale_range=None)
    several = 0
    for index in range(20):
        image, target, _, _ = source(index // 5, index % 5)
        seen = set(image[1][target != 255].unique().tolist())
        assert 10 * (index % 5) in seen or name in ("classmix", "cutmix", "copy_paste")
        several += len(seen) > 1
    assert several >= 10


@pytest.mark.parametrize("name", GEOMETRY)
def test_pipeline_off_by_probability_is_the_window_alone(name: str) -> None:
    plain, off = pipeline(None), pipeline(Augment())
    for index in range(3):
        first, second = plain(0, index), off(0, index)
        sample = Coded()[index]
        rng = sample_rng(3, 0, index)
        window = draw(plain.augmentation, (36, 40), rng, sample.target)
        expected = apply(window, sample.image, sample.target, pad_value=PADS)
        assert torch.equal(first.image, expected[0])
        assert torch.equal(first.target, expected[1])
        assert torch.equal(first.image, second.image)
        assert first.jitter == second.jitter


def test_pipeline_one_transform_does_not_change_what_another_draws() -> None:
    alone = pipeline(Augment(cutout=1))
    both = pipeline(Augment(cutout=1, gamma=1, grayscale=1, noise=1, blur=1))
    for index in range(5):
        assert torch.equal(alone(0, index).target, both(0, index).target)
        assert alone(0, index).jitter == both(0, index).jitter


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_with_everything_depend_on_seed_epoch_and_index_alone(workers: int) -> None:
    augmentation = Augmentation(crop_size=(20, 24), scale_range=(0.8, 1.6), augment=EVERYTHING)
    options: dict[str, Any] = {"batch_size": 2, "steps": 6, "seed": 5, "pad_value": PADS}
    expected = list(TrainBatches(Coded(), augmentation, **options))
    resumed = list(TrainBatches(Coded(), augmentation, **options, start_step=3, workers=workers))
    assert len(resumed) == 3
    for first, second in zip(expected[3:], resumed, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(first[:3], second[:3], strict=True))
    other = next(iter(TrainBatches(Coded(), augmentation, **{**options, "seed": 6})))
    assert not torch.equal(other.images, expected[0].images)


def test_pipeline_16_bit_samples_go_through_everything() -> None:
    source = pipeline(EVERYTHING, Coded(depth="16"))
    for index in range(10):
        image, target, _, _ = source(index // 5, index % 5)
        assert image.dtype == torch.int32
        assert 0 <= image.min() <= image.max() <= 65535
        assert set(target.unique().tolist()) <= {0, 1, 2, 3, 4, 255}


@pytest.mark.parametrize("settings", [Augment(cutmix=1), Augment(mosaic=1), Augment(classmix=1)])
def test_pipeline_data_set_of_one_sample_is_mixed_with_itself(settings: Augment) -> None:
    assert pipeline(settings, Coded(1))(0, 0).image.shape == (3, 20, 24)


def test_pipeline_mixed_bit_depths_raise() -> None:
    with pytest.raises(DataError, match=r"sample-\d has int32 pixels and is mixed with a sample of uint8"):
        for index in range(0, 40, 2):
            pipeline(Augment(classmix=1), Coded(depth="mixed"))(index // 5, 0)


def test_pipeline_sample_without_mask_raises() -> None:
    with pytest.raises(DataError, match="sample-1 has no mask"):
        pipeline(None, Coded(masked=False))(0, 1)


def test_pipeline_copy_paste_takes_samples_that_hold_its_classes() -> None:
    settings = Augment(copy_paste=1, copy_paste_classes=(3,))
    presence = np.zeros((5, 5), bool)
    presence[2, 3] = True
    augmentation = Augmentation(crop_size=(36, 40), augment=settings, flip=0)
    source = SamplePipeline(Coded(), augmentation, 0, PADS, presence)
    third = Coded()[2].target == 3
    assert third.any()
    image, target, _, _ = source(0, 0)
    assert (target[third] == 3).all()
    assert (image[1][third] == 20).all()
    with pytest.raises(DataError, match=r"copy_paste_classes \[3\]: no training image has any"):
        SamplePipeline(Coded(), augmentation, 0, PADS, np.zeros((5, 3), bool))


def test_augmentation_filled_affine_with_mirrored_elastic_raises() -> None:
    with pytest.raises(InvalidValue, match=r"augment\.border is 'fill'"):
        Augmentation(crop_size=(8, 8), elastic=2.0, augment=Augment(affine=0.5))
    warped = pipeline(Augment(affine=1, border="mirror"), elastic=2.0)(0, 0)
    assert not (warped.target == 255).any()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"blur": 1.5}, r"augment.blur lies in \[0, 1\], got 1.5"),
        ({"rotate": 200}, r"augment.rotate lies in \[0, 180\]"),
        ({"blur_sigma": (2.0, 1.0)}, r"augment.blur_sigma is \(smallest, largest\)"),
        ({"border": "wrap"}, "augment.border is one of"),
        ({"max_class_share": 0.0}, r"augment.max_class_share lies in \(0, 1\]"),
        ({"cutmix_alpha": 0.0}, "augment.cutmix_alpha lies in"),
        ({"copy_paste": 0.5}, "needs augment.copy_paste_classes"),
        ({"copy_paste_classes": (255,)}, r"train ids in \[0, 254\], got 255"),
        ({"plugged": 3}, "3 cannot be called"),
    ],
)
def test_augment_value_out_of_range_raises(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        Augment(**values)


def test_draw_rectangle_shares_follow_beta_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    shares = []
    for _ in range(300):
        rows, columns = draw_rectangle((40, 60), 1.0, rng)
        assert 0 <= rows.start <= rows.stop <= 40
        assert 0 <= columns.start <= columns.stop <= 60
        shares.append((rows.stop - rows.start) * (columns.stop - columns.start) / 2400)
    assert 0.25 < np.mean(shares) < 0.45  # a uniform share, less what the edges cut


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (20, 30)])
def test_draw_cells_cover_the_window_once(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        count = np.zeros(size, int)
        for cell in draw_cells(size, rng):
            count[cell] += 1
        assert (count == 1).all()


def test_half_of_classes_is_half_of_those_that_occur() -> None:
    labels = np.array([[0, 1, 2, 7, 255]], np.uint8)
    table = half_of_classes(labels, np.random.default_rng(0))
    assert table.sum() == 2
    assert set(np.flatnonzero(table)) <= {0, 1, 2, 7}
    assert not half_of_classes(np.full((2, 2), 255, np.uint8), np.random.default_rng(0)).any()


@pytest.mark.parametrize(("channels", "dtype"), [(1, np.uint8), (3, np.uint8), (3, np.int32)])
def test_pasted_agrees_with_the_plain_twin(channels: int, dtype: Any) -> None:
    rng = np.random.default_rng(0)
    first, second = (rng.integers(0, 256, (9, 11, channels)).astype(dtype) for _ in range(2))
    labels, others = (rng.integers(0, 4, (9, 11), np.uint8) for _ in range(2))
    image, found = pasted(first, labels, second, others, chosen_classes((1, 3)))
    for i, j in np.ndindex(9, 11):
        taken = others[i, j] in (1, 3)
        assert (image[i, j] == (second if taken else first)[i, j]).all()
        assert found[i, j] == (others if taken else labels)[i, j]


def test_labels_inside_are_those_of_apply() -> None:
    rng = np.random.default_rng(0)
    target = torch.from_numpy(rng.integers(0, 9, (30, 40), np.uint8))
    for _ in range(20):
        window = draw(Augmentation(crop_size=(25, 25), scale_range=(0.5, 2.0)), (30, 40), rng)
        whole = apply(window._replace(flip=False), torch.zeros(1, 30, 40, dtype=torch.uint8), target, pad_value=(0.0,))
        inside = labels_inside(window, target)
        assert np.array_equal(inside[inside != 255], whole[1].numpy()[whole[1].numpy() != 255])


def test_limited_moves_windows_until_no_class_covers_too_much() -> None:
    target = torch.zeros(40, 80, dtype=torch.uint8)
    target[:, 60:] = 1
    window = Window((1, 1), (40, 80), (20, 20), (0, 0), True)
    rng = np.random.default_rng(0)
    shares = [largest_share(labels_inside(limited(window, target, 0.75, 100, rng), target)) for _ in range(20)]
    assert max(shares) <= 0.75
    assert limited(window, target, 1.0, 10, rng) == window
    moved = limited(window, target, 0.75, 100, rng)
    assert moved._replace(corner=(0, 0)) == window
    assert largest_share(np.full((2, 2), 255, np.uint8)) == 0


def test_draw_around_windows_hold_the_class() -> None:
    target = torch.zeros(50, 50, dtype=torch.uint8)
    target[44, 3] = 2
    classes = chosen_classes((2,))
    for seed in range(10):
        augmentation = Augmentation(crop_size=(9, 9), flip=0)
        window = draw_around(augmentation, (50, 50), np.random.default_rng(seed), target, classes)
        assert (labels_inside(window, target) == 2).any()


def swapped(image: np.ndarray, mask: np.ndarray) -> Any:
    """A plain callable: upside down."""
    return image[::-1], mask[::-1]


def shaken(image: np.ndarray, mask: np.ndarray) -> Any:
    """A plain callable that draws from every global generator."""
    import random

    draws = [random.random(), np.random.random(), torch.rand(()).item()]  # noqa: NPY002
    return np.full_like(image, int(sum(draws) * 80)), mask


def pair() -> tuple[np.ndarray, np.ndarray]:
    sample = Coded()[1]
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy()), sample.target.numpy()


def test_call_plugged_plain_callable_gets_true_ids() -> None:
    pixels, labels = pair()
    image, mask = call_plugged(swapped, "auto", pixels, labels, 0)
    assert (image == pixels[::-1]).all()
    assert (mask == labels[::-1]).all()


@pytest.mark.parametrize(
    "transform",
    [
        albumentations.Compose([albumentations.Affine(rotate=(40, 50), p=1), albumentations.HorizontalFlip(p=0.5)]),
        albumentations.Compose([albumentations.Rotate((40, 50), p=1, fill_mask=255)]),
        v2.RandomAffine((40, 50)),
        v2.Compose([v2.RandomRotation((40, 50), fill={tv_tensors.Image: 0, tv_tensors.Mask: 255}), v2.GaussianNoise()]),
    ],
    ids=["albumentations", "albumentations filled", "torchvision", "torchvision filled"],
)
def test_call_plugged_toolkits_fill_with_255_and_repeat_by_seed(transform: Any) -> None:
    pixels, labels = pair()
    if isinstance(transform, v2.Compose):
        transform = v2.Compose(transform.transforms[:1])
    image, mask = call_plugged(transform, "auto", pixels, labels, 7)
    outside = image.sum(-1) == 0
    assert outside.any()
    assert (mask[outside] == 255).all()
    assert set(np.unique(mask).tolist()) <= {0, 1, 2, 3, 4, 255}
    again = call_plugged(transform, "auto", pixels, labels, 7)
    assert (again[0] == image).all()
    assert (again[1] == mask).all()


def test_call_plugged_seeds_global_generators_and_puts_them_back() -> None:
    pixels, labels = pair()
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first = call_plugged(shaken, "arrays", pixels, labels, 5)[0]
    assert torch.equal(torch.rand(3), expected)
    assert (call_plugged(shaken, "arrays", pixels, labels, 5)[0] == first).all()
    assert (call_plugged(shaken, "arrays", pixels, labels, 6)[0] != first).any()


@pytest.mark.parametrize(
    ("transform", "style", "message"),
    [
        (lambda i, m: (i[:5], m), "arrays", r"returns image as uint8 \(5, 40, 3\), and it must stay"),
        (lambda i, m: (i, m.astype(float)), "arrays", "returns mask as float64"),
        (lambda i, m: (i, m + np.uint8(9)), "arrays", "put ids .*13.* into a mask that has only"),
        (lambda i, m: i, "arrays", "returns ndarray, not the pair"),
        (lambda image, mask: (image, mask), "albumentations", "returns tuple, not a mapping"),
        (lambda i, m: (i.numpy(), m), "torchvision", "something other than image and mask tensors"),
    ],
)
def test_call_plugged_result_that_breaks_the_contract_raises(transform: Any, style: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        call_plugged(transform, style, *pair(), 0)


def test_call_plugged_16_bit_image_raises() -> None:
    pixels, labels = pair()
    with pytest.raises(DataError, match="8-bit images"):
        call_plugged(swapped, "arrays", pixels.astype(np.int32), labels, 0)


def test_plugged_by_name_is_found_in_a_file_and_survives_pickling(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("def upside_down(image, mask):\n    return image[::-1], mask[::-1]\n")
    found = PluggedByName(f"{tmp_path}/mine.py:upside_down")
    source = pipeline(Augment(plugged=pickle.loads(pickle.dumps(found))))
    assert torch.equal(source(0, 1).target, pipeline(None)(0, 1).target.flip(0))
    assert repr(found).endswith("mine.py:upside_down")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no_colon", "is 'module:name' or"),
        ("perpixel_no_such_module:f", "No module named 'perpixel_no_such_module'"),
        ("/nowhere/mine.py:f", "there is no file"),
        ("math:nothing", "math has no callable 'nothing'"),
        ("math:pi", "math has no callable 'pi'"),
    ],
)
def test_plugged_by_name_that_is_not_there_raises(spec: str, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        PluggedByName(spec)
