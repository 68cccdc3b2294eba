"""The `mmlu_pro` format: MMLU-Pro's questions with the outputs of LLMs as the MMLU-Pro project publishes them.

`data.path` is a folder with `model_outputs_<candidate>_5shots.zip`, or a glob of such names. The files are the pool, or
those of `data.candidates` are. Each holds one JSON list (in the archive, or as a plain `.json`), an item a question:

    {"question_id": 70, "question": text, "options": [text, ...], "answer": "I", "category": "business", "src": text,
     "pred": "I" or null, "generated_text" or "model_outputs": the candidate's output}

The query is the question with its options, each after its letter; the task is the category. A candidate scores 1 where
`pred` is the answer, else 0: no answer (null) is wrong, and how many there are is said. Questions are left out that one
of the files lacks, or that differ between files: the project corrected options and answers over time. Questions of one
text (with other options) stay in one split; `data.group_by=src` keeps whole sources together.

Prices come from `data.pool_path`, or from `pool.json` beside the files. Costs count four characters a token, of query
and output: the five examples in front of each question are not in the files. Messages name the item of a file.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from causal_lm_router.config import MmluProDataConfig
from causal_lm_router.data.sources.files import find_files, require_path
from causal_lm_router.data.sources.pool import answer_cost, choose_pool, count_tokens, find_pool
from causal_lm_router.data.sources.row_values import require, require_text
from causal_lm_router.data.sources.rows import ExampleCollector, hash_query
from causal_lm_router.data.sources.strict_json import read_list
from causal_lm_router.routing import Candidate, RoutingData

POOL_FILE = "pool.json"
_PREFIX, _SUFFIX = "model_outputs_", "_5shots"
_LETTERS = tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
_OUTPUTS = ("generated_text", "model_outputs")


@dataclass(slots=True)
class _Question:
    """A question, and what each candidate answered: whether it was right, and the output's length in tokens.

    `differs_at` is the first item that has other words or another answer under the same id, if there is one.
    """

    location: str
    query: str
    answer: str
    task: str
    family: str
    group: str | None
    num_choices: int
    differs_at: str = ""
    is_right: dict[str, bool] = field(default_factory=dict)
    output_tokens: dict[str, float] = field(default_factory=dict)


def load(config: MmluProDataConfig) -> RoutingData:
    """Return the routing data of MMLU-Pro's model outputs.

    Raises:
        ValueError: there is no such file, a file is damaged, or an item is bad; the message names file and item.
    """
    value = require_path("data.path", config.path, f"a folder with {_PREFIX}*.zip, or a glob or file of them")
    paths = find_files("data.path", value, [f"{_PREFIX}*.zip", f"{_PREFIX}*.json"])
    names = {path: path.stem.removeprefix(_PREFIX).removesuffix(_SUFFIX) for path in paths}
    unknown = sorted(set(config.candidates) - set(names.values()))
    if unknown:
        listed = ", ".join(names.values())
        raise ValueError(f"data.candidates must be LLMs with a file in data.path ({listed}), got {unknown}")
    names = {path: name for path, name in names.items() if not config.candidates or name in config.candidates}
    try:
        pool = choose_pool(list(names.values()), find_pool(config, paths[0].parent, POOL_FILE))
    except ValueError as error:
        raise ValueError(f"data.path={value!r}: the files are the pool: {error}") from None
    collector = ExampleCollector(config, pool)
    questions: dict[str, _Question] = {}
    # One file at a time: together their outputs are half a gigabyte of text.
    num_unanswered = {names[path]: _read_file(path, names[path], questions, collector) for path in names}
    _add_questions(questions, pool, collector)
    _warn_of_answers(num_unanswered, len(questions), pool, collector)
    return collector.data()


def _read_file(path: Path, name: str, questions: dict[str, _Question], collector: ExampleCollector) -> int:
    """Add a candidate's answers to the questions; return how many of them are none."""
    num_unanswered = 0
    for number, item in _read_items(path):
        with collector.row(f"{path}: item {number}"):
            row = item.row()
            predicted = require(row, "pred")
            if predicted is not None and (not isinstance(predicted, str) or predicted not in _LETTERS):
                raise ValueError(f"'pred' must be a letter or null, got {predicted!r}")
            output = require_text(row, next((key for key in _OUTPUTS if key in row), _OUTPUTS[0]))
            question = _find_question(row, f"{path}: item {number}", questions, collector)
            if name in question.is_right:
                raise ValueError(f"question_id {row['question_id']!r} appears twice")
            question.is_right[name] = predicted == question.answer
            question.output_tokens[name] = count_tokens(output)
            num_unanswered += predicted is None
    return num_unanswered


def _read_items(path: Path) -> Iterator[tuple[int, Any]]:
    if path.suffix != ".zip":
        yield from read_list(path)
        return
    try:
        with zipfile.ZipFile(path) as archive:
            inner = [name for name in archive.namelist() if name.endswith(".json")]
            if len(inner) != 1:
                raise ValueError(f"{path}: the archive must hold one .json file, got {len(inner)}")
            content = archive.read(inner[0])
    except (zipfile.BadZipFile, EOFError) as error:
        raise ValueError(f"{path}: no whole zip archive: {error}") from None
    yield from read_list(path, content)


def _find_question(
    row: dict[str, Any], location: str, questions: dict[str, _Question], collector: ExampleCollector
) -> _Question:
    """Return the question of an item, which is made where no file before had it."""
    text, options, answer = require_text(row, "question"), require(row, "options"), require_text(row, "answer")
    if not isinstance(options, list) or not all(isinstance(option, str) for option in options):
        raise ValueError(f"'options' must be a list of texts, got {options!r}")
    if answer not in _LETTERS[: len(options)]:
        raise ValueError(f"'answer' must be the letter of one of {len(options)} options, got {answer!r}")
    lines = [f"{letter}. {option}" for letter, option in zip(_LETTERS, options, strict=False)]
    query, task = "\n".join([text, *lines]), require_text(row, "category")
    question_id = str(require(row, "question_id"))
    question = questions.get(question_id)
    if question is None:
        # Not by `setdefault`, which would hash the text again for every candidate.
        values = (hash_query(text), collector.find_group(row), len(options))
        question = questions[question_id] = _Question(location, query, answer, task, *values)
    if (question.query, question.answer) != (query, answer) and not question.differs_at:
        question.differs_at = location
    return question


def _add_questions(questions: dict[str, _Question], pool: tuple[Candidate, ...], collector: ExampleCollector) -> None:
    for question_id, question in questions.items():
        missing = [one.name for one in pool if one.name not in question.is_right]
        if missing:
            collector.leave_out(question.location, f"no output of {', '.join(missing)}")
            continue
        if question.differs_at:
            collector.leave_out(question.location, f"{question.differs_at} has other options or another answer")
            continue
        with collector.row(question.location):
            input_tokens = count_tokens(question.query)
            costs = {one.name: answer_cost(one, input_tokens, question.output_tokens[one.name]) for one in pool}
            known = costs if any(cost is not None for cost in costs.values()) else None
            collector.add(
                question.query,
                question.is_right,
                known,
                question.task,
                question_id,
                family=question.family,
                group=question.group,
                num_choices=question.num_choices,
            )


def _warn_of_answers(
    num_unanswered: dict[str, int], num_questions: int, pool: tuple[Candidate, ...], collector: ExampleCollector
) -> None:
    shares = {one.name: num_unanswered[one.name] / num_questions for one in pool if num_unanswered[one.name]}
    if shares:
        listed = ", ".join(f"{name} {share:.1%}" for name, share in shares.items())
        collector.warn(f"outputs in which no answer was found score 0: {listed} of the questions.")
    collector.warn(
        "token counts are estimates, four characters a token of query and output; the five examples in front of each "
        "question are not counted."
    )
