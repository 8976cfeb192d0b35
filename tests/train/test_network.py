"""A network to train that begins with the body of one for another scale."""

import pytest
import torch
import torch.nn.functional as F

from dvmsr.config import DVMSRConfig
from dvmsr.errors import UsageError
from dvmsr.model import DVMSR
from dvmsr.train.network import rescaled


@pytest.mark.parametrize("old", [2, 3, 4])
@pytest.mark.parametrize("new", [2, 3, 4])
def test_a_rescaled_network_makes_the_same_picture_averaged_over_areas(old: int, new: int) -> None:
    torch.manual_seed(old)
    network = DVMSR(DVMSRConfig(channels=6, depths=(1,), scale=old)).double()
    image = torch.rand(1, 3, 5, 4, dtype=torch.float64)
    with torch.inference_mode():
        expected = F.adaptive_avg_pool2d(
            F.interpolate(network(image), scale_factor=new, mode="nearest"), (5 * new, 4 * new)
        )
        torch.testing.assert_close(
            rescaled(network, new).double()(image), expected, rtol=1e-6, atol=1e-6
        )


def test_shuffles_of_features_begin_anew() -> None:
    network = DVMSR(DVMSRConfig(channels=6, depths=(1,), upsampler="pixelshuffle"))
    before = network.state_dict()
    other = rescaled(network, 3)
    assert other.config.scale == 3
    for name, tensor in other.state_dict().items():
        if not name.startswith("upsample."):
            torch.testing.assert_close(tensor, before[name], rtol=0, atol=0)
    assert other(torch.rand(1, 3, 4, 4)).shape == (1, 3, 12, 12)


def test_what_no_network_upscales_by() -> None:
    with pytest.raises(UsageError, match="scale must be one of"):
        rescaled(DVMSR(DVMSRConfig(channels=6, depths=(1,))), 5)
