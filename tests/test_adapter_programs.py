"""Programs that take adapters: of a run, of plain peft with a Trainer, and several on one base."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from tests.adapter_files import logits_of, own_adapter
from tests.conftest import Trainer, environment, metrics, run
from tests.openai_tokenizer import needs_openai
from tests.test_export import record_in, speaker  # noqa: F401 - a fixture
from whisper_ft.cli.doctor.start_loss import start_loss
from whisper_ft.cli.export.__main__ import main as export
from whisper_ft.cli.merge.__main__ import main as merge
from whisper_ft.cli.publish.__main__ import main as publish
from whisper_ft.cli.publish.publish_arguments import parse_arguments as parse_publishing
from whisper_ft.config.parse import load_config
from whisper_ft.config.scoring import EvaluationConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.models.adapters.adapter_turns import adapters_in_turn
from whisper_ft.models.inference import load_for_inference
from whisper_ft.models.whisper import load_whisper, weights_sha256
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.next_commands import next_commands
from whisper_ft.training.preflight import refuse_impossible_evaluation
from whisper_ft.training.run_folder import model_of

CPU = torch.device("cpu")
LORA: dict[str, Any] = {"adapter__kind": "lora", "adapter__r": 8, "optim__lr": 5e-3}


@pytest.fixture(scope="session")
def adapted(shared: Path, corpus: Path, micro_whisper: Path) -> Path:
    """A run with an adapter, whose evaluations are not cut."""
    trainer = Trainer(shared, corpus, micro_whisper, shared)
    return trainer.reference(steps=8, eval__max_utterances=100, eval__max_new_tokens=100, **LORA)


def evaluated(out: Path, *arguments: object) -> dict[str, Any]:
    ended = run("evaluate.py", *map(str, arguments), "--out", str(out))
    assert ended.code == 0, ended.out + ended.err
    return dict(json.loads((out / "summary.json").read_text()))


def transcribe(model: Path, sounds: Path, out: Path) -> None:
    ended = run("whisper_ft/__main__.py", "transcribe", str(model), str(sounds), "--out", str(out))
    assert ended.code == 0, ended.err


def hypotheses(folder: Path) -> list[str]:
    lines = (folder / "predictions.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["hyp"] for line in lines]


# --- a run ---


@pytest.mark.long
def test_a_run_is_scored_by_its_adapter_and_best_is_the_same_model_merged(adapted: Path, corpus: Path, tmp_path: Path):
    best = json.loads((adapted / "best.json").read_text())
    assert best["model"] == "adapter"
    assert model_of(str(adapted)) == str(adapted / "best-adapter")
    data = ["--data.path", corpus / "validation", "--decoding.max_new_tokens", 100]
    by_adapter = evaluated(tmp_path / "adapter", "--model", adapted, *data)
    assert by_adapter["wer"] == metrics(adapted, having="wer")[best["step"]]["wer"]
    whole = load_whisper(str(adapted / "best"))  # complete, without an adapter
    assert by_adapter["model_sha256"] != weights_sha256(whole.model)
    merged = evaluated(tmp_path / "merged", "--model", adapted / "best", *data)
    assert hypotheses(tmp_path / "merged") == hypotheses(tmp_path / "adapter")
    assert merged["wer"] == by_adapter["wer"]
    named = whole.model.generation_config
    assert (named.language, named.task) == ("be", "transcribe")


def test_the_commands_for_a_run_with_an_adapter_include_its_merge(adapted: Path, train: Trainer):
    assert any("whisper_ft merge" in line for line in next_commands(str(adapted)))
    assert not any("whisper_ft merge" in line for line in next_commands(str(train.reference())))


@pytest.mark.long
def test_transcripts_of_adapter_and_merged_model_are_equal(adapted: Path, corpus: Path, tmp_path: Path):
    import pyarrow.parquet as pq

    rows = pq.read_table(corpus / "validation").column("audio").to_pylist()[:3]
    sounds = tmp_path / "sounds"
    sounds.mkdir()
    for number, row in enumerate(rows):
        (sounds / f"{number}.flac").write_bytes(row["bytes"])
    transcribe(adapted, sounds, tmp_path / "a")
    transcribe(adapted / "best", sounds, tmp_path / "b")
    texts = [{path.name: path.read_text() for path in (tmp_path / name).glob("*.txt")} for name in ("a", "b")]
    assert texts[0] == texts[1]
    assert len(texts[0]) == 3


@pytest.mark.long
def test_a_run_merges_its_adapter_and_checks_it_on_its_held_out_set(adapted: Path, tmp_path: Path):
    assert merge([str(adapted), "--out", str(tmp_path / "out"), "--check", "4"]) == 0
    record = record_in(tmp_path / "out")
    assert record["check"]["data"] == "held-out set of the run"
    assert record["check"]["outcomes"][0]["equal"] == record["check"]["clips"] == 4
    merged, best = (load_file(folder / "model.safetensors") for folder in (tmp_path / "out", adapted / "best"))
    assert all(torch.equal(merged[name], tensor) for name, tensor in best.items())


@pytest.mark.long
def test_a_run_without_an_evaluation_has_a_merged_final_model(train: Trainer):
    run_dir = train("run", steps=2, eval__every=0, save__every=0, adapter__base="int8", **LORA)
    assert not (run_dir / "best").exists()
    assert model_of(str(run_dir)) == str(run_dir / "final-adapter")
    publishing = [str(run_dir), "--repo", "me/mine", "--base_model", "openai/whisper-tiny"]
    assert parse_publishing(publishing).what == "final-adapter"
    assert publish([*publishing, "--write_card", str(run_dir / "card.md")]) == 0
    assert "peft" in (run_dir / "card.md").read_text(encoding="utf-8")
    adapter = load_for_inference(str(run_dir / "final-adapter"), "fp32", CPU, lambda line: None)
    assert (logits_of(adapter.model) - logits_of(load_whisper(str(run_dir / "final")).model)).abs().max() < 1e-4


def test_a_run_does_not_start_from_an_adapter_as_its_model(train: Trainer, adapted: Path):
    assert "--adapter.init" in str(train.refusal("run", model__name=adapted / "best-adapter"))


def test_the_doctor_shows_the_loss_of_the_adapter_that_a_run_goes_on_from(
    adapted: Path, micro_whisper: Path, corpus: Path
):
    arguments = ["--model.name", micro_whisper, "--data.path", corpus / "train", "--data.language", "be"]
    init = ["--adapter.kind", "lora", "--adapter.r", 8, "--adapter.init", adapted / "best-adapter"]
    plain, begun = (
        start_loss(load_config(TrainingConfig, [*map(str, [*arguments, *more])]), 3, None, lambda *_: None).rows[0]
        for more in ([], init)
    )
    assert float(begun[1]) < float(plain[1]), "the adapter has learnt on these rows"


# --- publishing ---


@pytest.fixture
def published(adapted: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(adapted, tmp_path / "mine"))


@pytest.mark.matrix
def test_the_card_of_an_adapter_names_its_base_and_runs_it_with_peft(
    published: Path, micro_whisper: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["--repo", "me/mine", "--base_model", "openai/whisper-tiny", "--write_card"]
    assert publish([str(published), *arguments, str(tmp_path / "card.md")]) == 0
    card = ModelCard.load(tmp_path / "card.md")
    assert (card.data.library_name, card.data.base_model_relation) == ("peft", "adapter")
    assert card.data.base_model == "openai/whisper-tiny"
    (block,) = re.findall(r"```python\n(.*?)```", card.text, re.DOTALL)
    soundfile.write(tmp_path / "speech.wav", np.random.default_rng(1).uniform(-0.1, 0.1, 16_000), 16_000)
    block = block.replace("speech.wav", str(tmp_path / "speech.wav")).replace(
        "me/mine", str(published / "best-adapter")
    )
    exec(block.replace("openai/whisper-tiny", str(micro_whisper)), {})
    transcribe(published, tmp_path / "speech.wav", tmp_path)
    assert capsys.readouterr().out.splitlines()[-1].strip() == (tmp_path / "speech.txt").read_text().strip()
    assert publish([str(published), *arguments, str(tmp_path / "whole.md"), "--what", "best"]) == 0
    whole = ModelCard.load(tmp_path / "whole.md")
    assert whole.data.library_name == "transformers"
    assert "PeftModel" not in whole.text


def test_the_files_of_a_published_adapter_name_the_base_on_the_hub(published: Path):
    from whisper_ft.cli.publish.adapter_base import files_naming_base
    from whisper_ft.cli.publish.model_to_publish import find_model

    model = find_model(published, "best-adapter")
    files = files_naming_base(model, "openai/whisper-tiny")
    assert json.loads(files["adapter_config.json"])["base_model_name_or_path"] == "openai/whisper-tiny"
    assert json.loads(files["base.json"])["name"] == "openai/whisper-tiny"
    assert model.recorded == find_model(published, "best").recorded
    with pytest.raises(UsageError, match="--base_model"):
        files_naming_base(model, None)


# --- an adapter of another program ---

TRAINING = """
import sys, torch
import pyarrow.parquet as pq
from peft import LoraConfig, get_peft_model
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, WhisperForConditionalGeneration, WhisperProcessor
import io, soundfile, soxr

base, data, out = sys.argv[1:]
processor = WhisperProcessor.from_pretrained(base)
model = WhisperForConditionalGeneration.from_pretrained(base)
config = LoraConfig(r=8, lora_alpha=16, target_modules=["q_proj", "v_proj"], lora_dropout=0.05, bias="none",
                    task_type="SEQ_2_SEQ_LM")
model = get_peft_model(model, config)
rows = []
for row in pq.read_table(data).slice(0, 4).to_pylist():
    samples, rate = soundfile.read(io.BytesIO(row["audio"]["bytes"]), dtype="float32")
    samples = soxr.resample(samples, rate, 16000)
    features = processor(samples, sampling_rate=16000).input_features[0]
    rows.append({"input_features": features, "labels": processor.tokenizer(row["sentence"]).input_ids})

def collate(batch):
    labels = [torch.tensor(row["labels"]) for row in batch]
    return {
        "input_features": torch.stack([torch.as_tensor(row["input_features"]) for row in batch]),
        "labels": torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100),
    }

class Trainer(Seq2SeqTrainer):
    def compute_loss(self, model, inputs, return_outputs=False, **kwargs):
        # The wrapper of this task type passes input_ids, which Whisper does not take.
        outputs = model.base_model.model(**inputs)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

arguments = Seq2SeqTrainingArguments(
    out, per_device_train_batch_size=2, learning_rate=1e-2, max_steps=4, save_strategy="no", report_to=[],
    remove_unused_columns=False, label_names=["labels"], use_cpu=True, disable_tqdm=True,
)
Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()
model.save_pretrained(out)
"""


@pytest.fixture(scope="session")
def foreign(shared: Path, corpus: Path, micro_whisper: Path) -> Path:
    """An adapter that plain peft and a Seq2SeqTrainer have trained, with the task type of the popular notebooks."""
    from tests.conftest import made_once

    def make(folder: Path) -> None:
        script = folder.with_name("train_foreign.py")
        script.write_text(TRAINING)
        program = [sys.executable, str(script), str(micro_whisper), str(corpus / "train"), str(folder)]
        done = subprocess.run(program, cwd=folder.parent, env=environment(1), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    return made_once(shared / "foreign-adapter", make)


@pytest.mark.long
def test_an_adapter_of_plain_peft_and_a_trainer_is_scored(
    foreign: Path, micro_whisper: Path, corpus: Path, tmp_path: Path
):
    config = json.loads((foreign / "adapter_config.json").read_text())
    assert config["task_type"] == "SEQ_2_SEQ_LM"
    data = ["--data.path", corpus / "validation", "--data.language", "be", "--decoding.max_new_tokens", 20]
    summary = evaluated(tmp_path / "foreign", "--model", foreign, *data)
    base = evaluated(tmp_path / "base", "--model", micro_whisper, *data)
    assert summary["utterances"] == base["utterances"] == 12
    assert summary["model_sha256"] != base["model_sha256"]
    assert hypotheses(tmp_path / "foreign") != hypotheses(tmp_path / "base")


@pytest.mark.long
@pytest.mark.parametrize("program", ["transcribe", "export"])
def test_an_adapter_of_plain_peft_is_taken_by(foreign: Path, micro_whisper: Path, tmp_path: Path, program: str):
    assert export([str(foreign), "--to", "hf", "--quantization", "float32", "--out", str(tmp_path / "whole")]) == 0
    if program == "export":
        base, whole = (logits_of(load_whisper(str(folder)).model) for folder in (micro_whisper, tmp_path / "whole"))
        adapted = logits_of(load_for_inference(str(foreign), "fp32", CPU, lambda line: None).model)
        assert (whole - adapted).abs().max() < 1e-4 < (base - adapted).abs().max()
        return
    soundfile.write(tmp_path / "noise.wav", np.random.default_rng(1).uniform(-0.1, 0.1, 16_000), 16_000)
    texts = []
    for number, model in enumerate((foreign, tmp_path / "whole", micro_whisper)):
        transcribe(model, tmp_path / "noise.wav", tmp_path / f"{number}")
        texts.append((tmp_path / f"{number}/noise.txt").read_text())
    assert texts[0] == texts[1] != texts[2]


# --- several adapters ---


@pytest.mark.long
def test_several_adapters_of_one_base_are_scored_as_each_alone(micro_whisper: Path, corpus: Path, tmp_path: Path):
    names = {"first": {"seed": 1}, "second": {"seed": 2, "r": 2, "use_dora": True}}
    paths = {name: own_adapter(micro_whisper, tmp_path / name, **given) for name, given in names.items()}
    data = ["--data.path", corpus / "validation", "--data.language", "be", "--decoding.max_new_tokens", 20]
    both = evaluated(tmp_path / "both", "--adapters", json.dumps([*map(str, paths.values())]), *data)
    (rates,) = both["adapters"].values()
    assert [row["name"] for row in rates] == ["first", "second"]
    for row, (name, path) in zip(rates, paths.items(), strict=True):
        alone = evaluated(tmp_path / f"alone-{name}", "--model", path, *data)
        together = json.loads((tmp_path / "both" / name / "summary.json").read_text())
        assert together["model_sha256"] == alone["model_sha256"]
        assert hypotheses(tmp_path / "both" / name) == hypotheses(tmp_path / f"alone-{name}")
        assert row["value"] == together["wer"] == alone["wer"]
    assert rates[0]["to_first"] is None
    assert rates[1]["to_first"]["change"] == pytest.approx(rates[1]["value"] - rates[0]["value"])
    assert hypotheses(tmp_path / "both/first") != hypotheses(tmp_path / "both/second")


@pytest.mark.matrix
def test_two_processes_score_adapters_of_a_quantised_base_as_one_does(
    micro_whisper: Path, corpus: Path, tmp_path: Path
):
    paths = [own_adapter(micro_whisper, tmp_path / name, "nf4", seed) for seed, name in enumerate(("a", "b"))]
    sets = json.dumps([{"path": str(corpus / name), "language": "be"} for name in ("validation", "test")])
    arguments = ["--adapters", json.dumps([*map(str, paths)]), "--sets", sets, "--decoding.max_new_tokens", "20"]
    for processes in (1, 2):
        out = str(tmp_path / f"out-{processes}")
        ended = run("evaluate.py", *arguments, "--out", out, "--fail_above", "0.001", processes=processes)
        assert ended.code == 8, ended.err
        assert "a on validation" in ended.err
    one, two = (json.loads((tmp_path / f"out-{number}/summary.json").read_text()) for number in (1, 2))
    assert one == two
    assert {*one["adapters"]} == {"validation", "test"}
    for name in ("a/validation", "a/test", "b/validation", "b/test"):
        assert hypotheses(tmp_path / "out-1" / name) == hypotheses(tmp_path / "out-2" / name)
    rates = json.loads((tmp_path / "out-1/b/summary.json").read_text())["sets"]
    assert {name: row["value"] for name, row in rates.items()} == {
        name: rows[1]["value"] for name, rows in one["adapters"].items()
    }


def test_adapters_of_other_bases_are_not_scored_together(micro_whisper: Path, tmp_path: Path):
    shutil.copytree(micro_whisper, tmp_path / "base")
    weights = load_file(tmp_path / "base/model.safetensors")
    save_file(
        {name: tensor * 1.01 for name, tensor in weights.items()}, tmp_path / "base/model.safetensors", {"format": "pt"}
    )
    paths = [own_adapter(micro_whisper, tmp_path / "a"), own_adapter(tmp_path / "base", tmp_path / "b")]
    paths.append(own_adapter(micro_whisper, tmp_path / "c", "nf4"))
    for pair in (paths[:2], [paths[0], paths[2]], [paths[0], micro_whisper]):
        for base in (None, str(micro_whisper)):
            with pytest.raises(UsageError) as refusal:
                next(adapters_in_turn([*map(str, pair)], base, "auto", CPU, lambda line: None))
            assert str(pair[1]) in str(refusal.value)


def test_an_adapter_has_the_name_of_its_run_or_folder():
    def names(*paths: str) -> list[str]:
        config = load_config(EvaluationConfig, ["--adapters", json.dumps(paths), "--data.path", "x"])
        return [name for name, _ in config.named_adapters]

    assert names("runs/a", "runs/b/best-adapter", "me/lora") == ["a", "b", "lora"]
    assert names("runs/a/best-adapter", "runs/a/final-adapter") == ["a-best-adapter", "a-final-adapter"]
    assert names("runs/a", "runs/a/final-adapter") == ["a", "a-final-adapter"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--adapters", "[a, b/a]"], "two are called"),
        (["--adapters", "[a]", "--base", "x"], "--base"),
        (["--adapters", "[a]", "--compare", "x"], "--compare"),
        (["--adapters", "[a]", "--predictions", "x"], "--predictions"),
        (["--predictions", "x", "--base", "y"], "--base"),
    ],
)
def test_settings_that_adapters_leave_no_room_for_are_refused(arguments: list[str], told: str):
    with pytest.raises(UsageError, match=told):
        refuse_impossible_evaluation(load_config(EvaluationConfig, [*arguments, "--data.path", "x"]))


# --- export ---


@needs_openai
@pytest.mark.long
@pytest.mark.parametrize(
    "target", ["ct2", *(pytest.param(target, marks=pytest.mark.matrix) for target in ("ggml", "hf"))]
)
def test_an_adapter_is_exported_merged_and_checked_in_its_engine(
    speaker: Path,  # noqa: F811 - the fixture
    corpus: Path,
    tmp_path: Path,
    target: str,
):
    adapter = own_adapter(speaker, tmp_path / "adapter", size=0.002)
    check = ["--check", str(corpus / "validation"), "4", "--language", "be"]
    assert export([str(adapter), "--to", target, "--out", str(tmp_path / "out"), *check]) == 0
    record = record_in(tmp_path / "out")
    assert record["status"] == "passed"
    assert record["weights_sha256"] != weights_sha256(load_whisper(str(speaker)).model)
