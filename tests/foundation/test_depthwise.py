"""The rewritten depthwise convolution against torch's own: the same answers and the same gradients."""

import pytest
import timm
import torch
from timm.layers import Conv2dSame
from torch import nn

from core_models.foundation.depthwise import DepthwiseConv2d, use_fast_depthwise

CHANNELS = 6


@pytest.mark.parametrize("shape", [(16, 16), (15, 15), (7, 7), (9, 14), (16, 11)], ids=str)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("same", [False, True], ids=["symmetric", "tensorflow"])
def test_equals_torch_forward_and_backward(same, kernel, stride, shape):
    torch.manual_seed(0)
    kind = Conv2dSame if same else nn.Conv2d
    padding = 0 if same else kernel // 2
    plain = kind(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, bias=False).double()
    fast = nn.Sequential(kind(CHANNELS, CHANNELS, kernel, stride, padding, groups=CHANNELS, bias=False)).double()
    fast[0].load_state_dict(plain.state_dict())
    use_fast_depthwise(fast)
    assert type(fast[0]) is DepthwiseConv2d

    x = torch.randn(2, CHANNELS, *shape, dtype=torch.double)
    one, two = x.clone().requires_grad_(), x.clone().requires_grad_()
    first, second = plain(one), fast(two)
    assert torch.allclose(first, second)
    back = torch.randn_like(first)
    first.backward(back)
    second.backward(back)
    assert torch.allclose(one.grad, two.grad)
    assert torch.allclose(plain.weight.grad, fast[0].weight.grad)
    with torch.no_grad():
        assert torch.allclose(plain(x), fast(x))


def test_gradients_are_those_of_finite_differences():
    torch.manual_seed(1)
    layer = DepthwiseConv2d(2, 2, 5, 2, 2, groups=2, bias=False).double()
    layer.same = True
    assert torch.autograd.gradcheck(layer, torch.randn(1, 2, 7, 6, dtype=torch.double, requires_grad=True))


def test_a_frozen_kernel_still_passes_the_gradient_on():
    layer = DepthwiseConv2d(2, 2, 3, 1, 1, groups=2, bias=False).requires_grad_(False)
    x = torch.randn(1, 2, 8, 8, requires_grad=True)
    layer(x).sum().backward()
    assert x.grad is not None
    assert layer.weight.grad is None


def test_bfloat16_under_autocast_is_near_float32():
    torch.manual_seed(2)
    layer = DepthwiseConv2d(8, 8, 5, 2, 2, groups=8, bias=False)
    x = torch.randn(2, 8, 33, 33)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        rough = layer(x)
    assert rough.dtype == torch.bfloat16
    assert torch.allclose(exact, rough.float(), atol=0.05)
    rough.float().sum().backward()
    assert torch.isfinite(layer.weight.grad).all()


def test_the_whole_network_is_unchanged_and_keeps_its_names():
    torch.manual_seed(3)
    net = timm.create_model("tf_efficientnet_lite0", in_chans=1).eval()
    x = torch.randn(1, 1, 64, 96)
    names = list(net.state_dict())
    with torch.no_grad():
        before = net.forward_features(x)
        use_fast_depthwise(net)
        assert torch.allclose(before, net.forward_features(x), atol=1e-4)
    assert list(net.state_dict()) == names
    assert sum(isinstance(m, DepthwiseConv2d) for m in net.modules()) == 16


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv2d(4, 4, 3, padding=1),
        nn.Conv2d(4, 4, 3, padding=1, groups=4, bias=True),
        nn.Conv2d(4, 4, 3, padding=2, dilation=2, groups=4, bias=False),
        nn.Conv2d(4, 4, 7, padding=3, groups=4, bias=False),
        nn.Conv2d(1, 1, 3, padding=1, bias=False),
    ],
    ids=["full", "bias", "dilated", "7x7", "one channel"],
)
def test_other_convolutions_are_left_alone(layer):
    use_fast_depthwise(nn.Sequential(layer))
    assert type(layer) is nn.Conv2d
