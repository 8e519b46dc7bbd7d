"""Loaded models: at most two in memory, each read again between requests once another one lies in its folder."""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from whisper_ft.checkpoint.format import verify
from whisper_ft.config.evaluation import Precision
from whisper_ft.data.labels.languages import language_name
from whisper_ft.decoding.transcript_options import batch_size_on
from whisper_ft.models.adapters.adapter_config import base_name, read_adapter_config
from whisper_ft.models.generation_config import stated_generation
from whisper_ft.models.inference import InferenceModel, load_for_inference
from whisper_ft.models.whisper import load_parts
from whisper_ft.runtime.errors import OutOfMemoryError, RunError, UsageError
from whisper_ft.training.checkpoint_model import load_checkpoint_for_inference, own_language, start_of
from whisper_ft.web.api_error import ApiError
from whisper_ft.web.models_of_run import Choice, ServedModels, Version

PLACES = 2
"""Most models in memory: that of a request, and the one it is compared with."""
ATTEMPTS = 3
"""Attempts to read a model that is replaced meanwhile."""


@dataclass
class LoadedModel:
    """Model in memory."""

    choice: Choice
    version: Version
    model: InferenceModel
    users: int = 0
    """Requests that decode with it."""
    used: int = 0
    """Number of the last request that took it."""


class LoadedModels:
    """Models in memory. Only the thread of the queue loads and takes them.

    Parameters
        say: called with a line for the user about a model that is loaded
        base: base of the adapters, if it is not where their files name it
    """

    def __init__(
        self,
        served: ServedModels,
        device: torch.device,
        precision: Precision,
        say: Callable[[str], object],
        base: str | None = None,
    ) -> None:
        self.served, self.device, self._precision, self._say, self._base = served, device, precision, say, base
        self._places: list[LoadedModel] = []
        self._taken = 0

    def batch_size(self, given: int | None) -> int:
        """Return the number of windows to decode at a time, or its default."""
        return batch_size_on(self.device, given)

    def find(self, wanted: str) -> Choice:
        """Return the model of an id, as it is at present. Raises ApiError if there is none."""
        if (choice := self.served.find(wanted)) is None:
            ids = ", ".join(choice.id for choice in self.served.choices()) or "none yet"
            raise ApiError(404, "no_model", f"model {wanted!r} is not there; the models are {ids}", field="model")
        return choice

    @property
    def loaded(self) -> list[LoadedModel]:
        """Models in memory."""
        return [*self._places]

    def is_loaded(self, choice: Choice) -> bool:
        """Return True if a model is in memory, as it lies in its folder at present."""
        version = choice.version
        return any(held.choice.place == choice.place and held.version == version for held in self.loaded)

    def has_room(self, choice: Choice) -> bool:
        """Return True if a model is in memory, or can be loaded without one too many."""
        return self.is_loaded(choice) or len(self._places) < PLACES or any(not held.users for held in self._places)

    @contextmanager
    def use(self, choice: Choice) -> Iterator[LoadedModel]:
        """Lend a model, which is loaded if it is not in memory; `has_room` must be True.

        Raises ApiError if it cannot be loaded.
        """
        held = self._held(choice) or self._load(choice)
        self._taken += 1
        held.users, held.used = held.users + 1, self._taken
        try:
            yield held
        finally:
            held.users -= 1

    def _held(self, choice: Choice) -> LoadedModel | None:
        version = choice.version
        return next(
            (held for held in self._places if held.choice.place == choice.place and held.version == version), None
        )

    def _load(self, choice: Choice) -> LoadedModel:
        self._make_room(choice)
        problem: RunError | None = None
        for _ in range(ATTEMPTS):
            version = choice.version
            try:
                model = self._read(choice)
            except OutOfMemoryError as error:
                raise ApiError(503, "out_of_memory", f"{choice.name}: {error}") from error
            except RunError as error:
                problem = error
            else:
                if choice.version == version:
                    self._say(f"loaded {choice.title}")
                    self._places.append(LoadedModel(choice, version, model))
                    return self._places[-1]
            choice = self.find(choice.id)  # it was replaced or removed meanwhile
        reason = problem or "it was replaced again and again while it was read"
        raise ApiError(500, "model_error", f"{choice.name}: {reason}") from problem

    def _read(self, choice: Choice) -> InferenceModel:
        if choice.kind != "checkpoint":
            base = self._base if choice.kind == "adapter" else None
            return load_for_inference(choice.place, self._precision, self.device, self._say, base)
        if problem := verify(Path(choice.place), deep=False):
            raise UsageError(f"{choice.place}: {problem}")
        return load_checkpoint_for_inference(Path(choice.place), self._precision, self.device, self._say, self._base)

    def _make_room(self, choice: Choice) -> None:
        """Forget the model that another one replaces, or else the one that was not used for the longest time."""
        unused = sorted((held for held in self._places if not held.users), key=lambda held: held.used)
        unused.sort(key=lambda held: held.choice.place != choice.place)
        if unused and (len(self._places) >= PLACES or unused[0].choice.place == choice.place):
            self._places.remove(unused[0])
            del unused
            gc.collect()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()


def languages_of(choice: Choice, base: str | None) -> dict[str, Any]:
    """Return the languages of a model as JSON values; its weights are not read. Raises ApiError if it has no files."""
    try:
        languages = _languages(_parts_folder(choice, base), choice.version)
        if choice.kind == "checkpoint":
            return languages | {"own": own_language(Path(choice.place))}
        has_own, fields = stated_generation(choice.place, {}) if choice.kind == "adapter" else (False, {})
        return languages | ({"own": fields.get("language")} if has_own else {})
    except RunError as error:
        raise ApiError(500, "model_error", f"{choice.name}: {error}") from error


def _parts_folder(choice: Choice, base: str | None) -> str:
    """Return the folder or Hub name with the configuration of a model."""
    if choice.kind == "whole":
        return choice.place
    if choice.kind == "adapter":
        return base or base_name(read_adapter_config(Path(choice.place)))
    return base or start_of(Path(choice.place))


@lru_cache(maxsize=16)
def _languages(folder: str, version: Version) -> dict[str, Any]:
    generation = load_parts(folder).generation_config
    codes = [name.strip("<|>") for name in getattr(generation, "lang_to_id", None) or {}]
    return {
        "own": getattr(generation, "language", None),
        "is_multilingual": bool(generation.is_multilingual),
        "can_translate": "translate" in (getattr(generation, "task_to_id", None) or {}),
        "languages": [{"code": code, "name": language_name(code)} for code in codes],
    }
