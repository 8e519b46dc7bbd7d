"""Count the faults that `diagnose` finds: `python -m bench.faults --work DIR --language sv --seed 0`.

Each run has one fault, or none, and takes seconds to a minute on one core. They start from a micro Whisper that has
learned a part of the language. Data, models and runs are kept in DIR; a second call goes on there.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the runs are forked, and a fork copies no threads

from rich.table import Table

from bench.faults.fault_runs import RUNS, FaultRun, Place, trained
from bench.faults.run_record import copy_record, write_archive
from bench.rounds import console
from whisper_ft.cli.demo.sentences import LANGUAGES
from whisper_ft.cli.diagnose.run_examination import examine

ROWS = 2000  # of the training data and of the held-out set that are read again


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m bench.faults", description=__doc__, allow_abbrev=False)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="folder of data, models and runs")
    parser.add_argument("--language", choices=LANGUAGES, default="be", help="language of the speech (default be)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="seed of sentences, voices and weights")
    parser.add_argument("--only", default="", metavar="NAMES", help="some runs, separated by commas")
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="write the small files of all finished runs in DIR to an archive"
    )
    return parser.parse_args()


def verdict(one: FaultRun, kinds: list[str]) -> str:
    """Return `found` if a finding names the fault, `silent` for a healthy run without any; else the opposite."""
    if not one.kinds:
        return "silent" if not kinds else "FALSE ALARM"
    return "found" if one.kinds & set(kinds) else "MISSED"


def record(work: Path, path: Path) -> None:
    """Write the records of all runs in a folder to an archive, for tests/test_faulty_runs.py."""
    with tempfile.TemporaryDirectory() as top:
        for place in sorted(work.glob("*-*")):
            for one in RUNS:
                if (place / one.name / "status.json").exists():
                    out = Path(top, place.name, one.name)
                    copy_record(place / one.name, out, with_model=one.name == "suppressed_characters")
        write_archive(Path(top).glob("*"), Path(top), path)


def main() -> int:
    """Train the runs, diagnose each, and print a table and the counts."""
    args = arguments()
    if args.record:
        record(args.work, args.record)
        return 0
    place = Place(args.work / f"{args.language}-{args.seed}", args.language, args.seed)
    wanted = [one for one in RUNS if not args.only or one.name in args.only.split(",")]
    table = Table("run", "verdict", "kinds that are right", "kinds found")
    verdicts = []
    for one in wanted:
        diagnosis = examine(trained(one, place), None, ROWS)
        kinds = [finding.kind for finding in diagnosis.findings]
        verdicts.append(verdict(one, kinds))
        table.add_row(one.name, verdicts[-1], ", ".join(sorted(one.kinds)), ", ".join(kinds))
    console.print(table)
    faulty, healthy = sum(bool(one.kinds) for one in wanted), sum(not one.kinds for one in wanted)
    console.print(f"found {verdicts.count('found')} of {faulty}, silent {verdicts.count('silent')} of {healthy}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
