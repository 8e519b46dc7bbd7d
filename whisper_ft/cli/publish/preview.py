"""Collection of everything that is published from a run directory, and a preview for the user."""

import argparse
from collections.abc import Mapping
from pathlib import Path

from whisper_ft.checkpoint.format import newest_record
from whisper_ft.cli.publish.card import CURVES, README, Publication
from whisper_ft.cli.publish.hub_names import hub_datasets, hub_model
from whisper_ft.cli.publish.model_to_publish import find_model
from whisper_ft.cli.publish.results import is_older, result_of_evaluation, results_of_run
from whisper_ft.config.run_configuration import saved_configuration
from whisper_ft.config.training import TrainingConfig
from whisper_ft.reports.curves.figure import curves_png
from whisper_ft.reports.curves.guard_rows import guard_rows
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.curves.panel import panels_of
from whisper_ft.reports.text import percent
from whisper_ft.runtime.errors import UsageError, one_line
from whisper_ft.runtime.printable import counted

SMOOTHING = 0.015  # standard deviation of the curves' smoothing, as a share of the run


def collect(args: argparse.Namespace) -> tuple[Publication, bytes]:
    """Collect the content of the card, and draw the curves as a PNG picture. `args` are those of `parse_arguments`.

    Raises UsageError if the model or a logged step is missing, or if an evaluation is of another model.
    """
    run = args.run
    config = saved_configuration(run)
    augmented = [one.name for one in config.eval.sets_beside(config.data) if one.augment]
    history, model = read_history(run), find_model(run, args.what)
    record = newest_record(run / "checkpoints")
    publication = Publication(
        repo=args.repo,
        model=model,
        config=config,
        results=[
            *(result_of_evaluation(folder, model) for folder in args.evaluation),
            *results_of_run(run, history, model, augmented),
        ],
        guards=guard_rows(history, max(model.steps)) if model.is_of_one_step else [],
        base_model=args.base_model or hub_model(config.model.name),
        datasets={one_line(name): "" for name in args.dataset} or hub_datasets(config, record.data if record else {}),
        license=args.license,
        versions=record.versions if record else {},
    )
    if not panels_of([history]):
        raise UsageError(f"{run}: metrics.jsonl holds no step, so there are no curves to draw for the card")
    return publication, curves_png({publication.name: history}, SMOOTHING, publication.name)


def preview_lines(args: argparse.Namespace, publication: Publication, files: Mapping[str, int]) -> list[str]:
    """Return the lines of the preview: target, files with sizes, content of the card, and warnings.

    `files` are the sizes in bytes of the files to upload, by path.
    """
    model, width = publication.model, max(map(len, files))
    visibility = "public" if args.public else "private"
    lines = [f"to {args.repo} ({visibility}), from {model.folder}, {model.origin}"]
    lines += [
        f"  {name:<{width}}  {_size(size):>9}{'  generated' * (name in (README, CURVES))}"
        for name, size in files.items()
    ]
    lines.append(f"  {counted(len(files), 'file'):<{width}}  {_size(sum(files.values())):>9}")
    if args.card:
        lines.append(f"card: {args.card}")
    else:
        rates = [
            f"{result.headline.upper()} {percent(result.headline_rate)} on {result.name}"
            for result in publication.results
            if result.headline_rate is not None
        ]
        lines += [
            f"card: {'; '.join(rates) or 'no error rate'}",
            f"      base model {publication.base_model or 'not named (--base_model)'}",
            f"      data {', '.join(publication.datasets) or 'not named (--dataset)'}",
            f"      language {', '.join(publication.languages) or 'not known'}",
            f"      licence {publication.license or 'none (--license)'}",
        ]
    older = [folder for folder in args.evaluation if is_older(folder, model)]
    return lines + [
        f"note: {folder} is older than the model; check that it evaluated these weights" for folder in older
    ]


def local_paths(run: Path, config: TrainingConfig) -> list[str]:
    """Return the absolute paths of the run, base model, training data and evaluated sets, which no upload may contain.

    A relative setting is left out.
    """
    sources = [source.path for source in (*config.data.sources, *config.eval.sets)]
    paths = [str(run.resolve()), config.model.name, config.data.path, *sources, config.eval.path]
    return [path for path in paths if Path(path).is_absolute() and len(path) > 1]


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
