from __future__ import annotations

import pytest

from layerbuild.errors import UsageError
from layerbuild.target import all_targets, default_targets, select_targets


def test_every_runtime_has_both_architectures() -> None:
    names = [str(target) for target in all_targets()]
    assert names[0] == "python3.9-x86_64"
    assert names[-1] == "python3.14-arm64"
    assert len(names) == 12


def test_deprecated_runtimes_are_not_built_by_default() -> None:
    assert {target.runtime.name for target in default_targets()} == {f"python3.{minor}" for minor in range(11, 15)}


def test_wildcards_select_targets_in_their_fixed_order() -> None:
    chosen = select_targets(["python3.14-*", "python3.9-arm64"])
    assert [str(target) for target in chosen] == ["python3.9-arm64", "python3.14-x86_64", "python3.14-arm64"]


def test_an_unknown_target_names_the_nearest() -> None:
    with pytest.raises(UsageError) as caught:
        select_targets(["python3.13-arm"])
    assert caught.value.code == "unknown-target"
    assert "python3.13-arm64" in caught.value.causes[0]
