"""Mixtures of a model with its start: exact at both ends, all scored once, and the best one within the guards."""

import json
import math
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from tests.adapter_files import own_adapter
from tests.conftest import Trainer, digest, metrics
from tests.model_files import content, edited
from whisper_ft.cli.interpolate.__main__ import main
from whisper_ft.cli.publish.model_to_publish import find_model
from whisper_ft.config.alphas import alphas_in
from whisper_ft.decoding.guards_of_model import guards_of_model
from whisper_ft.models.export.side_files import SIDE_FILES
from whisper_ft.models.interpolation import Mixture, StoredWeights, mixed
from whisper_ft.models.whisper import load_whisper, weights_sha256
from whisper_ft.runtime.errors import UsageError
from whisper_ft.scoring.guard import Guard, Verdict
from whisper_ft.scoring.mixtures import MixtureScores, best_within

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def tuned(micro_whisper: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The micro model with every weight moved."""
    folder = Path(shutil.copytree(micro_whisper, tmp_path_factory.mktemp("tuned") / "model"))
    torch.manual_seed(3)
    moved = {name: value + 0.02 * torch.randn_like(value) for name, value in load_file(folder / WEIGHTS).items()}
    save_file(moved, folder / WEIGHTS, {"format": "pt"})
    return folder


def mixture_of(start: Path, other: Path) -> Mixture:
    return Mixture(StoredWeights(str(start)), StoredWeights(str(other)))


def result_in(out: Path) -> dict[str, Any]:
    return dict(json.loads((out / "interpolation.json").read_text()))


# --- mixing ---------------------------------------------------------------------------------------------------------


@given(alpha=st.floats(0, 1), seed=st.integers(0, 100), half=st.booleans())
def test_a_mixture_lies_on_the_line_and_is_exact_at_both_ends(alpha: float, seed: int, half: bool):
    generator = torch.Generator().manual_seed(seed)
    start, other = (torch.randn(8, generator=generator) for _ in range(2))
    start = start.half() if half else start
    between = mixed(start, other, alpha)
    assert between.dtype == torch.float32
    expected = start.double() + alpha * (other.double() - start.double())
    assert torch.allclose(between.double(), expected, rtol=1e-6, atol=1e-7)
    assert torch.equal(mixed(start, other, 0), start.float())
    assert torch.equal(mixed(start, other, 1), other)
    assert mixed(start.half(), other.half(), alpha).dtype == torch.float16


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("0:1:0.25", [0, 0.25, 0.5, 0.75, 1]),
        ("0:1:0.1", [number / 10 for number in range(11)]),
        ("0.2:0.5:0.15", [0, 0.2, 0.35, 0.5, 1]),
        ("0.5", [0, 0.5, 1]),
        ("0.7,0.3,0.7", [0, 0.3, 0.7, 1]),
        ([0.4], [0, 0.4, 1]),
    ],
)
def test_the_points_of_a_line_have_both_ends(given: Any, expected: list[float]):
    assert alphas_in(given) == pytest.approx(expected)


@pytest.mark.parametrize(
    "given", ["", "x", "0:1", "0:1:0", "1:0:0.1", "0:2:0.5", "-0.1", "1.1", "nan", "0:1:nan", "0:1:1e-5", "0:1:1e-320"]
)
def test_points_that_are_none_are_refused(given: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(ValueError, match=r"\w"):
        alphas_in(given)
    assert main(["a", "b", "--alpha", given or "''", "--out", str(tmp_path)]) == 2
    assert "--alpha" in capsys.readouterr().err


def test_a_model_gets_the_weights_of_a_mixture_and_keeps_its_tie(micro_whisper: Path, tuned: Path):
    line, model = mixture_of(micro_whisper, tuned), load_whisper(str(tuned)).model
    ends = {alpha: weights_sha256(load_whisper(str(path)).model) for alpha, path in ((0, micro_whisper), (1, tuned))}
    for alpha in (0.5, 1, 0):
        line.at(alpha).load_into(model)
        assert model.proj_out.weight is model.model.decoder.embed_tokens.weight
        assert (weights_sha256(model) == ends.get(alpha)) is (alpha in ends)


def test_a_written_mixture_is_a_complete_model_bit_by_bit_at_both_ends(
    micro_whisper: Path, tuned: Path, tmp_path: Path
):
    files = {path.name: path.read_bytes() for path in micro_whisper.iterdir() if path.name != WEIGHTS}
    for alpha, like in ((0, micro_whisper), (1, tuned)):
        out = tmp_path / f"mixed-{alpha}"
        mixture_of(micro_whisper, tuned).at(alpha).write(out, files)
        mine, theirs = load_file(out / WEIGHTS), load_file(like / WEIGHTS)
        assert mine.keys() == theirs.keys()
        assert all(torch.equal(mine[name], theirs[name]) for name in mine)
        load_whisper(str(out))


def test_two_models_in_float16_give_one_in_float16(micro_whisper: Path, tuned: Path, tmp_path: Path):
    folders = []
    for name, source in (("a", micro_whisper), ("b", tuned)):
        folder = edited(source, tmp_path / name, "config.json", lambda config: config.update(dtype="float16"))
        save_file({key: value.half() for key, value in load_file(source / WEIGHTS).items()}, folder / WEIGHTS)
        folders.append(folder)
    files = {path.name: path.read_bytes() for path in micro_whisper.iterdir() if path.name != WEIGHTS}
    mixture_of(*folders).at(0.5).write(tmp_path / "out", files)
    assert {value.dtype for value in load_file(tmp_path / "out" / WEIGHTS).values()} == {torch.float16}
    assert content(tmp_path / "out/config.json")["dtype"] == "float16"


# --- choice ---------------------------------------------------------------------------------------------------------


def scored(alpha: float, value: float | None, *worse_by: float) -> MixtureScores:
    """Scores of a mixture that is worse by these on guards with a limit of 0.01."""
    verdicts = [Verdict(Guard(f"g{n}", "wer", 0.01), 0.1, 0.1 + change) for n, change in enumerate(worse_by)]
    return MixtureScores(alpha, "", "wer", value, {}, verdicts)


@pytest.mark.parametrize(
    ("mixtures", "expected"),
    [
        ([scored(0, 0.9), scored(0.5, 0.3), scored(1, 0.4)], 0.5),
        ([scored(0, 0.9, 0), scored(0.5, 0.5, 0.01), scored(1, 0.4, 0.02)], 0.5),
        ([scored(0, 0.9, 0, 0), scored(0.5, 0.5, 0, 0.02), scored(1, 0.4, 0.02, 0)], 0),
        ([scored(0, 0.4), scored(0.5, 0.4), scored(1, 0.4)], 0),
        ([scored(0, 0.9), scored(0.5, None), scored(1, math.nan)], 0),
        ([scored(0, 0.9, 0), scored(1, 0.1, math.nan)], 0),
    ],
)
def test_the_best_mixture_within_all_guards_is_chosen(mixtures: Sequence[MixtureScores], expected: float):
    assert best_within(mixtures, greater_is_better=False).alpha == expected


def test_a_figure_that_should_be_high_chooses_the_highest():
    assert best_within([scored(0, 0.2), scored(0.5, 0.8), scored(1, 0.5)], greater_is_better=True).alpha == 0.5


# --- command --------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_mixtures_of_a_run_are_scored_as_in_the_run_and_only_once(trained: Path, tmp_path: Path):
    out = tmp_path / "mixed"
    arguments = [str(trained), "--alpha", "0.5", "--out", str(out)]
    assert main(arguments) == 0
    result = result_in(out)
    assert [one["alpha"] for one in result["mixtures"]] == [0, 0.5, 1]
    best = load_whisper(str(out / "best"))
    chosen = next(one for one in result["mixtures"] if one["alpha"] == result["alpha"])
    assert weights_sha256(best.model) == chosen["weights_sha256"]
    assert result["mixtures"][-1]["weights_sha256"] == weights_sha256(load_whisper(str(trained / "best")).model)
    assert result["mixtures"][-1]["wer"] == metrics(trained, having="wer")[40]["wer"], "1 is the model of the run"
    assert chosen["wer"] == min(one["wer"] for one in result["mixtures"])
    assert all((out / "best" / name).exists() for name in ("README.md", "interpolation.json", *SIDE_FILES))
    ElementTree.fromstring((out / "interpolation.html").read_text().partition("\n")[2])

    logs = sorted((out / "mixtures").rglob("rank-0.jsonl"))
    assert len(logs) == 3
    before, weights = [log.read_bytes() for log in logs], digest(out, "best/model.safetensors")
    assert main(arguments) == 0
    assert [log.read_bytes() for log in logs] == before, "no utterance is transcribed again"
    logs[1].write_bytes(before[1][: len(before[1]) // 2])  # as a kill in the middle leaves it
    assert main(arguments) == 0
    assert len(logs[1].read_bytes()) > len(before[1]) // 2
    assert result_in(out) == result
    assert digest(out, "best/model.safetensors") == weights


@pytest.mark.long
def test_two_models_are_mixed_on_data_that_is_named_and_a_guard_excludes(
    trained: Path, micro_whisper: Path, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """The untrained model writes nothing right, so more words of it are wrong, and its loss is high."""
    sets = [{"name": "guard", "path": str(corpus / "test"), "metric": "loss", "max_worse": 0, "max_utterances": 3}]
    data = ["--data.path", str(corpus / "validation"), "--data.language", "be", "--max_utterances", "3"]
    more = ["--decoding.with_loss", "true", "--alpha", "0.5", "--decoding.max_new_tokens", "8"]
    # From the trained model back to the untrained one: everything that is not the start is worse on the guard.
    models = [str(trained / "best"), str(micro_whisper)]
    out = tmp_path / "guarded"
    assert main([*models, *data, *more, "--sets", json.dumps(sets), "--out", str(out)]) == 0
    result = result_in(out)
    guards = [one["guards"]["guard"] for one in result["mixtures"]]
    assert [guard["outside"] for guard in guards] == [False, True, True]
    page = (out / "interpolation.html").read_text(encoding="utf-8")
    kinds = re.findall(r'<circle[^>]*class="(\w+)"', page)
    assert sorted(kinds) == ["chosen", "outside", "outside"], "the front, a point for each mixture"
    assert len(re.findall(r'<path[^>]*class="limit"', page)) == 1
    assert [one["within"] for one in result["mixtures"]] == [True, False, False]
    assert guards[0]["change"] == 0
    assert guards[2]["change"] > guards[1]["change"] > 0
    assert guards[2]["interval"][0] > 0
    assert result["alpha"] == 0
    assert digest(out, "best/model.safetensors")
    assert weights_sha256(load_whisper(str(out / "best")).model) == weights_sha256(load_whisper(models[0]).model)
    assert "guard" in capsys.readouterr().out


@pytest.mark.long
def test_models_that_cannot_be_mixed_are_refused_with_the_way_out(
    trained: Path, micro_whisper: Path, tuned: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    weights = load_file(micro_whisper / WEIGHTS)
    other = Path(shutil.copytree(micro_whisper, tmp_path / "other"))
    save_file({name: value for name, value in weights.items() if "layers.1." not in name}, other / WEIGHTS)
    adapter = own_adapter(micro_whisper, tmp_path / "adapter")
    checkpoint = next(iter(sorted((trained / "checkpoints").iterdir())))
    start, data = str(micro_whisper), ["--data.path", str(tmp_path)]
    for arguments, facts in (
        ([], ("START", "TUNED")),
        (["a", "b", "c"], ("RUN", "3")),
        ([start, str(tuned)], ("--out",)),
        ([str(tuned), "--out", "x"], ("START",)),
        ([start, str(tuned), "--out", "x"], ("--data.path",)),
        ([start, str(other), *data, "--out", "x"], ("layers.1.", "vocabulary")),
        ([start, str(adapter), *data, "--out", "x"], ("adapter", "merge")),
        ([start, str(checkpoint), *data, "--out", "x"], ("checkpoint export",)),
        ([start, str(tmp_path / "none"), *data, "--out", "x"], ("none",)),
        ([start, str(tuned), *data, "--sets", f"[{{path: {tmp_path}, rule: stop}}]", "--out", "x"], ("--sets", "rule")),
        (
            [start, str(tuned), *data, "--sets", "[{path: a, rule: stop, max_worse: 1}]", "--out", "x"],
            ("--sets", "rule stop"),
        ),
        ([start, str(tuned), *data, "--sets", "[{path: a, every: 2}]", "--out", "x"], ("--sets", "every 2")),
        ([start, str(tuned), *data, "--metric", "hits", "--out", "x"], ("--metric", "--greater_is_better true")),
        (
            [start, str(tuned), *data, "--sets", f"[{{path: {tmp_path}, metric: loss, max_worse: 1}}]", "--out", "x"],
            ("--sets", "--decoding.with_loss"),
        ),
        ([str(trained), "--metric", "cer", "--out", "x"], ("--metric", "--data.path")),
        ([str(trained), "--decoding.num_beams", "1", "--out", "x"], ("--decoding.num_beams",)),
        ([str(trained), "--sets", f"[{{path: {tmp_path}}}]", "--out", "x"], ("--sets", "data.path")),
    ):
        assert main(arguments) == 2, arguments
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert not [fact for fact in facts if fact not in lines[0]], lines[0]


def test_other_vocabularies_of_one_size_are_refused(micro_whisper: Path, tuned: Path, tmp_path: Path):
    from whisper_ft.cli.interpolate.interpolator import Models, refuse_other_vocabulary

    def swap(tokenizer: Any) -> None:
        vocabulary = tokenizer["model"]["vocab"]
        one, two = list(vocabulary)[-2:]
        vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]

    other = edited(tuned, tmp_path / "other", "tokenizer.json", swap)
    refuse_other_vocabulary(Models(str(micro_whisper), str(tuned), None))
    with pytest.raises(UsageError, match="vocabular"):
        refuse_other_vocabulary(Models(str(micro_whisper), str(other), None))


# --- at the end of a run --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "facts"),
    [
        ({"eval__path": ""}, ("--average.interpolate", "--eval.path")),
        ({"eval__every": 0}, ("--average.interpolate", "eval.every above 0")),
        ({"adapter__kind": "lora"}, ("--average.interpolate", "interpolate RUN")),
        ({"average__interpolate": "[0.5, 1.5]"}, ("--average.interpolate", "1.5")),
    ],
)
def test_mixtures_that_a_run_cannot_make_are_refused(train: Trainer, settings: dict[str, Any], facts: tuple[str, ...]):
    message = str(train.refusal("run", **{"average__interpolate": "true"} | settings))
    assert not [fact for fact in facts if fact not in message], message


@pytest.mark.long
def test_a_run_mixes_its_best_model_with_its_start_at_the_end(train: Trainer):
    guard = [{"name": "guard", "path": str(train.corpus / "test"), "max_utterances": 2, "max_worse": 10}]
    settings = {"steps": 4, "average__interpolate": "[0.5]", "eval__max_utterances": 2, "save__every": 0}
    settings |= {"eval__sets": json.dumps(guard)}
    run_dir = train("run", **settings)
    folder = run_dir / "interpolated"
    result = result_in(folder)
    assert [one["alpha"] for one in result["mixtures"]] == [0, 0.5, 1]
    assert result["start"]["name"].endswith(train.model.name)
    assert [one["guards"]["guard"]["outside"] for one in result["mixtures"]] == [False] * 3
    assert result["mixtures"][0]["guards"]["guard"]["change"] == 0
    model = load_whisper(str(folder)).model
    assert weights_sha256(model) == next(
        one["weights_sha256"] for one in result["mixtures"] if one["alpha"] == result["alpha"]
    )
    to_publish = find_model(run_dir, "interpolated")
    assert to_publish.recorded == (
        "wer",
        next(one["wer"] for one in result["mixtures"] if one["alpha"] == result["alpha"]),
    )
    assert f"start + {result['alpha']:g} (" in to_publish.origin
    assert guards_of_model(str(folder)) == [], "the guards of best/ are not those of a mixture"
    assert guards_of_model(str(run_dir / "best")) != []
    before, logs = digest(folder, WEIGHTS), [path.read_bytes() for path in sorted(run_dir.rglob("rank-0.jsonl"))]
    assert train("run", **settings) == run_dir
    assert digest(folder, WEIGHTS) == before
    assert [path.read_bytes() for path in sorted(run_dir.rglob("rank-0.jsonl"))] == logs
    assert digest(run_dir) == digest(train.reference(**settings | {"average__interpolate": "false"}))


@pytest.mark.matrix
def test_two_processes_mix_as_one(train: Trainer):
    settings = {"steps": 2, "average__interpolate": "[0.5]", "eval__max_utterances": 3, "save__every": 0}
    settings |= {"model__dropout": 0}
    one, two = (result_in(train(f"run-{n}", n, **settings) / "interpolated") for n in (1, 2))
    assert [mixture["wer"] for mixture in one["mixtures"]] == [mixture["wer"] for mixture in two["mixtures"]]
