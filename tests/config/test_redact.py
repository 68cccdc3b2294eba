"""Secrets: out of everything that is written or shown, with the way to get them again in their place."""

import logging
from dataclasses import fields, is_dataclass
from typing import Any

import pytest

from causal_lm_router.config import BASELINE_SCHEMAS, SOURCE_SCHEMAS, BaselineRunConfig, PushConfig, RouteConfig
from causal_lm_router.config import redact as module
from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.plain import config_dict, dump_config, identity_of, stored_config
from causal_lm_router.config.redact import (
    SecretFilter,
    hides_secret,
    names_secret,
    redact_arguments,
    redact_composed,
    redact_stored,
    redact_text,
    remember_arguments,
    remember_secrets,
)
from causal_lm_router.config.resolve import job_id

SMOKE = ["data=simulated", "debug=smoke", "run_dir=x"]
TOKEN = "+inference.engine_args.hf_token="


@pytest.fixture(autouse=True)
def nothing_typed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_typed", set())
    monkeypatch.delenv("HF_TOKEN", raising=False)


def keys(schema: Any, seen: set[Any]) -> set[str]:
    """The names of all settings of a schema."""
    found = set()
    for field in fields(schema):
        found.add(field.name)
        if is_dataclass(field.type) and field.type not in seen:
            found |= keys(field.type, seen | {field.type})
    return found


def test_no_setting_of_ours_is_taken_for_a_secret() -> None:
    schemas = [BaselineRunConfig, PushConfig, RouteConfig, *SOURCE_SCHEMAS.values(), *BASELINE_SCHEMAS.values()]
    assert [key for schema in schemas for key in keys(schema, set()) if names_secret(key)] == []


def test_a_config_without_secrets_is_stored_as_it_is() -> None:
    config = compose_config([*SMOKE, "+data.renamed_candidates={gpt-key: my-token}"])
    assert stored_config(config) == dump_config(config)


def test_a_secret_is_stored_as_the_variable_that_holds_it(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = {"inference": {"engine_args": {"hf_token": "a-token-typed", "max_num_seqs": 8}}}
    assert redact_stored(stored)["inference"]["engine_args"] == {"hf_token": "<redacted>", "max_num_seqs": 8}
    monkeypatch.setenv("HF_TOKEN", "a-token-typed")
    kept = redact_stored(stored)["inference"]["engine_args"]
    assert kept == {"hf_token": "${oc.env:HF_TOKEN}", "max_num_seqs": 8}
    assert (hides_secret(kept["hf_token"]), hides_secret("<redacted>"), hides_secret("meta/llama")) == (
        True,
        True,
        False,
    )
    assert redact_stored({"data": {"path": "https://joe:pass@host/x"}}) == {
        "data": {"path": "https://<redacted>@host/x"}
    }


def test_a_short_word_of_the_environment_stays_in_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings are read again: a folder called as a variable's value must not be lost."""
    monkeypatch.setenv("CACHE_KEY", "llmrouter")
    assert redact_stored({"data": {"path": "data/llmrouter"}}) == {"data": {"path": "data/llmrouter"}}
    path = "data/hf_transformers_cache_of_all"
    assert redact_text(path) == path


def test_another_secret_makes_no_other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = {job_id(compose_config([*SMOKE, f"{TOKEN}{value}"])) for value in ("first-token", "second-token")}
    monkeypatch.setenv("HF_TOKEN", "third-token")
    config = compose_config([*SMOKE, f"{TOKEN}${{oc.env:HF_TOKEN}}"])
    assert {job_id(config)} == ids
    plain = config_dict(config)
    assert identity_of(redact_stored(plain)) == identity_of(plain)
    assert "third-token" not in str(identity_of(plain))


def test_what_hydra_keeps_of_a_job(monkeypatch: pytest.MonkeyPatch) -> None:
    override = "+inference.engine_args.hf_token=a-token-typed"
    composed = {
        "inference": {"engine_args": {"hf_token": "a-token-typed"}},
        "hydra": {"overrides": {"task": [override, "seed=1"]}, "job": {"override_dirname": f"{override},seed=1"}},
    }
    clean = redact_composed(composed)
    assert "a-token-typed" not in str(clean)
    assert clean["hydra"]["overrides"]["task"][1] == "seed=1"
    assert redact_composed([override, "seed=1"]) == ["+inference.engine_args.hf_token=<redacted>", "seed=1"]
    # A reference is no secret: it says where the secret comes from.
    kept = [f"{TOKEN}${{oc.env:HF_TOKEN}}", f"{TOKEN}'${{oc.env:HF_TOKEN}}'", "+x={hf_token: '${oc.env:HF_TOKEN}'}"]
    assert redact_arguments(kept) == kept


@pytest.mark.parametrize(
    "secrets", [{"engine_args": {"hf_token": "a-token-typed"}}, ["+engine_args.hf_token='a-token-typed'"]]
)
def test_a_typed_secret_is_in_no_record(secrets: Any) -> None:
    remember_secrets(secrets) if isinstance(secrets, dict) else remember_arguments(secrets)
    record = logging.LogRecord("vllm", logging.INFO, "", 0, "non-default args: %s", ({"x": "a-token-typed"},), None)
    try:
        raise ValueError("refused a-token-typed")
    except ValueError as error:
        record.exc_info = (ValueError, error, error.__traceback__)
    assert SecretFilter().filter(record)
    written = logging.Formatter().format(record)
    assert "non-default args: {'x': '<redacted>'}" in written and "refused <redacted>" in written
    assert "a-token-typed" not in written


def test_secrets_typed_from_python_are_remembered() -> None:
    compose_config([*SMOKE, f"{TOKEN}a-token-from-python", "+trainer.extra={api_key: another-from-python}"])
    assert redact_text("a-token-from-python, another-from-python") == "<redacted>, <redacted>"
    with pytest.raises(ValueError):
        compose_config([*SMOKE, "+tracking.password=one-of-no-setting"])
    assert redact_text("one-of-no-setting") == "<redacted>"


def test_references_are_not_remembered() -> None:
    remember_arguments([f"{TOKEN}${{oc.env:HF_TOKEN}}"])
    remember_secrets({"hf_token": "${oc.env:HF_TOKEN}"})
    assert redact_text("${oc.env:HF_TOKEN}") == "${oc.env:HF_TOKEN}"
