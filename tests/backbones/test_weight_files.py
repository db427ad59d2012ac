from __future__ import annotations

import argparse
import pickle
import warnings

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from perpixel.errors import CheckpointError
from perpixel.weights import open_checkpoint, read_checkpoint, unwrap

STATE = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.ones(2)}


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".tar", ".pkl"])
def test_pickled_state_dict_is_read(tmp_path, suffix):
    torch.save(STATE, tmp_path / f"w{suffix}")
    tensors = read_checkpoint(tmp_path / f"w{suffix}")
    assert list(tensors) == list(STATE)
    assert torch.equal(tensors["a.weight"], STATE["a.weight"])


def test_legacy_pickle_is_read(tmp_path):
    torch.save(STATE, tmp_path / "w.pth", _use_new_zipfile_serialization=False)
    assert torch.equal(read_checkpoint(tmp_path / "w.pth")["a.bias"], STATE["a.bias"])


def test_safetensors_file_is_read(tmp_path):
    save_file(STATE, tmp_path / "w.safetensors")
    assert torch.equal(read_checkpoint(tmp_path / "w.safetensors")["a.weight"], STATE["a.weight"])


@settings(max_examples=30, deadline=None)
@given(
    containers=st.lists(st.sampled_from(["model", "state_dict", "model_state", "net", "weights"]), max_size=3),
    prefixes=st.lists(st.sampled_from(["module.", "_orig_mod.", "model.", "net."]), max_size=3),
)
def test_any_nesting_and_prefixes_give_the_plain_state_dict(containers, prefixes):
    content: object = {"".join(prefixes) + key: value for key, value in STATE.items()}
    for name in containers:
        content = {name: content, "epoch": 3}
    unwrapped = unwrap(content)
    assert list(unwrapped.tensors) == list(STATE)
    assert all(f"'{name}'" in " ".join(unwrapped.notes) for name in containers)


def test_unknown_container_that_alone_holds_tensors_is_opened():
    assert list(unwrap({"segmenter": STATE, "arguments": {"lr": 0.1}}).tensors) == list(STATE)


def test_compiled_part_of_a_network_loses_its_prefix():
    state = {"trunk._orig_mod.weight": torch.zeros(1), "head.weight": torch.zeros(1)}
    assert set(unwrap(state).tensors) == {"trunk.weight", "head.weight"}


def test_tensors_of_the_loss_are_left_aside_and_hide_no_prefix():
    content = {"module.criterion.weight": torch.ones(3)} | {f"module.model.{k}": v for k, v in STATE.items()}
    unwrapped = unwrap(content)
    assert list(unwrapped.tensors) == list(STATE)
    assert unwrapped.notes[-1] == "of the training loss, not of the network, left aside: criterion.weight"


def test_scalar_array_stays_a_scalar():
    assert unwrap({"bn.num_batches_tracked": np.array(7)}).tensors["bn.num_batches_tracked"].shape == ()


def test_prefix_of_some_keys_only_stays():
    state = {"module.weight": torch.zeros(1), "head.weight": torch.zeros(1)}
    assert set(unwrap(state).tensors) == set(state)


def test_values_that_are_no_tensors_are_left_aside_and_named():
    unwrapped = unwrap({**STATE, "epoch": 3, "array": np.ones(2, dtype=np.float32)})
    assert "epoch" not in unwrapped.tensors
    assert unwrapped.notes == ("no tensors, left aside: epoch",)
    assert torch.equal(unwrapped.tensors["array"], torch.ones(2))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({}, "no tensor found"),
        ({"epoch": 3}, r"no tensor found \(it holds epoch\)"),
        ([1, 2], "holds list, not a state dict"),
        ({"a._orig_mod.w": torch.zeros(1), "a.w": torch.zeros(1)}, "keys repeat .*a.w"),
    ],
)
def test_content_without_a_state_dict_is_an_error(content, message):
    with pytest.raises(CheckpointError, match=message):
        unwrap(content)


def test_pickle_with_other_objects_is_refused_with_the_way_out(tmp_path):
    path = tmp_path / "w.pth"
    torch.save({"model": STATE, "args": argparse.Namespace(lr=0.1)}, path)
    message = r"w.pth: refused, it asks for argparse\.Namespace\. .*can run code.*torch.save\(model.state_dict\(\)"
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(path)


def test_bare_pickle_is_refused_without_a_warning(tmp_path):
    path = tmp_path / "w.pkl"
    path.write_bytes(pickle.dumps({"args": argparse.Namespace(lr=0.1)}))
    with warnings.catch_warnings(), pytest.raises(CheckpointError, match=r"w.pkl: refused.*can run code"):
        warnings.simplefilter("error")
        open_checkpoint(path)


def test_damaged_and_missing_files_are_errors_that_name_the_file(tmp_path):
    (tmp_path / "text.pth").write_text("hello")
    (tmp_path / "text.safetensors").write_text("not a checkpoint")
    whole = tmp_path / "whole.pth"
    torch.save({"w": torch.zeros(1000)}, whole)
    (tmp_path / "cut.pth").write_bytes(whole.read_bytes()[:1500])
    told = {"text.pth": r"damaged one \(KeyError\)", "text.safetensors": "damaged one", "cut.pth": "damaged one"}
    for name, reason in told.items():
        with pytest.raises(CheckpointError, match=f"{name}: .*{reason}"):
            open_checkpoint(tmp_path / name)
    with pytest.raises(CheckpointError, match="no such file"):
        open_checkpoint(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="a folder, not a checkpoint file"):
        open_checkpoint(tmp_path)
    torch.save({}, tmp_path / "empty.pth")
    with pytest.raises(CheckpointError, match=r"empty\.pth: no tensor found"):
        open_checkpoint(tmp_path / "empty.pth")
