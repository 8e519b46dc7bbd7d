"""The resume rule of every setting, as a start applies it: exact, change, free."""

from typing import Any

import pytest

from whisper_ft.config.resume_policy import refuse_changes, rules
from whisper_ft.config.training import TrainingConfig
from whisper_ft.config.tree import flatten, to_plain
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


def test_every_rule_has_settings():
    assert {rules()[name] for name in SETTINGS} == {"exact", "change", "free"}
