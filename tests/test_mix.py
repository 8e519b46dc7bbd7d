"""Several sources in one stream, and runs measured in epochs: real runs."""

import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Trainer, digest, logged, metrics
from whisper_ft.cli.replay.step_rows import configuration, replay
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError


def mixed(corpus: Path, weights: tuple[float, float] = (3, 1), language: str = "sv") -> dict[str, Any]:
    """The settings of a run on two sources, of which the second is in another language."""
    first = f"{{path: {corpus / 'train'}, weight: {weights[0]}}}"
    second = f"{{path: {corpus / 'validation'}, weight: {weights[1]}, language: {language}}}"
    return {"data__path": "", "data__sources": f"[{first}, {second}]", "eval__every": 0}


def replayed(run_dir: Path, step: int) -> list[str]:
    """Ids of the utterances of a step."""
    return [str(row["id"]) for row in replay(configuration(run_dir, None), step)]


@pytest.mark.long
def test_a_mix_is_exact_in_every_batch_and_resumes_exactly(train: Trainer, corpus: Path, tmp_path: Path):
    """16 lanes, 12 of the first source and 4 of the second: 6 and 2 of every batch of 8."""
    settings = mixed(corpus)
    ended = train.end("whole", **settings)
    assert ended.code == 0, ended.err
    (shares,) = (line for line in ended.out.splitlines() if "source 0" in line)
    assert all(fact in shares for fact in ("75.0 %", "100 rows", "source 1", "25.0 %", "12 rows"))
    for step in (0, 7):
        ids = replayed(tmp_path / "whole", step)
        assert Counter(name.split("/")[0] for name in ids) == {"0": 6, "1": 2}
    train.interrupt("killed", logged(5), signal.SIGKILL, **settings, data__workers=2)
    assert digest(train("killed", **settings, data__workers=1)) == digest(tmp_path / "whole")


@pytest.mark.long
def test_each_source_has_its_own_language(train: Trainer, corpus: Path):
    swedish, belarusian = train("sv", **mixed(corpus)), train("be", **mixed(corpus, language="be"))
    assert metrics(swedish)[1]["loss"] != metrics(belarusian)[1]["loss"], "another language token in the prompt"
    exported = [json.loads((run / "final/generation_config.json").read_text()) for run in (swedish, belarusian)]
    assert [config.get("language") for config in exported] == [None, "be"], "a model of two has no default"


@pytest.mark.long
@pytest.mark.parametrize(
    ("change", "facts"),
    [
        ({"weights": (1, 1)}, ["data.sources.0.weight", "3.0", "1.0"]),
        ({"language": "da"}, ["data.sources.1.language", "sv", "da"]),
    ],
)
def test_another_mix_is_another_run(train: Trainer, corpus: Path, change: dict[str, Any], facts: list[str]):
    train.copy_reference(**mixed(corpus), steps=2)
    message = str(train.refusal("run", **mixed(corpus, **change), steps=2))
    assert all(fact in message for fact in facts)


@pytest.mark.long
def test_weights_that_the_lanes_cannot_give_are_refused(train: Trainer, corpus: Path):
    ended = train.end("run", **mixed(corpus, weights=(20, 1)))
    assert ended.code == 2
    assert all(fact in ended.err for fact in ("16 lanes", "64 lanes", "0.952"))
    assert len(ended.err.strip().splitlines()) == 1


@pytest.mark.long
def test_a_run_of_half_an_epoch_ends_with_the_fiftieth_of_a_hundred_rows(train: Trainer, tmp_path: Path):
    run_dir = train("run", steps="null", epochs=0.5, eval__every=0, save__every=0, data__workers=2)
    assert sorted(metrics(run_dir)) == [1, 2, 3, 4, 5, 6, 7]
    state = json.loads((run_dir / "checkpoints/step-00000007/trainer.json").read_text())["state"]
    assert (state["utterances"], state["unusable"]) == (50, 0)
    assert len(replayed(run_dir, 6)) == 2
    assert len({name for step in range(7) for name in replayed(run_dir, step)}) == 50


def test_steps_and_epochs_are_one_or_the_other():
    assert load_config(TrainingConfig, ["--data.path", "x"]).steps_over(100) == 4000
    assert load_config(TrainingConfig, ["--data.path", "x", "--epochs", "3"]).steps_over(100) == 19
    with pytest.raises(UsageError, match="give one of the two"):
        load_config(TrainingConfig, ["--data.path", "x", "--epochs", "3", "--steps", "9"])
    with pytest.raises(UsageError, match="epochs must be above 0"):
        load_config(TrainingConfig, ["--data.path", "x", "--epochs", "0"])
    with pytest.raises(UsageError, match="give one of the two"):
        load_config(TrainingConfig, ["--data.path", "x", "--data.sources", "[{path: y}]"])
