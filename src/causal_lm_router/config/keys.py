"""Every key of the config with its type and its docstring: for help, completion, and for mistyped keys."""

import ast
import difflib
import functools
import inspect
import itertools
import textwrap
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import Any

from causal_lm_router import config as schema
from causal_lm_router.config.checks import one_of

SCHEMAS: dict[str, type] = {
    "train_schema": schema.TrainConfig,
    "evaluate_schema": schema.EvaluateConfig,
    "route_schema": schema.RouteConfig,
    "push_schema": schema.PushConfig,
    "prepare_schema": schema.PrepareConfig,
    "baseline_schema": schema.BaselineRunConfig,
}
BASELINE = "baseline"
"""The node that tells the settings of a baseline from those of a trained router."""
VARIANTS: dict[str, tuple[str, Mapping[Any, type]]] = {
    "data": ("source", schema.SOURCE_SCHEMAS),
    BASELINE: ("method", schema.BASELINE_SCHEMAS),
    "target": ("kind", schema.TARGET_SCHEMAS),
}
"""Node whose keys depend on the value of one of them -> that key, and the schema for each value."""
PRESET_GROUPS = ("experiment", "debug")
"""Groups whose choices set keys of other groups and have none of their own."""


@dataclass(frozen=True, kw_only=True)
class Key:
    """One key of the config."""

    name: str
    """Dotted, such as `lora.lora_r`."""
    kind: Any
    """Type of its value; a dataclass for a group."""
    doc: str
    """The docstring under the field."""
    choices: tuple[str, ...] = ()
    """Where only some choices of the group have the key: these choices."""

    @property
    def is_text(self) -> bool:
        """True where the value is a text, or null."""
        return str in _members(self.kind)

    @property
    def values(self) -> list[str]:
        """The values that can be listed: those of an enum, or true and false."""
        listed = [member.value for kind in _members(self.kind) if _is_enum(kind) for member in kind]
        return listed + (["true", "false"] if bool in _members(self.kind) else [])

    @property
    def what(self) -> str:
        """What a value must be, in words."""
        words = [_describe(kind) for kind in _members(self.kind) if kind is not types.NoneType]
        return " or ".join(words) + (", or null" if types.NoneType in _members(self.kind) else "")


@functools.cache
def all_keys() -> tuple[Key, ...]:
    """Return every key of every command, groups before the keys in them; a key that choices explain apart is there
    once for each explanation."""
    found: dict[tuple[str, str], Key] = {}
    for command in SCHEMAS.values():
        for key in _keys_of(command, ""):
            found.setdefault((key.name, key.doc), key)
    return tuple(found.values())


def find_keys(name: str) -> list[Key]:
    """Return the key of that dotted name: none, or one for each explanation that it has."""
    return [key for key in all_keys() if key.name == name]


def is_group(name: str) -> bool:
    """True for the name of a group, which has choices."""
    inside = "." in name  # such as data.columns, which has no choices
    return name in PRESET_GROUPS or (not inside and any(is_dataclass(key.kind) for key in find_keys(name)))


def is_text_key(name: str) -> bool:
    """True where the values of a key are texts, under each of its explanations."""
    found = find_keys(name)
    return bool(found) and all(key.is_text for key in found)


@functools.cache
def mapping_keys() -> tuple[str, ...]:
    """Return the keys whose values are mappings with keys of the user's own."""
    return tuple(key.name for key in all_keys() if typing.get_origin(key.kind) is dict)


def similar_keys(name: str) -> list[str]:
    """Return the dotted names of at most three keys that a mistyped name may stand for, the likeliest first."""
    group, _, last = name.rpartition(".")
    # A key inside a group is not mistaken for a group.
    names = list(dict.fromkeys([key.name for key in all_keys()] + list(PRESET_GROUPS)))
    names = [each for each in names if "." in each or not group]
    ends = {each: each.rpartition(".")[2] for each in names}
    # The right name in a wrong group, or without any; then a part of a name in the right group, such as `lora.r`.
    same = [each for each in names if ends[each] == last]
    parts = [each for each in names if not group or each.startswith(f"{group}.") if last in ends[each].split("_")]
    # Letters left out or exchanged, in the whole name or in its last part.
    close = difflib.get_close_matches(name, names, n=2, cutoff=0.75)
    close_ends = difflib.get_close_matches(last, list(ends.values()), n=1, cutoff=0.75)
    elsewhere = [each for each in names if ends[each] in close_ends]
    return list(dict.fromkeys([*same, *parts, *close, *elsewhere]))[:3]


def similar_words(word: str, known: Sequence[str]) -> list[str]:
    """Return at most three of the known words that a mistyped one may stand for."""
    starts = [each for each in known if word and each.startswith(word)]
    return list(dict.fromkeys([*starts, *difflib.get_close_matches(word, known, n=2)]))[:3]


def did_you_mean(names: Iterable[str]) -> str:
    """Return `; did you mean a or b?` as the end of a message; nothing without names."""
    listed = tuple(names)
    return f"; did you mean {one_of(listed)}?" if listed else ""


def _keys_of(owner: type, prefix: str, choices: tuple[str, ...] = ()) -> Iterator[Key]:
    """Yield the keys of a schema, groups before what is in them."""
    hints = typing.get_type_hints(owner)
    for field in fields(owner):
        name, kind = f"{prefix}{field.name}", hints[field.name]
        yield Key(name=name, kind=kind, doc=_docs(owner)[field.name], choices=choices)
        if name in VARIANTS:
            yield from _keys_of_variants(name, kind)
        elif is_dataclass(kind):
            yield from _keys_of(typing.cast(type, kind), f"{name}.", choices)


def _keys_of_variants(name: str, shared: type) -> Iterator[Key]:
    """Yield the keys that all choices of a group share, then those of some choices with the names of these."""
    yield from _keys_of(shared, f"{name}.")
    known = {field.name for field in fields(shared)}
    variants = VARIANTS[name][1]
    found: dict[tuple[str, str], list[str]] = {}
    keys: dict[tuple[str, str], Key] = {}
    for choice, owner in variants.items():
        for key in _keys_of(owner, f"{name}."):
            if key.name.split(".")[1] not in known:
                keys[key.name, key.doc] = key
                found.setdefault((key.name, key.doc), []).append(str(choice))
    for place, key in keys.items():
        yield Key(name=key.name, kind=key.kind, doc=key.doc, choices=tuple(found[place]))


@functools.cache
def _docs(owner: type) -> dict[str, str]:
    """Return field -> docstring, of the fields of a dataclass and its base classes."""
    docs: dict[str, str] = {}
    for cls in reversed(owner.__mro__):
        if not is_dataclass(cls):
            continue
        body = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]).body
        for field, after in itertools.pairwise(body):
            if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr):
                docs[ast.unparse(field.target)] = " ".join(str(ast.literal_eval(after.value)).split())
    return docs


def _members(kind: Any) -> tuple[Any, ...]:
    """Return the types of a union, or the type itself."""
    return typing.get_args(kind) if isinstance(kind, types.UnionType) else (kind,)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _describe(kind: Any) -> str:
    if _is_enum(kind):
        return one_of(tuple(member.value for member in kind))
    if is_dataclass(kind):
        return "a group of settings"
    named = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}
    if typing.get_origin(kind) is list and _is_enum(typing.get_args(kind)[0]):
        return f"a list of {_describe(typing.get_args(kind)[0])}"
    ours = {list: "a list such as [a,b]", dict: "keys and values such as {a: b}"}
    return named.get(kind) or ours.get(typing.get_origin(kind), "any value")
