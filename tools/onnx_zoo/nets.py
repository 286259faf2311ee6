"""CNNs as PyTorch users have them, with random weights: those of torchvision where it is installed, and small own ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def block(a: int, b: int, k: int = 3, act: Callable[[], nn.Module] = nn.ReLU, **options: Any) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(a, b, k, padding=k // 2, bias=False, **options), nn.BatchNorm2d(b), act())


class UNet(nn.Module):
    def __init__(self, bilinear: bool) -> None:
        super().__init__()
        widths = (16, 32, 64, 128)
        self.downs = nn.ModuleList(nn.Sequential(block(a, b), block(b, b)) for a, b in zip((3, *widths[:-1]), widths))
        self.ups, self.joins = nn.ModuleList(), nn.ModuleList()
        for small, wide in zip(widths[-2::-1], widths[:0:-1]):
            self.ups.append(
                nn.Sequential(
                    nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True), nn.Conv2d(wide, small, 1)
                )
                if bilinear
                else nn.ConvTranspose2d(wide, small, 2, 2)
            )
            self.joins.append(nn.Sequential(block(2 * small, small), block(small, small)))
        self.head = nn.Conv2d(widths[0], 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept = []
        for down in self.downs:
            x = down(x if not kept else F.max_pool2d(x, 2))
            kept.append(x)
        for up, join, skip in zip(self.ups, self.joins, kept[-2::-1]):
            x = join(torch.cat([skip, up(x)], 1))
        return self.head(x)


class AutoEncoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 128)
        down = [layer for a, b in pairwise(widths) for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.ReLU())]
        up: list[nn.Module] = []
        for a, b in zip(widths[:0:-1], widths[-2::-1]):
            up += [nn.ConvTranspose2d(a, b, 3, 2, 1, output_padding=1), nn.ReLU()]
        self.net = nn.Sequential(*down, *up[:-1], nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class CRNN(nn.Module):
    """The convolutions of a reader of text lines, and a linear layer for each column."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(
            block(1, 32), nn.MaxPool2d(2), block(32, 64), nn.MaxPool2d(2), block(64, 128), block(128, 128),
            nn.MaxPool2d((2, 1)), block(128, 128), nn.MaxPool2d((2, 1)), nn.Conv2d(128, 128, (2, 1)), nn.ReLU(),
        )  # fmt: skip
        self.head = nn.Linear(128, 37)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.net(x).squeeze(2).permute(0, 2, 1)).log_softmax(2)


class SEBlock(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(a, b, stride=stride), nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Sequential(nn.Linear(b, b // 8), nn.ReLU(), nn.Linear(b // 8, b), nn.Sigmoid())
        self.short = (
            nn.Identity()
            if a == b and stride == 1
            else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.body(x)
        n, c = y.shape[:2]
        return F.relu(y * self.fc(self.pool(y).view(n, c)).view(n, c, 1, 1) + self.short(x))


def se_resnet18() -> nn.Module:
    layers: list[nn.Module] = [block(3, 64, 7, stride=2), nn.MaxPool2d(3, 2, 1)]
    wide = 64
    for width, stride in ((64, 1), (128, 2), (256, 2), (512, 2)):
        layers += [SEBlock(wide, width, stride), SEBlock(width, width, 1)]
        wide = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


class C2f(nn.Module):
    def __init__(self, a: int, b: int) -> None:
        super().__init__()
        half = b // 2
        self.first = block(a, b, 1, nn.SiLU)
        self.inner = nn.Sequential(block(half, half, 3, nn.SiLU), block(half, half, 3, nn.SiLU))
        self.last = block(3 * half, b, 1, nn.SiLU)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.first(x).chunk(2, 1))
        parts.append(parts[-1] + self.inner(parts[-1]))
        return self.last(torch.cat(parts, 1))


class Yolo(nn.Module):
    def __init__(self, decode: bool) -> None:
        super().__init__()
        self.decode = decode
        silu = nn.SiLU
        self.stem = nn.Sequential(block(3, 16, 3, silu, stride=2), block(16, 32, 3, silu, stride=2), C2f(32, 32))
        self.middle = nn.Sequential(block(32, 64, 3, silu, stride=2), C2f(64, 64))
        self.deep = nn.Sequential(block(64, 128, 3, silu, stride=2), C2f(128, 128))
        self.squeeze = block(128, 64, 1, silu)
        self.join = C2f(192, 64)
        self.heads = nn.ModuleList((nn.Conv2d(64, 3 * 9, 1), nn.Conv2d(128, 3 * 9, 1)))

    def forward(self, x: Tensor) -> Any:
        mid = self.middle(self.stem(x))
        deep = self.deep(mid)
        pooled = F.max_pool2d(self.squeeze(deep), 5, 1, 2)
        up = F.interpolate(torch.cat([self.squeeze(deep), pooled], 1), scale_factor=2)
        maps = [head(f) for head, f in zip(self.heads, (self.join(torch.cat([up, mid], 1)), deep))]
        if not self.decode:
            return maps
        found = []
        for stride, y in zip((8, 16), maps):
            n, _, h, w = y.shape
            y = y.view(n, 3, 9, h, w).permute(0, 1, 3, 4, 2).sigmoid()
            rows, columns = torch.meshgrid(torch.arange(h), torch.arange(w), indexing="ij")
            grid = torch.stack((columns, rows), -1).float()[None, None]
            xy = (y[..., :2] * 2 - 0.5 + grid) * stride
            wh = (y[..., 2:4] * 2) ** 2 * stride
            found.append(torch.cat((xy, wh, y[..., 4:]), -1).view(n, -1, 9))
        return torch.cat(found, 1)


class SSD(nn.Module):
    """MobileNetV2 with two feature maps and their heads."""

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.low, self.high = backbone.features[:14], backbone.features[14:]
        self.heads = nn.ModuleList(nn.Conv2d(c, 6 * n, 3, padding=1) for n in (4, 21) for c in (96, 1280))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        low = self.low(x)
        maps = (low, self.high(low), low, self.high(low))
        flat = [head(m).permute(0, 2, 3, 1) for head, m in zip(self.heads, maps)]
        boxes = torch.cat([f.reshape(f.shape[0], -1, 4) for f in flat[:2]], 1)
        return boxes, torch.cat([f.reshape(f.shape[0], -1, 21) for f in flat[2:]], 1).softmax(-1)


def resnet8(classes: int = 10) -> nn.Module:
    """A small ResNet for images of 32 x 32."""
    layers: list[nn.Module] = [block(3, 16)]
    wide = 16
    for width, stride in ((16, 1), (32, 2), (64, 2)):
        layers.append(Residual(wide, width, stride))
        wide = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))


class Residual(nn.Module):
    def __init__(self, a: int, b: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            block(a, b, stride=stride), nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b)
        )
        self.short = (
            nn.Identity()
            if a == b and stride == 1
            else nn.Sequential(nn.Conv2d(a, b, 1, stride, bias=False), nn.BatchNorm2d(b))
        )

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x) + self.short(x))


def tv(name: str, **options: Any) -> nn.Module:
    """A net of torchvision with random weights."""
    register = torch.library.register_fake
    torch.library.register_fake = lambda *_, **__: (
        lambda f: f
    )  # a torchvision for another torch lacks its own operators
    try:
        import torchvision  # noqa: F401
    finally:
        torch.library.register_fake = register
    from torchvision import models

    segmentation = {"deeplabv3_mobilenet_v3_large", "fcn_resnet50", "lraspp_mobilenet_v3_large"}
    owner = models.segmentation if name in segmentation else models
    base = {"weights": None, **({"weights_backbone": None} if name in segmentation else {})}
    return getattr(owner, name)(**{**base, **options})


class Out(nn.Module):
    """Only the entry ``out`` of a segmentation net's result."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)["out"]


NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "alexnet": (lambda: tv("alexnet"), (3, 224, 224)),
    "autoencoder": (AutoEncoder, (3, 64, 64)),
    "convnext_tiny": (lambda: tv("convnext_tiny"), (3, 224, 224)),
    "crnn_front": (CRNN, (1, 32, 128)),
    "deeplab_mnv3": (lambda: Out(tv("deeplabv3_mobilenet_v3_large", num_classes=21)), (3, 224, 224)),
    "densenet121": (lambda: tv("densenet121"), (3, 224, 224)),
    "efficientnet_b0": (lambda: tv("efficientnet_b0"), (3, 224, 224)),
    "efficientnet_v2_s": (lambda: tv("efficientnet_v2_s"), (3, 224, 224)),
    "fcn_resnet50": (lambda: Out(tv("fcn_resnet50", num_classes=21)), (3, 128, 128)),
    "googlenet": (lambda: tv("googlenet", init_weights=False, aux_logits=False), (3, 224, 224)),
    "inception_v3": (lambda: tv("inception_v3", init_weights=False, aux_logits=False), (3, 299, 299)),
    "lraspp_mnv3": (lambda: Out(tv("lraspp_mobilenet_v3_large", num_classes=21)), (3, 224, 224)),
    "mnasnet1_0": (lambda: tv("mnasnet1_0"), (3, 224, 224)),
    "mobilenet_v2": (lambda: tv("mobilenet_v2"), (3, 224, 224)),
    "mobilenet_v3_small": (lambda: tv("mobilenet_v3_small"), (3, 224, 224)),
    "regnet_x_400mf": (lambda: tv("regnet_x_400mf"), (3, 224, 224)),
    "regnet_y_400mf": (lambda: tv("regnet_y_400mf"), (3, 224, 224)),
    "resnet18": (lambda: tv("resnet18"), (3, 224, 224)),
    "resnet50": (lambda: tv("resnet50"), (3, 224, 224)),
    "resnext50": (lambda: tv("resnext50_32x4d"), (3, 224, 224)),
    "se_resnet18": (se_resnet18, (3, 224, 224)),
    "shufflenet_v2": (lambda: tv("shufflenet_v2_x1_0"), (3, 224, 224)),
    "squeezenet1_1": (lambda: tv("squeezenet1_1"), (3, 224, 224)),
    "ssd_mnv2": (lambda: SSD(tv("mobilenet_v2")), (3, 224, 224)),
    "unet_bilinear": (lambda: UNet(True), (3, 128, 128)),
    "unet_convT": (lambda: UNet(False), (3, 128, 128)),
    "vgg16_bn": (lambda: tv("vgg16_bn"), (3, 224, 224)),
    "yolo_decode": (lambda: Yolo(True), (3, 256, 256)),
    "yolo_raw": (lambda: Yolo(False), (3, 256, 256)),
    "resnet8": (resnet8, (3, 32, 32)),
}
