"""Terms of the anchor: the divergence from the start model, the pull to the start weights, and their settings."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from collator import SpeechCollator
from tests.conftest import Trainer
from whisper_ft.config.anchor import AnchorConfig
from whisper_ft.config.optimization import OptimConfig
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.models.start_model import StartModel, frozen_copy
from whisper_ft.models.whisper import load_whisper, parameters_by_name
from whisper_ft.optim import loss as loss_module
from whisper_ft.optim.loss import StartOutput, TokenLoss, divergence_sum
from whisper_ft.optim.optimizer import build_optimizer, set_lr
from whisper_ft.optim.pull import copies_of, distance, pull_back
from whisper_ft.training.memory.memory_estimate import estimate
from whisper_ft.training.memory.model_dimensions import ModelDimensions
from whisper_ft.training.memory.workload import Workload

ROWS, VALUES = 5, 7


@pytest.fixture(scope="module")
def model(micro_whisper: Path) -> Any:
    return load_whisper(str(micro_whisper)).model


def batch_of(model: Any, windows: int = 3) -> tuple[torch.Tensor, ...]:
    """Features, decoder inputs, labels and the positions that have a label."""
    torch.manual_seed(0)
    frames = 2 * model.config.max_source_positions
    features = torch.randn(windows, model.config.num_mel_bins, frames)
    tokens = torch.randint(0, model.config.vocab_size, (windows, 6))
    return features, tokens, tokens, torch.arange(windows * 6)[torch.arange(windows * 6) % 5 != 0]


def start_of(model: Any, batch: tuple[torch.Tensor, ...]) -> StartOutput:
    start = StartModel.of(model, has_adapter=False)
    return StartOutput(start.states(batch[0], batch[1], batch[3]), start.head)


def moved(model: Any, seed: int = 1) -> Any:
    other = copy.deepcopy(model)
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return other


# --- divergence -----------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000))
def test_the_divergence_is_that_of_its_definition_and_never_negative(seed: int):
    generator = torch.Generator().manual_seed(seed)
    own, start = (3 * torch.randn(ROWS, VALUES, generator=generator) for _ in range(2))
    p, q = start.double().softmax(-1), own.double().softmax(-1)
    value = divergence_sum(own, start)
    assert float(value) == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4, abs=1e-6)
    assert float(value) >= 0
    assert float(divergence_sum(own, own.clone())) == 0


def test_a_model_has_no_divergence_from_its_own_start(model: Any):
    model = copy.deepcopy(model).train()
    batch = batch_of(model)
    value = TokenLoss(model)(*batch, start_of(model, batch))
    assert value == 0
    value.backward()
    assert all(parameter.grad is not None for parameter in parameters_by_name(model).values())
    assert max(float(p.grad.abs().max()) for p in parameters_by_name(model).values() if p.grad is not None) < 1e-5


def test_the_divergence_pulls_towards_the_start_model_and_leaves_it_alone(model: Any):
    batch, start = batch_of(model), start_of(model, batch_of(model))
    tuned = moved(model)
    optimizer = torch.optim.SGD(tuned.parameters(), lr=0.05)
    values = []
    for _ in range(5):
        optimizer.zero_grad()
        value = TokenLoss(tuned)(*batch, start)
        value.backward()
        optimizer.step()
        values.append(float(value.detach()))
    assert values == sorted(values, reverse=True)
    assert values[-1] < values[0]
    assert all(torch.equal(a, b) for a, b in zip(start, start_of(model, batch), strict=True))


def test_blocks_of_labels_give_the_divergence_and_gradient_of_all_at_once(model: Any, monkeypatch: pytest.MonkeyPatch):
    batch, start, results = batch_of(model), start_of(model, batch_of(model)), []
    for block in (10_000, 4):
        monkeypatch.setattr(loss_module, "TOKENS_AT_ONCE", block)
        tuned = moved(model)
        value = TokenLoss(tuned)(*batch, start)
        value.backward()
        results.append((value.detach(), [p.grad for p in parameters_by_name(tuned).values()]))
    (whole, gradients), (parts, of_parts) = results
    assert torch.allclose(whole, parts, rtol=1e-5)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-5) for a, b in zip(gradients, of_parts, strict=True))


def test_an_empty_batch_of_the_anchor_adds_nothing_and_still_reaches_every_weight(model: Any):
    model = copy.deepcopy(model)
    empty = SpeechCollator(1, 0, (model.config.num_mel_bins, 2 * model.config.max_source_positions))([])
    batch = (empty.input_features, empty.decoder_input_ids, empty.labels, empty.predicted)
    value = TokenLoss(model)(*batch, start_of(model, batch))
    value.backward()
    assert value == 0
    assert all(p.grad is not None and not p.grad.any() for p in parameters_by_name(model).values())


def test_a_start_model_shares_the_frozen_weights_and_has_no_dropout(model: Any):
    model = copy.deepcopy(model).train()
    model.model.encoder.requires_grad_(False)
    start = frozen_copy(model)
    places = {name: parameter.data_ptr() for name, parameter in start.named_parameters()}
    for name, parameter in model.named_parameters():
        assert (parameter.data_ptr() == places[name]) is not parameter.requires_grad, name
    assert not start.training
    assert not any(parameter.requires_grad for parameter in start.parameters())
    assert all(parameter.requires_grad for name, parameter in model.named_parameters() if "decoder" in name)
    assert start.proj_out.weight is start.model.decoder.embed_tokens.weight


def test_an_adapter_is_off_for_the_start_model_and_trains_on(model: Any, train: Trainer):
    pytest.importorskip("peft")
    from whisper_ft.models.adapters.lora import inject, lora_config

    before, adapted = copy.deepcopy(model).eval(), copy.deepcopy(model)
    inject(adapted, lora_config(load_config(TrainingConfig, train.arguments("x", adapter__kind="lora")).adapter), 1)
    with torch.no_grad():
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.3)
    batch, adapted = batch_of(model), adapted.train()
    start = StartModel.of(adapted, has_adapter=True)
    plain = start_of(before, batch)
    assert torch.equal(start.states(batch[0], batch[1], batch[3]), plain.states)
    assert start.model is adapted, "no second copy"
    assert adapted.training
    value = TokenLoss(adapted)(*batch, StartOutput(plain.states, start.head))
    value.backward()
    assert value > 0
    trained = [parameter for name, parameter in adapted.named_parameters() if "lora_" in name]
    assert trained
    assert all(parameter.requires_grad and parameter.grad is not None for parameter in trained)


# --- pull -----------------------------------------------------------------------------------------------------------


@given(share=st.floats(0, 1), factor=st.floats(0, 1), seed=st.integers(0, 100))
def test_the_pull_takes_back_a_share_of_the_distance_that_follows_the_schedule(share: float, factor: float, seed: int):
    torch.manual_seed(seed)
    parameters = {"layers.0.w": torch.nn.Parameter(torch.randn(3, 4)), "bias": torch.nn.Parameter(torch.randn(4))}
    start = copies_of(parameters)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(torch.randn_like(parameter))
    far, before = distance(start), {name: parameter.detach().clone() for name, parameter in parameters.items()}
    peak = 1e-5
    optimizer = build_optimizer(parameters, OptimConfig(lr=peak))
    set_lr(optimizer, peak * factor)
    pull_back(optimizer, start, share, peak)
    for name, parameter in parameters.items():
        expected = before[name] + share * factor * (start[parameter] - before[name])
        assert torch.allclose(parameter, expected, atol=1e-6)
    assert distance(start) == pytest.approx(far * (1 - share * factor), rel=1e-4, abs=1e-5)


def test_the_pull_follows_the_decay_of_the_rate_over_layers(model: Any):
    model = copy.deepcopy(model)
    parameters = parameters_by_name(model)
    start = copies_of(parameters)
    with torch.no_grad():
        for parameter in parameters.values():
            parameter.add_(1.0)
    optimizer = build_optimizer(parameters, OptimConfig(lr=1e-4, layer_decay=0.5))
    set_lr(optimizer, 1e-4)
    pull_back(optimizer, start, 0.4, 1e-4)
    lowest, top = "model.encoder.layers.0.fc1.weight", "model.encoder.layers.1.fc1.weight"
    moved_by = {name: float((parameters[name] - start[parameters[name]]).mean().detach()) for name in (lowest, top)}
    assert moved_by == pytest.approx({lowest: 0.8, top: 0.6}, abs=1e-5)


def test_a_rate_of_zero_pulls_nothing_and_changes_no_bit():
    parameter = torch.nn.Parameter(torch.randn(5))
    start = {parameter: torch.zeros(5)}
    before = parameter.detach().clone()
    optimizer = torch.optim.SGD([{"params": [parameter], "lr": 0.0, "lr_factor": 1.0}], lr=0.0)
    pull_back(optimizer, start, 1.0, 1e-5)
    assert torch.equal(parameter, before)


# --- settings -------------------------------------------------------------------------------------------------------

REFUSED: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"anchor__l2": 1.5}, ("--anchor.l2", "1.5")),
    ({"anchor__l2": -0.1}, ("--anchor.l2", "-0.1")),
    ({"anchor__l2": "nan"}, ("--anchor.l2",)),
    ({"anchor__kl": -1}, ("--anchor.kl", "-1")),
    ({"anchor__kl": "inf"}, ("--anchor.kl", "inf")),
    ({"anchor__kl": 1}, ("--anchor.kl 1", "anchor.path")),
    ({"anchor__path": "PATH"}, ("--anchor.path", "anchor.kl")),
    ({"anchor__size": 2}, ("--anchor.size 2", "anchor.kl")),
    ({"anchor__language": "en", "anchor__l2": 0.1}, ("--anchor.language en", "anchor.kl")),
    ({"anchor__kl": 1, "anchor__path": "PATH", "anchor__size": 0}, ("--anchor.size", "0")),
    ({"anchor__kl": 1, "anchor__path": "PATH", "anchor__prompt_column": "x"}, ("--anchor.prompt_column x",)),
    ({"anchor__kl": 1, "anchor__path": "HELD_OUT"}, ("--anchor.path", "scored")),
    ({"anchor__kl": 1, "anchor__path": "PATH", "eval__sets": "SETS"}, ("--anchor.path", "scored")),
    ({"anchor__l2": 0.1, "adapter__kind": "lora"}, ("--anchor.l2 0.1", "adapter")),
    ({"anchor__kl": 1, "anchor__path": "/nowhere"}, ("--anchor.path /nowhere",)),
]


@pytest.mark.parametrize(("settings", "facts"), REFUSED, ids=[str(facts) for _, facts in REFUSED])
def test_a_setting_of_the_anchor_that_cannot_work_is_refused(
    train: Trainer, settings: dict[str, Any], facts: tuple[str, ...]
):
    path = str(train.corpus / "test")
    values = {
        "PATH": path,
        "HELD_OUT": f"{train.corpus / 'validation'}/",
        "SETS": json.dumps([{"name": "guard", "path": path}]),
    }
    message = str(train.refusal("run", **{name: values.get(str(value), value) for name, value in settings.items()}))
    assert not [fact for fact in facts if fact not in message], message
    assert "\n" not in message


def test_the_size_of_the_anchor_is_a_quarter_of_the_batch_unless_it_is_given():
    assert [AnchorConfig().utterances(size) for size in (1, 3, 8, 17)] == [1, 1, 2, 4]
    assert AnchorConfig(size=5).utterances(8) == 5


def test_the_estimate_of_the_memory_knows_the_start_weights_and_the_second_logits(micro_whisper: Path, train: Trainer):
    dimensions = ModelDimensions.from_config(load_whisper(str(micro_whisper)).model.config.to_dict())

    def parts(**settings: Any) -> Any:
        config = load_config(TrainingConfig, train.arguments("x", **settings))
        return estimate(Workload.of(config, dimensions, on_gpu=False, windows=4, processes=1))

    plain, l2 = parts(), parts(anchor__l2=0.1)
    kl = parts(anchor__kl=1, anchor__path=train.corpus / "test")
    adapter = parts(anchor__kl=1, anchor__path=train.corpus / "test", adapter__kind="lora")
    assert plain.start == adapter.start == 0
    assert l2.start == kl.start > 0
    assert l2.logits <= kl.logits
