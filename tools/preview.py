#!/usr/bin/env python3
"""Show and hear a clip before and after the changes that training makes: a picture, and a WAV of each window.

CLIP is a recording of any format, or the key of a clip in data.shards. Everything goes the way that training takes.

Example:
  python tools/preview.py configs/esc10.yaml dog.ogg --variants 4 augment.stretch.probability=1 --out /tmp/dog
"""

import argparse
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 written, 2 bad input."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command

    return command.run("preview", partial(preview, options))


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("config", metavar="CONFIG", help="a configuration, such as configs/esc10.yaml")
    top.add_argument("clip", metavar="CLIP", help="a recording, or a key of data.shards")
    top.add_argument("overrides", nargs="*", metavar="key=value", help="settings laid over the configuration")
    top.add_argument(
        "--out", type=Path, default=Path("preview"), metavar="DIR", help="where to write (default: preview)"
    )
    top.add_argument("--variants", type=int, default=3, metavar="N", help="windows to draw, 1 to 20 (default: 3)")
    top.add_argument("--partner", metavar="CLIP", help="another clip, for mixup and CutMix to take")
    return top


def preview(options: argparse.Namespace) -> None:
    """Read, make, draw, write."""
    if not 1 <= options.variants <= 20:
        raise ValueError(f"--variants {options.variants}: give 1 to 20")
    if options.out.exists() and not options.out.is_dir():
        raise ValueError(f"--out {options.out}: is a file; name a folder")
    from dist_train import config as configuration
    from dist_train import disk, picture
    from dist_train import preview as made
    from dist_train.settings import effects

    config = configuration.load(options.config, options.overrides)
    with tempfile.TemporaryDirectory(prefix="dist-train-preview-") as folder:
        wanted = [options.clip] + ([options.partner] if options.partner else [])
        clips = [clip(name, config, Path(folder)) for name in wanted]
        shown = made.variants(config, clips, options.variants)
    pairs = config.augment.mixup.probability + config.augment.cutmix.probability
    if pairs > 0 and not options.partner:
        print("mixup and CutMix need another clip: give --partner CLIP to see them", file=sys.stderr)
    for line in effects.traceless(config.audio, config.augment, config.features):
        print(line, file=sys.stderr)
    disk.writable(options.out)
    name, rate = clips[0].name, config.audio.sample_rate
    image = picture.png(made.drawing(shown, config, name))
    disk.replace(options.out / f"{name}.png", lambda file: file.write(image))
    for number, one in enumerate(shown, 1):
        for when, wave_T in (("before", one.before_T), ("after", one.after_T)):
            sound = made.wav(wave_T, rate)
            disk.replace(options.out / f"{name}-{number}-{when}.wav", lambda file, sound=sound: file.write(sound))
    print(f"{options.out / name}.png and {2 * len(shown)} WAV files beside it")


def clip(name: str, config: Any, folder: Path) -> Any:
    """A recording, or a clip of the shards."""
    from dist_train import preview as made

    path = Path(name)
    return made.recording(path, folder) if path.exists() else made.packed(name, config.data.shards)


if __name__ == "__main__":
    sys.exit(main())
