"""Processes that prepare data: what they begin with, what they do not run again, and what they leave when killed."""

import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from whisper_ft.workers import FORKSERVER, start_worker_server

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


def look(event: Any, ready: Any) -> None:
    """Do nothing else."""
    ready.send(True)
    while True:
        event.is_set()


def test_an_event_can_be_set_though_a_process_was_killed_while_it_looked_at_it():
    """DataLoader sets one when it ends its workers. That of multiprocessing then hangs, here in two of three cases."""
    start_worker_server("whisper_ft.workers")
    for _ in range(8):
        event, (told, ready) = FORKSERVER.Event(), FORKSERVER.Pipe(duplex=False)
        process = FORKSERVER.Process(target=look, args=(event, ready), daemon=True)
        process.start()
        assert told.recv()
        process.kill()
        process.join()
        setting = threading.Thread(target=event.set, daemon=True)
        setting.start()
        setting.join(10)
        assert not setting.is_alive()
        assert event.is_set()
