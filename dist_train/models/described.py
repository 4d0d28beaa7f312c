"""A list of layers, as a configuration has it -> checked layers, with the size of what each one gives.

In: strings (`norm`) and dicts of one key (`maxpool: 3`, `conv: {channels: 32, kernel: [3, 5]}`); a bare value is the
layer's first option. A pair is [mel bins, frames], and a single number stands for both.

    image      conv {channels, kernel 3, stride 1, padding 0}, maxpool {kernel}, avgpool {kernel}    (B, C, F, T)
    sequence   lstm, gru {size, layers 1, bidirectional false}                                       (B, T, C)
    vector     linear {size}                                                                         (B, C)

The first `lstm` or `gru` makes a sequence of the image, `last`, `mean` or `max` (over time) makes a vector of either.
`dropout {rate}` goes anywhere, norm (BatchNorm) and the activations everywhere but in a sequence. ValueError in one
line that names the layer by its number, from 1 on.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Description = str | Mapping[str, Any]

NEEDED = object()
ACTIVATIONS = ("relu", "elu", "gelu", "silu", "tanh")
PICKS = ("last", "mean", "max")
RECURRENT = ("lstm", "gru")
POOLS = ("maxpool", "avgpool")
_MEND = "take features of more bins, or smaller kernels, pools or strides"


@dataclass(frozen=True)
class Layer:
    """One layer. `shape`: what it gives: (channels, bins) of an image, (channels,) of a sequence or a vector."""

    kind: str
    place: str  # image, sequence or vector: what it is part of; a pick counts as sequence
    options: dict[str, Any]
    inputs: tuple[int, ...]
    shape: tuple[int, ...]

    def frames(self, count: Any) -> Any:
        """Frames (an int or a tensor of them) of what it gives for that many (0 or less: too few)."""
        if "kernel" not in self.options:
            return count
        kernel, stride, pad = window(self.options)[1]
        return (count + 2 * pad - kernel) // stride + 1

    def least(self, needed: int) -> int:
        """Frames it must be given so that it gives `needed`."""
        if "kernel" not in self.options:
            return needed
        kernel, stride, pad = window(self.options)[1]
        return max(1, (needed - 1) * stride + kernel - 2 * pad)


def read(layers: Sequence[Description], channels: int, bins: int) -> list[Layer]:
    """Layers for an image of `channels` x `bins` mel bins. ValueError where one cannot be, or cannot stand there."""
    place, done = "image", list[Layer]()
    shape: tuple[int, ...] = (channels, bins)
    for number, description in enumerate(layers, 1):
        kind, options = _options(number, description)
        if place not in (places := _PLACES[kind]):
            raise ValueError(
                f"layer {number} of model.layers, {kind}, takes {_either(places)} and is given {_NOUNS[place]}: move it"
            )
        inputs, place = shape, "sequence" if kind in (*RECURRENT, *PICKS) else place
        if place == "sequence" and len(inputs) == 2:
            inputs = (inputs[0] * inputs[1],)
        shape = _shape(number, kind, options, inputs)
        done.append(Layer(kind, place, options, inputs, shape))
        place = "vector" if kind in PICKS else place
    if place != "vector":
        raise ValueError(
            f"model.layers ends with {_NOUNS[place]}: one of {', '.join(PICKS)} has to make a vector of it"
        )
    return done


def window(options: dict[str, Any]) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """Kernel, stride and padding over mel bins and over frames; a pool's stride is its kernel."""
    kernel, pad = options["kernel"], options.get("padding", (0, 0))
    stride = options.get("stride", kernel)
    return (kernel[0], stride[0], pad[0]), (kernel[1], stride[1], pad[1])


def _shape(number: int, kind: str, options: dict[str, Any], inputs: tuple[int, ...]) -> tuple[int, ...]:
    """Size of what a layer gives."""
    if kind in RECURRENT:
        return (options["size"] * (2 if options["bidirectional"] else 1),)
    if kind == "linear":
        return (options["size"],)
    if "kernel" not in options:
        return inputs
    kernel, stride, pad = window(options)[0]
    if (bins := (inputs[1] + 2 * pad - kernel) // stride + 1) < 1:
        raise ValueError(f"layer {number} of model.layers, {kind}, spans {kernel} mel bins of {inputs[1]}: {_MEND}")
    return (options.get("channels", inputs[0]), bins)


def _options(number: int, description: Description) -> tuple[str, dict[str, Any]]:
    """Kind and complete, checked options of one layer."""
    where = f"layer {number} of model.layers"
    kind: Any = description
    given: Any = {}
    if not isinstance(description, str):
        if not isinstance(description, Mapping) or len(description) != 1:
            raise ValueError(f"{where} is {description!r}: write a name, or one name with its options (conv: 32)")
        ((kind, given),) = description.items()
    if not isinstance(kind, str) or kind not in _OPTIONS:
        raise ValueError(f"{where} is {kind!r}: take one of {', '.join(_OPTIONS)}")
    known = _OPTIONS[kind]
    if not isinstance(given, Mapping):
        if not known:
            raise ValueError(f"{where}, {kind}, takes no options: write {kind} alone")
        given = {next(iter(known)): given}
    if unknown := given.keys() - known.keys():
        raise ValueError(
            f"{where}, {kind}, has no option {min(map(str, unknown))!r}: take {', '.join(known) or 'none'}"
        )
    options = {}
    for name, (check, default) in known.items():
        value = given.get(name, default)
        if value is NEEDED:
            raise ValueError(f"{where}, {kind}, needs {name}: write {kind}: {{{name}: ...}}")
        try:
            options[name] = check(value)
        except ValueError as error:
            raise ValueError(f"{where}, {kind}: {name} is {value!r}: take {error}") from None
    return kind, options


def _count(value: Any) -> int:
    if type(value) is not int or value < 1:
        raise ValueError("a whole number from 1 on")
    return value


def _pair(least: int) -> Callable[[Any], tuple[int, int]]:
    def check(value: Any) -> tuple[int, int]:
        pair = (value, value) if type(value) is int else value
        if not isinstance(pair, list | tuple) or len(pair) != 2 or any(type(v) is not int or v < least for v in pair):
            raise ValueError(f"a whole number from {least} on, or two: [mel bins, frames]")
        return (pair[0], pair[1])

    return check


def _rate(value: Any) -> float:
    if type(value) not in (int, float) or not 0 <= value < 1:
        raise ValueError("a number from 0 to below 1")
    return float(value)


def _flag(value: Any) -> bool:
    if type(value) is not bool:
        raise ValueError("true or false")
    return value


Options = dict[str, tuple[Callable[[Any], Any], Any]]
_POOL: Options = {"kernel": (_pair(1), NEEDED)}
_CELLS: Options = {"size": (_count, NEEDED), "layers": (_count, 1), "bidirectional": (_flag, False)}
_OPTIONS: dict[str, Options] = {
    "conv": {
        "channels": (_count, NEEDED),
        "kernel": (_pair(1), 3),
        "stride": (_pair(1), 1),
        "padding": (_pair(0), 0),
    },
    **dict.fromkeys(POOLS, _POOL),
    **dict.fromkeys(RECURRENT, _CELLS),
    "linear": {"size": (_count, NEEDED)},
    "dropout": {"rate": (_rate, NEEDED)},
    **{kind: {} for kind in ("norm", *ACTIVATIONS, *PICKS)},
}
_NOUNS = {"image": "an image", "sequence": "a sequence", "vector": "a vector"}
_PLACES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("conv", *POOLS), ("image",)),
    **dict.fromkeys((*RECURRENT, *PICKS), ("image", "sequence")),
    "linear": ("vector",),
    "dropout": ("image", "sequence", "vector"),
    **dict.fromkeys(("norm", *ACTIVATIONS), ("image", "vector")),
}


def _either(places: tuple[str, ...]) -> str:
    return " or ".join(_NOUNS[place] for place in places)
