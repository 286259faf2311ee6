"""Small PyTorch nets, one for each pattern that CNNs contain: each pattern stands between two convolutions."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

C, SIZE = 8, 16


class Between(nn.Module):
    """A convolution, a pattern, and a convolution over what it makes."""

    def __init__(self, pattern: nn.Module | Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, C, 3, padding=1), nn.ReLU())
        self.pattern = pattern if isinstance(pattern, nn.Module) else Do(pattern)
        self.eval()
        with torch.no_grad():
            made = self.pattern(self.first(torch.randn(1, 3, SIZE, SIZE)))
        last = nn.Conv2d(made.shape[1], 4, 1) if made.ndim == 4 else nn.Linear(made.shape[-1], 4)
        self.last = last

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.pattern(self.first(x)))


class Do(nn.Module):
    def __init__(self, function: Callable[..., Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.parts = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.parts)


def conv(a: int = C, b: int = C, k: int = 3, **options: object) -> nn.Conv2d:
    options = {"padding": k // 2, **options}
    return nn.Conv2d(a, b, k, **options)  # type: ignore[arg-type]


class LayerNorm2d(nn.LayerNorm):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


class GRN(nn.Module):
    """Global response normalisation, ConvNeXt V2."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma, self.beta = (nn.Parameter(torch.randn(1, C, 1, 1)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        g = torch.norm(x, p=2, dim=(2, 3), keepdim=True)
        return self.gamma * (x * (g / (g.mean(dim=1, keepdim=True) + 1e-6))) + self.beta + x


class ConvNeXt(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.depth, self.norm = conv(k=7, groups=C), nn.LayerNorm(C)
        self.up, self.down = nn.Linear(C, 4 * C), nn.Linear(4 * C, C)
        self.gamma = nn.Parameter(torch.rand(C))

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        return x + (self.gamma * self.down(F.gelu(self.up(y)))).permute(0, 3, 1, 2)


class SE(nn.Module):
    def __init__(self, gate: nn.Module) -> None:
        super().__init__()
        self.down, self.up, self.gate = conv(C, 4, 1), conv(4, C, 1), gate

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(self.up(F.relu(self.down(F.adaptive_avg_pool2d(x, 1)))))


class CBAM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.mlp, self.spatial = nn.Sequential(conv(C, 4, 1), nn.ReLU(), conv(4, C, 1)), conv(2, 1, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.sigmoid(self.mlp(F.adaptive_avg_pool2d(x, 1)) + self.mlp(F.adaptive_max_pool2d(x, 1)))
        both = torch.cat([x.mean(1, keepdim=True), x.amax(1, keepdim=True)], 1)
        return x * torch.sigmoid(self.spatial(both))


class ECA(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Conv1d(1, 1, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = F.adaptive_avg_pool2d(x, 1).squeeze(-1).transpose(-1, -2)
        return x * torch.sigmoid(self.line(y).transpose(-1, -2).unsqueeze(-1))


class Attention(nn.Module):
    """Self-attention over the pixels, with one or several heads."""

    def __init__(self, heads: int = 1) -> None:
        super().__init__()
        self.q, self.k, self.v, self.heads = conv(k=1), conv(k=1), conv(k=1), heads

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = (f(x).reshape(n, self.heads, c // self.heads, h * w) for f in (self.q, self.k, self.v))
        weights = torch.softmax(q.transpose(-1, -2) @ k / 2.0, -1)
        return x + (v @ weights.transpose(-1, -2)).reshape(n, c, h, w)


class BlurPool(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        line = torch.tensor([1.0, 2.0, 1.0])
        self.register_buffer("kernel", (line[:, None] * line / 16).expand(C, 1, 3, 3).clone())

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), self.kernel, stride=2, groups=C)


class CoordConv(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        line = torch.linspace(-1, 1, SIZE)
        grid = torch.stack(torch.meshgrid(line, line, indexing="ij"))[None]
        return torch.cat([x, grid.expand(x.shape[0], -1, -1, -1)], 1)


class Shuffle(nn.Module):
    def __init__(self, groups: int = 2) -> None:
        super().__init__()
        self.groups = groups

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        return x.view(n, self.groups, c // self.groups, h, w).transpose(1, 2).reshape(n, c, h, w)


class Normal(nn.Module):
    """Preprocessing inside the net."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.rand(1, C, 1, 1))
        self.register_buffer("std", torch.rand(1, C, 1, 1) + 0.5)

    def forward(self, x: Tensor) -> Tensor:
        return (x / 255 - self.mean) / self.std


class BiFPN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.w, self.a, self.b = nn.Parameter(torch.rand(2)), conv(), conv()

    def forward(self, x: Tensor) -> Tensor:
        w = F.relu(self.w)
        w = w / (w.sum() + 1e-4)
        return F.silu(w[0] * self.a(x) + w[1] * self.b(x))


class GeM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(1) * 3)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(x.clamp(min=1e-6).pow(self.p), SIZE).pow(1.0 / self.p)


class SoftArgmax(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        p = torch.softmax(x.flatten(2), -1).view_as(x)
        line = torch.linspace(0, 1, SIZE)
        return torch.stack([(p.sum(2) * line).sum(-1), (p.sum(3) * line).sum(-1)], -1).flatten(1)


def split_attention(x: Tensor, a: nn.Module, fc1: nn.Module, fc2: nn.Module) -> Tensor:
    both = a(x)
    one, two = both.chunk(2, 1)
    w = fc2(F.relu(fc1(F.adaptive_avg_pool2d(one + two, 1)))).view(x.shape[0], 2, C)
    w = torch.softmax(w, 1)
    return one * w[:, 0].view(-1, C, 1, 1) + two * w[:, 1].view(-1, C, 1, 1)


def up(x: Tensor, **options: object) -> Tensor:
    return F.interpolate(x, **options)  # type: ignore[arg-type]


def randomised(net: nn.Module) -> nn.Module:
    """The net with random statistics and parameters of normalisations, as after training."""
    for part in net.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(part.running_mean, 0, 0.3)
            nn.init.uniform_(part.running_var, 0.5, 1.5)
        if isinstance(part, (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)) and part.weight is not None:
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, 0, 0.3)
    return net


def bn(x: Tensor, *parts: nn.Module) -> Tensor:
    for part in parts:
        x = part(x)
    return x


ACTIVATIONS = {
    "relu": F.relu, "relu6": F.relu6, "leaky": lambda x: F.leaky_relu(x, 0.1), "elu": F.elu, "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.5), "silu": F.silu, "hswish": F.hardswish, "hsigmoid": F.hardsigmoid, "mish": F.mish,
    "gelu": F.gelu, "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"), "sigmoid": torch.sigmoid, "tanh": torch.tanh,
    "softplus": F.softplus, "softsign": F.softsign, "hardtanh": F.hardtanh, "hardshrink": F.hardshrink,
    "softshrink": F.softshrink, "tanhshrink": F.tanhshrink, "threshold": lambda x: F.threshold(x, 0.2, 0.0),
    "threshold_value": lambda x: F.threshold(x, 0.2, 5.0), "logsigmoid": F.logsigmoid, "exp": lambda x: torch.exp(-x),
    "log": lambda x: torch.log(x.abs() + 1), "sqrt": lambda x: torch.sqrt(x.abs()), "abs": torch.abs,
    "square": lambda x: x**2, "rsqrt": lambda x: torch.rsqrt(x * x + 1), "clamp": lambda x: x.clamp(-0.3, 0.4),
    "sign": lambda x: x * torch.sign(x - 0.1), "sin": torch.sin, "swish_beta": lambda x: x * torch.sigmoid(1.702 * x),
    "minimum": lambda x: torch.minimum(x, 1 - x), "maximum": lambda x: torch.maximum(x, 1 - x),
}  # fmt: skip

PATTERNS: dict[str, Callable[[], nn.Module | Callable[[Tensor], Tensor]]] = {
    **{f"act_{name}": (lambda f=f: lambda x: f(x - 0.3)) for name, f in ACTIVATIONS.items()},
    "act_prelu": lambda: nn.PReLU(C),
    "act_prelu_one": lambda: nn.PReLU(),
    "act_glu": lambda: lambda x: F.glu(x, 1),
    "act_maxout": lambda: lambda x: x.view(x.shape[0], C // 2, 2, SIZE, SIZE).amax(2),
    "norm_batch": lambda: Do(bn, conv(bias=False), nn.BatchNorm2d(C), nn.ReLU()),
    "norm_batch_alone": lambda: Do(bn, nn.BatchNorm2d(C), nn.ReLU()),
    "norm_batch_plain": lambda: Do(bn, nn.BatchNorm2d(C, affine=False), nn.ReLU()),
    "norm_batch_1d": lambda: Do(bn, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.BatchNorm1d(C), nn.ReLU()),
    "norm_layer_channels": lambda: LayerNorm2d(C),
    "norm_layer_all": lambda: nn.LayerNorm([C, SIZE, SIZE]),
    "norm_layer_plain": lambda: LayerNorm2d(C, elementwise_affine=False),
    "norm_layer_vector": lambda: Do(bn, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.LayerNorm(C)),
    "norm_group": lambda: nn.GroupNorm(2, C),
    "norm_group_plain": lambda: nn.GroupNorm(4, C, affine=False),
    "norm_group_one": lambda: nn.GroupNorm(1, C),
    "norm_instance": lambda: nn.InstanceNorm2d(C),
    "norm_instance_affine": lambda: nn.InstanceNorm2d(C, affine=True),
    "norm_local_response": lambda: nn.LocalResponseNorm(5, alpha=0.01),
    "norm_weight": lambda: nn.utils.weight_norm(conv()),
    "norm_l2_map": lambda: lambda x: F.normalize(x, dim=1),
    "norm_l2_vector": lambda: Do(lambda x: F.normalize(x.mean((2, 3)), dim=1)),
    "norm_l1_vector": lambda: Do(lambda x: F.normalize(x.mean((2, 3)), p=1, dim=1)),
    "norm_l2_all": lambda: Do(lambda x: F.normalize(x.flatten(1), dim=1)),
    "norm_by_sum": lambda: Do(lambda x: (lambda v: v / v.sum(1, keepdim=True))(x.mean((2, 3)) + 1)),
    "norm_centred": lambda: Do(lambda x: (lambda v: v - v.mean(1, keepdim=True))(x.mean((2, 3)))),
    "norm_standard": lambda: Do(lambda x: (x - x.mean((2, 3), keepdim=True)) / (x.std((2, 3), keepdim=True) + 1e-5)),
    "norm_rms": lambda: Do(lambda x: x * torch.rsqrt(x.pow(2).mean(1, keepdim=True) + 1e-6)),
    "norm_grn": lambda: GRN(),
    "head_cosine": lambda: Do(lambda x, l: F.normalize(x.mean((2, 3)), dim=1) @ F.normalize(l.weight, dim=1).t(),
                              nn.Linear(C, 6)),
    "block_convnext": lambda: ConvNeXt(),
    "block_se_sigmoid": lambda: SE(nn.Sigmoid()),
    "block_se_hard": lambda: SE(nn.Hardsigmoid()),
    "block_cbam": lambda: CBAM(),
    "block_eca": lambda: ECA(),
    "block_split_attention": lambda: Do(split_attention, conv(C, 2 * C), conv(C, 4, 1), conv(4, 2 * C, 1)),
    "block_attention": lambda: Attention(),
    "block_attention_heads": lambda: Attention(2),
    "block_bifpn": lambda: BiFPN(),
    "block_ghost": lambda: Do(lambda x, a, b: torch.cat([a(x), b(a(x))], 1), conv(C, 4, 1), conv(4, 4, groups=4)),
    "block_dense": lambda: Do(lambda x, a, b: torch.cat([x, a(x), b(torch.cat([x, a(x)], 1))], 1), conv(C, 4),
                              conv(C + 4, 4)),
    "block_residual": lambda: Do(lambda x, a, b: F.relu(x + b(F.relu(a(x)))), conv(), conv()),
    "block_preact": lambda: Do(lambda x, n, a: x + a(F.relu(n(x))), nn.BatchNorm2d(C), conv()),
    "block_inverted": lambda: Do(lambda x, a, b, c: x + c(F.relu6(b(F.relu6(a(x))))), conv(C, 24, 1),
                                 conv(24, 24, groups=24), conv(24, C, 1)),
    "block_repvgg": lambda: Do(lambda x, a, b, n: F.relu(a(x) + b(x) + n(x)), conv(), conv(k=1), nn.BatchNorm2d(C)),
    "block_csp": lambda: Do(lambda x, a: (lambda p: torch.cat([p[0], a(p[1])], 1))(x.chunk(2, 1)), conv(4, 4)),
    "block_shuffle": lambda: Shuffle(),
    "block_shuffle_4": lambda: Shuffle(4),
    "block_sppf": lambda: Do(lambda x: torch.cat([x, F.max_pool2d(x, 5, 1, 2), F.max_pool2d(x, 9, 1, 4)], 1)),
    "block_aspp": lambda: Do(lambda x, a, b: torch.cat([a(x), b(x), up(F.adaptive_avg_pool2d(x, 1), size=(SIZE, SIZE),
                             mode="bilinear", align_corners=False)], 1), conv(dilation=2, padding=2), conv(k=1)),
    "conv_grouped": lambda: conv(groups=4),
    "conv_depthwise": lambda: conv(groups=C),
    "conv_dilated": lambda: conv(dilation=3, padding=3),
    "conv_asymmetric": lambda: nn.Conv2d(C, C, (1, 5), padding=(0, 2)),
    "conv_stride": lambda: conv(stride=2),
    "conv_same": lambda: nn.Conv2d(C, C, 4, padding="same"),
    "conv_circular": lambda: nn.Conv2d(C, C, 3, padding=1, padding_mode="circular"),
    "conv_reflect": lambda: nn.Conv2d(C, C, 3, padding=1, padding_mode="reflect"),
    "conv_transposed": lambda: nn.ConvTranspose2d(C, C, 2, 2),
    "conv_transposed_output_padding": lambda: nn.ConvTranspose2d(C, C, 3, 2, 1, output_padding=1),
    "conv_1d": lambda: Do(lambda x, a: a(x.flatten(2)).view_as(x), nn.Conv1d(C, C, 3, padding=1)),
    "up_nearest": lambda: lambda x: up(x, scale_factor=2),
    "up_nearest_size": lambda: lambda x: up(x, size=(24, 20)),
    "up_bilinear": lambda: lambda x: up(x, scale_factor=2, mode="bilinear", align_corners=False),
    "up_bilinear_corners": lambda: lambda x: up(x, scale_factor=2, mode="bilinear", align_corners=True),
    "up_bilinear_size": lambda: lambda x: up(x, size=(24, 24), mode="bilinear", align_corners=False),
    "up_bicubic": lambda: lambda x: up(x, scale_factor=2, mode="bicubic", align_corners=False),
    "down_bilinear": lambda: lambda x: up(x, scale_factor=0.5, mode="bilinear", align_corners=False),
    "down_nearest": lambda: lambda x: up(x, scale_factor=0.5),
    "pixel_shuffle": lambda: lambda x: F.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda: lambda x: F.pixel_unshuffle(x, 2),
    "focus": lambda: lambda x: torch.cat([x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]], 1),
    "flip_width": lambda: lambda x: torch.flip(x, [3]),
    "flip_both": lambda: lambda x: x + torch.flip(x, [2, 3]),
    "flip_channels": lambda: lambda x: torch.flip(x, [1]),
    "channels_gather": lambda: lambda x: x[:, [2, 1, 0, 5, 7]],
    "channels_step": lambda: lambda x: x[:, ::2] - x[:, 1::2],
    "channels_part": lambda: lambda x: x[:, 1:5],
    "channels_uneven": lambda: Do(lambda x: torch.cat(list(reversed(torch.split(x, [1, 5, 2], 1))), 1)),
    "crop": lambda: lambda x: x[..., 2:-2, 3:-1],
    "pad_zero": lambda: lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad_constant": lambda: lambda x: F.pad(x, (1, 2, 0, 1), value=0.5),
    "pad_reflect": lambda: lambda x: F.pad(x, (1, 2, 2, 1), mode="reflect"),
    "pad_replicate": lambda: lambda x: F.pad(x, (1, 2, 2, 1), mode="replicate"),
    "pad_channels": lambda: lambda x: F.pad(x, (0, 0, 0, 0, 2, 1)),
    "pad_shortcut": lambda: Do(lambda x, a: a(x) + F.pad(x[..., ::2, ::2], (0, 0, 0, 0, 2, 2)), conv(C, C + 4, stride=2)),
    "pad_blurpool": lambda: BlurPool(),
    "pool_max": lambda: lambda x: F.max_pool2d(x, 3, 2, 1),
    "pool_max_ceil": lambda: lambda x: F.max_pool2d(x, 3, 2, ceil_mode=True),
    "pool_average": lambda: lambda x: F.avg_pool2d(x, 3, 2, 1),
    "pool_average_inside": lambda: lambda x: F.avg_pool2d(x, 3, 1, 1, count_include_pad=False),
    "pool_global_max": lambda: lambda x: F.adaptive_max_pool2d(x, 1),
    "pool_adaptive": lambda: lambda x: F.adaptive_avg_pool2d(x, 4),
    "pool_lp": lambda: lambda x: F.lp_pool2d(x, 2, 2),
    "pool_gem": lambda: GeM(),
    "mean_height": lambda: lambda x: x.mean(2),
    "mean_height_kept": lambda: lambda x: x * x.mean(2, keepdim=True),
    "mean_subtracted": lambda: lambda x: x - x.mean((2, 3), keepdim=True),
    "sum_channels": lambda: lambda x: x + x.sum(1, keepdim=True),
    "where": lambda: lambda x: torch.where(x > 0.2, x, 0.1 * x),
    "where_equal": lambda: lambda x: torch.where(x == 0, torch.ones_like(x), x),
    "masked": lambda: lambda x: x * (x >= 0.3) + (x < 0.1).float(),
    "masked_fill": lambda: lambda x: x.masked_fill(x < 0.2, -1.0),
    "coordconv": lambda: CoordConv(),
    "add_position": lambda: Do(lambda x, p: x + p.weight.view(1, C, SIZE, SIZE), nn.Linear(SIZE * SIZE, C)),
    "preprocess": lambda: Normal(),
    "soft_argmax": lambda: SoftArgmax(),
    "roll": lambda: lambda x: torch.roll(x, 3, 3),
    "gram": lambda: lambda x: (x.flatten(2) @ x.flatten(2).transpose(1, 2)).unsqueeze(1) / 256,
    "einsum": lambda: Do(lambda x, a: torch.einsum("nchw,nkhw->nck", x, torch.softmax(a(x), 1)).flatten(1), conv(C, 3, 1)),
    "tile": lambda: lambda x: x.mean((2, 3), keepdim=True).expand(-1, -1, SIZE, SIZE) + x,
    "repeat": lambda: lambda x: x.repeat(1, 2, 1, 1),
    "dropout": lambda: Do(bn, nn.Dropout(0.5), conv()),
    "dropout2d": lambda: Do(bn, nn.Dropout2d(0.2), conv()),
    "unfold": lambda: lambda x: F.unfold(x, 2, stride=2).view(x.shape[0], 4 * C, SIZE // 2, SIZE // 2),
    "cumsum": lambda: lambda x: torch.cumsum(x, 3) / 16,
    "topk": lambda: Do(lambda x: torch.topk(x.flatten(2), 5, 2).values.flatten(1)),
    "lstm": lambda: Do(lambda x, r: r(x.mean(2).transpose(1, 2))[0][:, -1], nn.LSTM(C, 6, batch_first=True)),
    "gru": lambda: Do(lambda x, r: r(x.mean(2).transpose(1, 2))[0][:, -1], nn.GRU(C, 6, batch_first=True)),
}  # fmt: skip


def make(name: str) -> tuple[nn.Module, Tensor]:
    """The net of a pattern, in evaluation mode, and an example of its input."""
    torch.manual_seed(0)
    return randomised(Between(PATTERNS[name]())).eval(), torch.randn(1, 3, SIZE, SIZE)
