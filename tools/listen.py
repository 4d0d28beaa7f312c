#!/usr/bin/env python3
"""Labels what is heard while it sounds: from a microphone, or from a pipe (`-`: WAV, or raw samples by --format).

Example:
  python tools/listen.py runs/demo - --json < dog.wav

A label is told once it has held for --hold, and again after it was gone for --gone. Ctrl-C ends. Commands of --action
run without a shell and find LISTEN_LABEL, LISTEN_PROBABILITY, LISTEN_SECONDS and LISTEN_TIME in their environment.
"""

import argparse
import json
import signal
import sys
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))


def main(argv: list[str] | None = None) -> int:
    """Exit code: 0 heard to the end, or until it was stopped; 1 the device stopped; 2 bad input."""
    options = parser().parse_intermixed_args(argv)
    from dist_train import command

    work = list_devices if options.list_devices else partial(listen, options)
    return command.run("listen", work)


def parser() -> argparse.ArgumentParser:
    """Every option."""
    top = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    top.add_argument("run", nargs="?", type=Path, metavar="RUN", help="folder of a run, e.g. runs/demo")
    top.add_argument("rest", nargs="*", metavar="- | key=value", help="`-`: stdin; settings that replace the run's")
    source = top.add_argument_group("where the sound comes from")
    source.add_argument("--device", metavar="NAME|N", help="microphone, by a part of its name or by number")
    source.add_argument("--list-devices", action="store_true", help="show what can hear, and end")
    source.add_argument("--format", metavar="F", help="raw samples on stdin: s16le, f32le, ... (default: a WAV)")
    source.add_argument("--rate", type=int, metavar="HZ", help="of raw samples; of the microphone (default: its own)")
    source.add_argument("--channels", type=int, metavar="N", help="of raw samples, of the microphone (default: 1)")
    source.add_argument("--live", action="store_true", help="stdin too is skipped where understanding falls behind")
    source.add_argument("--seconds", type=float, metavar="S", help="end after so much sound")
    rule = top.add_argument_group("when a label is told")
    rule.add_argument("--hop", type=float, metavar="S", help="seconds between windows (default: a quarter of one)")
    rule.add_argument(
        "--threshold", type=float, metavar="P", help="least probability (default: the run's, else 0.35, 0.5 of several)"
    )
    rule.add_argument("--smooth", type=int, default=2, metavar="N", help="windows to average over (default: 2)")
    rule.add_argument("--hold", default="2", metavar="N|Ss", help="windows, or seconds as in 0.5s (default: 2)")
    rule.add_argument("--gone", type=float, metavar="S", help="told again after so long (default: half a window)")
    rule.add_argument("--gate", type=float, default=-60.0, metavar="DB", help="silence is below this (default: -60)")
    told = top.add_argument_group("what is done with it")
    told.add_argument("--top", type=int, default=1, metavar="K", help="show the K likeliest classes (default: 1)")
    told.add_argument("--windows", action="store_true", help="show every window too")
    told.add_argument("--json", action="store_true", help="a JSON object a line")
    told.add_argument("--action", action="append", default=[], metavar="LABEL=COMMAND", help="run it; `*` is any label")
    told.add_argument("--action-seconds", type=float, default=30.0, metavar="S", help="its time limit (default: 30)")
    told.add_argument("--save", type=Path, metavar="DIR", help="keep the sound of each label, DIR/LABEL/TIME-0001.wav")
    told.add_argument("--margin", type=float, default=0.5, metavar="S", help="kept before and after it (default: 0.5)")
    top.add_argument("--model-device", metavar="D", help="where the model runs: cpu, cuda, ... (default: the best)")
    return top


def list_devices() -> int:
    """A table of microphones."""
    from dist_train import screen
    from dist_train.live import microphone
    from dist_train.sheet import Sheet

    found = microphone.devices()
    screen.show([Sheet("* is the default", ("number", "name", "interface", "channels", "rate"), found)])
    return 0


def listen(options: argparse.Namespace) -> int:
    """Open, load, hear, tell."""
    from dist_train.live import asked
    from dist_train.live.session import Session

    asked.check(options)

    source = opened(options)
    try:
        if not source.live:
            source.start()  # its writer shall not wait for the model
        model = loaded(options)
        live, mix = source.live or options.live, model.config.audio.channels
        session = Session(source, mix, asked.listener(model, options), live, options.seconds)
        report = Report(options, model, session)
        if source.live:
            source.start()
        report.warn(f"hearing {source.name}, {source.rate} Hz; Ctrl-C ends")
        return heard(session, report)
    finally:
        source.close()


def loaded(options: argparse.Namespace) -> Any:
    """The run's model."""
    from dist_train import load

    overrides = [word for word in options.rest if word != "-"]
    return load(options.run, device=options.model_device, overrides=overrides)


def opened(options: argparse.Namespace) -> Any:
    """A microphone, or stdin."""
    from dist_train.live import microphone, pipe

    if "-" in options.rest:
        return pipe.Pipe(sys.stdin.fileno(), options.format, options.rate, options.channels)
    return microphone.Microphone(options.device, options.rate, options.channels)


def heard(session: Any, report: "Report") -> int:
    """Until the source ends, or someone ends it."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as services are ended
    error, patience = None, 1.0
    with report:
        try:
            for event in session.events():
                report.tell(event)
            patience = report.options.action_seconds
        except KeyboardInterrupt:
            pass
        except ValueError as found:
            error = found
        report.finish(patience)
    if error is not None:
        print(f"listen: {error}", file=sys.stderr)
    return 1 if error else 0


class Report:
    """Everything that is told of a session: lines or JSON on stdout, what is amiss on stderr, a meter on a terminal."""

    def __init__(self, options: argparse.Namespace, model: Any, session: Any) -> None:
        from dist_train.live import action, keeping

        self.options, self.classes, self.session = options, tuple(model.classes), session
        self.counts: dict[str, int] = {}
        self.shown: Any = None
        self.latest = ""
        commands = action.parse(options.action, self.classes)
        self.actions = action.Actions(commands, options.action_seconds, self.warn)
        self.keeping = None
        if options.save is not None:
            from dist_train import disk

            disk.writable(options.save)
            self.keeping = keeping.Keeping(options.save, model.sample_rate, options.margin)

    def __enter__(self) -> "Report":
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.live import Live

            console = Console(stderr=True)
            plain = {"redirect_stdout": sys.stdout.isatty(), "transient": True}
            self.shown = Live(console=console, refresh_per_second=10, get_renderable=self.meter, **plain)
            self.shown.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.shown is not None:
            self.shown.stop()
        self.actions.close(0)  # does nothing after `finish`, which a reader that left or a second Ctrl-C cuts short

    def meter(self) -> Any:
        """The line that moves."""
        from rich.text import Text

        from dist_train.live import lines

        late = self.session.lag() if self.session.live else 0.0
        said = f"  {late:.1f} s behind" if late > 1 else ""
        return Text(f"{lines.bar(self.session.meter, 30)}  {self.latest}{said}", no_wrap=True, overflow="ellipsis")

    def tell(self, event: Any) -> None:
        """An event, or None: time went by."""
        from dist_train.live import lines

        self.kept()
        if event is None:
            return
        if event.kind == "window":
            found = lines.likeliest(event, self.classes, 3)
            self.latest = "  ".join(f"{name} {share:.2f}" for name, share in found) or "silence"
        if event.kind == "label":
            self.begun(event)
        amiss = event.kind in ("skipped", "lost", "overrun")
        if self.options.json and (event.kind != "window" or self.options.windows):
            self.say(lines.record(event, self.classes, self.options.top, self.session.wall(event.end)))
        elif event.kind == "label" or (event.kind == "window" and self.options.windows):
            print(lines.text(event, self.classes, self.options.top), flush=True)
        if amiss:
            self.warn(lines.text(event, self.classes, 1))

    def begun(self, event: Any) -> None:
        """A label: count it, keep its sound, run its command."""
        name, when = self.classes[event.number], self.session.wall(event.end)
        self.counts[name] = self.counts.get(name, 0) + 1
        if self.keeping is not None:
            self.keeping.want(name, event.start, event.end, when)
        facts = {"label": name, "probability": f"{event.probability:.6f}", "seconds": f"{event.end:.3f}"}
        self.actions.run(name, facts | {"time": when.isoformat(timespec="milliseconds")})

    def kept(self, last: bool = False) -> None:
        """Write what is to be kept and was heard whole."""
        if self.keeping is None:
            return
        try:
            for path in self.keeping.write(self.session.listener.ring, last):
                if self.options.json:
                    self.say({"kind": "kept", "file": str(path)})
        except OSError as error:
            self.keeping = None
            self.warn(f"nothing is kept any more: {error}")

    def finish(self, patience: float) -> None:
        """The last files, the last commands, the sum."""
        from dist_train.live import lines

        session, busy = self.session, self.session.busy
        self.kept(last=True)
        self.actions.close(patience)
        if self.options.json:
            self.say(lines.total(session, busy, self.counts))
        else:
            print(lines.summary(session, busy, self.counts), file=sys.stderr)
        if dropped := getattr(session.source, "dropped", 0):
            self.warn(f"stdin ended inside a frame: its last {dropped} bytes are no sound; is --format right?")
        if session.converter.broken:
            self.warn(
                f"{session.converter.broken} samples were no sound; they were heard as silence. Is --format right?"
            )

    def say(self, made: dict[str, Any]) -> None:
        """A JSON line."""
        print(json.dumps(made, ensure_ascii=False), flush=True)

    def warn(self, line: str) -> None:
        """Something that wants attention; also from the threads of actions."""
        print(f"listen: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
