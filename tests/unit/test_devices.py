"""What is said where a machine has a GPU that torch cannot use."""

from pathlib import Path

import pytest
import torch

from saemake.base import devices, gpus
from saemake.base.errors import SaemakeError

OLD = "The NVIDIA driver on your system is too old (found version 11040)"


@pytest.fixture
def old_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with a GPU whose driver is older than torch wants, as torch says it."""

    def refuse() -> None:
        raise RuntimeError(f"{OLD}. Please update your GPU driver.\nMore.")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "init", refuse)
    (tmp_path / "0000:01:00.0").mkdir()
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv(devices.REQUIRE_GPU, raising=False)


@pytest.mark.usefixtures("old_driver")
def test_a_gpu_that_torch_cannot_use_is_told_with_the_reason() -> None:
    said = devices.unused_gpu()
    assert said is not None
    assert OLD in said
    assert said.endswith("computing on the CPU; with SAEMAKE_REQUIRE_GPU=1 the job ends instead")
    assert "\n" not in said


@pytest.mark.usefixtures("old_driver")
@pytest.mark.parametrize("hidden", ["", "-1"])
def test_a_gpu_that_the_user_hides_is_not_told(
    hidden: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
    assert devices.unused_gpu() is None


@pytest.mark.usefixtures("old_driver")
def test_a_machine_without_a_gpu_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpus, "DRIVERS_GPUS", Path("/no/such/folder"))
    assert devices.unused_gpu() is None


@pytest.mark.usefixtures("old_driver")
def test_where_a_gpu_is_required_the_reason_is_in_the_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(devices.REQUIRE_GPU, "1")
    with pytest.raises(SaemakeError, match=r"sees no GPU .*too old.*nvidia-smi"):
        devices.choose(1)
