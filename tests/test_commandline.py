"""Settings: precedence, types, and one clear line for what cannot work."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from whisper_ft import yaml12
from whisper_ft.commandline import load, refuse_changes, refuse_impossible
from whisper_ft.config import Config, EvaluateConfig, leaves, rules, to_plain
from whisper_ft.failure import UsageError

ROOT = Path(__file__).parents[1]


@pytest.fixture
def write(tmp_path: Path):
    def write_file(text: str, name: str = "a.yaml") -> str:
        (tmp_path / name).write_text(text, encoding="utf-8")
        return str(tmp_path / name)

    return write_file


def test_later_wins_defaults_then_files_then_flags(write):
    one = write("steps: 5\noptim: {lr: 2.0e-4}\nseed: 9\n", "one.yaml")
    two = write("steps: 6\noptim: {lr: 3.0e-4}\n", "two.yaml")
    config = load(Config, ["--config", one, "--config", two, "--optim.lr", "4e-4"])
    assert (config.seed, config.steps, config.optim.lr, config.batch.size) == (9, 6, 4e-4, 16)


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
    assert getattr(getattr(load(Config, ["--config", write(text)]), section), name) == expected


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["--optim.lrr", "3"], "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
        (["--lr", "3"], "unknown setting 'lr'; did you mean 'optim.lr'?"),
        (["--step", "3"], "unknown setting 'step'; did you mean 'steps'?"),
        (["--zzzzzz=1"], "unknown setting 'zzzzzz'; --help lists all settings"),
        (["--optim.lr", "abc"], "--optim.lr abc: expected a float"),
        (["--steps", "1.5"], "--steps 1.5: expected an int"),
        (["--optim.lr", "-1"], "--optim.lr must be above 0, got -1.0"),
        (["--optim.name", "adam"], "--optim.name adam: expected one of ['adamw']"),
        (["--precision", "fp8"], "--precision fp8: expected one of ['fp32', 'bf16']"),
        (["--batch.size", "0"], "--batch.size must be at least 1, got 0"),
        (["--schedule.warmup", "1.5"], "--schedule.warmup must be a whole number of updates"),
        (["--config", "nowhere.yaml"], "--config nowhere.yaml: there is no such file"),
        (["--save.keep", "1"], "--save.keep must be at least 2"),
        (["stray"], "unrecognized arguments: stray"),
    ],
)
def test_what_cannot_work_is_refused_in_one_line(argv: list[str], told: str):
    with pytest.raises(UsageError) as refused:
        load(Config, argv)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("optim: {lrr: 3}", "unknown setting 'optim.lrr'; did you mean 'optim.lr'?"),
        ("steps: 1\nsteps: 2", "the key 'steps' stands twice"),
        ("a: &a [1]\nb: *a", "aliases are not allowed"),
        ("- 1", "should hold `section: {field: value}`, holds list"),
        ("steps: [", "not the YAML this reads"),
        ("steps: !!python/object/apply:os.system ['true']", "not the YAML this reads"),
        ("batch: {size: no}", "expected an int"),
    ],
)
def test_a_bad_config_file_is_refused_in_one_line(write, text: str, told: str):
    with pytest.raises(UsageError) as refused:
        load(Config, ["--config", write(text)])
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_resolved_configuration_reads_back_to_itself(write):
    config = load(
        Config, ["--data.language", "no", "--run_dir", "runs/1e5", "--optim.lr", "1e-05", "--data.path", "010"]
    )
    assert load(Config, ["--config", write(yaml12.dump(to_plain(config)))]) == config


def test_every_setting_has_a_help_text_and_a_resume_rule():
    assert set(rules().values()) <= {"exact", "change", "free"}
    told = subprocess.run(
        [sys.executable, "train.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    for name, _ in leaves(Config):
        entry = told.split(f"--{name}", 2)[-1].split("\n  --")[0]
        assert entry.count(" ") > 5, f"{name} has no help"


def test_settings_that_change_nothing_may_change_on_resume():
    saved = json.loads(json.dumps(to_plain(load(Config, []))))
    now = load(Config, ["--log.every", "1", "--data.workers", "2", "--batch.per_device", "2", "--save.every", "7"])
    assert refuse_changes(saved, now) == []


def test_another_seed_is_another_run():
    with pytest.raises(UsageError, match="another configuration: seed was 1 and is 2"):
        refuse_changes(to_plain(load(Config, [])), load(Config, ["--seed", "2"]))


def test_a_changed_rate_needs_to_be_allowed_by_name():
    saved = to_plain(load(Config, []))
    with pytest.raises(UsageError, match=r"--allow_change '\[optim\.lr\]'"):
        refuse_changes(saved, load(Config, ["--optim.lr", "1e-3"]))
    allowed = load(Config, ["--optim.lr", "1e-3", "--allow_change", "[optim.lr]"])
    assert refuse_changes(saved, allowed) == [("optim.lr", 1e-05, 1e-3)]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        ([], "--data.path is missing"),
        (["--data.path", "nowhere/*.parquet"], "--data.path nowhere/*.parquet: there is no such file or folder"),
        (["--data.path", ".", "--eval.path", "nowhere"], "--eval.path nowhere: there is no such file"),
        (["--data.path", ".", "--model.name", "./nowhere"], "--model.name ./nowhere: there is no such folder"),
        (["--data.path", ".", "--model.name", "tests"], "--model.name tests: holds no config.json"),
        (["--data.path", ".", "--run_dir", "README.md"], "--run_dir README.md: is a file"),
        (["--data.path", ".", "--resume", "yes"], "--resume yes: neither auto, never or best, nor the folder"),
        (["--data.path", ".", "--device", "cuda"], "--device cuda: torch sees no GPU here"),
    ],
)
def test_what_is_not_there_is_named_before_anything_starts(argv: list[str], told: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(ROOT)
    if "cuda" in argv:
        torch = pytest.importorskip("torch")
        if torch.cuda.is_available():
            pytest.skip("this machine has a GPU")
    with pytest.raises(UsageError) as refused:
        refuse_impossible(load(Config, argv))
    assert told in str(refused.value)


def test_a_precision_that_accelerate_would_do_too_is_refused(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "fp16")
    with pytest.raises(UsageError, match="mixed_precision=fp16 and this run --precision fp32"):
        refuse_impossible(load(Config, ["--data.path", str(ROOT)]))


def test_evaluate_takes_a_model_by_one_flag():
    config = load(EvaluateConfig, ["--model", "runs/x/best", "--data.path", "d", "--out", "o"])
    assert (config.model, config.data.path, config.out) == ("runs/x/best", "d", Path("o"))
