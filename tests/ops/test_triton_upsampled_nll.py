"""The CUDA kernels of upsampled_nll: run by Triton's interpreter against the plain form, and compiled without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from perpixel.ops import upsampled_nll as room
from perpixel.ops.upsampled_nll import plain_upsampled_nll, upsampled_nll, upsampled_nll_total

pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA; the kernels cannot be read without it")

# (B, K, h, w) -> (H, W), corners aligned, dtype, memory format, class mix
CASES = {
    "planar": ((2, 2, 2, 2), (3, 5), False, torch.float64, torch.contiguous_format, False),
    "mix, many classes": ((1, 11, 2, 2), (3, 5), True, torch.float64, torch.contiguous_format, True),
    "several tiles": ((1, 2, 2, 34), (3, 70), False, torch.float64, torch.contiguous_format, False),
    "one cell, channels last": ((1, 4, 1, 1), (3, 4), False, torch.float64, torch.channels_last, False),
    "smaller": ((1, 3, 5, 6), (2, 3), True, torch.float64, torch.channels_last, True),
    "a cell wider than a tile": ((1, 2, 1, 2), (2, 300), True, torch.float64, torch.contiguous_format, False),
    "float32": ((1, 3, 2, 3), (5, 9), True, torch.float32, torch.contiguous_format, True),
    "bfloat16": ((1, 3, 2, 3), (5, 9), False, torch.bfloat16, torch.contiguous_format, False),
}


def problem(name: str, device: str = "cpu") -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
    """Scores, labels, class mix and what pulls at the pixels."""
    shape, size, _, dtype, order, mixed = CASES[name]
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(shape, generator=generator).mul_(3).to(device, dtype).contiguous(memory_format=order)
    target = torch.randint(0, shape[1], (shape[0], *size), generator=generator, dtype=torch.uint8).to(device)
    target[0, 0, :2] = 255
    mix = torch.linspace(0.1, 1, shape[1], device=device, dtype=torch.float64) if mixed else None
    pulls = torch.rand(target.shape, generator=generator, dtype=torch.float64).to(device)
    return logits.requires_grad_(), target, mix, pulls


def errors(name: str, device: str = "cpu") -> dict[str, float]:
    """How far values and gradients of the kernels are from the plain form's in float64, relative to the largest."""
    logits, target, mix, pulls = problem(name, device)
    aligned = CASES[name][2]
    exact = logits.detach().double().requires_grad_()
    found = upsampled_nll(logits, target, align_corners=aligned, class_mix=mix)
    wanted = plain_upsampled_nll(exact, target, align_corners=aligned, class_mix=mix)
    slopes = []
    for (nll, spread), scores in ((found, logits), (wanted, exact)):
        value = (nll * pulls).sum() + (0 if spread is None else (spread * pulls.flip(1)).sum())
        slopes.append(torch.autograd.grad(value, scores)[0])
    twice = torch.autograd.grad(upsampled_nll(logits, target, align_corners=aligned)[0].sum(), logits)[0]
    total = upsampled_nll_total(logits, target, pulls, align_corners=aligned, own=0.5, class_mix=mix)
    sums = 0.5 * (wanted[0] * pulls).sum() + (0 if wanted[1] is None else wanted[1].sum())
    return {
        "nll": distance(found[0], wanted[0]),
        "spread": 0.0 if mix is None else distance(found[1], wanted[1]),
        "gradient": distance(*slopes),
        "total": distance(total, sums),
        "of a sum": distance(twice, torch.autograd.grad(total_of(exact, target, aligned), exact)[0]),
    }


def total_of(exact: Tensor, target: Tensor, aligned: bool) -> Tensor:
    return plain_upsampled_nll(exact, target, align_corners=aligned)[0].sum()


def distance(found: Tensor | None, wanted: Tensor | None) -> float:
    assert found is not None and wanted is not None
    return float((found - wanted).detach().abs().max() / wanted.detach().abs().max())


def label_that_is_no_class() -> dict[str, float]:
    logits, target, _, _ = problem("planar")
    target[1, 2, 3] = 7
    nll = upsampled_nll(logits, target, align_corners=False)[0]
    return {"not numbers": float(nll.isnan().sum()), "there": float(nll[1, 2, 3].isnan())}


if __name__ == "__main__":
    room._kernels = lambda logits: room._triton_kernels()  # as on a GPU
    found = {name: errors(name) for name in CASES} | {"wrong label": label_that_is_no_class()}
    sys.stdout.write(json.dumps(found))
    raise SystemExit


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, float]]:
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        capture_output=True,
        text=True,
        env=os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


def allowed(name: str, part: str) -> float:
    dtype = CASES[name][3]
    if dtype == torch.bfloat16 and part in ("gradient", "of a sum"):
        return 2**-7  # a unit in the last place of the gradient's own dtype: the interpreter cuts off
    return 1e-12 if dtype == torch.float64 else 1e-6


@pytest.mark.parametrize("name", CASES)
def test_triton_nll_interpreted_equals_the_plain_form(results: dict[str, dict[str, float]], name: str) -> None:
    for part, error in results[name].items():
        assert error <= allowed(name, part), part


def test_triton_nll_label_that_is_no_class_is_not_a_number_at_its_place(results: dict[str, dict[str, float]]) -> None:
    assert results["wrong label"] == {"not numbers": 1, "there": 1}


@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel"])
def test_triton_nll_compiles_for_compute_capability_9_without_a_gpu(
    kernel: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter takes what the compiler refuses."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = compiled_kernel(kernel, mixed=kernel == "_backward_kernel", scores="*bf16", labels="*u8")
    assert "cubin" in compiled
    assert ".target sm_90" in compiled["ptx"]


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [False, True])
@pytest.mark.parametrize(("scores", "labels", "maps"), [("*fp32", "*i64", "*fp32"), ("*fp64", "*i16", "*fp64")])
@pytest.mark.parametrize("kernel", ["_forward_kernel", "_backward_kernel"])
def test_triton_nll_compiles_for_every_dtype(
    kernel: str, scores: str, labels: str, maps: str, mixed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    assert "cubin" in compiled_kernel(kernel, mixed=mixed, scores=scores, labels=labels, maps=maps)


def compiled_kernel(name: str, *, mixed: bool, scores: str, labels: str, maps: str = "*fp32") -> dict[str, str]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from perpixel.ops import triton_upsampled_nll

    kernel = getattr(triton_upsampled_nll, name)
    constants = {"HAS_MIX": mixed, "PIXELS": 64, "CLASSES": 8, "CELLS": 16, "scores_x": 1, "target_x": 1}
    constants = {key: value for key, value in constants.items() if key in kernel.arg_names}
    pointers = dict.fromkeys(("mix", "mix_sum", "nll", "spread", "log_sums", "own", "mixed"), maps)
    pointers |= {"logits": scores, "gradient": scores, "target": labels}
    for axis in ("row", "column"):
        pointers |= dict.fromkeys((f"{axis}_low", f"{axis}_start", f"{axis}_stop"), "*i32") | {f"{axis}_share": maps}
    signature = {key: "constexpr" if key in constants else pointers.get(key, "i32") for key in kernel.arg_names}
    places = {(kernel.arg_names.index(key),): value for key, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    asm: dict[str, str] = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 1}).asm
    return asm


def test_upsampled_nll_kernels_serve_cuda_alone() -> None:
    assert room._kernels(torch.zeros(1, 2, 3, 3)) is None
    assert room._triton_kernels().__name__ == "perpixel.ops.triton_upsampled_nll"


def test_upsampled_nll_without_triton_has_no_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(room, "import_module", missing)
    assert room._triton_kernels.__wrapped__() is None


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_triton_nll_on_cuda_equals_the_plain_form(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    for part, error in errors(name, "cuda").items():
        assert error <= 5 * allowed(name, part), part


@pytest.mark.gpu
def test_triton_nll_on_cuda_gives_the_same_bits_every_time() -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    logits = torch.randn(2, 21, 32, 32, device="cuda", requires_grad=True)
    target = torch.randint(0, 21, (2, 256, 256), device="cuda")
    runs = [torch.autograd.grad(upsampled_nll_total(logits, target, align_corners=False), logits)[0] for _ in range(3)]
    assert torch.equal(runs[0], runs[1]) and torch.equal(runs[0], runs[2])
