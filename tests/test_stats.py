"""`skipstream stats`, of outputs and of artifacts, in a directory and in a bucket."""

from pathlib import Path

import pytest
from stages import run, step
from test_statistics_gen import write_examples

from components.artifacts import Examples, Statistics
from components.settings import StatisticsGenSettings, TransformSettings
from components.statistics_gen import statistics_gen
from pipeline import cli
from pipeline.store import Store


@pytest.fixture(params=["directory", "bucket"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "directory":
        return Store.open(tmp_path / "out")
    return Store.open(f"{request.getfixturevalue('s3').url}/out")


def describe(store: Store, counts: dict[str, int], *, against: Examples | None = None) -> Examples:
    """What a run leaves that came to statistics_gen."""

    def tokenise(out: Examples) -> Examples:
        write_examples(out.path, counts, out.fingerprint)
        return out.finish(TransformSettings())

    def count(out: Statistics) -> Statistics:
        return statistics_gen.build(examples, against, settings=StatisticsGenSettings(), out=out)

    examples: Examples = run(store, step(Examples, tokenise, content=counts))
    inputs = {"examples": examples, "reference": against}
    run(store, step(Statistics, count, inputs=inputs))
    return examples


def test_stats_shows_what_the_last_run_measured(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = describe(store, {"the": 30, "dog": 10})
    describe(store, {"the": 30, "cat": 10}, against=before)
    statistics = store.last(Statistics)
    assert statistics
    capsys.readouterr()
    assert cli.run(["stats", store.address]) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    assert last == statistics.address
    assert "          30  75.00 %  the" in lines
    assert f"beside the examples {before.fingerprint}" in lines


def test_stats_compares_any_two(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    now = describe(store, {"the": 30, "cat": 10})
    other = write_examples(tmp_path / "other", {"the": 30, "dog": 10}, "other")
    capsys.readouterr()
    assert cli.run(["stats", now.address]) == 0
    assert "beside" not in capsys.readouterr().out
    arguments = ["stats", now.address, "--against", str(other.path)]
    assert cli.run(arguments) == 0
    printed = capsys.readouterr().out
    assert "           1  new words (25.00 % of the tokens now: cat)\n" in printed
    files = tmp_path / "deep" / "files"
    assert cli.run([*arguments, "--output", str(files)]) == 0
    assert capsys.readouterr().out == f"{printed}{files}\n"
    assert {path.name for path in files.iterdir()} == {"report.json", "FeatureStats.pb"}


def test_stats_of_what_is_no_run_is_one_line(
    store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(["stats", store.address]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"skipstream: error: {store.address} must be an output whose last run")
    assert error.count("\n") == 1
