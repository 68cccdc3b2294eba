"""A run folder that was moved, can only be read, or came to a machine without the caches and data of the first."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from causal_lm_router import CausalLMRouter

QUERIES = ["What is 17 times 23?", "Größe: 3 < 4"]
pytestmark = pytest.mark.slow


@pytest.fixture
def moved(smoke_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A copy of the run in another place, closed to writing, with an empty cache and another working folder."""
    folder = Path(shutil.copytree(smoke_run, tmp_path / "a disk" / "run"))
    monkeypatch.setenv("CAUSAL_LM_ROUTER_CACHE", str(tmp_path / "cache"))
    (tmp_path / "home").mkdir()
    monkeypatch.chdir(tmp_path / "home")
    paths = [folder, *folder.rglob("*")]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = look(folder)
    yield folder
    # Who may write everywhere (root) is not stopped by the modes, so the content is compared as well.
    assert look(folder) == before
    for path in paths:
        path.chmod(0o755)


def look(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def test_it_routes_as_before(smoke_run: Path, moved: Path) -> None:
    with CausalLMRouter.from_run(smoke_run) as router:
        expected = router.route_batch(QUERIES)
    with CausalLMRouter.from_run(moved) as router:
        assert router.route_batch(QUERIES) == expected


def test_it_is_evaluated_as_before(smoke_run: Path, moved: Path, main: Callable[..., Any], tmp_path: Path) -> None:
    done = main("evaluate", f"run_dir={moved}", f"output_dir={tmp_path / 'found'}")
    assert (done.status, done.errors) == (0, "")
    expected, found = (
        json.loads((folder / "report.json").read_text(encoding="utf-8")) for folder in (smoke_run, tmp_path / "found")
    )
    for key in ("routing_accuracy", "mean_score", "parse_failure_rate", "references"):
        assert found[key] == expected[key], key
