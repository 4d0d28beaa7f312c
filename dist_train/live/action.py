"""A label that was heard -> a command that runs: without a shell, what it may use in its environment.

LISTEN_LABEL, LISTEN_PROBABILITY, LISTEN_SECONDS (of the stream), LISTEN_TIME (ISO 8601). The text of a label never
becomes a part of the command. Starting and waiting happen in threads,
never where sound is understood; a label's command runs once at a time, and only so many do at all.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

ANY = "*"
MOST = 8  # commands at a time
GRACE = 2.0  # seconds between asking a command to end and killing it


def parse(texts: Sequence[str], classes: Sequence[str]) -> dict[str, list[str]]:
    """`LABEL=COMMAND` each -> words of the command by label; `*`: any label that has no command of its own.

    A class may itself hold `=`: the longest class that fits is meant. ValueError: no such class, or no such command.
    """
    found: dict[str, list[str]] = {}
    for text in texts:
        fits = [name for name in (*classes, ANY) if text.startswith(f"{name}=")]
        if not fits:
            known = ", ".join(map(repr, classes[:5])) + (", ..." if len(classes) > 5 else "")
            raise ValueError(f"--action {text}: begins with no class and `=`; the classes are {known}, `*` is any")
        label = max(fits, key=len)
        try:
            words = shlex.split(text[len(label) + 1 :])
        except ValueError as error:
            raise ValueError(f"--action {text}: {error}; check the quotes") from None
        if not words or shutil.which(words[0]) is None:
            raise ValueError(f"--action {text}: there is no command `{words[0] if words else ''}`; give its path")
        if label in found:
            raise ValueError(f"--action {text}: the label has a command already; join both in a script")
        found[label] = words
    return found


class Actions:
    """Commands of labels. `warn` is called from threads, with a line for each that failed or could not start."""

    def __init__(self, commands: dict[str, list[str]], seconds: float, warn: Callable[[str], None]) -> None:
        """`seconds`: time limit of a command."""
        self.commands, self.seconds, self.warn = commands, seconds, warn
        self._running: dict[str, threading.Thread] = {}
        self._stopped = threading.Event()

    def run(self, label: str, facts: dict[str, str]) -> None:
        """Start the command of a label, if it has one. `facts`: for its environment, names without LISTEN_."""
        words = self.commands.get(label, self.commands.get(ANY))
        if words is None:
            return
        self._running = {name: thread for name, thread in self._running.items() if thread.is_alive()}
        if label in self._running:
            self.warn(f"action of `{label}`: left out, the one before still runs")
        elif len(self._running) >= MOST:
            self.warn(f"action of `{label}`: left out, {MOST} others still run")
        else:
            given = {f"LISTEN_{name.upper()}": value for name, value in facts.items()}
            thread = threading.Thread(target=self._work, args=(label, words, os.environ | given), daemon=True)
            self._running[label] = thread
            thread.start()

    def close(self, patience: float) -> None:
        """Wait for the commands that run, `patience` seconds at most; what still runs then is ended."""
        end = time.monotonic() + patience
        for thread in self._running.values():
            thread.join(max(0.0, end - time.monotonic()))
        self._stopped.set()
        for thread in self._running.values():
            thread.join(2 * GRACE)

    def _work(self, label: str, words: list[str], environment: dict[str, str]) -> None:
        try:
            process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=sys.__stderr__,  # stdout is for labels
                env=environment,
                start_new_session=True,  # its children end with it, and Ctrl-C is not theirs
            )
        except (OSError, ValueError) as error:
            self.warn(f"action of `{label}`: `{words[0]}` did not start: {error}")
            return
        end = time.monotonic() + self.seconds
        while process.poll() is None and time.monotonic() < end and not self._stopped.wait(0.05):
            pass
        if process.poll() is None:
            _end(process)
            why = "the program ended" if self._stopped.is_set() else f"it ran longer than {self.seconds:g} s"
            self.warn(f"action of `{label}`: `{words[0]}` was ended, for {why}")
        elif process.returncode:
            self.warn(f"action of `{label}`: `{words[0]}` failed with exit code {process.returncode}")


def _end(process: "subprocess.Popen[bytes]") -> None:
    """Ask a command and its children to end, then kill what is left, also where the command left them behind."""
    there, end = _signal(process, signal.SIGTERM), time.monotonic() + GRACE
    while there and time.monotonic() < end:
        time.sleep(0.02)
        process.poll()  # a command that has ended counts as there until it is asked
        there = _signal(process, 0)
    if there:
        _signal(process, getattr(signal, "SIGKILL", signal.SIGTERM))
    process.wait()


def _signal(process: "subprocess.Popen[bytes]", number: int) -> bool:
    """To a command and its children; False: there are none any more."""
    with suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, number)
        elif number:
            process.terminate()
        return process.returncode is None or hasattr(os, "killpg")
    return False
