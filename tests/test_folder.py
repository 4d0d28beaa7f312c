"""A wrong RUN is told at once: before torch is imported, in one line.

Left out are evaluate, which asks its launcher first, and listen, which opens its source first.
"""

import subprocess
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
CASES = {
    "average": [],
    "compare": ["other"],
    "embed": ["out.npz"],
    "export": ["--to", "onnx"],
    "predict": ["-"],
    "report": [],
}
MAIN = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("tool", sys.argv[1])
tool = importlib.util.module_from_spec(spec)
spec.loader.exec_module(tool)
code = tool.main(sys.argv[2:])
assert "torch" not in sys.modules
sys.exit(code)
"""


@pytest.mark.parametrize(("tool", "more"), CASES.items())
def test_no_run_there(tool: str, more: list[str], tmp_path: Path) -> None:
    command = [sys.executable, "-c", MAIN, str(TOOLS / f"{tool}.py"), "none", *more]
    done = subprocess.run(command, cwd=tmp_path, input="", capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"{tool}: none: no run there; name a folder that training made, e.g. runs/demo\n"
    assert not list(tmp_path.iterdir())


def test_a_file_and_a_cross_validation(tmp_path: Path) -> None:
    from dist_train import folder

    file = tmp_path / "clip.wav"
    file.touch()
    with pytest.raises(ValueError, match="is a file"):
        folder.trained(file)
    inner = tmp_path / "seed-0" / "fold-1"
    inner.mkdir(parents=True)
    (inner / "config.yaml").touch()
    with pytest.raises(ValueError, match=r"name one of its runs, e.g. .*seed-0/fold-1"):
        folder.trained(tmp_path)
    folder.trained(inner)
