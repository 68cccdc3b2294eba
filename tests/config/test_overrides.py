"""Mappings take new keys as they are typed; other settings take none."""

import pytest

from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.overrides import allow_new_keys
from causal_lm_router.config.plain import config_dict

ASSIGNED = {
    "data.columns.scores={a-1: col_a, b: c}": {"a-1": "col_a", "b": "c"},
    "data.renamed_candidates.a=b": {"a": "b"},
    "inference.engine_args={a: 1, b: [2]}": {"a": 1, "b": [2]},
    "++trainer.extra.a=1": {"a": 1},
}


@pytest.mark.parametrize(("override", "value"), ASSIGNED.items(), ids=ASSIGNED)
@pytest.mark.slow
def test_a_mapping_takes_new_keys_as_it_is_typed(override: str, value: object) -> None:
    found = config_dict(compose_config(["data=hub", override, "run_dir=x"]))
    for name in override.partition("=")[0].removeprefix("++").removesuffix(".a").split("."):
        found = found[name]
    assert found == value


@pytest.mark.parametrize(
    "argument",
    ["data.path={a: b}", "query=data.options={}", "data.optionsx.a=1", "--cfg", "~data.options", "+data.options.a=1"],
)
def test_other_arguments_stay_as_they_are(argument: str) -> None:
    assert allow_new_keys([argument]) == [argument]


@pytest.mark.parametrize("argument", ["data.options={}", "data.options.a.b=1", "baseline.options={a: 1},{a: 2}"])
def test_arguments_that_may_add_keys(argument: str) -> None:
    assert allow_new_keys([argument]) == [f"++{argument}"]
