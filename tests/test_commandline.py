"""Settings: precedence, types, and one clear line for what cannot work."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from tests.saving import contents_at
from whisper_ft.checkpoint.record import CheckpointRecord
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.checkpoint.writer import write as write_checkpoint
from whisper_ft.config import yaml12
from whisper_ft.config.local_paths import looks_local
from whisper_ft.config.parse import config_from_plain, load_config
from whisper_ft.config.resume_page import page
from whisper_ft.config.resume_policy import refuse_changes
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import to_plain
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.preflight import (
    refuse_impossible,
    refuse_impossible_evaluation,
    refuse_missing,
    refuse_missing_model,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str, name: str = "a.yaml") -> str:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


def test_later_wins_defaults_then_files_then_flags(write):
    one = write("steps: 5\noptim: {lr: 2.0e-4}\nseed: 9\n", "one.yaml")
    two = write("steps: 6\noptim: {lr: 3.0e-4}\n", "two.yaml")
    config = load_config(TrainingConfig, ["--config", one, "--config", two, "--optim.lr", "4e-4"])
    assert (config.seed, config.steps, config.optim.lr, config.batch.size) == (9, 6, 4e-4, 16)


def test_a_number_may_be_left_to_the_program(write):
    config = load_config(TrainingConfig, ["--config", write("batch: {per_device: auto}"), "--optim.lr", "auto"])
    assert (config.batch.per_device, config.optim.lr) == ("auto", "auto")
    for number in (lambda: config.batch.per_pass, lambda: config.optim.peak_lr):
        with pytest.raises(ValueError, match="auto: is not resolved yet"):
            number()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("optim: {lr: 1e-5}", ("optim", "lr", 1e-5)),
        ("optim: {lr: 5}", ("optim", "lr", 5.0)),
        ("data: {language: no}", ("data", "language", "no")),
        ("data: {language: on}", ("data", "language", "on")),
        ("data: {language: null}", ("data", "language", None)),
        ("data: {language: 1e5x}", ("data", "language", "1e5x")),
        ("batch: {size: 010}", ("batch", "size", 10)),  # YAML 1.1 reads eight
        ("optim: {betas: [0.9, 0.95]}", ("optim", "betas", (0.9, 0.95))),
    ],
)
def test_yaml_means_what_it_says(write, text: str, value: tuple[str, str, object]):
    section, name, expected = value
    assert getattr(getattr(load_config(TrainingConfig, ["--config", write(text)]), section), name) == expected


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--optim.lrr", "3"], "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
        (["--lr", "3"], "unknown setting 'lr'; did you mean 'optim.lr'?"),
        (["--step", "3"], "unknown setting 'step'; did you mean 'steps'?"),
        (["--learning_rate", "3"], "unknown setting 'learning_rate'; did you mean 'optim.lr'?"),
        (["--train.learning-rate", "3"], "did you mean 'optim.lr'?"),
        (["--lerning_rate", "3"], "did you mean 'optim.lr'?"),
        (["--weight_decay", "3"], "did you mean 'optim.weight_decay'?"),
        (["--training.weight_decay", "3"], "did you mean 'optim.weight_decay'?"),
        (["--weigth_decay", "3"], "did you mean 'optim.weight_decay'?"),
        (["--evals.every", "3"], "did you mean 'eval.every'?"),
        (["--per_device_train_batch_size", "3"], "did you mean 'batch.per_device'?"),
        (["--num_train_epochs", "3"], "did you mean 'epochs'?"),
        (["--output_dir", "x"], "did you mean 'run_dir'?"),
        (["--zzzzzz=1"], "unknown setting 'zzzzzz'; --help all lists all settings"),
        (["--optim.lr", "abc"], "--optim.lr abc: expected a float or auto"),
        (["--batch.per_device", "half"], "--batch.per_device half: expected an int or auto"),
        (["--batch.per_device", "1.5"], "--batch.per_device 1.5: expected an int or auto"),
        (["--batch.per_device", "0"], "--batch.per_device must be at least 1, got 0"),
        (["--steps", "1.5"], "--steps 1.5: expected an int"),
        (["--optim.lr", "-1"], "--optim.lr must be above 0, got -1.0"),
        (["--optim.name", "adam"], "--optim.name adam: expected one of ['adamw', 'adamw_8bit'"),
        (["--precision", "fp8"], "--precision fp8: expected one of ['auto', 'fp32', 'bf16', 'fp16']"),
        (["--batch.size", "0"], "--batch.size must be at least 1, got 0"),
        (["--schedule.warmup", "1.5"], "--schedule.warmup must be a whole number of updates"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: there is no such file"),
        (["--save.keep", "1"], "--save.keep must be at least 2"),
        (["stray"], "unrecognized arguments: stray"),
        (
            ["--data.sources", "[{path: a}]", "--eval.split", "test"],
            "--eval.split: of which of data.sources? Give --eval.path",
        ),
        (["--average.of", "best"], "--average.of best: no held-out set is evaluated"),
        (["--scaler.initial", "0.5"], "--scaler.initial must be at least scaler.floor, 1, got 0.5"),
        (["--model.layerdrop", "1"], "--model.layerdrop must be from 0 to below 1, got 1"),
        (["--augment.time_mask_share", "2"], "--augment.time_mask_share must be from 0 to 1"),
        (["--optim.betas", "0.9,0.98"], "expected a tuple, as in --optim.betas '[0.9, 0.98]'"),
        (["--allow_change", "optim.lr"], "expected a list, as in --allow_change '[optim.lr]'"),
        (["--eval.batch_size", "0"], "--eval.batch_size must be at least 1, got 0"),
        (["--eval.max_new_tokens", "0"], "--eval.max_new_tokens must be at least 1, got 0"),
        (["--optim", "{lrr: 3}"], "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(argv: list[str], told: str):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, argv)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--steps", "0x10"], "--steps 0x10: expected a number in decimal digits"),
        (["--steps=0b11"], "--steps 0b11: expected a number"),
        (["--steps", "1_000"], "--steps 1_000: expected a number"),
        (["--steps", "1:30"], "--steps 1:30: expected a number"),
        (["--data.lanes", "0x10"], "--data.lanes 0x10: expected a number"),
        (["--optim.betas", "[0.9, 0x0]"], "--optim.betas 0x0: expected a number"),
        (["--data.sources", "[{path: a, weight: 0x3}]"], "--data.sources.weight 0x3: expected a number"),
        (["--optim", "{lr: 0x1}"], "--optim.lr 0x1: expected a number"),
        (["--optim.lr", "1e400"], "--optim.lr must be finite, got inf"),
        (["--optim.clip_norm", ".inf"], "--optim.clip_norm must be finite, got inf"),
        (["--optim.weight_decay", ".nan"], "--optim.weight_decay must be at least 0, got nan"),
        (["--schedule.warmup", "1e400"], "--schedule.warmup must be a whole number of updates"),
    ],
)
def test_a_number_is_finite_and_in_decimal_digits(argv: list[str], told: str):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, argv)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim: {lrr: 3}", "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
        ("steps: 1\nsteps: 2", "'steps'"),
        ("a: &a [1]\nb: *a", "aliases"),
        ("- 1", "got a list"),
        ("steps: [", "--config "),
        ("steps: !!python/object/apply:os.system ['true']", "--config "),
        ("batch: {size: no}", "expected an int"),
        ("steps: 0x10", "--steps 0x10: expected a number in decimal digits"),
        ("optim: {lr: 1e400}", "--optim.lr must be finite"),
    ],
)
def test_a_bad_config_file_is_refused_in_one_line(write, text: str, told: str):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--config", write(text)])
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_resolved_configuration_reads_back_to_itself(write):
    config = load_config(
        TrainingConfig, ["--data.language", "no", "--run_dir", "runs/1e5", "--optim.lr", "1e-05", "--data.path", "010"]
    )
    assert load_config(TrainingConfig, ["--config", write(yaml12.dump(to_plain(config)))]) == config


def test_a_list_that_occurs_twice_can_be_read_back():
    shared = ["encoder"]
    assert yaml12.load(yaml12.dump({"a": shared, "b": shared})) == {"a": shared, "b": shared}


def test_settings_that_change_nothing_may_change_on_resume():
    saved = json.loads(json.dumps(to_plain(load_config(TrainingConfig, []))))
    now = load_config(
        TrainingConfig, ["--log.every", "1", "--data.workers", "2", "--batch.per_device", "2", "--save.every", "7"]
    )
    assert refuse_changes(saved, now) == []


def test_another_seed_is_another_run():
    with pytest.raises(UsageError, match="another configuration: seed was 1 and is 2"):
        refuse_changes(to_plain(load_config(TrainingConfig, [])), load_config(TrainingConfig, ["--seed", "2"]))


def test_a_changed_rate_needs_to_be_allowed_by_name():
    saved = to_plain(load_config(TrainingConfig, ["--optim.lr", "1e-5"]))
    with pytest.raises(UsageError, match=r"--allow_change '\[optim\.lr\]'"):
        refuse_changes(saved, load_config(TrainingConfig, ["--optim.lr", "1e-3"]))
    allowed = load_config(TrainingConfig, ["--optim.lr", "1e-3", "--allow_change", "[optim.lr]"])
    assert refuse_changes(saved, allowed) == [("optim.lr", 1e-05, 1e-3)]


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("zzzzzz", "unknown setting 'zzzzzz'; --help all lists all settings"),
        ("optim.lrr", "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
        ("seed", "seed is exact"),
        ("eval.path", "eval.path is free"),
    ],
)
def test_only_what_needs_it_can_be_allowed_to_change(name: str, told: str):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--allow_change", f"[steps, {name}]"])
    assert told in str(refused.value)


def test_a_run_has_the_configuration_of_its_newest_readable_checkpoint(tmp_path: Path, write):
    """config.yaml may be that of a start that was refused, and a damaged checkpoint says nothing."""
    arguments = ["--data.path", str(tmp_path), "--run_dir", str(tmp_path / "run")]
    write(yaml12.dump(to_plain(load_config(TrainingConfig, ["--seed", "7"]))), "run/config.yaml")
    refuse_impossible(
        load_config(TrainingConfig, arguments)
    )  # no checkpoint yet: whatever was asked for before, this is a new run
    for step, seed in ((2, 1), (4, 2)):
        config = to_plain(load_config(TrainingConfig, ["--seed", str(seed), "--data.lanes", "16"]))
        record = CheckpointRecord(TrainState(step=step), config, data={"lanes": 16}, lr=0.1, world=1)
        contents = replace(contents_at(step, 8), record=json.dumps(record.to_json()).encode())
        write_checkpoint(tmp_path / "run/checkpoints", None, contents)
    refuse_impossible(load_config(TrainingConfig, [*arguments, "--seed", "2"]))
    with pytest.raises(UsageError, match="seed was 2 and is 7"):
        refuse_impossible(load_config(TrainingConfig, [*arguments, "--seed", "7"]))
    write("{", "run/checkpoints/step-00000004/trainer.json")
    refuse_impossible(load_config(TrainingConfig, [*arguments, "--seed", "1"]))


def test_a_recorded_configuration_is_read_back():
    config = load_config(
        TrainingConfig, ["--optim.betas", "[0.8, 0.9]", "--data.language", "no", "--allow_change", "[steps]"]
    )
    assert config_from_plain(TrainingConfig, json.loads(json.dumps(to_plain(config)))) == config


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--data.path is missing"),
        (["--data.path", "nowhere/*.parquet"], "--data.path nowhere/*.parquet: there is no such file or folder"),
        (["--data.path", ".", "--eval.path", "nowhere"], "--eval.path nowhere: there is no such file"),
        (["--data.path", ".", "--model.name", "./nowhere"], "--model.name ./nowhere: there is no such folder"),
        (["--data.path", ".", "--model.name", "tests"], "--model.name tests: has no config.json"),
        (["--data.path", "my-data/train"], "--data.path my-data/train: there is no such file or folder"),
        (["--data.path", "my-data/train"], "; a data set of that name on the Hub is hf://datasets/my-data/train"),
        (["--data.path", "user/train.jsonl"], "--data.path user/train.jsonl: there is no such file or folder in "),
        (["--data.path", "docs/recipe.md"], "no such file or folder; did you mean docs/recipes.md?"),
        (["--data.path", "~/nowhere/at-all"], "--data.path ~/nowhere/at-all: there is no such file or folder"),
        (["--data.path", ".", "--eval.path", "user/validation"], "--eval.path user/validation: there is no such file"),
        (["--data.path", ".", "--model.name", "runs/x/best"], "--model.name runs/x/best: there is no such folder"),
        (["--data.path", ".", "--model.name", "user/checkpoint-400"], "user/checkpoint-400: there is no such folder"),
        (["--data.path", ".", "--model.name", "whisper-smal"], "a model on the Hub is named owner/name"),
        (["--data.path", ".", "--model.name", "whisper-small"], "did you mean openai/whisper-small"),
        (["--data.path", ".", "--run_dir", "README.md"], "--run_dir README.md: is a file"),
        (["--data.path", ".", "--resume", "yes"], "--resume yes: "),
        (["--data.path", ".", "--device", "cuda"], "--device cuda: torch sees no GPU here"),
        (["--data.path", ".", "--device", "mps"], "--device mps: torch sees no GPU of an Apple processor here"),
    ],
)
def test_what_is_not_there_is_named_before_anything_starts(argv: list[str], told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    if {"cuda", "mps"} & {*argv}:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available() or torch.backends.mps.is_available():
            pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError) as refused:
        refuse_impossible(load_config(TrainingConfig, argv))
    assert told in str(refused.value)


def test_a_split_is_named_as_a_split_where_its_files_are(tmp_path: Path):
    (tmp_path / "train-00000-of-00001.parquet").touch()
    with pytest.raises(UsageError, match=f"did you mean the path {tmp_path} with the split train"):
        refuse_missing("data.path", str(tmp_path / "train"))


@pytest.mark.parametrize("name", ["openai/whisper-small", "google/fleurs", "me/whisper-be.v2", "test-org/best-of-be"])
def test_a_name_on_the_hub_does_not_look_local(name: str):
    assert not looks_local(name)
    refuse_missing("data.path", name)
    refuse_missing_model("model.name", name)


@pytest.mark.parametrize("name", ["tiny", "base.en", "large-v3", "large-v3-turbo", "turbo"])
def test_names_of_openai_whisper_reach_the_loading_which_names_the_model_on_the_hub(name: str):
    refuse_missing_model("model.name", name)


@pytest.mark.parametrize("name", ["br[1]", "what?", "a*b.parquet"])
def test_a_name_that_looks_like_a_glob_is_found(tmp_path: Path, name: str):
    (tmp_path / name).mkdir()
    refuse_missing("data.path", str(tmp_path / name))


def test_a_precision_that_accelerate_would_do_too_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UsageError, match="mixed_precision=fp16 and this run --precision auto"):
        refuse_impossible(load_config(TrainingConfig, ["--data.path", str(ROOT)]))


def test_evaluate_takes_a_model_by_one_flag():
    config = load_config(EvaluationConfig, ["--model", "runs/x/best", "--data.path", "d", "--out", "o"])
    assert (config.model, config.data.path, config.out) == ("runs/x/best", "d", Path("o"))


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--model is missing"),
        (["--model", "./nowhere"], "--model ./nowhere: there is no such folder"),
        (["--model", "runs/mine"], "--model runs/mine: there is no such folder"),
        (["--model", "outputs/checkpoint-500"], "--model outputs/checkpoint-500: there is no such folder"),
        (["--model", "owner/name", "--data.path", "nowhere"], "--data.path nowhere: there is no such file"),
    ],
)
def test_what_an_evaluation_lacks_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, argv: list[str], told: str
):
    monkeypatch.chdir(tmp_path)  # the folder of the project may have runs of its own
    with pytest.raises(UsageError) as refused:
        refuse_impossible_evaluation(load_config(EvaluationConfig, argv))
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("setting", "section", "told"),
    [
        ("eval.sets", "{name: a, path: x, max_worse: 0.1, rule: halt}", "--eval.sets: rule halt: expected one of"),
        ("eval.sets", "{name: a, path: x, max_worse: much}", "--eval.sets: max_worse much: expected a float"),
        ("eval.sets", "{name: a, path: x, long: perhaps}", "--eval.sets: long perhaps: expected one of true, false"),
        ("data.sources", "{path: x, weight: lots}", "--data.sources: weight lots: expected a float"),
        ("data.sources", "{path: x, languages: [1]}", "data.sources.languages"),
    ],
)
def test_a_wrong_value_in_a_section_of_a_list_is_named_by_its_setting(setting: str, section: str, told: str):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, [f"--{setting}", f"[{section}]"])
    assert told in str(refused.value)
    assert "class_path" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_decoding_settings_are_named_in_full():
    with pytest.raises(UsageError, match=r"--decoding\.batch_size must be at least 1"):
        load_config(EvaluationConfig, ["--decoding.batch_size", "0"])


def test_the_page_about_resuming_is_that_of_the_settings():
    assert (ROOT / "docs/resume.md").read_text(encoding="utf-8") == page(), (
        "python -m whisper_ft.config.resume_page > docs/resume.md"
    )


def test_shards_by_numbers_in_braces_are_there_if_the_first_one_is(tmp_path: Path):
    (tmp_path / "a-000.tar").touch()
    refuse_missing("data.path", str(tmp_path / "a-{000..127}.tar"))
    with pytest.raises(UsageError, match="there is no such file or folder"):
        refuse_missing("data.path", str(tmp_path / "b-{000..127}.tar"))
