"""A newcomer's tasks: each is found on the README, or on a page to which the README leads."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import refuse_impossible_evaluation

TASKS = {
    "install": ("README.md", r"make setup"),
    "install with pip on a GPU": ("docs/install.md", r"pip install torch --index-url"),
    "train on own wavs": ("docs/prepare-data.md", r"doctor --data\.path my-wavs"),
    "resume": ("README.md", r"Run the same command again"),
    "compare two models": ("docs/evaluate.md", r"--compare runs/"),
    "TensorBoard": ("docs/tracking.md", r"tensorboard --logdir runs"),
    "upload to the Hub": ("README.md", r"whisper_ft publish runs/demo --repo"),
    "early stopping": ("docs/faq.md", r"Early stopping.*`eval\.patience: 3`"),
    "learning rate for medium": ("docs/recipes.md", r"whisper-medium\.yaml` \| 764 M \| 5e-6"),
    "what fits 16 GB": ("docs/memory.md", r"estimate --gpu_gb 16"),
    "transcribe a file": ("README.md", r"whisper_ft transcribe runs/demo"),
    "subtitles": ("README.md", r"--to txt,srt"),
    "faster-whisper": ("README.md", r"export runs/mine --to ct2"),
    "a script with the Trainer": ("docs/from-trainer.md", r"per_device_train_batch_size"),
    "try it in a browser": ("docs/serve.md", r"whisper_ft serve runs/demo"),
}
"""Page and a pattern of the answer, by task."""
WORDS = (
    "early stopping", "push to hub", "eval loss", "out of memory", "word error rate above 100 %", "hallucination",
    "timestamps", "faster-whisper", "lora", "colab",
)  # fmt: skip


@pytest.mark.parametrize("program", [["train.py"], ["evaluate.py", "--model", "x"], ["-m", "whisper_ft", "doctor"]])
def test_a_python_without_the_packages_is_refused_in_one_line(program: list[str]):
    ended = subprocess.run([sys.executable, "-S", *program], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 2
    assert re.fullmatch(r"error: .* has no package \w+; start \./launch\.sh or .*\n", ended.stderr)


def test_a_folder_in_place_of_predictions_is_refused_with_the_file_in_it(tmp_path: Path):
    (tmp_path / "run/test").mkdir(parents=True)
    predictions = tmp_path / "run/test/predictions.jsonl"
    predictions.touch()
    config = EvaluationConfig(predictions=predictions, compare=tmp_path / "run", out=tmp_path / "out")
    with pytest.raises(UsageError, match=f"is a folder; give a file, such as {predictions}"):
        refuse_impossible_evaluation(config)


@pytest.mark.parametrize("task", TASKS)
def test_a_task_is_found_in_at_most_two_pages(task: str):
    page, pattern = TASKS[task]
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert page == "README.md" or f"({page})" in readme
    assert re.search(pattern, (ROOT / page).read_text(encoding="utf-8"))


def test_the_words_that_people_search_for_stand_in_questions():
    questions = re.findall(
        r"^\*\*(.+?)\*\*", (ROOT / "docs/faq.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    asked = " ".join(questions).lower()
    assert [word for word in WORDS if word not in asked] == []
