"""A model arrives on the Hub complete and private, with a correct card and nothing of this machine."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest
import soundfile
from huggingface_hub import ModelCard

from tests.conftest import ROOT
from tests.hub_uploads import TOKEN, Hub, serve
from whisper_ft.checkpoint.state import Best, TrainState
from whisper_ft.cli.publish import upload
from whisper_ft.cli.publish.__main__ import main
from whisper_ft.cli.publish.bundle import bundled, file_sizes
from whisper_ft.cli.publish.hub_names import hub_datasets, hub_model
from whisper_ft.cli.publish.model_to_publish import find_model
from whisper_ft.cli.publish.preview import local_paths
from whisper_ft.cli.publish.results import result_of_evaluation, results_of_run
from whisper_ft.config.data import DataConfig, WeightedSourceConfig
from whisper_ft.config.evaluation import EvalConfig, EvalSetConfig
from whisper_ft.config.optimization import OptimConfig
from whisper_ft.config.training import ModelConfig, TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_whisper
from whisper_ft.reports.curves.history import read_history
from whisper_ft.runtime.atomic import write_json
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.bootstrap import Interval
from whisper_ft.scoring.guard import Guard
from whisper_ft.scoring.mixtures import MixtureScores
from whisper_ft.training.directory import RunDir
from whisper_ft.training.published_models import publish_average, publish_final

# Publishes several times in one process, because huggingface_hub reads the address of the Hub once per process.
SCRIPT = """
import contextlib, io, json, os, sys
from whisper_ft.publish.__main__ import main
for arguments, token in json.loads(sys.argv[1]):
    os.environ["HF_TOKEN"], output = token, io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = main(arguments)
    print(json.dumps([code, output.getvalue()]))
"""
PREDICTED = [
    {"id": str(i), "hits": 4 - i % 2, "substitutions": i % 2, "deletions": 0, "insertions": 0, "language": "be"}
    for i in range(40)
]
ROW = {
    "step": 20, "unit": "words", "wer": 0.125, "cer": 0.05, "wer_orthographic": 0.25, "cer_orthographic": 0.1,
    "words": 160, "utterances": 40, "scored_utterances": 40,
    "normalizer": {"name": "golden", "version": "1", "fingerprint": "abc"},
}  # fmt: skip


@pytest.fixture(scope="module")
def run(micro_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 steps whose best model is that of step 20; it was evaluated on a test set, too."""
    folder = RunDir(tmp_path_factory.mktemp("runs") / "mine")
    config = TrainingConfig(
        folder.path,
        steps=30,
        model=ModelConfig(str(micro_whisper)),
        data=DataConfig("/secret/place/be", language="be"),
        optim=OptimConfig(lr=1e-5),
    )
    model, processor = load_whisper(str(micro_whisper), config.model)
    model.generation_config.language, model.generation_config.task = "be", "transcribe"
    folder.path.joinpath("predictions").mkdir(parents=True)
    folder.describe(to_plain(config))
    best = Best(20, "wer", 0.125)
    folder.best.mkdir()
    export(model, config_files(model, processor), folder.best, "# Best model\n")
    write_json(folder.path / "best.json", asdict(best))
    publish_final(folder, TrainState(step=30, best=best), model, config_files(model, processor))
    publish_average(folder, [20, 30], model, config_files(model, processor), "wer on the held-out set: 0.1")
    rows = [{"step": step, "loss": 10 / step, "lr": 1e-5, "grad_norm": 1.0, "loss_scale": 1.0} for step in (10, 20, 30)]
    lines = [*rows[:2], ROW, rows[2], ROW | {"step": 30, "wer": 0.2}]
    write_lines(folder.path / "metrics.jsonl", lines)
    write_lines(folder.path / "predictions/step-00000020.jsonl", PREDICTED)
    write_json(folder.path / "status.json", {"state": "finished"})
    evaluate(folder.path / "test", folder.best, wer=0.125)
    return folder.path


def write_lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def evaluate(folder: Path, model: Path, **summary: Any) -> Path:
    """An output folder of evaluate.py."""
    folder.mkdir()
    config = {"model": str(model), "max_utterances": None}
    write_json(folder / "summary.json", {**ROW, **summary, "config": config})
    write_lines(folder / "predictions.jsonl", PREDICTED)
    return folder


def publish(hub: Hub, *commands: tuple[list[Any], str]) -> list[tuple[int, str]]:
    """Exit code and output of each command line, with its token, in a fresh process."""
    environment = os.environ | {"HF_ENDPOINT": hub.address, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    argument = json.dumps([([str(argument) for argument in arguments], token) for arguments, token in commands])
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT, argument], env=environment, cwd=ROOT, capture_output=True, text=True, check=True
    )
    return [(code, output) for code, output in map(json.loads, ended.stdout.splitlines())]


@pytest.fixture(scope="module")
def published(run: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Hub, list[tuple[int, str]], Path]:
    """A Hub that fails now and then, the exit code and output of each attempt, and a download of the first."""
    arguments = [run, "--yes", "--evaluation", run / "test", "--license", "apache-2.0", "--dataset", "anna/speech-be"]
    own = tmp_path_factory.mktemp("card") / "card.md"
    assert main([str(run), "--repo", "anna/own", "--write_card", str(own)]) == 0
    own.write_text(own.read_text() + "\nThanks to all who read.\n")
    with serve() as hub:
        hub.private |= {"anna/open": False}
        hub.files |= {"anna/open": {}}
        hub.failing = {"validate-yaml": (1, 502), "commit": (1, 500)}
        outputs = publish(
            hub,
            ([*arguments, "--repo", "anna/whisper-be"], TOKEN),
            ([*arguments, "--repo", "anna/whisper-be"], TOKEN),
            ([*arguments, "--repo", "anna/open"], TOKEN),
            ([*arguments, "--repo", "others/theirs"], TOKEN),
            ([*arguments, "--repo", "anna/refused"], "hf_wrong"),
            ([run, "--yes", "--repo", "anna/for-all", "--public"], TOKEN),
            ([run, "--repo", "anna/not-asked"], TOKEN),
            ([run, "--repo", "anna/own", "--card", own, "--yes"], TOKEN),
        )
    folder = tmp_path_factory.mktemp("download")
    for name, content in hub.files["anna/whisper-be"].items():
        (folder / name).write_bytes(content)
    return hub, outputs, folder


@pytest.mark.long
def test_a_model_arrives_whole_in_a_private_repository_though_the_hub_fails_now_and_then(published: Any, run: Path):
    hub, outputs, folder = published
    code, output = outputs[0]
    assert (code, hub.private["anna/whisper-be"]) == (0, True)
    assert output.count("the Hub failed") == 2
    assert set(file_sizes(folder)) == {*file_sizes(run / "best"), "README.md", "curves.png"}
    for name in set(file_sizes(run / "best")) - {"README.md"}:
        assert (folder / name).read_bytes() == (run / "best" / name).read_bytes()
    assert all(f"  {name} " in output for name in file_sizes(folder)), "each was shown before"


@pytest.mark.long
def test_the_same_again_makes_no_second_commit(published: Any):
    hub, outputs, _ = published
    assert outputs[1][0] == 0
    assert len(hub.commits) == 3, "one here, one in the public repository, one with a card of one's own"


@pytest.mark.long
def test_nothing_becomes_public_unasked(published: Any):
    hub, outputs, _ = published
    code, output = outputs[2]
    assert code == 2
    assert "--public" in output
    assert "error: --repo anna/open" in output
    assert not hub.files["anna/open"]
    assert (outputs[5][0], hub.private["anna/for-all"]) == (0, False)


@pytest.mark.long
def test_a_refusal_of_the_hub_is_one_line(published: Any):
    _, outputs, _ = published
    for (code, output), words in zip(
        outputs[3:5],
        ("--repo others/theirs: HF_TOKEN", "--repo anna/refused: the Hub does not accept HF_TOKEN"),
        strict=True,
    ):
        assert code == 2
        assert words in output
        assert "Traceback" not in output


@pytest.mark.long
def test_nothing_is_sent_without_a_yes(published: Any):
    hub, outputs, _ = published
    code, output = outputs[6]
    assert code == 2
    assert "model.safetensors" in output, "the preview is shown"
    assert "--yes" in output.splitlines()[-1]
    assert "anna/not-asked" not in hub.private


@pytest.mark.long
def test_nothing_of_this_machine_and_no_token_is_sent(published: Any, run: Path, micro_whisper: Path):
    hub, outputs, folder = published
    for path in folder.iterdir():
        for secret in (TOKEN, str(run), "/secret/place", str(micro_whisper), str(Path.home()) + "/"):
            assert secret.encode() not in path.read_bytes(), f"{secret} in {path.name}"
    assert TOKEN not in "".join(output for _, output in outputs)
    assert hub.cards[0] == (folder / "README.md").read_text()


@pytest.mark.long
def test_the_metadata_of_the_card_is_what_was_measured(published: Any):
    data = ModelCard((published[2] / "README.md").read_text()).data
    assert (data.language, data.license, data.datasets) == (["be"], "apache-2.0", ["anna/speech-be"])
    assert data.base_model is None, "a local folder"
    measured = {(result.dataset_name, result.metric_type): result.metric_value for result in data.eval_results}
    assert measured["test", "wer"] == measured["held-out set of the run", "wer"] == 12.5
    assert measured["test", "cer"] == 5.0


@pytest.mark.long
def test_the_page_of_the_card_has_figures_settings_and_curves(published: Any):
    page = (published[2] / "README.md").read_text()
    low, high = map(float, re.findall(r"([\d.]+) – ([\d.]+)%", page)[0])
    assert low < 12.5 < high < 25
    assert f"| test | 40 | 160 | 12.50% | 5.00% | {low:.2f} – {high:.2f}% | 25.00% | 10.00% |" in page
    assert "the best evaluated step, 20" in page
    assert "| learning rate | 1e-05, linear, warm-up 10 % of the run |" in page
    assert "![Curves of the training](curves.png)" in page
    assert "at most 5 seconds" in page, "the window of this model"


@pytest.mark.long
def test_the_code_of_the_card_runs_as_it_stands(
    published: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(tmp_path)
    soundfile.write("speech.wav", np.random.default_rng(1).uniform(-0.1, 0.1, 16_000), 16_000)
    blocks = re.findall(r"```python\n(.*?)```", (published[2] / "README.md").read_text(), re.DOTALL)
    texts = []
    for block in blocks:
        exec(block.replace("anna/whisper-be", str(published[2])), {})
        texts.append(capsys.readouterr().out)
    assert len(texts) == 2
    assert texts[0].strip() == texts[1].strip() != "", "both write the same"


def test_the_hub_that_stays_away_ends_with_the_code_to_try_again(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(upload, "FIRST_WAIT_SECONDS", 0.001)
    lines: list[str] = []
    with pytest.raises(upload.HubError, match="failed 5 times") as caught:
        upload._with_retries(lambda: httpx2.get("http://127.0.0.1:9"), "anna/x", lines.append)
    assert (caught.value.exit_code, len(lines)) == (75, 4)


@pytest.mark.long
def test_final_and_average_have_figures_of_their_own(run: Path, tmp_path: Path):
    for what, figure in (("final", "20.00%"), ("average", "10.00%")):
        assert main([str(run), "--repo", "a/b", "--what", what, "--write_card", str(tmp_path / what)]) == 0
        assert f"WER **{figure}**" in (tmp_path / what).read_text()
    assert "the mean of the weights of steps 20, 30" in (tmp_path / "average").read_text()


def test_a_mixture_has_its_own_figure_and_no_guards_of_the_step_it_was_made_from(run: Path, tmp_path: Path):
    shutil.copytree(run, tmp_path / "run")
    mixed = tmp_path / "run/interpolated"
    shutil.copytree(run / "best", mixed)
    rates = {0.0: 0.5, 0.7: 0.0625, 1.0: 0.125}
    scores = [MixtureScores(alpha, "", "wer", rate, {}, []).summary() for alpha, rate in rates.items()]
    names = {"start": {"name": "start"}, "tuned": {"name": "run/best"}}
    write_json(mixed / "interpolation.json", {**names, "metric": "wer", "alpha": 0.7, "mixtures": scores})
    found = find_model(tmp_path / "run", "interpolated")
    assert (found.steps, found.recorded, found.is_of_one_step) == ((20,), ("wer", 0.0625), False)
    assert "0.7" in found.origin
    card = tmp_path / "card.md"
    assert main([str(tmp_path / "run"), "--repo", "a/b", "--what", "interpolated", "--write_card", str(card)]) == 0
    assert "WER **6.25%**" in card.read_text()


def test_an_evaluation_of_another_model_is_refused(run: Path, tmp_path: Path):
    with pytest.raises(UsageError, match=r"is of .*final, not of .*best"):
        result_of_evaluation(evaluate(tmp_path / "other", run / "final"), find_model(run, "best"))


def test_an_evaluation_of_a_run_is_one_of_its_best_model_also_once_it_was_moved(run: Path, tmp_path: Path):
    for number, name in enumerate([run, tmp_path / "elsewhere" / run.name]):
        folder = evaluate(tmp_path / f"scored-{number}", name)
        assert result_of_evaluation(folder, find_model(run, "best")).summary["wer"] == ROW["wer"]
        with pytest.raises(UsageError, match=r"not of .*final"):
            result_of_evaluation(folder, find_model(run, "final"))


def test_an_interval_is_only_given_of_the_predictions_that_the_figure_is_of(run: Path, tmp_path: Path):
    model_to_publish = find_model(run, "best")
    assert result_of_evaluation(run / "test", model_to_publish).interval is not None
    with_interval = evaluate(tmp_path / "drawn", run / "best", confidence={"by": "speaker", "wer": [0.1, 0.2]})
    assert result_of_evaluation(with_interval, model_to_publish).interval == Interval(0.1, 0.2), "that of evaluate.py"
    assert result_of_evaluation(evaluate(tmp_path / "test", run / "best", wer=0.126), model_to_publish).interval is None


def test_only_what_was_read_from_the_hub_is_named():
    fleurs = TrainingConfig(data=DataConfig("google/fleurs", config_name="be_by", split="train"))
    assert hub_datasets(fleurs, {"commit": "70bb2e84b976b7e960aa89f1c648e09c59f894dd"}) == {
        "google/fleurs": "be_by, train, commit 70bb2e84b9"
    }
    assert hub_datasets(fleurs, {}) == {}, "a folder google/fleurs, then"
    assert hub_datasets(TrainingConfig(data=DataConfig("hf://datasets/anna/speech/data/*.parquet")), {}) == {
        "anna/speech": ""
    }
    assert hub_model("openai/whisper-small") == "openai/whisper-small"
    assert hub_model("demo-data/micro-whisper") is None


def test_a_model_replaced_during_an_upload_is_uploaded_as_it_was_shown(run: Path, micro_whisper: Path):
    final, weights = find_model(run, "final"), (run / "final/model.safetensors").read_bytes()
    with bundled(final, {"README.md": b"card"}, []) as folder:
        model, processor = load_whisper(str(micro_whisper), ModelConfig())
        model.proj_out.weight.data.zero_()
        publish_final(RunDir(run), TrainState(step=30), model, config_files(model, processor))
        assert (folder / "model.safetensors").read_bytes() == weights
        assert (folder / "README.md").read_bytes() == b"card"
    assert (run / "final/model.safetensors").read_bytes() != weights
    assert (run / "final/README.md").read_bytes() != b"card"
    assert not list(run.glob(".publish-*"))


@pytest.mark.parametrize(
    ("arguments", "fact"),
    [
        (["RUN", "--repo", "a/b/c"], "--repo a/b/c: "),
        (["RUN", "--repo", "a/b", "--license", "Apache 2.0"], "apache-2.0"),
        (["RUN", "--repo", "a/b", "--base_model", "whisper"], "--base_model whisper: "),
        (["RUN", "--repo", "a/b", "--card", "RUN/config.yaml"], "--write_card"),
        (["RUN", "--repo", "a/b", "--evaluation", "RUN"], "summary.json"),
        (["RUN", "--repo", "a/b", "--card", "a.md", "--license", "mit"], "--license"),
        (["RUN", "--repo", "a/b", "--card", "a.md", "--write_card", "b.md"], "--write_card"),
        (["RUN/test", "--repo", "a/b"], "config.yaml"),
        (["RUN"], "required: --repo"),
        (["RUN", "--repo", "a/b"], "HF_TOKEN is not set"),
    ],
)
def test_what_cannot_be_published_is_refused_in_one_line(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str], fact: str
):
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert main([argument.replace("RUN", str(run)) for argument in arguments]) == 2
    error = capsys.readouterr().err
    assert fact in error
    assert error.count("\n") == 1


def damage(name: str) -> Any:
    """Ways in which a model can be unfit to be given away."""
    return {
        "missing": lambda best: (best / "tokenizer.json").unlink(),
        "cut": lambda best: os.truncate(best / "model.safetensors", 1000),
        "token": lambda best: (best / "notes.txt").write_text("hf_" + "a" * 34),
        "gone": lambda best: (best / "config.json").unlink(),
    }[name]


@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "fact"),
    [
        ("missing", "tokenizer.json is missing"),
        ("cut", "best: cannot be read"),
        ("token", "notes.txt: contains a token"),
        ("gone", "--what final"),
    ],
)
def test_a_model_that_is_not_fit_to_be_given_away_is_refused(
    run: Path, tmp_path: Path, how: str, fact: str, capsys: pytest.CaptureFixture[str]
):
    copy = tmp_path / "run"
    (copy / "best").mkdir(parents=True)
    (copy / "final").mkdir()
    for path in [*run.glob("*.*"), *run.glob("best/*"), run / "final/config.json"]:
        if path.is_file():
            (copy / path.relative_to(run)).write_bytes(path.read_bytes())
    damage(how)(copy / "best")
    assert main([str(copy), "--repo", "a/b", "--yes"]) == 2
    assert fact in capsys.readouterr().err


@pytest.mark.long
def test_a_card_of_ones_own_is_uploaded_in_place_of_the_one_that_is_made(published: Any):
    hub, outputs, _ = published
    assert outputs[7][0] == 0
    card = hub.files["anna/own"]["README.md"].decode()
    assert card.startswith("---\n")
    assert card.endswith("\nThanks to all who read.\n")


def test_the_paths_of_all_sources_are_looked_for_in_an_upload(tmp_path: Path):
    sources = [
        WeightedSourceConfig("/corpora/be"),
        WeightedSourceConfig("/corpora/sv"),
        WeightedSourceConfig("relative"),
    ]
    config = TrainingConfig(tmp_path, data=DataConfig(sources=sources, language="be"))
    assert {"/corpora/be", "/corpora/sv", str(tmp_path.resolve())} <= set(local_paths(tmp_path, config))
    assert "relative" not in local_paths(tmp_path, config)


def test_the_sets_beside_the_held_out_set_follow_it_with_the_figures_of_the_published_step(run: Path, tmp_path: Path):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    of_set = {f"swedish/{name}": value for name, value in ROW.items() if name != "step"} | {"swedish/wer": 0.5}
    (own / "predictions/swedish").mkdir()
    write_lines(own / "predictions/swedish/step-00000020.jsonl", PREDICTED)
    write_lines(own / "metrics.jsonl", [ROW | of_set, {"step": 25, "other/wer": 0.1, "other/cer": 0.1}])
    held_out, swedish = results_of_run(own, read_history(own), find_model(own, "best"))
    assert (held_out.name.startswith("held-out"), held_out.rate("wer")) == (True, 0.125)
    assert ("swedish" in swedish.name, swedish.rate("wer"), swedish.languages) == (True, 0.5, ("be",))


@pytest.mark.long
def test_the_card_compares_with_the_start_model_on_the_guards_of_the_published_step(run: Path, tmp_path: Path):
    own = tmp_path / "run"
    shutil.copytree(run, own)
    guard = Guard("english", "wer", 0.01, "no_best")
    outside = {"wer": 0.525, "cer": 0.2} | guard.verdict({"wer": 0.5}, {"wer": 0.525}).summary()
    row = ROW | {f"english/{name}": value for name, value in outside.items()}
    write_lines(own / "metrics.jsonl", [{"step": 20, "loss": 1.0}, row])
    assert main([str(own), "--repo", "someone/mine", "--write_card", str(tmp_path / "card.md")]) == 0
    line = next(line for line in (tmp_path / "card.md").read_text().splitlines() if line.startswith("| english |"))
    assert line == "| english | WER | 50.00% | 52.50% | +2.50 | +1.00 (outside) |"


def test_no_upload_may_contain_the_path_of_a_set(tmp_path: Path):
    sets = [EvalSetConfig(path="/corpora/swedish"), EvalSetConfig(path="relative")]
    assert "/corpora/swedish" in local_paths(tmp_path, TrainingConfig(eval=EvalConfig(sets=sets)))
