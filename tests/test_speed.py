"""Figures of speed: peaks by name, the slowest rank, and figures that agree with each other."""

import gc

import pytest
import torch

from dist_train import speed
from dist_train.engine import collections_when_told
from dist_train.speed import Speed, Stopwatch
from dist_train.world import Place, World

CPU = torch.device("cpu")
WORLD = World(Place(), CPU, "gloo", 1)
BF16, FP16 = torch.bfloat16, torch.float16


@pytest.mark.parametrize(
    ("name", "half", "tf32", "tera"),
    [
        ("NVIDIA H100 80GB HBM3", BF16, True, 989.4),
        ("NVIDIA H100 PCIe", BF16, True, 756),
        ("NVIDIA H200", None, True, 494.7),
        ("NVIDIA A100-SXM4-40GB", None, False, 19.5),
        ("NVIDIA A100 80GB PCIe", FP16, False, 312),
        ("NVIDIA L4", BF16, True, 121),
        ("NVIDIA L40S", BF16, True, 362),
        ("NVIDIA A10G", None, True, 35),
        ("NVIDIA A10", None, True, 62.5),
        ("NVIDIA B200", BF16, True, 2250),
        ("Tesla T4", FP16, True, 65),
        ("Tesla T4", None, True, 8.1),  # it has no TF32
        ("Tesla T4", BF16, True, None),  # nor bf16
        ("Tesla V100-PCIE-32GB", FP16, True, 112),
        ("Tesla V100-SXM2-16GB", FP16, True, 125),
        ("NVIDIA GeForce RTX 4090", BF16, True, 165.2),
        ("NVIDIA GeForce RTX 3090 Ti", None, False, 35.6),
        ("Radeon 7900", BF16, True, None),
    ],
)
def test_peaks(name: str, half: torch.dtype | None, tf32: bool, tera: float | None) -> None:
    assert speed.peak(name, half, tf32) == (pytest.approx(tera * 1e12) if tera is not None else None)


def test_a_cpu_has_no_peak() -> None:
    assert speed.device_peak(CPU, None, torch.float32) is None


def test_the_slowest_rank_is_measured_by_the_others() -> None:
    assert speed.slowest([1.0, 1.5]) == (1, pytest.approx(0.5))
    assert speed.slowest([2.0, 1.0, 1.0, 9.0]) == (3, pytest.approx(8.0))
    assert speed.slowest([1.0, 1.0, 1.0])[1] == 0
    assert speed.slowest([0.0, 0.0]) == (0, 0.0)


def test_figures_agree() -> None:
    found = Speed(WORLD, 3.0, Stopwatch(CPU, False))
    assert found.summary() is None
    found.flops, found.top = 2e9, 1e15
    found.begin(1000)
    record = found.figures(1640, 0.0)
    rate = record["clips_per_second"]
    assert rate > 0 and record["audio_per_second"] == pytest.approx(3 * rate)
    assert record["tflops"] == pytest.approx(2e9 * rate / 1e12)
    assert record["peak_share"] == pytest.approx(2e9 * rate / 1e15)
    assert record["data_wait"] == 0 and record["peak_memory"] > 0.01
    assert "slowest_rank" not in record  # of one
    assert "clips/s" in str(found.summary())


def test_without_a_count_or_a_peak_their_figures_are_absent() -> None:
    found = Speed(WORLD, 3.0, Stopwatch(CPU, False))
    assert not {"tflops", "peak_share"} & found.figures(10, 0.0).keys()
    found.flops = 1e9
    assert found.figures(20, 0.0).keys() & {"tflops", "peak_share"} == {"tflops"}


def test_a_pause_is_not_counted() -> None:
    through, paused = (Speed(WORLD, 3.0, Stopwatch(CPU, False)) for _ in range(2))
    for found in (through, paused):
        found.begin(0)
    with paused.paused():
        torch.linalg.svd(torch.ones(300, 300))
    rates = [found.figures(10, 0.0)["clips_per_second"] for found in (through, paused)]
    assert rates[1] > rates[0]


def test_a_stopwatch_gives_the_mean_of_its_steps() -> None:
    watch, off = Stopwatch(CPU, True), Stopwatch(CPU, False)
    for one in (watch, off):
        assert one.take() == (0, 0)
        for groups in (1, 2, 0, 3):  # nothing of a step without a group
            one.start()
            torch.linalg.svd(torch.ones(50, 50))
            one.stop(groups)
    seconds, groups = watch.take()
    assert seconds > 0 and groups == 6
    assert watch.take() == off.take() == (0, 0)


def test_a_stopwatch_counts_on_past_the_steps_that_it_times() -> None:
    watch = Stopwatch(CPU, True)
    for _ in range(1000):
        watch.start()
        watch.stop(2)
    assert watch.take()[1] == 2000


def test_garbage_is_collected_when_told_and_as_before_after_an_error() -> None:
    assert gc.isenabled()
    with pytest.raises(ValueError, match="torn"), collections_when_told():
        assert not gc.isenabled() and gc.get_freeze_count() > 0
        raise ValueError("torn")
    assert gc.isenabled() and gc.get_freeze_count() == 0
