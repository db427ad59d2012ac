"""The CUDA kernel of fused_argmax: run by Triton's interpreter against the full map, and compiled without a GPU."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from perpixel.errors import InvalidValue
from perpixel.ops import fused_argmax as fused
from perpixel.ops.fused_argmax import Axis, fused_argmax, fused_top, mixed_classes, mixed_top

pytest.importorskip("triton", reason="Triton comes with PyTorch for CUDA; the kernel cannot be read without it")

NEAR = 2e-6
CASES = {
    "planar": ((2, 3, 4, 5), (9, 33), False, torch.float32, torch.contiguous_format),
    "channels last, corners aligned": ((1, 3, 3, 5), (8, 7), True, torch.bfloat16, torch.channels_last),
    "one row": ((1, 3, 1, 6), (4, 13), False, torch.float16, torch.contiguous_format),
    "one column, smaller": ((1, 4, 9, 1), (5, 1), True, torch.float32, torch.channels_last),
    "one class": ((1, 1, 2, 2), (3, 3), False, torch.float32, torch.contiguous_format),
    "int16": ((1, 258, 1, 2), (1, 4), False, torch.float32, torch.contiguous_format),
}


def noise(*shape: int) -> torch.Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(0))


def interpreted() -> dict[str, dict[str, float]]:
    """How far the kernel is from the full map: classes that differ, errors of score and confidence, by case."""
    found = {}
    for name, (shape, size, aligned, dtype, order) in CASES.items():
        logits = noise(*shape).to(dtype).contiguous(memory_format=order)
        full = F.interpolate(logits.double(), size, mode="bilinear", align_corners=aligned)
        top = fused_top(logits, size, align_corners=aligned)
        many = shape[1] > 256  # once is enough: the interpreter takes 8 ms a class
        classes = top.classes if many else fused_argmax(logits, size, align_corners=aligned)
        found[name] = {
            "wrong": int((classes.long() != full.argmax(1)).sum() + (top.classes != classes).sum()),
            "score": float((top.score - full.amax(1)).abs().max()),
            "confidence": float((top.confidence - full.softmax(1).amax(1)).abs().max()),
            "16 bits": float(classes.dtype == torch.int16),
        }
    logits = noise(1, 3, 5, 6)
    whole = fused_argmax(logits, (17, 19), align_corners=False, covered=(18, 20))
    placed = (
        Axis.between(5, 18, align_corners=False).window(8, 17, first_cell=1),
        Axis.between(6, 20, align_corners=False).window(9, 18, first_cell=1),
    )
    tile = mixed_top(logits[:, :, 1:, 1:], *placed)
    scores = fused_top(logits, (17, 19), align_corners=False, covered=(18, 20)).score
    twice = torch.cat([logits, logits], dim=1)
    found["special"] = {
        "tile's classes": float((tile.classes != whole[:, 8:17, 9:18]).sum()),
        "tile's scores": float((tile.score != scores[:, 8:17, 9:18]).sum()),
        "tile without scores": float((mixed_classes(logits[:, :, 1:, 1:], *placed) != tile.classes).sum()),
        "ties": float((fused_argmax(twice, (17, 19), align_corners=False, covered=(18, 20)) != whole).sum()),
    }
    try:
        fused_top(torch.full_like(logits, float("nan")), (9, 9), align_corners=False)
    except InvalidValue as error:
        found["refused"] = {str(error): 0}
    return found


if __name__ == "__main__":
    from perpixel.ops import triton_argmax

    fused._kernel = lambda logits: triton_argmax  # as on a GPU
    triton_argmax.BLOCK = (8, 32)  # small images, and fewer programs for the interpreter
    sys.stdout.write(json.dumps(interpreted()))
    raise SystemExit


@pytest.fixture(scope="module")
def results() -> dict[str, dict[str, float]]:
    surroundings = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(Path(__file__))],
        capture_output=True,
        text=True,
        env=surroundings,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, dict[str, float]] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", CASES)
def test_triton_argmax_interpreted_equals_the_full_map(results: dict[str, dict[str, float]], name: str) -> None:
    found = results[name]
    assert found["wrong"] == 0
    assert found["score"] < NEAR
    assert found["confidence"] < NEAR
    assert bool(found["16 bits"]) is (name == "int16")


def test_triton_argmax_of_tiles_and_ties_is_that_of_the_whole_to_the_last_bit(
    results: dict[str, dict[str, float]],
) -> None:
    assert set(results["special"].values()) == {0.0}
    assert len(results["special"]) == 4


def test_triton_argmax_non_finite_scores_are_refused_before_the_kernel(results: dict[str, dict[str, float]]) -> None:
    (message,) = results["refused"]
    assert "(0, 0, 0, 0) are nan" in message


@pytest.mark.parametrize("variant", [{"PLACED": False, "TOP": True}, {"PLACED": True, "TOP": False}])
def test_triton_argmax_compiles_for_compute_capability_9_without_a_gpu(
    variant: dict[str, bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The interpreter takes what the compiler refuses, such as annotated arguments or methods of whole numbers."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    compiled = compiled_kernel(variant)
    assert "cubin" in compiled
    assert b".target sm_90" in compiled["ptx"].encode()


def compiled_kernel(variant: dict[str, bool]) -> dict[str, str]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from perpixel.ops import triton_argmax

    kernel = triton_argmax._top_kernel
    constants = {
        **variant,
        "ALIGNED": False,
        "ROWS": triton_argmax.BLOCK[0],
        "COLUMNS": triton_argmax.BLOCK[1],
        "OFFSET": triton.language.int32,
        "UNROLLED": 2,
        "stride_column": 1,
    }
    pointers = {"logits": "*fp16", "classes": "*u8", "score": "*fp32", "confidence": "*fp32"}
    for axis in ("row", "column"):
        pointers |= {f"{axis}_low": "*i64", f"{axis}_high": "*i64", f"{axis}_weight": "*fp32"}
    signature = {name: "constexpr" if name in constants else pointers.get(name, "i32") for name in kernel.arg_names}
    places = {(kernel.arg_names.index(name),): value for name, value in constants.items()}
    source = ASTSource(fn=kernel, signature=signature, constexprs=places)
    asm: dict[str, str] = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 4}).asm
    return asm


@pytest.mark.gpu
@pytest.mark.parametrize("name", CASES)
def test_triton_argmax_on_cuda_equals_the_cpu(name: str) -> None:
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    shape, size, aligned, dtype, order = CASES[name]
    logits = noise(*shape).to(dtype).contiguous(memory_format=order)
    here, there = (fused_top(x, size, align_corners=aligned) for x in (logits, logits.cuda()))
    assert torch.equal(there.classes.cpu(), here.classes)
    torch.testing.assert_close(there.score.cpu(), here.score, rtol=0, atol=1e-5)
    torch.testing.assert_close(there.confidence.cpu(), here.confidence, rtol=0, atol=1e-5)


def test_fused_argmax_kernel_serves_cuda_alone() -> None:
    assert fused._kernel(torch.zeros(1, 2, 3, 3)) is None
    assert fused._triton_argmax().__name__ == "perpixel.ops.triton_argmax"


def test_fused_argmax_without_triton_has_no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(fused.importlib, "import_module", missing)
    assert fused._triton_argmax.__wrapped__() is None
