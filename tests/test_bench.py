"""tools/bench.py: the arithmetic of pairs, roofs and advice; peers that are absent; one row by the command line."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dist_train.bench import catalogue, fbank, gpu, length, material, peer, roof, roofline, suite, training, whole
from dist_train.bench.child import TUNED, environment
from dist_train.bench.pair import Pair, paired
from dist_train.bench.row import ABSENT, Row, Work, duration, rate
from dist_train.window import window_samples

TINY = Work(Path("."), quick=True, times=1)


def _turns(*seconds: float) -> Any:
    """A side that says these times, one a call, after its warm-up."""
    left = iter((99.0, *seconds))
    return lambda: next(left)


def test_sides_take_turns_after_a_warm_up() -> None:
    calls: list[str] = []
    paired(lambda: calls.append("ours"), lambda: calls.append("peer"), 2)
    assert calls == ["ours", "peer", "ours", "peer", "ours", "peer"]


def test_ratio_is_the_median_of_the_pairs_not_of_the_sides() -> None:
    pair = paired(_turns(1.0, 2.0, 4.0), _turns(3.0, 4.0, 20.0), 3)
    assert (pair.ratio, pair.low, pair.high) == (3.0, 2.0, 5.0)
    assert (pair.ours_seconds, pair.peer_seconds) == (2.0, 4.0)


def test_a_side_that_fails_leaves_the_other_measured() -> None:
    def fails() -> None:
        raise RuntimeError("no such thing\nsecond line")

    pair = paired(_turns(1.0), fails, 1)
    assert (pair.ours, pair.peer, pair.ratio) == ((1.0,), (), None)
    assert pair.note == "peer: RuntimeError: no such thing"


def test_rows_of_rates_and_of_times() -> None:
    pair = Pair((0.5,), (2.0,))
    assert rate("g", "n", pair, 10, "clips/s").ours == 20
    assert rate("g", "n", pair, 10, "clips/s").ratio == 4
    row = duration("g", "n", pair, 10, "us a clip", peer="them", version="1", goal=5.0)
    assert (row.ours, row.peer_value, row.reached) == (pytest.approx(50_000), pytest.approx(200_000), False)


@pytest.mark.parametrize(
    ("row", "reached"),
    [
        (Row("g", "n", "u", ours=1.0, goal=2.0), False),
        (Row("g", "n", "u", ours=0.04, goal_most=0.05), True),
        (Row("g", "n", "u", ours=9.0, peer="p", goal=2.0), None),
        (Row("g", "n", "u", ours=9.0, peer="p", ratio=2.5, goal=2.0), True),
        (Row("g", "n", "u", ours=9.0), None),
    ],
)
def test_goal_is_held_against_the_ratio_or_without_a_peer_against_ours(row: Row, reached: bool | None) -> None:
    assert row.reached is reached


def test_floor_is_the_slower_of_memory_and_arithmetic() -> None:
    stage = roof.Stage("s", bytes=1e6, flops=1e6)
    assert stage.floor(bandwidth=1e9, rate=1e10) == pytest.approx(1000)
    assert stage.floor(bandwidth=1e12, rate=1e9) == pytest.approx(1000)
    assert (stage.bound(1e9, 1e10), stage.bound(1e12, 1e9)) == ("memory", "arithmetic")


def test_stages_count_what_the_front_end_makes() -> None:
    audio = chain_audio()
    assert roof.frame_count(audio.seconds) == fbank.bank().frames(window_samples(audio)) == 298
    one, two = roof.stages(3.0), roof.stages(6.0)
    assert one["read"].bytes == 2 * 2 * 48000
    assert all(two[name].bytes > 1.9 * one[name].bytes for name in one)
    assert roof.front_end().flops == pytest.approx(sum(stage.flops for stage in one.values()))
    assert roof.front_end().bytes < sum(stage.bytes for stage in one.values())


def chain_audio() -> Any:
    """The audio settings of the chain."""
    from dist_train.bench.chain import settings

    return settings()[0]


def test_shares_of_a_known_gpu() -> None:
    peak = roof.gpu("NVIDIA H200")
    assert peak is not None and peak.memory == 4800
    shares = roof.shares("ecapa", 20_000, peak)
    assert shares["eager memory"] == pytest.approx(20_000 * 215e6 / 4.8e12)
    assert shares["compute"] == pytest.approx(20_000 * 9.3e9 / 989.4e12)
    assert shares["fused memory"] < shares["eager memory"]
    assert roof.gpu("Some Other Card") is None
    assert roof.shares("ecapa", 20_000, None) == {} == roof.shares("no such network", 1, peak)


@pytest.mark.parametrize(
    ("name", "memory"),
    [("NVIDIA H100 80GB HBM3", 3350), ("NVIDIA H100 PCIe", 2039), ("NVIDIA A100-SXM4-80GB", 2039), ("NVIDIA L4", 300)],
)
def test_the_name_that_fits_best_comes_first(name: str, memory: float) -> None:
    found = roof.gpu(name)
    assert found is not None and found.memory == memory


def test_advice_on_shared_cores() -> None:
    advice = roof.advise(read=10, front=500, step=1500, shared=True, cores=2)
    assert advice.bottleneck == "model" and advice.threads == 1
    assert advice.rates == {"reader": 1e5, "front end": 2000.0, "model": pytest.approx(1e6 / 1500)}


def test_advice_asks_for_the_threads_that_feed_a_fast_device() -> None:
    advice = roof.advise(read=40, front=10, step=12, shared=False, cores=16)
    assert advice.threads == 5  # 1.25 * 83 k / 25 k
    assert advice.bottleneck == "model"
    few = roof.advise(read=40, front=10, step=12, shared=False, cores=2)
    assert (few.threads, few.bottleneck) == (2, "reader")
    assert "data.threads=2" in few.text


def test_speed_and_level_are_what_they_add() -> None:
    quick = {"decode": 50.0, "moved": 80.0, "levelled": 90.0, "Fbank": 300.0}
    slow = {name: 3 * value for name, value in quick.items()}
    assert roofline.stage_times([slow, quick, quick]) == {"decode": 50.0, "Fbank": 300.0, "speed": 30.0, "level": 10.0}


def test_wait_for_data_is_what_the_ratio_lacks() -> None:
    assert whole.wait(Pair((2.0,), (1.5,))) == pytest.approx(0.25)
    assert whole.wait(Pair((1.0,), (1.1,))) == 0.0
    assert whole.wait(Pair()) is None


def test_gpu_arithmetic() -> None:
    assert gpu.per_call(milliseconds=500.0, times=20) == pytest.approx(0.025)
    assert gpu.audio_rate(512, 3.0, 0.001) == pytest.approx(1_536_000)
    assert gpu.share(front=1.0, step=19.0) == pytest.approx(0.05)


def _pass(clips: int, speed: float, memory: float | None) -> Row:
    return Row("linear", "x", "clips/s", ours=speed, more={"clips": clips, "RssAnon MB": memory})


def test_passes_of_two_sizes_become_rate_and_memory() -> None:
    small, large = [_pass(100, 50.0, 200.0), _pass(100, 60.0, 201.0)], [_pass(1000, 49.0, 230.0)] * 2
    speed, memory = length.combine(small, large)
    assert speed.ratio == pytest.approx((49 / 50 + 49 / 60) / 2) and speed.reached is False
    assert memory.ours == pytest.approx(29.0) and memory.reached is True
    assert length.combine([_pass(100, 1.0, None)], [_pass(1000, 1.0, None)])[1].ours is None
    assert length.combine([], [])[0].note == "not measured"


def test_anonymous_memory_is_read_from_the_status() -> None:
    assert length.anonymous("Name:\tx\nRssAnon:\t    2048 kB\nRssFile:\t 9 kB\n") == 2.0
    assert length.anonymous("Name:\tx\n") is None


def test_errors_against_float64() -> None:
    exact = torch.zeros(4, dtype=torch.float64)
    found = fbank.errors(torch.tensor([0.0, 1e-5, -2e-4, 0.0]), exact)
    assert found["mean"] == pytest.approx(5.25e-5) and found["max"] == pytest.approx(2e-4)
    assert found["share over 1e-4"] == 0.25


def test_flops_are_those_of_the_products() -> None:
    class Line(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.line = torch.nn.Linear(training.BINS, 7)

        def forward(self, feat_BTF: torch.Tensor, frames_B: None) -> torch.Tensor:
            out: torch.Tensor = self.line(feat_BTF)
            return out

    forward = 2 * 5 * training.BINS * 7
    assert training.flops(Line(), 5, torch.device("cpu")) == 2 * forward  # and the weights' gradient


def test_a_peer_that_cannot_be_imported_is_not_installed() -> None:
    assert peer.take("no_such_peer.inside") == (None, ABSENT)
    row = rate("g", "n", Pair((1.0,)), 1, "clips/s", peer="theirs", version=ABSENT, goal=2.0, note="why")
    assert (row.peer_value, row.ratio, row.reached) == (None, None, None)
    assert row.note == f"{ABSENT}; why"


@pytest.mark.parametrize("name", ["fbank/speed", "speechbrain/fbank"])
def test_measures_without_any_peer(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for module in ("torchaudio.compliance.kaldi", "kaldi_native_fbank", "speechbrain.lobes.features"):
        monkeypatch.setitem(sys.modules, module, None)
    rows = catalogue.MEASUREMENTS[name](Work(tmp_path, quick=True, times=1))
    assert rows and all(row.version == ABSENT and row.ours and row.peer_value is None for row in rows)


def test_jobs_are_one_process_each_but_few_with_quick() -> None:
    names = ["read/96 KB", "read/6 KB", "chain/wav", "chain/8 kHz", "linear/1", "linear/10"]
    full = suite.jobs(names, Work(Path("."), times=9))
    assert [job.names for job in full if job.names[0].startswith("read")] == [("read/96 KB",), ("read/6 KB",)]
    assert [(job.names, job.malloc) for job in full if job.names == ("chain/wav",)] == [
        (("chain/wav",), "untuned"),
        (("chain/wav",), "tuned"),
    ]
    assert [job.names[0] for job in full][-6:] == ["linear/1", "linear/10"] * 3
    quick = suite.jobs(names, TINY)
    assert quick[0].names == ("read/96 KB", "read/6 KB")
    assert [job.names for job in quick if job.names[0].startswith("linear")] == [("linear/1",), ("linear/10",)]
    for found in (full, quick):
        assert {name for job in found for name in job.names} == set(names)


def test_children_get_the_same_settings_for_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MALLOC_ARENA_MAX", "7")
    assert not {name for name in environment("untuned") if name.startswith("MALLOC_")}
    assert environment("tuned").items() >= TUNED.items()
    assert environment("tuned")["OMP_NUM_THREADS"] == "1"


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU compiles in any case")
def test_a_cpu_compiles_only_when_asked() -> None:
    assert list(training.variants(Work(Path(".")))) == ["eager"]
    assert list(training.variants(Work(Path("."), full=True))) == ["eager", "compiled"]


def test_a_measurement_that_fails_is_a_row_that_says_so(tmp_path: Path) -> None:
    from dist_train.bench import child

    empty = tmp_path / "nothing"
    empty.mkdir()
    rows, problem = child.ask(["chain/decoding"], Work(tmp_path, quick=True, times=1, data=empty))
    assert problem == "" and len(rows) == 1
    assert rows[0].note.startswith("failed: ValueError") and "no recordings" in rows[0].note
    assert rows[0].more["measured by"] == "chain/decoding"


def test_patterns_choose_groups_parts_and_wildcards() -> None:
    assert catalogue.choose([]) == catalogue.names()
    assert set(catalogue.choose(["read/*"])) == {"read/96 KB", "read/6 KB", "read/hand-over"}
    assert catalogue.choose(["8 KHZ"]) == ["chain/8 kHz"]
    assert catalogue.choose(["linear/10"]) == ["linear/1", "linear/10"]
    with pytest.raises(ValueError, match="nothing to measure is called 'xyz'"):
        catalogue.choose(["xyz"])


def test_material_is_the_same_every_time_and_readable(tmp_path: Path) -> None:
    assert np.array_equal(material.speech(1600, 16000, 3), material.speech(1600, 16000, 3))
    view = material.opened(material.shard_folder(Work(tmp_path), 20, 0.1))
    listed = material.clip_list(Work(tmp_path), 20, 0.1).read_text(encoding="utf-8").splitlines()
    assert len(view) == len(listed) == 20
    row = view.rows(np.array([3]))[0]
    assert (row["frames"], row["rate"]) == (1600, 16000)
    shard = view.files[row["file"]].read_bytes()
    audio = shard[int(row["offset"]) : int(row["offset"]) + int(row["size"])]
    assert Path(listed[3].split("\t")[0]).read_bytes().endswith(audio)


def _run(root: Path, environment: dict[str, str], *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, str(root / "tools/bench.py"), *map(str, arguments)]
    return subprocess.run(line, env=environment, capture_output=True, text=True, timeout=120)


def test_one_row_through_the_command_line(root: Path, environment: dict[str, str], tmp_path: Path) -> None:
    file = tmp_path / "figures.json"
    done = _run(root, environment, "--quick", "--times", "1", "--json", file, "fbank/speed")
    assert done.returncode == 0, done.stderr
    assert "clips/s" in done.stdout and "fbank" in done.stdout
    assert "bench: 1 of 1: fbank/speed" in done.stderr
    found = json.loads(file.read_text(encoding="utf-8"))
    assert {"processor", "cores", "packages", "command", "peers"} <= found["machine"].keys()
    assert "tools/bench.py --quick --times 1" in found["machine"]["command"]
    row = found["rows"][0]
    assert {"group", "name", "unit", "ours", "peer", "version", "peer_value", "ratio", "goal", "note"} <= row.keys()
    assert row["ours"] > 0 and row["ratio"] == pytest.approx(row["ours"] / row["peer_value"])
    native = found["rows"][1]
    assert native["version"] == ABSENT or native["peer_value"] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("nonsense",), "nothing to measure is called 'nonsense'"),
        (("--times", "0"), "--times 0"),
        (("--data", "absent"), "--data absent: no such folder"),
        (("--json", "absent/figures.json"), "--json absent/figures.json"),
    ],
)
def test_bad_arguments_are_one_line(
    root: Path, environment: dict[str, str], arguments: tuple[str, ...], said: str
) -> None:
    done = _run(root, environment, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1 and said in done.stderr
