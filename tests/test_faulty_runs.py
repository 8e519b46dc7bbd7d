"""Real runs of micro models with one fault each: `diagnose` names the fault, and is silent about healthy runs.

The archive holds the small files of runs that `python -m bench.faults` trained; docs/diagnose.md has the counts.
"""

import tarfile
from pathlib import Path

import pytest

from bench.faults.fault_runs import RUNS, FaultRun, Place, trained
from tests.conftest import made_once
from whisper_ft.cli.diagnose.run_examination import examine

ARCHIVE = Path(__file__).parent / "data/faulty-runs.tar.xz"
WITHOUT_DATA = [one for one in RUNS if one.name != "leakage"]  # needs the audio of both sets
PLACES = ("sv-0", "en-2")


@pytest.fixture(scope="session")
def records(shared: Path) -> Path:
    def unpack(folder: Path) -> None:
        with tarfile.open(ARCHIVE) as archive:
            archive.extractall(folder, filter="data")

    return made_once(shared / "faulty-runs", unpack)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("one", WITHOUT_DATA, ids=lambda one: one.name)
def test_a_fault_is_found_by_the_right_kind_and_a_healthy_run_has_no_finding(records: Path, place: str, one: FaultRun):
    kinds = {finding.kind for finding in examine(records / place / one.name, None, 0).findings}
    assert kinds & one.kinds if one.kinds else not kinds


@pytest.mark.matrix
@pytest.mark.parametrize("name", ["rate_too_high", "overfitting", "leakage", "suppressed_characters", "healthy"])
def test_a_fault_of_a_run_trained_now_is_found(shared: Path, name: str):
    place = Place(shared / "faults", "sv", 3)
    (one,) = [one for one in RUNS if one.name == name]
    kinds = {finding.kind for finding in examine(trained(one, place), None, 2000).findings}
    assert kinds & one.kinds if one.kinds else not kinds
