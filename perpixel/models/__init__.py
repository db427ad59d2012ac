"""The networks, one file each, and the one literal table that gives them names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from torch import nn

from perpixel.backbones import BackboneConfig, create_backbone, create_vgg16
from perpixel.errors import InvalidValue, nearest
from perpixel.models.adelaide import Adelaide, AdelaideConfig
from perpixel.models.crf_rnn import CRFRNN, CRFRNNConfig
from perpixel.models.deconvnet import DeconvNet, DeconvNetConfig
from perpixel.models.deeplab_v1 import DeepLabV1, DeepLabV1Config
from perpixel.models.deeplab_v2 import DeepLabV2, DeepLabV2Config, create_deeplab_v2_trunk
from perpixel.models.dfn import DFN, DFNConfig
from perpixel.models.dilated import DilatedNet, DilatedNetConfig
from perpixel.models.dpn import DPN, DPNConfig
from perpixel.models.fcn import FCN, FCNConfig
from perpixel.models.fcn_vgg16 import FCNVGG16, FCNVGG16Config
from perpixel.models.lrr import LRR, LRRConfig
from perpixel.models.network import Network
from perpixel.models.parsenet import ParseNet, ParseNetConfig
from perpixel.models.segnet import SegNet, SegNetConfig
from perpixel.models.segnet_basic import SegNetBasic, SegNetBasicConfig
from perpixel.models.unet import UNet, UNetConfig
from perpixel.models.unet_original import OriginalUNet, OriginalUNetConfig
from perpixel.models.zoomout import ZoomOut, ZoomOutConfig
from perpixel.types import Preprocessing

__all__ = [
    "CRFRNN",
    "DFN",
    "DPN",
    "FCN",
    "FCNVGG16",
    "LRR",
    "MODELS",
    "Adelaide",
    "AdelaideConfig",
    "CRFRNNConfig",
    "DFNConfig",
    "DPNConfig",
    "DeconvNet",
    "DeconvNetConfig",
    "DeepLabV1",
    "DeepLabV1Config",
    "DeepLabV2",
    "DeepLabV2Config",
    "DilatedNet",
    "DilatedNetConfig",
    "FCNConfig",
    "FCNVGG16Config",
    "LRRConfig",
    "ModelEntry",
    "Network",
    "OriginalUNet",
    "OriginalUNetConfig",
    "ParseNet",
    "ParseNetConfig",
    "SegNet",
    "SegNetBasic",
    "SegNetBasicConfig",
    "SegNetConfig",
    "UNet",
    "UNetConfig",
    "ZoomOut",
    "ZoomOutConfig",
    "create_model",
    "list_models",
    "network_description",
    "network_from_description",
]


def _any_trunk(backbone: BackboneConfig, _settings: Any) -> nn.Module:
    return create_backbone(backbone)


def _vgg16_trunk(backbone: BackboneConfig, config: Any) -> nn.Module:
    return create_vgg16(backbone, config.layout)


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A network's class, its configuration's class, the backbone it was published with, and where."""

    network: type[Any]
    config: type[Any]
    paper: str
    backbone: BackboneConfig | None
    """None: the network is of one piece, and its configuration states ``in_channels``."""
    trunk: Callable[[BackboneConfig, Any], nn.Module] = _any_trunk
    """(backbone, the network's configuration) → what its constructor takes."""

    @property
    def takes_any_backbone(self) -> bool:
        """Whether any timm model with feature maps will do."""
        return self.backbone is not None and self.trunk is _any_trunk


MODELS: dict[str, ModelEntry] = {
    "crf_rnn": ModelEntry(
        network=CRFRNN,
        config=CRFRNNConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Zheng et al., ICCV 2015, arXiv:1502.03240",
    ),
    "deeplab_v1": ModelEntry(
        network=DeepLabV1,
        config=DeepLabV1Config,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Chen et al., ICLR 2015, arXiv:1412.7062",
    ),
    "deeplab_v2": ModelEntry(
        network=DeepLabV2,
        config=DeepLabV2Config,
        backbone=BackboneConfig(name="caffe_resnet101"),
        trunk=create_deeplab_v2_trunk,
        paper="Chen et al., PAMI 2018, arXiv:1606.00915",
    ),
    "dfn": ModelEntry(
        network=DFN,
        config=DFNConfig,
        backbone=BackboneConfig(name="resnet101", stem="deep64"),
        paper="Yu et al., CVPR 2018, arXiv:1804.09337",
    ),
    "dilatednet": ModelEntry(
        network=DilatedNet,
        config=DilatedNetConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Yu & Koltun, ICLR 2016, arXiv:1511.07122",
    ),
    "parsenet": ModelEntry(
        network=ParseNet,
        config=ParseNetConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Liu et al., 2015, arXiv:1506.04579",
    ),
    "fcn": ModelEntry(
        network=FCN,
        config=FCNConfig,
        backbone=BackboneConfig(name="resnet101", stem="deep64"),
        paper="Long et al., CVPR 2015, arXiv:1411.4038 (residual form)",
    ),
    "fcn_vgg16": ModelEntry(
        network=FCNVGG16,
        config=FCNVGG16Config,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Long et al., CVPR 2015, arXiv:1411.4038",
    ),
    "segnet": ModelEntry(
        network=SegNet,
        config=SegNetConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Badrinarayanan et al., PAMI 2017, arXiv:1511.00561",
    ),
    "segnet_basic": ModelEntry(
        network=SegNetBasic,
        config=SegNetBasicConfig,
        backbone=None,
        paper="Badrinarayanan et al., PAMI 2017, arXiv:1511.00561 (table 1)",
    ),
    "deconvnet": ModelEntry(
        network=DeconvNet,
        config=DeconvNetConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Noh et al., ICCV 2015, arXiv:1505.04366",
    ),
    "unet": ModelEntry(
        network=UNet,
        config=UNetConfig,
        backbone=None,
        paper="Ronneberger et al., MICCAI 2015, arXiv:1505.04597 (padded form with batch norm)",
    ),
    "unet_original": ModelEntry(
        network=OriginalUNet,
        config=OriginalUNetConfig,
        backbone=None,
        paper="Ronneberger et al., MICCAI 2015, arXiv:1505.04597",
    ),
    "adelaide": ModelEntry(
        network=Adelaide,
        config=AdelaideConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Lin et al., CVPR 2016, arXiv:1504.01013",
    ),
    "dpn": ModelEntry(
        network=DPN,
        config=DPNConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Liu et al., ICCV 2015, arXiv:1509.02634",
    ),
    "lrr": ModelEntry(
        network=LRR,
        config=LRRConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Ghiasi & Fowlkes, ECCV 2016, arXiv:1605.02264",
    ),
    "zoomout": ModelEntry(
        network=ZoomOut,
        config=ZoomOutConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Mostajabi et al., CVPR 2015, arXiv:1412.0774",
    ),
}


def list_models() -> list[str]:
    """Returns the names that `create_model` takes, sorted."""
    return sorted(MODELS)


def create_model(
    name: str,
    config: Any = None,
    *,
    num_classes: int,
    backbone: str | BackboneConfig | nn.Module | None = None,
) -> Network:
    """Builds a network.

    Args:
        name: One of `list_models()`.
        config: The network's own configuration, or a mapping of its fields; None takes its defaults.
        num_classes: K >= 1.
        backbone: A trunk's name, a `BackboneConfig` or a ready trunk; None takes the published one, with random
            weights. Networks of one piece take none.

    Raises:
        InvalidValue: the name, an option or the backbone is unknown; names the nearest known one.
    """
    entry = _entry(name)
    settings = _config(name, entry, config)
    if entry.backbone is None:
        if backbone is not None:
            raise InvalidValue(f"{name} is a network of one piece and takes no backbone; leave it away")
        whole: Network = entry.network(num_classes, settings)
        return whole
    if isinstance(backbone, str):
        backbone = BackboneConfig(name=backbone)
    trunk = backbone if isinstance(backbone, nn.Module) else entry.trunk(backbone or entry.backbone, settings)
    network: Network = entry.network(trunk, num_classes, settings)
    return network


def network_description(network: Network) -> dict[str, Any]:
    """Returns plain values from which `network_from_description` rebuilds the same layers, with new weights.

    Raises:
        InvalidValue: the network is of no class in `MODELS`.
    """
    name = next((n for n, e in MODELS.items() if type(network) is e.network), None)
    if name is None:
        raise InvalidValue(f"{type(network).__name__} is not in MODELS ({', '.join(list_models())}): it has no name")
    trunk: Any = network.backbone
    return {
        "name": name,
        "num_classes": network.num_classes,
        "options": asdict(network.config),
        "backbone": None if trunk is None else trunk.config.to_dict(),
        "preprocessing": network.preprocessing.to_dict(),
    }


def network_from_description(description: Mapping[str, Any]) -> Network:
    """Rebuilds a network from `network_description`, without fetching or reading any weights."""
    stored = description["backbone"]
    backbone = None if stored is None else BackboneConfig(**{**stored, "weights": "none"})
    network = create_model(
        description["name"], description["options"], num_classes=description["num_classes"], backbone=backbone
    )
    if "preprocessing" in description:
        network.preprocessing = Preprocessing.from_dict(description["preprocessing"])
    return network


def _entry(name: str) -> ModelEntry:
    if name not in MODELS:
        raise InvalidValue(f"unknown model {name!r}{nearest(name, MODELS, end='.')} Known: {', '.join(list_models())}")
    return MODELS[name]


def _config(name: str, entry: ModelEntry, config: Any) -> Any:
    if config is None:
        return entry.config()
    if isinstance(config, Mapping):
        known = [f.name for f in fields(entry.config)]
        for key in config:
            if key not in known:
                raise InvalidValue(
                    f"{name} has no option {key!r}{nearest(key, known, end='.')} Known: {', '.join(known)}"
                )
        return entry.config(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
    if not isinstance(config, entry.config):
        raise InvalidValue(f"{name} takes a {entry.config.__name__}, got {type(config).__name__}")
    return config
