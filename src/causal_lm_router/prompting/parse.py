"""From generated text to a route: the candidate a generation names, or the named failure to name one.

Text and names compare in Unicode NFC and with case; white space around the text is ignored. Names must have passed
`check_pool`; then no name is taken for another, even where one contains another.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence

from rapidfuzz import fuzz

from causal_lm_router.config.generation import ParseMode
from causal_lm_router.routing import Generation, ParsedRoute, ParseFailure

# What ends a name: the end of the text, white space, or a mark that closes. A full stop, colon or apostrophe closes
# only where one of these follows, since `gpt-4` is not what `gpt-4.5` or `gpt-4:free` names.
_NAME_END = r"(?=[.:']*(?:$|[\s,;!?\")\]}]))"
# Where a name may begin inside a line: not within a word, nor behind a word and a mark that joins the parts of names.
_NAME_START = r"(?<!\w)(?<!\w[-./:+@])"
# A decoder writes this character for the half of a character that a cut left over.
_HALF_CHARACTER = "\ufffd"


def parse_generation(
    generation: Generation, names: Sequence[str], mode: ParseMode, fuzzy_threshold: float
) -> ParsedRoute:
    """Return the route that a generation names among the candidates `names`, or why it names none.

    - strict: the whole text is a name.
    - lenient: the first line starts with a name, and the name ends there: `gpt-4` is found in `gpt-4.` and in `gpt-4 is
      best`, not in `gpt-4o` or `gpt-4-turbo`. Of several names the text starts with, only the longest counts. A line
      that goes on to name another candidate is `ambiguous`.
    - fuzzy: lenient; where that finds nothing (`unknown`), the name most similar to the first line by rapidfuzz's ratio
      (0..100), if it reaches `fuzzy_threshold`; two names at the same best ratio are `ambiguous`.

    - llmrouter: what LLMRouter does (arXiv 2608.06867, its code in version 0.4.0): the first name that the text
      contains without case; else the first of which a part between hyphens is contained; else the first of all. It
      takes `gpt-4o` for `gpt-4` and hides every failure: it is for reproductions alone. A route that `lenient` does
      not find is marked as fuzzy.

    In the other modes, text that was cut off (`finish_reason` "length") while it could still have become a (longer)
    name is `truncated`, even where it equals a shorter name or is white space alone; text cut off past that point is
    parsed like any other. Other text of nothing but white space is `empty`. Everything else is `unknown`.
    """
    if mode is ParseMode.llmrouter:
        found = parse_generation(generation, names, ParseMode.lenient, fuzzy_threshold)
        guess = _guess_as_llmrouter(generation.text, names)
        return ParsedRoute(guess, fuzzy=found.candidate != guess)
    # Accents may come as one character or as two; NFC makes them one.
    by_normalised = {unicodedata.normalize("NFC", name): name for name in names}
    # Before any match: what was cut off after `gpt-4` may have been going to be `gpt-4o`, and what was cut off after
    # white space may have been going to be any name.
    if generation.finish_reason == "length" and _may_continue(generation.text, names):
        return ParsedRoute(None, ParseFailure.truncated)
    text = unicodedata.normalize("NFC", generation.text).strip()
    if not text:
        return ParsedRoute(None, ParseFailure.empty)
    if mode is ParseMode.strict:
        return _named(by_normalised.get(text))
    # Base models often go on with another made-up query in the next line.
    first_line = text.splitlines()[0]
    route = _parse_start(first_line, by_normalised)
    if mode is ParseMode.fuzzy and route.failure is ParseFailure.unknown:
        return _parse_nearest(first_line, by_normalised, fuzzy_threshold)
    return route


def called_candidate(route: ParsedRoute, fallback: str | None) -> str | None:
    """Return the candidate to call: the route's, or `fallback` (which may be None: call none) after a parse failure."""
    return fallback if route.candidate is None else route.candidate


def _guess_as_llmrouter(text: str, names: Sequence[str]) -> str:
    shown = text.strip().lower()
    whole = (name for name in names if name.lower() in shown)
    # Between two hyphens in a row lies an empty part, which every text contains.
    in_part = (name for name in names if any(part.lower() in shown for part in name.split("-")))
    return next(whole, None) or next(in_part, names[0])


def _named(candidate: str | None) -> ParsedRoute:
    return ParsedRoute(candidate, ParseFailure.unknown if candidate is None else None)


def _may_continue(text: str, names: Sequence[str]) -> bool:
    """Return whether text that was cut off is a proper prefix of a name, white space at its end included.

    Compared in NFD: there a letter that lost the accent to come is a prefix of the accented letter.
    """
    begun = unicodedata.normalize("NFD", text.rstrip(_HALF_CHARACTER)).lstrip()
    return any(
        len(name) > len(begun) and name.startswith(begun)
        for name in (unicodedata.normalize("NFD", name) for name in names)
    )


def _parse_start(line: str, by_normalised: Mapping[str, str]) -> ParsedRoute:
    # The longest: `llama-3-8b-instruct` also starts with `llama-3-8b`.
    begun = max((name for name in by_normalised if line.startswith(name)), key=len, default=None)
    if begun is None or not re.compile(_NAME_END).match(line, len(begun)):
        return _named(None)
    # A regular expression takes the first alternative that fits, so longer names come first.
    longest_first = sorted(by_normalised, key=len, reverse=True)
    mention = re.compile(f"{_NAME_START}(?:{'|'.join(map(re.escape, longest_first))}){_NAME_END}")
    if any(match.group() != begun for match in mention.finditer(line, len(begun))):
        return ParsedRoute(None, ParseFailure.ambiguous)
    return _named(by_normalised[begun])


def _parse_nearest(line: str, by_normalised: Mapping[str, str], threshold: float) -> ParsedRoute:
    similarity = {name: fuzz.ratio(line, name) for name in by_normalised}
    best = max(similarity.values())
    nearest = [name for name, value in similarity.items() if value == best]
    if best < threshold:
        return _named(None)
    # Two names at the same distance: either would be a guess.
    if len(nearest) > 1:
        return ParsedRoute(None, ParseFailure.ambiguous)
    return ParsedRoute(by_normalised[nearest[0]], fuzzy=True)
