"""ICNet at the size that it was made for, 1025x2049: MACs by count against a limit of 31 GMAC, and CPU time per image.

Three forms in evaluation, one image, float32: the published half-width network, the full width that it was pruned from,
and a whole ResNet-50 run at two scales (1024x2048). MACs are multiplications of convolutions and matrix products. The
forms take turns in every round; the first round is not counted. ``--count`` leaves the times out.

    python benchmarks/icnet.py --json benchmarks/results/icnet.json [--rounds 5] [--count]
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import time
from pathlib import Path
from typing import Any

import torch

from perpixel.backbones import BackboneConfig
from perpixel.models import Network, create_model
from perpixel.models.cost import count_macs, count_parameters

LIMIT_GMACS = 31.0
LIMITED = "half width"
CLASSES = 19
FORMS: dict[str, tuple[dict[str, Any], BackboneConfig | None, tuple[int, int]]] = {
    LIMITED: ({}, None, (1025, 2049)),
    "full width": ({"width": 64}, None, (1025, 2049)),
    "ResNet-50 at two scales": (
        {"pooling": "adaptive", "context_projection": False, "guidance": "dilated", "classifier_bias": False},
        BackboneConfig(name="resnet50", stem="deep64", output_stride=8),
        (1024, 2048),
    ),
}


def build(form: str) -> Network:
    """Returns the network of a form, in evaluation mode."""
    options, backbone, _ = FORMS[form]
    return create_model("icnet", options, num_classes=CLASSES, backbone=backbone).eval()


def count(form: str) -> dict[str, Any]:
    """Returns parameters and GMACs, counted on the meta device."""
    with torch.device("meta"):
        network = build(form)
        image = torch.empty(1, 3, *FORMS[form][2])
    return {"size": FORMS[form][2], "parameters": count_parameters(network), "gmacs": count_macs(network, image) / 1e9}


def times(rounds: int) -> dict[str, dict[str, float]]:
    """Returns fastest and median seconds per image of every form and memory order."""
    contenders = {}
    for form in FORMS:
        network, image = build(form), torch.randn(1, 3, *FORMS[form][2])
        contenders[form, "contiguous"] = (network, image)
        last = torch.channels_last
        contenders[form, "channels_last"] = (build(form).to(memory_format=last), image.to(memory_format=last))
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in contenders}
    for _ in range(rounds + 1):
        for key, (network, image) in contenders.items():
            start = time.perf_counter()
            with torch.inference_mode():
                network(image)
            seconds[key].append(time.perf_counter() - start)
    return {
        f"{form}, {order}": {"fastest_s": min(found[1:]), "median_s": statistics.median(found[1:])}
        for (form, order), found in seconds.items()
    }


def main() -> None:
    """Counts, times and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", action="store_true", help="MACs alone")
    arguments = parser.parse_args()
    counted = {form: count(form) for form in FORMS}
    for form, row in counted.items():
        print(f"{form:24s} {row['parameters']:12,} parameters {row['gmacs']:8.2f} GMAC at {row['size']}", flush=True)
    within = counted[LIMITED]["gmacs"] <= LIMIT_GMACS
    print(f"{LIMITED}: {'within' if within else 'OVER'} the limit of {LIMIT_GMACS:g} GMAC")
    timed = {} if arguments.count else times(arguments.rounds)
    for name, found in timed.items():
        print(f"{name:40s} {1000 * found['fastest_s']:8.0f} ms, median {1000 * found['median_s']:8.0f} ms")
    if arguments.json:
        save(arguments.json, {"counts": counted, "times": timed, "rounds": arguments.rounds, "within_limit": within})


def save(path: Path, measured: dict[str, Any]) -> None:
    """Writes what was measured, and where."""
    commit = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=False).stdout.strip()
    content = {
        **measured,
        "limit_gmacs": LIMIT_GMACS,
        "commit": commit or None,
        "torch": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
