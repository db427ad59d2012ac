"""The networks, one file each; `table` gives them names, and `create` builds them by name."""

from __future__ import annotations

from perpixel.models.adelaide import Adelaide, AdelaideConfig
from perpixel.models.create import create_model, list_models, network_description, network_from_description
from perpixel.models.crf_rnn import CRFRNN, CRFRNNConfig
from perpixel.models.deconvnet import DeconvNet, DeconvNetConfig
from perpixel.models.deeplab_v1 import DeepLabV1, DeepLabV1Config
from perpixel.models.deeplab_v2 import DeepLabV2, DeepLabV2Config
from perpixel.models.deeplab_v3 import DeepLabV3, DeepLabV3Config
from perpixel.models.deeplab_v3plus import DeepLabV3Plus, DeepLabV3PlusConfig
from perpixel.models.dfn import DFN, DFNConfig
from perpixel.models.dilated import DilatedNet, DilatedNetConfig
from perpixel.models.dpn import DPN, DPNConfig
from perpixel.models.encnet import EncNet, EncNetConfig
from perpixel.models.fcn import FCN, FCNConfig
from perpixel.models.fcn_vgg16 import FCNVGG16, FCNVGG16Config
from perpixel.models.gcn import GCN, GCNConfig
from perpixel.models.hrnet import HRNetConfig, HRNetSegmentation
from perpixel.models.icnet import ICNet, ICNetConfig
from perpixel.models.lraspp import LRASPP, LRASPPConfig
from perpixel.models.lrr import LRR, LRRConfig
from perpixel.models.network import Network
from perpixel.models.ocrnet import OCRNet, OCRNetConfig
from perpixel.models.parsenet import ParseNet, ParseNetConfig
from perpixel.models.pspnet import PSPNet, PSPNetConfig
from perpixel.models.refinenet import RefineNet, RefineNetConfig
from perpixel.models.refinenet_lw import RefineNetLW, RefineNetLWConfig
from perpixel.models.segnet import SegNet, SegNetConfig
from perpixel.models.segnet_basic import SegNetBasic, SegNetBasicConfig
from perpixel.models.table import MODELS, ModelEntry
from perpixel.models.unet import UNet, UNetConfig
from perpixel.models.unet_backbone import UNetBackbone, UNetBackboneConfig
from perpixel.models.unet_original import OriginalUNet, OriginalUNetConfig
from perpixel.models.zoomout import ZoomOut, ZoomOutConfig

__all__ = [
    "CRFRNN",
    "DFN",
    "DPN",
    "FCN",
    "FCNVGG16",
    "GCN",
    "LRASPP",
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
    "DeepLabV3",
    "DeepLabV3Config",
    "DeepLabV3Plus",
    "DeepLabV3PlusConfig",
    "DilatedNet",
    "DilatedNetConfig",
    "EncNet",
    "EncNetConfig",
    "FCNConfig",
    "FCNVGG16Config",
    "GCNConfig",
    "HRNetConfig",
    "HRNetSegmentation",
    "ICNet",
    "ICNetConfig",
    "LRASPPConfig",
    "LRRConfig",
    "ModelEntry",
    "Network",
    "OCRNet",
    "OCRNetConfig",
    "OriginalUNet",
    "OriginalUNetConfig",
    "PSPNet",
    "PSPNetConfig",
    "ParseNet",
    "ParseNetConfig",
    "RefineNet",
    "RefineNetConfig",
    "RefineNetLW",
    "RefineNetLWConfig",
    "SegNet",
    "SegNetBasic",
    "SegNetBasicConfig",
    "SegNetConfig",
    "UNet",
    "UNetBackbone",
    "UNetBackboneConfig",
    "UNetConfig",
    "ZoomOut",
    "ZoomOutConfig",
    "create_model",
    "list_models",
    "network_description",
    "network_from_description",
]
