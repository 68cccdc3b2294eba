"""Prompts of several turns: lists, or lists that a table holds as text, become one text."""

import ast
import contextlib
import json
import re
import reprlib
import warnings

_STRING = r"""'(?:[^'\\\n]|\\.)*+'|"(?:[^"\\\n]|\\.)*+\""""
_TURN = re.compile(rf"(?:{_STRING})|\{{(?:[^{{}}'\"]|{_STRING})*+\}}")
_LIST_BEGINS = re.compile(r"\[\s*['\"{]")
_SEPARATOR = re.compile(r"\s*,\s*|\s+|\Z")
_ROLES = ("system", "user")


def join_turns(prompt: object) -> object:
    """Return the turns of a prompt with an empty line between them; a prompt that is no list as it is.

    A turn is a text or {"role": "system" or "user", "content": text}. A text that begins like a list of these, and ends
    like a list, is read as one: as JSON, as Python writes it, or as NumPy does, without commas.

    Raises:
        ValueError: the list cannot be read, or a turn is neither.
    """
    turns = prompt
    if isinstance(prompt, str):
        if not _LIST_BEGINS.match(prompt) or not prompt.endswith("]"):
            return prompt
        turns = _read_list(prompt)
    if not isinstance(turns, list):
        return prompt
    if not turns:
        raise ValueError("prompt must have at least one turn, got []")
    return "\n\n".join(map(_to_text, turns))


def _read_list(text: str) -> list[object]:
    with contextlib.suppress(ValueError, RecursionError):
        listed: list[object] = json.loads(text)
        return listed
    # Turn by turn: Python reads texts without a comma between them, as NumPy prints them, as one.
    turns: list[object] = []
    separators = set()
    inside, position = text[1:-1].strip(), 0
    while position < len(inside):
        turn = _TURN.match(inside, position)
        separator = _SEPARATOR.match(inside, turn.end()) if turn else None
        if turn is None or separator is None:
            raise _unreadable(text)
        turns.append(_read_turn(turn[0], text))
        position = separator.end()
        if position < len(inside):
            separators.add("," in separator[0])
    # Where some turns have a comma between them and others none, the list is broken.
    if len(separators) > 1:
        raise _unreadable(text)
    return turns


def _read_turn(turn: str, text: str) -> object:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a prompt with "\d" in it causes a warning of an invalid escape
        try:
            return ast.literal_eval(turn)
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            raise _unreadable(text) from None


def _unreadable(text: str) -> ValueError:
    return ValueError(f"prompt must be a text or a list of turns, got a list that cannot be read: {reprlib.repr(text)}")


def _to_text(turn: object) -> str:
    content = turn
    if isinstance(turn, dict):
        content = turn.get("content")
        # What a model has answered before is no part of a query.
        if turn.keys() != {"role", "content"} or turn["role"] not in _ROLES:
            raise ValueError(f"a turn must have a role ({' or '.join(_ROLES)}) and a content, got {reprlib.repr(turn)}")
    if not isinstance(content, str):
        raise ValueError(f"a turn must be a text, got {reprlib.repr(content)}")
    return content
