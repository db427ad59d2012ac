"""Times the forward pass and measures its memory, our networks against the code that their checkpoints come from.

CPU, float32, one image of 512x512, evaluation, images in and scores at the image's size out. Ours is the peer's own
state dict, imported, so both compute the same scores; the largest difference is part of a row. Peers are torchvision's
DeepLab v3 and FCN on ResNet-50, segmentation_models.pytorch's U-Net on ResNet-18 and DeepLab v3+ on ResNet-50 (where
``--smp`` names a folder that holds segmentation_models_pytorch), and PSPNet-50 and HRNet-W18 restated here in the
plainest way: what is concatenated is built, then convolved. Auxiliary heads are left out on both sides.

The two take turns, in a process per network; ratios are of medians, ours over the peer's, below 1 where ours is faster
or leaner. A memory figure is the median of three processes of their own: the most that each held during the forward
pass, less what it held before, after a small image has gone through, with an allocator that gives memory back at once.
The JSON file is written after every network; rows that are not asked for stay as they are in it.

    python benchmarks/forward.py --json benchmarks/results/forward.json [--smp FOLDER] [--rounds 7] [--rows NAME ...]
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import importlib
import importlib.metadata
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models.resnet import BasicBlock, Bottleneck

from perpixel.ops import resize
from perpixel.weights import import_weights
from perpixel.weights.reference_values import fill_value

HERE = Path(__file__).resolve()
SMP = "segmentation_models_pytorch"
CLASSES = 21
SIDE = 512
MEMORY_RUNS = 3
WARM_UP_SIDE = 64
ORDERS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
WHO = ("perpixel", "peer")
PLAIN_ALLOCATOR = {"MALLOC_MMAP_THRESHOLD_": str(2**20)}
"""glibc takes blocks of a MiB and more from the system and gives them back, in place of a threshold that rises. Else a
memory figure counts the holes of its heap, which depend on how the weights were read: the same 120 MiB of tensors at
the peak took 194 MiB in one process and 289 in another."""
Scores = Callable[[Tensor], Tensor]


def convolution(inside: int, out: int, kernel: int = 3, stride: int = 1, *, relu: bool = True) -> nn.Sequential:
    """Convolution, batch norm and ReLU, the layers numbered as in the public codes."""
    conv = nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(out), *([nn.ReLU(inplace=True)] if relu else []))


def bottlenecks(inside: int, width: int, count: int, stride: int = 1, dilation: int = 1) -> nn.Sequential:
    """A stage of a ResNet; every block of it is dilated, as in semseg."""
    out = Bottleneck.expansion * width
    shortcut = convolution(inside, out, 1, stride, relu=False)
    first = Bottleneck(inside, width, stride, shortcut, dilation=dilation)
    return nn.Sequential(first, *(Bottleneck(out, width, dilation=dilation) for _ in range(count - 1)))


class PlainPSPNet(nn.Module):
    """PSPNet on ResNet-50 under semseg's names: the pooled branches are enlarged, concatenated and convolved."""

    def __init__(self) -> None:
        super().__init__()
        stem = (*convolution(3, 64, stride=2), *convolution(64, 64), *convolution(64, 128))
        self.layer0 = nn.Sequential(*stem, nn.MaxPool2d(3, 2, 1))
        self.layer1 = bottlenecks(128, 64, 3)
        self.layer2 = bottlenecks(256, 128, 4, stride=2)
        self.layer3 = bottlenecks(512, 256, 6, dilation=2)
        self.layer4 = bottlenecks(1024, 512, 3, dilation=4)
        self.ppm = nn.Module()
        self.ppm.features = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(bins), *convolution(2048, 512, 1)) for bins in (1, 2, 3, 6)
        )
        self.cls = nn.Sequential(*convolution(4096, 512), nn.Dropout2d(0.1), nn.Conv2d(512, CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = self.layer4(self.layer3(self.layer2(self.layer1(self.layer0(images)))))
        branches = cast(nn.ModuleList, self.ppm.features)
        x = self.cls(torch.cat([x, *(enlarged(branch(x), x, aligned=True) for branch in branches)], dim=1))
        return enlarged(x, images, aligned=True)


class PlainHRNet(nn.Module):
    """HRNetV2-W18 under its authors' names: all maps are enlarged to the finest, concatenated and convolved."""

    def __init__(self, width: int = 18) -> None:
        super().__init__()
        widths = [width * 2**i for i in range(4)]
        self.conv1, self.bn1, _ = convolution(3, 64, stride=2)
        self.conv2, self.bn2, _ = convolution(64, 64, stride=2)
        self.layer1 = bottlenecks(64, 64, 4)
        self.transition1 = nn.ModuleList(
            [convolution(256, widths[0]), nn.Sequential(convolution(256, widths[1], 3, 2))]
        )
        self.transition2 = nn.ModuleDict({"2": nn.Sequential(convolution(widths[1], widths[2], 3, 2))})
        self.transition3 = nn.ModuleDict({"3": nn.Sequential(convolution(widths[2], widths[3], 3, 2))})
        self.stage2 = nn.Sequential(*(PlainExchange(widths[:2]) for _ in range(1)))
        self.stage3 = nn.Sequential(*(PlainExchange(widths[:3]) for _ in range(4)))
        self.stage4 = nn.Sequential(*(PlainExchange(widths) for _ in range(3)))
        total = sum(widths)
        mix = (nn.Conv2d(total, total, 1), nn.BatchNorm2d(total), nn.ReLU(inplace=True))
        self.last_layer = nn.Sequential(*mix, nn.Conv2d(total, CLASSES, 1))

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(images)), inplace=True)
        x = self.layer1(F.relu(self.bn2(self.conv2(x)), inplace=True))
        maps = self.stage2([layer(x) for layer in self.transition1])
        maps = self.stage3([*maps, self.transition2["2"](maps[-1])])
        maps = self.stage4([*maps, self.transition3["3"](maps[-1])])
        x = torch.cat([maps[0], *(enlarged(x, maps[0], aligned=False) for x in maps[1:])], dim=1)
        return enlarged(self.last_layer(x), images, aligned=False)


class PlainExchange(nn.Module):
    """Four basic blocks on every branch, then each branch becomes the sum of all."""

    def __init__(self, widths: Sequence[int]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w, w) for _ in range(4))) for w in widths)
        places = range(len(widths))
        self.fuse_layers = nn.ModuleList(
            nn.ModuleList(brought(widths, source, target) for source in places) for target in places
        )

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        return [F.relu(self._sum(maps, target), inplace=True) for target in range(len(maps))]

    def _sum(self, maps: list[Tensor], target: int) -> Tensor:
        layers = cast(nn.ModuleList, self.fuse_layers[target])
        total, *rest = (enlarged(layer(x), maps[target], aligned=False) for layer, x in zip(layers, maps, strict=True))
        return sum(rest, start=total)


def brought(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """The layers between two branches, but for the enlargement."""
    if source == target:
        return nn.Identity()
    if source > target:
        return convolution(widths[source], widths[target], 1, relu=False)
    halved = (convolution(widths[source], widths[source], 3, 2) for _ in range(target - source - 1))
    return nn.Sequential(*halved, convolution(widths[source], widths[target], 3, 2, relu=False))


def enlarged(x: Tensor, like: Tensor, *, aligned: bool) -> Tensor:
    if x.shape[-2:] == like.shape[-2:]:
        return x
    return F.interpolate(x, like.shape[-2:], mode="bilinear", align_corners=aligned)


def of_torchvision(name: str) -> nn.Module:
    network: nn.Module = getattr(segmentation, name)(weights_backbone=None, num_classes=CLASSES, aux_loss=False)
    return network


def of_smp(name: str, encoder: str) -> nn.Module:
    network: nn.Module = getattr(importlib.import_module(SMP), name)(encoder, encoder_weights=None, classes=CLASSES)
    return network


@dataclass(frozen=True, kw_only=True)
class Row:
    """A network, the peer that makes it, and the family that its checkpoint is of."""

    peer: str
    family: str
    build: Callable[[], nn.Module]


ROWS = {
    "DeepLab v3 ResNet-50": Row(
        peer="torchvision", family="torchvision/deeplabv3", build=lambda: of_torchvision("deeplabv3_resnet50")
    ),
    "FCN ResNet-50": Row(peer="torchvision", family="torchvision/fcn", build=lambda: of_torchvision("fcn_resnet50")),
    "U-Net ResNet-18": Row(peer=SMP, family="smp/unet", build=lambda: of_smp("Unet", "resnet18")),
    "DeepLab v3+ ResNet-50": Row(
        peer=SMP, family="smp/deeplabv3plus", build=lambda: of_smp("DeepLabV3Plus", "resnet50")
    ),
    "PSPNet ResNet-50": Row(peer="plain restatement", family="semseg/pspnet", build=PlainPSPNet),
    "HRNet-W18": Row(peer="plain restatement", family="hrnet/hrnet", build=PlainHRNet),
}


def write_checkpoint(name: str, path: Path) -> None:
    """Stores a state dict of the peer whose every value follows from its name, batch norm's statistics among them."""
    shapes = ROWS[name].build().state_dict()
    state = {key: torch.from_numpy(fill_value(key, value.shape)).to(value.dtype) for key, value in shapes.items()}
    torch.save(state, path)


def contender(name: str, who: str, checkpoint: Path, order: torch.memory_format) -> Scores:
    """Returns the function from images to scores at their size, of our network or the peer's."""
    if who == "perpixel":
        ours = import_weights(checkpoint, ROWS[name].family).to(memory_format=order)
        return lambda images: resize(ours(images).logits, images.shape[-2:], align_corners=ours.align_corners)

    peer = ROWS[name].build()
    peer.load_state_dict(torch.load(checkpoint, weights_only=True))
    peer.eval().to(memory_format=order)

    return lambda images: scores_in(peer(images))


def scores_in(output: Any) -> Tensor:
    return cast(Tensor, output["out"] if isinstance(output, dict) else output)


def images_of(side: int, order: torch.memory_format) -> Tensor:
    return torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=order)


def run_times(name: str, checkpoint: Path, order: torch.memory_format, rounds: int) -> dict[str, Any]:
    """Seconds of both contenders in every round, in turns first; the first round compares scores and is not timed."""
    functions = {who: contender(name, who, checkpoint, order) for who in WHO}
    images = images_of(SIDE, order)
    seconds: dict[str, list[float]] = {who: [] for who in WHO}
    with torch.inference_mode():
        ours, theirs = (functions[who](images) for who in WHO)
        largest = {"difference": float((ours - theirs).abs().max()), "score": float(theirs.abs().max())}
        del ours, theirs
        for index in range(rounds):
            for who in WHO if index % 2 else reversed(WHO):
                started = time.perf_counter()
                functions[who](images)
                seconds[who].append(time.perf_counter() - started)
    return {"largest": largest, "seconds": seconds}


def run_memory(name: str, who: str, checkpoint: Path, order: torch.memory_format) -> dict[str, Any]:
    """The most that this process held before and during one forward pass, in MiB."""
    function = contender(name, who, checkpoint, order)
    images = images_of(SIDE, order)
    with torch.inference_mode():
        function(images_of(WARM_UP_SIDE, order))
        gc.collect()
        forgotten = forget_peak()
        before = peak_megabytes()
        function(images)
    return {"peak_mb": peak_megabytes(), "peak_before_mb": before, "before_is_current": forgotten}


def forget_peak() -> bool:
    """Gives freed memory back and lets the peak begin anew, where the system can; else reading weights counts too."""
    if hasattr(ctypes.CDLL(None), "malloc_trim"):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def peak_megabytes() -> float:
    """The most memory that this process has held, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage says begins with what the parent held when it forked
        held = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(held.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 1024)


def measured(arguments: argparse.Namespace, name: str, order: str, role: str, checkpoint: Path) -> dict[str, Any]:
    """Runs one measurement in a fresh process."""
    command = [sys.executable, str(HERE), "--role", role, "--rows", name, "--order", order]
    command += ["--checkpoint", str(checkpoint), "--rounds", str(arguments.rounds), "--threads", str(arguments.threads)]
    command += ["--smp", str(arguments.smp)] if arguments.smp else []
    surroundings = dict(os.environ) if role == "times" else os.environ | PLAIN_ALLOCATOR
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=surroundings)
    if done.returncode:
        raise SystemExit(f"{name}, {order}, {role} failed:\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def play_role(arguments: argparse.Namespace) -> dict[str, Any]:
    """Is one of the processes that measure."""
    (name,), order, checkpoint = arguments.rows, ORDERS[arguments.order], arguments.checkpoint
    torch.set_num_threads(arguments.threads)
    if arguments.role == "times":
        return run_times(name, checkpoint, order, arguments.rounds)
    return run_memory(name, arguments.role, checkpoint, order)


def benchmark_row(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """Measures a network in both memory orders."""
    row: dict[str, Any] = {"peer": ROWS[name].peer, "family": ROWS[name].family, "commit": commit()}
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = Path(folder) / "peer.pth"
        write_checkpoint(name, checkpoint)
        for order in ORDERS:
            times = measured(arguments, name, order, "times", checkpoint)
            held: dict[str, list[dict[str, Any]]] = {who: [] for who in WHO}
            for who in WHO * MEMORY_RUNS:
                held[who].append(measured(arguments, name, order, who, checkpoint))
            found = {who: {**spread(times["seconds"][who]), **memory(held[who])} for who in WHO}
            ours, peer = (found[who] for who in WHO)
            row[order] = {
                **found,
                "largest_difference": times["largest"]["difference"],
                "largest_score": times["largest"]["score"],
                "time_ratio": ours["median_s"] / peer["median_s"],
                "memory_ratio": ours["forward_mb"] / peer["forward_mb"],
            }
            print_row(name, order, row[order])
    return row


def spread(seconds: list[float]) -> dict[str, float]:
    return {"median_s": statistics.median(seconds), "min_s": min(seconds), "max_s": max(seconds)}


def memory(runs: list[dict[str, Any]]) -> dict[str, Any]:
    grown = [run["peak_mb"] - run["peak_before_mb"] for run in runs]
    current = all(run["before_is_current"] for run in runs)
    return {"forward_mb": statistics.median(grown), "forward_mb_of_runs": grown, "before_is_current": current}


def print_row(name: str, order: str, row: dict[str, Any]) -> None:
    milliseconds = [1000 * row[who]["median_s"] for who in WHO]
    megabytes = [row[who]["forward_mb"] for who in WHO]
    print(
        f"{name:22s} {order:13s} {milliseconds[0]:8.0f} {milliseconds[1]:8.0f} {row['time_ratio']:6.2f} "
        f"{megabytes[0]:8.0f} {megabytes[1]:8.0f} {row['memory_ratio']:6.2f} "
        f"{row['largest_difference']:10.1e} of {row['largest_score']:.1e}",
        flush=True,
    )


def commit() -> str | None:
    found = subprocess.run(["git", "rev-parse", "HEAD"], cwd=HERE.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip() if found.returncode == 0 else None


def environment(arguments: argparse.Namespace) -> dict[str, Any]:
    versions = {"torch": str(torch.__version__), "torchvision": str(torchvision.__version__)}
    if arguments.smp:
        held = importlib.metadata.distributions(name=SMP, path=[str(arguments.smp)])
        versions[SMP] = next((found.version for found in held), "unknown")
    return {
        "commit": commit(),
        "device": "cpu",
        "machine": platform.machine(),
        "threads": arguments.threads,
        "python": platform.python_version(),
        "versions": versions,
    }


def earlier_rows(arguments: argparse.Namespace) -> dict[str, Any]:
    """The rows of the same file that are not measured again."""
    if not arguments.json or not arguments.json.exists():
        return {}
    stored = json.loads(arguments.json.read_text(encoding="utf-8"))
    if stored["rounds"] != arguments.rounds or stored["environment"]["versions"] != environment(arguments)["versions"]:
        return {}
    return {name: row for name, row in stored["results"].items() if name not in arguments.rows}


def main() -> None:
    """Measures everything, or is one of the processes that do."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--smp", type=Path, help=f"folder that holds {SMP}; without it its networks are left out")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rows", nargs="+", choices=tuple(ROWS), default=list(ROWS), metavar="NAME")
    parser.add_argument("--role", choices=("times", *WHO), help=argparse.SUPPRESS)
    parser.add_argument("--order", choices=tuple(ORDERS), help=argparse.SUPPRESS)
    parser.add_argument("--checkpoint", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.smp:
        sys.path.append(str(arguments.smp))
    if arguments.role:
        print(json.dumps(play_role(arguments)))
        return
    left_out = [name for name in arguments.rows if ROWS[name].peer == SMP and not arguments.smp]
    report = {
        "benchmark": "forward",
        "input": [1, 3, SIDE, SIDE],
        "dtype": "float32",
        "classes": CLASSES,
        "rounds": arguments.rounds,
        "environment": environment(arguments),
        "left_out": left_out,
        "results": earlier_rows(arguments),
    }
    print(
        f"{'':36s} {'ours ms':>8s} {'peer ms':>8s} {'ratio':>6s} {'ours MiB':>8s} {'peer MiB':>8s} {'ratio':>6s}",
        end="",
    )
    print(f" {'difference':>10s} of largest score")
    for name in (name for name in arguments.rows if name not in left_out):
        report["results"][name] = benchmark_row(arguments, name)
        if arguments.json:
            arguments.json.parent.mkdir(parents=True, exist_ok=True)
            arguments.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    print(f"left out, for want of --smp: {', '.join(left_out) or 'nothing'}")


if __name__ == "__main__":
    main()
