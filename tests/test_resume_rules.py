"""The resume rule of every setting, as a start applies it: exact, change, free."""

from dataclasses import dataclass
from typing import Any

import pytest

from tests.saving import record_of
from whisper_ft.checkpoint.record import CheckpointRecord
from whisper_ft.checkpoint.state import TrainState
from whisper_ft.config.resume_policy import as_resumed, refuse_changes, rules
from whisper_ft.config.setting import setting
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, to_plain, with_values
from whisper_ft.runtime.errors import UsageError

SETTINGS = sorted(flatten(to_plain(TrainingConfig())))


def saved_with(name: str, value: object) -> dict[str, Any]:
    """The configuration in a checkpoint whose run had another value of a setting."""
    saved = to_plain(TrainingConfig())
    *sections, last = name.split(".")
    inner = saved
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return saved


@pytest.mark.parametrize("name", SETTINGS)
def test_a_changed_setting_is_treated_by_its_resume_rule(name: str):
    saved, kind = saved_with(name, "another"), rules()[name]
    if kind == "free":
        assert refuse_changes(saved, TrainingConfig()) == []
        return
    with pytest.raises(UsageError, match=f"{name} was 'another' and is ") as refused:
        refuse_changes(saved, TrainingConfig())
    assert "choose another --run_dir" in str(refused.value)
    assert ("--allow_change" in str(refused.value)) == (kind == "change")
    allowed = TrainingConfig(allow_change=[name])
    if kind == "change":
        assert [change[0] for change in refuse_changes(saved, allowed)] == [name]
    else:
        with pytest.raises(UsageError):
            refuse_changes(saved, allowed)


def test_a_resumed_run_keeps_the_rate_that_it_began_with():
    """The rate may be of auto or of a user, as in every run from before there was auto."""
    saved = saved_with("optim.lr", 3e-5)
    del saved["adapter"]
    resumed = as_resumed(TrainingConfig(), (), saved)
    assert (resumed.optim.lr, resumed.adapter.kind) == (3e-5, "none")
    assert refuse_changes(saved, resumed) == []


def test_every_rule_has_settings():
    assert {rules()[name] for name in SETTINGS} == {"exact", "change", "free"}


@dataclass(frozen=True)
class LaterConfig(TrainingConfig):
    """The configuration of a later version: a new setting, and one whose default is auto."""

    pack_seconds: float = setting("exact", 30.0, before=0.0)
    arithmetic: str = setting("change", "auto", before="fp32", auto="auto")


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> type[LaterConfig]:
    monkeypatch.setattr("whisper_ft.config.resume_policy.TrainingConfig", LaterConfig)
    return LaterConfig


def test_a_resumed_run_keeps_the_value_from_before_a_setting_existed(later: type[LaterConfig]):
    saved = to_plain(TrainingConfig())
    resumed = as_resumed(later(), given=(), saved=saved)
    assert (resumed.pack_seconds, resumed.arithmetic) == (0.0, "fp32")
    assert refuse_changes(saved, resumed) == []


def test_the_word_of_the_user_wins_over_the_value_from_before(later: type[LaterConfig]):
    saved = to_plain(TrainingConfig())
    resumed = as_resumed(later(pack_seconds=30.0), given={"pack_seconds"}, saved=saved)
    assert resumed.pack_seconds == 30.0
    with pytest.raises(UsageError, match=r"pack_seconds was 0\.0 and is 30\.0"):
        refuse_changes(saved, resumed)


@pytest.mark.parametrize("given", [(), ("arithmetic",)])
def test_auto_means_the_recorded_choice_on_any_machine(later: type[LaterConfig], given: tuple[str, ...]):
    saved = to_plain(later(arithmetic="fp16"))  # the choice of the machine that began the run
    resumed = as_resumed(later(arithmetic="auto"), given, saved)
    assert resumed.arithmetic == "fp16"
    assert refuse_changes(saved, resumed) == []
    with pytest.raises(UsageError, match="arithmetic was 'fp16' and is 'fp32'"):
        refuse_changes(saved, as_resumed(later(arithmetic="fp32"), ["arithmetic"], saved))


def test_a_number_of_lanes_that_was_chosen_may_also_be_given():
    saved = to_plain(with_values(TrainingConfig(), {"data.lanes": 16}))
    for lanes in (None, 16):
        resumed = as_resumed(with_values(TrainingConfig(), {"data.lanes": lanes}), {"data.lanes"}, saved)
        assert resumed.data.lanes == 16
        assert refuse_changes(saved, resumed) == []
    other = with_values(TrainingConfig(), {"data.lanes": 32})
    with pytest.raises(UsageError, match=r"data\.lanes was 16 and is 32"):
        refuse_changes(saved, as_resumed(other, {"data.lanes"}, saved))


def test_a_record_without_chosen_lanes_in_its_configuration_has_those_beside_it():
    """Versions before the choice was written into the configuration recorded it beside the data's fingerprint."""
    record = record_of(TrainState(step=3))
    fields = record.to_json() | {"config": to_plain(TrainingConfig()), "data": {"lanes": 24}}
    assert CheckpointRecord.from_json(fields).config["data"]["lanes"] == 24
