"""The resume rule of every setting, as a start applies it: exact, change, free."""

from typing import Any

import pytest

from whisper_ft.commandline import refuse_changes
from whisper_ft.config import Config
from whisper_ft.failure import UsageError
from whisper_ft.fields import flatten, to_plain
from whisper_ft.resume_rules import rules

SETTINGS = sorted(flatten(to_plain(Config())))


def saved_with(name: str, value: object) -> dict[str, Any]:
    """What a checkpoint holds whose run had another value of a setting."""
    saved = to_plain(Config())
    *sections, last = name.split(".")
    inner = saved
    for section in sections:
        inner = inner[section]
    inner[last] = value
    return saved


@pytest.mark.parametrize("name", SETTINGS)
def test_another_value_is_refused_allowed_by_name_or_free_by_the_rule_of_its_setting(name: str):
    saved, kind = saved_with(name, "another"), rules()[name]
    if kind == "free":
        assert refuse_changes(saved, Config()) == []
        return
    with pytest.raises(UsageError, match=f"{name} was 'another' and is ") as refused:
        refuse_changes(saved, Config())
    assert "choose another --run_dir" in str(refused.value)
    assert ("--allow_change" in str(refused.value)) == (kind == "change")
    allowed = Config(allow_change=[name])
    if kind == "change":
        assert [change[0] for change in refuse_changes(saved, allowed)] == [name]
    else:
        with pytest.raises(UsageError):
            refuse_changes(saved, allowed)


def test_every_rule_has_settings():
    assert {rules()[name] for name in SETTINGS} == {"exact", "change", "free"}
