"""Learner: the model of a run and everything that trains it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from whisper_ft.checkpoint.loading import load_optimizer, load_weights
from whisper_ft.checkpoint.record import CheckpointRecord
from whisper_ft.checkpoint.writer import Contents, contents_of
from whisper_ft.config.evaluation import Precision
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.types import Collator, CollatorFactory
from whisper_ft.models.adapters.quantised_base import load_base
from whisper_ft.models.export.hf import config_files
from whisper_ft.models.precision import precision_record
from whisper_ft.models.whisper import LoadedWhisper, freeze, parameters_by_name
from whisper_ft.optim.optimizer import (
    apply_update,
    build_optimizer,
    complete_gradients,
    keeps_state,
    load_state_tensors,
    state_tensors,
)
from whisper_ft.optim.scaler import build_scaler
from whisper_ft.runtime.errors import as_usage_error
from whisper_ft.training.anchor import Anchor
from whisper_ft.training.run_adapter import RunAdapter


@dataclass(frozen=True)
class Learner:
    """Model of a run and everything that trains it: processor, label encoder, log-mel, optimizer and loss scaler.

    It collects their state for a checkpoint, and restores it from one.
    """

    model: WhisperForConditionalGeneration
    processor: WhisperProcessor
    encode: LabelEncoder
    log_mel: LogMel
    parameters: dict[str, torch.nn.Parameter]
    """Trained parameters by name."""
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    device: torch.device
    precision: Precision
    """Number format of training and evaluation."""
    adapter: RunAdapter | None = None
    """Adapter in the model, which alone is trained; None if the model itself is."""
    anchor: Anchor | None = None
    """Start of the run, near which the model is held; None if the settings name no anchor."""

    def model_files(self) -> dict[str, bytes]:
        """Files of an exported model by name, without weights and README."""
        return config_files(self.model, self.processor) | precision_record(self.precision)

    def collator(self, build: CollatorFactory) -> Collator:
        """Build the collator for this model."""
        return build(
            start_token=self.model.generation_config.decoder_start_token_id,
            pad_token=self.processor.tokenizer.pad_token_id,
            feature_shape=(self.log_mel.bins, self.log_mel.frames),
            pin_memory=self.device.type == "cuda",
        )

    def apply_gradients(self, max_norm: float) -> tuple[float, bool]:
        """Clip the gradients at the norm `max_norm` (0: not at all), and update the weights and the loss scale.

        The anchor then pulls the weights back. Returns the norm before clipping, and False if it is not finite: the
        weights then stay as they are.
        """
        complete_gradients(self.parameters)
        self.scaler.unscale_(self.optimizer)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.parameters.values(), max_norm or float("inf"))
        applied = apply_update(self.optimizer, grad_norm)
        if applied and self.anchor is not None:
            self.anchor.pull(self.optimizer)
        self.scaler.update()
        return float(grad_norm), applied

    @property
    def scaler_state(self) -> dict[str, float]:
        """Loss scale and its growth counter, as a checkpoint records them; empty if training is not in fp16."""
        state = self.scaler.state_dict()
        return {name: state[name] for name in ("scale", "_growth_tracker") if self.scaler.is_enabled()}

    @property
    def _untrained(self) -> frozenset[str]:
        """Names of the weights that a checkpoint leaves out: those of the base of an adapter."""
        return self.adapter.base_names if self.adapter else frozenset()

    def contents(self, record: CheckpointRecord, *, copied: bool) -> Contents:
        """Collect the contents of a checkpoint. With `copied`, training may continue while they are written.

        Otherwise they share the memory of model and optimizer, so they must be written before the next update.
        """
        moments = state_tensors(self.optimizer, self.parameters)
        return contents_of(self.model, moments, record, copied=copied, without=self._untrained)

    def restore(
        self, checkpoint: Path, record: CheckpointRecord, config: TrainingConfig, say: Callable[..., None]
    ) -> None:
        """Load weights, optimizer moments and loss scale from a checkpoint. Raises ResumeError if they do not fit.

        Moments are left out, and `say` reports it, if the settings now name another kind of optimizer.
        """
        load_weights(checkpoint, self.model, without=self._untrained)
        saved, now = record.config["optim"], config.optim
        if keeps_state(saved, now):
            load_state_tensors(self.optimizer, self.parameters, load_optimizer(checkpoint))
        else:
            say(f"optimizer {now.name} starts without moments: it cannot use those of {saved['name']}", always=True)
        if self.scaler.is_enabled():
            if record.scaler:
                # The scale comes from the checkpoint; the rules by which it changes come from the configuration.
                self.scaler.load_state_dict({**self.scaler.state_dict(), **record.scaler})
            else:
                say(f"the loss scale starts at {config.scaler.initial:g}: the checkpoint has none")


def build_learner(
    config: TrainingConfig,
    device: torch.device,
    normalizer: LabelNormalizer | None,
    say: Callable[[str], object],
    found: Sequence[str] = (),
    *,
    is_new: bool = True,
) -> Learner:
    """Build model, optimizer and everything else that training needs.

    Parameters
        normalizer: rewrites transcripts before they are learned; None leaves them as they are.
        say: reports a line for the user.
        found: languages that the rows of the data name by themselves.
        is_new: the run has no checkpoint, so an adapter begins with the values in `adapter.init`.

    Raises UsageError if the model, its adapter, a part to freeze or a language cannot be used.
    """
    (model, processor), adapter = _build_model(config, device, say, is_new=is_new)
    languages = set(config.data.languages)
    # Language for rows that name none. None if a source names no language either: then the model's own counts.
    default = None if None in languages else config.data.languages[0]
    space = config.labels.leading_space
    encode = LabelEncoder.of(model, processor.tokenizer, default, config.data.tasks[0], normalizer, found, space)
    encode.refuse_unknown(config.labels)
    if encode.is_multilingual and encode.language and max(len(languages), len(found), len(set(config.data.tasks))) == 1:
        # The exported model then uses this language by default.
        model.generation_config.language = whisper_language(encode.language)
        model.generation_config.task = config.data.tasks[0]
    parameters = parameters_by_name(model)
    return Learner(
        model=model,
        processor=processor,
        encode=encode,
        log_mel=LogMel(processor.feature_extractor),
        parameters=parameters,
        optimizer=build_optimizer(parameters, config.optim),
        scaler=build_scaler(config.scaler, device, config.precision),
        device=device,
        precision=config.precision,
        adapter=adapter,
        anchor=Anchor.of(model, parameters, config, adapter.base.sha256 if adapter else None),
    )


def _build_model(
    config: TrainingConfig, device: torch.device, say: Callable[[str], object], *, is_new: bool
) -> tuple[LoadedWhisper, RunAdapter | None]:
    """Load the model, and freeze what is not trained. In a run with an adapter, inject it."""
    settings = config.adapter
    loaded = load_base(config.model.name, settings.base, config.precision, device, config.model, on_repair=say)
    if settings.enabled:
        return loaded, RunAdapter.inject_into(loaded.model, config, say, is_new=is_new)
    with as_usage_error("model.freeze"):
        freeze(loaded.model, config.model.freeze)
    return loaded, None
