"""A run that is killed by SIGKILL and resumed: `benchmarks/kill.py`, shorter."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest


@pytest.fixture(scope="module")
def kill() -> ModuleType:
    path = Path(__file__).parents[1] / "benchmarks" / "kill.py"
    spec = importlib.util.spec_from_file_location("kill", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["kill"] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="SIGKILL")
def test_a_run_killed_at_random_moments_ends_with_the_same_weights(kill: ModuleType, tmp_path: Path) -> None:
    kill.write_patches(tmp_path / "patches")
    (tmp_path / "salakseg.toml").write_text('data_root = "patches"\n')
    starting, training = kill.time_unbroken(tmp_path, 24, 0)
    longest = starting + training / 2
    kills = list(kill.kill_at_random(tmp_path, "broken", 24, 0, 2, longest, np.random.default_rng(1)))
    assert kills
    result = kill.compare(tmp_path / "runs" / "unbroken", tmp_path / "runs" / "broken")
    assert len(result) == 7 and all(result.values()), result


def test_a_difference_of_one_bit_is_seen(kill: ModuleType) -> None:
    import torch

    one = {"a": [torch.zeros(3), 1]}
    other = {"a": [torch.zeros(3), 1]}
    assert kill.same(one, other)
    other["a"][0][1] = 1e-45  # type: ignore[index]
    assert not kill.same(one, other)
    assert not kill.same({"a": 1}, {"b": 1}) and not kill.same([1], [1, 2])
