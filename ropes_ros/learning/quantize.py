"""A network whose weights are nested integers: layers, slicing with gradients, ranges of activations.

    net = QuantisedNet.of(load_net(content))      # batch normalisation folded, scales chosen
    net.serve(2)                                  # every layer's weights as their 2 most significant bits
    net.serve({"base.hidden.1": 2, "base.stem.3": 4})   # by layer; what is not named has 8 bits

One set of weights and of scales serves all precisions (`ropes_ros.nested` has the arithmetic). What is rounded passes
its gradient straight through (Bengio et al., arXiv 1308.3432). With 8 bits activations are integers as well, with the
zero point and the scale that their calibrated range gives (Jacob et al., arXiv 1712.05877, sec. 2.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from ropes_ros.errors import TrainingError
from ropes_ros.learning import networks
from ropes_ros.learning.glimpse import GlimpseNet
from ropes_ros.learning.networks import BlurPool, Prediction
from ropes_ros.nested import WIDTHS, ZERO, digits_a_byte, values_of

EDGES, CONVOLUTIONS = "edges", "convolutions"
LEAST = {EDGES: 8, CONVOLUTIONS: 8}
"""Bits that the first and the last layers, and the convolutions between, have at least in every precision: they hold an
eighth of the weights of our networks. As published, too, only the large linear layers are sliced (Nair et al., arXiv
2502.06786, sec. 4: those of the feed-forward blocks)."""
FEW_CHANNELS = 8
"""Channels of a map below which a convolution meets floats: runtimes take longer for such a one in integers."""
FRACTIONS = torch.linspace(0.1, 1.0, 37)
"""Scales that are tried, as shares of what the largest weight asks for."""

Precision = int | Mapping[str, int]
"""Bits of all weights, or of those of the layers that are named, the others having 8."""


def rounded(values: Tensor) -> Tensor:
    """Rounded to whole numbers, halves up, with the gradient of the values themselves."""
    return values + ((values + 0.5).floor() - values).detach()


def sliced(weight: Tensor, scale: Tensor, bits: int, *, nested: bool = True, extra: bool = False) -> Tensor:
    """Weights as integers of so many bits times a scale, with gradients for both.

    Args:
        weight: float [O, ...].
        scale: Of the code of 8 bits, float [O].
        bits: 2 to 8.
        nested: Slice the code of 8 bits; False rounds once, to integers of `bits` bits whose unit is that of the slice.
        extra: See `ropes_ros.nested`.

    Returns:
        float of the weight's shape.
    """
    unit = scale.reshape(-1, *[1] * (weight.ndim - 1))
    step = float(1 << (8 - bits))
    half = 1 << (bits - 1)
    most = half - 1 + int(extra and bits < 8)
    codes = weight / unit
    if nested or bits == 8:
        codes = rounded(codes).clamp(-ZERO, ZERO - 1)
    return rounded(codes / step).clamp(-half, most) * (step * unit) if bits < 8 else codes * unit


def best_scale(weight: Tensor, widths: Mapping[int, float], *, extra: bool = False) -> Tensor:
    """The scale of each output channel with the least weighted square error over precisions, float [O].

    Args:
        weight: float [O, ...].
        widths: Weight of each number of bits.
        extra: See `ropes_ros.nested`.
    """
    flat = weight.detach().flatten(1)
    largest = flat.abs().amax(dim=1).clamp(min=1e-8) / (ZERO - 1)
    error = torch.stack(
        [
            torch.stack(
                [
                    share * (sliced(flat, largest * float(part), bits, extra=extra) - flat).square().sum(dim=1)
                    for bits, share in widths.items()
                ]
            ).sum(dim=0)
            for part in FRACTIONS
        ]
    )
    return largest * FRACTIONS[error.argmin(dim=0)]


class ActivationRange(nn.Module):
    """Activations as integers of 8 bits, where they are served so.

    Attributes:
        active: Whether they are so.
        watching: Whether the range is widened to what passes, which is let through as it is.
        scale, zero: Of the integers 0..255.
    """

    def __init__(self, low: float = 0.0, high: float = 0.0) -> None:
        super().__init__()
        self.active = self.watching = False
        self.scale, self.zero = 1.0, 0
        self.low, self.high = low, high
        self.settle()

    def settle(self) -> None:
        """Take scale and zero point from the range; 0 is always a whole number of units."""
        low, high = min(self.low, 0.0), max(self.high, 0.0, self.low + 1e-6)
        self.scale = (high - low) / 255.0
        self.zero = round(-low / self.scale)

    def get_extra_state(self) -> Tensor:
        """The range, for the state dict, float [2]."""
        return torch.tensor([self.low, self.high])

    def set_extra_state(self, state: Tensor) -> None:
        """The inverse."""
        self.low, self.high = state.tolist()
        self.settle()

    def forward(self, values: Tensor) -> Tensor:
        """Values of any shape, as they are or as the nearest integers' values."""
        if self.watching:
            self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        if self.watching or not self.active:
            return values
        whole = values if values.dtype == torch.float32 else values.float()
        return torch.fake_quantize_per_tensor_affine(whole, self.scale, self.zero, 0, 255)


class RangedReLU(nn.ReLU):
    """ReLU whose output is the next layer's integers, so that statistics are taken of these too."""

    def __init__(self) -> None:
        super().__init__()
        self.range = ActivationRange()

    def forward(self, values: Tensor) -> Tensor:
        """See ReLU."""
        ranged: Tensor = self.range(F.relu(values))
        return ranged


class _Layer(nn.Module):
    """What quantised layers share: scales, and how many bits they are served with.

    Attributes:
        bits: 0 for the weights as they are.
        nested, extra: See `sliced`.
    """

    weight: Any
    log_scale: nn.Parameter

    def _begin(self, outputs: int) -> None:
        self.log_scale = nn.Parameter(torch.zeros(outputs))
        self.range = ActivationRange()
        self.bits, self.nested, self.extra = 8, True, False

    def served(self) -> Tensor:
        """The weights as they are served."""
        weight: Tensor = self.weight
        if self.bits == 0:
            return weight
        return sliced(weight, self.log_scale.exp(), self.bits, nested=self.nested, extra=self.extra)

    @torch.no_grad()
    def codes(self) -> Tensor:
        """Codes of 8 bits, uint8 of the weights' shape; those of weights that were rounded once are what they became.

        For weights that were trained at a threshold are rounded twice to another value than once.
        """
        unit = self.log_scale.exp().reshape(-1, *[1] * (self.weight.ndim - 1))
        if not self.nested and 0 < self.bits < 8:
            return (rounded(self.served() / unit) + ZERO).to(torch.uint8)
        return (rounded(self.weight / unit).clamp(-ZERO, ZERO - 1) + ZERO).to(torch.uint8)


class QuantisedConv2d(nn.Conv2d, _Layer):
    """A convolution with nested integer weights."""

    @classmethod
    def of(cls, layer: nn.Conv2d) -> QuantisedConv2d:
        """With the weights of another one, and a bias."""
        made = cls(
            layer.in_channels,
            layer.out_channels,
            cast(tuple[int, int], layer.kernel_size),
            stride=cast(tuple[int, int], layer.stride),
            padding=cast(tuple[int, int], layer.padding),
        )
        made._begin(layer.out_channels)
        _copy(layer, made)
        return made

    def forward(self, maps: Tensor) -> Tensor:
        """See Conv2d."""
        return F.conv2d(self.range(maps), self.served(), self.bias, self.stride, self.padding)


class QuantisedLinear(nn.Linear, _Layer):
    """A linear layer with nested integer weights."""

    @classmethod
    def of(cls, layer: nn.Linear, columns: slice = slice(None)) -> QuantisedLinear:
        """With the weights of some inputs of another one."""
        weight = layer.weight.detach()[:, columns]
        made = cls(weight.shape[1], weight.shape[0])
        made._begin(weight.shape[0])
        with torch.no_grad():
            made.weight.copy_(weight)
            made.bias.copy_(layer.bias)
        return made

    def forward(self, values: Tensor) -> Tensor:
        """See Linear."""
        return F.linear(self.range(values), self.served(), self.bias)


class GuessedLinear(nn.Module):
    """A linear layer of maps and a guess, which keeps a unit of its own: one unit for both would round the guess."""

    def __init__(self, maps: QuantisedLinear, guess: QuantisedLinear) -> None:
        super().__init__()
        self.maps, self.guess = maps, guess
        self.split = maps.in_features
        with torch.no_grad():
            self.guess.bias.zero_()

    def forward(self, values: Tensor) -> Tensor:
        """float [N, maps + guess] to float [N, outputs]."""
        found: Tensor = self.maps(values[:, : self.split]) + self.guess(values[:, self.split :])
        return found


def parts_of(net: Any) -> tuple[Any, ...]:
    """The networks of a cascade, or the only one."""
    return (net.base, net.look) if hasattr(net, "look") else (net,)


class QuantisedNet(nn.Module):
    """A network with nested integer weights, of which one precision is served at a time.

    Args:
        architecture: As `architecture` gives it.

    Raises:
        TrainingError: The network is of a kind that is not made of maps and of what reads them, or it is unknown.
    """

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        super().__init__()
        self._architecture = dict(architecture)
        inner: Any = networks.build(architecture["inner"])
        if not all(hasattr(part, "read") for part in parts_of(inner)):
            raise TrainingError(
                f"a network of kind {architecture['inner']['kind']!r} cannot have integer weights: train one by the "
                "levels or by the commands (`ropes train` without --task, --constraint and --method)"
            )
        self.inner = inner
        self.image_size: tuple[int, int] = inner.image_size
        self.joints: int = inner.joints
        self.sees_region: bool = getattr(inner, "sees_region", False)
        _fold(self.inner)
        _replace(self.inner)
        for layer in self.layers().values():
            layer.extra = isinstance(layer, QuantisedLinear) and bool(architecture["extra"])
        self.serve(8)

    @classmethod
    def of(cls, net: Any, *, extra: bool = False, least: Mapping[str, int] = LEAST) -> QuantisedNet:
        """A trained network with its weights and scales that suit several precisions.

        Args:
            net: The network, of any kind that has an architecture; it stays as it is.
            extra: See `ropes_ros.nested`.
            least: Bits that layers of each kind have at least.

        Raises:
            TrainingError: The architecture is unknown.
        """
        made = cls({"kind": "quantised", "inner": net.architecture(), "extra": extra, "least": dict(least)})
        inner: Any = networks.build(net.architecture())
        inner.load_state_dict(net.state_dict())
        _fold(inner)
        _replace(inner)
        made.inner.load_state_dict(inner.state_dict())
        with torch.no_grad():
            for name, layer in made.layers().items():
                if isinstance(layer, QuantisedConv2d):
                    layer.log_scale.copy_(made._scale(name, layer, dict.fromkeys(WIDTHS, 1.0)))
        made.choose_scales(dict.fromkeys(WIDTHS, 1.0), extra=extra)
        return made

    @torch.no_grad()
    def choose_scales(self, widths: Mapping[int, float], *, extra: bool) -> None:
        """Scales of linear layers with the least error over the precisions that are wanted.

        Args:
            widths: Weight of each number of bits.
            extra: Of these layers, see `ropes_ros.nested`.
        """
        self._architecture["extra"] = extra
        for name, layer in self.layers().items():
            if isinstance(layer, QuantisedLinear):
                layer.extra = extra
                layer.log_scale.copy_(self._scale(name, layer, widths))

    def _scale(self, name: str, layer: QuantisedConv2d | QuantisedLinear, widths: Mapping[int, float]) -> Tensor:
        """Logarithm of the scale of the least error over precisions, float [O]."""
        served: dict[int, float] = {}
        for bits, share in widths.items():
            fewest = max(bits, self._least(name, layer))
            # a bit less doubles errors, and what is coarse would decide alone
            served[fewest] = served.get(fewest, 0.0) + share * 4.0**fewest
        return best_scale(layer.weight, served, extra=layer.extra).log()

    @torch.no_grad()
    def settle(self, precision: int) -> None:
        """Take all weights as they are served in a precision, which is then the same in all higher ones."""
        self.serve(precision)
        for layer in self.layers().values():
            layer.weight.copy_(layer.served())

    def architecture(self) -> dict[str, Any]:
        """What `networks.build` makes an equal, untrained network from."""
        return dict(self._architecture)

    def layers(self) -> dict[str, QuantisedConv2d | QuantisedLinear]:
        """Layers with weights by their names, in the order in which images pass."""
        return {
            name.removeprefix("inner."): part
            for name, part in self.named_modules()
            if isinstance(part, (QuantisedConv2d, QuantisedLinear))
        }

    def ranges(self) -> Iterator[ActivationRange]:
        """All ranges of activations."""
        return (part for part in self.modules() if isinstance(part, ActivationRange))

    def plan(self, precision: Precision) -> dict[str, int]:
        """Bits of every layer in a precision."""
        layers = self.layers()
        if isinstance(precision, int):
            return {name: precision and max(precision, self._least(name, layer)) for name, layer in layers.items()}
        return {name: precision.get(name, 8) for name in layers}

    def sliced_convolutions(self, precision: Precision) -> tuple[int, ...]:
        """Bits of the convolutions in a precision: maps differ between two where these do."""
        plan = self.plan(precision)
        return tuple(plan[name] for name, layer in self.layers().items() if isinstance(layer, QuantisedConv2d))

    def free(self) -> list[str]:
        """Names of the layers whose bits may be chosen one by one: those that are linear, but for the last ones."""
        return [name for name, layer in self.layers().items() if _kind(name, layer) is None]

    def _least(self, name: str, layer: QuantisedConv2d | QuantisedLinear) -> int:
        kind = _kind(name, layer)
        return 0 if kind is None else int(self._architecture["least"][kind])

    def serve(self, precision: Precision) -> None:
        """Choose what is served: bits of all layers, or of some; 0 for weights as they are.

        Convolutions meet integers, but for those that see pictures, as do linear layers with weights of 8 bits, but for
        those that see guesses.
        """
        plan = self.plan(precision)
        for name, layer in self.layers().items():
            layer.bits = plan[name]
            if isinstance(layer, QuantisedConv2d):
                layer.range.active = plan[name] > 0 and not _sees_pictures(layer)
            else:
                layer.range.active = plan[name] == 8 and not name.endswith("guess")
        for part in self.modules():
            if isinstance(part, RangedReLU):
                part.range.active = precision != 0

    def forward(self, *pictures: Tensor) -> Prediction:
        """See the network that was quantised."""
        prediction: Prediction = self.inner(*pictures)
        return prediction

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Also weights that `compact` made codes of."""
        whole = {}
        for name, value in state_dict.items():
            if isinstance(value, Tensor) and value.dtype == torch.uint8:
                scale = state_dict[name.removesuffix("weight") + "log_scale"].exp()
                value = (value.float() - ZERO) * scale.reshape(-1, *[1] * (value.ndim - 1))
            whole[name] = value
        return super().load_state_dict(whole, strict, assign)

    def compact(self) -> dict[str, Any]:
        """The state with all weights as codes of 8 bits."""
        state = dict(self.state_dict())
        for name, layer in self.layers().items():
            state[f"inner.{name}.weight"] = layer.codes()
        return state


networks.KINDS["quantised"] = QuantisedNet


def _sees_pictures(layer: QuantisedConv2d) -> bool:
    return layer.in_channels < FEW_CHANNELS


def _kind(name: str, layer: QuantisedConv2d | QuantisedLinear) -> str | None:
    """Key of `LEAST`; None for linear layers between the first and the last."""
    if isinstance(layer, QuantisedConv2d):
        return EDGES if _sees_pictures(layer) else CONVOLUTIONS
    return EDGES if name.rpartition(".")[2] in ("guess", "head") else None


def size_share(net: QuantisedNet, precision: Precision) -> float:
    """Bytes of the served weights, scales included, as a share of theirs in 32 bits; biases count on both sides."""
    plan, total, whole = net.plan(precision), 0.0, 0.0
    for name, layer in net.layers().items():
        bits = plan[name]
        rest = 4.0 * layer.log_scale.numel()
        total += layer.weight.numel() / digits_a_byte(values_of(bits, extra=layer.extra)) + 2.0 * rest
        whole += 4.0 * layer.weight.numel() + rest
    return total / whole


def layer_weights(layer: QuantisedConv2d | QuantisedLinear) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """Codes of 8 bits, of the weights' shape, and scales, float32 [O]."""
    return layer.codes().cpu().numpy(), layer.log_scale.detach().exp().cpu().numpy()


@torch.no_grad()
def _copy(layer: nn.Conv2d, made: QuantisedConv2d) -> None:
    made.weight.copy_(layer.weight)
    assert made.bias is not None  # it was made with one
    made.bias.copy_(torch.zeros_like(made.bias) if layer.bias is None else layer.bias)


@torch.no_grad()
def _fold(module: nn.Module) -> None:
    """Batch normalisation into the convolution before it (Jacob et al., arXiv 1712.05877, sec. 3.2)."""
    for part in module.children():
        _fold(part)
    if not isinstance(module, nn.Sequential):
        return
    for number in range(1, len(module)):
        before, norm = module[number - 1], module[number]
        if isinstance(before, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module[number - 1] = nn.utils.fusion.fuse_conv_bn_eval(before.eval(), norm.eval())
            module[number] = nn.Identity()


def _replace(module: nn.Module) -> None:
    """Quantised layers in the place of convolutions and linear layers, and of the ReLUs after convolutions."""
    for name, part in list(module.named_children()):
        if isinstance(part, BlurPool):
            continue
        if isinstance(part, nn.Conv2d):
            setattr(module, name, QuantisedConv2d.of(part))
        elif isinstance(part, nn.Linear):
            setattr(module, name, QuantisedLinear.of(part))
        elif isinstance(part, nn.ReLU) and isinstance(module, nn.Sequential) and _follows_maps(module, int(name)):
            setattr(module, name, RangedReLU())
        else:
            _replace(part)
    if isinstance(module, GlimpseNet) and isinstance(module.hidden[0], QuantisedLinear):
        first: QuantisedLinear = module.hidden[0]
        split = first.in_features - module.joints
        module.hidden[0] = GuessedLinear(
            QuantisedLinear.of(first, slice(0, split)), QuantisedLinear.of(first, slice(split, None))
        )


def _follows_maps(layers: nn.Sequential, number: int) -> bool:
    before = [part for part in list(layers)[:number] if not isinstance(part, nn.Identity)]
    return bool(before) and isinstance(before[-1], (QuantisedConv2d, nn.Conv2d))
