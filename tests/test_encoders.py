"""Pretrained encoders: their input against transformers' own, layers, padding, what is trained, a run of two processes.

Of every family a small one of random weights, from a folder.
"""

import copy
import re
import shutil
import sys
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from encoders import FAMILIES, save, transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from launches import make_shards, train
from networks import assert_padding_is_not_heard
from torch import Tensor

from dist_train import config, encoders, flops, models
from dist_train.frontend import FrontBatch
from dist_train.groups import rates
from dist_train.layers import layers
from dist_train.models import compiled, hub
from dist_train.models.encoder import Encoded, GroupNorm, freeze_idle
from dist_train.models.linear import Linear
from dist_train.parts import network
from dist_train.step import Step
from dist_train.world import Place, World

WORLD = World(Place(), torch.device("cpu"), "gloo", 1)
SECONDS = 0.8
SAMPLES = round(SECONDS * 16000)
LENGTHS = (SAMPLES, 9001, 4563)
LEAST = {"w2v-bert": 720, "ast": 400 + 15 * 160}  # two frames; a patch
ALONE = ("data2vec", "conformer")  # padded clips one by one
EXACT = [family for family in FAMILIES if family not in ALONE]


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Folder of a family's encoder."""
    root = tmp_path_factory.mktemp("encoders")
    return lambda family: root / family if (root / family).exists() else save(root / family, family)


def _wave(rows: int = 3, samples: int = SAMPLES) -> Tensor:
    """Noise of rising loudness on an offset, never silent."""
    generator = torch.Generator().manual_seed(rows)
    noise = torch.randn(rows, samples, 1, generator=generator)
    return 0.02 + noise * torch.linspace(0.01, 0.2, samples)[:, None]


def _model(folder: Path, layer: str | int = "weighted", frozen: bool | str = False, **other: Any) -> Encoded:
    """With a linear probe of five classes; loaded once, the caller's own."""
    return copy.deepcopy(_loaded(folder, layer, frozen, **other))


@cache
def _loaded(folder: Path, layer: str | int, frozen: bool | str, **other: Any) -> Encoded:
    encoder, _ = hub.load(str(folder), layer=layer, frozen=frozen, **other)
    torch.manual_seed(3)
    model = Encoded(encoder, models.build("linear", encoder.hidden, 5))
    freeze_idle(model, SAMPLES)
    return model.eval()


def _theirs(folder: Path, clips: list[np.ndarray], **options: Any) -> dict[str, Tensor]:
    extractor = transformers.AutoFeatureExtractor.from_pretrained(folder)
    made = extractor(clips, sampling_rate=16000, return_tensors="pt", **options)
    return {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in made.items()}


@pytest.mark.parametrize("family", FAMILIES)
def test_input_is_that_of_the_feature_extractor(family: str, folders: Callable[[str], Path]) -> None:
    """Of single clips; for those whose extractor makes a mask, of a padded batch with its mask too."""
    encoder = _model(folders(family)).encoder
    feat_BTF, samples_B = _wave(), torch.tensor(LENGTHS)
    clips = [feat_BTF[row, :count, 0].numpy() for row, count in enumerate(LENGTHS)]
    name = encoder.body.main_input_name
    for clip in clips:
        ours = encoder.prepare(torch.from_numpy(clip)[None], None)
        theirs = _theirs(folders(family), [clip])[name]
        assert ours.shape[1] in (theirs.shape[1], theirs.shape[1] - 1)  # w2v-BERT's masked half
        torch.testing.assert_close(ours, theirs[:, : ours.shape[1]], rtol=1e-4, atol=1e-3)
    past = torch.arange(SAMPLES) >= samples_B[:, None]
    together = encoder.prepare(feat_BTF[..., 0].masked_fill(past, 0.0), samples_B)
    options = {"padding": True, "return_attention_mask": True} if encoder.masked else {}
    theirs = _theirs(folders(family), clips, **options)
    torch.testing.assert_close(together, theirs[name][:, : together.shape[1]], rtol=1e-4, atol=1e-3)
    if encoder.masked:
        assert encoder.prepare.count(samples_B).tolist() == theirs["attention_mask"].sum(1).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_layers_are_those_of_transformers(family: str, folders: Callable[[str], Path]) -> None:
    folder, clip = folders(family), _wave(1)
    options = {"add_adapter": False} if family == "w2v-bert" else {}
    body = transformers.AutoModel.from_pretrained(folder, **options).eval()
    body = body.encoder if body.config.is_encoder_decoder else body
    given = _theirs(folder, [clip[0, :, 0].numpy()])[body.main_input_name]
    made = body(given, output_hidden_states=True)
    assert len(made.hidden_states) == 4
    frames = None
    for layer, theirs in (("last", made.last_hidden_state), (1, made.hidden_states[1]), (3, made.hidden_states[3])):
        encoder = _model(folder, layer).encoder
        ours, frames_B = encoder(clip)
        assert frames_B is None and ours.isfinite().all()
        # of AST the mean over the two rows of patches, of the columns that the clip reaches
        expected = theirs[:, 2:].unflatten(1, (2, -1)).mean(1) if family == "ast" else theirs
        frames = frames or ours.shape[1]
        assert ours.shape[1] == frames <= expected.shape[1]
        torch.testing.assert_close(ours, expected[:, :frames], rtol=1e-3, atol=1e-4)
    if family not in ("whisper", "ast", "w2v-bert"):
        assert frames == theirs.shape[1]


@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_clip_padded_in_a_batch_scores_what_it_scores_alone(family: str, folders: Callable[[str], Path]) -> None:
    """In float32; the frames are counted as the encoder makes them."""
    model, feat_BTF = _model(folders(family)), _wave()
    together = model(feat_BTF, torch.tensor(LENGTHS))
    hidden_BTH, frames_B = model.encoder(feat_BTF, torch.tensor(LENGTHS))
    assert model.encoder.exact == (family not in ALONE) and frames_B is not None
    for row, count in enumerate(LENGTHS):
        alone = model(feat_BTF[row : row + 1, :count])
        assert (together[row : row + 1] - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()
        hidden, _ = model.encoder(feat_BTF[row : row + 1, :count])
        frames = int(frames_B[row])
        assert frames == hidden.shape[1]
        torch.testing.assert_close(hidden_BTH[row, :frames], hidden[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model(feat_BTF), model(feat_BTF, torch.full((3,), SAMPLES)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_padding_is_not_heard(family: str, folders: Callable[[str], Path], data: st.DataObject) -> None:
    """Nor what lies in it, in float64, of random lengths."""
    least = LEAST.get(family, 80)
    model = _model(folders(family))
    assert model.encoder.prepare.least <= least
    assert_padding_is_not_heard(model, least, [least + 1, 4563, SAMPLES], data)


@pytest.mark.parametrize("family", EXACT)
@torch.no_grad()
def test_no_step_depends_on_data(family: str, folders: Callable[[str], Path]) -> None:
    """Without data a read of a tensor's value raises: nothing stops a GPU."""
    model = _model(folders(family)).to("meta")
    feat_BTF = torch.empty(3, SAMPLES, 1, device="meta")
    for samples_B in (None, torch.empty(3, dtype=torch.int64, device="meta")):
        assert model(feat_BTF, samples_B).shape == (3, 5)


@pytest.mark.parametrize("family", FAMILIES)
def test_fine_tuning_reaches_every_weight_that_is_left(family: str, folders: Callable[[str], Path]) -> None:
    """DDP waits for each. The optimizer gets no others, and one step changes all of them; chosen layers have idle ones
    above them. Padded clips and silence have finite gradients."""
    for layer in ("weighted", 1):
        model = _model(folders(family), layer).train()
        idle = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        assert any("layers.1" in name for name in idle) == (layer == 1)
        feat_BTF = _wave()
        feat_BTF[1] = 0.0
        model(feat_BTF, torch.tensor(LENGTHS)).square().sum().backward()
        got = {name for name, parameter in model.named_parameters() if parameter.grad is not None}
        assert got == {name for name, parameter in model.named_parameters() if parameter.requires_grad}
        assert all(bool(p.grad.isfinite().all()) for p in model.parameters() if p.grad is not None)
        assert not any("masked_spec_embed" in name for name in got)
    with torch.autocast("cpu", torch.bfloat16):
        assert model(feat_BTF, torch.tensor(LENGTHS)).isfinite().all()


@pytest.mark.parametrize("family", ["wav2vec2", "w2v-bert", "whisper", "ast"])
def test_layers_of_an_encoder_are_stages(family: str, folders: Callable[[str], Path]) -> None:
    """Each learns at its own rate; what is new, the weights of the layers, at the whole one."""
    model = _model(folders(family))
    rate = rates(model, config.check({"optim": {"layer_decay": 0.5}}, "test").optim)
    layer = {name: re.search(r"(?<!conv_)layers?\.(\d)\.", name) for name in rate}
    found = {(int(match[1]), rate[name]) for name, match in layer.items() if match}
    assert found == {(0, 1 / 8), (1, 1 / 4), (2, 1 / 2)}
    before = {rate[name] for name, match in layer.items() if not match and rate[name] < 1 / 8}
    assert before and rate["head.weight"] == 1.0 and "encoder.mix" not in rate


@pytest.mark.parametrize("family", ["wav2vec2", "whisper"])
def test_weighted_sum_is_a_softmax_over_all_layers(family: str, folders: Callable[[str], Path]) -> None:
    feat_BTF = _wave(2)
    model = _model(folders(family), "weighted")
    with torch.no_grad():
        states = [_model(folders(family), layer).encoder(feat_BTF)[0] for layer in range(4)]
        assert model.encoder.mix is not None
        model.encoder.mix += torch.tensor([0.5, -1.0, 2.0, 0.0])
        share = torch.tensor([0.5, -1.0, 2.0, 0.0]).exp()
        expected = sum(weight * state for weight, state in zip(share / share.sum(), states, strict=True))
        hidden_BTH, _ = model.encoder(feat_BTF)
        torch.testing.assert_close(hidden_BTH, expected, rtol=1e-4, atol=1e-5)
    frozen = _model(folders(family), "weighted", frozen=True).train()
    frozen(feat_BTF).square().sum().backward()
    assert frozen.encoder.mix is not None and frozen.encoder.mix.grad is not None
    assert bool((frozen.encoder.mix.grad != 0).all())


@torch.no_grad()
def test_linear_probe_is_the_classifier_of_transformers(tmp_path: Path) -> None:
    """Wav2Vec2ForSequenceClassification's scores of a padded batch, by its weights."""
    folder = save(tmp_path / "encoder", "wav2vec2-large")
    theirs = transformers.AutoModelForAudioClassification.from_pretrained(
        folder, num_labels=5, classifier_proj_size=7, use_weighted_layer_sum=True
    ).eval()
    theirs.layer_weights.copy_(torch.tensor([0.3, -0.2, 0.9, 0.1]))
    encoder, _ = hub.load(str(folder), layer="weighted", frozen=False)
    ours = Encoded(encoder, models.build("linear", encoder.hidden, 5, embedding=7)).eval()
    assert isinstance(ours.network, Linear) and encoder.mix is not None
    encoder.mix.copy_(theirs.layer_weights)
    ours.network.projection.load_state_dict(theirs.projector.state_dict())
    ours.head.load_state_dict(theirs.classifier.state_dict())
    feat_BTF = _wave()
    clips = [feat_BTF[row, :count, 0].numpy() for row, count in enumerate(LENGTHS)]
    given = _theirs(folder, clips, padding=True, return_attention_mask=True)
    torch.testing.assert_close(ours(feat_BTF, torch.tensor(LENGTHS)), theirs(**given).logits, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_group_norm_of_full_rows_is_torchs() -> None:
    theirs = torch.nn.GroupNorm(6, 6).double()
    torch.nn.init.normal_(theirs.weight)
    torch.nn.init.normal_(theirs.bias)
    x_BCT = torch.randn(2, 6, 30, dtype=torch.float64)
    ours = GroupNorm(theirs, 10, 5)
    torch.testing.assert_close(ours(x_BCT), theirs(x_BCT))
    ours.samples_B = torch.tensor([10 + 29 * 5, 10 + 11 * 5 + 3])  # 30 and 12 frames
    torch.testing.assert_close(ours(x_BCT)[0], theirs(x_BCT)[0])
    torch.testing.assert_close(ours(x_BCT)[1:, :, :12], theirs(x_BCT[1:, :, :12]))


@pytest.mark.parametrize("family", ["whisper", "ast"])
@torch.no_grad()
def test_a_fixed_length_can_be_cut(family: str, folders: Callable[[str], Path]) -> None:
    """Positions are the first ones; with `seconds` of the whole length nothing changes."""
    whole = _model(folders(family), "last")
    longest = whole.encoder.prepare.most
    assert longest is not None
    same = _model(folders(family), "last", seconds=longest / 16000 - 0.001)
    torch.testing.assert_close(same(_wave()), whole(_wave()))
    cut = _model(folders(family), "last", seconds=SECONDS)
    assert cut.encoder.prepare.most is not None and SAMPLES <= cut.encoder.prepare.most < SAMPLES + 320
    shapes = [tuple(found.encoder.prepare(_wave()[..., 0], None).shape) for found in (whole, cut)]
    assert shapes == ([(3, 80, 200), (3, 80, 80)] if family == "whisper" else [(3, 200, 32), (3, 78, 32)])
    assert cut.encoder(_wave())[0].shape == whole.encoder(_wave())[0].shape
    old, new = (
        found.encoder.body.embed_positions.weight
        if family == "whisper"
        else found.encoder.body.embeddings.position_embeddings[0, 2:].unflatten(0, (2, -1)).transpose(0, 1)
        for found in (whole, cut)
    )
    torch.testing.assert_close(new, old[: len(new)])
    with pytest.raises(ValueError, match=f"hears at most {cut.encoder.prepare.most} samples a clip"):
        cut(_wave(1, SAMPLES + 320))


def _settings(folder: Path, *overrides: str, hf: str = "", model: str = "{name: linear}") -> config.Config:
    features = f"features={{name: hf, hf: {{name: '{folder}'{hf}}}}}"
    return config.load(None, [features, f"model={model}", f"audio.seconds={SECONDS}", *overrides])


def _batch(rows: int) -> FrontBatch:
    label_B, ones_B, feat_BTF = torch.arange(rows) % 4, torch.ones(rows), _wave(rows)
    return FrontBatch(feat_BTF, None, label_B, ones_B, torch.arange(rows), ones_B, feat_BTF[..., 0])


@pytest.mark.parametrize(
    ("family", "frozen"), [("wavlm", True), ("wavlm", False), ("wavlm", "convolutions"), ("conformer", True)]
)
def test_what_is_frozen_stays(family: str, frozen: bool | str, folders: Callable[[str], Path]) -> None:
    """Three steps: nothing of a frozen encoder moves, nothing of it is in the optimizer; else all of it does."""
    folder = folders(family)
    given = _settings(folder, "optim.ema=0.9", hf=f", frozen: {str(frozen).lower()}")
    model = network(given, 1, 4, WORLD, torch.float32)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    step = Step(model, given, WORLD, None, (SAMPLES, 1))
    for number in range(3):
        step.run([_batch(4)] * 3, [12 * number, 12 * number + 4, 12 * number + 8], 12, 3, 1e-2)
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    body = {name for name, _ in model.named_parameters() if ".body." in name}
    convolutions = {name for name in body if ".feature_extractor." in name}
    assert body & trained == (set() if frozen is True else body - convolutions if frozen else body)
    assert {"encoder.mix", "head.weight"} <= trained
    after = model.state_dict()
    assert {name for name in before if not torch.equal(before[name], after[name])} == trained
    optimised = {id(p) for group in step.optimizer.param_groups for p in group["params"]}
    assert optimised == {id(p) for p in model.parameters() if p.requires_grad}
    assert model.encoder.body.training == (frozen is not True)


@pytest.mark.parametrize(
    ("name", "sizes"),
    [("tdnn", ", channels: 8"), ("ecapa", ", channels: 8"), ("crnn", "")],
)
@torch.no_grad()
def test_our_networks_take_the_hidden_states(name: str, sizes: str, folders: Callable[[str], Path]) -> None:
    """As many bins as the encoder is wide; the layer table and the count of operations know them."""
    folder = folders("wav2vec2")
    folder = save_wide(folder.with_name("wide"), folder) if name == "crnn" else folder
    model = network(_settings(folder, model=f"{{name: {name}{sizes}}}"), 1, 4, WORLD, torch.float32).eval()
    assert isinstance(model, Encoded)
    feat_BTF = torch.cat([_wave(2), _wave(2)], 1)
    together = model(feat_BTF, torch.tensor([len(feat_BTF[0]), SAMPLES + 5000]))
    alone = model(feat_BTF[1:, : SAMPLES + 5000])
    assert (together[1:] - alone).abs().max() < 1e-5 * alone.square().mean().sqrt()
    plain = models.build(name, model.encoder.hidden, 4, **({"channels": 8} if sizes else {})).eval()
    head = {f"head.{key}": value for key, value in model.head.state_dict().items()}
    plain.load_state_dict({**model.network.state_dict(), **head})
    torch.testing.assert_close(plain(*model.encoder(feat_BTF)), model(feat_BTF))
    rows = {row.name: row for row in layers(model, (2 * SAMPLES, 1))}
    assert rows["total"].parameters == sum(rows[part].parameters for part in ("encoder", "network", "head"))
    with torch.enable_grad():
        assert (flops.per_clip(model, (2 * SAMPLES, 1)) or 0) > 1e6
    assert compiled.blocks(model) == compiled.blocks(model.network)


def save_wide(folder: Path, narrow: Path) -> Path:
    """An encoder of 96 channels, for networks that halve their bins."""
    if not folder.exists():
        values = transformers.AutoConfig.from_pretrained(narrow)
        values.hidden_size = 96
        transformers.AutoModel.from_config(values).save_pretrained(folder)
        transformers.AutoFeatureExtractor.from_pretrained(narrow).save_pretrained(folder)
    return folder


@torch.no_grad()
def test_class_tokens_are_what_ast_classifies_by(folders: Callable[[str], Path]) -> None:
    folder = folders("ast")
    body = transformers.AutoModel.from_pretrained(folder).eval()
    given = _theirs(folder, [_wave(1)[0, :, 0].numpy()])["input_values"]
    ours = _model(folder, "last", frames="class").encoder
    for samples_B in (None, torch.tensor([SAMPLES])):
        hidden_BTH, frames_B = ours(_wave(1), samples_B)
        torch.testing.assert_close(hidden_BTH[:, 0], body(given).pooler_output, rtol=1e-4, atol=1e-5)
        assert hidden_BTH.shape[1] == 1 and (frames_B is None or frames_B.tolist() == [1])


def test_loading_is_the_same_on_all_ranks_and_leaves_the_log_alone(folders: Callable[[str], Path]) -> None:
    given = _settings(folders("hubert"), "run.seed=5")
    level = transformers.utils.logging.get_verbosity()
    one, other = (network(given, 1, 4, WORLD, torch.float32).state_dict() for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert transformers.utils.logging.get_verbosity() == level


def _changed(folder: Path, source: Path, **values: Any) -> Path:
    """A copy with other values in its config.json."""
    shutil.copytree(source, folder)
    file = folder / "config.json"
    text = file.read_text()
    for key, value in values.items():
        text = re.sub(rf'"{key}": [^,\n]*', f'"{key}": {value}', text)
    file.write_text(text)
    return folder


@torch.no_grad()
def test_weights_of_older_checkpoints(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """pytorch_model.bin, the tensors of a weight norm by their names before torch 2.1, a head that nobody asked for."""
    folder = shutil.copytree(folders("wavlm"), tmp_path / "older")
    state = transformers.AutoModel.from_pretrained(folder).state_dict()
    for new, old in (
        ("parametrizations.weight.original0", "weight_g"),
        ("parametrizations.weight.original1", "weight_v"),
    ):
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    assert "encoder.pos_conv_embed.conv.weight_g" in state
    (folder / "model.safetensors").unlink()
    state = {f"wavlm.{name}": tensor.clone() for name, tensor in state.items()}
    torch.save({**state, "lm_head.weight": torch.ones(4, 16)}, folder / "pytorch_model.bin")
    torch.testing.assert_close(_model(folder)(_wave()), _model(folders("wavlm"))(_wave()))


def test_what_cannot_be_used_is_refused_in_one_line(folders: Callable[[str], Path], tmp_path: Path) -> None:
    folder = folders("wavlm")
    empty = tmp_path / "empty"
    empty.mkdir()
    lacking = shutil.copytree(folder, tmp_path / "lacking")
    (lacking / "preprocessor_config.json").unlink()
    other = shutil.copytree(folder, tmp_path / "other")
    transformers.ClapFeatureExtractor().save_pretrained(other)
    foreign = shutil.copytree(folder, tmp_path / "foreign")
    transformers.ASTFeatureExtractor().save_pretrained(foreign)
    damaged = shutil.copytree(folder, tmp_path / "damaged")
    (damaged / "model.safetensors").write_bytes(b"no tensors")
    pickled = shutil.copytree(folder, tmp_path / "pickled")
    (pickled / "model.safetensors").unlink()
    torch.save({"encoder.layer_norm.weight": Path("anything but a tensor")}, pickled / "pytorch_model.bin")
    cases: list[tuple[Path | str, dict[str, Any], str]] = [
        (empty, {}, "transformers cannot load it (Unrecognized model in"),
        (lacking, {}, "transformers cannot load it ("),
        (other, {}, "its input is made by ClapFeatureExtractor, which is not known here; encoders of Wav2Vec2Feat"),
        (foreign, {}, "wavlm is not known here, of its kind only audio-spectrogram-transformer"),
        (_changed(tmp_path / "unknown", folder, model_type='"nothing"'), {}, "transformers cannot load it ("),
        (_changed(tmp_path / "deeper", folder, num_hidden_layers=4), {}, "weights are not in it, such as encoder.lay"),
        (_changed(tmp_path / "wider", folder, intermediate_size=25), {}, "transformers cannot load it ("),
        (damaged, {}, "transformers cannot load it ("),
        (pickled, {}, "transformers cannot load it ("),
        (tmp_path / "absent", {}, "there is no such folder"),
        (folder, {"revision": "main"}, "features.hf.revision is for a name on the hub"),
        (folder, {"layer": 4}, "features.hf.layer=4: the encoder has layers 0 to 3"),
        (folder, {"seconds": 3.0}, "features.hf.seconds has no effect with"),
        (folders("whisper"), {"seconds": 3.0}, "features.hf.seconds=3: "),
        (folders("whisper"), {"frozen": "convolutions"}, "has none: take true or false"),
        (folders("whisper"), {"frames": "class"}, "has no class tokens; take time"),
    ]
    for name, options, message in cases:
        with pytest.raises(ValueError, match=re.escape(message)) as error:
            hub.load(str(name), **{"layer": "last", "frozen": True, **options})
        assert "\n" not in str(error.value) and "features.hf" in str(error.value)


def test_settings_that_do_not_fit(folders: Callable[[str], Path]) -> None:
    folder = folders("whisper")
    build = partial(encoders.encoded, classes=4, world=WORLD)
    with pytest.raises(ValueError, match=r"audio.sample_rate=8000: \S* hears 16000 Hz; set audio.sample_rate=16000"):
        build(_settings(folder, "audio.sample_rate=8000"))
    with pytest.raises(ValueError, match=r"audio.seconds=2.5: \S* hears at most 2 s of a clip; lower it"):
        build(_settings(folder, "audio.seconds=2.5"))
    with pytest.raises(ValueError, match=r"evaluation.max_seconds=20: \S* hears at most 2 s of a clip"):
        build(_settings(folder, "evaluation.clip=full"))
    with pytest.raises(ValueError, match="m5 hears waveforms, one value a channel, and got 16 bins"):
        build(_settings(folder, model="{name: m5}"))
    for override, message in {
        "features={name: hf}": "name=hf and a section hf, which names an encoder, belong together",
        "features.name=fbank": "name=hf and a section hf",
        "features.norm=cmn": "norm=cmn changes what an encoder was trained on",
        "features.bins=40": "bins has no effect with name=hf",
        "features.waveform_scale=2.0": "waveform_scale has no effect with name=hf",
        "features.hf.layer=first": "features.hf.layer",
        "augment.spec={}": "augment.spec masks a spectrum and features.name=hf has none",
        "audio.channels=2": "audio.channels=2: an encoder hears one channel",
    }.items():
        with pytest.raises(ValueError, match=re.escape(message)):
            _settings(folder, override)
    assert _settings(folder).features.norm == "none"
    assert config.check(config.parse(config.dump(_settings(folder)), "dump"), "dump") == _settings(folder)


def test_without_transformers_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match=re.escape("needs transformers: pip install 'dist-train[hf]'")):
        hub.load("anyone/any-encoder", layer="last", frozen=True)


def test_two_processes_and_a_resumed_run(folders: Callable[[str], Path], tmp_path: Path) -> None:
    """Fine-tuning through DDP; what went on from the first step ends as what was not disturbed."""
    data = make_shards(tmp_path / "shards")
    overrides = (
        f"features={{name: hf, hf: {{name: '{folders('wavlm')}', layer: 2, frozen: false}}}}",
        "model={name: tdnn, channels: 8, embedding: 16}",
        *("audio.short=pad", "augment.gain_db=[-3, 3]", "augment.mixup.probability=0.5", "run.max_steps=3"),
        *("checkpoint.every_minutes=1e-6", "checkpoint.keep=9", "data.batch_size=8"),
    )
    whole = train(tmp_path / "whole", data, *overrides, ranks=2)
    assert whole.column("step") == [1, 2, 3] and whole.result()["clips"] == 20
    shutil.copytree(whole.folder, tmp_path / "again" / "tiny")
    for file in whole.saved()[1:]:
        (tmp_path / "again/tiny/checkpoints" / file.name).unlink()
    (tmp_path / "again/tiny/result.json").unlink()
    again = train(tmp_path / "again", data, *overrides, ranks=2)
    assert again.column("loss") == whole.column("loss")
    assert again.result() == whole.result()
    before, after = whole.last()["step"]["model"], again.last()["step"]["model"]
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
