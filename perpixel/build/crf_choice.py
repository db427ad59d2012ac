"""Which dense CRF stands behind a network."""

from __future__ import annotations

from perpixel.errors import InvalidValue, nearest
from perpixel.inference.dense_crf import DENSE_CRFS, DenseCRF
from perpixel.models import CRFRNN, Network, network_description

__all__ = ["choose_crf", "published_crf"]


_KERNEL_OF_PLAIN_DEEPLAB = 4


def choose_crf(network: Network, choice: bool | str | DenseCRF) -> DenseCRF | None:
    """Returns the CRF to compute: none for False, the network's published one for True, or that of a name.

    Raises:
        InvalidValue: no published set has this name, or the network holds a CRF already.
    """
    if isinstance(choice, DenseCRF):
        return choice
    if choice is False:
        return None
    if choice is True and isinstance(network, CRFRNN):
        raise InvalidValue("crf_rnn holds its own CRF; leave --crf away, or name the numbers of a second one")
    name = published_crf(network) if choice is True else choice
    if name not in DENSE_CRFS:
        raise InvalidValue(
            f"no dense CRF {name!r}{nearest(name, DENSE_CRFS, end='.')} Published sets: {', '.join(DENSE_CRFS)}"
        )
    return DENSE_CRFS[name]


def published_crf(network: Network) -> str:
    """Returns the name of the set that a network was published with; of those without one, DeepLab v2's."""
    described = network_description(network)
    name, options, backbone = described["name"], described["options"], described["backbone"] or {}
    if name == "deeplab_v1":
        plain = "deeplab_v1" if options["fc6_kernel"] == _KERNEL_OF_PLAIN_DEEPLAB else "deeplab_largefov"
        return "deeplab_v1_msc" if options["msc"] else plain
    if name == "deeplab_v2" and str(backbone["name"]).startswith("vgg"):
        return "deeplab_v2_vgg16"
    return name if name in DENSE_CRFS else "deeplab_v2_resnet101"
