"""The pages say what is so: their commands run and print what is quoted; settings, targets and links are there."""

import io
import json
import re
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from tests.conftest import ROOT, run
from tests.pages import (
    PYTHON,
    QUOTED,
    SETTINGS,
    SHELL,
    SHOWN,
    Block,
    blocks_in,
    blocks_of,
    cloned,
    commands_of,
    not_printed,
    run_block,
)
from tests.test_train_sources import (
    Clip,
    as_audiofolder,
    as_common_voice,
    as_kaldi,
    as_manifest,
    as_saved_dataset,
    as_tar,
)
from whisper_ft import COMMANDS
from whisper_ft.config import yaml12
from whisper_ft.config.parse import load_config
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import leaves
from whisper_ft.runtime.errors import UsageError

DOCS = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md"))
PAGES = ["README.md", "CONTRIBUTING.md", *DOCS]
RUN_HERE = [page for page in PAGES if page != "README.md" and any(block.is_run for block in blocks_in(page))]
REPEATED = ("docs/launch.md", "docs/augmentation.md")
"""Pages whose commands other tests run, too: test_launch.py and test_augment_runs.py."""

# The demo's run, cut to what shows that a command works; `make demo` is run by test_readme.py.
FEW_STEPS = {
    "steps": 6,
    "model": {"name": "demo-data/micro-whisper", "dropout": 0.1},
    "data": {"path": "demo-data/be/train", "language": "be"},
    "batch": {"size": 8, "per_device": 8},
    "optim": {"lr": 2.0e-3},
    "log": {"every": 2},
    "eval": {"path": "demo-data/be/validation", "every": 3, "max_utterances": 4, "max_new_tokens": 12},
    "save": {"every": 3},
}
MINE = FEW_STEPS | {
    "run_dir": "runs/mine",
    "data": {"path": "my-data/train", "language": "be"},
    "eval": FEW_STEPS["eval"] | {"path": "my-data/validation"},
}


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory, corpus: Path, micro_whisper: Path) -> Path:
    """A clone after `make demo`, small, in which stand-ins lie where a page says that the reader's own data is."""
    clone = cloned(tmp_path_factory.mktemp("docs") / "x")
    (clone / "demo-data").mkdir()
    (clone / "demo-data/be").symlink_to(corpus)
    (clone / "demo-data/micro-whisper").symlink_to(micro_whisper)
    (clone / "configs/demo.yaml").write_text(yaml12.dump(FEW_STEPS | {"run_dir": "runs/demo"}))
    (clone / "configs/mine.yaml").write_text(yaml12.dump(MINE))
    (clone / "configs/digits.yaml").write_text(yaml12.dump(MINE | {"run_dir": "runs/digits"}))
    furnish(clone / "my-data", corpus)
    test = ["--data.path", "demo-data/be/test", "--decoding.max_new_tokens", "12", "--out", "runs/demo/test"]
    for program, arguments in (
        ("train.py", ["--config", "configs/demo.yaml"]),
        ("evaluate.py", ["--model", "runs/demo/best", *test]),
    ):
        ended = run(program, *arguments, cwd=clone)
        assert ended.code == 0, ended.out + ended.err
    return clone


def furnish(mine: Path, corpus: Path) -> None:
    """The same few utterances as each kind of data; a row of the manifest names a file that is not there."""
    rows = [row for path in sorted((corpus / "train").glob("*.parquet")) for row in pq.read_table(path).to_pylist()][
        :24
    ]
    clips = [Clip(row["audio"]["path"], row["audio"]["bytes"], row["sentence"]) for row in rows]
    mine.mkdir()
    for split in ("train", "validation", "test"):
        (mine / split).symlink_to(corpus / split)
    listed = [json.loads(line) for line in as_manifest(mine / "listed", clips).read_text().splitlines()]
    listed = [row | {"gender": "female" if number % 2 else "male"} for number, row in enumerate(listed)]
    lines = [json.dumps(row) for row in [*listed, {"audio_filepath": "wav/lost.flac", "text": "няма"}]]
    (mine / "listed/train.jsonl").write_text("\n".join(lines) + "\n")
    as_tar(mine / "shards", clips[:12]).joinpath("a.tar").rename(mine / "shards/train-000.tar")
    as_tar(mine / "more", clips[12:]).joinpath("a.tar").rename(mine / "shards/train-001.tar")
    as_audiofolder(mine / "audio", clips)
    as_lectures(mine / "lectures", [clip for clip in clips if clip.name.endswith(".flac")])
    spoken = as_manifest(mine / "spoken", clips)
    lines = [json.loads(line) | {"speaker": f"s{n % 3}"} for n, line in enumerate(spoken.read_text().splitlines())]
    spoken.with_name("train.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    long_one(mine / "talks", [clip for clip in clips if clip.name.endswith(".flac")][:6])
    as_saved_dataset(mine / "saved", clips)
    as_kaldi(mine / "kaldi", clips)
    release = mine / "cv-corpus-25.0-2026-03-01"
    tables = as_common_voice(release, clips) / "be"
    head, *named = (tables / "train.tsv").read_text().splitlines()
    for table, some in (("train", named[:4]), ("dev", named[4:6]), ("test", named[6:8]), ("validated", named)):
        lines = [line.replace("m\t", f"{table if table != 'validated' else i}\t", 1) for i, line in enumerate(some)]
        (tables / f"{table}.tsv").write_text("\n".join([head, *lines]) + "\n")
    with tarfile.open(f"{release}-be.tar.gz", "w:gz") as archive:
        archive.add(release, release.name)


def as_lectures(folder: Path, clips: list[Clip]) -> None:
    """Two recordings with subtitles, of half of the clips each."""
    folder.mkdir()
    for name, part in (("one", clips[::2]), ("two", clips[1::2])):
        sounds = [soundfile.read(io.BytesIO(clip.audio))[0] for clip in part]
        soundfile.write(folder / f"{name}.flac", np.concatenate(sounds), 16_000)
        ends = np.cumsum([len(sound) for sound in sounds]) / 16_000
        cues = zip(ends - [len(sound) / 16_000 for sound in sounds], ends, part, strict=True)
        lines = [
            f"{begin // 60:02.0f}:{begin % 60:06.3f} --> {end // 60:02.0f}:{end % 60:06.3f}\n{clip.text}\n"
            for begin, end, clip in cues
        ]
        (folder / f"{name}.vtt").write_text("\n".join(["WEBVTT\n", *lines]), encoding="utf-8")


def long_one(folder: Path, clips: list[Clip]) -> None:
    """A recording that is longer than the window, in a manifest."""
    folder.mkdir()
    sound = np.concatenate([soundfile.read(io.BytesIO(clip.audio))[0] for clip in clips])
    soundfile.write(folder / "talk.flac", sound, 16_000)
    line = {"audio": "talk.flac", "text": " ".join(clip.text for clip in clips)}
    (folder / "talks.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n")


def run_page(page: str, clone: Path) -> None:
    """Run the blocks of a page in order, and compare what they print with what the page quotes."""
    printed: dict[int, str] = {}
    for block in blocks_in(page):
        if block.language == QUOTED and block.section in printed and not block.says("not output"):
            missing = list(not_printed(block.text, printed[block.section]))
            assert not missing, f"{block.name} quotes {missing[0]!r}; printed was\n{printed[block.section]}"
        if block.is_run:
            ended = run_block(block, clone)
            assert ended.code == int(block.says("exits") or 0), f"{block.name}\n{ended.out}\n{ended.err}"
            printed[block.section] = ended.out + ended.err


@pytest.mark.long
@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=pytest.mark.matrix) if page in REPEATED else page for page in RUN_HERE]
)
def test_the_commands_of_a_page_run_and_print_what_it_quotes(page: str, furnished: Path, tmp_path: Path):
    run_page(page, shutil.copytree(furnished, tmp_path / "x", symlinks=True))


@pytest.mark.parametrize("page", PAGES)
def test_each_block_of_a_page_is_checked_or_says_why_it_is_not_run(page: str):
    for block in blocks_in(page):
        known = (SHELL, PYTHON, QUOTED, SETTINGS, *SHOWN)
        assert block.language in known or block.says("not run"), (
            f"{block.name}: begin the block with ```bash or ```python, which are run, with another of {known}, "
            "or say why it cannot be run: <!-- not run: needs a GPU -->"
        )


@pytest.mark.parametrize("page", PAGES)
def test_settings_in_yaml_on_a_page_are_settings(page: str, tmp_path: Path):
    for block in blocks_in(page):
        if block.language == SETTINGS and not block.says("not run"):
            (tmp_path / "a.yaml").write_text(block.text, encoding="utf-8")
            assert can_be_loaded(tmp_path / "a.yaml") is None, block.name


def can_be_loaded(path: Path) -> str | None:
    """None, or why a file is the configuration neither of a run nor of an evaluation."""
    reasons = []
    for kind in (TrainingConfig, EvaluationConfig):
        try:
            load_config(kind, ["--config", str(path)])
            return None
        except UsageError as error:
            reasons.append(str(error))
    return "; ".join(reasons)


def spans(page: str) -> list[str]:
    """The texts in `code` between the words of a page."""
    source = re.sub(r"```.*?```", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    return re.findall(r"`([^`\n]+)`", source)


def wanting(text: str) -> list[str]:
    """Names in a piece of code that do not exist: settings by section, targets of make, modules, configurations."""
    settings = {name for kind in (TrainingConfig, EvaluationConfig) for name, _ in leaves(kind)}
    # `model.x` in a text may be an attribute in Python, or a file; what begins with -- is a setting.
    sections = "|".join(sorted({name.split(".")[0] for name in settings if "." in name} - {"model"}))
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    dotted = re.findall(rf"(?:--(?=\w+\.)|^(?=(?:{sections})\.))(\w+\.\w+)(?![\w./(])", text)
    missing = [name for name in dotted if name not in settings]
    missing += [f"make {name}" for name in re.findall(r"^make ([\w-]+)", text, re.MULTILINE) if name not in targets]
    for module in re.findall(r"-m ((?:whisper_ft|bench)[\w.]*)", text):
        place = ROOT / module.replace(".", "/")
        is_old_name = module in {f"whisper_ft.{name}" for name in COMMANDS}
        missing += (
            [] if is_old_name or (place / "__main__.py").exists() or place.with_suffix(".py").exists() else [module]
        )
    missing += [name for name in re.findall(r"-m whisper_ft (\w[\w.-]*)", text) if name not in {*COMMANDS, "COMMAND"}]
    return missing + [name for name in re.findall(r"\bconfigs/[\w/-]+\.yaml", text) if not is_there(name)]


def is_there(config: str) -> bool:
    return config == "configs/mine.yaml" or (ROOT / config).exists()  # the reader's own


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_names_in_passing_is_there(page: str):
    texts = [*spans(page), *(command for block in blocks_in(page) for command in commands_of(block))]
    assert not {name for text in texts for name in wanting(text)}


@pytest.mark.parametrize("page", PAGES)
def test_the_links_of_a_page_lead_to_what_is_there(page: str):
    for target in re.findall(r"\]\(([^)\s]+)\)", (ROOT / page).read_text(encoding="utf-8")):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        place = (ROOT / page).parent / file if file else ROOT / page
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), target


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    headings = re.findall(r"^#+ (.*)", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_readme_is_at_most_250_lines_and_leads_to_every_page():
    source = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(source.splitlines()) <= 250
    pages = [page for page in DOCS if "decisions" not in page]
    assert not [page for page in pages if f"({page})" not in source], "the table under `Pages` wants a line for these"


def page_of(*lines: str) -> list[Block]:
    return blocks_of("a.md", "\n".join(lines))


def test_a_comment_belongs_to_the_block_below_it_alone():
    first, second = page_of("<!-- exits: 8 -->", "", "```bash", "a", "```", "```bash", "b", "```")
    assert (first.says("exits"), second.says("exits"), first.name) == ("8", None, "a.md:3")
    (parted,) = page_of("<!-- not run: needs a GPU -->", "Words.", "```bash", "a", "```")
    assert parted.is_run
    (over_lines,) = page_of("<!-- not run: needs", "a GPU -->", "```bash", "a", "```")
    assert (over_lines.is_run, over_lines.says("not run")) == (False, "needs a GPU")


@pytest.mark.long
def test_a_wrong_command_claim_or_quotation_of_a_page_is_found(tmp_path: Path):
    failing, right, wrong = page_of(
        *("```bash", "false", "echo went on", "```", "```python", "1 + 1  # 2", "```", "```python", "1 + 1  # 3", "```")
    )
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")
    assert (run_block(failing, tmp_path).code, "went on" in run_block(failing, tmp_path).out) == (1, False)
    assert (run_block(right, tmp_path).code, run_block(wrong, tmp_path).code) == (0, 1)
    assert list(not_printed("WER 12.5 %\n...\nsaved x", "WER 100.00 %\nthis and that\nsaved x\n")) == []
    assert list(not_printed("saved x\nWER 1 %", "WER 1 %\nsaved x")) == ["saved x"]
    assert list(not_printed("utterances 100.0%", "┃ utteranc… ┃\n│ 3.1% │")) == []


@pytest.mark.parametrize(
    "text",
    ["--data.pathh", "make tests", "python -m whisper_ft doktor", "python -m whisper_ft.doktor", "configs/small.yaml"],
)
def test_a_name_that_is_nowhere_is_found(text: str):
    assert wanting(text)
