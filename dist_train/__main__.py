"""python -m dist_train [CONFIG] [key=value ...]: train as a configuration says, on every rank that a launcher starts.

    torchrun --nproc_per_node=2 -m dist_train configs/esc10.yaml data.eval_folds=[1]

Without CONFIG it trains the demo; rank 0 makes the shards of a demo first. Exit 0: done, or stopped and saved; 2: bad
input, or a disk, store or memory that does not do; 3: another rank was lost or cut off.
"""

import argparse
import os
import signal
import sys
import time
from functools import partial
from pathlib import Path

from dist_train import config as configuration
from dist_train.settings import Config

DEMO = Path("configs/demo.yaml")


def main(arguments: list[str] | None = None) -> int:
    """Parse, train, exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m dist_train",
        description="Train an audio classifier on tar shards.",
        epilog="example: torchrun --nproc_per_node=2 -m dist_train configs/esc10.yaml data.eval_folds=[1]",
    )
    parser.add_argument("config", nargs="?", metavar="CONFIG", help="YAML file; default: the demo")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the file's")
    parser.add_argument("--print-config", action="store_true", help="show the resolved configuration and end")
    parser.add_argument("--print-folder", action="store_true", help="show the run's folder and end")
    parser.add_argument("--print-schema", action="store_true", help="show the JSON Schema of configurations and end")
    given = parser.parse_args(arguments)
    try:
        if given.print_schema:
            sys.stdout.write(configuration.schema())
            return 0
        config = resolve(given.config, given.overrides)
        if given.print_config:
            sys.stdout.write(configuration.dump(config))
            return 0
        if given.print_folder:
            sys.stdout.write(f"{Path(config.run.dir) / (config.run.name or 'run')}\n")
            return 0
        return run(config)
    except (ValueError, OSError) as error:
        return _refused(str(error), 2)


def resolve(path: str | None, overrides: list[str]) -> Config:
    """The configuration of the command line; the run is named after the file unless it says otherwise."""
    if path is not None and "=" in path:
        overrides, path = [path, *overrides], None
    file = Path(path) if path is not None else DEMO
    config = configuration.load(file, overrides)
    if config.run.name is None:
        config = config.model_copy(update={"run": config.run.model_copy(update={"name": file.stem})})
    return config


def run(config: Config) -> int:
    """Train on this rank."""
    from dist_train import demo, memory, world
    from dist_train.engine import Engine
    from dist_train.hosts import stacks  # seconds of imports that --help and --print-config do not need
    from dist_train.parts import Parts

    memory.keep()
    stacks.listen(Path(config.run.dir) / (config.run.name or "run"))
    engine = None
    try:
        here = world.start(config.run.timeout, config.run.threads, config.run.deterministic)
        demos = {configuration.DEMO_SHARDS: demo.generate, configuration.DEMO_MIXTURES: demo.mixtures.generate}
        for shards, make in demos.items():
            if shards in config.data.shards:  # whether they are there is rank 0's to see, so that all ranks meet
                here.lead(partial(demo.ensure, Path(shards), make=make))
        engine = Engine(Parts(config, here))
        unasked = not engine.run() and not engine.asked
    except (MemoryError, RuntimeError) as error:
        if (lack := memory.lack(error)) is not None:
            return _refused(lack, 2)
        why = world.loss(error)
        if why is None:
            raise
        place = f"in step {engine.progress.step + 1}" if engine is not None else "at the start"
        line = f"another rank was lost or cut off {place} ({why}); the same command goes on from the newest checkpoint"
        return _refused(line, 3)
    here.stop()  # not after an error: others may be in the middle of a collective, and it would wait for them
    if unasked:
        here.linger()
    return 0


def _refused(line: str, code: int) -> int:
    """One line from rank 0; from another rank only if the launcher lets it live, as it does where rank 0 is well."""
    from dist_train import world
    from dist_train.hosts import reason

    reason.report(line)
    rank = world.place_or_first().rank
    if rank:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        time.sleep(3)
    sys.stderr.write(f"error: {f'rank {rank}: ' if rank else ''}{line}\n")
    return code


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    sys.stderr.flush()
    # A gloo thread may still be letting go of a tensor; asking a finalising interpreter for the GIL aborts the process.
    os._exit(code)
