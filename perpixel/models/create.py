"""Networks by name: built, described by plain values, and built again from these."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from torch import nn

from perpixel.backbones import BackboneConfig
from perpixel.errors import InvalidValue, nearest
from perpixel.models.network import Network
from perpixel.models.option_kinds import wrong_kinds
from perpixel.models.table import MODELS, ModelEntry
from perpixel.types import Preprocessing

__all__ = ["create_model", "list_models", "network_description", "network_from_description"]


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
        backbone: A trunk's name (which then gives as many maps as the published one), a `BackboneConfig` or a ready
            trunk; None takes the published one, with random weights. Networks of one piece take none.

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
        backbone = BackboneConfig(name=backbone, num_stages=entry.backbone.num_stages)
    if isinstance(backbone, nn.Module):
        trunk = backbone
    else:
        chosen = backbone or entry.backbone
        if entry.maps is not None:
            chosen = replace(chosen, num_stages=min(chosen.num_stages, max(1, entry.maps(settings))))
        trunk = entry.trunk(chosen, settings)
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
        for key, kind in wrong_kinds(entry.config, config):
            raise InvalidValue(f"option {key!r} of {name} {kind}, got {config[key]!r}")
        return entry.config(**{k: tuple(v) if isinstance(v, list) else v for k, v in config.items()})
    if not isinstance(config, entry.config):
        raise InvalidValue(f"{name} takes a {entry.config.__name__}, got {type(config).__name__}")
    return config
