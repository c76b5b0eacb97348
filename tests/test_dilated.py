"""Dilated depthwise convolutions give what torch's give, in both directions."""

from copy import deepcopy

import pytest
import torch
from torch import nn

from salakseg.network.config import NetworkConfig
from salakseg.network.dilated import DilatedDepthwise, quicken
from salakseg.network.model import Segmenter


def pair(kernel: int, dilation: int) -> tuple[nn.Conv2d, nn.Sequential]:
    padding = kernel // 2 * dilation
    conv = nn.Conv2d(6, 6, kernel, padding=padding, dilation=dilation, groups=6, bias=False).double()
    quick = nn.Sequential(deepcopy(conv))
    quicken(quick)
    return conv, quick


def weight_of(network: nn.Sequential) -> torch.Tensor:
    conv = network[0]
    assert isinstance(conv, DilatedDepthwise)
    return conv.weight


@pytest.mark.parametrize("size", [(8, 8), (5, 11), (1, 3)])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (5, 2), (5, 3), (3, 8), (3, 24)])
def test_values_and_gradients_are_those_of_torch(kernel: int, dilation: int, size: tuple[int, int]) -> None:
    torch.manual_seed(kernel * dilation)
    conv, quick = pair(kernel, dilation)
    image = torch.rand(2, 6, *size, dtype=torch.double)
    weight = torch.rand(2, 6, *size, dtype=torch.double)
    answers = []
    for module, parameter in ((conv, conv.weight), (quick, weight_of(quick))):
        asked = image.clone().requires_grad_()
        out = module(asked)
        answers.append((out, *torch.autograd.grad((out * weight).sum(), (asked, parameter))))
    for own, torchs in zip(answers[1], answers[0], strict=True):
        torch.testing.assert_close(own, torchs)


def test_its_own_gradients_are_for_training_alone() -> None:
    _, quick = pair(5, 2)
    image = torch.rand(1, 6, 4, 5, dtype=torch.double, requires_grad=True)
    assert "Depthwise" in quick(image).grad_fn.name()
    assert "Depthwise" not in quick.eval()(image).grad_fn.name()


def test_gradients_are_right_by_finite_differences() -> None:
    _, quick = pair(5, 2)
    assert torch.autograd.gradcheck(quick, torch.rand(1, 6, 4, 5, dtype=torch.double, requires_grad=True))


def test_only_dilated_depthwise_convolutions_change() -> None:
    kept = [
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=False),  # not dilated
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, bias=False),  # not depthwise
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4),  # with a bias
        nn.Conv2d(4, 8, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, stride=2, bias=False),
        nn.Conv2d(4, 4, 3, padding=0, dilation=2, groups=4, bias=False),
    ]
    network = nn.Sequential(*kept)
    quicken(network)
    assert list(network) == kept


def test_a_network_has_them_and_the_same_parameters() -> None:
    network = Segmenter(NetworkConfig(encoder="timm-tf_efficientnet_lite0", encoder_weights="none"), 5)
    found = [name for name, module in network.named_modules() if isinstance(module, DilatedDepthwise)]
    assert len(found) == 8  # five of the encoder's, three of the decoder's pyramid
    assert all(f"{name}.weight" in network.state_dict() for name in found)


def test_half_precision_learns_about_the_same() -> None:
    torch.manual_seed(0)
    conv, quick = pair(5, 2)
    conv, quick = conv.float(), quick.float()
    image = torch.rand(2, 6, 8, 8)
    gradients = []
    for module, parameter in ((conv, conv.weight), (quick, weight_of(quick))):
        with torch.autocast("cpu", torch.bfloat16):
            out = module(image)
        assert out.dtype == torch.bfloat16
        gradients.append(torch.autograd.grad(out.float().square().sum(), parameter)[0])
    assert gradients[1].dtype == torch.float32
    torch.testing.assert_close(gradients[1], gradients[0], rtol=0.03, atol=0.03)
