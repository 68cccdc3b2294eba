"""Settings of the group `data`."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from causal_lm_router.config.checks import Settings, check, check_fraction, check_function


class Source(StrEnum):
    """The format routing data is read from."""

    llmrouter = "llmrouter"
    routerdc = "routerdc"
    routellm = "routellm"
    routerbench = "routerbench"
    mmlu_pro = "mmlu_pro"
    preferences = "preferences"
    jsonl = "jsonl"
    csv = "csv"
    hub = "hub"
    simulated = "simulated"
    own = "own"


BY_TASK = "task"
"""The value of `data.group_by` that every source knows."""


_SOURCES_WITH_COLUMNS = (Source.jsonl, Source.csv, Source.hub, Source.mmlu_pro)
"""Sources whose rows may have further columns, which `data.group_by` may name."""


class OnBadRow(StrEnum):
    """What happens to a row that cannot be used."""

    error = "error"
    skip = "skip"


class TieBreak(StrEnum):
    """Which of several best candidates becomes the label."""

    cheapest = "cheapest"
    best_on_train = "best_on_train"
    first = "first"
    random = "random"


@dataclass
class DataConfig(Settings):
    """What every source of routing data shares; each source adds its own keys in a subclass."""

    source: Source
    """The format to read."""
    on_bad_row: OnBadRow
    """`error` stops at the first unusable row, `skip` leaves it out, counts it and reports it."""
    max_query_chars: int
    """A longer query is a bad row."""
    use_source_split: bool
    """Take the splits from the source instead of splitting anew; validation is cut from train where it has none."""
    validation_fraction: float
    """Share of the queries held out for choosing settings."""
    test_fraction: float
    """Share of the queries held out for the final report."""
    split_seed: int
    """Seed of the split; apart from `seed`, so that runs with several seeds share one test set."""
    test_fold: int
    """Which part of the data is test, from 0: `test_fraction=0.2` cuts five disjoint ones. Cross-validation sweeps
    them."""
    group_by: str | None
    """Keep all queries with one value of this column in one split: `task`, or a column of the source's own (`jsonl`,
    `csv`, `hub` and `mmlu_pro`); null splits query by query."""
    test_tasks: list[str]
    """Test on all queries of these tasks, and train and validate on the others; [] cuts test out of every task."""
    skip_tasks: list[str]
    """Leave out all queries of these tasks, of every split: tasks whose scores cannot be trusted."""
    max_train_queries: int | None
    """Use at most this many training queries, drawn with split_seed; null uses all."""
    near_duplicate_threshold: float
    """Jaccard similarity of character 5-gram sets above which two queries count as near-duplicates in the audit."""
    renamed_candidates: dict[str, str]
    """Old name -> new name of candidates: to evaluate a router on names that it was not trained on."""
    held_out_candidates: list[str]
    """Candidates left out of training: out of labels, objectives and listed candidates, but not out of the pool."""
    task_shrinkage: float
    """Train on scores drawn this far (0..1) towards the mean of their task on train: one answer to a query is a noisy
    sign of how well a candidate does on queries like it. Evaluation always counts the scores themselves."""
    shuffle_train_scores: bool
    """Train on the scores of other training queries, drawn with split_seed: a control, which learns nothing of them."""
    cost_weight: float
    """The label is the candidate of the highest score - cost_weight * cost (USD): 0 looks at scores alone."""
    tie_break: TieBreak
    """Which of several best candidates becomes the label."""
    keep_undecided: bool
    """Keep training queries on which all candidates score the same."""

    def _own_problems(self) -> Iterator[str]:
        has_columns = self.source in _SOURCES_WITH_COLUMNS
        allowed = "a column, task or null" if has_columns else f"task or null under data={self.source}"
        fits = self.group_by in (None, BY_TASK) or (has_columns and bool(self.group_by))
        yield from check(fits, "data.group_by", allowed, self.group_by)
        fits = not (self.test_tasks and self.use_source_split)
        yield from check(fits, "data.test_tasks", "[] under data.use_source_split=true", self.test_tasks)
        yield from self._fold_problems()
        for name in ("validation_fraction", "test_fraction", "near_duplicate_threshold", "task_shrinkage"):
            yield from check_fraction(f"data.{name}", getattr(self, name))
        held_out = self.validation_fraction + self.test_fraction
        yield from check(held_out < 1.0, "data.validation_fraction + data.test_fraction", "below 1", held_out)
        yield from self.check_counts("data", "max_query_chars")
        yield from self.check_counts("data", "max_train_queries", or_null=True)
        yield from check(self.cost_weight >= 0, "data.cost_weight", "a number of at least 0", self.cost_weight)

    def _fold_problems(self) -> Iterator[str]:
        if self.use_source_split or self.test_tasks:
            allowed = "0 where test is given by data.use_source_split or data.test_tasks"
            yield from check(self.test_fold == 0, "data.test_fold", allowed, self.test_fold)
        elif self.test_fold:
            # Rounded, since 1 / 0.1 may come out below 10.
            num_folds = int(round(1 / self.test_fraction, 6)) if self.test_fraction > 0 else 1
            allowed = f"in 0..{num_folds - 1} under data.test_fraction={self.test_fraction}"
            yield from check(0 <= self.test_fold < num_folds, "data.test_fold", allowed, self.test_fold)


@dataclass
class SimulatedConfig(Settings):
    """The item-response model behind `data=simulated`."""

    num_queries: int
    """How many queries to generate."""
    num_attempts: int
    """Graded attempts per candidate and query; the score is the share that succeeds."""
    discrimination: float
    """Slope of the item-response curve: how fast success falls as difficulty passes skill."""
    tasks: list[str]
    """reasoning-gym task types, each one of the built-in list; [] takes the whole list."""
    seed: int
    """Seed of queries and outcomes; apart from `seed`, so that runs with several seeds share one data set."""

    def _own_problems(self) -> Iterator[str]:
        slope = self.discrimination
        fits = self.num_queries >= 30
        yield from check(fits, "data.simulated.num_queries", "an integer of at least 30", self.num_queries)
        yield from self.check_counts("data.simulated", "num_attempts")
        yield from check(slope > 0, "data.simulated.discrimination", "a number above 0", slope)
        yield from check(self.seed >= 0, "data.simulated.seed", "an integer of at least 0", self.seed)


@dataclass
class SimulatedDataConfig(DataConfig):
    """`data=simulated`: generated queries with outcomes from a known model."""

    simulated: SimulatedConfig
    """What is generated."""


@dataclass
class FileDataConfig(DataConfig):
    """What all sources that read recorded answers share."""

    path: str | None
    """File, folder or dataset the source reads; relative paths start at the working directory."""
    test_path: str | None
    """File or folder of the source's test split, where it is kept apart from `path`; needs use_source_split."""
    pool_path: str | None
    """Pool file (LLMRouter's JSON: name -> prices, description); null looks beside the data, where the source may."""
    assumed_output_tokens: int | None
    """Estimate costs that the source does not give from prices: four characters a token in, this many tokens out.
    null leaves them unknown."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        fits = self.test_path is None or self.use_source_split
        yield from check(fits, "data.test_path", "null without data.use_source_split=true", self.test_path)
        tokens = self.assumed_output_tokens
        fits = tokens is None or tokens >= 0
        yield from check(fits, "data.assumed_output_tokens", "an integer of at least 0, or null", tokens)


@dataclass
class JsonlDataConfig(FileDataConfig):
    """`data=jsonl`: this project's own format."""


@dataclass
class CsvDataConfig(FileDataConfig):
    """`data=csv`: a table with a row per query and a column per candidate."""


@dataclass
class MmluProDataConfig(FileDataConfig):
    """`data=mmlu_pro`: MMLU-Pro's questions with the published outputs of LLMs."""

    candidates: list[str]
    """The pool: only the files of these LLMs are read; [] reads all."""


@dataclass
class PreferencesDataConfig(FileDataConfig):
    """`data=preferences`: judgements of two LLMs' answers."""

    tiers: dict[str, str]
    """LLM -> the tier it belongs to, of two, such as strong and weak; {} takes the two LLMs of the first row."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        fits = len(set(self.tiers.values())) in (0, 2)
        yield from check(fits, "data.tiers", "LLMs in two tiers, or empty", self.tiers)


@dataclass
class QueryFilesDataConfig(FileDataConfig):
    """Sources whose tasks may stand in LLMRouter's query files."""

    query_path: str | None
    """LLMRouter's query file(s) (a file or a glob), joined on the query text for tasks; null looks beside the data."""


@dataclass
class LLMRouterDataConfig(QueryFilesDataConfig):
    """`data=llmrouter`: LLMRouter's routing data."""


@dataclass
class RouterDCDataConfig(QueryFilesDataConfig):
    """`data=routerdc`: RouterDC's score matrix as LLMRouter writes it."""


@dataclass
class RouteLLMDataConfig(FileDataConfig):
    """`data=routellm`: RouteLLM's response tables."""

    files: str | None
    """Read only the files of the folder `path` whose names match this glob; null reads all."""
    drop_contaminated: bool
    """Leave out the prompts RouteLLM lists as too close to its training data."""


@dataclass
class RouterBenchDataConfig(FileDataConfig):
    """`data=routerbench`: RouterBench's wide table."""

    allow_pickle: bool
    """Allow unpickling a RouterBench file: unpickling runs code of the file's author."""


@dataclass
class ColumnsConfig:
    """Which columns of a dataset hold what."""

    query: str
    """Column of the query text."""
    task: str | None
    """Column of the task name; null puts all rows into one task."""
    query_id: str | None
    """Column of a unique id; null takes a hash of the query's text."""
    scores: dict[str, str | None]
    """Candidate name -> column of its score; null for one whose answers the others are judged by: its score is the
    highest of all."""
    costs: dict[str, str]
    """Candidate name -> column of its cost in USD; {} means unknown."""


@dataclass
class HubDataConfig(FileDataConfig):
    """`data=hub`: any dataset that `datasets.load_dataset` reads."""

    hub_config: str | None
    """Configuration name for `datasets.load_dataset`."""
    hub_split: str
    """Split expression for `datasets.load_dataset`."""
    columns: ColumnsConfig
    """Column mapping."""
    score_range: list[float]
    """The lowest and the highest score that the columns hold, such as [1, 5]; they are brought to 0..1."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        # The libraries name a folder of their cache after it.
        plain = self.hub_config is None or not (set("/\\") & set(self.hub_config) or not self.hub_config.strip("."))
        yield from check(plain, "data.hub_config", "the name of a configuration, or null", self.hub_config)
        lowest_first = len(self.score_range) == 2 and self.score_range[0] < self.score_range[1]
        allowed = "two numbers, the lowest score and the highest"
        yield from check(lowest_first, "data.score_range", allowed, self.score_range)
        scores, costs = self.columns.scores, self.columns.costs
        fits = not costs or costs.keys() == scores.keys()
        whose = f"a column for each candidate of data.columns.scores ({', '.join(scores)}), or empty"
        yield from check(fits, "data.columns.costs", whose, costs)


@dataclass
class OwnDataConfig(DataConfig):
    """`data=own`: a Python function of your own reads the data."""

    function: str
    """The function, `package.module:function`: it takes this config and returns a RoutingData."""
    path: str | None
    """File or folder to read, if the function wants one."""
    options: dict[str, Any]
    """Settings of your own, handed to the function."""

    def _own_problems(self) -> Iterator[str]:
        yield from super()._own_problems()
        yield from check_function("data.function", self.function, needed=True)


SOURCE_SCHEMAS: dict[Source, type[DataConfig]] = {
    Source.llmrouter: LLMRouterDataConfig,
    Source.routerdc: RouterDCDataConfig,
    Source.routellm: RouteLLMDataConfig,
    Source.routerbench: RouterBenchDataConfig,
    Source.mmlu_pro: MmluProDataConfig,
    Source.preferences: PreferencesDataConfig,
    Source.jsonl: JsonlDataConfig,
    Source.csv: CsvDataConfig,
    Source.hub: HubDataConfig,
    Source.simulated: SimulatedDataConfig,
    Source.own: OwnDataConfig,
}
"""The keys of `data`, by `data.source`."""
