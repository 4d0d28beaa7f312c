"""Rooms, noise and level as the settings ask for them."""

from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch

from dist_train.effects.scene import Scene
from dist_train.settings import Audio, Augment, Noise, Reverb
from dist_train.window import PLAN


@pytest.fixture
def folder(tmp_path: Path) -> str:
    for number in range(3):
        sound = np.random.default_rng(number).standard_normal(4000) * np.exp(-np.arange(4000) / 800)
        soundfile.write(tmp_path / f"{number}.wav", sound * 0.1, 16000)
    (tmp_path / "x.wav").write_bytes(b"RIFF")
    return str(tmp_path)


def group(count: int) -> tuple[torch.Tensor, np.ndarray, np.ndarray]:
    plan = np.zeros(count, PLAN)
    plan["position"] = np.arange(count) + 70
    filled = np.full(count, 4800)
    filled[0] = 1000
    wave = torch.randn(count, 1, 4800) * 0.1
    wave[0, :, 1000:] = 0
    return wave, plan, filled


def test_nothing_asked_for_changes_nothing() -> None:
    wave, plan, filled = group(4)
    scene = Scene(Audio(seconds=0.3, target_db=-20), Augment(), seed=0, device="cpu")
    assert scene.bad == []
    for change in (scene.reverb, scene.noise, scene.level):
        assert torch.equal(change(wave.clone(), plan, filled), wave)
    never = Augment(noise=Noise(shards=["nowhere"], probability=0), reverb=Reverb(shards=["nowhere"], probability=0))
    assert torch.equal(Scene(Audio(), never, seed=0, device="cpu").noise(wave.clone(), plan, filled), wave)


def test_all_that_is_asked_for_happens_to_its_share_of_windows(folder: str) -> None:
    wave, plan, filled = group(400)
    augment = Augment(noise=Noise(shards=[folder]), reverb=Reverb(shards=[folder], probability=0.25))
    scene = Scene(Audio(seconds=0.3, target_db=-20, level="crop"), augment, seed=1, device="cpu")
    assert [line.partition(": ")[0] for line in scene.bad] == [f"{folder}/x.wav"] * 2
    for change, share in ((scene.reverb, 0.25), (scene.noise, 0.5)):
        changed = (change(wave.clone(), plan, filled) != wave).any(2)[:, 0].numpy()
        assert abs(changed.mean() - share) < 0.08
    out = scene.level(scene.noise(scene.reverb(wave.clone(), plan, filled), plan, filled), plan, filled)
    rms = (out.double().square().sum((1, 2)) / torch.from_numpy(filled)).sqrt()
    torch.testing.assert_close(20 * rms.log10(), torch.full((400,), -20.0).double(), rtol=0, atol=1e-4)
    assert not out[0, :, 1000:].any()


def test_a_folder_that_is_not_there_is_said_at_once() -> None:
    with pytest.raises(ValueError, match=r"nowhere: .* augment\.reverb\.shards"):
        Scene(Audio(), Augment(reverb=Reverb(shards=["nowhere"])), seed=0, device="cpu")
