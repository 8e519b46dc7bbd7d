"""Exports: each is checked in its own engine, a wrong one is found, and nothing half-made has the name."""

import base64
import gzip
import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from normalizers import get_normalizer
from tests.conftest import Trainer, kill_while_it_writes, made_once
from tests.openai_tokenizer import MULTILINGUAL, V3, Checkpoint, needs_openai
from whisper_ft.cli.export.__main__ import main
from whisper_ft.cli.export.check_clips import read_clips, words_of
from whisper_ft.cli.export.check_data import open_check_data
from whisper_ft.cli.export.export_arguments import ExportArguments, parse_arguments
from whisper_ft.cli.export.export_check import ExportCheck
from whisper_ft.cli.export.own_decoder import OwnDecoder
from whisper_ft.cli.export.targets import FLOAT32, TARGETS, Engine
from whisper_ft.config.data import SourceConfig
from whisper_ft.data.audio.decode import decode
from whisper_ft.data.audio.log_mel import LogMel, pad_windows
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.sources import open_source
from whisper_ft.models.export.hf import config_files, export
from whisper_ft.models.export.openai import alignment_dump
from whisper_ft.models.whisper import LoadedWhisper, load_whisper, weights_sha256
from whisper_ft.runtime.errors import UsageError

pytestmark = needs_openai

LEARNT = 4  # clips that the model has learnt, so that its best token is far above the second
NARROW: dict[str, Any] = {"d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "heads": 2}


def learn(loaded: LoadedWhisper, clips: Path, steps: int = 90, rate: float = 1e-2) -> float:
    """Train a decoder on the first clips of a set until it knows them by heart. Returns the last loss.

    The encoder keeps its random weights, and its convolutions are widened until it hears more than positions. The first
    word counts as much as all others, because it tells the clips apart.
    """
    model, processor = loaded
    encode = LabelEncoder.of(model, processor.tokenizer, "be", "transcribe")
    rows = open_source(SourceConfig(path=str(clips))).read(0)[:LEARNT]
    log_mel = LogMel(processor.feature_extractor)
    mels = [log_mel(decode(row.audio, 16_000, 30.0)) for row in rows]
    features = pad_windows(mels, log_mel.frames)
    with torch.no_grad():
        for convolution in (model.model.encoder.conv1, model.model.encoder.conv2):
            convolution.weight.mul_(6)
        states = model.model.encoder(features)
    tokens, first = [encode(row.text) for row in rows], len(encode.prompt()) - 1
    width = max(map(len, tokens))
    inputs = torch.tensor([row + [row[-1]] * (width - len(row)) for row in tokens])
    targets = torch.tensor([row[1:] + [-100] * (width - len(row)) for row in tokens])
    targets[:, :first] = -100
    optimizer = torch.optim.AdamW(model.model.decoder.parameters(), rate, weight_decay=0)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * min(1, 2 * (1 - step / steps))
        logits = model(encoder_outputs=states, decoder_input_ids=inputs[:, :-1], use_cache=False).logits
        all_words = torch.nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten())
        first_word = torch.nn.functional.cross_entropy(logits[:, first], targets[:, first])
        optimizer.zero_grad()
        (all_words + first_word).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return float(all_words.detach())


@pytest.fixture(scope="session")
def speaker(shared: Path, corpus: Path) -> Path:
    """A Whisper with the real vocabulary and a 30-second window, which knows a few sentences by heart."""

    def make(folder: Path) -> None:
        loaded = load_whisper(str(Checkpoint(MULTILINGUAL, **NARROW).write(folder.with_name("untrained"))))
        assert learn(loaded, corpus / "validation") < 0.2
        loaded.model.eval()
        export(loaded.model, config_files(*loaded), folder, "")

    return made_once(shared / "speaker", make)


def exported(speaker: Path, corpus: Path, out: Path, target: str, quantization: str, clips: int = LEARNT) -> int:
    """Exit code of an export that is checked on clips of the small corpus."""
    check = ["--check", str(corpus / "validation"), str(clips), "--language", "be"]
    return main([str(speaker), "--to", target, "--quantization", quantization, "--out", str(out), *check])


def record_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "export.json").read_text()))


# --- parity ---


@pytest.mark.parametrize(
    ("target", "quantization"),
    [
        ("ct2", "float32"),
        pytest.param("ct2", "int8", marks=pytest.mark.matrix),
        pytest.param("openai", "float32", marks=pytest.mark.matrix),
        pytest.param("ggml", "float16", marks=pytest.mark.long),
        pytest.param("onnx", "float32", marks=pytest.mark.long),
        pytest.param("mlx", "float16", marks=pytest.mark.matrix),
        pytest.param("ggml", "q8_0", marks=pytest.mark.long),
        pytest.param("ggml", "q5_0", marks=pytest.mark.matrix),
        pytest.param("onnx", "int8", marks=pytest.mark.matrix),
        pytest.param("hf", "float16", marks=pytest.mark.matrix),
        pytest.param("hf", "bfloat16", marks=pytest.mark.matrix),
        pytest.param("ct2", "int8_float16", marks=pytest.mark.matrix),
        pytest.param("openai", "float16", marks=pytest.mark.matrix),
    ],
)
def test_an_export_writes_in_its_engine_what_the_model_writes(
    speaker: Path, corpus: Path, tmp_path: Path, target: str, quantization: str
):
    out = tmp_path / "out"
    assert exported(speaker, corpus, out, target, quantization) == 0
    record = record_in(out)
    assert record["weights_sha256"] == weights_sha256(load_whisper(str(speaker)).model)
    for report, engine in zip(record["check"]["engines"], TARGETS[target].engines, strict=True):
        if engine.is_installed:
            assert report["status"] == "passed"
            assert report["equal"] == report["clips"] == LEARNT
            assert report["rate"] == record["check"]["model"]["rate"] == 0
        else:
            assert (report["status"], report["install"]) == ("unchecked", engine.install)
        assert engine.name in (out / "README.md").read_text()
    assert main(["--verify", str(out)]) == 0


@pytest.mark.long
def test_an_export_holds_the_tokens_and_heads_of_the_model(speaker: Path, tmp_path: Path):
    generation = json.loads((speaker / "generation_config.json").read_text())
    for target in ("ct2", "openai", "mlx"):
        assert main([str(speaker), "--to", target, "--out", str(tmp_path / target), "--check", "0"]) == 0
        assert json.loads((tmp_path / target / "generation_config.json").read_text()) == generation
    config = json.loads((tmp_path / "ct2/config.json").read_text())
    assert config["suppress_ids"] == generation["suppress_tokens"]
    assert config["suppress_ids_begin"] == generation["begin_suppress_tokens"]
    assert config["alignment_heads"] == generation["alignment_heads"]
    assert config["lang_ids"] == sorted(generation["lang_to_id"].values())
    heads = json.loads((tmp_path / "openai/alignment_heads.json").read_text())
    assert heads["alignment_heads"] == generation["alignment_heads"]
    with safe_open(tmp_path / "mlx/weights.safetensors", "pt") as weights:
        assert weights.get_tensor("alignment_heads").tolist() == generation["alignment_heads"]
        assert weights.get_tensor("encoder.conv1.weight").shape == (32, 3, 80)


def test_the_alignment_heads_of_base_are_dumped_as_openai_has_them():
    theirs = "ABzY8KQ!870{>%RzyTQH3`Q^yNP!>##QT-<FaQ7m"
    heads = [[3, 1], [4, 2], [4, 3], [4, 7], [5, 1], [5, 2], [5, 4], [5, 6]]
    both = (gzip.decompress(base64.b85decode(dump)) for dump in (theirs, alignment_dump(heads, (6, 8))))
    assert len(set(both)) == 1


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "quantization"),
    [
        ("ct2", "float32"),
        pytest.param("ggml", "float16", marks=pytest.mark.matrix),
        pytest.param("onnx", "float32", marks=pytest.mark.matrix),
    ],
)
def test_a_model_of_128_mel_bins_is_heard_with_128(corpus: Path, tmp_path: Path, target: str, quantization: str):
    """Without preprocessor_config.json, faster-whisper computes 80."""
    model = Checkpoint(V3, mel_bins=128, **NARROW).write(tmp_path / "model")
    loaded = load_whisper(str(model))
    with torch.no_grad():
        loaded.model.model.decoder.layer_norm.weight.mul_(20)  # so that the best token is far above the second
    export(loaded.model, config_files(*loaded), tmp_path / "sure", "")
    assert exported(tmp_path / "sure", corpus, tmp_path / "out", target, quantization, clips=2) == 0
    for report in record_in(tmp_path / "out")["check"]["engines"]:
        assert report["status"] == "passed"
        assert report["equal"] + report["nearly_even"] == 2


def test_an_engine_with_a_log_mel_of_its_own_is_judged_by_characters():
    sherpa = next(engine for engine in TARGETS["onnx"].engines if engine.package == "sherpa_onnx")
    for quantization in TARGETS["onnx"].quantizations:
        limits = sherpa.limits(quantization)
        assert (limits.max_gap, limits.max_logits) == (None, None)
        assert limits.max_cer == (quantization.max_cer or sherpa.max_cer)
    for engine in TARGETS["ct2"].engines:
        assert all(engine.limits(each) == each for each in TARGETS["ct2"].quantizations)


@pytest.mark.long
def test_a_format_on_which_the_engine_aborts_is_unchecked(speaker: Path, corpus: Path, tmp_path: Path):
    """whisper.cpp up to 1.8.5 ends the process on weights in float32; a newer one may take them."""
    assert exported(speaker, corpus, tmp_path / "out", "ggml", "float32", clips=1) == 0
    (report,) = record_in(tmp_path / "out")["check"]["engines"]
    assert report["status"] == "passed" or "aborts" in report["reason"]


# --- wrong exports ---


@pytest.mark.matrix
def test_weights_beyond_float16_fail_the_check_and_are_left_under_another_name(
    speaker: Path, corpus: Path, tmp_path: Path
):
    """Such a layer computes well in float32, and becomes infinite in float16."""
    loaded = load_whisper(str(speaker))
    with torch.no_grad():
        layer = loaded.model.model.decoder.layers[0]
        layer.self_attn.v_proj.weight.mul_(1e7)
        layer.self_attn.v_proj.bias.mul_(1e7)
        layer.self_attn.out_proj.weight.mul_(1e-7)
    export(loaded.model, config_files(*loaded), tmp_path / "wide", "")
    out = tmp_path / "out"
    assert exported(tmp_path / "wide", corpus, out, "openai", "float16", clips=2) == 8
    assert not out.exists()
    record = record_in(tmp_path / "out.failed")
    assert record["status"] == "failed"
    assert record["check"]["engines"][0]["problems"]
    assert main(["--verify", str(tmp_path / "out.failed")]) == 0


def first_token(loaded: LoadedWhisper, corpus: Path) -> int:
    """The first text token of the first clip."""
    encode = LabelEncoder.of(loaded.model, loaded.processor.tokenizer, "be", "transcribe")
    row = open_source(SourceConfig(path=str(corpus / "validation"))).read(0)[0]
    return encode(row.text)[len(encode.prompt())]


def check_on(loaded: LoadedWhisper, corpus: Path, clips: int) -> ExportCheck:
    """A check on clips of the small corpus."""
    loaded.model.eval()
    encode = LabelEncoder.of(loaded.model, loaded.processor.tokenizer, "be", "transcribe")
    given, _ = read_clips(open_source(SourceConfig(path=str(corpus / "validation"))), loaded, encode, clips, 0)
    own = OwnDecoder(loaded.model, loaded.processor.tokenizer)
    return ExportCheck(own, given, get_normalizer("golden", language="be"), True, "cpu")


@pytest.mark.long
@pytest.mark.parametrize(
    ("target", "quantization", "tensor"),
    [
        pytest.param("openai", "float32", "model.encoder.conv1", marks=pytest.mark.matrix),
        pytest.param("openai", "float32", "model.decoder.layers.0.encoder_attn.v_proj", marks=pytest.mark.matrix),
        ("ggml", "float16", "model.decoder.embed_tokens"),
        pytest.param("onnx", "float32", "model.decoder.embed_tokens", marks=pytest.mark.matrix),
    ],
)
def test_a_zeroed_row_of_a_tensor_fails_the_check(
    speaker: Path, corpus: Path, tmp_path: Path, target: str, quantization: str, tensor: str
):
    written, loaded = load_whisper(str(speaker)), load_whisper(str(speaker))
    rows = written.model.get_submodule(tensor).weight.detach()
    largest = int(rows.flatten(1).norm(dim=1).argmax())
    rows[first_token(loaded, corpus) if tensor.endswith("embed_tokens") else largest] = 0
    import_module(f"whisper_ft.models.export.{TARGETS[target].writer}").write(written, tmp_path, quantization)
    check = check_on(loaded, corpus, LEARNT)
    (engine, *_), kind = TARGETS[target].engines, TARGETS[target].quantization(quantization)
    assert check.run(engine, tmp_path, kind).status == "failed"


@pytest.mark.long
def test_an_engine_that_is_missing_or_not_importable_is_unchecked_and_one_that_ends_has_failed(
    speaker: Path, corpus: Path, tmp_path: Path
):
    check = check_on(load_whisper(str(speaker)), corpus, 1)
    for engine in (
        Engine("missing", "no_such_package", "ctranslate2", "pip install missing"),
        Engine("broken", "json", "no_such_module", "pip install broken"),
    ):
        report = check.run(engine, tmp_path, FLOAT32).summary(1, 1)
        assert (report["status"], report["install"]) == ("unchecked", engine.install)
    empty = check.run(Engine("ctranslate2", "ctranslate2", "ctranslate2"), tmp_path, FLOAT32)
    assert empty.status == "failed"
    assert "model.bin" in empty.problems[0]


@pytest.mark.long
def test_a_flipped_byte_a_missing_and_a_foreign_file_are_found(
    speaker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    out = tmp_path / "out"
    assert main([str(speaker), "--to", "mlx", "--out", str(out), "--check", "0"]) == 0
    with (out / "weights.safetensors").open("r+b") as file:
        file.seek(-1000, 2)
        byte = file.read(1)[0]
        file.seek(-1000, 2)
        file.write(bytes([byte ^ 1]))
    assert main(["--verify", str(out)]) == 8
    assert "weights.safetensors" in capsys.readouterr().out
    (out / "vocab.json").unlink()
    (out / "more").touch()
    assert main(["--verify", str(out)]) == 8
    told = capsys.readouterr().out
    assert "vocab.json: is missing" in told
    assert "more: is not in export.json" in told
    assert main(["--verify", str(tmp_path)]) == 2


# --- refusals ---


def test_a_model_that_an_engine_cannot_take_is_refused_before_anything_is_written(
    micro_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    for target in set(TARGETS) - {"hf"}:
        assert main([str(micro_whisper), "--to", target, "--out", str(tmp_path / target)]) == 2
        assert "51,865" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.long
def test_another_window_and_an_added_token_are_refused(
    speaker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    loaded = load_whisper(str(speaker))
    encoder = loaded.model.model.encoder.embed_positions
    loaded.model.config.max_source_positions, loaded.processor.feature_extractor.n_samples = 250, 80_000
    encoder.weight = torch.nn.Parameter(encoder.weight[:250].clone())
    loaded.processor.feature_extractor.chunk_length, loaded.processor.feature_extractor.nb_max_frames = 5, 500
    export(loaded.model, config_files(*loaded), tmp_path / "short", "")
    assert main([str(tmp_path / "short"), "--to", "ct2", "--out", str(tmp_path / "out")]) == 2
    assert "5 seconds" in capsys.readouterr().err
    loaded = load_whisper(str(speaker))
    loaded.processor.tokenizer.add_tokens(["Zwëschenzäit"])
    loaded.model.resize_token_embeddings(51_866, mean_resizing=False)
    export(loaded.model, config_files(*loaded), tmp_path / "added", "")
    assert main([str(tmp_path / "added"), "--to", "openai", "--out", str(tmp_path / "out")]) == 2
    assert "<|notimestamps|>" in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"short", "added"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--to", "ct2"],
        ["--to", "ct3", "--out", "new"],
        ["--to", "mlx", "--quantization", "int8", "--out", "new"],
        ["--to", "hf", "--out", "new", "--check", "1", "2"],
        ["--to", "hf", "--out", "new", "--check", "3"],
        ["--to", "hf", "--out", "new", "--check", "./nowhere"],
        ["--to", "hf", "--out", "taken"],
        ["--to", "hf", "--out", "taken", "--overwrite"],
        ["--to", "hf", "--out", "new", "--verify", "taken"],
    ],
)
def test_wrong_arguments_end_at_once(
    micro_whisper: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken/mine").touch()
    assert main([str(micro_whisper), *arguments]) == 2
    assert [path.name for path in tmp_path.rglob("*")] == ["taken", "mine"]


# --- the folder ---


@pytest.mark.long
def test_an_export_replaces_another_only_when_asked(speaker: Path, tmp_path: Path):
    arguments = [str(speaker), "--to", "mlx", "--out", str(tmp_path / "out"), "--check", "0"]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert main([*arguments, "--quantization", "float32", "--overwrite"]) == 0
    assert record_in(tmp_path / "out")["quantization"] == "float32"
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.long
def test_an_export_of_a_run_takes_its_best_model(speaker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    run = tmp_path / "run"
    loaded = load_whisper(str(speaker))
    for part in ("best", "final"):
        export(loaded.model, config_files(*loaded), run / part, "")
    (run / "config.yaml").write_text("model: {name: x}\neval: {every: 0}\n")
    (run / "status.json").write_text("{}")
    assert main([str(run), "--to", "ct2", "--out", str(tmp_path / "out"), "--check", "0"]) == 0
    assert record_in(tmp_path / "out")["model"] == "run/best"
    assert "WhisperModel" in capsys.readouterr().out


@pytest.mark.long
def test_sigkill_leaves_nothing_under_the_name_and_the_next_export_cleans_up(speaker: Path, tmp_path: Path):
    arguments = [str(speaker), "--to", "openai", "--out", str(tmp_path / "out"), "--check", "0"]
    kill_while_it_writes("export", arguments, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(arguments) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """No file grows beyond a size, as on a disk that fills up."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.long
@pytest.mark.parametrize(
    "target",
    ["hf", "ct2", "ggml", *(pytest.param(name, marks=pytest.mark.matrix) for name in ("openai", "onnx", "mlx"))],
)
def test_a_disk_that_fills_up_is_told_and_leaves_nothing(
    speaker: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], target: str
):
    with files_of_at_most(1_000_000):
        assert main([str(speaker), "--to", target, "--out", str(tmp_path / "out"), "--check", "0"]) == 6
    assert capsys.readouterr().err.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_run_is_checked_on_its_held_out_set_in_its_language(train: Trainer):
    run = train.reference()
    arguments = parse_arguments([str(run), "--to", "hf", "--out", "new", "--check", "3"])
    assert isinstance(arguments, ExportArguments)
    assert (arguments.model, arguments.run) == (str(run / "best"), run)
    loaded = load_whisper(arguments.model)
    data = open_check_data(arguments, loaded)
    assert data is not None
    clips, words = read_clips(data.rows, loaded, data.encode, arguments.clips, 0)
    held_out = [
        row
        for chunk in range(2)
        for row in open_source(SourceConfig(path=str(train.corpus / "validation"))).read(chunk)
    ]
    assert [clip.window.row.text for clip in clips] == [row.text for row in held_out[:3]]
    assert words == sum(len(row.text.split()) for row in held_out[:3])
    assert {clip.job.language for clip in clips} == {"be"}
    assert (len(clips[0].job.waveform), clips[0].job.features.shape) == (16_000 * clips[0].window.seconds, (80, 500))
    with pytest.raises(UsageError, match="--language lb"):
        open_check_data(replace(arguments, language="lb"), loaded)
    with pytest.raises(UsageError, match="--check 0"):
        parse_arguments([str(run), "--to", "hf", "--out", "new", "--check", "0", str(train.corpus / "validation")])


@pytest.mark.long
def test_reading_stops_after_the_utterance_that_completes_the_words(speaker: Path, corpus: Path):
    loaded = load_whisper(str(speaker))
    encode = LabelEncoder.of(loaded.model, loaded.processor.tokenizer, "be", "transcribe")
    rows = open_source(SourceConfig(path=str(corpus / "validation")))
    clips, words = read_clips(rows, loaded, encode, None, 10)
    assert words - len(str(clips[-1].window.row.text).split()) < 10 <= words
    assert words_of("今日は天気がいいですね") == 1
    assert words_of("a b c") == 3
    assert words_of(None) == 0
