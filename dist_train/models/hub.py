"""A hub name or a folder -> a pretrained encoder with the input that it was trained on, by `transformers`.

No code of a checkpoint's own is run and nothing but tensors is read. A folder is never looked for on the hub; what has
been downloaded lies in the cache of transformers, whose folder HF_HOME names; HF_HUB_OFFLINE=1 asks the hub nothing.
Dropped: decoders and heads, adapters that shorten the output, layers skipped at random (each rank would skip others),
masked spans (drawn from a generator that no position keys).
"""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dist_train.models.encoder import Encoder, GroupNorm
from dist_train.models.inputs import KNOWN, LogMel, Patches, Preparation

EXACT = {  # encoders that see nothing of the padding behind a clip, given a mask, or that always hear as much
    *("wav2vec2", "hubert", "wavlm", "unispeech", "unispeech-sat"),
    *("wav2vec2-bert", "whisper", "audio-spectrogram-transformer"),
}
MASKED = {"whisper": False, "audio-spectrogram-transformer": False}  # whether it takes a mask, where it has none
OFF: dict[str, Any] = {
    **dict.fromkeys(("layerdrop", "encoder_layerdrop", "mask_time_prob", "mask_feature_prob"), 0.0),
    **dict.fromkeys(("apply_spec_augment", "add_adapter", "use_intermediate_ffn_before_adapter"), False),
}
_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")


def place(name: str, revision: str | None = None) -> dict[str, Any]:
    """Arguments of `from_pretrained`. ValueError for what is neither a folder nor can be a hub name."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if revision is not None:
            raise ValueError(f"features.hf.revision is for a name on the hub, and {name} is a folder: leave it out")
        return {"pretrained_model_name_or_path": str(folder), "local_files_only": True}
    if not _NAME.fullmatch(name):
        raise ValueError(f"features.hf.name: {name}: there is no such folder; name a folder, or an encoder on the hub")
    return {"pretrained_model_name_or_path": name, **({"revision": revision} if revision is not None else {})}


def load(
    name: str,
    *,
    layer: str | int,
    frozen: bool | str,
    frames: str = "time",
    seconds: float | None = None,
    revision: str | None = None,
) -> tuple[Encoder, int]:
    """The encoder and the sample rate that it hears, Hz.

    layer    `last`, `weighted`, or a number
    frozen   true; false; or `convolutions`: the layers that see the waveform
    frames   `time`; or `class`, AST's class tokens
    seconds  what an encoder of fixed length hears of a clip, where not all that it was trained with

    ValueError in one line for what is not there, is damaged, is no encoder of audio, or has no such layer.
    """
    body, extractor = _load(name, revision)
    kind = body.config.model_type
    rate = int(extractor.sampling_rate)
    prepare = _prepare(name, body, extractor, seconds)
    if frames == "class" and not isinstance(prepare, Patches):
        raise ValueError(f"features.hf.frames=class: {name} ({kind}) has no class tokens; take time")
    if frozen == "convolutions":
        if not hasattr(getattr(body, "feature_extractor", None), "_freeze_parameters"):
            raise ValueError(f"features.hf.frozen=convolutions: {name} ({kind}) has none: take true or false")
        body.feature_extractor._freeze_parameters()
    encoder = Encoder(
        body,
        prepare,
        layer=layer,
        frozen=frozen is True,
        frames=frames,
        masked=MASKED.get(kind, True),
        exact=kind in EXACT and _normed(body),
    )
    return encoder, rate


def _load(name: str, revision: str | None) -> tuple[Any, Any]:
    """Encoder and feature extractor."""
    try:
        import transformers
    except ImportError:
        raise ValueError("features.name=hf needs transformers: pip install 'dist-train[hf]'") from None
    where = place(name, revision)
    with _told(name), _quiet(transformers):
        config = transformers.AutoConfig.from_pretrained(**where, trust_remote_code=False)
        extractor = transformers.AutoFeatureExtractor.from_pretrained(**where, trust_remote_code=False)
        for key, value in OFF.items():
            if hasattr(config, key):
                setattr(config, key, value)
        made = transformers.AutoModel.from_pretrained(
            **where, config=config, trust_remote_code=False, dtype=torch.float32, output_loading_info=True
        )
    body, info = made
    if body.config._attn_implementation == "sdpa":
        body.set_attn_implementation(_attention(transformers))
    if type(extractor).__name__ not in KNOWN:
        raise ValueError(
            f"features.hf.name: {name}: its input is made by {type(extractor).__name__}, which is not known here; "
            f"encoders of {', '.join(KNOWN)} are"
        )
    if info["missing_keys"]:
        key, count = min(info["missing_keys"]), len(info["missing_keys"])
        raise ValueError(f"features.hf.name: {name}: {count} weights are not in it, such as {key}; take another copy")
    return (body.encoder if config.is_encoder_decoder else body), extractor


def _attention(transformers: Any) -> str:
    """Name of torch's attention that takes every mask as it is: that of transformers asks the device whether any of it
    masks, and waits."""
    name = "sdpa_unasked"
    attention, mask = transformers.AttentionInterface(), transformers.AttentionMaskInterface()
    if name not in attention.valid_keys():

        def whole(*given: Any, **options: Any) -> Any:
            return mask["sdpa"](*given, **{**options, "allow_is_bidirectional_skip": False})

        transformers.AttentionInterface.register(name, attention["sdpa"])
        transformers.AttentionMaskInterface.register(name, whole)
    return name


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Errors of transformers as one line."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # damaged files raise a dozen kinds
        reason = " ".join(str(error).split())
        reason = reason if len(reason) <= 200 else f"{reason[:200]}..."
        raise ValueError(
            f"features.hf.name: {name}: transformers cannot load it ({reason}); name an encoder of audio with its "
            "feature extractor"
        ) from None


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """No progress bars and no reports: what matters of them is checked here."""
    logging = transformers.utils.logging
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    # WavLM hands a mask of bools and a bias of floats to torch's attention, which says at each start that it minds
    warnings.filterwarnings("ignore", message="Support for mismatched key_padding_mask", category=UserWarning)
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _prepare(name: str, body: Any, extractor: Any, seconds: float | None) -> Preparation:
    """The input, and the encoder cut to `seconds`."""
    config, kind = body.config, body.config.model_type
    make, kinds = KNOWN[type(extractor).__name__]
    if kinds and kind not in kinds:
        raise ValueError(f"features.hf.name: {name}: {kind} is not known here, of its kind only {', '.join(kinds)}")
    if make not in (LogMel, Patches):
        if seconds is not None:
            raise ValueError(f"features.hf.seconds has no effect with {name} ({kind}), which hears clips as they are")
        if not hasattr(body, "_get_feat_extract_output_lengths"):
            raise ValueError(f"features.hf.name: {name}: {kind} does not say how many frames it makes: take another")
        return make(extractor, config)
    rate = extractor.sampling_rate
    if make is Patches and rate != 16000:
        raise ValueError(
            f"features.hf.name: {name}: its Fbank is of {rate} Hz, and that of 16000 Hz alone is known here"
        )
    if make is LogMel:
        full = config.max_source_positions
        size = full if seconds is None else max(1, -(-round(seconds * rate) // (2 * extractor.hop_length)))
    else:
        full = config.max_length
        size = full if seconds is None else max(config.patch_size, (round(seconds * rate) - 400) // 160 + 1)
    if size > full:
        raise ValueError(f"features.hf.seconds={seconds:g}: {name} hears less; leave it out")
    if size < full:
        (_cut_positions if make is LogMel else _cut_patches)(body, size)
    return make(extractor, size)


def _cut_positions(body: Any, size: int) -> None:
    """Whisper's encoder on the first positions only."""
    config, old = body.config, body.embed_positions.weight.detach()
    config.max_source_positions = size
    body.embed_positions = nn.Embedding(size, config.d_model, _weight=old[:size].clone()).requires_grad_(False)


def _cut_patches(body: Any, frames: int) -> None:
    """AST on the first frames only: the grid of positions, bins by time, behind those of two tokens."""
    config, embeddings = body.config, body.embeddings
    rows, _ = embeddings.get_shape(config)
    config.max_length = frames
    _, columns = embeddings.get_shape(config)
    old = embeddings.position_embeddings.detach()
    grid = old[:, 2:].unflatten(1, (rows, -1))[:, :, :columns].flatten(1, 2)
    embeddings.position_embeddings = nn.Parameter(torch.cat([old[:, :2], grid], 1))


def _normed(body: Any) -> bool:
    """Let the norm of a first convolution see the clip alone; whether no other norm sees the padding."""
    config = body.config
    if getattr(config, "feat_extract_norm", None) == "group":
        first = body.feature_extractor.conv_layers[0]
        first.layer_norm = GroupNorm(first.layer_norm, config.conv_kernel[0], config.conv_stride[0])
    others = (nn.GroupNorm, nn.modules.batchnorm._BatchNorm, nn.InstanceNorm1d)
    return not any(isinstance(module, others) for module in body.modules())
