"""The README's commands run, as they stand there, in a fresh clone."""

import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from tests.conftest import ROOT, environment
from tests.pages import blocks_in, cloned, commands_of, plain_words, run_all
from tests.starts import Ended

SMALL_DEMO = {
    "DEMO_CORPUS": "--train 60 --validation 8 --test 8",
    "DEMO_TRAIN": "--steps 4 --log.every 2 --eval.every 4 --eval.max_new_tokens 12",
}
MINE = """
steps: 2
model: {name: demo-data/micro-whisper}
data: {path: demo-data/be/train, language: be}
eval: {path: demo-data/be/validation, every: 2, max_new_tokens: 12}
"""


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files that a reader of the README has, with the environment that `make setup` made."""
    return cloned(tmp_path_factory.mktemp("clone") / "x")


def shell(command: str, clone: Path) -> Ended:
    words = plain_words(command)
    if words and (ended := run_all([words], clone)):
        return ended
    done = subprocess.run(
        command, shell=True, cwd=clone, env=environment(1) | SMALL_DEMO, capture_output=True, text=True, timeout=300
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def record(clone: Path) -> None:
    """A recording in the folder that the README transcribes."""
    table = pq.read_table(clone / "demo-data/be/test")
    (clone / "recordings").mkdir()
    (clone / "recordings/talk.flac").write_bytes(table.column("audio")[0].as_py()["bytes"])


@pytest.mark.long
def test_every_command_of_the_readme_runs_as_it_stands_there(clone: Path):
    """In order, in one clone; only the size of the demo is cut, and the example's data stands in for the reader's."""
    if not (ROOT / ".venv/installed").exists():
        pytest.skip("the environment was not made by `make setup`, and making one takes minutes")
    commands = [command for block in blocks_in("README.md") if block.is_run for command in commands_of(block)]
    commands = [re.sub(r"\s+#.*", "", command) for command in commands]
    assert {"make demo", "make test", "make setup"} <= set(commands)
    for command in commands:
        if command == "make test":  # it is what runs this
            command = "make --dry-run test"
        ended = shell(command, clone)
        assert ended.code == 0, f"{command}\n{ended.out}\n{ended.err}"
        if command == "make demo":
            assert "WER" in ended.out
            assert (clone / "runs/demo/test/report.html").exists()
            (clone / "my-data").symlink_to(clone / "demo-data/be")
            record(clone)
        if command.startswith("cp configs/"):
            (clone / "configs/mine.yaml").write_text(MINE)
    assert (clone / "runs/mine/test/summary.json").exists()


@pytest.mark.matrix
def test_a_bare_launch_is_the_demo(clone: Path):
    """Here on a small corpus, and stopped once it trains."""
    shutil.rmtree(clone / "runs", ignore_errors=True)
    if not (clone / "demo-data").exists():
        shell(f"{sys.executable} -m whisper_ft.demo --out demo-data {SMALL_DEMO['DEMO_CORPUS']}", clone)
    started = subprocess.Popen(
        ["./launch.sh"], cwd=clone, env=environment(1), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert started.stdout is not None
    line_seen = next(line for line in started.stdout if line.startswith(("step 25/1200", "error", "Traceback")))
    started.send_signal(signal.SIGTERM)
    assert (started.wait(60), line_seen.split()[0]) == (75, "step")
    assert yaml.safe_load((clone / "runs/demo/config.yaml").read_text())["optim"]["lr"] == 2e-3


@pytest.mark.parametrize("config", sorted(path.name for path in (ROOT / "configs").glob("*.yaml")))
def test_every_config_in_the_repository_is_one_that_can_be_read(config: str):
    from whisper_ft.config.parse import load_config
    from whisper_ft.config.training import TrainingConfig

    assert load_config(TrainingConfig, ["--config", str(ROOT / "configs" / config)]).steps > 0
