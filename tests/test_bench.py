"""`make bench` on a corpus of 64 sentences: everything runs and is recorded; no test is about speed."""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from bench.parts import Bench
from bench.results import LINES, TRAINING_RATIOS, summary
from bench.sizes import FULL, SIZES
from bench.watch import Watch
from whisper_ft.config import yaml12
from whisper_ft.config.waveform import TRANSFORMS

ROOT = Path(__file__).parents[1]
HANGS_SECONDS = 1500


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Finished process of `python -m bench`."""
    return subprocess.run(
        [sys.executable, "-m", "bench", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=HANGS_SECONDS,
    )


def quick(folder: Path, *only: str) -> dict[str, Any]:
    """Content of results.json after a quick run of some parts, with its output."""
    done = bench("--quick", "--only", *only, "--out", str(folder / "results.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    return {**json.loads((folder / "results.json").read_text(encoding="utf-8")), "printed": done.stdout}


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return quick(tmp_path_factory.mktemp("bench"), SIZES[0].name, "normalizer")


def test_the_memory_of_workers_stands_beside_that_of_the_process_not_in_it():
    worker = "held = b'x' * 64_000_000; print('ready', flush=True); input()"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", parent], **pipes, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        with Watch(process.pid) as watch:
            while not (figures := watch.result())["peak_rss_with_workers_mb"]:
                time.sleep(0.1)  # sampled while the worker lives: it has ended at the last sample
            process.communicate("\n")
    assert 0 < figures["peak_rss_mb"] < 64 < figures["peak_rss_with_workers_mb"] - figures["peak_rss_mb"]


@pytest.mark.matrix
def test_a_window_of_30_seconds_is_measured_too(tmp_path: Path):
    results = quick(tmp_path, "micro-30s")
    evaluation = results["sizes"]["micro-30s"]["evaluation"]
    assert evaluation["utterances"] > 0
    assert evaluation["differing_texts"] == 0
    for title in ("Training, micro-30s", "Evaluation, micro-30s"):
        assert title in results["printed"]


@pytest.mark.matrix
def test_the_other_parts_report_their_figures(tmp_path: Path):
    results = quick(tmp_path, "loader", "card")
    assert {name: set(loader["contenders"]) for name, loader in results["loader"].items()} == {
        "micro-5s": {"ours", "trainer"},
        "micro-30s": {"ours", "trainer"},
    }
    assert set(results["card"]) == {"micro-5s, bf16", "micro-5s, fp16"}
    for figures in results["card"].values():
        assert figures["mfu"] > 0
        assert figures["operations_per_step"] > 1e9
    for title in ("Data alone", "MFU"):
        assert title in results["printed"]


@pytest.mark.matrix
def test_packing_is_measured_in_speech_for_each_second(tmp_path: Path):
    results = quick(tmp_path, "packing")
    contenders = results["packing"]["micro-30s"]["contenders"]
    assert set(contenders) == {"packed", "unpacked"}
    for figures in contenders.values():
        assert figures["speech_seconds_per_second"]["median"] > 0
        assert 3.0 <= figures["seconds_per_utterance"]["median"] <= 4.5
    assert contenders["packed"]["fill"]["median"] > 0.5
    assert "Packing, micro-30s" in results["printed"]


@pytest.mark.matrix
def test_every_transform_of_sound_has_a_cost(tmp_path: Path):
    results = quick(tmp_path, "augment")
    costs = results["augment"]["ms"]
    assert set(TRANSFORMS) <= {name.split()[0] for name in costs}
    assert all(milliseconds > 0 for milliseconds in costs.values())
    assert "augmentation, ms" in results["printed"]


@pytest.mark.matrix
def test_the_rates_with_and_without_augmentation_stand_in_one_table(tmp_path: Path, corpus: Path, micro_whisper: Path):
    config = {
        "model": {"name": str(micro_whisper)},
        "data": {"path": str(corpus / "train"), "language": "be"},
        "steps": 2,
        "eval": {"every": 0},
    }
    (tmp_path / "few.yaml").write_text(yaml12.dump(config))
    options = ["--config", str(tmp_path / "few.yaml"), "--test", str(corpus / "test"), "--out", str(tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "bench.noisy_wer", *options], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rates = json.loads((tmp_path / "out/results.json").read_text())["rates"]
    assert {name: set(each) for name, each in rates.items()} == {name: {"clean", "augmented"} for name in rates}
    assert set(rates) == {"clean", "augmented"}


@pytest.mark.matrix
def test_every_contender_reports_every_figure(results: dict[str, Any]):
    trained = {
        "utterances_per_second",
        "first_step_seconds",
        "start_to_first_step_seconds",
        "loss",
        "peak_rss_mb",
        "peak_rss_with_workers_mb",
        "cpu_seconds",
        "others_share",
    }
    assert list(results["sizes"]) == ["micro-5s"]
    for size in results["sizes"].values():
        training, evaluation = size["training"]["contenders"], size["evaluation"]["contenders"]
        assert set(training) == {"limit", "ours_w0", "ours_w2", "trainer_w0", "trainer_w2"}
        assert set(evaluation) == {"plain", "ours", "pipeline"}
        for figures in training.values():
            assert trained <= set(figures)
        for figures in [*training.values(), *evaluation.values()]:
            assert figures["utterances_per_second"]["median"] > 0
            assert figures["peak_rss_mb"]["median"] > 100
            assert len(figures["runs"]) == 1
        assert set(size["training"]["ratios"]) == {f"{a}/{b}" for a, b in TRAINING_RATIOS}
    assert results["normalizer"]["ratio"] > 0
    assert "Training, micro-5s" in results["printed"]


@pytest.mark.matrix
def test_the_limit_trains_on_the_batches_of_train_py(results: dict[str, Any]):
    for size in results["sizes"].values():
        contenders = size["training"]["contenders"]
        limit, *ours = (contenders[name]["loss"]["median"] for name in ("limit", "ours_w0", "ours_w2"))
        assert ours == pytest.approx([limit, limit], abs=2e-4), "after six updates of the same batches"


@pytest.mark.matrix
def test_evaluate_py_writes_what_the_plain_loop_writes(results: dict[str, Any]):
    for size in results["sizes"].values():
        assert size["evaluation"]["utterances"] > 0
        assert size["evaluation"]["differing_texts"] == 0


@pytest.mark.matrix
def test_the_results_name_the_machine_but_no_path_of_it(results: dict[str, Any]):
    assert results["machine"]["cpu"]
    assert results["machine"]["cores"] == os.cpu_count()
    assert "torch" in results["machine"]["packages"]
    text = json.dumps({name: value for name, value in results.items() if name != "printed"})
    assert str(ROOT) not in text
    assert tempfile.gettempdir() not in text
    assert os.uname().nodename not in text


def test_ratios_are_of_medians_and_their_range_is_of_rounds():
    runs = {
        "a": [{"utterances_per_second": rate} for rate in (90.0, 100.0, 50.0)],
        "b": [{"utterances_per_second": rate} for rate in (100.0, 100.0, 100.0)],
    }
    assert summary(runs, [("a", "b")])["ratios"] == {"a/b": {"ratio": 0.9, "min": 0.5, "max": 1.0}}


@pytest.mark.parametrize(("flag", "value"), [("--steps", 0), ("--repeats", 0)])
def test_a_bench_without_steps_or_repeats_is_refused(flag: str, value: int):
    done = bench("--out", "unused.json", flag, str(value))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {flag} must be")
    assert done.stderr.count("\n") == 1


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here: it would be measured for minutes")
def test_a_part_that_needs_a_gpu_is_left_out_with_the_reason(tmp_path: Path):
    left_out = Bench(FULL, 1, tmp_path, tmp_path).card()
    assert "CUDA" in left_out["left_out"]
    assert left_out["left_out"] in "".join(LINES["card"](left_out))
