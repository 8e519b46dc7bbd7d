"""The metric of the library `evaluate`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_ft.scoring.wer_metric import wer_metric


def test_the_metric_works_alone_and_refuses_lists_that_do_not_match():
    metric = wer_metric()
    for _ in range(2):  # one object serves again
        assert metric.compute(predictions=["a b"], references=["a c"])["wer"] == 0.5
    with pytest.raises(ValueError, match="Mismatch"):
        wer_metric().compute(predictions=["a"], references=["a", "b"])


@pytest.mark.matrix
def test_the_metric_writes_nothing_under_home(tmp_path: Path):
    code = (
        "from whisper_ft.scoring.wer_metric import wer_metric\n"
        "print(wer_metric().compute(predictions=['a'], references=['b'])['wer'])"
    )
    environment = os.environ | {"HF_HOME": str(tmp_path / "hf"), "PYTHONPATH": str(Path(__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1.0"
    assert not (tmp_path / "hf" / "metrics").exists()
