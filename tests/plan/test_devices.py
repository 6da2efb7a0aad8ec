"""Named devices."""

import pytest
import torch

from smolvlm.errors import ConfigError
from smolvlm.plan.devices import NAMED, PRODUCT_SHARE, named_device


def test_capitals_are_no_matter() -> None:
    assert named_device("h100") is NAMED["H100"]


def test_rates_are_a_share_of_the_peak() -> None:
    device = named_device("A100-80GB")
    assert device.rates_for(torch.bfloat16).product_flops == pytest.approx(312e12 * PRODUCT_SHARE)
    assert device.rates_for(torch.int64) is device.rates_for(torch.float32)
    assert not device.is_cpu


def test_an_unknown_device_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(ConfigError, match=r"--device B9000(.|\n)*H200, H100"):
        named_device("B9000")
