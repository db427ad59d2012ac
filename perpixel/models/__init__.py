"""The networks, one file each, and the one literal table that gives them names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from perpixel.backbones import Backbone, BackboneConfig, create_backbone
from perpixel.errors import InvalidValue, nearest
from perpixel.models.dfn import DFN, DFNConfig
from perpixel.models.fcn import FCN, FCNConfig
from perpixel.models.network import Network
from perpixel.types import Preprocessing

__all__ = [
    "DFN",
    "FCN",
    "MODELS",
    "DFNConfig",
    "FCNConfig",
    "ModelEntry",
    "Network",
    "create_model",
    "list_models",
    "network_description",
    "network_from_description",
]


@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """A network's class, its configuration's class, the backbone it was published with, and where."""

    network: type[Any]
    config: type[Any]
    backbone: BackboneConfig
    paper: str


MODELS: dict[str, ModelEntry] = {
    "dfn": ModelEntry(
        network=DFN,
        config=DFNConfig,
        backbone=BackboneConfig(name="resnet101", stem="deep64"),
        paper="Yu et al., CVPR 2018, arXiv:1804.09337",
    ),
    "fcn": ModelEntry(
        network=FCN,
        config=FCNConfig,
        backbone=BackboneConfig(name="resnet101", stem="deep64"),
        paper="Long et al., CVPR 2015, arXiv:1411.4038 (residual form)",
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
    backbone: str | BackboneConfig | Backbone | None = None,
) -> Network:
    """Builds a network.

    Args:
        name: One of `list_models()`.
        config: The network's own configuration, or a mapping of its fields; None takes its defaults.
        num_classes: K >= 1.
        backbone: A timm model's name, a `BackboneConfig` or a ready `Backbone`; None takes the published one, with
            random weights.

    Raises:
        InvalidValue: the name, an option or the backbone is unknown; names the nearest known one.
    """
    entry = _entry(name)
    if isinstance(backbone, str):
        backbone = BackboneConfig(name=backbone)
    trunk = backbone if isinstance(backbone, Backbone) else create_backbone(backbone or entry.backbone)
    network: Network = entry.network(trunk, num_classes, _config(name, entry, config))
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
        "backbone": trunk.config.to_dict(),
        "preprocessing": network.preprocessing.to_dict(),
    }


def network_from_description(description: Mapping[str, Any]) -> Network:
    """Rebuilds a network from `network_description`, without fetching or reading any weights."""
    backbone = create_backbone(BackboneConfig(**{**description["backbone"], "weights": "none"}))
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
