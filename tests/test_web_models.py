"""Models of the web server: each of a run can be chosen, a new best is used at once, and a run is left alone."""

import json
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import START_SECONDS, Trainer, digest
from tests.learnt_speech import sentences
from tests.serving import Serving, serving
from tests.test_adapter_resume import NF4
from tests.test_average_and_patience import AVERAGED
from whisper_ft.checkpoint.state import Best
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.whisper import load_whisper
from whisper_ft.runtime.lock import lock_folder
from whisper_ft.web.models_of_run import ServedModels


@pytest.fixture(scope="module")
def served(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    """A server of a run."""
    run = Path(shutil.copytree(trained, tmp_path_factory.mktemp("served") / "demo"))
    with serving(run, max_mb=50) as serving_:
        yield serving_


def publish(run: Path, step: int, model: Path, value: float = 0.5) -> None:
    """Publish another model as the best, as a run does."""
    loaded = load_whisper(str(model))
    readme = f"# Best model\n\nBest wer of its run: {value:.6f}, at step {step}.\n"
    export(loaded.model, config_files(*loaded), run / "best", readme)
    (run / "best.json").write_text(json.dumps(asdict(Best(step, "wer", value)) | {"model": "whole"}))


@pytest.mark.long
def test_models_of_a_run_can_be_chosen(served: Serving, sounds: Path, micro_whisper: Path):
    state = served.get("/api/models").json()
    by_id = {choice["id"]: choice for choice in state["choices"]}
    assert {"latest", "best", "final", "step-00000040", "start"} == set(by_id)
    assert (state["default"], state["compare"], by_id["latest"]["follows"]) == ("latest", "start", "best")
    assert [by_id[name]["step"] for name in ("latest", "best", "final", "step-00000040", "start")] == [
        40,
        40,
        40,
        40,
        0,
    ]
    assert by_id["best"]["metric"] in ("wer", "cer")
    assert 0 < by_id["best"]["value"] == by_id["step-00000040"]["value"]
    assert [by_id["step-00000040"]["kind"], by_id["final"]["kind"]] == ["checkpoint", "whole"]
    texts = {name: served.transcribe(sounds / "a.flac", model=name)["text"] for name in by_id}
    assert len({texts[name] for name in by_id if name != "start"}) == 1, "all are the weights after step 40"
    assert texts["start"] != texts["best"]
    languages = served.get("/api/languages", params={"model": "step-00000040"}).json()
    assert languages["own"] == "be"
    assert {"code": "be", "name": "belarusian"} in languages["languages"]


def test_a_folder_of_a_model_or_a_checkpoint_is_a_single_model(trained: Path, monkeypatch: pytest.MonkeyPatch):
    for place, kind, step in (("best", "whole", 40), ("checkpoints/step-00000040", "checkpoint", None)):
        (choice,) = ServedModels(str(trained / place)).choices()
        assert (choice.id, choice.kind, choice.step) == ("model", kind, step)
    monkeypatch.chdir(trained)
    assert ServedModels(".").choices()[0].run == trained.name, "a run has the name of its folder"


@pytest.mark.long
def test_the_average_of_a_run_is_served_and_another_model_beside_it(
    train: Trainer, learnt: Path, corpus: Path, tmp_path: Path
):
    sentence = sentences(corpus / "validation")[0]
    (tmp_path / "clip").write_bytes(sentence.audio)
    run = train.reference(**AVERAGED)
    with serving(run, compare=str(learnt)) as served:
        state = served.get("/api/models").json()
        by_id = {choice["id"]: choice for choice in state["choices"]}
        assert {"final", "average", "compare"} < set(by_id)
        assert (state["compare"], by_id["compare"]["name"]) == ("compare", learnt.name)
        events = {name: dict(served.events(tmp_path / "clip", model=name)) for name in ("average", "compare")}
        assert events["average"]["started"]["model"]["kind"] == "whole"
        assert events["compare"]["done"]["text"] == sentence.text != events["average"]["done"]["text"]
        with served.server.models.use(served.server.models.find("average")) as held:
            weights = load_file(run / "average/model.safetensors")
            states = held.model.model.state_dict()
            assert all(torch.equal(states[name], value) for name, value in weights.items())


def test_the_second_model_is_any_of_the_run_or_the_latest_of_another(trained: Path, tmp_path: Path):
    run = str(trained)
    other = Path(shutil.copytree(trained, tmp_path / "other"))
    for given, id, place in (
        ("final", "final", trained / "final"), (str(other), "compare", other / "best"),
        (str(other / "final"), "compare", other / "final"),
    ):  # fmt: skip
        models = ServedModels(run, given)
        assert models.compare_id(models.choices()) == id
        found = models.find(id)
        assert found is not None
        assert Path(found.place) == place


@pytest.mark.long
def test_adapters_and_their_checkpoints_are_served(train: Trainer, sounds: Path):
    with serving(train.reference(**NF4)) as served:
        state = served.get("/api/models").json()
        by_id = {choice["id"]: choice for choice in state["choices"]}
        assert (by_id["latest"]["follows"], by_id["best-adapter"]["kind"]) == ("best-adapter", "adapter")
        checkpoint = f"step-{by_id['latest']['step']:08d}"
        texts = {name: served.transcribe(sounds / "a.flac", model=name)["text"] for name in ("latest", checkpoint)}
        assert texts["latest"] == texts[checkpoint], "both on the base as it was quantised"
        languages = served.get("/api/languages", params={"model": "best-adapter"}).json()
        assert (languages["is_multilingual"], languages["own"]) == (True, "be"), "of its training, not of its base"
        assert len(served.server.models.loaded) <= 2


@pytest.mark.long
def test_a_new_best_is_used_between_requests(trained: Path, micro_whisper: Path, sounds: Path, tmp_path: Path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    with serving(run) as served:
        before = served.events(sounds / "a.flac")
        publish(run, 50, micro_whisper)
        state = served.get("/api/models").json()
        assert [(c["id"], c["step"], c["is_loaded"]) for c in state["choices"][:2]] == [
            ("latest", 50, False),
            ("best", 50, False),
        ]
        after = served.events(sounds / "a.flac")
        assert [dict(events)["started"]["model"]["step"] for events in (before, after)] == [40, 50]
        assert (
            before[-1][1]["text"] != after[-1][1]["text"] == served.transcribe(sounds / "a.flac", model="start")["text"]
        )
        assert "loading" in dict(after)
        assert "loading" not in dict(served.events(sounds / "a.flac"))


def test_a_best_that_is_replaced_while_it_is_read_is_read_again(trained: Path, micro_whisper: Path, tmp_path: Path):
    import torch

    from whisper_ft.web.loaded_models import LoadedModels

    run = Path(shutil.copytree(trained, tmp_path / "run"))
    replaced = list[bool]()

    def replace_once(line: str) -> None:
        if not replaced:
            replaced.append(True)
            publish(run, 50, micro_whisper)

    models = LoadedModels(ServedModels(str(run)), torch.device("cpu"), "auto", replace_once)
    with models.use(models.find("latest")) as held:
        assert (held.choice.step, replaced) == (50, [True])
        assert held.version == models.find("latest").version


def test_half_written_folders_are_no_models(trained: Path, tmp_path: Path):

    run = Path(shutil.copytree(trained, tmp_path / "run"))
    whole = [choice.id for choice in ServedModels(str(run)).choices()]
    shutil.copytree(run / "best", run / ".tmp-average-1a2b3c4d")
    shutil.copytree(run / "checkpoints/step-00000040", run / "checkpoints/.tmp-step-00000080-1a2b3c4d")
    (run / "average").mkdir()
    assert [choice.id for choice in ServedModels(str(run)).choices()] == whole


def test_a_run_in_training_is_neither_locked_nor_written(trained: Path, sounds: Path, tmp_path: Path):
    run = Path(shutil.copytree(trained, tmp_path / "run"))
    lock = lock_folder(run, "run")
    (run / "status.json").write_text(json.dumps({"state": "running", "step": 40}))

    def files() -> dict[str, int]:
        return {str(path.relative_to(run)): path.stat().st_mtime_ns for path in run.rglob("*")}

    before = files()
    with serving(run) as served:
        assert served.transcribe(sounds / "a.flac")["text"]
        assert served.get("/api/models").json()["runs"] == [{"name": "run", "state": "running", "step": 40}]
    assert files() == before
    lock.close()
    lock_folder(run, "run").close()


@pytest.mark.long
def test_a_run_that_is_served_while_it_trains_ends_with_the_same_weights(train: Trainer, sounds: Path):
    run, started = train.folder / "run", train.start(train.arguments("run"), 1)
    deadline = time.monotonic() + START_SECONDS
    while not (run / "config.yaml").exists():
        assert started.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    steps = list[int | None]()
    with serving(run) as served:
        is_over = False
        while not is_over:
            is_over = started.poll() is not None
            events = dict(served.events(sounds / "phone.wav", words="false"))
            assert "done" in events, events["error"]
            steps.append(events["started"]["model"]["step"])
    assert started.wait(START_SECONDS) == 0
    assert steps == sorted(steps, key=lambda step: step or 0)
    assert steps[-1] == json.loads((run / "best.json").read_text())["step"]
    assert digest(run) == digest(train.reference())


def test_a_folder_of_runs_offers_all_of_them(trained: Path, sounds: Path, tmp_path: Path):
    for name in ("one", "two"):
        shutil.copytree(trained, tmp_path / name)
    newer = tmp_path / "two/best/config.json"
    newer.write_text(newer.read_text() + "\n")
    with serving(tmp_path) as served:
        ids = [choice["id"] for choice in served.get("/api/models").json()["choices"]]
        assert {"one/latest", "two/best", "one/step-00000040"} < set(ids)
        assert dict(served.events(sounds / "a.flac"))["started"]["model"]["id"] == ids[0] == "two/latest"
        (tmp_path / "three").mkdir()
        assert [run["name"] for run in served.get("/api/models").json()["runs"]] == ["one", "two"]
