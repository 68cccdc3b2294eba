"""What a run folder from elsewhere may say of its pool."""

import json
from pathlib import Path

import pytest

from causal_lm_router.runs.run_folder import RunFolder


@pytest.mark.parametrize("name", ["b\x1b[2J", "b\u202e", "b\u200b", " b", "a"])
def test_names_in_a_foreign_folder_are_held_to_the_rules_of_a_pool(name: str, tmp_path: Path) -> None:
    (tmp_path / "adapter").mkdir()
    plain = {"pool": [{"name": "a"}, {"name": name}], "best_single": "a", "mean_costs": None}
    (tmp_path / "router.json").write_text(json.dumps(plain))
    with pytest.raises(
        ValueError, match=r"router\.json: must hold the pool .* got ValueError: (a )?candidate names? must"
    ):
        RunFolder(tmp_path).read_metadata()
