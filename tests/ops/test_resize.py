import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from perpixel.ops import resize, resize_labels

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def test_resize_same_size_returns_the_same_tensor() -> None:
    x = torch.randn(1, 2, 5, 7)
    assert resize(x, (5, 7), align_corners=True) is x


@pytest.mark.parametrize("align_corners", [True, False])
def test_resize_exported_for_any_sizes_serves_equal_ones_too(align_corners: bool) -> None:
    class Fit(torch.nn.Module):
        def forward(self, x: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
            return resize(x, other.shape[-2:], align_corners=align_corners)

    sides = [{i: torch.export.Dim(f"{name}{i}", min=2, max=64) for i in (2, 3)} for name in "xy"]
    x = torch.randn(1, 2, 5, 7)
    exported = torch.export.export(Fit(), (x, torch.randn(1, 1, 9, 11)), dynamic_shapes=sides).module()
    assert torch.equal(exported(x, torch.zeros(1, 1, 5, 7)), x)
    assert torch.equal(exported(x, torch.zeros(1, 1, 4, 20)), resize(x, (4, 20), align_corners=align_corners))


@pytest.mark.parametrize("align_corners", [True, False])
def test_resize_constant_map_stays_constant(align_corners: bool) -> None:
    out = resize(torch.full((1, 1, 3, 5), 2.5), (11, 4), align_corners=align_corners)
    assert out.shape == (1, 1, 11, 4)
    assert torch.allclose(out, torch.tensor(2.5))


@given(sizes, sizes, st.booleans())
@settings(max_examples=50, deadline=None)
def test_resize_labels_any_sizes_never_invents_a_label(
    source: tuple[int, int], wanted: tuple[int, int], align: bool
) -> None:
    target = (
        torch.randint(0, 7, (2, *source), generator=torch.Generator().manual_seed(sum(source)), dtype=torch.uint8) * 5
    )
    out = resize_labels(target, wanted, align_corners=align)
    assert out.shape == (2, *wanted)
    assert out.dtype == torch.uint8
    assert set(out.unique().tolist()) <= set(target.unique().tolist())


@given(sizes, sizes)
@settings(max_examples=50, deadline=None)
def test_resize_labels_without_aligned_corners_equals_nearest_exact_but_for_ties(
    source: tuple[int, int], wanted: tuple[int, int]
) -> None:
    rows = torch.arange(source[0], dtype=torch.float32)[None, None, :, None].expand(1, 1, *source)
    ours = resize_labels(rows[0], wanted, align_corners=False)
    theirs = F.interpolate(rows.contiguous(), size=wanted, mode="nearest-exact")[0]
    assert (ours - theirs).abs().max() <= 1
    exact = (2 * torch.arange(wanted[0]) + 1) * source[0] % (2 * wanted[0]) != 0  # the sample point is no pixel's edge
    assert torch.equal(ours[0, exact], theirs[0, exact])


def test_resize_labels_halving_matches_pillow_nearest() -> None:
    mask = np.arange(64, dtype=np.uint8).reshape(8, 8)
    pillow = np.array(Image.fromarray(mask).resize((4, 4), Image.Resampling.NEAREST))
    assert np.array_equal(resize_labels(torch.from_numpy(mask)[None], (4, 4), align_corners=False)[0].numpy(), pillow)


def test_resize_labels_with_aligned_corners_is_deeplabs_every_eighth_pixel() -> None:
    target = torch.randint(0, 21, (1, 321, 513))
    assert torch.equal(resize_labels(target, (41, 65), align_corners=True), target[:, ::8, ::8])


def test_resize_labels_upsampled_and_back_is_the_identity() -> None:
    target = torch.randint(0, 5, (1, 6, 9))
    for align in (True, False):
        big = resize_labels(target, (30, 45), align_corners=align)
        assert torch.equal(resize_labels(big, (6, 9), align_corners=align), target)
