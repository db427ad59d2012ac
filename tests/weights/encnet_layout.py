"""PyTorch-Encoding's EncNet from nothing but its layout, as an independent yardstick for the importer and the checker.

Keys and shapes are written down here a second time; the forward pass is made of plain functions on the state dict, the
Encoding layer with all its differences.
"""

from __future__ import annotations

import timm
import torch
import torch.nn.functional as F
from torch import Tensor
from torchseg_layout import BLOCKS, Shapes, norm_shapes, trunk_shapes


def layer_shapes(channels: int, num_codewords: int) -> Shapes:
    return {"codewords": (num_codewords, channels), "scale": (num_codewords,)}


def module_shapes(channels: int, num_codewords: int, classes: int | None) -> Shapes:
    shapes: Shapes = {"encoding.0.weight": (channels, channels, 1, 1), **norm_shapes("encoding.1", channels)}
    shapes |= {f"encoding.3.{key}": shape for key, shape in layer_shapes(channels, num_codewords).items()}
    shapes |= norm_shapes("encoding.4", num_codewords)
    shapes |= {"fc.0.weight": (channels, channels), "fc.0.bias": (channels,)}
    if classes is not None:
        shapes |= {"selayer.weight": (classes, channels), "selayer.bias": (classes,)}
    return shapes


def encnet_shapes(
    depth: str = "resnet18",
    *,
    classes: int = 4,
    width: int = 12,
    num_codewords: int = 5,
    auxiliary_width: int | None = 6,
    lateral: bool = False,
    presence: bool = True,
    stem_width: int | None = None,
    in_channels: int = 3,
) -> Shapes:
    channels = tuple((4 if BLOCKS[depth][0] else 1) * c for c in (64, 128, 256, 512))
    trunk = trunk_shapes(depth, stem_width=stem_width, in_channels=in_channels)
    shapes = {f"pretrained.{key}": shape for key, shape in trunk.items()}
    shapes |= {"head.conv5.0.weight": (width, channels[3], 3, 3), **norm_shapes("head.conv5.1", width)}
    if lateral:
        for i in range(2):
            shapes[f"head.connect.{i}.0.weight"] = (width, channels[1 + i], 1, 1)
            shapes |= norm_shapes(f"head.connect.{i}.1", width)
        shapes |= {"head.fusion.0.weight": (width, 3 * width, 3, 3), **norm_shapes("head.fusion.1", width)}
    module = module_shapes(width, num_codewords, classes if presence else None)
    shapes |= {f"head.encmodule.{key}": shape for key, shape in module.items()}
    shapes |= {"head.conv6.1.weight": (classes, width, 1, 1), "head.conv6.1.bias": (classes,)}
    if auxiliary_width is not None:
        shapes["auxlayer.conv5.0.weight"] = (auxiliary_width, channels[2], 3, 3)
        shapes |= norm_shapes("auxlayer.conv5.1", auxiliary_width)
        shapes |= {"auxlayer.conv5.4.weight": (classes, auxiliary_width, 1, 1), "auxlayer.conv5.4.bias": (classes,)}
    return shapes


def trunk_maps(state: dict[str, Tensor], depth: str, stem_width: int | None, images: Tensor) -> list[Tensor]:
    """Stages 2 to 4 at stride 8; the first block of a dilated stage keeps the previous dilation."""
    stem = {} if stem_width is None else {"stem_type": "deep", "stem_width": stem_width}
    net = timm.create_model(
        depth,
        features_only=True,
        out_indices=(2, 3, 4),
        output_stride=8,
        in_chans=images.shape[1],
        pretrained=False,
        **stem,
    )
    net.to(images.dtype).eval()
    prefix = "pretrained."
    net.load_state_dict({key.removeprefix(prefix): v for key, v in state.items() if key.startswith(prefix)})
    return list(net(images))


def norm(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    stats = (state[f"{name}.{leaf}"] for leaf in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, *stats, eps=1e-5)


def conv_norm_relu(state: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
    weight = state[f"{name}.0.weight"]
    return F.relu(norm(state, f"{name}.1", F.conv2d(x, weight, padding=weight.shape[-1] // 2)))


def encoding_forward(codewords: Tensor, scale: Tensor, x: Tensor) -> dict[str, Tensor]:
    residuals = x.flatten(2).transpose(1, 2)[:, :, None] - codewords  # (B, N, M, D)
    scaled = scale * residuals.square().sum(dim=3)
    assigned = scaled.softmax(dim=2)
    return {"E": (assigned[..., None] * residuals).sum(dim=1), "scaled_l2": scaled, "A": assigned}


def module_forward(state: dict[str, Tensor], prefix: str, x: Tensor) -> dict[str, Tensor]:
    encoding = f"{prefix}encoding"
    projected = conv_norm_relu(state, encoding, x)
    codes = encoding_forward(state[f"{encoding}.3.codewords"], state[f"{encoding}.3.scale"], projected)["E"]
    semantics = F.relu(norm(state, f"{encoding}.4", codes)).mean(dim=1)
    gamma = torch.sigmoid(F.linear(semantics, state[f"{prefix}fc.0.weight"], state[f"{prefix}fc.0.bias"]))
    outputs = {"feat": F.relu(x + x * gamma[:, :, None, None])}
    if f"{prefix}selayer.weight" in state:
        outputs["se"] = F.linear(semantics, state[f"{prefix}selayer.weight"], state[f"{prefix}selayer.bias"])
    return outputs


def encnet_forward(state: dict[str, Tensor], depth: str, stem_width: int | None, images: Tensor) -> dict[str, Tensor]:
    """``out`` and ``aux`` at the image's size, ``se``; what the checkpoint lacks is left out."""
    stage2, stage3, stage4 = trunk_maps(state, depth, stem_width, images)
    x = conv_norm_relu(state, "head.conv5", stage4)
    if "head.fusion.0.weight" in state:
        parts = [x, *(conv_norm_relu(state, f"head.connect.{i}", m) for i, m in enumerate((stage2, stage3)))]
        x = conv_norm_relu(state, "head.fusion", torch.cat(parts, dim=1))
    module = module_forward(state, "head.encmodule.", x)
    scores = {"out": F.conv2d(module.pop("feat"), state["head.conv6.1.weight"], state["head.conv6.1.bias"])}
    if "auxlayer.conv5.0.weight" in state:
        hidden = conv_norm_relu(state, "auxlayer.conv5", stage3)
        scores["aux"] = F.conv2d(hidden, state["auxlayer.conv5.4.weight"], state["auxlayer.conv5.4.bias"])
    size = images.shape[-2:]
    return {
        **{name: F.interpolate(x, size, mode="bilinear", align_corners=True) for name, x in scores.items()},
        **module,
    }
