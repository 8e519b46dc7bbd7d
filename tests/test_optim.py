"""Optimizers: state comes back to the bit, foreign state is refused, and parameter groups have their settings."""

import sys
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
import torch
from transformers import WhisperForConditionalGeneration

from tests.saving import record_of
from whisper_ft.checkpoint.loading import load_optimizer, load_weights
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.checkpoint.writer import contents_of, write
from whisper_ft.config.optimization import OptimConfig
from whisper_ft.models.whisper import parameters_by_name
from whisper_ft.optim import optimizer as optim
from whisper_ft.runtime.errors import ResumeError, UsageError

NAMES = get_args(get_type_hints(OptimConfig)["name"])
SETTINGS: dict[str, dict[str, Any]] = {name: {"name": name} for name in NAMES} | {
    "sgd without momentum": {"name": "sgd", "momentum": 0.0},
    "layer-wise rates": {"name": "adamw", "layer_decay": 0.5},
}
pytestmark = pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
of_all = pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())


class Trained:
    """A micro Whisper and its optimizer, to be trained by steps that depend on their number only."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self.model = WhisperForConditionalGeneration.from_pretrained(folder)
        self.parameters = parameters_by_name(self.model)
        self.optimizer = optim.build_optimizer(
            self.parameters, OptimConfig(**{"lr": 1e-3, "weight_decay": 0.1, **settings})
        )

    def train(self, *steps: int) -> "Trained":
        shape = self.model.config
        for step in steps:
            torch.manual_seed(step)
            features = torch.randn(2, shape.num_mel_bins, 2 * shape.max_source_positions)
            tokens = torch.randint(0, 200, (2, 5))
            output = self.model(input_features=features, decoder_input_ids=tokens, use_cache=False)
            output.logits.square().mean().backward()
            optim.set_lr(self.optimizer, 1e-3 / (step + 1))
            assert optim.apply_update(self.optimizer, torch.tensor(1.0))
        return self

    @property
    def state(self) -> dict[str, torch.Tensor]:
        return optim.state_tensors(self.optimizer, self.parameters)

    def save(self, folder: Path) -> Path:
        record = record_of(TrainState(step=3))
        return write(folder, None, contents_of(self.model, self.state, record, copied=False))

    def load(self, path: Path) -> "Trained":
        load_weights(path, self.model)
        optim.load_state_tensors(self.optimizer, self.parameters, load_optimizer(path))
        return self

    @property
    def bits(self) -> dict[str, tuple[torch.dtype, bytes]]:
        """Weights and state: names, types and bytes."""
        tensors = {**self.parameters, **self.state}
        return {
            name: (t.dtype, t.detach().reshape(-1).view(torch.uint8).numpy().tobytes()) for name, t in tensors.items()
        }

    @property
    def kinds(self) -> list[dict[str, type]]:
        return [{key: type(value) for key, value in of.items()} for of in self.optimizer.state.values()]


@of_all
def test_going_on_from_a_checkpoint_is_as_good_as_never_stopping(
    micro_whisper: Path, tmp_path: Path, settings: dict[str, Any]
):
    whole = Trained(micro_whisper, **settings).train(0, 1, 2, 3, 4, 5)
    path = Trained(micro_whisper, **settings).train(0, 1, 2).save(tmp_path)
    resumed = Trained(micro_whisper, **settings).load(path).train(3, 4, 5)
    assert resumed.bits == whole.bits
    assert resumed.kinds == whole.kinds


@pytest.mark.long
@of_all
def test_taking_the_state_back_changes_no_weight_and_no_setting(
    micro_whisper: Path, tmp_path: Path, settings: dict[str, Any]
):
    saved = Trained(micro_whisper, **settings).train(0)
    next(iter(saved.parameters.values())).data.view(-1)[0] = -0.0  # + 0.0 would be another number to the bit
    now = settings | {"lr": 5e-4, "weight_decay": 0.2, "betas": (0.8, 0.9), "eps": 1e-7}
    restored = Trained(micro_whisper, **now).load(saved.save(tmp_path))
    assert restored.bits == saved.bits
    fresh = Trained(micro_whisper, **now).optimizer.param_groups
    for group, as_configured in zip(restored.optimizer.param_groups, fresh, strict=True):
        assert {key: group[key] for key in group if key != "params"} == {
            key: as_configured[key] for key in as_configured if key != "params"
        }
    assert all(parameter.grad is None for parameter in restored.parameters.values())


def test_moments_of_8_bits_may_become_paged(micro_whisper: Path, tmp_path: Path):
    whole = Trained(micro_whisper, name="adamw_8bit").train(0, 1, 2, 3)
    path = Trained(micro_whisper, name="adamw_8bit").train(0, 1).save(tmp_path)
    assert Trained(micro_whisper, name="paged_adamw_8bit").load(path).train(2, 3).bits == whole.bits


def test_the_state_of_an_optimizer_that_never_made_an_update_is_empty(micro_whisper: Path, tmp_path: Path):
    path = Trained(micro_whisper).save(tmp_path)
    assert Trained(micro_whisper).train(0).load(path).state == {}


FC1 = "model.decoder.layers.0.fc1.weight"  # large enough for 8 bits


@pytest.mark.parametrize(
    ("name", "change", "facts"),
    [
        ("adamw", {"exp_avg": lambda t: t[:-1]}, ("exp_avg", "(127, 32)", "(128, 32)")),
        ("adamw", {"exp_avg": lambda t: t.T}, ("exp_avg", "(32, 128)")),
        ("adamw", {"exp_avg_sq": torch.Tensor.half}, ("exp_avg_sq", "torch.float16", "torch.float32")),
        ("adamw", {"step": None}, ("lacks step",)),
        ("adamw_8bit", {"state1": torch.Tensor.float}, ("state1", "torch.float32", "torch.uint8")),
        ("adamw_8bit", {"absmax2": None}, ("lacks absmax2",)),
        ("adamw_8bit", {"absmax2": lambda t: t[1:]}, ("absmax2", "(15,)", "(16,)")),
        ("adamw_8bit", {"step": torch.Tensor.float}, ("step", "torch.float32", "torch.int64")),
        ("adafactor", {"exp_avg_sq_row": lambda t: t[None]}, ("exp_avg_sq_row", "(1, 128)")),
        ("adafactor", {"exp_avg": lambda _: torch.zeros(1)}, ("has exp_avg,",)),
        ("sgd", {"momentum_buffer": lambda t: t[0]}, ("momentum_buffer", "(32,)")),
    ],
)
def test_state_that_is_not_the_optimizers_own_is_refused_by_name(
    micro_whisper: Path, name: str, change: dict[str, Any], facts: tuple[str, ...]
):
    trained = Trained(micro_whisper, name=name).train(0)
    tensors = trained.state
    for key, changed in change.items():
        tensor = tensors.pop(f"{FC1}/{key}", None)
        if changed:
            tensors[f"{FC1}/{key}"] = changed(tensor)
    with pytest.raises(ResumeError) as refused:
        optim.load_state_tensors(trained.optimizer, trained.parameters, tensors)
    message = str(refused.value)
    assert f"the optimizer state of {FC1} " in message
    assert all(fact in message for fact in facts), message
    assert "\n" not in message


@pytest.mark.parametrize(("saved", "now"), [("adamw", "sgd"), ("adamw", "adamw_8bit"), ("sgd", "adafactor")])
def test_the_state_of_another_optimizer_is_refused(micro_whisper: Path, tmp_path: Path, saved: str, now: str):
    path = Trained(micro_whisper, name=saved).train(0).save(tmp_path)
    with pytest.raises(ResumeError, match=r"optimizer state of .* this optimizer"):
        Trained(micro_whisper, name=now).load(path)


@pytest.mark.parametrize(
    ("saved", "now", "kept"),
    [
        ({"name": "adamw"}, {"name": "adamw", "betas": (0.8, 0.9), "layer_decay": 0.9}, True),
        ({"name": "adamw"}, {"name": "sgd"}, False),
        ({"name": "adamw"}, {"name": "adamw_8bit"}, False),
        ({"name": "adamw_8bit"}, {"name": "paged_adamw_8bit"}, True),
        ({"name": "sgd", "momentum": 0.9}, {"name": "sgd", "momentum": 0.8}, True),
        ({"name": "sgd", "momentum": 0.0}, {"name": "sgd", "momentum": 0.8}, False),
        ({"name": "sgd", "momentum": 0.9}, {"name": "sgd", "momentum": 0.0}, False),
        ({"name": "adamw", "momentum": 0.9}, {"name": "adamw", "momentum": 0.0}, True),
    ],
)
def test_moments_are_kept_where_they_mean_the_same(saved: dict[str, Any], now: dict[str, Any], kept: bool):
    assert optim.keeps_state(saved, OptimConfig(**now)) is kept


@pytest.mark.parametrize("name", NAMES)
def test_weight_decay_shrinks_matrices_and_leaves_norms_biases_and_positions(micro_whisper: Path, name: str):
    trained = Trained(micro_whisper, name=name)
    before = {of: parameter.detach().clone() for of, parameter in trained.parameters.items()}
    for parameter in trained.parameters.values():
        parameter.grad = torch.zeros_like(parameter)
    optim.apply_update(trained.optimizer, torch.tensor(0.0))
    shrunk = {of for of, parameter in trained.parameters.items() if not torch.equal(parameter, before[of])}
    assert shrunk == {of for of in before if not of.endswith("bias") and "norm" not in of and "positions" not in of}
    for of in shrunk:
        torch.testing.assert_close(trained.parameters[of].detach(), before[of] * (1 - 1e-3 * 0.1), rtol=1e-6, atol=0)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "sgd"])
def test_a_learning_rate_makes_updates_of_one_size_with_every_optimizer_but_sgd(micro_whisper: Path, name: str):
    trained = Trained(micro_whisper, name=name, weight_decay=0)
    before = trained.parameters[FC1].detach().clone()
    trained.train(0)
    change = (trained.parameters[FC1].detach() - before).square().mean().sqrt()
    assert 0.5e-3 < change <= 1.01e-3  # AdamW's first update is lr for each weight, less only by eps


@pytest.mark.parametrize("name", ["adamw_8bit", "paged_adamw_8bit"])
def test_large_matrices_have_moments_of_8_bits_and_embeddings_of_32(micro_whisper: Path, name: str):
    state = Trained(micro_whisper, name=name).train(0).state
    assert {key.rpartition("/")[0] for key, value in state.items() if value.dtype == torch.uint8} == {
        f"model.{side}.layers.{layer}.{matrix}.weight"
        for side in ("encoder", "decoder")
        for layer in (0, 1)
        for matrix in ("fc1", "fc2")
    } | {"model.encoder.conv1.weight"}
    assert state["model.decoder.embed_tokens.weight/state1"].numel() > 4096


def test_what_bitsandbytes_remembers_of_a_parameter_that_is_gone_does_not_count(micro_whisper: Path):
    from bitsandbytes.optim import GlobalOptimManager

    parameter = parameters_by_name(WhisperForConditionalGeneration.from_pretrained(micro_whisper))[FC1]
    GlobalOptimManager.get_instance().override_config(parameter, "optim_bits", 32)
    optimizer = optim.build_optimizer({FC1: parameter}, OptimConfig(name="adamw_8bit", lr=1e-3))
    parameter.grad = torch.ones_like(parameter)
    optim.apply_update(optimizer, torch.tensor(1.0))
    assert optimizer.state[parameter]["state1"].dtype == torch.uint8


def test_without_bitsandbytes_its_optimizers_are_refused_in_one_line(
    micro_whisper: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(UsageError, match=r"^--optim.name adamw_8bit: .*pip install bitsandbytes.* adamw") as refused:
        Trained(micro_whisper, name="adamw_8bit")
    assert "\n" not in str(refused.value)
    Trained(micro_whisper, name="adamw")


def test_each_layer_below_the_top_learns_slower_by_the_layer_decay(micro_whisper: Path):
    trained = Trained(micro_whisper, name="sgd", momentum=0, weight_decay=0, layer_decay=0.5)
    before = {of: parameter.detach().clone() for of, parameter in trained.parameters.items()}
    for parameter in trained.parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optim.set_lr(trained.optimizer, 1.0)
    optim.apply_update(trained.optimizer, torch.tensor(1.0))
    moved = {of: (before[of] - parameter.detach()).mean().item() for of, parameter in trained.parameters.items()}
    for of, factor in {
        "model.encoder.conv1.weight": 0.25,
        "model.encoder.conv2.bias": 0.25,
        "model.encoder.layers.0.self_attn.q_proj.weight": 0.5,
        "model.encoder.layers.1.final_layer_norm.weight": 1,
        "model.encoder.layer_norm.weight": 1,
        "model.decoder.embed_tokens.weight": 0.25,
        "model.decoder.embed_positions.weight": 0.25,
        "model.decoder.layers.0.encoder_attn.k_proj.weight": 0.5,
        "model.decoder.layers.1.fc2.bias": 1,
        "model.decoder.layer_norm.bias": 1,
    }.items():
        assert moved[of] == pytest.approx(factor, rel=1e-4), of


def test_the_top_layer_is_the_topmost_that_is_trained():
    weight = torch.nn.Parameter(torch.zeros(1))
    names = {
        "base_model.model.model.encoder.layers.11.fc1.lora_A.default.weight": 0.9,
        "base_model.model.model.encoder.layers.12.fc1.lora_A.default.weight": 1,
        "base_model.model.model.decoder.layers.2.encoder_attn.q_proj.lora_B.default.weight": 0.9,
        "base_model.model.model.decoder.layers.3.encoder_attn.q_proj.lora_B.default.weight": 1,
        "base_model.model.proj_out.weight": 1,
    }
    assert optim.lr_factors(dict.fromkeys(names, weight), 0.9) == pytest.approx(names)


def test_without_layer_decay_every_weight_has_the_learning_rate_itself(micro_whisper: Path):
    trained = Trained(micro_whisper)
    optim.set_lr(trained.optimizer, 1 / 3)
    assert [group["lr"] for group in trained.optimizer.param_groups] == [1 / 3, 1 / 3]


@pytest.mark.parametrize("name", NAMES)
def test_every_optimizer_has_the_settings_that_are_configured(micro_whisper: Path, name: str):
    settings = {"name": name, "lr": 0.25, "betas": (0.7, 0.8), "eps": 1e-3, "momentum": 0.3, "layer_decay": 0.5}
    meant = {"sgd": ["momentum"], "adafactor": []}.get(name, ["betas", "eps"])
    groups = Trained(micro_whisper, **settings).optimizer.param_groups
    assert all(group[key] == settings[key] for group in groups for key in meant)
    assert sorted({group["lr"] for group in groups}) == [0.0625, 0.125, 0.25]


@pytest.mark.parametrize(
    ("setting", "value"), [("momentum", 1.0), ("momentum", -0.1), ("layer_decay", 0.0), ("layer_decay", 1.1)]
)
def test_settings_out_of_bounds_are_refused(setting: str, value: float):
    with pytest.raises(ValueError, match=rf"--optim\.{setting}\b.* {value}$"):
        OptimConfig(**{setting: value})
