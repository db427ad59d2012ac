import torch

from perpixel.ops import presence_targets


def test_presence_targets_mark_classes_that_occur() -> None:
    target = torch.tensor([[[0, 2], [2, 255]], [[1, 1], [1, 1]]])
    assert presence_targets(target, 4).tolist() == [[1, 0, 1, 0], [0, 1, 0, 0]]


def test_presence_targets_unknown_labels_mark_nothing() -> None:
    assert presence_targets(torch.tensor([[[-1, 7]]]), 3).tolist() == [[0, 0, 0]]
