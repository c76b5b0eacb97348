"""Dilated depthwise convolutions that learn quickly on a CPU.

torch's backward pass of these takes 25 to 60 times as long as the forward pass on a CPU, which is a fifth of a training
step of the mobile encoders. Axes: B image, C channel, H row, W column.
"""

from typing import Any, TypeGuard, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional


class DilatedDepthwise(nn.Conv2d):
    """A depthwise convolution of stride 1 that keeps the size; the same function and parameter as `nn.Conv2d`.

    While it is trained on a CPU its gradients are computed in another way; all else is left to torch.

    Args:
        weight_C1KK: Its weight, which stays the same object.
        dilation: Distance of the pixels that neighbouring weights meet.
    """

    def __init__(self, weight_C1KK: nn.Parameter, dilation: int) -> None:
        channels, kernel = weight_C1KK.shape[0], weight_C1KK.shape[-1]
        padding = kernel // 2 * dilation
        with torch.device("meta"):  # without drawing weights that nobody needs
            super().__init__(
                channels, channels, kernel, padding=padding, dilation=dilation, groups=channels, bias=False
            )
        self.weight = weight_C1KK

    def forward(self, input: Tensor) -> Tensor:
        """Maps [B, C, H, W] of any float type to the same shape."""
        # A compiler makes its own backward pass, and would be cut in two by ours
        if not self.training or input.device.type != "cpu" or torch.compiler.is_compiling():
            return super().forward(input)
        if self.dilation[0] >= max(input.shape[-2:]):  # every weight but the middle one looks past the border
            middle = self.kernel_size[0] // 2
            return input * self.weight[:, :, middle, middle].view(1, -1, 1, 1)
        return cast(Tensor, _Depthwise.apply(input, self.weight, self.dilation[0]))


def quicken(network: nn.Module) -> None:
    """Replaces the dilated depthwise convolutions of a network in place; the parameters stay the same objects."""
    for module in list(network.modules()):
        for name, child in module.named_children():
            if _is_dilated_depthwise(child):
                weight = cast(nn.Parameter, child.weight)
                setattr(module, name, DilatedDepthwise(weight, child.dilation[0]).train(child.training))


def _is_dilated_depthwise(module: nn.Module) -> TypeGuard[nn.Conv2d]:
    if type(module) is not nn.Conv2d:
        return False
    kernel, dilation = module.kernel_size[0], module.dilation[0]
    return (
        module.groups == module.in_channels == module.out_channels
        and module.bias is None
        and module.kernel_size == (kernel, kernel)
        and kernel % 2 == 1
        and module.stride == (1, 1)
        and dilation > 1
        and module.dilation == (dilation, dilation)
        and module.padding == (kernel // 2 * dilation,) * 2
        and module.padding_mode == "zeros"
    )


class _Depthwise(torch.autograd.Function):
    """The convolution with its gradients: that of the input is a convolution, that of each weight a sum of products."""

    @staticmethod
    @torch.amp.custom_fwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def forward(ctx: Any, input_BCHW: Tensor, weight_C1KK: Tensor, dilation: int) -> Tensor:  # noqa: ANN401
        ctx.save_for_backward(input_BCHW, weight_C1KK)
        ctx.dilation = dilation
        return _convolve(input_BCHW, weight_C1KK, dilation)

    @staticmethod
    @once_differentiable
    @torch.amp.custom_bwd(device_type="cpu")  # type: ignore[untyped-decorator]
    def backward(ctx: Any, *grad_outputs: Any) -> Any:  # type: ignore[override]  # noqa: ANN401
        input_BCHW, weight_C1KK = ctx.saved_tensors
        gradient_BCHW = grad_outputs[0].contiguous(memory_format=torch.channels_last)
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _convolve(gradient_BCHW, weight_C1KK.flip(2, 3), ctx.dilation)
        if ctx.needs_input_grad[1]:
            of_weight = _gradient_of_weight(input_BCHW, gradient_BCHW, weight_C1KK, ctx.dilation)
        return of_input, of_weight, None


def _convolve(input_BCHW: Tensor, weight_C1KK: Tensor, dilation: int) -> Tensor:
    padding = weight_C1KK.shape[-1] // 2 * dilation
    return functional.conv2d(input_BCHW, weight_C1KK, padding=padding, dilation=dilation, groups=weight_C1KK.shape[0])


def _gradient_of_weight(input_BCHW: Tensor, gradient_BCHW: Tensor, weight_C1KK: Tensor, dilation: int) -> Tensor:
    height, width = input_BCHW.shape[-2:]
    kernel = weight_C1KK.shape[-1]
    input_BHWC, gradient_BHWC = input_BCHW.permute(0, 2, 3, 1), gradient_BCHW.permute(0, 2, 3, 1)
    out_KKC = weight_C1KK.new_zeros(kernel, kernel, weight_C1KK.shape[0])
    for row in range(kernel):
        for column in range(kernel):
            down, right = (row - kernel // 2) * dilation, (column - kernel // 2) * dilation
            if abs(down) < height and abs(right) < width:
                seen = input_BHWC[:, _overlap(down, height), _overlap(right, width)]
                met = gradient_BHWC[:, _overlap(-down, height), _overlap(-right, width)]
                out_KKC[row, column] = (seen * met).sum(dim=(0, 1, 2))
    return out_KKC.permute(2, 0, 1).unsqueeze(1)


def _overlap(shift: int, length: int) -> slice:
    return slice(max(0, shift), min(length, length + shift))
