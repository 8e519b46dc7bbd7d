"""The model card: metadata that the Hub reads, and a page for people, both made of what the run wrote."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData, try_to_load_from_cache
from transformers.models.whisper.tokenization_whisper import LANGUAGES

from whisper_ft.cli.publish.chosen import ModelToPublish
from whisper_ft.cli.publish.figures import Figures
from whisper_ft.cli.publish.publish_arguments import HUB_NAME
from whisper_ft.config.data import SourceConfig
from whisper_ft.config.training import DEFAULT_STEPS, TrainingConfig
from whisper_ft.data.labels.languages import whisper_language
from whisper_ft.runtime.errors import UsageError

CURVES = "curves.png"
ISO = {"jw": "jv"}  # Whisper's codes are those of ISO 639, but for Javanese
HUB_ADDRESS = re.compile(r"hf://datasets/([\w-][\w.-]*/[\w.-]+?)(?:@.*|/.*)?")


@dataclass(frozen=True)
class Publication:
    """All that the card tells of. No path of this machine is in any of it."""

    repo: str
    chosen: ModelToPublish
    config: TrainingConfig
    figures: Sequence[Figures]
    base_model: str | None
    """Name on the Hub."""
    datasets: Mapping[str, str]
    """What the training data is called (names on the Hub, or words), and which part of it was used."""
    license: str | None
    versions: dict[str, str]

    @property
    def name(self) -> str:
        """Of the model, without its owner."""
        return self.repo.rpartition("/")[2]

    @property
    def languages(self) -> list[str]:
        """Codes of ISO 639: those of the settings, else those that rows of the evaluations named."""
        named = [language for language in self.config.data.languages if language]
        found = named or [language for figures in self.figures for language in figures.languages]
        return list(dict.fromkeys(ISO.get(code, code) for code in map(whisper_language, found)))


def hub_model(name: str) -> str | None:
    """The base model's name on the Hub; None for a folder, whose name may look the same: `owner/name`.

    A name is one of the Hub if it is OpenAI's, or if the run left the model in the cache of downloads.
    """
    if not HUB_NAME.fullmatch(name) or Path(name).exists():
        return None
    is_cached = isinstance(try_to_load_from_cache(name, "config.json"), str)
    return name if is_cached or name.startswith("openai/whisper-") else None


def hub_datasets(config: TrainingConfig, recorded: Mapping[str, Any]) -> dict[str, str]:
    """Training data that is on the Hub: what was used of it, by its name; what is local or elsewhere is left out.

    `recorded` is the fingerprint in a checkpoint: it has the commit of what was read from the Hub.
    """
    found = {}
    sources: Sequence[SourceConfig] = config.data.sources or [config.data]
    fingerprints = recorded.get("sources") or [recorded]
    for source, fingerprint in zip(sources, [*fingerprints, *[{}] * len(sources)], strict=False):
        if address := HUB_ADDRESS.fullmatch(source.path):
            found[address[1]] = source.split or ""
        elif commit := fingerprint.get("commit"):
            found[source.path] = ", ".join(filter(None, (source.config_name, source.split, f"commit {commit[:10]}")))
    return found


def card_of(publication: Publication) -> ModelCard:
    """The card, checked: read again, it says the same. UsageError for metadata that cannot be."""
    data = metadata_of(publication)
    card = ModelCard(f"---\n{data.to_yaml()}\n---\n\n{page_of(publication)}")
    if card.data.to_yaml() != data.to_yaml():
        raise UsageError("the card does not read as it was written; give one with --card FILE")
    return card


def metadata_of(publication: Publication) -> ModelCardData:
    """What the Hub finds, filters and ranks models by."""
    results = [
        EvalResult(
            task_type="automatic-speech-recognition",
            task_name="Speech recognition",
            dataset_type=re.sub(r"[^a-z0-9]+", "-", figures.name.lower()).strip("-"),
            dataset_name=figures.name,
            metric_type=metric,
            metric_name=metric.upper(),
            metric_value=round(100 * rate, 2),
        )
        for figures in publication.figures
        for metric in ("wer", "cer")
        if (rate := figures.rate(metric)) is not None
    ]
    return ModelCardData(
        model_name=publication.name,
        base_model=publication.base_model,
        language=publication.languages or None,
        license=publication.license,
        library_name="transformers",
        pipeline_tag="automatic-speech-recognition",
        datasets=[name for name in publication.datasets if HUB_NAME.fullmatch(name)] or None,
        metrics=list(dict.fromkeys(result.metric_type for result in results)) or None,
        tags=["whisper", "whisper-ft"],
        eval_results=results or None,
    )


def page_of(publication: Publication) -> str:
    """The page for people, in Markdown."""
    parts = [
        f"# {publication.name}",
        _summary(publication),
        "## How to use it",
        _usage(publication),
        "## How well it does",
        *_scores(publication),
        "## How it was trained",
        *_training(publication),
        f"![Curves of the training]({CURVES})",
        "## Limits",
        _limits(publication),
        "## Licence",
        publication.license or "None is stated, which means that all rights are reserved.",
    ]
    return "\n\n".join(parts) + "\n"


def _summary(publication: Publication) -> str:
    base = publication.base_model
    start = f"[{base}](https://huggingface.co/{base})" if base else "a Whisper model"
    names = [f"{LANGUAGES.get(code, code).title()} ({code})" for code in publication.languages]
    languages = f" for {', '.join(names)}" if names else ""
    told = f"Speech recognition{languages}: {start}, fine-tuned. These are the weights of {publication.chosen.origin}."
    if publication.figures and (rate := publication.figures[0].rate(publication.figures[0].headline)) is not None:
        first = publication.figures[0]
        told += f" {first.headline.upper()} **{100 * rate:.2f} %** on {_inline(first.name)}."
    return told


def _usage(publication: Publication) -> str:
    """Code that runs as it stands, and writes what was scored: a test runs it.

    The number of beams is said, because the pipeline takes 5 where it is not, and `generate` takes 1.
    """
    repo, languages = publication.repo, publication.languages
    options: dict[str, Any] = {"num_beams": publication.config.eval.num_beams}
    generation = publication.chosen.generation  # a model of one language has its language in it; .en ones take none
    if languages and generation.get("is_multilingual") and not generation.get("language"):
        options |= {"language": languages[0], "task": publication.config.data.task}
    told = "".join(f", {name}={value!r}" for name, value in options.items()).replace("'", '"')
    asked = repr(options).replace("'", '"')
    return f"""```python
import soundfile
from transformers import pipeline

samples, rate = soundfile.read("speech.wav")  # one channel, 16 kHz
transcribe = pipeline("automatic-speech-recognition", model="{repo}")
print(transcribe({{"raw": samples, "sampling_rate": rate}}, generate_kwargs={asked})["text"])
```

The same without the pipeline:

```python
import soundfile
from transformers import AutoProcessor, WhisperForConditionalGeneration

processor = AutoProcessor.from_pretrained("{repo}")
model = WhisperForConditionalGeneration.from_pretrained("{repo}")
samples, rate = soundfile.read("speech.wav")  # one channel, 16 kHz
features = processor(samples, sampling_rate=rate, return_tensors="pt").input_features
tokens = model.generate(features{told})
print(processor.batch_decode(tokens, skip_special_tokens=True)[0])
```"""


def _scores(publication: Publication) -> Iterator[str]:
    if not publication.figures:
        yield "It was not evaluated."
        return
    interval = f"95 % interval of the {publication.figures[0].headline.upper()}"
    head = ("set", "utterances", "words", "WER", "CER", interval, "WER as written", "CER as written")
    yield _table(head, [_score_row(figures) for figures in publication.figures])
    rules = next((f.summary["normalizer"] for f in publication.figures if f.summary.get("normalizer")), None)
    if isinstance(rules, dict) and rules.get("name"):
        identity = f"version {rules.get('version', '?')}, fingerprint {rules.get('fingerprint', '?')}"
        yield (
            f"WER and CER are of texts normalised by `{rules['name']}` ({identity}); *as written* compares case"
            " and punctuation too. All errors of a set are summed and divided once; no utterance was left out "
            "for being hard."
        )
    if any(figures.interval for figures in publication.figures):
        yield (
            "The interval is a bootstrap over speakers where they are known, else over utterances: how far the figure "
            "depends on which ones are in the set."
        )
    if publication.figures[0].name.startswith("held-out") and publication.chosen.what == "best":
        yield "The held-out set chose this step among others, so its figure flatters; a test set was not seen before."


def _score_row(figures: Figures) -> list[str]:
    low_high = figures.interval
    return [
        _inline(figures.name),
        f"{figures.summary['scored_utterances']:,}" if "scored_utterances" in figures.summary else "–",
        f"{figures.summary['words']:,}" if "words" in figures.summary else "–",
        *(_percent(figures.rate(name)) for name in ("wer", "cer")),
        f"{100 * low_high[0]:.2f} – {100 * low_high[1]:.2f} %" if low_high else "–",
        *(_percent(figures.rate(name)) for name in ("wer_orthographic", "cer_orthographic")),
    ]


def _training(publication: Publication) -> Iterator[str]:
    named = [_dataset(name) + (f" ({part})" if part else "") for name, part in publication.datasets.items()]
    yield f"Data: {', '.join(named)}." if named else "Data: not named here; it is not a data set of the Hub."
    if publication.config.data.normalizer != "keep":
        yield (
            f"Transcripts were rewritten by the rules `{publication.config.data.normalizer}` before they were learned, "
            "and the model writes so."
        )
    yield _table(("setting", "value"), [[name, value] for name, value in _settings(publication)])


def _settings(publication: Publication) -> Iterator[tuple[str, str]]:
    config = publication.config
    optim, schedule, augment = config.optim, config.schedule, config.augment
    yield "base model", publication.base_model or "a local one"
    yield "steps of the weights", ", ".join(f"{step:,}" for step in publication.chosen.steps)
    yield (
        "length of the run",
        f"{config.epochs:g} epochs" if config.epochs else f"{config.steps or DEFAULT_STEPS:,} steps",
    )
    yield "utterances per step", f"{config.batch.size}"
    yield "optimizer", f"{optim.name}, weight decay {optim.weight_decay:g}, gradients clipped at {optim.clip_norm:g}"
    yield "learning rate", f"{optim.lr:g}, {schedule.kind}, warm-up {_duration(schedule.warmup)}"
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
    yield "seed", f"{config.seed}"
    if publication.versions:
        yield "software", ", ".join(f"{name} {version}" for name, version in sorted(publication.versions.items()))


def _limits(publication: Publication) -> str:
    told = [
        f"It hears at most {publication.chosen.window_seconds:g} seconds at a time and writes no timestamps.",
        "It can write what was not said, above all on silence, music and noise.",
        "On speech unlike its training data (other accents, microphones, subjects) it does worse than the table says.",
    ]
    if publication.languages:
        told.append("What it once knew of other languages may be lost.")
    return "\n".join(f"- {line}" for line in told)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _dataset(name: str) -> str:
    return f"[{name}](https://huggingface.co/datasets/{name})" if HUB_NAME.fullmatch(name) else _inline(name)


def _inline(text: str) -> str:
    """Text as it is, in a line or a cell of Markdown."""
    return re.sub(r"([\\`*_{}\[\]<>|#])", r"\\\1", " ".join(text.split()))


def _percent(rate: Any) -> str:
    return "–" if rate is None else f"{100 * rate:.2f} %"


def _duration(warmup: float) -> str:
    return f"{100 * warmup:g} % of the run" if 0 < warmup < 1 else f"{warmup:g} steps"
