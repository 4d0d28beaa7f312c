"""A pretrained encoder of `transformers` under one of our networks: samples (B, T, 1) -> logits (B, classes).

    samples -> input as the checkpoint's feature extractor makes it -> encoder -> one layer, or a weighted sum of all
            -> (B, frames, hidden) -> network -> logits

A layer's number is its place in transformers' `hidden_states`: 0 is what the first layer is given. `last` is the
encoder's output, after its last norm. `weighted` is the sum of all, weighted by a softmax that is learned (Yang 2021,
arXiv 2105.01051). Padding: `models.hub` says which encoders see none of it; of another one each padded clip is
heard alone, which is as right and slower. `models.inputs` has the inputs.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from dist_train.models.blocks import check_input
from dist_train.models.inputs import Patches, Preparation, wide


class GroupNorm(nn.Module):
    """Mean and deviation of each channel over the clip's own frames: the norm of wav2vec 2.0 base's first convolution.

    Weights of `norm`, an nn.GroupNorm of one channel a group; of frames that a convolution of `kernel` and `stride`
    makes. `samples_B` is set before each forward: how many valid samples there are, None: all.
    """

    def __init__(self, norm: nn.GroupNorm, kernel: int, stride: int) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.kernel, self.stride = kernel, stride
        self.samples_B: Tensor | None = None

    def forward(self, x_BCT: Tensor) -> Tensor:
        if self.samples_B is None:
            return functional.group_norm(x_BCT, x_BCT.shape[1], self.weight, self.bias, self.eps)
        frames_B11 = ((self.samples_B - self.kernel) // self.stride + 1)[:, None, None]
        pad = torch.arange(x_BCT.shape[2], device=x_BCT.device) >= frames_B11
        with wide(x_BCT.device):
            x_BCT = x_BCT.to(self.weight.dtype).masked_fill(pad, 0.0)
            x_BCT = (x_BCT - x_BCT.sum(2, keepdim=True) / frames_B11).masked_fill(pad, 0.0)
            variance_BC1 = x_BCT.square().sum(2, keepdim=True) / frames_B11
            x_BCT = x_BCT * (variance_BC1 + self.eps).rsqrt()
            return x_BCT * self.weight[:, None] + self.bias[:, None]


class FrozenNorm(nn.Module):
    """A BatchNorm that stays as it is: the training step averages the statistics of all others over its groups."""

    def __init__(self, norm: Any) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = norm.weight, norm.bias, norm.eps
        self.running_mean, self.running_var = nn.Buffer(norm.running_mean), nn.Buffer(norm.running_var)

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps)


class Encoder(nn.Module):
    """Samples (B, T, 1) and valid samples -> (B, frames, hidden) and valid frames.

    body       a model of transformers, which takes `main_input_name` and, if `masked`, `attention_mask`
    prepare    its input
    layer      `last`, `weighted`, or a number
    frozen     nothing of it is trained: eval mode, no gradients
    frames     `time`; or `class`: one frame, the mean of AST's class tokens
    exact      it sees nothing of the padding
    """

    def __init__(
        self,
        body: Any,
        prepare: Preparation,
        *,
        layer: str | int,
        frozen: bool,
        frames: str = "time",
        masked: bool = True,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.body, self.prepare = body, prepare
        self.layer, self.frozen, self.masked, self.exact = layer, frozen, masked, exact
        self.single = frames == "class"
        self.hidden = int(body.config.hidden_size)
        if frozen:
            freeze(body)
        count = int(body.config.num_hidden_layers)
        self.mix = nn.Parameter(torch.zeros(count + 1)) if layer == "weighted" else None
        self.layers = tuple({type(module) for module in stack(body, count)})  # their types: stages of rates
        if isinstance(layer, int):
            if layer > count:
                raise ValueError(f"features.hf.layer={layer}: the encoder has layers 0 to {count}; choose one of them")
            del stack(body, count)[layer + 1 :]  # the one after stays: some encoders' last norm would else be applied
        for module in body.modules():
            if hasattr(module, "cached_rotary_positional_embedding"):  # of another device or type, perhaps
                module.register_forward_pre_hook(_forget)
        self.train()  # it comes in eval mode

    def train(self, mode: bool = True) -> "Encoder":
        super().train(mode)
        if self.frozen:
            self.body.eval()
        return self

    def forward(self, feat_BTF: Tensor, samples_B: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        check_input("the encoder", feat_BTF, 1, self.prepare.least)
        wave_BT = feat_BTF[..., 0]
        if self.prepare.most is not None and wave_BT.shape[1] > self.prepare.most:
            raise ValueError(f"the encoder hears at most {self.prepare.most} samples a clip: shorten audio.seconds")
        if samples_B is None:
            return self._layer(self._states(wave_BT, None)), None
        samples_B = samples_B.clamp(min=self.prepare.least)
        if not self.exact:
            return self._alone(wave_BT, samples_B)
        past_BT = torch.arange(wave_BT.shape[1], device=wave_BT.device) >= samples_B[:, None]
        hidden_BTH = self._layer(self._states(wave_BT.masked_fill(past_BT, 0.0), samples_B))
        return hidden_BTH, self._frames(self.prepare.count(samples_B)).clamp(min=1)

    def _alone(self, wave_BT: Tensor, samples_B: Tensor) -> tuple[Tensor, Tensor]:
        """Each row by itself; waits for the device to say how long they are."""
        rows = [
            self._layer(self._states(wave_BT[row : row + 1, :count], None))[0]
            for row, count in enumerate(samples_B.tolist())
        ]
        frames_B = torch.tensor([len(row) for row in rows], device=wave_BT.device)
        return nn.utils.rnn.pad_sequence(rows, batch_first=True), frames_B

    def _states(self, wave_BT: Tensor, samples_B: Tensor | None) -> list[Tensor]:
        """The hidden states that `layer` needs, (B, steps, hidden) each."""
        with wide(wave_BT.device), torch.no_grad():
            given = {self.body.main_input_name: self.prepare(wave_BT, samples_B)}
        if self.masked and samples_B is not None:
            steps = self.prepare.count(wave_BT.shape[1])
            count_B = self.prepare.count(samples_B)
            given["attention_mask"] = (torch.arange(steps, device=wave_BT.device) < count_B[:, None]).long()
        for module in self.body.modules():
            if isinstance(module, GroupNorm):
                module.samples_B = samples_B
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            made = self.body(**given, output_hidden_states=self.layer != "last")
        states = [made.last_hidden_state] if self.layer == "last" else list(made.hidden_states)
        states = states if self.mix is not None else [states[0 if self.layer == "last" else int(self.layer)]]
        steps = int(self._frames(torch.tensor(self.prepare.count(wave_BT.shape[1]), device="cpu")))
        return [self._timed(state)[:, : max(1, steps)] for state in states]

    def _layer(self, states: list[Tensor]) -> Tensor:
        if self.mix is None:
            return states[0]
        weights = self.mix.softmax(0)
        total = states[0] * weights[0]
        for weight, state in zip(weights[1:], states[1:], strict=True):
            total = total + state * weight
        return total

    def _timed(self, state_BSH: Tensor) -> Tensor:
        """Steps in time: of AST's tokens, the mean over the patches above each other, behind the two class tokens."""
        if not isinstance(self.prepare, Patches):
            return state_BSH
        if self.single:
            return state_BSH[:, :2].mean(1, keepdim=True)
        size, stride = self.body.config.patch_size, self.body.config.frequency_stride
        rows = (self.body.config.num_mel_bins - size) // stride + 1
        patch_BRTH = state_BSH[:, 2:].reshape(len(state_BSH), rows, -1, state_BSH.shape[2])
        return patch_BRTH.mean(1)

    def _frames(self, count: Tensor) -> Tensor:
        """Frames that come out for so many steps of input."""
        config = self.body.config
        if self.single:
            return torch.ones_like(count)
        if isinstance(self.prepare, Patches):
            steps: Tensor = (count - config.patch_size) // config.time_stride + 1
            return steps
        frames: Tensor = self.body._get_feat_extract_output_lengths(count)
        return frames


class Encoded(nn.Module):
    """An encoder, and a network on its hidden states, whose head becomes this model's. `bins` 1: a sample."""

    bins = 1

    def __init__(self, encoder: Encoder, network: Any) -> None:
        super().__init__()
        self.encoder, self.network, self.head = encoder, network, network.head
        network.head = nn.Identity()
        self.BLOCKS = getattr(network, "BLOCKS", (type(network),))  # compiled one by one; the encoder stays eager
        self.STAGES = (*encoder.layers, *self.BLOCKS)  # of rates by layer

    def embed(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Embedding (B, E); `frames_B` (int64): valid samples of each row."""
        vector_BE: Tensor = self.network.embed(*self.encoder(feat_BTF, frames_B))
        return vector_BE

    def forward(self, feat_BTF: Tensor, frames_B: Tensor | None = None) -> Tensor:
        """Logits (B, classes)."""
        logits_BC: Tensor = self.head(self.embed(feat_BTF, frames_B))
        return logits_BC


def freeze(body: nn.Module) -> None:
    """No gradients, and no statistics that move."""
    body.requires_grad_(False)
    for module in list(body.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.modules.batchnorm._BatchNorm):
                setattr(module, name, FrozenNorm(child))


def stack(body: Any, count: int) -> Any:
    """The `count` layers whose hidden states count, a ModuleList; an empty one where they lie otherwise."""
    lists = [module for module in body.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    return max(lists, key=lambda layers: sum(p.numel() for p in layers.parameters()), default=nn.ModuleList())


@torch.enable_grad()
def freeze_idle(model: Encoded, samples: int) -> list[str]:
    """Take from training the weights of the encoder that no gradient reaches, such as those above a chosen layer: DDP
    would wait for them. Their names. Found on shapes alone, where every operation has a form without data."""
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    state = {name: tensor.to("meta") for name, tensor in (*model.named_parameters(), *model.named_buffers())}
    state = {name: tensor.detach().requires_grad_(name in trained) for name, tensor in state.items()}
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        functional_call(model, state, torch.zeros(1, samples, 1, device="meta")).sum().backward()
        idle = [name for name in trained if state[name].grad is None]
    except (NotImplementedError, RuntimeError):
        first = next(model.parameters())
        model(torch.zeros(1, samples, 1, device=first.device, dtype=first.dtype)).sum().backward()
        idle = [name for name in trained if trained[name].grad is None]
        model.zero_grad(set_to_none=True)
    finally:
        for module, mode in modes.items():
            module.training = mode
    for name in idle:
        trained[name].requires_grad_(False)
    return idle


def _forget(module: Any, given: Any) -> None:
    module.cached_sequence_length = module.cached_rotary_positional_embedding = None
