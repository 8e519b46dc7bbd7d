"""What a training process holds: the model and what trains it, the data and this process's part of it, the folder."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import accelerate

from whisper_ft import checkpoint
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.data import DataConfig, SourceConfig
from whisper_ft.config.training import TrainingConfig
from whisper_ft.data.audio.log_mel import LogMel
from whisper_ft.data.augment.spec_augment import SpecAugment
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.labels.tokens import LabelEncoder
from whisper_ft.data.loader import TrainStream
from whisper_ft.data.sampling.order import ORDER_VERSION, default_lanes
from whisper_ft.data.sampling.partition import Partition
from whisper_ft.data.sources import open_mixture, pin, pin_mixture
from whisper_ft.data.types import Window
from whisper_ft.data.windows import WindowReader
from whisper_ft.data.workers import start_worker_server
from whisper_ft.decoding.evaluator import Evaluator
from whisper_ft.models.whisper import freeze, load_whisper, parameters_by_name
from whisper_ft.optim.optimizer import build_optimizer
from whisper_ft.optim.scaler import build_scaler
from whisper_ft.optim.schedule import lr_factor, steps_of
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.errors import as_usage_error
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.scoring.normalizer import NormalizerFactory
from whisper_ft.scoring.scores import Scores
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training import data_summary
from whisper_ft.training.averaging import steps_to_average
from whisper_ft.training.directory import RunDir

Collate = Callable[[Sequence[Window]], Any]


class Run:
    """Everything one process holds while it trains, built once.

    `collator(start_token=, pad_token=, feature_shape=, pin_memory=)` makes what turns windows into a batch, and
    `get_normalizer(name, language)` a normaliser: both are the root's.
    """

    def __init__(
        self,
        config: TrainingConfig,
        accelerator: accelerate.Accelerator,
        agreement: Collectives,
        folder: RunDir,
        stop: StopRequest,
        collator: Callable[..., Collate],
        get_normalizer: NormalizerFactory,
    ) -> None:
        self.config, self.agreement, self.folder, self.stop = config, agreement, folder, stop
        self.accelerator, self.device = accelerator, accelerator.device
        if config.data.workers:
            start_worker_server(TrainStream.__module__)  # while the model is loaded
        data, held_out, lanes = agreement.broadcast_from_main(lambda: begun_with(config, folder))
        self.source = open_mixture(data, folder.index)
        self.rows = sum(self.source.rows)
        self.steps = config.steps_over(self.rows)
        self.tracker = Tracker.of_run(config, self.steps, enabled=agreement.rank == 0)

        with as_usage_error("eval.normalizer"):
            get_normalizer(config.eval.normalizer)
        with as_usage_error("eval.metric"):  # an unknown name should not be found at the first evaluation
            Scores.empty().figure(config.eval.metric)
        with as_usage_error("data.normalizer"):
            self.rewriting = LabelNormalizer.named(config.data.normalizer, get_normalizer)

        model, self.processor = load_whisper(config.model.name, config.model, self.tracker.say)
        with as_usage_error("model.freeze"):
            freeze(model, config.model.freeze)
        self.model = model.to(self.device)
        tokenizer = self.processor.tokenizer
        languages = set(config.data.languages)
        # Of rows that name none: with a source that names none either, the model's own, if it has one.
        usual = None if None in languages else config.data.languages[0]
        self.encode = LabelEncoder.of(model, tokenizer, usual, config.data.task, self.rewriting)
        if self.encode.is_multilingual and self.encode.language and len(languages) == 1:
            # So that the exported model writes the language it was trained on without being told.
            model.generation_config.language = whisper_language(self.encode.language)
            model.generation_config.task = config.data.task
        self.normalize = get_normalizer(config.eval.normalizer, language=self.encode.language)
        self.log_mel = LogMel(self.processor.feature_extractor)
        self.collate = collator(
            start_token=model.generation_config.decoder_start_token_id,
            pad_token=tokenizer.pad_token_id,
            feature_shape=(self.log_mel.bins, self.log_mel.frames),
            pin_memory=self.device.type == "cuda",
        )
        self.parameters = parameters_by_name(model)
        self.optimizer = build_optimizer(self.parameters, config.optim)
        self.scaler = build_scaler(config.scaler, self.device, config.precision)

        self.heldout = Evaluator.of_run(config, held_out, folder.index)
        self.lanes = config.data.lanes or lanes or default_lanes(config.batch.size)
        with as_usage_error("data.sources"):
            self.order = self.source.order(seed=config.seed, lanes=self.lanes, window=config.data.window_chunks)
        self.data = {"order": ORDER_VERSION, "lanes": self.lanes, **self.source.fingerprint()}
        self.share = Partition(config.batch.size, config.batch.per_device, agreement.rank, agreement.world, self.lanes)
        self.eval_protocol = (
            self.heldout.eval_protocol(config.eval, self.normalize.fingerprint) if self.heldout else None
        )
        self.resumed_steps: set[int] = set()  # of the checkpoint this process began at: never removed
        self.parent: str | None = None  # checkpoint that the next one comes after
        self.branch: dict[str, Any] | None = None  # the --resume other than auto that this run began with, its step
        self.state = TrainState()

    def lr(self, step: int) -> float:
        """Learning rate of update `step`: a function of the step, so there is nothing to restore."""
        schedule, steps = self.config.schedule, self.steps
        warmup, decay = steps_of(schedule.warmup, steps), steps_of(schedule.decay, steps)
        return self.config.optim.lr * lr_factor(step, steps, schedule.kind, warmup, decay)

    def is_over(self, state: TrainState) -> bool:
        """True after the last step, or once patience is at its end."""
        return state.step >= self.steps or state.out_of_patience(self.config.eval.patience)

    def wants(self, state: TrainState) -> bool:
        """Whether this step's weights are needed later, as the best or for the average: a checkpoint then."""
        return state.improved or state.step in steps_to_average(state, self.config, self.steps)

    def stream(self, first_step: int) -> TrainStream[Any]:
        """This rank's micro-batches from a step on."""
        config, data = self.config, self.config.data
        readers = max(data.workers, 1)
        # Of each lane its window, the next one's first chunk and, as lanes change windows at different steps, another.
        chunks = self.share.lanes_read(readers) * (data.window_chunks + 2)
        cached_bytes = data.cache_gb * 1e9 / readers / int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if warning := data_summary.cache_warning(self.source, chunks, cached_bytes):
            self.tracker.say(warning)
        augment = None
        if config.augment.time_masks or config.augment.frequency_masks:
            augment = SpecAugment(config.augment, config.seed, self.log_mel.frames / self.log_mel.window_seconds)
        return TrainStream(
            WindowReader(self.source, self.log_mel, self.encode, chunks, cached_bytes, augment),
            self.order,
            self.share,
            self.collate,
            first_step=first_step,
            end=config.end_of(self.rows),
            workers=data.workers,
            prefetch=data.prefetch,
        )

    def ids(self, step: int) -> list[str]:
        """Ids of the utterances of a step's global batch, as `python -m whisper_ft replay` gives them."""
        size, end = self.config.batch.size, self.config.end_of(self.rows)
        positions = range(step * size, min((step + 1) * size, end or (step + 1) * size))
        return [self.source.row_id(place.chunk, place.row) for place in map(self.order.locate, positions)]


def begun_with(config: TrainingConfig, folder: RunDir) -> tuple[DataConfig, SourceConfig | None, int | None]:
    """Training data, held-out set and lanes that this run began with, as its newest checkpoint has them.

    What lies on the Hub is pinned to the commit that was recorded, else to the one it has now; asked by one rank for
    all, because a data set may be changed while they start. None of the lanes of a run that is new.
    """
    then = checkpoint.newest_record(folder.checkpoints)
    if then is None and (named := Path(config.resume, checkpoint.TRAINER)).is_file():
        with suppress(OSError, ValueError):  # damaged: said where the checkpoint is chosen
            then = checkpoint.read_record(named.parent)
    if then is None:
        return pin_mixture(config.data), config.held_out and pin(config.held_out), None
    settings, recorded, judged_on = then["config"], then["data"], then.get("judged_on")
    data = pin_mixture(config.data, settings["data"], recorded)
    if config.held_out is None:
        return data, None, recorded["lanes"]
    of_eval = {**settings["data"], "path": settings["eval"]["path"] or settings["data"]["path"]}
    held_out = pin(config.held_out, of_eval, judged_on and judged_on["data"])
    return data, held_out, recorded["lanes"]
