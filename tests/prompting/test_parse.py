"""Parsing: each kind of route and failure on its own, and that no name is ever taken for another."""

import random
import unicodedata
from collections.abc import Sequence

import pytest

from causal_lm_router.config.generation import ParseMode
from causal_lm_router.prompting.parse import called_candidate, parse_generation
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure, check_pool

STRICT, LENIENT, FUZZY = ParseMode.strict, ParseMode.lenient, ParseMode.fuzzy
EMPTY, UNKNOWN = ParseFailure.empty, ParseFailure.unknown
AMBIGUOUS, TRUNCATED = ParseFailure.ambiguous, ParseFailure.truncated
SOUND = (STRICT, LENIENT, FUZZY)
"""The modes in which no name is taken for another."""
GPT_POOL = ["gpt-4", "gpt-4o", "gpt-4o-mini", "claude-3"]


def parse(
    text: str, mode: ParseMode = LENIENT, names: Sequence[str] = GPT_POOL, *, cut: bool = False, threshold: float = 80
) -> str | ParseFailure | None:
    """The candidate or the failure; a fuzzy route fails the test unless it was asked for."""
    route = parse_generation(Generation(text, "length" if cut else "stop"), names, mode, threshold)
    assert mode is FUZZY or not route.fuzzy
    return route.failure if route.candidate is None else route.candidate


@pytest.mark.parametrize("mode", SOUND)
def test_right_llm(mode: ParseMode) -> None:
    route = parse_generation(Generation(" gpt-4o\n", "stop"), GPT_POOL, mode, 80)
    assert route == ParsedRoute("gpt-4o", failure=None, fuzzy=False)


@pytest.mark.parametrize("mode", SOUND)
def test_wrong_llm_is_the_one_that_was_named(mode: ParseMode) -> None:
    assert parse(" claude-3", mode) == "claude-3"


@pytest.mark.parametrize("mode", SOUND)
@pytest.mark.parametrize("text", ["I cannot decide", "llama-3", "the best is gpt-4", "\ufffd", "!!!"])
def test_unparsable(text: str, mode: ParseMode) -> None:
    assert parse(text, mode) is UNKNOWN


@pytest.mark.parametrize("mode", SOUND)
@pytest.mark.parametrize("text", ["", " ", " \n\t\u00a0\n"])
def test_empty(text: str, mode: ParseMode) -> None:
    assert parse(text, mode) is EMPTY
    # Cut off there, it could still have become any name.
    assert parse(text, mode, cut=True) is TRUNCATED


@pytest.mark.parametrize(
    "text",
    [
        "gpt-4 or claude-3",
        "gpt-4, claude-3",
        "gpt-4o is better than gpt-4",
        'gpt-4 ("claude-3")',
        "gpt-4 / gpt-4o-mini.",
    ],
)
def test_ambiguous(text: str) -> None:
    assert parse(text, LENIENT) is AMBIGUOUS
    assert parse(text, FUZZY) is AMBIGUOUS
    assert parse(text, STRICT) is UNKNOWN


def test_naming_the_same_candidate_twice_is_not_ambiguous() -> None:
    assert parse("gpt-4 it is: gpt-4.") == "gpt-4"
    assert parse("meta llama, yes meta llama", names=["llama", "meta llama"]) == "meta llama"


def test_another_candidate_on_a_later_line_does_not_count() -> None:
    assert parse("gpt-4\n\nQuery: next\n\nBest LLM: claude-3") == "gpt-4"


@pytest.mark.parametrize(
    "text", ["gpt-4 is not claude-35", "gpt-4 and x-claude-3", "gpt-4 and claude-3-opus", "gpt-4 Claude-3"]
)
def test_part_of_another_word_does_not_name_a_candidate(text: str) -> None:
    assert parse(text) == "gpt-4"


@pytest.mark.parametrize("mode", SOUND)
@pytest.mark.parametrize("text", ["gpt", "gpt-4o-", "gpt-4o-min", "claude", " \ngpt-4o-m"])
def test_truncated(text: str, mode: ParseMode) -> None:
    assert parse(text, mode, cut=True) is TRUNCATED


@pytest.mark.parametrize("mode", SOUND)
def test_cut_off_text_that_a_longer_name_begins_with_is_truncated(mode: ParseMode) -> None:
    assert parse("gpt-4", mode, cut=True) is TRUNCATED
    assert parse("gpt-4", mode, cut=False) == "gpt-4"
    assert parse("GPT 4 ", mode, ["GPT 4", "GPT 4 Turbo"], cut=True) is TRUNCATED
    assert parse("gpt-4.", mode, ["gpt-4", "gpt-4.5"], cut=True) is TRUNCATED


@pytest.mark.parametrize("mode", SOUND)
def test_cut_off_text_that_no_longer_name_begins_with_is_sure(mode: ParseMode) -> None:
    assert parse("gpt-4o-mini", mode, cut=True) == "gpt-4o-mini"
    assert parse("gpt-4\n", mode, cut=True) == "gpt-4"
    assert parse("gpt-4 ", mode, cut=True) == "gpt-4"


def test_cut_off_text_past_every_name_is_parsed_like_any_other() -> None:
    assert parse("gpt-4 because it is the stro", LENIENT, cut=True) == "gpt-4"
    assert parse("gpt-4 because it is the stro", STRICT, cut=True) is UNKNOWN
    assert parse("The best one is surely", LENIENT, cut=True) is UNKNOWN


@pytest.mark.parametrize("mode", SOUND)
def test_cut_inside_a_character_is_truncated(mode: ParseMode) -> None:
    assert parse("caf", mode, ["café", "tea"], cut=True) is TRUNCATED
    assert parse("caf\ufffd", mode, ["café", "tea"], cut=True) is TRUNCATED
    assert parse("cafe", mode, ["cafe", "cafe\u0301"], cut=True) is TRUNCATED
    assert parse("\ufffd", mode, ["名前", "tea"], cut=True) is TRUNCATED


def test_fuzzy_names_the_nearest_and_says_so() -> None:
    names = ["mixtral-8x7b-instruct", "llama-3-70b-instruct"]
    route = parse_generation(Generation(" mixtral-8x7-instruct\nQuery: more", "stop"), names, FUZZY, 90)
    assert route == ParsedRoute("mixtral-8x7b-instruct", failure=None, fuzzy=True)
    assert parse("mixtral-8x7-instruct", LENIENT, names) is UNKNOWN


def test_fuzzy_threshold_is_the_least_similarity_that_counts() -> None:
    # "abcd" and "abce": 8 characters, 2 edits (one deleted, one inserted): 100 * (1 - 2 / 8) = 75
    assert parse("abce", FUZZY, ["abcd", "zzzz"], threshold=75) == "abcd"
    assert parse("abce", FUZZY, ["abcd", "zzzz"], threshold=75.1) is UNKNOWN


def test_fuzzy_with_two_nearest_names_is_ambiguous() -> None:
    assert parse("model-c", FUZZY, ["model-a", "model-b"]) is AMBIGUOUS
    assert parse("xyz", FUZZY, ["model-a", "model-b"]) is UNKNOWN


def test_fuzzy_compares_with_case() -> None:
    assert parse("GPT-FOUR", FUZZY, ["gpt-four", "claude"]) is UNKNOWN


@pytest.mark.parametrize(
    "text",
    [
        "gpt-4",
        "gpt-4.",
        "gpt-4 is best",
        "gpt-4\nQuery: 2+2",
        "gpt-4, of course",
        'gpt-4"',
        "gpt-4).",
        "gpt-4: why",
        "gpt-4;x",
    ],
)
def test_lenient_takes_a_name_that_ends(text: str) -> None:
    assert parse(text) == "gpt-4"


@pytest.mark.parametrize(
    "text",
    [
        "gpt-4.5",
        "gpt-4-turbo",
        "gpt-4omni",
        "gpt-40",
        "gpt-4:free",
        "gpt-4/x",
        "gpt-4_x",
        "gpt-4+",
        "gpt-4\u0301",
        "gpt-4's",
        "Gpt-4",
    ],
)
def test_lenient_leaves_a_name_that_goes_on(text: str) -> None:
    assert parse(text) is UNKNOWN


@pytest.mark.parametrize("mode", [STRICT, LENIENT])
def test_names_that_contain_one_another(mode: ParseMode) -> None:
    names = ["llama-3-8b", "llama-3-8b-instruct", "llama-3", "a-llama-3-8b", "8b", "command-r", "command-r+"]
    for name in names:
        assert parse(f" {name}", mode, names) == name
    assert parse("llama-3-8b-instruct-v2", mode, names) is UNKNOWN
    assert parse("llama-3-8", mode, names) is UNKNOWN


def test_only_the_longest_name_the_text_starts_with_counts() -> None:
    names = ["GPT 4", "GPT 4 Turbo"]
    assert parse("GPT 4 Turbo is best", names=names) == "GPT 4 Turbo"
    assert parse("GPT 4 Turbo-preview", names=names) is UNKNOWN
    assert parse("GPT 4 rules", names=names) == "GPT 4"
    assert parse("GPT 4 Turbo, yes GPT 4 Turbo", names=names) == "GPT 4 Turbo"


@pytest.mark.parametrize("mode", SOUND)
def test_unicode_normalisation_does_not_matter_and_the_pools_spelling_is_returned(mode: ParseMode) -> None:
    composed, decomposed = "modèle-é", unicodedata.normalize("NFD", "modèle-é")
    assert composed != decomposed
    assert parse(decomposed, mode, [composed, "other"]) == composed
    assert parse(composed, mode, [decomposed, "other"]) == decomposed


def test_names_are_text_not_patterns() -> None:
    names = ["a.c", "a+b", "x(1)", "[y]", "\\d"]
    assert parse("abc", names=names) is UNKNOWN
    assert parse("a+b and [y]", names=names) is AMBIGUOUS
    assert parse("x(1) wins", names=names) == "x(1)"


def random_pool(rng: random.Random) -> list[str]:
    """2 to 12 names out of few pieces, so that they contain one another often; half of them extend an earlier name."""
    pieces = [
        "gpt",
        "4",
        "o",
        "-",
        ".",
        " ",
        "/",
        ":",
        "+",
        "é",
        "e\u0301",
        "名",
        "(x)",
        "'",
        ",",
        "B",
        "b",
        "|",
        "🤖",
        "_",
    ]
    pool: dict[str, str] = {}
    while len(pool) < rng.randint(2, 12):
        base = rng.choice([*pool.values(), ""])
        name = (base + "".join(rng.choices(pieces, k=rng.randint(1, 4)))).strip()
        if name:
            pool.setdefault(unicodedata.normalize("NFC", name), name)
    names = list(pool.values())
    check_pool(names)
    return names


@pytest.mark.parametrize("mode", SOUND)
def test_every_target_parses_back_to_its_name_in_any_pool(mode: ParseMode) -> None:
    rng = random.Random(0)
    for _ in range(400):
        names = random_pool(rng)
        for name in names:
            assert parse(f" {name}", mode, names) == name, (name, names)
            assert parse(f" {unicodedata.normalize('NFD', name)}", mode, names) == name, (name, names)
            if mode is not STRICT:
                assert parse(f" {name}\n\nQuery: {names[0]}", mode, names) == name, (name, names)


def test_cutting_a_target_short_never_names_another_candidate() -> None:
    rng = random.Random(1)
    for _ in range(400):
        names = random_pool(rng)
        for name in names:
            for length in range(1, len(name)):
                assert parse(name[:length], FUZZY, names, cut=True, threshold=0) in (TRUNCATED, EMPTY), (name, names)


def test_fallback_is_called_only_after_a_failure() -> None:
    failed, parsed = ParsedRoute(None, UNKNOWN), ParsedRoute("gpt-4")
    assert called_candidate(parsed, None) == "gpt-4"
    assert called_candidate(parsed, "claude-3") == "gpt-4"
    assert called_candidate(failed, "claude-3") == "claude-3"
    assert called_candidate(failed, None) is None


# What LLMRouter 0.4.0 makes of a text, worked out by hand from its rules, and what our parser calls it.
LLMROUTER_POOL = ["qwen2.5-7b-instruct", "gemma-2-9b-it", "llama-3.1-8b-instruct", "gpt-4", "gpt-4o", "Mixtral8x7B"]
GUESSES = {
    "": ("qwen2.5-7b-instruct", EMPTY),
    "   ": ("qwen2.5-7b-instruct", EMPTY),
    "gpt-4o": ("gpt-4", "gpt-4o"),
    "gpt-4": ("gpt-4", "gpt-4"),
    " gpt-4": ("gpt-4", "gpt-4"),
    "GPT-4": ("gpt-4", UNKNOWN),
    "gpt-4o-mini": ("gpt-4", UNKNOWN),
    "gpt-4.5": ("gpt-4", UNKNOWN),
    "gpt-3.5": ("gpt-4", UNKNOWN),
    "gpt": ("gpt-4", UNKNOWN),
    "gpt5": ("gpt-4", UNKNOWN),
    "Mixtral8x7B": ("Mixtral8x7B", "Mixtral8x7B"),
    "mixtral8x7b": ("Mixtral8x7B", UNKNOWN),
    "mixtral": ("qwen2.5-7b-instruct", UNKNOWN),
    "gemma-2-9b-it": ("gemma-2-9b-it", "gemma-2-9b-it"),
    "gemma-2-9b": ("gemma-2-9b-it", UNKNOWN),
    "gemma-2": ("gemma-2-9b-it", UNKNOWN),
    "gemma": ("gemma-2-9b-it", UNKNOWN),
    "llama-3.1-8b-instruct": ("llama-3.1-8b-instruct", "llama-3.1-8b-instruct"),
    "llama-3.1-8b": ("llama-3.1-8b-instruct", UNKNOWN),
    "llama-3.1-70b-instruct": ("qwen2.5-7b-instruct", UNKNOWN),
    "llama": ("llama-3.1-8b-instruct", UNKNOWN),
    "llama-2": ("gemma-2-9b-it", UNKNOWN),
    "qwen2.5-7b-instruct": ("qwen2.5-7b-instruct", "qwen2.5-7b-instruct"),
    "qwen2.5-7b": ("qwen2.5-7b-instruct", UNKNOWN),
    "qwen": ("qwen2.5-7b-instruct", UNKNOWN),
    "instruct": ("qwen2.5-7b-instruct", UNKNOWN),
    "an instruction-tuned LLM": ("qwen2.5-7b-instruct", UNKNOWN),
    "it depends": ("gemma-2-9b-it", UNKNOWN),
    "I cannot write it": ("gemma-2-9b-it", UNKNOWN),
    "either": ("gemma-2-9b-it", UNKNOWN),
    "quite hard": ("gemma-2-9b-it", UNKNOWN),
    "2": ("gemma-2-9b-it", UNKNOWN),
    "4": ("gpt-4", UNKNOWN),
    "42": ("gemma-2-9b-it", UNKNOWN),
    "4o": ("gpt-4", UNKNOWN),
    "none": ("qwen2.5-7b-instruct", UNKNOWN),
    "claude": ("qwen2.5-7b-instruct", UNKNOWN),
    "The best LLM is gpt-4o.": ("gpt-4", UNKNOWN),
    "gpt-4 or gemma-2-9b-it": ("gemma-2-9b-it", AMBIGUOUS),
    "not gemma-2-9b-it but gpt-4": ("gemma-2-9b-it", UNKNOWN),
    "gpt-4 is best": ("gpt-4", "gpt-4"),
    "gpt-4\nQuery: what is gemma-2-9b-it?": ("gemma-2-9b-it", "gpt-4"),
    "\u2248 7b": ("qwen2.5-7b-instruct", UNKNOWN),
}


@pytest.mark.parametrize(("text", "expected"), GUESSES.items())
def test_llmrouters_guess_beside_what_the_text_is(text: str, expected: tuple[str, str | ParseFailure]) -> None:
    guess, ours = expected
    route = parse_generation(Generation(text, "stop"), LLMROUTER_POOL, ParseMode.llmrouter, 80)
    assert (route.candidate, route.failure) == (guess, None)
    assert parse(text, LENIENT, LLMROUTER_POOL) == ours
    assert route.fuzzy is (guess != ours), "a guess is marked"


def test_llmrouters_guess_where_a_name_has_an_empty_part() -> None:
    route = parse_generation(Generation("none", "length"), ["first", "a--b"], ParseMode.llmrouter, 80)
    assert route == ParsedRoute("a--b", fuzzy=True)
