"""What is said where a device is missing or too small."""

import pytest
import torch

from models.devices import DeviceTooSmall, NoSuchDevice, memory_of, resolve_device


def test_an_unknown_device_is_refused_by_name() -> None:
    with pytest.raises(NoSuchDevice, match="expected one of `auto`, `cpu`, `cuda`: `tpu`"):
        resolve_device("tpu")


def test_what_does_not_fit_says_what_to_lower() -> None:
    said = "CUDA out of memory. Tried to allocate 20.00 GiB.\nSee documentation"
    with (
        pytest.raises(DeviceTooSmall, match=r"`cuda:0`.*`batch_size`.*20\.00 GiB\.$"),
        memory_of(torch.device("cuda:0")),
    ):
        raise torch.OutOfMemoryError(said)


@pytest.mark.gpu
def test_a_gpu_that_is_too_small_says_so() -> None:
    device = torch.device("cuda")
    with pytest.raises(DeviceTooSmall, match="does not fit"), memory_of(device):
        torch.empty(1 << 48, dtype=torch.uint8, device=device)
