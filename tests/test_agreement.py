"""Agreement of the ranks: sums, flags and a maximum in one all-reduce, the same on every rank."""

import subprocess
import sys

from tests.conftest import ROOT, environment
from whisper_ft.checkpoint.state import Counts
from whisper_ft.data.loader import StepBatches
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.training.agreement import Losses, agree

TWO_RANKS = """
import torch.distributed as dist
from whisper_ft.checkpoint.state import Counts
from whisper_ft.data.loader import StepBatches
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.training.agreement import Losses, agree

dist.init_process_group("gloo")
collectives = Collectives()
rank, calls, all_reduce = collectives.rank, [], dist.all_reduce
dist.all_reduce = lambda *args, **kwargs: (calls.append(1), all_reduce(*args, **kwargs))[1]
counts = Counts(10 + rank, 2, audio_samples=100 * rank, windows=1 + rank, filled_samples=50)
drawn = StepBatches([None] * (3 - rank), [None] * rank, counts, anchor_tokens=5 + rank)
flags = {"failed": rank == 1, "stopping": False, "save_done": rank == 0}
agreed = agree(collectives, drawn, Losses(0.25, 0.125, 3 + rank, 0.5), **flags)
assert agreed.counts == Counts(21, 4, 0, 0, 100, 3, 100), agreed
assert (agreed.micro_batches, agreed.losses) == (3, Losses(0.5, 0.25, 7, 1)), agreed
assert (agreed.failed, agreed.stopping, agreed.save_done) == (True, False, True), agreed
assert (agreed.rejected, agreed.anchor_tokens) == (True, 11), agreed
assert sum(calls) == 1, "one all-reduce"
print("agreed")
import os
os._exit(0)
"""


def test_one_rank_agrees_with_itself():
    drawn = StepBatches(counts=Counts(label_tokens=7, utterances=1))
    agreed = agree(Collectives(), drawn, Losses(1.5), failed=False, stopping=True, save_done=False)
    assert agreed.counts == drawn.counts
    assert (agreed.micro_batches, agreed.losses.loss, agreed.failed, agreed.stopping) == (0, 1.5, False, True)


def test_two_ranks_have_the_same_sums_and_flags_from_one_all_reduce():
    program = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--no_python"]
    done = subprocess.run(
        [*program, sys.executable, "-c", TWO_RANKS],
        cwd=ROOT,
        env=environment(2),
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stdout.count("agreed") == 2, done.stderr[-2000:]
