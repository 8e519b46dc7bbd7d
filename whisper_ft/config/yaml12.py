"""Reader and writer of YAML 1.2, for settings.

PyYAML follows YAML 1.1. There `1e-5` is text, `no` is false, `010` is eight, and the last of two equal keys wins
silently. Each of these rules has cost a training run.
"""

import re
from typing import Any

import yaml

Error = yaml.YAMLError


class _Loader(yaml.SafeLoader):
    """Loader of YAML 1.2 that refuses repeated keys and aliases. By aliases a few bytes can expand to gigabytes."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(None, None, "YAML aliases are not allowed", mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                mark = key_node.start_mark
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is given twice", mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Dumper that quotes every text that YAML 1.1 or this module would read as another type. It writes no alias."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?(0|[1-9][0-9]*)", "-+0123456789"),
    ("float", r"[-+]?([0-9]+\.[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+", "-+.0123456789"),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def load(text: str) -> Any:
    """Read a YAML document; None if it is empty. Raises Error if it is invalid, repeats a key, or contains an alias."""
    return yaml.load(text, Loader=_Loader)


def dump(value: Any) -> str:
    """Return a value as YAML text, which `load` reads back as the same value, except that tuples become lists.

    Keys keep their order. A list that occurs twice as the same object is written twice, because `load` refuses aliases.
    Raises Error for a type that YAML lacks, such as Path.
    """
    return str(yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True))
