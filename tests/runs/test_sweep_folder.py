"""The files of a sweep as a whole."""

from pathlib import Path

import pytest

from causal_lm_router.files.checksums import DamagedError, find_damage
from causal_lm_router.runs.sweep_folder import SweepFolder
from tests.damage import DAMAGES, Damage


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", ["sweep.json", "multirun.yaml"])
def test_damaged_files_of_a_sweep_are_told(name: str, damage: Damage, tmp_path: Path) -> None:
    sweep = SweepFolder(tmp_path)
    metadata = sweep.make_metadata()
    for number in (1, 2):  # the same command again
        sweep.write_config(f"seed: {number}\n")
        assert sweep.make_metadata() == metadata
        assert find_damage(tmp_path) == (2, [])
    damage(tmp_path / name)
    assert [line.partition(": ")[0] for line in find_damage(tmp_path)[1]] == [str(tmp_path / name)]
    if name == "sweep.json":
        with pytest.raises(DamagedError, match=r"sweep\.json: damaged: "):
            sweep.make_metadata()
