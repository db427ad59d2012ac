"""Recipes: functions that return the whole configuration of a published or measured training. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable
from inspect import cleandoc

from perpixel.config import RunConfig
from perpixel.errors import ConfigError, nearest
from perpixel.recipes.adelaide import adelaide_voc
from perpixel.recipes.crf_rnn import crf_rnn_voc
from perpixel.recipes.deconvnet import deconvnet_voc
from perpixel.recipes.deeplab import (
    deeplab_largefov_voc,
    deeplab_msc_largefov_voc,
    deeplab_v2_vgg_voc,
    deeplab_v2_voc,
)
from perpixel.recipes.deeplab_v3 import (
    deeplab_v3_cityscapes,
    deeplab_v3_voc,
    deeplab_v3_voc_test,
    deeplab_v3plus_cityscapes,
    deeplab_v3plus_resnet_voc,
    deeplab_v3plus_voc,
)
from perpixel.recipes.dfn import (
    dfn_camvid,
    dfn_camvid_small,
    dfn_cityscapes,
    dfn_demo,
    dfn_voc,
    dfn_voc_paper,
)
from perpixel.recipes.dilated import dilatednet_camvid, dilatednet_cityscapes, dilatednet_kitti, dilatednet_voc
from perpixel.recipes.dpn import dpn_voc
from perpixel.recipes.encnet import (
    encnet_ade20k,
    encnet_pcontext,
    encnet_r50_ade20k,
    encnet_voc,
    encnet_voc_finetune,
)
from perpixel.recipes.fcn import fcn8s_at_once_voc, fcn_voc
from perpixel.recipes.gcn import gcn_cityscapes, gcn_voc
from perpixel.recipes.hrnet import (
    hrnet_ade20k,
    hrnet_cityscapes,
    hrnet_coco_stuff,
    hrnet_lip,
    hrnet_pascal_context,
    ocrnet_ade20k,
    ocrnet_cityscapes,
    ocrnet_coco_stuff,
    ocrnet_lip,
    ocrnet_pascal_context,
)
from perpixel.recipes.icnet import icnet_cityscapes, icnet_pruned_cityscapes, icnet_resnet50_cityscapes
from perpixel.recipes.lrr import lrr_voc
from perpixel.recipes.parsenet import parsenet_voc
from perpixel.recipes.pspnet import pspnet_r50_ade20k, pspnet_r101_cityscapes, pspnet_r101_voc
from perpixel.recipes.refinenet import (
    refinenet_cityscapes,
    refinenet_lw_mbv2_voc,
    refinenet_lw_nyud,
    refinenet_voc,
)
from perpixel.recipes.segnet import segnet_basic_camvid, segnet_camvid
from perpixel.recipes.unet import unet_carvana, unet_isbi
from perpixel.recipes.unet_backbone import unet_backbone_camvid
from perpixel.recipes.zoomout import zoomout_voc

__all__ = ["RECIPES", "get_recipe", "recipe_details", "recipe_summary"]

RECIPES: dict[str, Callable[[], RunConfig]] = {
    "dfn_demo": dfn_demo,
    "dfn_camvid_small": dfn_camvid_small,
    "dfn_camvid": dfn_camvid,
    "dfn_voc": dfn_voc,
    "dfn_voc_paper": dfn_voc_paper,
    "dfn_cityscapes": dfn_cityscapes,
    "fcn_voc": fcn_voc,
    "fcn8s_at_once_voc": fcn8s_at_once_voc,
    "crf_rnn_voc": crf_rnn_voc,
    "dilatednet_voc": dilatednet_voc,
    "dilatednet_camvid": dilatednet_camvid,
    "dilatednet_kitti": dilatednet_kitti,
    "dilatednet_cityscapes": dilatednet_cityscapes,
    "parsenet_voc": parsenet_voc,
    "deeplab_largefov_voc": deeplab_largefov_voc,
    "deeplab_msc_largefov_voc": deeplab_msc_largefov_voc,
    "deeplab_v2_voc": deeplab_v2_voc,
    "deeplab_v2_vgg_voc": deeplab_v2_vgg_voc,
    "deeplab_v3_voc": deeplab_v3_voc,
    "deeplab_v3_voc_test": deeplab_v3_voc_test,
    "deeplab_v3_cityscapes": deeplab_v3_cityscapes,
    "deeplab_v3plus_voc": deeplab_v3plus_voc,
    "deeplab_v3plus_cityscapes": deeplab_v3plus_cityscapes,
    "deeplab_v3plus_resnet_voc": deeplab_v3plus_resnet_voc,
    "pspnet_r50_ade20k": pspnet_r50_ade20k,
    "pspnet_r101_voc": pspnet_r101_voc,
    "pspnet_r101_cityscapes": pspnet_r101_cityscapes,
    "segnet_camvid": segnet_camvid,
    "segnet_basic_camvid": segnet_basic_camvid,
    "deconvnet_voc": deconvnet_voc,
    "unet_isbi": unet_isbi,
    "unet_carvana": unet_carvana,
    "unet_backbone_camvid": unet_backbone_camvid,
    "gcn_voc": gcn_voc,
    "gcn_cityscapes": gcn_cityscapes,
    "hrnet_cityscapes": hrnet_cityscapes,
    "hrnet_pascal_context": hrnet_pascal_context,
    "hrnet_lip": hrnet_lip,
    "hrnet_ade20k": hrnet_ade20k,
    "hrnet_coco_stuff": hrnet_coco_stuff,
    "ocrnet_cityscapes": ocrnet_cityscapes,
    "ocrnet_pascal_context": ocrnet_pascal_context,
    "ocrnet_lip": ocrnet_lip,
    "ocrnet_ade20k": ocrnet_ade20k,
    "ocrnet_coco_stuff": ocrnet_coco_stuff,
    "icnet_cityscapes": icnet_cityscapes,
    "icnet_pruned_cityscapes": icnet_pruned_cityscapes,
    "icnet_resnet50_cityscapes": icnet_resnet50_cityscapes,
    "lrr_voc": lrr_voc,
    "zoomout_voc": zoomout_voc,
    "dpn_voc": dpn_voc,
    "adelaide_voc": adelaide_voc,
    "refinenet_voc": refinenet_voc,
    "refinenet_cityscapes": refinenet_cityscapes,
    "refinenet_lw_nyud": refinenet_lw_nyud,
    "refinenet_lw_mbv2_voc": refinenet_lw_mbv2_voc,
    "encnet_pcontext": encnet_pcontext,
    "encnet_ade20k": encnet_ade20k,
    "encnet_r50_ade20k": encnet_r50_ade20k,
    "encnet_voc": encnet_voc,
    "encnet_voc_finetune": encnet_voc_finetune,
}
"""Every recipe by name; a configuration made by one bears its name in ``recipe``."""


def get_recipe(name: str) -> RunConfig:
    """Returns the configuration that recipe ``name`` stands for.

    Raises:
        ConfigError: there is no such recipe.
    """
    return _entry(name)()


def recipe_summary(name: str) -> str:
    """Returns what recipe ``name`` trains, in one line.

    Raises:
        ConfigError: there is no such recipe.
    """
    return recipe_details(name).partition("\n")[0]


def recipe_details(name: str) -> str:
    """Returns the whole description of recipe ``name``: command, hardware, time and score.

    Raises:
        ConfigError: there is no such recipe.
    """
    return cleandoc(_entry(name).__doc__ or "")


def _entry(name: str) -> Callable[[], RunConfig]:
    if name not in RECIPES:
        raise ConfigError(f"no recipe {name!r}{nearest(name, RECIPES, end='.')} Known: {', '.join(RECIPES)}.")
    return RECIPES[name]
