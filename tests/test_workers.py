"""Processes that prepare data: what they have imported when they begin, and what they do not run again."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import sys
sys.path[0] = {root!r}
print("begun")
from concurrent.futures import ProcessPoolExecutor
from whisper_ft.workers import FORKSERVER, program_hidden, start_worker_server

if __name__ == "__main__":
    start_worker_server("whisper_ft.share")
    with program_hidden(), ProcessPoolExecutor(1, FORKSERVER) as pool:
        print(pool.submit(eval, "'whisper_ft.share' in __import__('sys').modules").result())
    print(__import__("os").environ.get("PYTHONPATH"), sys.modules["__main__"].__file__)
"""


def test_a_worker_begins_with_what_its_server_imported_and_never_runs_the_program(tmp_path: Path):
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(root=str(ROOT)))
    done = subprocess.run([sys.executable, "program.py"], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["begun", "True", f"None {program}"], done.stderr
