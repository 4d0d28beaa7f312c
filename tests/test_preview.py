"""tools/preview.py: what training would hear, as files; any recording, keys of shards; mistakes in one line."""

from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import matplotlib.image
import numpy as np
import pytest
import soundfile
import torch

from dist_train import preview
from dist_train.config import load
from dist_train.packing import Options, pack

RATE = 16000
PLAIN = ("augment.speed=[1]", "audio.seconds=1.0")


@pytest.fixture
def tool(script: Callable[[str], ModuleType]) -> ModuleType:
    return script("preview")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    (tmp_path / "mine.yaml").write_text(f"data: {{shards: [{tmp_path / 'shards'}]}}\n")
    return tmp_path / "mine.yaml"


def tone(path: Path, seconds: float = 1.0, rate: int = RATE, frequency: float = 440.0) -> np.ndarray:
    wave = 0.4 * np.sin(2 * np.pi * frequency * np.arange(round(rate * seconds)) / rate)
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, wave, rate)
    return wave


def test_a_recording_before_and_after(
    tmp_path: Path, config: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    wave = tone(tmp_path / "a.flac")
    line = [str(config), str(tmp_path / "a.flac"), "--out", str(tmp_path / "made"), "--variants", "2", *PLAIN]
    assert tool.main([*line, "augment.polarity=1"]) == 0
    said = capsys.readouterr()
    assert "augment.polarity does nothing" in said.err and "a.png and 4 WAV files" in said.out
    names = sorted(path.name for path in (tmp_path / "made").iterdir())
    assert names == ["a-1-after.wav", "a-1-before.wav", "a-2-after.wav", "a-2-before.wav", "a.png"]
    for name, sign in (("before", 1), ("after", -1)):
        sound, rate = soundfile.read(tmp_path / f"made/a-1-{name}.wav")
        assert rate == RATE
        np.testing.assert_allclose(sound, sign * wave, atol=1e-4)
    picture = matplotlib.image.imread(tmp_path / "made/a.png")
    assert picture.shape[1] == 1600 and picture[..., :3].std() > 0.1


@pytest.mark.parametrize("name", ["a.wav", "a.ogg", "a.mp3", "a.m4a"])
def test_any_format_at_any_rate(name: str, tmp_path: Path, config: Path) -> None:
    path = tmp_path / name
    if path.suffix == ".m4a":
        import av

        sound = (0.4 * np.sin(2 * np.pi * 440 * np.arange(44100) / 44100)).astype(np.float32)
        with av.open(str(path), "w") as file:
            stream = file.add_stream("aac", rate=44100, layout="mono")
            frame = av.AudioFrame.from_ndarray(sound[None], format="fltp", layout="mono")
            frame.rate = 44100
            file.mux([*stream.encode(frame), *stream.encode(None)])
    else:
        tone(path, rate=44100)
    (tmp_path / "bytes").mkdir()
    clip = preview.recording(path, tmp_path / "bytes")
    made = preview.variants(load(config, PLAIN), [clip], 1)[0]
    assert made.before_T.shape == (RATE,)
    spectrum = np.abs(np.fft.rfft(made.before_T.numpy()[2000:-4000]))
    assert abs(spectrum.argmax() * RATE / (RATE - 6000) - 440) < 3
    assert torch.equal(made.before_T, made.after_T)


def test_a_key_of_the_shards_and_a_partner(tmp_path: Path, config: Path, tool: ModuleType) -> None:
    tone(tmp_path / "source/low/0.wav")
    tone(tmp_path / "source/high/1.wav", frequency=3000.0)
    pack(tmp_path / "source", tmp_path / "shards", Options(workers=1, folds=0))
    settings = load(config, [*PLAIN, "augment.mixup.probability=1"])
    keys = [preview.open_set(tmp_path / "shards").key(row) for row in range(2)]
    clips = [preview.packed(key, settings.data.shards) for key in keys]
    for one in preview.variants(settings, clips, 3):
        spectrum = np.abs(np.fft.rfft(one.after_T.numpy()))
        shares = spectrum[[440, 3000]] / 0.2 / RATE
        assert shares.sum() == pytest.approx(1, abs=0.02)  # both are in it, by their shares
        assert f"{shares.max():.2f} of" in one.drawn or f"{shares.min():.2f} of" in one.drawn
    with pytest.raises(ValueError, match=r"nothing: neither a recording nor a clip's key in .*shards; name one"):
        preview.packed("nothing", settings.data.shards)
    out = tmp_path / "made"
    assert tool.main([str(config), keys[0], *PLAIN, "--out", str(out), "--variants", "1"]) == 0
    assert len(list(out.glob("*.wav"))) == 2


def test_dataset_norm_padding_and_raw_waveforms(tmp_path: Path, config: Path, tool: ModuleType) -> None:
    tone(tmp_path / "a.wav", 0.4)
    for features in (["features.norm=dataset"], ["features.name=waveform", "features.norm=none", "model.name=m5"]):
        given = ["--variants", "1", *PLAIN, "audio.short=pad", *features]
        assert tool.main([str(config), str(tmp_path / "a.wav"), "--out", str(tmp_path / "made"), *given]) == 0


def test_mistakes_are_one_line(
    tmp_path: Path, config: Path, tool: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    wave, torn, out = tmp_path / "a.wav", tmp_path / "torn.wav", tmp_path / "made"
    tone(wave)
    torn.write_bytes(b"RIFF")
    cases = [
        (["nowhere.yaml", wave], "nowhere.yaml: no such configuration"),
        ([config, tmp_path / "b.wav"], "b.wav: there is no such recording; as a clip's key, "),
        ([config, torn], "torn.wav: "),
        ([config, wave, "augment.stretches=1"], "unknown key `augment.stretches`"),
        ([config, wave, "--variants", "0"], "--variants 0: give 1 to 20"),
        ([config, wave, "--out", wave], "is a file; name a folder"),
        ([config, wave, "--out", wave / "x"], "a.wav/x: cannot be written (Not a directory); name another folder"),
        ([config, wave, "augment.noise.shards=[nowhere]"], "nowhere: there is no such folder"),
        ([config, wave, "audio.seconds=0.001"], "audio.seconds=0.001 is shorter than one frame"),
    ]
    for arguments, told in cases:
        given = [str(one) for one in arguments]
        given += [] if "--out" in given else ["--out", str(out)]
        assert tool.main(given) == 2
        error = capsys.readouterr().err
        assert told in error and error.count("\n") == 1
    assert not out.exists()


def test_stored_features_have_no_sound(tmp_path: Path, config: Path) -> None:
    settings = load(config, PLAIN)
    stored = settings.model_copy(update={"features": settings.features.model_copy(update={"name": "packed"})})
    with pytest.raises(ValueError, match=r"features\.name=packed has no waveforms to show"):
        preview.variants(stored, [], 1)
