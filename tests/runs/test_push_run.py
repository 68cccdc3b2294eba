"""The `push` command: what it lists, what it hands to the hub, and when it uploads nothing."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import huggingface_hub
import pytest

from causal_lm_router.runs import push_run
from tests.conftest import Result

Main = Callable[..., Result]


class FakeApi:
    """Notes what it is asked for."""

    calls: ClassVar[list[dict[str, Any]]] = []

    def create_repo(self, repo: str, **options: Any) -> None:
        self.calls.append({"repo": repo, **options})

    def upload_folder(self, **options: Any) -> None:
        self.calls.append({**options, "files": sorted(path.name for path in Path(options["folder_path"]).iterdir())})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> type[FakeApi]:
    """A hub that is there and takes everything, and a key to it."""
    monkeypatch.setattr(huggingface_hub, "HfApi", FakeApi)
    monkeypatch.setattr(huggingface_hub, "get_token", lambda: "hf_key")
    monkeypatch.setattr(push_run, "hub_answers", lambda: True)
    FakeApi.calls = []
    return FakeApi


@pytest.fixture
def run(smoke_run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(smoke_run, tmp_path / "run"))


@pytest.mark.slow
def test_the_adapter_goes_to_the_repository(main: Main, run: Path, hub: type[FakeApi]) -> None:
    result = main("push", f"run_dir={run}", "repo=me/router")
    assert (result.status, result.errors) == (0, "")
    created, uploaded = hub.calls
    assert created == {"repo": "me/router", "private": True, "exist_ok": True}
    assert (uploaded["repo_id"], uploaded["folder_path"]) == ("me/router", run / "adapter")
    assert {"README.md", "adapter_config.json", "adapter_model.safetensors"} <= set(uploaded["files"])
    assert "uploaded" in result.output


@pytest.mark.slow
def test_the_merged_checkpoint_has_a_card_of_its_own(main: Main, run: Path, hub: type[FakeApi]) -> None:
    result = main("push", f"run_dir={run}", "repo=me/router", "what=merged", "private=false")
    assert result.errors == ""
    assert hub.calls[0]["private"] is False
    assert {"README.md", "model.safetensors"} <= set(hub.calls[1]["files"])
    assert "library_name: transformers" in (run / "merged" / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize("missing", ["dry_run", "key", "hub"])
def test_where_nothing_can_be_uploaded_the_files_are_listed(
    missing: str, main: Main, run: Path, hub: type[FakeApi], monkeypatch: pytest.MonkeyPatch
) -> None:
    if missing == "key":
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    if missing == "hub":
        monkeypatch.setattr(push_run, "hub_answers", lambda: False)
    result = main("push", f"run_dir={run}", "repo=me/router", f"dry_run={str(missing == 'dry_run').lower()}")
    assert result.status == 0
    assert hub.calls == []
    size = (run / "adapter" / "adapter_model.safetensors").stat().st_size
    assert f"{size:,} bytes  adapter_model.safetensors" in result.output
    reason = {"dry_run": "dry_run=true", "key": "no key", "hub": "does not answer"}[missing]
    assert "nothing was uploaded" in result.output
    assert reason in result.output


@pytest.mark.slow
def test_bad_repositories_and_missing_weights(main: Main, run: Path, hub: type[FakeApi]) -> None:
    assert "repo must be" in main("push", f"run_dir={run}", "repo=router").errors
    shutil.rmtree(run / "merged")
    assert "what must be adapter until " in main("push", f"run_dir={run}", "repo=me/router", "what=merged").errors
    assert hub.calls == []
