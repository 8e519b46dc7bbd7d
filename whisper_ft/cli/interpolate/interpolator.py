"""Interpolation as a command: the models and sets are found and opened, and the mixtures scored."""

import re
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import NamedTuple

import torch

from whisper_ft.cli.interpolate.interpolate_config import InterpolateConfig
from whisper_ft.config.adapter import AdapterConfig
from whisper_ft.config.anchor import AnchorConfig
from whisper_ft.config.data import DataConfig, SourceConfig
from whisper_ft.config.evaluation import DecodingConfig, Device, EvalConfig
from whisper_ft.config.run_configuration import saved_configuration
from whisper_ft.config.training import AverageConfig, ModelConfig, TrainingConfig
from whisper_ft.data.labels.rewrite import LabelNormalizer
from whisper_ft.data.sources import open_held_out, pin
from whisper_ft.data.used_settings import languages_found
from whisper_ft.models.adapters.adapter_config import is_adapter
from whisper_ft.models.interpolation import Mixture, StoredWeights
from whisper_ft.models.precision import evaluation_precision
from whisper_ft.models.whisper import load_parts, quiet_libraries
from whisper_ft.runtime import atomic
from whisper_ft.runtime.collectives import Collectives
from whisper_ft.runtime.device_memory import memory_errors
from whisper_ft.runtime.errors import UsageError, as_usage_error
from whisper_ft.runtime.lock import lock_folder
from whisper_ft.runtime.malloc import keep_freed_memory
from whisper_ft.runtime.printable import say
from whisper_ft.runtime.signals import StopRequest
from whisper_ft.scoring.normalizer import NormalizerFactory
from whisper_ft.tracking.tracker import Tracker
from whisper_ft.training.evaluated_set import open_eval_sets, open_held_out_set
from whisper_ft.training.evaluation import Evaluation, refuse_unknown_names
from whisper_ft.training.learner import build_learner
from whisper_ft.training.mixture_scores import guards_of, interpolate
from whisper_ft.training.preflight import refuse_missing, refuse_missing_gpu, refuse_missing_model
from whisper_ft.training.run_folder import is_run
from whisper_ft.training.start import resolved

BEST, WORK = "best", "mixtures"
WHOLE_MODELS = ("best", "final")  # folders of a run with a whole model, in the order of preference


class Models(NamedTuple):
    """The two models of an interpolation, and the settings of the run that tuned one from the other."""

    start: str
    tuned: str
    run: TrainingConfig | None


@memory_errors("while the mixtures were scored")
def interpolate_models(config: InterpolateConfig, given: Collection[str], get_normalizer: NormalizerFactory) -> None:
    """Score the mixtures of two models and write the best one. Raises UsageError for models that cannot be mixed."""
    quiet_libraries()
    keep_freed_memory()
    models, out = models_of(config), config.out
    assert out is not None
    settings = settings_of(config, given, models)
    mixture = Mixture(StoredWeights(models.start), StoredWeights(models.tuned))
    refuse_other_vocabulary(models)
    device, collectives = device_named(config.device), Collectives()
    precision = evaluation_precision(config.precision, models.tuned, device, say)
    settings = resolved(replace(settings, precision=precision), device)
    with own_names(config):
        refuse_unknown_names(settings, get_normalizer)
    with as_usage_error("data.normalizer"):
        rewrite = LabelNormalizer.named(settings.data.normalizer, get_normalizer)
    held_out = settings.held_out and pin(settings.held_out)
    assert held_out is not None
    with atomic.disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        lock = lock_folder(out, "interpolation")
    index = out / "index"
    found = languages_found([open_held_out(settings, held_out, index)])
    learner = build_learner(settings, device, rewrite, say, found)
    sets = [pin(one) for one in settings.eval.sets_beside(settings.data)]
    target = open_held_out_set(settings, held_out, index, learner, get_normalizer)
    evaluated = open_eval_sets(settings, sets, index, learner, collectives, get_normalizer)
    tracker = Tracker(out, steps=0, enabled=True)
    evaluation = Evaluation(target, evaluated, settings.eval, learner, collectives, tracker, StopRequest())
    with lock, tracker.live(0):
        record = interpolate(mixture, config.alphas, evaluation, guards_of(evaluated), out / WORK, out / BEST)
        for name, content in record.items():
            atomic.write_text(out / name, content.decode())


def device_named(wanted: Device) -> torch.device:
    """Return a device; `auto` is a GPU if there is one. Raises UsageError for one that is not there."""
    refuse_missing_gpu(wanted)
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(wanted)


def models_of(config: InterpolateConfig) -> Models:
    """Find the two models. Raises UsageError if one is missing, is an adapter, or has no known start model."""
    folder, run = Path(config.tuned), None
    if is_run(folder) and not (folder / "config.json").exists():
        run = saved_configuration(folder)
        whole = [folder / part for part in WHOLE_MODELS if (folder / part / "config.json").exists()]
        if not whole:
            hint = (
                f"; merge its adapter first: python -m whisper_ft merge {folder} --out DIR" if _adapters(folder) else ""
            )
            raise UsageError(f"{folder}: this run has no whole model in best/ or final/{hint}")
        folder = whole[0]
    elif folder.name in WHOLE_MODELS and is_run(folder.parent):
        run = saved_configuration(folder.parent)
    start, tuned = config.start or (run.model.name if run else ""), str(folder)
    if not start:
        raise UsageError(f"{tuned}: belongs to no run, so its start model is not known; name it first: START TUNED")
    for name in (start, tuned):
        refuse_missing_model("", name)
        if is_adapter(name):
            raise UsageError(
                f"{name}: is an adapter; merge it first: python -m whisper_ft merge {name} --out DIR. An adapter alone "
                "is mixed by its scale"
            )
        if Path(name).exists() and not Path(name, "config.json").exists():
            raise UsageError(f"{name}: is no model folder; of a checkpoint, `python -m whisper_ft checkpoint export`")
    return Models(start, tuned, run)


def _adapters(run: Path) -> bool:
    return any(is_adapter(folder) for folder in run.glob("*-adapter"))


def refuse_other_vocabulary(models: Models) -> None:
    """Raise UsageError if the two models give other ids to tokens, though their tensors have the same shapes."""
    start, tuned = (load_parts(name).processor.tokenizer.get_vocab() for name in (models.start, models.tuned))
    if different := sorted(token for token in start.keys() | tuned.keys() if start.get(token) != tuned.get(token)):
        raise UsageError(
            f"{models.start} and {models.tuned} have other vocabularies, such as the token {different[0]!r}; a model "
            "can only be mixed with the one from which it was tuned"
        )


def refuse_beside_run(given: Collection[str]) -> None:
    """Raise UsageError for a given setting of the scoring, because the own sets of a run are scored as in the run."""
    for name in sorted({*given} - {"start", "tuned", "alpha", "out", "precision", "device"}):
        raise UsageError(
            f"--{name}: has no effect, because the run's sets are scored as in the run; give --data.path, too"
        )


def settings_of(config: InterpolateConfig, given: Collection[str], models: Models) -> TrainingConfig:
    """Return the settings by which the sets are opened and scored: those of the run, or those given in their place.

    Raises UsageError if neither names a set.
    """
    if not config.data.path:
        if models.run is None or models.run.held_out is None:
            reason = "the model belongs to no run" if models.run is None else "the run has no held-out set"
            raise UsageError(f"--data.path is missing: {reason}; give a validation set, which chooses the mixture")
        refuse_missing("eval.path", models.run.held_out.path)
        refuse_beside_run(given)
        return replace(
            models.run,
            model=replace(models.run.model, name=models.tuned),
            adapter=AdapterConfig(),
            anchor=AnchorConfig(),
            average=AverageConfig(),
            allow_change=[],
        )
    refuse_missing("data.path", config.data.path)
    for one in config.sets:
        refuse_missing("sets: path", one.path)
    with own_names(config):
        return _settings(config, models.tuned)


@contextmanager
def own_names(config: InterpolateConfig) -> Iterator[None]:
    """Raise an error about a setting of a run as a UsageError, with the name that the setting has here."""
    try:
        yield
    except (ValueError, UsageError) as error:
        message = str(error)
        if config.data.path:
            decoding = "|".join(part.name for part in fields(DecodingConfig))
            message = re.sub(rf"--eval\.({decoding})\b", r"--decoding.\1", message).replace("--eval.", "--")
        raise UsageError(message) from error


def _settings(config: InterpolateConfig, tuned: str) -> TrainingConfig:
    own = {part.name: getattr(config.data, part.name) for part in fields(SourceConfig)}
    decoding = {part.name: getattr(config.decoding, part.name) for part in fields(DecodingConfig)}
    evaluated = EvalConfig(
        **decoding,
        path=config.data.path,
        split=config.data.split,
        every=1,
        sets=config.sets,
        normalizer=config.normalizer,
        max_utterances=config.max_utterances,
        metric=config.metric,
        greater_is_better=config.greater_is_better,
    )
    return TrainingConfig(
        model=ModelConfig(name=tuned),
        data=DataConfig(**own),
        eval=evaluated,
    )
