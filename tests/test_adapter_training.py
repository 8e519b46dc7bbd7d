"""Adapters in training: what is trained and what is not, on bases in float, int8 and nf4."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import WhisperForConditionalGeneration

from tests.conftest import Trainer, run_fresh, script_in
from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import ModelConfig, TrainingConfig
from whisper_ft.models.adapters.adapter_mean import mean_adapter, mean_config, replace_weights
from whisper_ft.models.adapters.base_identity import BaseIdentity, weights_identity
from whisper_ft.models.adapters.lora import inject, lora_config, refuse_unknown_targets, size_of
from whisper_ft.models.adapters.quantised_base import dequantise, load_base, quantisation_of
from whisper_ft.models.whisper import load_whisper, parameters_by_name
from whisper_ft.optim.loss import TokenLoss
from whisper_ft.optim.optimizer import lr_factors
from whisper_ft.runtime.errors import UsageError
from whisper_ft.training.run_adapter import RunAdapter

pytest.importorskip("peft")

CPU = torch.device("cpu")
BASES = ("float", "int8", "nf4")
Build = Callable[..., WhisperForConditionalGeneration]


@pytest.fixture
def build(micro_whisper: Path) -> Build:
    """A Whisper with an adapter: `settings` of the adapter, `training` of the model."""

    def built(
        training: ModelConfig | None = None, precision: Any = "fp32", seed: int = 1, **settings: Any
    ) -> WhisperForConditionalGeneration:
        own = AdapterConfig("lora", **{"r": 4} | settings)
        model, _ = load_base(str(micro_whisper), own.base, precision, CPU, training)
        inject(model, lora_config(own, (training or ModelConfig()).freeze), seed)
        return model

    return built


def batch_of(model: WhisperForConditionalGeneration) -> tuple[torch.Tensor, ...]:
    """Noise in place of speech, with labels that are any tokens."""
    config, generator = model.config, torch.Generator().manual_seed(3)
    features = torch.randn(2, config.num_mel_bins, 2 * config.max_source_positions, generator=generator)
    labels = torch.randint(0, config.vocab_size, (2, 7), generator=generator)
    return features, labels, labels, torch.arange(14)


def frozen_bytes(model: torch.nn.Module) -> dict[str, bytes]:
    return {
        name: tensor.detach().contiguous().view(torch.uint8).numpy().tobytes()
        for name, tensor in model.state_dict().items()
        if ".lora_" not in name and tensor.dim()
    }


def update(model: WhisperForConditionalGeneration, times: int = 1) -> None:
    """Updates of all trained weights, each by a hundredth of its gradient's length."""
    loss, batch = TokenLoss(model), batch_of(model)
    model.train()
    for _ in range(times):
        loss(*batch).backward()
        with torch.no_grad():
            for parameter in parameters_by_name(model).values():
                assert parameter.grad is not None
                parameter -= 0.01 * parameter.grad / (parameter.grad.norm() + 1e-9)


@pytest.mark.long
@pytest.mark.parametrize("base", BASES)
def test_all_adapters_get_a_gradient_with_checkpointing_and_the_base_keeps_its_bytes(build: Build, base: str):
    """Also after an evaluation, in which the nf4 layers of bitsandbytes would repack their weights on some CPUs."""
    model = build(ModelConfig(gradient_checkpointing=True), base=base, precision="fp16")
    before = frozen_bytes(model)
    update(model)  # the first update moves lora_B, which begins at zero, and only then has lora_A a gradient
    model.eval()
    with torch.inference_mode():
        model.generate(input_features=batch_of(model)[0], max_new_tokens=4)
    model.zero_grad()
    update(model)
    trained = parameters_by_name(model)
    assert {name.split(".lora_")[-1] for name in trained} == {"A.default.weight", "B.default.weight"}
    assert all(parameter.grad is not None and parameter.grad.norm() > 0 for parameter in trained.values())
    assert {name.split(".")[1] for name in trained} == {"encoder", "decoder"}
    assert {parameter.dtype for parameter in trained.values()} == {torch.float32}
    assert frozen_bytes(model) == before


@pytest.mark.parametrize("base", ["int8", "nf4"])
def test_a_quantised_base_computes_with_its_dequantised_weights(micro_whisper: Path, base: Any):
    model, _ = load_base(str(micro_whisper), base, "fp32", CPU)
    original, _ = load_whisper(str(micro_whisper))
    assert quantisation_of(model) == base
    assert isinstance(model.proj_out, torch.nn.Linear)
    assert model.proj_out.weight is model.model.decoder.embed_tokens.weight, "the tie stays"
    layer = model.model.encoder.layers[0].fc1
    inputs = torch.randn(3, 5, layer.in_features, requires_grad=True)
    weight = layer.float_weight(torch.float32)
    error = (weight - original.model.encoder.layers[0].fc1.weight).abs().max() / weight.abs().max()
    assert 0 < error < {"int8": 0.01, "nf4": 0.2}[base]
    product = layer(inputs)
    assert torch.allclose(product, inputs @ weight.T + layer.bias, atol=1e-6)
    product.sum().backward()
    assert torch.allclose(inputs.grad, weight.sum(0).expand_as(inputs), atol=1e-5)
    features, tokens, *_ = batch_of(model)
    with torch.inference_mode():
        before = model.eval()(input_features=features, decoder_input_ids=tokens).logits
        dequantise(model)
        after = model(input_features=features, decoder_input_ids=tokens).logits
    assert quantisation_of(model) == "float"
    assert torch.allclose(before, after, atol=1e-5)


@pytest.mark.long
@pytest.mark.parametrize("base", BASES)
def test_a_new_adapter_has_no_effect_and_the_first_weights_follow_from_the_seed(
    build: Build, micro_whisper: Path, base: Any
):
    plain, _ = load_base(str(micro_whisper), base, "fp32", CPU)
    features, tokens, *_ = batch_of(plain)
    model = build(base=base)
    torch.manual_seed(99)
    state = torch.random.get_rng_state()
    again, other = build(base=base), build(base=base, seed=2)
    assert torch.equal(torch.random.get_rng_state(), state), "no other draw changes"
    first = parameters_by_name(model)
    for name, parameter in parameters_by_name(again).items():
        assert torch.equal(parameter, first[name])
        assert ("lora_A" in name) != torch.equal(parameter, parameters_by_name(other)[name])
    with torch.inference_mode():
        expected = plain.eval()(input_features=features, decoder_input_ids=tokens).logits
        assert torch.equal(model.eval()(input_features=features, decoder_input_ids=tokens).logits, expected)


@pytest.mark.parametrize(
    ("settings", "layers", "scale"),
    [
        ({}, 2 * 6 + 2 * 10, 16.0),
        ({"targets": "attention"}, 2 * 4 + 2 * 8, 16.0),
        ({"targets": ["q_proj", "decoder.layers.1.fc1"]}, 2 + 4 + 1, 16.0),
        ({"rslora": True}, 32, 32.0),
        ({"base": "nf4", "dora": True}, 32, 16.0),
    ],
)
def test_the_size_of_an_adapter_is_counted(
    build: Build, micro_whisper: Path, settings: dict[str, Any], layers: int, scale: float
):
    model = build(**settings)
    size = size_of(model, AdapterConfig("lora", r=4, **settings))
    whole = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    assert (size.layers, size.scale) == (layers, scale)
    assert size.total == sum(parameter.numel() for parameter in whole.parameters())
    assert size.trained == sum(parameter.numel() for parameter in parameters_by_name(model).values())
    assert all(fact in str(size) for fact in (f"{size.trained:,}", f"{size.total:,}", f"{scale:g}"))


def test_a_frozen_encoder_has_no_adapter_and_no_graph(build: Build):
    model = build(ModelConfig(freeze=["encoder"]))
    assert {name.split(".")[1] for name in parameters_by_name(model)} == {"decoder"}
    output = model.train().model.encoder(batch_of(model)[0]).last_hidden_state
    assert output.grad_fn is None
    update(model)


@pytest.mark.long
def test_full_rank_reaches_the_loss_of_full_training(build: Build, micro_whisper: Path):
    """On a batch learned by heart. The embeddings are as long as trained ones: an adapter leaves them as they are."""

    def losses(model: WhisperForConditionalGeneration, lr: float, updates: int = 60) -> list[float]:
        with torch.no_grad():
            model.model.decoder.embed_tokens.weight *= 20
        loss, batch, values = TokenLoss(model.train()), batch_of(model), []
        optimizer = torch.optim.AdamW(parameters_by_name(model).values(), lr, weight_decay=0)
        for _ in range(updates):
            values.append(loss(*batch))
            optimizer.zero_grad()
            values[-1].backward()
            optimizer.step()
        return [float(value.detach()) for value in values]

    full = losses(load_whisper(str(micro_whisper)).model, 3e-3)
    lora = losses(build(r=32, alpha=32.0), 3e-3)
    assert full[0] == pytest.approx(lora[0], rel=1e-5)
    assert full[-1] < 0.1 * full[0]
    assert lora[-1] < full[-1] + 0.05 * full[0]


@pytest.mark.long
def test_the_rate_of_an_adapter_is_ten_times_that_of_all_weights_and_recorded(train: Trainer):
    settings = {"steps": 2, "eval__every": 0, "save__every": 0, "optim__lr": "auto", "schedule__warmup": 1}
    lora = {"adapter__kind": "lora", "adapter__r": 2}
    for name, more, rate in (("full", {}, 1e-5), ("lora", lora, 1e-4)):
        ended = train.end(name, **settings, **more)
        assert ended.code == 0, ended.err
        (line,) = (line for line in ended.out.splitlines() if line.startswith("optim.lr"))
        assert f"{rate:g}" in line
        assert "auto" in line
        recorded = (train.folder / name / "checkpoints/step-00000002/trainer.json").read_text()
        assert json.loads(recorded)["config"]["optim"]["lr"] == rate
        assert any("warm-up" in line and "warning" in line for line in ended.out.splitlines()) == bool(more)
        assert any(line.startswith("adapter: ") for line in ended.out.splitlines()) == bool(more)


@pytest.mark.long
def test_a_run_without_an_adapter_imports_neither_peft_nor_bitsandbytes(train: Trainer, tmp_path: Path):
    """Transformers imports both for its Adafactor; it takes seconds, and a line on kernels would be printed."""
    source = """
import sys, train
train.exit_process = lambda code, report: print("imported:", sorted({"peft", "bitsandbytes"} & set(sys.modules)))
train.main()
"""
    arguments = train.arguments("run", steps=1, eval__every=1)
    ended = run_fresh(script_in(tmp_path, source), *arguments)
    assert "imported: []" in ended.out, ended.err
    assert "kernels" not in ended.err


@pytest.mark.parametrize(
    ("argv", "facts"),
    [
        (["--adapter.r", "8"], ("--adapter.r 8", "adapter.kind")),
        (["--adapter.base", "nf4"], ("--adapter.base nf4", "adapter.kind")),
        (["--adapter.kind", "dora"], ("--adapter.kind dora", "none", "lora")),
        (["--adapter.kind", "lora", "--adapter.r", "0"], ("--adapter.r", "at least 1")),
        (["--adapter.kind", "lora", "--adapter.alpha", "0"], ("--adapter.alpha", "above 0")),
        (["--adapter.kind", "lora", "--adapter.dropout", "1"], ("--adapter.dropout", "below 1")),
        (["--adapter.kind", "lora", "--adapter.base", "int4"], ("--adapter.base int4", "int8", "nf4")),
        (["--adapter.kind", "lora", "--adapter.targets", "all"], ("--adapter.targets all", "attention", "linear")),
        (["--adapter.kind", "lora", "--adapter.targets", "[]"], ("--adapter.targets",)),
        (["--adapter.kind", "lora", "--adapter.targets", "[proj_out]"], ("proj_out", "one tensor")),
        (["--adapter.kind", "lora", "--adapter.targets", "[model.decoder.embed_tokens]"], ("embed_tokens",)),
        (["--adapter.kind", "lora", "--model.freeze", "[embeddings]"], ("--model.freeze embeddings", "encoder")),
        (["--adapter.kind", "lora", "--model.freeze", "[encoder, decoder]"], ("--model.freeze", "no layer is left")),
        (["--adapter.kind", "lora", "--adapter.dora", "true", "--average.of", "last"], ("--average.of last", "dora")),
    ],
)
def test_settings_that_cannot_work_are_refused_in_one_line(argv: list[str], facts: tuple[str, ...]):
    with pytest.raises(UsageError) as refused:
        load_config(TrainingConfig, ["--data.path", "x", *argv])
    assert all(fact in str(refused.value) for fact in facts)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("target", "facts"),
    [("q_prj", ("q_prj", "q_proj")), ("conv1", ("conv1", "linear")), ("nothing", ("nothing", "fc1"))],
)
def test_layers_that_are_not_there_are_refused(micro_whisper: Path, target: str, facts: tuple[str, ...]):
    model, _ = load_whisper(str(micro_whisper))
    with pytest.raises(UsageError) as refused:
        refuse_unknown_targets(model, AdapterConfig("lora", targets=["fc1", target]))
    assert all(fact in str(refused.value) for fact in facts)


@pytest.mark.parametrize("more", [{"target_modules": ["proj_out"]}, {"modules_to_save": ["embed_tokens"]}])
def test_an_adapter_of_another_program_may_not_break_the_tie(micro_whisper: Path, more: dict[str, Any]):
    from peft import LoraConfig

    model, _ = load_whisper(str(micro_whisper))
    with pytest.raises(UsageError, match="embed_tokens"):
        inject(model, LoraConfig(**{"r": 2, "target_modules": ["q_proj"]} | more), 1)


@pytest.mark.long
def test_a_run_begins_with_the_adapter_of_another_and_only_with_one_that_fits(train: Trainer, build: Build):
    settings = {"adapter__kind": "lora", "adapter__r": 2, "steps": 2, "eval__every": 2, "save__every": 0}
    first = train("first", **settings) / "best-adapter"
    tensors = load_file(first / "adapter_model.safetensors")

    def begun(is_new: bool = True, **more: Any) -> WhisperForConditionalGeneration:
        arguments = train.arguments("second", **settings | {"adapter__init": first} | more)
        config = load_config(TrainingConfig, arguments)
        model, _ = load_base(config.model.name, config.adapter.base, "fp32", CPU, config.model)
        RunAdapter.inject_into(model, config, lambda line: None, is_new=is_new)
        return model

    expected = {name.removeprefix("base_model.model."): tensor for name, tensor in tensors.items()}
    own = {name.replace(".default", ""): each for name, each in parameters_by_name(begun(adapter__base="nf4")).items()}
    assert own.keys() == expected.keys()
    assert all(torch.equal(own[name], tensor) for name, tensor in expected.items())
    assert all(not each.any() for name, each in parameters_by_name(begun(is_new=False)).items() if "lora_B" in name)
    for more, fact in (
        ({"adapter__r": 4}, "adapter.r 2"),
        ({"adapter__alpha": 1}, "adapter.alpha 64"),
        ({"adapter__rslora": "true"}, "adapter.rslora"),
        ({"adapter__targets": "attention"}, "adapter.targets"),
    ):
        with pytest.raises(UsageError, match=r"--adapter\.init") as refused:
            begun(**more)
        assert all(part in str(refused.value) for part in fact.split())
    assert "adapter_config.json" in str(train.refusal("third", **settings | {"adapter__init": train.model}))


def test_the_mean_of_adapters_has_the_mean_of_their_effects(build: Build):
    models = [build(seed=seed) for seed in (1, 2, 3)]
    for model in models:
        update(model, times=3)
    features, tokens, *_ = batch_of(models[0])
    layer = "model.decoder.layers.0.fc1"
    inputs = torch.randn(5, 32)
    with torch.inference_mode():
        products = [model.eval().get_submodule(layer)(inputs) for model in models]
        replace_weights(models[0], mean_adapter([dict(parameters_by_name(model)) for model in models]))
        assert torch.allclose(models[0].get_submodule(layer)(inputs), torch.stack(products).mean(0), atol=1e-6)
        models[0](input_features=features, decoder_input_ids=tokens)
    for rslora, factor in ((False, 3), (True, math.sqrt(3))):
        own = lora_config(AdapterConfig("lora", r=4, rslora=rslora)).to_dict()
        mean = mean_config(own, 3)
        assert (mean["r"], mean["lora_alpha"]) == (12, 64 * factor)


@pytest.mark.long
def test_the_average_of_a_run_with_an_adapter_is_an_adapter(train: Trainer):
    settings = {"adapter__kind": "lora", "adapter__r": 2, "average__of": "last", "average__checkpoints": 2}
    run_dir = train("run", steps=4, save__every=2, eval__every=0, **settings)
    folder = run_dir / "average-adapter"
    assert json.loads((folder / "adapter_config.json").read_text())["r"] == 4
    parts = [load_file(run_dir / f"checkpoints/step-0000000{step}/model.safetensors") for step in (2, 4)]
    mean = load_file(folder / "adapter_model.safetensors")
    name = "model.encoder.layers.0.fc1.lora_{}.default.weight"
    a, b = (mean["base_model.model." + name.replace(".default", "").format(part)] for part in "AB")
    expected = sum(each[name.format("B")] @ each[name.format("A")] for each in parts) / 2
    assert torch.allclose(b @ a, expected, atol=1e-7)


def test_layer_decay_counts_for_adapters():
    weight = torch.nn.Parameter(torch.zeros(1))
    names = {
        "model.encoder.layers.0.fc1.lora_A.default.weight": 0.5,
        "model.encoder.layers.1.fc1.lora_A.default.weight": 1.0,
        "model.decoder.layers.1.self_attn.q_proj.lora_B.default.weight": 1.0,
    }
    assert lr_factors(dict.fromkeys(names, weight), 0.5) == pytest.approx(names)


def test_the_identity_of_a_base_is_that_of_its_weights_alone(micro_whisper: Path, tmp_path: Path):
    own = weights_identity(str(micro_whisper))
    model = WhisperForConditionalGeneration.from_pretrained(micro_whisper)
    model.save_pretrained(tmp_path / "sharded", max_shard_size="20KB")
    assert len(list((tmp_path / "sharded").glob("*.safetensors"))) > 2
    assert weights_identity(str(tmp_path / "sharded")) == own
    with torch.no_grad():
        model.model.encoder.conv1.bias[0] += 1
    model.save_pretrained(tmp_path / "other")
    other = weights_identity(str(tmp_path / "other"))
    assert other != own
    identities = [BaseIdentity("a", own, "float"), BaseIdentity("b", own, "float"), BaseIdentity("b", other, "float")]
    assert [bool(identities[0].difference(each)) for each in identities] == [False, False, True]
    assert "nf4" in identities[0].difference(BaseIdentity("a", own, "nf4"))
