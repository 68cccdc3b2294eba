"""Code of the user's own: functions that a config names as `package.module:function`.

Groups with the choice `own` take one: a data source, an objective, a decoding or a baseline. Each of them checks the
function against a protocol before anything is trained.
"""

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

FUNCTION = "function"
"""The key that holds the name, in every group that takes one."""
_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")


def names_a_function(name: str) -> bool:
    """True for a text of the form `package.module:function`."""
    return _NAME.fullmatch(name) is not None


def own_functions(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return dotted key -> name of every function of the user's that a run's settings (plain values) name."""
    return {
        f"{group}.{FUNCTION}": str(part[FUNCTION])
        for group, part in settings.items()
        if isinstance(part, Mapping) and part.get(FUNCTION) is not None
    }


def load_function(key: str, name: str, protocol: Any) -> Any:
    """Return the function that the setting `key` names; it must take what `__call__` of the protocol takes.

    Its module is looked for on Python's path, and in the working directory last.

    Raises:
        ValueError: there is no such module or function, or it cannot be called like that.
    """
    module_name, _, function_name = name.partition(":")
    _look_in_working_directory()
    # Importing runs the module's code; other errors in it pass through, for the user to see.
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError) as error:
        raise ValueError(f"{key} must name a function that can be imported, got {name!r}: {error}") from error
    # Checked by the number of arguments now, so that a wrong function does not fail after hours. Without `self`.
    parameters = list(inspect.signature(protocol.__call__).parameters)[1:]
    if not callable(function) or not _takes(function, parameters):
        expected = f"{function_name}({', '.join(parameters)})"
        raise ValueError(f"{key} must name a function that is called as {expected}, got {name!r}")
    return function


def find_source(name: str) -> Path | None:
    """Return the file that holds the function, None where it has none (a module without source, a missing one)."""
    _look_in_working_directory()
    # To find a module inside a package Python imports the package, which may be missing.
    try:
        spec = importlib.util.find_spec(name.partition(":")[0])
    except ImportError:
        return None
    return Path(spec.origin) if spec is not None and spec.origin is not None and spec.has_location else None


def _look_in_working_directory() -> None:
    # `python -m` looks there by itself, an installed command does not. Last, so that no file there hides a library.
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())


def _takes(function: Callable[..., Any], parameters: list[str]) -> bool:
    """Whether a function can be called with so many positional arguments."""
    try:
        inspect.signature(function).bind(*parameters)
    except (TypeError, ValueError):  # a built-in may have no signature at all
        return False
    return True
