"""The one literal table that gives the networks names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn

from perpixel.backbones import ICNET_TRUNK, BackboneConfig, create_trunk, create_vgg16
from perpixel.models.adelaide import Adelaide, AdelaideConfig
from perpixel.models.crf_rnn import CRFRNN, CRFRNNConfig
from perpixel.models.deconvnet import DeconvNet, DeconvNetConfig
from perpixel.models.deeplab_v1 import DeepLabV1, DeepLabV1Config
from perpixel.models.deeplab_v2 import DeepLabV2, DeepLabV2Config, create_deeplab_v2_trunk
from perpixel.models.deeplab_v3 import DeepLabV3, DeepLabV3Config
from perpixel.models.deeplab_v3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from perpixel.models.dfn import DFN, DFNConfig
from perpixel.models.dilated import DilatedNet, DilatedNetConfig
from perpixel.models.dpn import DPN, DPNConfig
from perpixel.models.encnet import EncNet, EncNetConfig
from perpixel.models.fcn import FCN, FCNConfig
from perpixel.models.fcn_vgg16 import FCNVGG16, FCNVGG16Config
from perpixel.models.gcn import GCN, GCNConfig
from perpixel.models.hrnet import HRNetConfig, HRNetSegmentation, create_hrnet_trunk
from perpixel.models.icnet import ICNet, ICNetConfig, icnet_trunk
from perpixel.models.lraspp import LRASPP, LRASPPConfig
from perpixel.models.lrr import LRR, LRRConfig
from perpixel.models.ocrnet import OCRNet, OCRNetConfig
from perpixel.models.parsenet import ParseNet, ParseNetConfig
from perpixel.models.pspnet import PSPNet, PSPNetConfig
from perpixel.models.refinenet import RefineNet, RefineNetConfig
from perpixel.models.refinenet_lw import RefineNetLW, RefineNetLWConfig, create_refinenet_lw_trunk
from perpixel.models.segnet import SegNet, SegNetConfig
from perpixel.models.segnet_basic import SegNetBasic, SegNetBasicConfig
from perpixel.models.unet import UNet, UNetConfig
from perpixel.models.unet_backbone import UNetBackbone, UNetBackboneConfig
from perpixel.models.unet_original import OriginalUNet, OriginalUNetConfig
from perpixel.models.zoomout import ZoomOut, ZoomOutConfig

__all__ = ["MODELS", "ModelEntry"]


def _any_trunk(backbone: BackboneConfig, _settings: Any) -> nn.Module:
    return create_trunk(backbone)


def _last_and_auxiliary(config: Any) -> int:
    return 2 if config.auxiliary else 1


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

    maps: Callable[[Any], int] | None = None
    """The network's configuration → how many of the trunk's coarsest maps it reads, so that no other is kept in memory;
    None: as many as the trunk's configuration states."""

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
    "deeplab_v3": ModelEntry(
        network=DeepLabV3,
        config=DeepLabV3Config,
        backbone=BackboneConfig(name="resnet101", output_stride=16, multi_grid=(1, 2, 4), num_stages=2),
        paper="Chen et al., 2017, arXiv:1706.05587",
        maps=lambda config: -config.auxiliary_stage if config.auxiliary else 1,
    ),
    "deeplab_v3plus": ModelEntry(
        network=DeepLabV3Plus,
        config=DeepLabV3PlusConfig,
        backbone=BackboneConfig(name="xception65", output_stride=16),
        paper="Chen et al., ECCV 2018, arXiv:1802.02611",
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
    "encnet": ModelEntry(
        network=EncNet,
        config=EncNetConfig,
        backbone=BackboneConfig(name="resnet101", stem="deep64", output_stride=8),
        paper="Zhang et al., CVPR 2018, arXiv:1803.08904",
    ),
    "fcn": ModelEntry(
        network=FCN,
        config=FCNConfig,
        backbone=BackboneConfig(name="resnet101", stem="deep64"),
        paper="Long et al., CVPR 2015, arXiv:1411.4038 (residual form)",
        maps=_last_and_auxiliary,
    ),
    "fcn_vgg16": ModelEntry(
        network=FCNVGG16,
        config=FCNVGG16Config,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Long et al., CVPR 2015, arXiv:1411.4038",
    ),
    "pspnet": ModelEntry(
        network=PSPNet,
        config=PSPNetConfig,
        backbone=BackboneConfig(name="resnet50", stem="deep64", output_stride=8, dilation="full"),
        paper="Zhao et al., CVPR 2017, arXiv:1612.01105",
        maps=_last_and_auxiliary,
    ),
    "gcn": ModelEntry(
        network=GCN,
        config=GCNConfig,
        backbone=BackboneConfig(name="resnet152"),
        paper="Peng et al., CVPR 2017, arXiv:1703.02719",
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
    "unet_backbone": ModelEntry(
        network=UNetBackbone,
        config=UNetBackboneConfig,
        backbone=BackboneConfig(name="resnet34", num_stages=5),
        paper="Ronneberger et al., MICCAI 2015, arXiv:1505.04597 (on classification networks)",
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
    "hrnet": ModelEntry(
        network=HRNetSegmentation,
        config=HRNetConfig,
        backbone=BackboneConfig(name="hrnet_w48"),
        trunk=create_hrnet_trunk,
        paper="Sun et al., 2019, arXiv:1904.04514",
    ),
    "ocrnet": ModelEntry(
        network=OCRNet,
        config=OCRNetConfig,
        backbone=BackboneConfig(name="hrnet_w48"),
        trunk=create_hrnet_trunk,
        paper="Yuan et al., ECCV 2020, arXiv:1909.11065",
    ),
    "icnet": ModelEntry(
        network=ICNet,
        config=ICNetConfig,
        backbone=BackboneConfig(name=ICNET_TRUNK),
        trunk=icnet_trunk,
        paper="Zhao et al., ECCV 2018, arXiv:1704.08545",
    ),
    "lraspp": ModelEntry(
        network=LRASPP,
        config=LRASPPConfig,
        backbone=BackboneConfig(name="torchvision_mobilenetv3_large_100", output_stride=16),
        paper="Howard et al., ICCV 2019, arXiv:1905.02244",
    ),
    "lrr": ModelEntry(
        network=LRR,
        config=LRRConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Ghiasi & Fowlkes, ECCV 2016, arXiv:1605.02264",
    ),
    "refinenet": ModelEntry(
        network=RefineNet,
        config=RefineNetConfig,
        backbone=BackboneConfig(name="resnet101"),
        paper="Lin et al., CVPR 2017, arXiv:1611.06612",
    ),
    "refinenet_lw": ModelEntry(
        network=RefineNetLW,
        config=RefineNetLWConfig,
        backbone=BackboneConfig(name="resnet50"),
        trunk=create_refinenet_lw_trunk,
        paper="Nekrasov et al., BMVC 2018, arXiv:1810.03272",
    ),
    "zoomout": ModelEntry(
        network=ZoomOut,
        config=ZoomOutConfig,
        backbone=BackboneConfig(name="vgg16"),
        trunk=_vgg16_trunk,
        paper="Mostajabi et al., CVPR 2015, arXiv:1412.0774",
    ),
}
