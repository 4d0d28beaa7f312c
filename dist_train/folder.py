"""Is there a run of that name? In: a path; out: nothing, or the one line that says no. Imports nothing that is slow."""

from pathlib import Path


def trained(run: Path) -> None:
    """ValueError: no run there."""
    if (run / "config.yaml").is_file():
        return
    if run.is_file():
        raise ValueError(f"{run}: is a file, so no run there; name the folder that training made, e.g. runs/demo")
    if inner := sorted(run.glob("seed-*/fold-*/config.yaml")):
        raise ValueError(f"{run}: a cross-validation, not one run; name one of its runs, e.g. {inner[0].parent}")
    raise ValueError(f"{run}: no run there; name a folder that training made, e.g. runs/demo")
