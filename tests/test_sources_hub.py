"""Data sets of the Hub, played by a server of this machine: pinned, chosen, and refused with the way out."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.elsewhere import TOKEN, Elsewhere, serve, write
from whisper_ft.data.formats.fingerprint import changed

MAIN, OLD, CONVERTED, TAMPERED = "a" * 40, "b" * 40, "c" * 40, "d" * 40


def publish(top: Path, refs: dict[str, str], files: dict[str, int | str]) -> None:
    """A data set: rows of each parquet file, or the text of another file, in the commit of `main`."""
    for commit in set(refs.values()):
        for name, content in files.items():
            path = top / commit / name
            if isinstance(content, int):
                write(path, content)
            else:
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content)
    (top / "refs.json").write_text(json.dumps(refs | {commit: commit for commit in refs.values()}))


TRAIN = {"data/train-00000-of-00002.parquet": 25, "data/train-00001-of-00002.parquet": 10}
SPLITS = TRAIN | {"data/validation-00000-of-00001.parquet": 7, "data/test-00000-of-00001.parquet": 3}
CARD = """---
configs:
- config_name: be
  data_files:
  - {split: train, path: be/t-*}
  - {split: test, path: be/e-*}
- config_name: sv
  data_files: sv/*.parquet
---
"""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Elsewhere]:
    """Data sets of each kind."""
    top = tmp_path_factory.mktemp("hub")
    publish(top / "o/speech", {"main": MAIN}, SPLITS)
    publish(top / "o/speech", {"old": OLD}, TRAIN | {"data/train-00001-of-00002.parquet": 5})
    publish(top / "o/speech", {"readme": TAMPERED}, SPLITS | {"README.md": "# Speech"})
    (top / "o/speech/refs.json").write_text(
        json.dumps({"main": MAIN, MAIN: MAIN, "old": OLD, OLD: OLD, "readme": TAMPERED, TAMPERED: TAMPERED})
    )
    publish(
        top / "o/several",
        {"main": MAIN},
        {"README.md": CARD, "be/t-1.parquet": 4, "be/e-1.parquet": 2, "sv/a.parquet": 3},
    )
    converted = {
        ".gitattributes": "",
        "be/train/0000.parquet": 4,
        "sv/train/0000.parquet": 3,
        "sv/partial-test/0000.parquet": 2,
    }
    publish(top / "o/script", {"refs/convert/parquet": CONVERTED}, converted)
    publish(top / "o/script", {"main": MAIN}, {"script.py": "", "README.md": "# Speech"})
    (top / "o/script/refs.json").write_text(
        json.dumps({"main": MAIN, MAIN: MAIN, "refs/convert/parquet": CONVERTED, CONVERTED: CONVERTED})
    )
    publish(top / "o/gated", {"main": MAIN}, TRAIN)
    publish(top / "o/json", {"main": MAIN}, {"train.jsonl": '{"text": "так"}\n'})
    publish(top / "o/nothing", {"main": MAIN}, {"README.md": "# Nothing"})
    with serve(top) as hub:
        yield hub


CHILD = """
import json, os, pickle, sys
from pathlib import Path
for line in sys.stdin:
    asked = json.loads(line)
    os.environ |= asked.get("env", {})
    try:
        if "open" in asked:
            from whisper_ft.config.data import SourceConfig
            from whisper_ft.data.formats.hub import open_hub
            cache = Path(asked["cache"]) if asked.get("cache") else None
            source = open_hub(SourceConfig(**asked["open"]), cache, asked.get("columns", ()))
        if "pickled" in asked:
            source = pickle.loads(Path(asked["pickled"]).read_bytes())
        if "pickle" in asked:
            Path(asked["pickle"]).write_bytes(pickle.dumps(source))
        ids = [source.row_id(chunk, row) for chunk, rows in enumerate(source.rows) for row in range(rows)]
        said = {"rows": source.rows, "ids": ids, "fingerprint": source.fingerprint()}
        said["has_datasets"] = "datasets" in sys.modules
        if "read" in asked:
            rows = source.read(asked["read"])
            said |= {"texts": [row.text for row in rows], "columns": [row.columns for row in rows]}
    except Exception as error:
        said = {"error": f"{type(error).__name__}: {error}"}
    print("said", json.dumps(said), flush=True)
"""


class Child:
    """A fresh process that knows this Hub and no other, for the address of the Hub is read at import."""

    def __init__(self, hub: Elsewhere, home: Path, **environment: str) -> None:
        known = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        self._process = subprocess.Popen(
            [sys.executable, "-c", CHILD],
            cwd=ROOT,
            env=known | {"HF_ENDPOINT": hub.address, "HF_HOME": str(home)} | environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __call__(self, path: str | None = None, **asked: Any) -> dict[str, Any]:
        """Answer about the source at a path; `read`, `cache`, `columns`, ... are no settings of it."""
        extra = ("read", "cache", "columns", "env", "pickle", "pickled")
        others = {name: asked.pop(name) for name in extra if name in asked}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        line = others | ({"open": {"path": path} | asked} if path else {})
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        for answer in self._process.stdout:
            if answer.startswith("said "):
                return dict(json.loads(answer.removeprefix("said ")))
        raise AssertionError("the process ended")

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture(scope="module")
def ask(hub: Elsewhere, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Child]:
    child = Child(hub, tmp_path_factory.mktemp("home"))
    yield child
    child.close()


@pytest.mark.long
def test_a_data_set_is_read_at_a_commit_and_says_which(ask: Child, hub: Elsewhere):
    said = ask("o/speech", read=3)
    assert said["rows"] == [10, 10, 5, 10]
    assert said["ids"][26] == "data/train-00001-of-00002.parquet#1"
    assert said["texts"][1] == "train-00001-of-00002.parquet 1"
    assert said["fingerprint"]["commit"] == MAIN
    files = [path for method, path in hub.asked if method == "GET" and "/resolve/" in path and "o/speech" in path]
    assert files
    assert all(f"/resolve/{MAIN}/" in path for path in files)


def test_other_columns_are_read_where_they_are_asked_for(ask: Child):
    assert ask("o/speech", read=3)["columns"][1] is None
    said = ask("o/speech", read=3, columns=["client_id", "path"])["columns"][1]
    assert said["client_id"] == "speaker 1"
    assert said["path"].startswith("1-x")
    refused = ask("o/speech", columns=["gender"])["error"]
    assert "has no column 'gender'; set --columns to some of client_id, path" in refused


@pytest.mark.parametrize(
    ("settings", "rows"),
    [
        ({"split": "validation"}, [7]),
        ({"split": "validation+train"}, [10, 10, 5, 10, 7]),
        ({"revision": "old"}, [10, 10, 5, 5]),
        ({"revision": OLD}, [10, 10, 5, 5]),
        ({"path": "o/several", "config_name": "be", "split": "train+test"}, [2, 4]),
        ({"path": "o/several", "config_name": "sv"}, [3]),
        ({"path": "o/script", "config_name": "sv", "revision": "refs/convert/parquet"}, [3]),
        ({"path": "o/script", "config_name": "be", "revision": CONVERTED}, [4]),
    ],
)
def test_split_configuration_and_revision_choose_the_files(ask: Child, settings: dict[str, str], rows: list[int]):
    assert ask(**({"path": "o/speech"} | settings))["rows"] == rows


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"path": "o/unknown"}, ["`hf auth login`"]),
        ({"path": "o/gated"}, ["https://huggingface.co/datasets/o/gated", "`hf auth login`"]),
        ({"path": "a/b/c"}, ["owner/name"]),
        ({"revision": "v9"}, ["'v9'", "--data.revision"]),
        ({"split": "dev"}, ["'dev'", "--data.split"]),
        ({"split": "train[:10%]"}, ["'train[:10%]'", "--data.split"]),
        ({"path": "o/several"}, ["--data.config_name", "be, sv"]),
        ({"path": "o/several", "config_name": "de"}, ["'de'", "--data.config_name", "be, sv"]),
        ({"path": "o/script"}, ["script", "--data.revision refs/convert"]),
        ({"path": "o/script", "revision": CONVERTED}, ["--data.config_name", "be"]),
        (
            {"path": "o/script", "revision": CONVERTED, "config_name": "sv", "split": "test"},
            ["sv/partial-test/*.parquet"],
        ),
        ({"path": "o/json"}, ["train.jsonl", "--data.revision refs/convert/parquet"]),
        ({"path": "o/nothing"}, ["--data.revision refs/convert/parquet"]),
    ],
)
def test_a_data_set_that_the_hub_cannot_give_is_a_usage_error_with_the_way_out(
    ask: Child, settings: dict[str, str], facts: list[str]
):
    asked = {"path": "o/speech"} | settings
    error = ask(**asked)["error"]
    assert error.startswith(f"UsageError: {asked['path']}: ")
    assert not [fact for fact in facts if fact not in error], error
    assert "\n" not in error


def test_a_gated_data_set_is_read_with_the_token_of_the_environment_which_is_written_nowhere(
    ask: Child, tmp_path: Path
):
    said = ask(
        "o/gated", env={"HF_TOKEN": TOKEN}, read=0, cache=str(tmp_path / "index"), pickle=str(tmp_path / "source")
    )
    wrong = ask("o/gated", env={"HF_TOKEN": "hf_wrong"})
    ask("o/speech", env={"HF_TOKEN": ""})
    assert said["texts"][0] == "train-00000-of-00002.parquet 0"
    assert "is gated" in wrong["error"]
    assert "hf_wrong" not in wrong["error"]
    assert TOKEN not in json.dumps(said)
    assert all(TOKEN.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.long
def test_a_worker_reads_a_row_group_of_the_hub_in_one_request_and_needs_no_datasets(
    ask: Child, hub: Elsewhere, tmp_path: Path
):
    ask("o/speech", pickle=str(tmp_path / "source"))
    worker = Child(hub, tmp_path / "home")
    hub.forget()
    first = worker(pickled=str(tmp_path / "source"), read=1)
    assert [method for method, path in hub.asked if "agent" not in path] == ["GET"]
    assert worker(read=3)["texts"][0] == "train-00001-of-00002.parquet 0"
    assert len([path for _, path in hub.asked if "agent" not in path]) == 2
    assert first["texts"][0] == "train-00000-of-00002.parquet 10"
    assert not first["has_datasets"]
    worker.close()


def test_footers_of_the_hub_are_fetched_once(ask: Child, hub: Elsewhere, tmp_path: Path):
    def fetched() -> list[str]:
        hub.forget()
        said.append(ask("o/speech", cache=str(tmp_path / "index")))
        return [path for _, path in hub.asked if path.endswith(".parquet")]

    said: list[dict[str, Any]] = []
    assert len(fetched()) == 2
    assert fetched() == []
    assert said[0] == said[1]


def test_a_commit_that_touched_other_files_is_no_change_of_the_data(ask: Child):
    then, same, old = (ask("o/speech", revision=name)["fingerprint"] for name in ("main", "readme", "old"))
    assert then["commit"] != same["commit"]
    assert changed(then, same) == ""
    change = changed(then, old)
    assert not [fact for fact in (MAIN, OLD, "data/train-00001-of-00002.parquet (10, now 5)") if fact not in change]


@pytest.mark.long
def test_offline_says_how_to_bring_the_data_here(hub: Elsewhere, tmp_path: Path):
    offline = Child(hub, tmp_path, HF_HUB_OFFLINE="1")
    error = offline("o/speech")["error"]
    assert not [fact for fact in ("HF_HUB_OFFLINE", "`hf download --repo-type dataset o/speech") if fact not in error]
    offline.close()


@pytest.mark.long
def test_a_hub_that_does_not_answer_is_a_data_error(hub: Elsewhere, tmp_path: Path):
    lonely = Child(hub, tmp_path, HF_ENDPOINT="http://127.0.0.1:9")
    assert lonely("o/speech")["error"].startswith("DataError: o/speech: ")
    lonely.close()
