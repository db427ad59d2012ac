"""published_weights: where a backbone's weights are, without fetching them."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from perpixel.build.published_weights import published_weights

MODULE = sys.modules["perpixel.build.published_weights"]


@pytest.mark.parametrize(
    ("cached", "online", "expected"), [(True, False, "here"), (False, True, "to fetch"), (False, False, "unreachable")]
)
def test_published_weights_says_where_they_are(
    monkeypatch: pytest.MonkeyPatch, cached: bool, online: bool, expected: str
) -> None:
    def address(*_: object) -> list[object]:
        if not online:
            raise OSError("no name server")
        return []

    given = SimpleNamespace(hf_hub_id="timm/test_resnet.r160_in1k", url="")
    monkeypatch.setattr(MODULE.timm, "get_pretrained_cfg", lambda _: given)
    monkeypatch.setattr(MODULE, "try_to_load_from_cache", lambda *_: "/cache/model.safetensors" if cached else None)
    monkeypatch.setattr(MODULE.socket, "getaddrinfo", address)
    assert published_weights("test_resnet") == expected


def test_published_weights_of_a_trunk_that_timm_lacks_is_unknown() -> None:
    assert published_weights("icnet") == "unknown"
