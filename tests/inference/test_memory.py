"""Amounts of memory: read, written, free and measured."""

from __future__ import annotations

import numpy as np
import pytest

from perpixel.errors import InvalidValue
from perpixel.inference import memory
from perpixel.inference.memory import bytes_text, free_memory, parse_bytes, peak_bytes


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("4GB", 4 * 10**9), ("512 MiB", 512 * 2**20), ("1.5g", 1_500_000_000), (2000, 2000), ("70000000", 70_000_000)],
)
def test_parse_bytes_known_units_give_bytes(text, wanted):
    assert parse_bytes(text) == wanted


@pytest.mark.parametrize("text", ["4 apples", "", "-3GB", "0", "GB", "9" * 400])
def test_parse_bytes_anything_else_is_refused(text):
    with pytest.raises(InvalidValue, match="an amount such as 4GB"):
        parse_bytes(text)


def test_bytes_text_is_short():
    assert bytes_text(812_300_000) == "812 MB"
    assert bytes_text(1.354e9) == "1.35 GB"
    assert bytes_text(10) == "1 MB"


def test_free_memory_is_the_least_of_machine_and_container(tmp_path, monkeypatch):
    (tmp_path / "meminfo").write_text("MemTotal: 100 kB\nMemAvailable:   9000 kB\n")
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    assert free_memory() == 9000 * 1024
    (tmp_path / "cgroup").mkdir()
    (tmp_path / "cgroup" / "memory.max").write_text("5000000\n")
    (tmp_path / "cgroup" / "memory.current").write_text("3000000\n")
    (tmp_path / "cgroup" / "memory.stat").write_text("anon 1\ninactive_file 500000\n")
    assert free_memory() == 2_500_000
    (tmp_path / "cgroup" / "memory.max").write_text("max\n")
    assert free_memory() == 9000 * 1024


@pytest.mark.parametrize(
    ("line", "base", "limit", "used", "cache"),
    [
        ("0::/outer/inner", ".", "memory.max", "memory.current", "inactive_file"),
        ("4:memory:/outer/inner", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
    ],
)
def test_free_memory_sees_the_groups_that_this_process_is_in(tmp_path, monkeypatch, line, base, limit, used, cache):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "cgroup").write_text(f"9:name=systemd:/\n{line}\n")
    for place, allowed in (("outer", 7_000_000), ("outer/inner", 9_000_000), ("other", 1)):
        folder = tmp_path / "cgroup" / base / place
        folder.mkdir(parents=True)
        (folder / limit).write_text(f"{allowed}\n")
        (folder / used).write_text("3000000\n")
        (folder / "memory.stat").write_text(f"{cache} 0\n")
    assert free_memory() == 4_000_000


def test_free_memory_keeps_to_the_address_space_that_is_left(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory.resource, "getrlimit", lambda _: (3_000_000, -1))
    assert free_memory() == 3_000_000
    (tmp_path / "self").mkdir()
    (tmp_path / "self" / "status").write_text("VmPeak: 2000 kB\nVmSize: 1000 kB\n")
    assert free_memory() == 3_000_000 - 1000 * 1024


def test_free_memory_unknown_system_takes_a_modest_amount(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "_PROC", tmp_path)
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path)
    assert free_memory() == 2 * 10**9


def test_peak_bytes_sees_what_was_held_and_freed():
    def hold_40_megabytes():
        np.ones(5_000_000).sum()

    peak = peak_bytes(hold_40_megabytes)
    assert 35e6 < peak < 60e6
    assert peak_bytes(lambda: None) < 5e6
