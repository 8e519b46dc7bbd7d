"""Data sets of the Hugging Face Hub, pinned to a commit: parquet files found by the library `datasets`.

The access token comes from the environment (HF_TOKEN, or a login), as usual in `huggingface_hub`, and is given to
nothing else.
"""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import fsspec
import huggingface_hub
from fsspec import AbstractFileSystem
from huggingface_hub.errors import (
    GatedRepoError,
    HFValidationError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from whisper_ft.config.data import SourceConfig
from whisper_ft.data.formats.parquet import Parquet
from whisper_ft.data.formats.parquet_metadata import read_metadata
from whisper_ft.data.formats.parquet_splits import DEFAULT_SPLIT
from whisper_ft.runtime.errors import DataError, RunError, UsageError, one_line

CONVERTED = "refs/convert/parquet"
"""Branch on which the Hub keeps its own conversion of a data set."""
CONVERTED_FILE = re.compile(r"(?P<config>[^/]+)/(partial-)?(?P<split>[^/]+)/\d{4,}\.parquet")
LOGIN = "log in (`hf auth login`) or set HF_TOKEN"
PREPARE = "download it and convert it with `python -m whisper_ft prepare`"
OTHER_FORMS = f"try --data.revision {CONVERTED} (the Hub's own conversion), or {PREPARE}"


def open_hub(where: SourceConfig, cache: Path | None = None, columns: Sequence[str] = ()) -> Parquet:
    """Open the parquet files of a data set on the Hub.

    `config_name`, `split` (`a+b` takes both, None is train) and `revision` in the settings choose the files. Everything
    is read at the commit that the revision names now, and the fingerprint holds that commit. Files are sorted by path,
    and ids contain the path. Footers are cached in the folder `cache`, if it is given. `columns` are extra columns.

    Raises UsageError if the data set is not there, is gated, has no such files, or if a configuration must be chosen.
    Another failure of the Hub or of the network raises DataError.
    """
    with _hub_errors(where):
        info = huggingface_hub.HfApi().dataset_info(where.path, revision=where.revision)
        name, commit = info.id, str(info.sha)
        root = f"datasets/{name}@{commit}"
        file_system = fsspec.filesystem("hf")
        names = _chosen(_converted(file_system, root, where) or _splits(name, commit, where), where, root)
        paths = [f"{root}/{file}" for file in names]
        for folder in {path.rpartition("/")[0] for path in paths}:
            file_system.ls(folder, detail=False)  # sizes and versions of all files of a folder in one request
        footers = read_metadata(file_system, paths, cache)
        content = sha256(repr([(footer.etag, footer.size) for footer in footers]).encode()).hexdigest()[:16]
        pinned = replace(where, path=f"hf://{root}")
        origin = {"commit": commit, "content": content}
        return Parquet(
            file_system, paths, footers, pinned, names, origin, columns, (where.split or DEFAULT_SPLIT, None)
        )


def commit_of(where: SourceConfig) -> str:
    """Return the commit that the revision of a data set on the Hub names now.

    Raises UsageError or DataError if the Hub does not give it.
    """
    with _hub_errors(where):
        return str(huggingface_hub.HfApi().dataset_info(where.path, revision=where.revision).sha)


def _converted(file_system: AbstractFileSystem, root: str, where: SourceConfig) -> dict[str, list[str]]:
    """Map each split to its files in the Hub's own conversion of a data set; {} if the files are not a conversion.

    The conversion has no README with its configurations, so `datasets` would make one configuration of all files. Only
    the names of files are examined. So the commit works as well as the name of the branch. Raises UsageError if the
    configuration is not there.
    """
    if any(entry["type"] == "file" and not entry["name"].endswith("/.gitattributes") for entry in file_system.ls(root)):
        return {}
    names = [path.removeprefix(f"{root}/") for path in file_system.find(root)]
    matches = [CONVERTED_FILE.fullmatch(name) for name in names if name != ".gitattributes"]
    configs: dict[str, dict[str, list[str]]] = {}
    for match in matches:
        if match is None:
            return {}
        configs.setdefault(match["config"], {}).setdefault(match["split"], []).append(match[0])
    usual = next(iter(configs)) if len(configs) == 1 else "default"
    wanted = where.config_name or usual
    if configs and wanted not in configs:
        raise _wrong_config(where, configs)
    return configs.get(wanted, {})


def _splits(name: str, commit: str, where: SourceConfig) -> Mapping[str, Sequence[str]]:
    """Map each split to its files in the data set, as `datasets` resolves them.

    Raises UsageError if the data set has no such files.
    """
    import datasets  # takes 2 s, and worker processes that unpickle a source do not need it

    try:
        # With `hf://`, because `datasets` would prefer a local folder or loader of the same name.
        builder = datasets.load_dataset_builder(f"hf://datasets/{name}", name=where.config_name, revision=commit)
    except datasets.exceptions.DatasetNotFoundError as error:
        if "is a gated dataset" not in str(error):  # `datasets` drops the original error
            raise
        raise _gated(where) from error
    except RuntimeError as error:
        if "script" not in str(error):
            raise
        raise UsageError(f"{where.path}: is loaded by a script, which is no longer supported; {OTHER_FORMS}") from error
    except (datasets.data_files.EmptyDatasetError, datasets.exceptions.DataFilesNotFoundError) as error:
        raise UsageError(f"{where.path}: holds no data file that can be read; {OTHER_FORMS}") from error
    except ValueError as error:
        configs = datasets.get_dataset_config_names(f"hf://datasets/{name}", revision=commit)
        if where.config_name in configs:
            raise
        raise _wrong_config(where, configs) from error
    root = f"hf://datasets/{name}@{commit}/"
    files = builder.config.data_files or {}
    return {split: [str(url).removeprefix(root) for url in urls] for split, urls in files.items()}


def _wrong_config(where: SourceConfig, configs: Iterable[str]) -> UsageError:
    problem = "has several configurations" if where.config_name is None else f"has no {where.config_name!r}"
    return UsageError(f"{where.path}: {problem}; set --data.config_name to one of {', '.join(sorted(configs))}")


def _gated(where: SourceConfig) -> UsageError:
    page = f"https://huggingface.co/datasets/{where.path}"
    return UsageError(f"{where.path}: is gated; ask for access at {page} and {LOGIN}")


def _chosen(splits: Mapping[str, Sequence[str]], where: SourceConfig, root: str) -> list[str]:
    """Return the files of the chosen splits, sorted.

    Raises UsageError if a split is missing, incomplete or not parquet.
    """
    wanted = [part.strip() for part in (where.split or DEFAULT_SPLIT).split("+")]
    unknown = [part for part in wanted if part not in splits]
    if unknown:
        allowed = f"one of {', '.join(splits)}" + (", or several joined by +" if len(splits) > 1 else "")
        raise UsageError(f"{where.path}: has no split {unknown[0]!r}; set --data.split to {allowed}")
    files = sorted({file for part in wanted for file in splits[part]})
    other = [file for file in files if not file.endswith(".parquet")]
    if other or not files:
        example = f" ({other[0]}, ...)" if other else ""
        raise UsageError(f"{where.path}: its files are not parquet{example}; {OTHER_FORMS}")
    partial = next((file for file in files if CONVERTED_FILE.fullmatch(file) and "/partial-" in file), None)
    if partial:  # the Hub stops converting after some gigabytes, and `datasets` gives no warning
        folder = partial.rpartition("/")[0]
        raise UsageError(
            f"{where.path}: the Hub converted only the first part of {'+'.join(wanted)}; for that part set "
            f"--data.path 'hf://{root}/{folder}/*.parquet', for all of it {PREPARE}"
        )
    return files


@contextmanager
def _hub_errors(where: SourceConfig) -> Iterator[None]:
    """Turn a failure of the Hub or of the network into a RunError that says what to do."""
    try:
        yield
    except RunError:
        raise
    except Exception as error:  # datasets, huggingface_hub, its http client and arrow have their own exceptions
        raise _explained(where, error) from error


def _explained(where: SourceConfig, error: Exception) -> RunError:
    """Return the RunError for a failure.

    The reason may be further down the chain of causes, because `datasets` wraps exceptions.
    """
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and isinstance(cause, Exception):
        chain.append(cause)

    def is_any(kind: type[Exception]) -> bool:
        return any(isinstance(link, kind) for link in chain)

    local = f"`hf download --repo-type dataset {where.path} --local-dir DIR` where there is a network, then --data.path"
    if is_any(OfflineModeIsEnabled):
        return UsageError(f"{where.path}: is on the Hub, and HF_HUB_OFFLINE is set; unset it, or {local} DIR")
    if is_any(GatedRepoError):
        return _gated(where)
    if is_any(RevisionNotFoundError):
        return UsageError(
            f"{where.path}: has no revision {where.revision!r}; --data.revision is a branch, tag or commit"
        )
    if is_any(RepositoryNotFoundError):
        return UsageError(f"{where.path}: no folder here and no data set on the Hub; if it is private, {LOGIN}")
    if is_any(HFValidationError):
        return UsageError(f"{where.path}: neither a path that is here nor a name on the Hub, such as owner/name")
    return DataError(f"{where.path}: cannot be read from the Hub: {one_line(error)}")
