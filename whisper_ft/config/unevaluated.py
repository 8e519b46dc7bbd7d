"""Settings of eval.* without an effect, because a run evaluates nothing or has no held-out set."""

from collections.abc import Collection, Iterator, Sequence

from whisper_ft.config.setting import unused_message
from whisper_ft.config.training import TrainingConfig
from whisper_ft.runtime.errors import UsageError

GIVE_A_SET = "give --eval.path with held-out utterances, or --eval.sets, or set --eval.every 0"
GIVE_HELD_OUT = "give --eval.path with held-out utterances"
THE_SETS = ("eval.path", "eval.split", "eval.sets")
OF_THE_HELD_OUT_SET = ("metric", "greater_is_better", "min_delta", "patience", "max_utterances")
"""Settings of eval.* that only the held-out set has: it alone decides which model is the best."""


def refuse_unevaluated(config: TrainingConfig, given: Collection[str]) -> None:
    """Raise UsageError for a setting of eval.* that the user gave and that has no effect without a set to score.

    With `eval.every` 0 the user has switched the evaluation off, and its settings may stay: `lines_about_no_evaluation`
    names them. `given` holds the dotted names of the settings that the user gave.
    """
    settings = config.eval
    if settings.path or settings.split or not settings.every:
        return
    names = [name for name in _given(given) if name not in THE_SETS]
    if settings.sets:
        names = [name for name in names if name.removeprefix("eval.") in OF_THE_HELD_OUT_SET]
        state, remedy = "there is no held-out set, because eval.sets do not choose the best model", GIVE_HELD_OUT
    else:
        state, remedy = "nothing is evaluated", GIVE_A_SET
    if names:
        value = getattr(settings, names[0].removeprefix("eval."))
        raise UsageError(unused_message(names[0], value, state, remedy))


def lines_about_no_evaluation(config: TrainingConfig, given: Collection[str]) -> Iterator[str]:
    """Yield the line that names the given settings of eval.* that `eval.every` 0 switches off; none without such."""
    names, state = [name for name in _given(given) if name != "eval.every"], "nothing is evaluated"
    if config.eval.sets_beside(config.data):  # each has a cadence of its own
        names = [name for name in names if name.removeprefix("eval.") in ("path", "split", *OF_THE_HELD_OUT_SET)]
        state = "the held-out set is not evaluated"
    if names and not config.eval.every:
        yield f"{state}, because eval.every is 0; without effect: {', '.join(names)}"


def _given(given: Collection[str]) -> Sequence[str]:
    return sorted(name for name in given if name.startswith("eval."))
