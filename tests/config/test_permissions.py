"""Permissions: asked for again by the commands that act on them, taken from the command line alone."""

from typing import Any

import pytest

from causal_lm_router.config.compose import compose_config
from causal_lm_router.config.permissions import GRANTED, READS, grant, permissions, take_from_folder
from causal_lm_router.config.plain import config_dict

EVIL = {"engine_args": {"model": "evil/model", "max_num_seqs": 8}, "sampling_args": {"top_k": 5}}


def settings(**groups: Any) -> dict[str, Any]:
    return {"name": "x", "data": {"source": "own", "function": "lab:read"}, "objective": {"function": None}, **groups}


@pytest.mark.parametrize("overrides", [["data=simulated"], ["data=routerbench"], ["experiment=quickstart"]])
def test_the_settings_that_are_shipped_need_no_permission(overrides: list[str]) -> None:
    assert permissions(config_dict(compose_config([*overrides, "run_dir=x"]))) == {}


def test_each_permission_is_asked_for_on_its_own() -> None:
    with pytest.raises(ValueError, match=r"^data\.function must be given again, as data\.function=lab:read: a run "):
        take_from_folder("outputs/a", settings(), ["run_dir=outputs/a", "objective.function=lab:read"], "evaluate")
    with pytest.raises(ValueError, match=r"as inference\.engine_args\.model=evil/model: .*outputs/a"):
        take_from_folder("outputs/a", settings(inference=EVIL), ["data.function=lab:read"], "evaluate")
    # All at once.
    with pytest.raises(ValueError, match=r"data\.function .*\n.*engine_args\.model"):
        take_from_folder("outputs/a", settings(inference=EVIL), [], "evaluate")


@pytest.mark.parametrize(
    ("given", "left"),
    [
        (["inference.engine_args.model=mine"], {"model": "evil/model", "max_num_seqs": 8}),
        (["~inference.engine_args.model"], {"model": "evil/model", "max_num_seqs": 8}),
        (["++inference.engine_args.model=mine"], {"model": "evil/model", "max_num_seqs": 8}),
        (["inference=vllm"], {"max_num_seqs": 8}),
    ],
)
def test_what_is_given_again_is_put_in_its_place(given: list[str], left: dict[str, Any]) -> None:
    """Hydra puts an override in the place of a value; a group that is chosen would be merged with what is left."""
    assert take_from_folder("a", settings(inference=EVIL), given, "route")["inference"]["engine_args"] == left


def test_a_dictionary_is_not_merged_with_that_of_the_folder() -> None:
    inference = {"engine_args": {"hf_overrides": {"auto_map": "evil"}}}
    given = ["inference.engine_args.hf_overrides={a: 1}"]
    taken = take_from_folder("a", settings(inference=inference), given, "route")
    assert taken["inference"]["engine_args"] == {"hf_overrides": None}
    assert inference == {"engine_args": {"hf_overrides": {"auto_map": "evil"}}}, "the folder's own stay as they are"


@pytest.mark.parametrize("given", ["inference.engine_args={model: mine}", "inference.engine_args.hf_overrides.a=1"])
def test_another_key_gives_nothing(given: str) -> None:
    inference = {"engine_args": {"hf_overrides": {"b": 1}}}
    with pytest.raises(ValueError, match=r"inference\.engine_args\.hf_overrides must be given again"):
        take_from_folder("a", settings(inference=inference), [given], "route")


def test_a_command_asks_for_what_it_acts_on() -> None:
    extra = settings(trainer={"extra": {"default_root_dir": "/"}}, inference=EVIL)
    for command, groups in READS.items():
        asked = {key for key in permissions(extra) if key.partition(".")[0] in groups}
        if asked:
            with pytest.raises(ValueError, match="must be given again"):
                take_from_folder("a", extra, [], command)
        else:
            assert take_from_folder("a", extra, [], command) == extra
    assert {"trainer.extra.default_root_dir", "data.function", "inference.engine_args.model"} == set(permissions(extra))


def test_a_sweep_hands_its_permissions_to_its_job(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    real = settings(inference={"engine_args": {"hf_token": "a-token-typed", "max_num_seqs": 8}})
    for name, value in grant(real).items():
        assert name == GRANTED
        monkeypatch.setenv(name, value)
    stored = settings(inference={"engine_args": {"hf_token": "<redacted>", "max_num_seqs": 8}})
    assert take_from_folder("a", stored, [], "resume") == real
    # What is not among them is asked for nevertheless.
    with pytest.raises(ValueError, match=r"base_model\.trust_remote_code must be given again, as .*=true"):
        take_from_folder("a", {**stored, "base_model": {"trust_remote_code": True}}, [], "resume")


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (
            "${oc.env:HF_TOKEN}",
            "as 'inference.engine_args.hf_token=${oc.env:HF_TOKEN}': a run folder (a) keeps no secrets",
        ),
        ("<redacted>", "hf_token=...: a run folder (a) keeps no secrets"),
        ("a\x1b[2Jb", r"""hf_token="a\u001b[2Jb"': a run folder (a) may give a library only arguments"""),
    ],
)
def test_how_a_secret_is_given_again(value: str, shown: str) -> None:
    with pytest.raises(ValueError, match="given again") as error:
        take_from_folder("a", {"inference": {"engine_args": {"hf_token": value}}}, [], "route")
    assert shown in str(error.value)
