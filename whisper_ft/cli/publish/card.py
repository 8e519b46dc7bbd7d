"""Model card: metadata for the Hub and a page for readers, both made from the run directory."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from whisper_ft.cli.publish.model_to_publish import ModelToPublish
from whisper_ft.cli.publish.results import EvaluationResult
from whisper_ft.config.local_paths import HUB_NAME
from whisper_ft.config.training import DEFAULT_STEPS, TrainingConfig
from whisper_ft.config.waveform import words_for
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.reports.guard_text import GuardRow
from whisper_ft.reports.long_form_note import long_form_note
from whisper_ft.reports.text import percent
from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.printable import counted
from whisper_ft.scoring.bootstrap import Interval

README, CURVES = "README.md", "curves.png"
TEMPLATE = Path(__file__).parent / "templates" / "card.md.j2"
ISO = {"jw": "jv"}  # Javanese, the only language whose code in Whisper is not in ISO 639
UNKNOWN = "–"


@dataclass(frozen=True)
class Publication:
    """Everything that the card shows. No value contains a path of this machine."""

    repo: str
    model: ModelToPublish
    config: TrainingConfig
    results: Sequence[EvaluationResult]
    base_model: str | None
    """Name on the Hub; None if the base model is not there."""
    datasets: Mapping[str, str]
    """Training sets: name of each, on the Hub or in words, and the part that was used, such as a split, or ""."""
    license: str | None
    versions: Mapping[str, str]
    guards: Sequence[GuardRow] = ()
    """Verdicts of the guards of the run, at the step of the model."""

    @property
    def name(self) -> str:
        """Name of the repository without its owner."""
        return self.repo.rpartition("/")[2]

    @property
    def languages(self) -> list[str]:
        """ISO 639 codes of the languages in the settings, each once.

        If none is given, those of the evaluated rows; [] if none.
        """
        named = [language for language in self.config.data.languages if language]
        codes = named or [language for result in self.results for language in result.languages]
        return list(dict.fromkeys(ISO.get(code, code) for code in map(whisper_language, codes)))


def render_card(publication: Publication) -> ModelCard:
    """Make the card from `templates/card.md.j2`. Raises UsageError if its metadata changes when it is read again."""
    data = card_metadata(publication)
    card: ModelCard = ModelCard.from_template(
        data,
        template_path=str(TEMPLATE),
        publication=publication,
        name=publication.name,
        first=publication.results[0] if publication.results else None,
        language_names=[f"{LANGUAGES.get(code, code).title()} ({code})" for code in publication.languages],
        call_options=_call_options(publication),
        normalizer=_normalizer(publication),
        settings=dict(_settings(publication)),
        curves=CURVES,
        is_hub_name=HUB_NAME.fullmatch,
        escaped=escaped,
        percent=lambda rate: UNKNOWN if rate is None else percent(rate),
        interval=_interval,
        long_form_note=long_form_note,
        count=lambda number: UNKNOWN if number is None else f"{number:,}",
    )
    if card.data.to_yaml() != data.to_yaml():
        raise UsageError("the metadata of the card changed when it was read again; give a card with --card FILE")
    return card


def read_card(path: Path) -> ModelCard:
    """Read a card written by the user. Raises UsageError if the file cannot be read or has no metadata."""
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--card {path}: {one_line(error)}") from error
    if card.data.to_yaml().strip() in ("", "{}"):
        raise UsageError(f"--card {path}: begins with no metadata between two lines of ---; --write_card writes some")
    return card


def card_metadata(publication: Publication) -> ModelCardData:
    """Return the metadata of the card, by which the Hub finds, filters and ranks models. Error rates are in percent."""
    results = [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Speech recognition",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", result.name.lower()).strip("-"),
            dataset_name=result.name,
            metric_type=metric,
            metric_name=metric.upper(),
            metric_value=round(100 * rate, 2),
        )
        for result in publication.results
        for metric in ("wer", "cer")
        if (rate := result.rate(metric)) is not None
    ]
    relation: dict[str, Any] = {"base_model_relation": "adapter"} if publication.model.is_adapter else {}
    return ModelCardData(
        model_name=publication.name,
        base_model=publication.base_model,
        language=publication.languages or None,
        license=publication.license,
        library_name="peft" if publication.model.is_adapter else "transformers",
        pipeline_tag="automatic-speech-recognition",
        datasets=[name for name in publication.datasets if HUB_NAME.fullmatch(name)] or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=["whisper", "whisper-ft"],
        eval_results=results or None,
        **relation,
    )


def escaped(text: str) -> str:
    """Return a text on one line, with the special characters of Markdown escaped."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _call_options(publication: Publication) -> dict[str, str]:
    """Return arguments of `generate` as Python source, with which the code on the card decodes as the evaluation did.

    The number of beams is always given, because its default is 5 in the pipeline and 1 in `generate`. The language is
    left out if the generation config contains it, and for an English-only model, which accepts no language.
    """
    options: dict[str, Any] = {"num_beams": publication.config.eval.num_beams}
    generation = publication.model.generation
    if publication.languages and generation.get("is_multilingual") and not generation.get("language"):
        options |= {"language": publication.languages[0], "task": publication.config.data.tasks[0]}
    return {name: repr(value).replace("'", '"') for name, value in options.items()}


def _normalizer(publication: Publication) -> Mapping[str, Any] | None:
    """Return name, version and fingerprint of the normaliser used for scoring; None if no result names one."""
    rules = next((r.summary["normalizer"] for r in publication.results if r.summary.get("normalizer")), None)
    return rules if isinstance(rules, dict) and rules.get("name") else None


def _settings(publication: Publication) -> Iterator[tuple[str, str]]:
    config = publication.config
    optim, schedule, augment = config.optim, config.schedule, config.augment
    yield "base model", publication.base_model or "a local one"
    yield "steps of the weights", ", ".join(f"{step:,}" for step in publication.model.steps)
    yield (
        "length of the run",
        f"{config.epochs:g} epochs" if config.epochs else counted(config.steps or DEFAULT_STEPS, "step"),
    )
    if config.adapter.enabled:
        adapter = config.adapter
        kinds = ["LoRA", *(["rank-stabilised"] if adapter.rslora else []), *(["DoRA"] if adapter.dora else [])]
        targets = adapter.targets if isinstance(adapter.targets, str) else ", ".join(adapter.targets)
        yield (
            "adapter",
            f"{', '.join(kinds)}: r {adapter.r}, alpha {adapter.alpha:g}, {targets} layers, base in {adapter.base}",
        )
    yield "utterances per step", f"{config.batch.size}"
    yield "optimizer", f"{optim.name}, weight decay {optim.weight_decay:g}, gradients clipped at {optim.clip_norm:g}"
    yield "learning rate", f"{optim.peak_lr:g}, {schedule.kind}, warm-up {_duration(schedule.warmup)}"
    if optim.layer_decay != 1:
        yield "layer decay", f"{optim.layer_decay:g}"
    yield "arithmetic", f"{config.precision}, weights in fp32"
    if config.model.dropout is not None:
        yield "dropout", f"{config.model.dropout:g}"
    if config.model.freeze:
        yield "not trained", ", ".join(config.model.freeze)
    if config.loss.label_smoothing:
        yield "label smoothing", f"{config.loss.label_smoothing:g}"
    if augment.time_masks or augment.frequency_masks:
        yield "SpecAugment", f"{augment.time_masks} masks in time, {augment.frequency_masks} in frequency"
    if augment.waveform:
        yield "transforms of the sound", words_for(augment.waveform)
    yield "seed", f"{config.seed}"
    if publication.versions:
        yield "software", ", ".join(f"{name} {version}" for name, version in sorted(publication.versions.items()))


def _interval(interval: Interval | None) -> str:
    return f"{100 * interval.low:.2f} – {percent(interval.high)}" if interval else UNKNOWN


def _duration(warmup: float) -> str:
    return f"{100 * warmup:g} % of the run" if 0 < warmup < 1 else f"{warmup:g} steps"
