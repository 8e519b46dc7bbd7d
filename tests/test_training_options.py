"""Options of a training: what is frozen stays, what saves memory changes no bit, what is random is counted."""

import signal
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from tests.conftest import Trainer, digest, logged, metrics
from whisper_ft.cli.demo.model import Shape, write_micro_whisper

SHORT = {"steps": 3, "eval__every": 0, "save__every": 0}


@pytest.mark.long
@pytest.mark.parametrize(
    ("frozen", "still"),
    [
        ("[encoder]", ("model.encoder.",)),
        pytest.param("[decoder]", ("model.decoder.",), marks=pytest.mark.matrix),
        pytest.param(
            "[embeddings]", ("model.decoder.embed_tokens.", "model.decoder.embed_positions."), marks=pytest.mark.matrix
        ),
    ],
)
def test_frozen_parts_stay_and_all_others_learn(
    train: Trainer, micro_whisper: Path, frozen: str, still: tuple[str, ...]
):
    run_dir = train("run", **SHORT, model__freeze=frozen)
    before = load_file(micro_whisper / "model.safetensors")
    after = load_file(run_dir / "final/model.safetensors")
    fixed = {"model.encoder.embed_positions.weight"}  # sinusoids: never trained
    for name, weights in after.items():
        assert torch.equal(weights, before[name]) == (name.startswith(still) or name in fixed), name
    kept = load_file(run_dir / "checkpoints/step-00000003/optimizer.safetensors")
    assert kept
    assert not [name for name in kept if name.startswith(still)], "no moments of what is not trained"


@pytest.mark.long
def test_a_run_with_nothing_to_train_is_refused(train: Trainer):
    ended = train.end("run", **SHORT, model__freeze="[encoder, decoder]")
    assert ended.code == 2
    assert "--model.freeze" in ended.err


@pytest.mark.long
def test_gradient_checkpointing_changes_no_bit(train: Trainer):
    """With dropout: the second forward pass draws what the first one drew."""
    assert digest(train("run", **SHORT, model__gradient_checkpointing=True)) == digest(train.reference(**SHORT))


@pytest.mark.matrix
def test_another_implementation_of_attention_changes_the_last_bits_alone(train: Trainer):
    eager = train("run", **SHORT, model__attention="eager", model__dropout=0)
    sdpa = train("other", **SHORT, model__dropout=0)
    for step, row in metrics(sdpa).items():
        assert metrics(eager)[step]["loss"] == pytest.approx(row["loss"], rel=1e-5)
    assert digest(train.reference(**SHORT)) != digest(sdpa), "dropout matters"


@pytest.mark.matrix
def test_a_compiled_model_learns_the_same_up_to_rounding(train: Trainer):
    write_micro_whisper(train.folder / "model", Shape(d_model=32, layers=1))  # of two layers compiling takes minutes
    settings = {**SHORT, "steps": 2, "model__name": train.folder / "model", "model__dropout": 0, "log__every": 1}
    compiled = metrics(train("compiled", **settings, model__compile=True))
    for step, row in metrics(train("plain", **settings)).items():
        assert compiled[step]["loss"] == pytest.approx(row["loss"], rel=1e-5)
        assert compiled[step]["grad_norm"] == pytest.approx(row["grad_norm"], rel=1e-4)


@pytest.mark.matrix
def test_layerdrop_trains_in_two_processes_and_comes_back_to_the_bit(train: Trainer):
    """Also where a layer took part in no micro-batch yet: half of the layers are passed by."""
    settings = {**SHORT, "steps": 4, "save__every": 1, "model__layerdrop": 0.5}
    whole = train("whole", 2, **settings)
    train.interrupt("killed", logged(2), signal.SIGKILL, 2, **settings)
    assert digest(train("killed", 2, **settings)) == digest(whole)


@pytest.mark.long
def test_masks_are_the_same_for_any_number_of_workers_and_processes(train: Trainer):
    settings = {**SHORT, "steps": 2, "model__dropout": 0, "augment__time_masks": 2, "augment__frequency_masks": 2}
    alone = metrics(train("alone", **settings))
    for step, row in metrics(train("two", 2, **settings, data__workers=1)).items():
        assert row["loss"] == pytest.approx(alone[step]["loss"], rel=1e-5)
    unmasked = metrics(train("unmasked", **settings | {"augment__time_masks": 0, "augment__frequency_masks": 0}))
    assert alone[1]["loss"] != pytest.approx(unmasked[1]["loss"], rel=1e-5)


@pytest.mark.long
def test_label_smoothing_raises_the_loss_and_is_the_same_however_sliced(train: Trainer):
    settings = {**SHORT, "model__dropout": 0, "loss__label_smoothing": 0.1}
    whole = metrics(train("whole", **settings, batch__per_device=8))
    for step, row in metrics(train("sliced", **settings, batch__per_device=3)).items():
        assert row["loss"] == pytest.approx(whole[step]["loss"], rel=1e-5)
        assert row["grad_norm"] == pytest.approx(whole[step]["grad_norm"], rel=1e-5)
