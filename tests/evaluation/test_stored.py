"""Reading report.json and outcomes.jsonl back, as they are written today and as they were before."""

import dataclasses
import json
from pathlib import Path

import pytest

from causal_lm_router.evaluation.evaluation_folder import outcome_rows, write_evaluation
from causal_lm_router.evaluation.metrics import Evaluation, evaluate_outcomes
from causal_lm_router.evaluation.stored import read_evaluation, read_report
from causal_lm_router.files.checksums import CHECKSUMS
from causal_lm_router.routing import Generation, ParsedRoute, RouteOutcome, RoutingExample


@pytest.fixture
def written(tmp_path: Path) -> tuple[Evaluation, Path]:
    outcomes = [
        RouteOutcome(
            example=RoutingExample(query_id, f"line\u2028{query_id}", "task", scores, {"a": 0.1, "b": 0.2}),
            label="a",
            generation=Generation(" a\u2028", "stop"),
            route=ParsedRoute("a"),
            called="a",
        )
        for query_id, scores in (("q2", {"a": 0.5, "b": 1.0}), ("q1", {"a": 1.0, "b": 0.0}))
    ]
    evaluation = evaluate_outcomes(outcomes, ["a", "b"], "b")
    write_evaluation(tmp_path, evaluation, {"split": "test"}, with_pictures=False)
    return evaluation, tmp_path


def test_an_evaluation_is_read_back(written: tuple[Evaluation, Path]) -> None:
    evaluation, folder = written
    assert read_report(folder) == evaluation.report
    found = read_evaluation(folder)
    assert (found.split, found.query_ids) == ("test", ("q1", "q2")), "sorted by query id"
    assert found.values["mean_score"].tolist() == [1.0, 0.5]
    assert found.best_single is not None
    assert found.best_single["routing_accuracy"].tolist() == [0.0, 1.0]
    assert found.table is not None
    assert found.table.scores.tolist() == [[1.0, 0.0], [0.5, 1.0]]


def test_the_warnings_open_the_report_and_a_row_holds_its_query(written: tuple[Evaluation, Path]) -> None:
    evaluation, folder = written
    warned = dataclasses.replace(evaluation, report=dataclasses.replace(evaluation.report, warnings=("beware",)))
    write_evaluation(folder, warned, {"split": "test", "name": "x"}, with_pictures=False)
    plain = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    assert [*plain][:3] == ["warnings", "split", "name"]
    assert plain["warnings"] == ["beware"]
    assert read_report(folder) == warned.report
    assert [(row["query_id"], row["query"]) for row in outcome_rows(evaluation.outcomes)] == [
        ("q2", "line\u2028q2"),
        ("q1", "line\u2028q1"),
    ]
    # Rows of earlier versions lack the query.
    (folder / CHECKSUMS).unlink()
    path = folder / "outcomes.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    path.write_text(
        "\n".join(json.dumps({k: v for k, v in row.items() if k != "query"}) for row in rows), encoding="utf-8"
    )
    assert read_evaluation(folder).query_ids == ("q1", "q2")


def test_a_report_with_older_keys_is_read(written: tuple[Evaluation, Path]) -> None:
    evaluation, folder = written
    (folder / CHECKSUMS).unlink()  # older folders have none
    path = folder / "report.json"
    plain = json.loads(path.read_text(encoding="utf-8"))
    older = {"references": "baselines", "candidate_names": "candidates"}
    path.write_text(json.dumps({older.get(key, key): value for key, value in plain.items()}), encoding="utf-8")
    assert "candidate_names" not in path.read_text(encoding="utf-8")
    assert read_report(folder) == evaluation.report
    assert read_evaluation(folder).report == evaluation.report


def test_rows_without_all_scores_have_no_table(written: tuple[Evaluation, Path]) -> None:
    _, folder = written
    (folder / CHECKSUMS).unlink()
    path = folder / "outcomes.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
    lines = [json.dumps({key: value for key, value in row.items() if key != "scores"}) for row in rows]
    path.write_text("\n".join(lines), encoding="utf-8")
    found = read_evaluation(folder)
    assert found.table is found.best_single is None
    assert found.values["routing_accuracy"].tolist() == [1.0, 0.0]


def test_what_cannot_be_read_names_the_file(written: tuple[Evaluation, Path]) -> None:
    _, folder = written
    (folder / "outcomes.jsonl").write_text("{", encoding="utf-8")
    with pytest.raises(ValueError, match=r"outcomes\.jsonl: damaged: it has 1 of \d+ bytes; restore it from a copy"):
        read_evaluation(folder)
    (folder / CHECKSUMS).unlink()
    with pytest.raises(ValueError, match=r"outcomes\.jsonl: cannot be read"):
        read_evaluation(folder)
    (folder / "report.json").write_text("[]", encoding="utf-8")
    with pytest.raises(ValueError, match=r"report\.json: must hold a JSON object, got list"):
        read_report(folder)
    (folder / "report.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ValueError, match=r"report\.json: cannot be read: report: missing"):
        read_report(folder)
