"""Which dense CRF stands behind a network: its published one, one by name, or the numbers of a YAML file."""

from __future__ import annotations

from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import yaml

from perpixel.errors import ConfigError, InvalidValue, RunError, nearest
from perpixel.inference.dense_crf import DENSE_CRFS, DenseCRF
from perpixel.models import CRFRNN, Network, network_description
from perpixel.strict_yaml import load_strict_yaml

__all__ = ["choose_crf", "published_crf", "read_crf", "write_crf"]


_KERNEL_OF_PLAIN_DEEPLAB = 4
_YAML = (".yaml", ".yml")


def choose_crf(network: Network, choice: bool | str | DenseCRF) -> DenseCRF | None:
    """Returns the CRF to compute: none for False, the network's published one for True, or that of a name or file.

    Raises:
        InvalidValue: no published set has this name, or the network holds a CRF already.
        ConfigError: the YAML file does not describe a CRF.
    """
    if isinstance(choice, DenseCRF):
        return choice
    if choice is False:
        return None
    if choice is True and isinstance(network, CRFRNN):
        raise InvalidValue("crf_rnn holds its own CRF; leave --crf away, or name the numbers of a second one")
    name = published_crf(network) if choice is True else choice
    if name not in DENSE_CRFS and Path(name).suffix.lower() in _YAML:
        return read_crf(name)
    if name not in DENSE_CRFS:
        raise InvalidValue(
            f"no dense CRF {name!r}{nearest(name, DENSE_CRFS, end='.')} Published sets: {', '.join(DENSE_CRFS)}; or "
            "give a .yaml file of numbers"
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


def read_crf(path: str | Path) -> DenseCRF:
    """Reads the numbers of a dense CRF from a YAML file: a mapping with fields of `DenseCRF`, others at their defaults.

    Raises:
        ConfigError: the file cannot be read, or does not describe a CRF.
    """
    path = Path(path)
    known = {field.name for field in fields(DenseCRF)}
    try:
        content: Any = load_strict_yaml(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: the numbers of a dense CRF cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise ConfigError(f"{path}: the numbers of a dense CRF are a mapping with the keys {', '.join(sorted(known))}")
    for key in content:
        if key not in known:
            raise ConfigError(
                f"{path}: unknown key {key!r}{nearest(str(key), known, end='.')} Known: {', '.join(sorted(known))}"
            )
    try:
        return DenseCRF(**{key: _tuples(value) for key, value in content.items()})
    except (InvalidValue, TypeError, ValueError) as error:
        raise ConfigError(f"{path}: {error}") from error


def write_crf(path: str | Path, crf: DenseCRF) -> None:
    """Writes the numbers of a dense CRF as `read_crf` reads them.

    Raises:
        RunError: the file cannot be written.
    """
    path = Path(path)
    text = yaml.safe_dump({name: _lists(value) for name, value in asdict(crf).items()}, sort_keys=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise RunError(f"{path}: cannot be written: {error}. Check the folder's rights and the free space.") from error


def _tuples(value: Any) -> Any:
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value


def _lists(value: Any) -> Any:
    return [_lists(part) for part in value] if isinstance(value, tuple) else value
