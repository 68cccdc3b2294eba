"""The wheel holds the package and conf/, nothing else, and works away from the checkout."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).resolve().parents[1]
PACKAGE = "causal_lm_router"

pytestmark = pytest.mark.slow

PROGRAMME = """
import json, sys
sys.path.insert(0, sys.argv[1])
import causal_lm_router
from causal_lm_router.config.compose import compose_config, conf_dir
config = compose_config(["experiment=quickstart", "run_dir=x"])
print(json.dumps([causal_lm_router.__file__, conf_dir(), config.name, config.lora.lora_r]))
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from the checkout."""
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(CHECKOUT)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.glob("*.whl")
    return path


def relative_paths(folder: Path, pattern: str) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob(pattern)}


def test_wheel_holds_package_and_conf_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    metadata = {name for name in names if name.split("/")[0].endswith(".dist-info")}
    kinds = ("*.py", "*.jinja")
    source = {f"{PACKAGE}/{name}" for kind in kinds for name in relative_paths(CHECKOUT / "src" / PACKAGE, kind)}
    conf = {f"{PACKAGE}/conf/{name}" for name in relative_paths(CHECKOUT / "conf", "*.yaml")}
    assert f"{PACKAGE}/conf/lora/default.yaml" in conf
    plugins = {f"hydra_plugins/{name}" for name in relative_paths(CHECKOUT / "src" / "hydra_plugins", "*.py")}
    assert plugins == {"hydra_plugins/causal_lm_router_sweepers.py"}
    assert set(names) - metadata == source | plugins | conf
    assert any(name.endswith("licenses/LICENSE") for name in metadata)


def test_wheel_offers_the_command(wheel: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (entry_points,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
    assert "causal-lm-router = causal_lm_router.commands.cli:main" in archive.read(entry_points).decode()


def test_unpacked_wheel_composes_from_its_own_conf(wheel: Path, tmp_path: Path) -> None:
    site, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    zipfile.ZipFile(wheel).extractall(site)
    elsewhere.mkdir()
    # -I keeps the working directory and PYTHON* variables out; the unpacked folder goes before the checkout's own.
    command = [sys.executable, "-I", "-c", PROGRAMME, str(site)]
    done = subprocess.run(command, cwd=elsewhere, capture_output=True, text=True, check=True)
    file, conf, name, lora_r = json.loads(done.stdout)
    assert Path(file) == site / PACKAGE / "__init__.py"
    assert Path(conf) == site / PACKAGE / "conf"
    assert (name, lora_r) == ("quickstart", 16)
    assert list(elsewhere.iterdir()) == []
