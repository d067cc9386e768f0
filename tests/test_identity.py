"""Which stages a changed file repeats, and what imports what."""

import ast
import functools
import graphlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from stages import STAGES, make_quick, run_chain

import components
from components import identity
from components.settings import ExampleGenSettings
from pipeline import runner
from pipeline.config import Settings
from pipeline.store import Store

ROOT = Path(components.__path__[0])
FROM_TRANSFORM, FROM_TRAINER, FROM_EXPORTER = STAGES[1:], STAGES[3:], STAGES[4:]
# A file of each room, and the stages that run again when a comment in it has changed.
REPEATED = {
    "artifacts.py": STAGES,
    "settings.py": [],  # Their values count, not their code.
    "threads.py": [],  # How many work, and where, changes no bit.
    "beam_options.py": [],
    "trainer/cluster/hand.py": [],
    "text.py": FROM_TRANSFORM,
    "vocabulary.py": FROM_TRANSFORM,
    "contents.py": STAGES,
    "word2vec_files.py": FROM_TRAINER,
    "places/bucket.py": [],
    "example_gen/build.py": STAGES,
    "example_gen/reader.py": FROM_TRANSFORM,
    "transform/preprocessing.py": FROM_TRANSFORM,
    "statistics_gen/features.py": ["statistics_gen"],
    "trainer/skipgrams.py": FROM_TRAINER,
    "exporter/signatures.py": FROM_EXPORTER,
    "exporter/formats.py": [],  # No stage writes these.
    "evaluator/gate.py": ["evaluator", "pusher"],
    "infra_validator/probe.py": ["infra_validator", "pusher"],
    "pusher/history.py": ["pusher"],
}


@pytest.fixture(scope="module")
def code(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A copy of components/, of which stages are taken to be made."""
    copy = tmp_path_factory.mktemp("code") / "components"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns("__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "_ROOT", copy)
        identity.code_identity.cache_clear()
        yield copy
    identity.code_identity.cache_clear()


@pytest.fixture(scope="module")
def chain(code: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Settings]:
    """An output that was made of that copy, and its settings."""
    path = tmp_path_factory.mktemp("chain")
    (path / "corpus.txt").write_text("the cat\n")
    settings = Settings(example_gen=ExampleGenSettings(input=(str(path / "corpus.txt"),)))
    with pytest.MonkeyPatch.context() as patch:
        make_quick(patch)
        run_chain(Store.open(path / "out"), settings)
    return path / "out", settings


@pytest.fixture
def changed(request: pytest.FixtureRequest, code: Path) -> Iterator[str]:
    """A file of the copy, in which a comment is another one as long as the test lasts."""
    path = code / request.param
    before = path.read_bytes()
    path.write_bytes(before + b"# Another comment.\n")
    identity.code_identity.cache_clear()
    yield request.param
    path.write_bytes(before)
    identity.code_identity.cache_clear()


@pytest.mark.parametrize("changed", REPEATED, indirect=True)
def test_a_changed_comment_repeats_the_stages_that_import_it(
    chain: tuple[Path, Settings], changed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_quick(monkeypatch)
    output, settings = chain
    shutil.copytree(output, tmp_path / "out")
    store = Store.open(tmp_path / "out")
    stages = run_chain(store, settings)
    assert [name for name, stage in stages.items() if not stage["reused"]] == REPEATED[changed]
    # The same model is not served under another version.
    if "exporter" not in REPEATED[changed]:
        assert [name for name in store.place.names("serving") if name.isdecimal()] == ["1"]


def test_each_room_is_in_the_table() -> None:
    rooms = {path.parent.name for path in ROOT.glob("*/*.py")}
    assert rooms == {file.partition("/")[0] for file in REPEATED if "/" in file}


def test_imports_are_followed_wherever_they_are_made(code: Path) -> None:
    (code / "first.py").write_text(
        "from typing import TYPE_CHECKING\n"
        "import keras\n"
        "from components import second\n"
        "if TYPE_CHECKING:\n"
        "    import numpy\n"
        "    from components import text\n"
        "def later():\n"
        "    from components.trainer.tables import Table\n"
    )
    (code / "second.py").write_text("import json\nfrom components.first import later\n")
    identity._imports.cache_clear()
    found = identity.imported("components.first")
    assert {"components.second", "components.trainer", "components.trainer.tables"} <= found
    assert "keras" in found
    assert "components.text" not in found
    before = identity.code_identity("components.first")
    identity.code_identity.cache_clear()
    (code / "second.py").write_text("import json\nfrom components.first import later  # x\n")
    assert identity.code_identity("components.first")["code"] != before["code"]
    assert "json" not in before["libraries"] and "keras" in before["libraries"]


@functools.cache
def modules() -> dict[str, ast.Module]:
    """All of pipeline/ and components/, by name."""
    return {
        ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(
            ".__init__"
        ): ast.parse(path.read_bytes())
        for place in ("components", "pipeline")
        for path in sorted((ROOT.parent / place).rglob("*.py"))
    }


def at_load(tree: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """The imports that are made while a module is loaded."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield from at_load(node)


def names(node: ast.Import | ast.ImportFrom) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [f"{node.module}.{alias.name}" for alias in node.names]


def test_no_modules_import_each_other_in_a_circle() -> None:
    known = modules()
    graph: dict[str, set[str]] = {}
    for module, tree in known.items():
        imports = {name for node in at_load(tree) for name in names(node)}
        graph[module] = {
            name if name in known else name.rpartition(".")[0] for name in imports
        } & known.keys()
    assert "components.text" in graph["components.exporter.signatures"]
    graphlib.TopologicalSorter(graph).prepare()  # Else a CycleError that names the circle.
    circular = graph | {"components.text": {"components.exporter.signatures"}}
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(circular).prepare()


def test_components_never_import_pipeline() -> None:
    importing = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        and any(name.partition(".")[0] == "pipeline" for name in names(node))
    }
    assert importing
    assert {module for module in importing if module.startswith("components")} == set()


def test_run_json_is_written_in_one_place_and_read_in_none() -> None:
    """See also `test_run_json_is_never_read` of the runner."""
    naming = {
        module
        for module, tree in modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and node.value == runner.REPORT
    }
    # The runner writes it; the others look whether it is there: in the output of an earlier
    # release, and to tell an output from a corpus.
    assert naming == {"pipeline.runner", "pipeline.store"}
    uses = [
        node
        for node in ast.walk(modules()["pipeline.runner"])
        if isinstance(node, ast.Call)
        and any(isinstance(part, ast.Name) and part.id == "REPORT" for part in node.args)
    ]
    assert [ast.unparse(node.func) for node in uses] == ["self.store.place.write"]


def test_workers_are_held_to_all_code_that_a_model_is_not_made_again_for() -> None:
    trainer = identity.imported("components.trainer.trainer")
    hands = identity.imported("components.trainer.cluster.job")
    assert trainer < hands
    assert {"apache_beam", "components.trainer.cluster.hand"} <= hands - trainer
