"""Settings of eval.* without an effect, because a run evaluates nothing or has no held-out set."""

from collections.abc import Iterator, Mapping
from typing import Any

from whisper_ft.config.setting import unused_message
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.unused_settings import chosen_settings
from whisper_ft.runtime.errors import UsageError

GIVE_A_SET = "give --eval.path with held-out utterances, or --eval.sets, or set --eval.every 0"
GIVE_HELD_OUT = "give --eval.path with held-out utterances"
THE_SETS = ("eval.path", "eval.split", "eval.sets")
OF_THE_HELD_OUT_SET = ("metric", "greater_is_better", "min_delta", "patience", "max_utterances")
"""Settings of eval.* that only the held-out set has: it alone decides which model is the best."""


def refuse_unevaluated(config: TrainingConfig, given: Mapping[str, str]) -> None:
    """Raise UsageError for a setting of eval.* that the user chose and that has no effect without a set to score.

    With `eval.every` 0 the user has switched the evaluation off, and its settings may stay: `lines_about_no_evaluation`
    names them. `given` is that of `chosen_settings`.
    """
    settings = config.eval
    if settings.path or settings.split or not settings.every:
        return
    chosen = _chosen(config, given)
    names = [name for name in chosen if name not in THE_SETS]
    if settings.sets:
        names = [name for name in names if name.removeprefix("eval.") in OF_THE_HELD_OUT_SET]
        state, remedy = "there is no held-out set, because eval.sets do not choose the best model", GIVE_HELD_OUT
    else:
        state, remedy = "nothing is evaluated", GIVE_A_SET
    if names:
        raise UsageError(unused_message(names[0], chosen[names[0]], state, remedy))


def lines_about_no_evaluation(config: TrainingConfig, given: Mapping[str, str]) -> Iterator[str]:
    """Yield the line that names the chosen settings of eval.* that `eval.every` 0 switches off; none without such."""
    names, state = [name for name in _chosen(config, given) if name != "eval.every"], "nothing is evaluated"
    if config.eval.sets_beside(config.data):  # each has a cadence of its own
        names = [name for name in names if name.removeprefix("eval.") in ("path", "split", *OF_THE_HELD_OUT_SET)]
        state = "the held-out set is not evaluated"
    if names and not config.eval.every:
        yield f"{state}, because eval.every is 0; without effect: {', '.join(names)}"


def _chosen(config: TrainingConfig, given: Mapping[str, str]) -> dict[str, Any]:
    return {name: value for name, value in sorted(chosen_settings(config, given).items()) if name.startswith("eval.")}
