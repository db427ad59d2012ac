from dataclasses import replace

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.inference.dense_crf import DENSE_CRFS, DenseCRF, dense_crf, dense_crf_from_energies
from perpixel.ops.mean_field import bilateral_features, exact_filter, mean_field, normalized, position_features

SMALL = DenseCRF(bilateral_width=20, color_width=10, iterations=3)
NAN = float("nan")


def scene(height: int = 24, width: int = 30, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Probabilities (3, H, W) of a labelling with noise, a picture (3, H, W) uint8 of it, and the labelling."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.zeros(height, width, dtype=torch.long)
    labels[:, width // 2 :] = 1
    labels[height // 2 :, : width // 3] = 2
    colors = torch.tensor([[60, 80, 100], [150, 90, 60], [90, 180, 90]])
    image = (colors[labels] + 4 * torch.randn(height, width, 3, generator=generator)).clamp(0, 255)
    noise = torch.randn(3, height, width, generator=generator, dtype=torch.float64)
    scores = 2 * torch.nn.functional.one_hot(labels, 3).permute(2, 0, 1) + noise
    return scores.softmax(0), image.permute(2, 0, 1).to(torch.uint8), labels


def test_dense_crf_noisy_probabilities_become_the_regions_of_the_image() -> None:
    probabilities, image, labels = scene()
    refined = dense_crf(probabilities, image, SMALL)
    before, after = ((p.argmax(0) == labels).double().mean() for p in (probabilities, refined))
    assert before < 0.95 < 0.99 < after
    torch.testing.assert_close(refined.sum(0), torch.ones_like(refined[0]))


def test_dense_crf_is_near_the_exact_one() -> None:
    probabilities, image, _ = scene()
    features = [position_features(24, 30, 1.0), bilateral_features(image[None], 20.0, 10.0)]
    filters = [normalized(exact_filter(f), "symmetric") for f in features]
    scores = probabilities.flatten(1).T[None].log()
    exact = mean_field(scores, filters, [3.0, 4.0], iterations=3).softmax(-1)[0].T.reshape(3, 24, 30)
    ours = dense_crf(probabilities, image, SMALL)
    assert (ours.argmax(0) == exact.argmax(0)).double().mean() > 0.98
    assert 0 < (ours - exact).abs().mean() < 0.02


def test_dense_crf_batch_equals_loop_of_singles() -> None:
    pairs = [scene(seed=seed)[:2] for seed in range(3)]
    probabilities, images = (torch.stack(part) for part in zip(*pairs, strict=True))
    together = dense_crf(probabilities, images, SMALL)
    alone = torch.stack([dense_crf(p, i, SMALL) for p, i in pairs])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_dense_crf_one_pixel_rewards_its_own_class() -> None:
    probabilities = torch.tensor([0.6, 0.4], dtype=torch.float64).reshape(2, 1, 1)
    crf = DenseCRF(iterations=1)
    refined = dense_crf(probabilities, torch.zeros(3, 1, 1, dtype=torch.uint8), crf)
    wanted = (probabilities.log() + 7 * probabilities).softmax(0)  # a normalised filter of one pixel changes nothing
    torch.testing.assert_close(refined, wanted, rtol=0, atol=1e-12)


@pytest.mark.parametrize("crf", [replace(SMALL, iterations=0), replace(SMALL, spatial_weight=0, bilateral_weight=0)])
def test_dense_crf_without_updates_or_kernels_returns_the_probabilities(crf: DenseCRF) -> None:
    probabilities, image, _ = scene()
    torch.testing.assert_close(dense_crf(probabilities, image, crf), probabilities, rtol=0, atol=1e-12)


def test_dense_crf_energies_and_probabilities_agree() -> None:
    probabilities, image, _ = scene()
    from_energies = dense_crf_from_energies(-probabilities.log(), image, SMALL)
    torch.testing.assert_close(dense_crf(probabilities, image, SMALL), from_energies, rtol=0, atol=1e-12)


@pytest.mark.parametrize("normalization", ["none", "before", "after", "symmetric"])
def test_dense_crf_weights_as_number_vector_and_matrix_agree(normalization: str) -> None:
    probabilities, image, _ = scene(12, 12)
    matrix = tuple(tuple(-2.0 if i == j else 0.0 for j in range(3)) for i in range(3))
    results = [
        dense_crf(
            probabilities,
            image,
            replace(SMALL, spatial_weight=weight, bilateral_weight=weight, normalization=normalization),
        )
        for weight in (2.0, (-2.0, -2.0, -2.0), matrix)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=1e-12)
    torch.testing.assert_close(results[0], results[2], rtol=0, atol=1e-12)


def test_dense_crf_image_types_agree() -> None:
    probabilities, image, _ = scene()
    eight = dense_crf(probabilities, image, SMALL)
    torch.testing.assert_close(dense_crf(probabilities, image.int() * 257, SMALL), eight, rtol=0, atol=1e-9)
    assert torch.equal(dense_crf(probabilities, image.float(), SMALL), eight)


def test_dense_crf_grey_image_has_one_colour() -> None:
    probabilities, image, labels = scene()
    refined = dense_crf(probabilities, image[1:2], SMALL)
    assert (refined.argmax(0) == labels).double().mean() > (probabilities.argmax(0) == labels).double().mean()


@pytest.mark.parametrize(
    ("given", "returned"), [(torch.float16, torch.float32), (torch.float32, torch.float32), (torch.float64,) * 2]
)
def test_dense_crf_computes_in_float32_at_least(given: torch.dtype, returned: torch.dtype) -> None:
    probabilities, image, _ = scene()
    refined = dense_crf(probabilities.to(given), image, SMALL)
    assert refined.dtype == returned
    assert (refined.argmax(0) == dense_crf(probabilities, image, SMALL).argmax(0)).double().mean() > 0.99


def test_dense_crf_leaves_its_arguments_alone_and_wants_no_gradient() -> None:
    probabilities, image, _ = scene(8, 8)
    kept = probabilities.clone()
    refined = dense_crf(probabilities.requires_grad_(), image, SMALL)
    assert torch.equal(probabilities, kept) and not refined.requires_grad


def test_dense_crfs_hold_the_published_numbers() -> None:
    rows = {
        name: (c.spatial_weight, c.spatial_width, c.bilateral_weight, c.bilateral_width, c.color_width)
        for name, c in DENSE_CRFS.items()
    }
    assert rows == {
        "deeplab_v1": (3, 3, 5, 50, 10),
        "deeplab_v1_msc": (3, 3, 3, 95, 3),
        "deeplab_v1_coco": (3, 3, 5, 67, 3),
        "deeplab_largefov": (3, 3, 4, 49, 5),
        "deeplab_v2_vgg16": (2, 2, 4, 65, 3),
        "deeplab_v2_resnet101": (3, 1, 4, 67, 3),
        "deconvnet": (3, 3, 5, 20, 3),
        "crf_rnn": (3, 3, 5, 160, 3),
        "pydensecrf": (3, 3, 10, 80, 13),
    }
    after = {name for name, crf in DENSE_CRFS.items() if crf.normalization == "after"}
    assert after == {"deeplab_v1", "deeplab_v1_msc", "deeplab_v1_coco", "crf_rnn"}
    assert all(crf.normalization == "symmetric" for name, crf in DENSE_CRFS.items() if name not in after)
    assert {crf.iterations for crf in DENSE_CRFS.values()} == {10}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"spatial_width": 0}, "the spatial width of a CRF kernel must be a positive number, got 0"),
        ({"bilateral_width": -2.0}, "the bilateral width of a CRF kernel must be a positive number, got -2.0"),
        ({"color_width": NAN}, "the color width of a CRF kernel must be a positive number, got nan"),
        ({"spatial_weight": float("inf")}, "spatial_weight is a finite number, K of them, or K rows of K, got inf"),
        ({"bilateral_weight": ((1.0, 2.0), (3.0,))}, "bilateral_weight is a finite number"),
        ({"iterations": -1}, "iterations of a dense CRF must be >= 0, got -1"),
        ({"normalization": "mean"}, "normalization is one of none, before, after, symmetric, got 'mean'"),
    ],
)
def test_dense_crf_impossible_numbers_are_refused(change: dict, message: str) -> None:
    with pytest.raises(InvalidValue, match=message):
        DenseCRF(**change)


def test_dense_crf_values_that_are_not_finite_are_refused_with_their_place() -> None:
    probabilities, image, _ = scene()
    probabilities[1, 4, 7] = NAN
    with pytest.raises(InvalidValue, match=r"1 of 2160 probabilities are not finite, the first at index \(1, 4, 7\)"):
        dense_crf(probabilities, image)
    with pytest.raises(InvalidValue, match=r"1 of 2160 energies are not finite"):
        dense_crf_from_energies(-probabilities.log(), image)


def test_dense_crf_scores_in_place_of_probabilities_are_refused() -> None:
    _, image, _ = scene()
    with pytest.raises(InvalidValue, match=r"probabilities lie in \[0, 1\], got values from -2 to 3; for scores, take"):
        dense_crf(torch.linspace(-2, 3, 2160).reshape(3, 24, 30), image)


@pytest.mark.parametrize(
    "image", [torch.zeros(3, 24, 31), torch.zeros(1, 3, 24, 30), torch.zeros(0, 24, 30)], ids=["size", "batch", "empty"]
)
def test_dense_crf_images_of_another_shape_are_refused(image: torch.Tensor) -> None:
    with pytest.raises(InvalidValue, match=r"of one size, or both without B, got \(3, 24, 30\) and"):
        dense_crf(scene()[0], image.to(torch.uint8))


def test_dense_crf_unknown_image_types_are_refused() -> None:
    probabilities, image, _ = scene()
    with pytest.raises(InvalidValue, match=r"floats from 0 to 255, got torch\.int64"):
        dense_crf(probabilities, image.long())
    with pytest.raises(InvalidValue, match="1 of 2160 images are not finite"):
        dense_crf(probabilities, image.float().put(torch.tensor([5]), torch.tensor([NAN])))


def test_dense_crf_weights_of_other_classes_are_refused() -> None:
    probabilities, image, _ = scene()
    with pytest.raises(InvalidValue, match="the CRF's weights are of 2 classes, the scores of 3"):
        dense_crf(probabilities, image, DenseCRF(spatial_weight=(-1.0, -1.0)))
