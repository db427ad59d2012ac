import math

import pytest
import torch

from perpixel.errors import InvalidValue
from perpixel.ops.class_basis import class_basis, cosine_basis, patch_basis


def test_patch_basis_of_two_patches_is_their_difference() -> None:
    """Left half and right half: mean 1/2, deviations ±1/2, one component of s = sqrt(2 · 16 / 4), v = ±1/4 each."""
    left = torch.zeros(4, 4)
    left[:, :2] = 1
    basis = patch_basis(torch.stack([left, 1 - left]).bool(), 1, 2)
    entry = math.sqrt(math.sqrt(8)) / 4
    assert basis.shape == (1, 2, 2)
    assert torch.allclose(basis[0].abs(), torch.full((2, 2), entry), atol=1e-6)
    assert torch.allclose(basis[0, :, 0], -basis[0, :, 1])


def test_class_basis_has_components_of_falling_strength() -> None:
    torch.manual_seed(0)
    y, x = torch.meshgrid(torch.arange(48), torch.arange(64), indexing="ij")
    maps = [((x + int(shift)) // 12 + y // 16) % 2 for shift in torch.randint(0, 24, (6,))]
    basis = class_basis(maps, 2, num_basis=3, size=16, patch=16, windows_per_map=20, max_patches=60)
    assert basis.shape == (2, 3, 16, 16)  # not resized, which would change the strengths
    strengths = basis.flatten(2).norm(dim=2)
    assert bool((strengths[:, :-1] >= strengths[:, 1:] - 1e-6).all())
    again = class_basis(maps, 2, num_basis=3, size=16, patch=16, windows_per_map=20, max_patches=60)
    assert torch.equal(basis, again)


def test_class_basis_stops_reading_once_every_class_has_enough() -> None:
    torch.manual_seed(0)
    read = []

    def maps() -> object:
        for index in range(50):
            read.append(index)
            yield torch.randint(0, 2, (12, 12))

    class_basis(maps(), 2, num_basis=2, size=2, patch=4, windows_per_map=10, max_patches=20)  # type: ignore[arg-type]
    assert len(read) < 10


def test_class_basis_class_without_patches_is_named() -> None:
    maps = [torch.zeros(40, 40, dtype=torch.long), torch.zeros(8, 8, dtype=torch.long)]
    with pytest.raises(InvalidValue, match=r"too few of class 1 \(0\); 1 maps were smaller"):
        class_basis(maps, 2, num_basis=2, patch=16)


def test_class_basis_wrong_numbers_are_refused() -> None:
    with pytest.raises(InvalidValue, match="patch=0"):
        class_basis([], 2, patch=0)
    with pytest.raises(InvalidValue, match="min_share=0"):
        class_basis([], 2, min_share=0)


def test_cosine_basis_is_orthonormal_and_begins_with_the_constant() -> None:
    basis = cosine_basis(10, 8)
    products = basis.flatten(1) @ basis.flatten(1).T
    assert torch.allclose(products, torch.eye(10), atol=1e-6)
    assert torch.allclose(basis[0], torch.full((8, 8), 1 / 8))
    assert basis[1, 0, 0] > basis[1, -1, 0] and torch.allclose(basis[1, :, 0], basis[1, :, 1])


def test_cosine_basis_more_than_there_are_is_refused() -> None:
    with pytest.raises(InvalidValue, match="2 x 2 grid has 1 to 4 cosines, got num_basis=5"):
        cosine_basis(5, 2)
