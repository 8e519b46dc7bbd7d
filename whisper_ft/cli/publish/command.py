"""What is asked of publishing, and what is shown before anything is uploaded."""

import argparse
import sys
from pathlib import Path

from huggingface_hub import ModelCard

from whisper_ft.checkpoint.format import newest_record
from whisper_ft.cli.publish.card import CURVES, Publication, card_of, hub_datasets, hub_model
from whisper_ft.cli.publish.chosen import bundled, choose, files_of
from whisper_ft.cli.publish.figures import is_older, of_an_evaluation, of_the_run
from whisper_ft.cli.publish.upload import token_of_environment, upload
from whisper_ft.config.parse import load_config
from whisper_ft.config.training import TrainingConfig
from whisper_ft.reports.curves.figure import curves_png
from whisper_ft.reports.curves.history import read_history
from whisper_ft.reports.curves.panel import panels_of
from whisper_ft.runtime import atomic
from whisper_ft.runtime.errors import UsageError, one_line

SMOOTHING = 0.015
README = "README.md"


def publish(asked: argparse.Namespace) -> None:
    """Show what would be uploaded; upload it once that is confirmed. UsageError, HubError."""
    publication, curves = gather(asked)
    card = card_of(publication) if asked.card is None else _card_in(asked.card)
    if asked.write_card:
        atomic.write_text(asked.write_card, str(card))
        print(f"written: {asked.write_card}; nothing was uploaded")
        return
    made = {README: str(card).encode(), CURVES: curves}
    with bundled(publication.chosen, made, secret=_private(asked.run, publication.config)) as folder:
        print(*preview(asked, publication, files_of(folder)), sep="\n", flush=True)
        token = token_of_environment()
        if not asked.yes and not _confirmed():
            print("nothing was uploaded")
            return
        message = f"{publication.chosen.what} of a run of whisper-ft: {publication.chosen.origin}"
        address = upload(folder, asked.repo, asked.public, message, token, lambda line: print(line, flush=True))
    print(f"uploaded: {address}")


def gather(asked: argparse.Namespace) -> tuple[Publication, bytes]:
    """What the card tells of, and the picture of the curves."""
    run = asked.run
    config, history, chosen = (
        load_config(TrainingConfig, ["--config", str(run / "config.yaml")]),
        read_history(run),
        choose(run, asked.what),
    )
    of_run = of_the_run(run, history, chosen)
    trainer = newest_record(run / "checkpoints")
    publication = Publication(
        repo=asked.repo,
        chosen=chosen,
        config=config,
        figures=[*(of_an_evaluation(folder, chosen) for folder in asked.evaluation), *([of_run] if of_run else [])],
        base_model=asked.base_model or hub_model(config.model.name),
        datasets={one_line(name): "" for name in asked.dataset}
        or hub_datasets(config, trainer["data"] if trainer else {}),
        license=asked.license,
        versions=dict(trainer["versions"]) if trainer else {},
    )
    if not panels_of([history]):
        raise UsageError(f"{run}: metrics.jsonl holds no step, so there is nothing to tell of the training")
    return publication, curves_png({publication.name: history}, SMOOTHING, publication.name)


def preview(asked: argparse.Namespace, publication: Publication, files: dict[str, int]) -> list[str]:
    """For people: where to, which files, what the card says, and what to think of."""
    whence = f"{publication.chosen.folder}, {publication.chosen.origin}"
    lines = [f"to {asked.repo} ({'public' if asked.public else 'private'}), from {whence}"]
    width = max(map(len, files))
    made = {README, CURVES}
    lines += [f"  {name:<{width}}  {_size(size):>9}{'  made now' * (name in made)}" for name, size in files.items()]
    lines.append(f"  {f'{len(files)} files':<{width}}  {_size(sum(files.values())):>9}")
    if asked.card:
        lines.append(f"card: {asked.card}")
    else:
        scores = [
            f"{figures.headline.upper()} {100 * rate:.2f} % on {figures.name}"
            for figures in publication.figures
            if (rate := figures.rate(figures.headline)) is not None
        ]
        lines += [
            f"card: {'; '.join(scores) or 'no figure'}",
            f"      base model {publication.base_model or 'not named (--base_model)'}",
            f"      data {', '.join(publication.datasets) or 'not named (--dataset)'}",
            f"      language {', '.join(publication.languages) or 'not known'}",
            f"      licence {publication.license or 'none (--license)'}",
        ]
    late = [folder for folder in asked.evaluation if is_older(folder, publication.chosen)]
    return lines + [f"note: {folder} is older than the model; is it really of these weights?" for folder in late]


def _confirmed() -> bool:
    if not sys.stdin.isatty():
        raise UsageError("nothing was uploaded: there is no terminal to ask at; say --yes")
    return input("upload? [y/N] ").strip().lower() in ("y", "yes")


def _card_in(path: Path) -> ModelCard:
    """A card of the user's; UsageError where the Hub could not read its metadata."""
    try:
        card = ModelCard(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"--card {path}: {one_line(error)}") from error
    if card.data.to_yaml().strip() in ("", "{}"):
        raise UsageError(f"--card {path}: begins with no metadata between two lines of ---; --write_card makes one")
    return card


def _private(run: Path, config: TrainingConfig) -> list[str]:
    """Paths of this machine that no file may hold."""
    paths = [str(run.resolve()), config.model.name, config.data.path, config.eval.path]
    return [path for path in paths if Path(path).is_absolute() and len(path) > 1]


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.2f} GB"
