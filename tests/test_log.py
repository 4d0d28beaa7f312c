"""The log: what a person sees, what scripts read, what TensorBoard draws, and that pictures stay readable."""

import io
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console as Terminal
from torch import nn

from dist_train import picture
from dist_train.console import Console, bar
from dist_train.layers import Layer, layers
from dist_train.log import Log
from dist_train.runs import RunFolder

RECORD = {
    **{"step": 20, "consumed": 1280, "epoch": 0.4, "loss": 1 / 3, "accuracy": 0.5625, "lr": 1e-3, "stream": "00ff"},
    **{"clips_per_second": 812.3, "audio_per_second": 2436.9, "data_wait": 0.034, "bad_samples": 1, "skipped": 0},
}
SCORES = {"kind": "valid", "step": 20, "consumed": 1280, "accuracy": 0.75, "macro_f1": 0.5, "loss": 0.25, "clips": 160}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[RunFolder]:
    folder = RunFolder(tmp_path / "run")
    folder.open()
    yield folder
    folder.close()


def _events(folder: RunFolder) -> Any:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder.tensorboard), purge_orphaned_data=True)
    events.Reload()
    return events


def _model() -> nn.Module:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Sequential(nn.Conv1d(8, 16, 3), nn.BatchNorm1d(16), nn.Dropout(0.5))
            self.blocks = nn.ModuleList([nn.Linear(16, 16), nn.Sequential(nn.Linear(16, 16), nn.ReLU())])
            self.head = nn.Linear(16, 4)

        def forward(self, feat_BTF: torch.Tensor, frames_B: torch.Tensor | None = None) -> torch.Tensor:
            hidden = self.stem(feat_BTF.transpose(1, 2)).mean(2)
            for block in self.blocks:
                hidden = block(hidden)
            return self.head(hidden)

    return Model()


def test_plain_lines_hold_the_figures(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.message("run [bold]x[/bold] 语言")
    log.begin(0, 9600, 3200)
    log.train(RECORD)
    log.eval(SCORES)
    log.warn("short read")
    log.error("no such file")
    log.close()
    out, err = capsys.readouterr()
    first, train, scores = out.splitlines()
    assert first == "run [bold]x[/bold] 语言"
    assert train.startswith("step 20  epoch 1/3  loss 0.3333  accuracy 0.5625  lr 1.0e-03  812 clips/s  2437 audio-s/s")
    assert "waiting for data 3%  bad samples 1" in train and train.endswith(" left") and "skipped" not in train
    assert scores == "valid at step 20:  accuracy 0.7500  macro_f1 0.5000  loss 0.2500  160 clips"
    assert err == "warning: short read\nerror: no such file\n"


def test_power_and_a_slow_rank_are_named(capsys: pytest.CaptureFixture[str]) -> None:
    log = Log()
    log.train({**RECORD, "tflops": 123.456, "peak_share": 0.125, "rank_seconds": [1, 1.3], "slowest_rank": 1})
    log.train({**RECORD, "tflops": 0.0123, "slowest_rank": 1, "slowest_by": 0.3})
    log.train({**RECORD, "tflops": 2e-5, "slowest_rank": 1, "slowest_by": 0.1})
    first, second, third = capsys.readouterr().out.splitlines()
    assert "123 TFLOP/s  12% of peak" in first and "rank" not in first
    assert "0.0123 TFLOP/s" in second and "rank 1 is 30% slower" in second and "peak" not in second
    assert "TFLOP" not in third and "rank" not in third


def test_a_terminal_has_a_bar_with_the_figures() -> None:
    screen = io.StringIO()
    console = Console(Terminal(file=screen, force_terminal=True, width=100, highlight=False))
    console.begin(0, 9600, 3200)
    console.train(RECORD)
    console.warn("bad [clip]")
    console.tick(4800)
    console.close()
    shown = screen.getvalue()
    last = shown.rsplit("epoch ", 1)[1]
    assert last.startswith("2/3 ") and "50%" in last and "step 20" in last and "loss 0.3333" in last
    assert "warning: bad [clip]" in shown
    assert shown.rfind("\x1b[?25h") > shown.rfind("\x1b[?25l")  # the cursor is back


def test_other_ranks_are_silent(folder: RunFolder, capsys: pytest.CaptureFixture[str]) -> None:
    log = Log(first=False)
    log.open(folder)
    log.begin(0, 10, 10)
    log.train(RECORD)
    log.eval(SCORES)
    log.message("x")
    log.warn("x")
    log.error("x")
    log.tick(1)
    log.layer_table([])
    log.config("x")
    log.confusion(torch.eye(2), ["a", "b"], 1)
    log.pictures(torch.zeros(1, 4, 4), ["a"], 1)
    log.clips(torch.zeros(1, 40), 16000, ["a"], 1)
    log.close()
    assert capsys.readouterr() == ("", "")
    assert {path.name for path in folder.path.iterdir()} == {".lock", ".owner"}


def test_records_reach_the_metrics_with_every_digit(folder: RunFolder) -> None:
    log = Log()
    log.open(folder, tensorboard=False)
    log.train(RECORD)
    log.eval(SCORES)
    log.eval({"step": 21, "accuracy": 1.0})
    log.close()
    lines = (folder.path / "metrics.jsonl").read_text().splitlines()
    assert '"loss": 0.3333333333333333' in lines[0] and '"stream": "00ff"' in lines[0]
    assert [line.split(",")[0] for line in lines] == ['{"kind": "train"', '{"kind": "valid"', '{"kind": "eval"']
    assert not folder.tensorboard.exists()


def test_tensorboard_has_scalars_pictures_clips_and_texts(folder: RunFolder) -> None:
    log = Log()
    log.open(folder)
    log.config("seed: 1")
    log.train(RECORD)
    log.eval(SCORES)
    log.confusion(torch.eye(3), ["a", "b", "c"], 20)
    log.pictures(torch.randn(2, 50, 20), ["dog", "语言"], 20)
    log.clips(torch.randn(2, 1600), 16000, ["dog", "语言"], 20)
    log.close()
    tags = _events(folder).Tags()
    assert {"train/loss", "train/lr", "train/clips_per_second", "valid/accuracy"} <= set(tags["scalars"])
    assert not {"train/step", "train/stream", "train/consumed"} & set(tags["scalars"])
    assert {"confusion", "features"} == set(tags["images"]) and {"clips/0", "clips/1"} == set(tags["audio"])
    assert {"config/text_summary", "clips/labels/text_summary"} <= set(tags["tensors"])
    assert (folder.path / "confusion.png").read_bytes().startswith(b"\x89PNG")


def test_a_resumed_runs_curve_does_not_double(folder: RunFolder) -> None:
    for start, value in ((0, 0.1), (2, 0.9)):
        log = Log()
        log.open(folder, step=start or None)
        for step in range(start + 1, 5):
            log.train({**RECORD, "step": step, "loss": value})
        log.close()
        folder.path.touch()
    points = [(event.step, round(event.value, 3)) for event in _events(folder).Scalars("train/loss")]
    assert points == [(1, 0.1), (2, 0.1), (3, 0.9), (4, 0.9)]


def test_a_tensorboard_that_cannot_be_written_is_one_warning(
    folder: RunFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    folder.tensorboard.write_text("a file where the folder should be")
    log = Log()
    log.open(folder)
    for step in (1, 2, 3):
        log.train({**RECORD, "step": step})
    log.close()
    assert capsys.readouterr().err.count("warning: cannot write") == 1
    assert len((folder.path / "metrics.jsonl").read_text().splitlines()) == 3


def test_the_layer_table_leaves_the_model_as_it_was() -> None:
    model = _model()
    model.train()
    model.stem[1].eval()  # a frozen layer stays frozen
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    rows = layers(model, (20, 8))
    assert [module.training for module in model.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert Layer("stem", "Sequential", (1, 16, 18), 8 * 16 * 3 + 16 + 32) in rows
    assert Layer("stem.0", "Conv1d", (1, 16, 18), 8 * 16 * 3 + 16) in rows
    assert Layer("blocks", "ModuleList", (), 2 * (16 * 16 + 16)) in rows
    assert Layer("blocks.1", "Sequential", (1, 16), 16 * 16 + 16) in rows
    assert rows[-1] == Layer("total", "Model", (1, 4), sum(value.numel() for value in model.parameters()))
    assert not any(row.name == "blocks.1.0" for row in rows)


def test_the_layer_table_is_printed_whole(capsys: pytest.CaptureFixture[str]) -> None:
    long = "a_module_with_a_very_long_name.and_a_child_with_a_longer_one_still"
    Log().layer_table([Layer(long, "Conv1d", (1, 2, 3), 1234567), Layer("total", "Model", (1, 4), 1234567)])
    out = capsys.readouterr().out
    assert f"  {long}" in out and "1 x 2 x 3" in out and out.count("1,234,567") == 2


@pytest.mark.parametrize("count", [2, 10, 50, 120])
def test_confusion_matrices_of_any_size_and_alphabet_draw_in_silence(
    count: int, capfd: pytest.CaptureFixture[str]
) -> None:
    classes = ["语言识别", "한국어", "日本語", "$a_b^", "\U000e0001", "", "x" * 90, *map(str, range(count))][:count]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        figure = picture.confusion(torch.randint(0, 9, (count, count)), classes)
        pixels = picture.pixels(figure)
        assert picture.png(figure).startswith(b"\x89PNG")
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3 and max(pixels.shape) <= 2500
    assert capfd.readouterr() == ("", "")


def test_names_that_no_font_has_become_numbers() -> None:
    shown = picture.names(["dog", "\U000e0001", "y" * 40])
    assert shown == ["dog", "class 1", "y" * 23 + "…"]


def test_a_class_without_clips_divides_nothing_by_zero() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pixels = picture.pixels(picture.confusion(torch.zeros(3, 3, dtype=torch.int64), ["a", "b", "c"]))
    assert pixels.dtype == np.uint8 and pixels.shape[2] == 3


def test_a_long_work_elsewhere_than_on_a_terminal_says_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with bar("packing", seconds=3600) as show:
        for done in range(1, 101):
            show(done, 100)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("packing: 100/100, ") and lines[0].endswith("0 s left")


@pytest.mark.parametrize("coding", ["ascii", "cp1252"])
def test_a_poor_terminal_does_not_end_a_run(coding: str, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding=coding, newline="\n"))
    log = Log()
    log.message("class 语言")
    log.layer_table([Layer("conv", "Conv1d", (1, 2), 1), Layer("total", "Model", (1,), 1)])
    assert raw.getvalue().startswith(b"class \\u8bed\\u8a00\n") and b"1 x 2" in raw.getvalue()


def test_a_start_does_not_wait_for_pictures_and_tensorboard(environment: dict[str, str]) -> None:
    code = "import sys, dist_train.log; print(sorted({'tensorboard', 'matplotlib', 'PIL'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
