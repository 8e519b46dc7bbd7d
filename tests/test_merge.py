"""Merged models: they write what the adapter writes, load without peft, and a worse one is not kept."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from tests.adapter_files import foreign_adapter, logits_of, own_adapter
from tests.conftest import run_script
from whisper_ft.cli.merge.__main__ import main
from whisper_ft.config.adapter import AdapterBase
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.models.adapters.adapter_folder import read_adapter
from whisper_ft.models.adapters.merge import merged_model, targets_of
from whisper_ft.models.export.side_files import SIDE_FILES
from whisper_ft.models.inference import load_for_inference
from whisper_ft.models.whisper import load_whisper

CPU = torch.device("cpu")
KINDS: dict[str, dict[str, Any]] = {"lora": {}, "rslora": {"use_rslora": True}, "dora": {"use_dora": True}}
WITHOUT_PEFT = """
sys.modules["peft"] = sys.modules["bitsandbytes"] = None
from whisper_ft.models.whisper import load_whisper, weights_sha256
print(weights_sha256(load_whisper(sys.argv[1]).model))
"""


def merged(adapter: Path, out: Path, corpus: Path, *more: str, clips: int = 3) -> int:
    """Exit code of a merge that is checked on clips of the small corpus."""
    check = ["--check", str(corpus / "validation"), str(clips), "--language", "be"]
    return main([str(adapter), "--out", str(out), *check, *more])


def record_in(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "export.json").read_text()))


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_merged_model_computes_the_logits_of_the_adapter(micro_whisper: Path, tmp_path: Path, kind: str):
    folder = own_adapter(micro_whisper, tmp_path / "adapter", **KINDS[kind])
    ours = logits_of(load_for_inference(str(folder), "fp32", CPU, lambda line: None).model)
    model = merged_model(read_adapter(folder), "float").model
    assert (logits_of(model) - ours).abs().max() < 1e-4
    assert not [name for name in model.state_dict() if "lora" in name or "base_layer" in name]
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight


@pytest.mark.long
@pytest.mark.parametrize("base", ["int8", "nf4"])
def test_the_dequantised_base_is_nearer_to_the_adapter_of_a_quantised_one(
    micro_whisper: Path, tmp_path: Path, base: AdapterBase
):
    folder = own_adapter(micro_whisper, tmp_path / "adapter", base)
    assert targets_of(read_adapter(folder)) == ("float", "dequantised")
    ours = logits_of(load_for_inference(str(folder), "fp32", CPU, lambda line: None).model)
    apart = {}
    for onto in targets_of(read_adapter(folder)):
        model = merged_model(read_adapter(folder), onto).model
        assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
        apart[onto] = float((logits_of(model) - ours).abs().max())
    assert apart["dequantised"] < 1e-4 < apart["float"]


@pytest.mark.long
def test_a_merged_folder_is_whole_and_loads_without_peft(micro_whisper: Path, corpus: Path, tmp_path: Path):
    adapter, out = own_adapter(micro_whisper, tmp_path / "adapter"), tmp_path / "out"
    assert merged(adapter, out, corpus) == 0
    names = {path.name for path in out.iterdir()}
    whole = {"config.json", "generation_config.json", "evaluation.json", "tokenizer.json", "processor_config.json"}
    assert whole | {*SIDE_FILES, "model.safetensors", "README.md", "export.json"} <= names
    assert not names & {"adapter_config.json", "adapter_model.safetensors", "base.json"}
    weights = load_file(out / "model.safetensors")
    assert {*weights} == {*load_file(micro_whisper / "model.safetensors")}
    record = record_in(out)
    ended = run_script(WITHOUT_PEFT, str(out))
    assert ended.out.strip() == record["weights_sha256"], ended.err
    (outcome,) = record["check"]["outcomes"]
    assert (record["status"], record["onto"], outcome["equal"]) == ("passed", "float", record["check"]["clips"])
    assert outcome["before"] == outcome["after"]
    assert 0 <= outcome["max_logit_difference"] < 1e-4
    assert f"{100 * outcome['after']:.2f}%" in (out / "README.md").read_text()
    assert str(tmp_path) not in (out / "README.md").read_text() + json.dumps(record)
    plain = WhisperForConditionalGeneration.from_pretrained(out)
    assert torch.equal(logits_of(plain), logits_of(load_whisper(str(out)).model))


@pytest.mark.long
def test_an_adapter_of_plain_peft_is_merged(micro_whisper: Path, corpus: Path, tmp_path: Path):
    adapter = foreign_adapter(micro_whisper, tmp_path / "adapter")
    assert merged(adapter, tmp_path / "out", corpus, "--base", str(micro_whisper)) == 0
    assert record_in(tmp_path / "out")["check"]["outcomes"][0]["equal"] == 3


@pytest.mark.long
def test_of_two_targets_the_better_is_kept(micro_whisper: Path, corpus: Path, tmp_path: Path):
    adapter = own_adapter(micro_whisper, tmp_path / "adapter", "nf4")
    assert merged(adapter, tmp_path / "out", corpus, "--max_wer_rise", "1000") == 0
    record = record_in(tmp_path / "out")
    by_target = {outcome["onto"]: outcome for outcome in record["check"]["outcomes"]}
    assert {*by_target} == {"float", "dequantised"}
    best = min(by_target.values(), key=lambda outcome: (outcome["after"], outcome["max_logit_difference"]))
    assert record["onto"] == best["onto"]
    expected = merged_model(read_adapter(adapter), record["onto"]).model.state_dict()
    found = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(expected[name], tensor) for name, tensor in found.items())


@pytest.fixture
def in_its_own_words(micro_whisper: Path, corpus: Path, tmp_path: Path) -> tuple[Path, Path]:
    """An adapter of an nf4 base, and clips whose references are what it writes, so that its error rate is 0."""
    adapter = own_adapter(micro_whisper, tmp_path / "adapter", "nf4", size=0.5)
    from whisper_ft.cli.export.check_clips import read_clips
    from whisper_ft.cli.export.own_decoder import OwnDecoder
    from whisper_ft.config.data import SourceConfig
    from whisper_ft.data.sources import open_source
    from whisper_ft.models.whisper import LoadedWhisper

    loaded = load_for_inference(str(adapter), "fp32", CPU, lambda line: None)
    parts = LoadedWhisper(loaded.model, loaded.processor)
    encode = LabelEncoder.of(loaded.model, loaded.processor.tokenizer, "be", "transcribe")
    table = pq.read_table(corpus / "validation").slice(0, 6)
    clips, _ = read_clips(open_source(SourceConfig(path=str(corpus / "validation"))), parts, encode, 6, 0)
    own = OwnDecoder(loaded.model, loaded.processor.tokenizer)
    texts = [own.text(tokens) for tokens in own.transcribe([clip.job for clip in clips])[0]]
    place = table.column_names.index("sentence")
    (tmp_path / "words").mkdir()
    pq.write_table(table.set_column(place, "sentence", [texts]), tmp_path / "words/validation-00000.parquet")
    return adapter, tmp_path / "words"


@pytest.mark.long
def test_a_merge_with_a_higher_error_rate_ends_with_its_code_and_another_name(
    in_its_own_words: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    adapter, words = in_its_own_words
    arguments = [str(adapter), "--check", str(words), "--language", "be", "--out", str(tmp_path / "out")]
    assert main([*arguments, "--onto", "dequantised", "--max_wer_rise", "0"]) == 0
    assert record_in(tmp_path / "out")["check"]["outcomes"][0]["before"] == 0
    assert main([*arguments, "--onto", "float", "--overwrite"]) == 8
    assert "--max_wer_rise" in capsys.readouterr().err
    assert record_in(tmp_path / "out")["onto"] == "dequantised", "the earlier merge stays"
    failed = record_in(tmp_path / "out.failed")
    assert (failed["status"], failed["onto"]) == ("failed", "float")
    assert main([*arguments, "--onto", "float", "--overwrite", "--max_wer_rise", "100000"]) == 0
    assert record_in(tmp_path / "out")["onto"] == "float"


def test_a_merge_without_clips_is_unchecked(micro_whisper: Path, tmp_path: Path):
    adapter = own_adapter(micro_whisper, tmp_path / "adapter")
    assert main([str(adapter), "--out", str(tmp_path / "out"), "--check", "0"]) == 0
    record = record_in(tmp_path / "out")
    assert (record["status"], record["check"]) == ("unchecked", {})


def test_a_merge_that_is_compared_on_clips_without_a_word_is_unchecked(
    micro_whisper: Path, corpus: Path, tmp_path: Path
):
    adapter, silent = own_adapter(micro_whisper, tmp_path / "adapter"), tmp_path / "silent"
    table = pq.read_table(corpus / "validation").slice(0, 2)
    silent.mkdir()
    column = table.column_names.index("sentence")
    pq.write_table(table.set_column(column, "sentence", [["", "—"]]), silent / "validation-00000.parquet")
    arguments = [str(adapter), "--out", str(tmp_path / "out"), "--check", str(silent), "--language", "be"]
    assert main([*arguments, "--max_wer_rise", "0"]) == 0
    record = record_in(tmp_path / "out")
    assert (record["status"], record["check"]["outcomes"][0]["rise"]) == ("unchecked", None)
    assert record["reason"] in (tmp_path / "out/README.md").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["{model}", "--out", "{tmp}/out"], "no adapter"),
        (["{nf4}", "--out", "{tmp}/out"], "--check"),
        (["{lora}", "--out", "{tmp}/out", "--onto", "dequantised", "--check", "0"], "--onto dequantised"),
        (["{lora}", "--out", "{tmp}/out", "--check", "0", "--max_wer_rise", "3"], "--max_wer_rise 3"),
        (["{lora}", "--out", "{tmp}/out", "--check", "0", "--language", "be"], "--language be"),
        (["{lora}", "--out", "{tmp}/out", "--check", "0", "{tmp}"], "--check"),
        (["{lora}", "--out", "{tmp}/out", "--max_wer_rise", "3"], "--max_wer_rise 3"),
        (["{lora}", "--out", "{tmp}/out", "--language", "be"], "--language be"),
        (["{lora}", "--out", "{tmp}"], "--out"),
        (["{lora}", "--out", "{tmp}/out", "--max_wer_rise", "-1"], "--max_wer_rise"),
        (["{lora}"], "--out"),
        (["{tmp}/nowhere", "--out", "{tmp}/out"], "nowhere"),
    ],
)
def test_a_merge_that_cannot_work_is_refused_in_one_line(
    micro_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], told: str
):
    own_adapter(micro_whisper, tmp_path / "lora")
    own_adapter(micro_whisper, tmp_path / "nf4", "nf4")
    names = {"model": micro_whisper, "tmp": tmp_path, "nf4": tmp_path / "nf4", "lora": tmp_path / "lora"}
    assert main([argument.format(**names) for argument in arguments]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()
