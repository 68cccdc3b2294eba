"""Fixtures shared by all tests."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from causal_lm_router.config import ColumnsConfig, DataConfig, OnBadRow, SimulatedConfig, Source, TieBreak

CHECKOUT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """Folder of the real routing data beside the checkout; skips where it is absent."""
    folder = CHECKOUT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real routing data at {folder}")
    return folder


@pytest.fixture(scope="session")
def make_data_config() -> Callable[..., DataConfig]:
    """Function that returns `conf/data/default.yaml` as a DataConfig with the given fields in it (enums by value)."""
    shipped = yaml.safe_load((CHECKOUT / "conf" / "data" / "default.yaml").read_text(encoding="utf-8"))

    def make(**fields: Any) -> DataConfig:
        values = shipped | {"drop_contaminated": False} | fields
        for key, enum in {"source": Source, "on_bad_row": OnBadRow, "tie_break": TieBreak}.items():
            values[key] = enum(values[key])
        values["columns"] = ColumnsConfig(**shipped["columns"] | fields.get("columns", {}))
        values["simulated"] = SimulatedConfig(**shipped["simulated"] | fields.get("simulated", {}))
        return DataConfig(**values)

    return make
