"""slurm/train.sbatch under a Slurm that is played: `sbatch`, `srun` and `scontrol` are small scripts in PATH."""

import json
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, START_SECONDS, Ended, Trainer, all_signals_heard, digest, environment, logged

SCRIPT = ROOT / "slurm/train.sbatch"
SLURM = {
    # The script is copied away, started in the folder of the call, and again for each time it was queued again.
    "sbatch": """
cp "$1" "$SPOOL/slurm_script"
shift
export SLURM_JOB_ID=4711 SLURM_JOB_NODELIST='node[1-9]' SLURM_JOB_NUM_NODES=${PLAYED_NODES:-1} SLURM_NODEID=0
while :; do
  rm -f "$SPOOL/tasks" "$SPOOL/queued"
  bash "$SPOOL/slurm_script" "$@" &
  echo $! > "$SPOOL/batch"
  code=0
  wait $! || code=$?
  [ -e "$SPOOL/queued" ] || exit $code
  export SLURM_RESTART_COUNT=$((${SLURM_RESTART_COUNT:-0} + 1))
done
""",
    # One task on each machine; it ends with the highest of their exit codes.
    "srun": """
while [[ $1 == --* ]]; do shift; done
export SLURM_STEP_NUM_NODES=$SLURM_JOB_NUM_NODES SLURM_STEP_NUM_TASKS=$SLURM_JOB_NUM_NODES PMI_SIZE=2 PMI_RANK=1
tasks=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
  SLURM_NODEID=$node "$@" &
  tasks+=($!)
done
echo "${tasks[@]}" > "$SPOOL/tasks"
highest=0
for task in "${tasks[@]}"; do
  code=0
  wait "$task" || code=$?
  highest=$((code > highest ? code : highest))
done
exit $highest
""",
    "scontrol": """
case "$*" in
  "show hostnames node[1-9]") echo 127.0.0.1; echo node2 ;;
  "requeue 4711") touch "$SPOOL/queued" ;;
  *) echo "scontrol $*?" >&2; exit 1 ;;
esac
""",
}
ENDS_75 = """
import signal, sys, time
from pathlib import Path

signal.signal(signal.SIGTERM, lambda *_: sys.exit(75))
if sys.argv[1] == "wait":
    Path(sys.argv[2]).touch()
    time.sleep(600)
sys.exit(int(sys.argv[1]))
"""


class Slurm:
    """A cluster, as far as one job sees it."""

    def __init__(self, folder: Path) -> None:
        self.spool = folder / "spool"
        (folder / "bin").mkdir()
        self.spool.mkdir()
        for name, lines in SLURM.items():
            (folder / "bin" / name).write_text(f"#!/usr/bin/env bash\n{lines}")
            (folder / "bin" / name).chmod(0o755)
        kept = environment(1)
        self.environment = kept | {"SPOOL": str(self.spool), "PATH": f"{folder}/bin:{kept['PATH']}"}

    def batch(self, *arguments: str, cwd: Path = ROOT, nodes: int = 1) -> subprocess.Popen[str]:
        """A job that was submitted, and the time that it takes."""
        with all_signals_heard():
            return subprocess.Popen(
                ["sbatch", str(SCRIPT), *arguments],
                cwd=cwd,
                env=self.environment | {"PLAYED_NODES": str(nodes)},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )

    def signal(self, number: signal.Signals, *to: str) -> None:
        """Send a signal as slurmctld does: to the `tasks` of srun, to the `batch` script, or to both."""
        for name in to:
            for pid in (self.spool / name).read_text().split():
                os.kill(int(pid), number)


@pytest.fixture
def slurm(tmp_path: Path) -> Slurm:
    return Slurm(tmp_path)


def wait_until(is_so: Callable[[], bool], job: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not is_so():
        assert job.poll() is None, job.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def end(job: subprocess.Popen[str]) -> Ended:
    try:
        out, err = job.communicate(timeout=START_SECONDS)
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)
    return Ended(job.returncode, out, err)


@pytest.mark.matrix
@pytest.mark.parametrize("nodes", [1, pytest.param(2, marks=pytest.mark.matrix)])
def test_a_job_whose_time_is_over_is_queued_again_and_ends_as_an_uninterrupted_one(
    slurm: Slurm, train: Trainer, nodes: int
):
    settings = {"steps": 16, "eval__every": 8}
    job = slurm.batch(*train.arguments("job", **settings), nodes=nodes)
    wait_until(lambda: logged(3)(train.folder / "job"), job)
    slurm.signal(signal.SIGUSR1, "tasks")
    ended = end(job)
    assert (ended.code, ended.err) == (0, "")
    assert "job 4711: saved, and queued again" in ended.out
    assert "start 2" in ended.out
    rows = [json.loads(line) for line in (train.folder / "job/metrics.jsonl").read_text().splitlines()]
    assert [row["event"] for row in rows if "event" in row].count("resumed") == 1
    assert digest(train.folder / "job") == digest(train("whole", nodes, **settings))


@pytest.mark.long
def test_a_job_that_is_cancelled_saves_and_is_not_queued_again(slurm: Slurm, tmp_path: Path):
    (tmp_path / "program.py").write_text(ENDS_75)
    job = slurm.batch(str(tmp_path / "program.py"), "wait", str(tmp_path / "started"))
    wait_until((tmp_path / "started").exists, job)
    slurm.signal(signal.SIGTERM, "batch", "tasks")
    assert (end(job).code, (slurm.spool / "queued").exists()) == (75, False)


@pytest.mark.long
def test_a_job_that_fails_is_not_queued_again_and_ends_with_the_code_of_the_program(slurm: Slurm, tmp_path: Path):
    (tmp_path / "program.py").write_text(ENDS_75)
    ended = end(slurm.batch(str(tmp_path / "program.py"), "4"))
    assert (ended.code, (slurm.spool / "queued").exists()) == (4, False)


def test_a_job_of_another_folder_is_told_where_it_belongs(slurm: Slurm, tmp_path: Path):
    ended = end(slurm.batch("--steps", "3", cwd=tmp_path))
    assert ended.code == 2
    assert (
        ended.err
        == f"error: there is no launch.sh in {tmp_path}; call sbatch in the folder of the repository, or with --chdir\n"
    )


def test_slurm_reads_all_options_and_among_them_those_that_going_on_needs():
    before_commands = re.split(r"^[^#\n]", SCRIPT.read_text(), maxsplit=1, flags=re.MULTILINE)[0]
    options = re.findall(r"^#SBATCH (--[a-z-]+)(?:=(\S+))?$", before_commands, flags=re.MULTILINE)
    assert len(options) == SCRIPT.read_text().count("\n#SBATCH"), "Slurm reads none after the first command"
    given = dict(options)
    assert given["--signal"].startswith("USR1@"), "to the tasks; B: would send it to the script alone"
    assert given["--ntasks-per-node"] == "1"
    assert {"--requeue": "", "--open-mode": "append"}.items() <= given.items()
