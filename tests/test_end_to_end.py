"""The command, from text to a served model: at first the installed one, as it is used."""

import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from commands import (
    SETTINGS,
    TOPICS,
    Command,
    write_corpus,
)
from gensim.models import KeyedVectors
from gensim.models.fasttext import load_facebook_vectors

from components.exporter.embeddings import Embeddings
from pipeline import cli

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("components", "pipeline", "skipstream")
AWKWARD = os.fsdecode(b"awkw\xe9rd 'name'\n.txt")  # Not UTF-8, in two lines.


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pattern of files: text that is learned from, text that is hard to read, and none."""
    folder = tmp_path_factory.mktemp("corpus")
    write_corpus(folder)
    lines = "\r\n".join(f"我爱北京 smile😀 cafe\u0301 don’t {i}" for i in range(300))
    awkward = b"\xef\xbb\xbf" + lines.encode() + b"\r\nnul\0byte\rbad \xff\xfe bytes\n"
    (folder / AWKWARD).write_bytes(awkward)
    (folder / "empty.txt").touch()
    (folder / "directory").mkdir()
    return folder / "*"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("wheel")
    build = "pip", "wheel", "--no-deps", "--no-build-isolation", "--quiet", "--wheel-dir"
    call(sys.executable, "-m", *build, directory, ROOT)
    (built,) = directory.iterdir()
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Programs of an environment with the wheel, and the dependencies of this one by reference."""
    path = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", path)
    install = "--python", path / "bin" / "python", "install", "--quiet", "--no-deps", "--no-index"
    call(sys.executable, "-m", "pip", *install, wheel)
    # What such a file names is searched last, and its own .pth files, as of editable installs of
    # this source, are not read.
    (site,) = path.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return path / "bin"


@pytest.fixture(scope="module")
def finished(
    corpus: Path, installed: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """A run away from the source, as in a container image or at a colleague's."""
    output = tmp_path_factory.mktemp("run") / "out"
    (output.parent / "tmp").mkdir()
    run = "run", "--input", corpus, "--output", output, *SETTINGS
    done = call(installed / "skipstream", *run, cwd=output.parent, TMPDIR=output.parent / "tmp")
    return output, done


def call(
    *command: object, cwd: Path | None = None, **variables: object
) -> subprocess.CompletedProcess[str]:
    """What a process says whose Python finds only what is installed."""
    hidden = ("PYTHON", "VIRTUAL_ENV", "TF_CPP", "TF_NUM")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=kept | {name: str(value) for name, value in variables.items()},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    files = zipfile.ZipFile(wheel).namelist()
    names = {name.partition("/")[0] for name in files if ".dist-info/" not in name}
    assert names == {*PACKAGES}
    assert {f"{name}/py.typed" for name in names} <= set(files)  # PEP 561: mypy reads the types.


def test_what_is_installed_needs_no_source(installed: Path, tmp_path: Path) -> None:
    program = f"import {','.join(PACKAGES)}; print(*(p.__file__ for p in ({','.join(PACKAGES)})))"
    found = call(installed / "python", "-c", program, cwd=tmp_path).stdout.split()
    assert len(found) == 3
    assert all(Path(file).is_relative_to(installed.parent) for file in found)


def report(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "run.json").read_text())
    return content


def test_a_run_ends_with_the_path_of_a_model_that_learned(finished: Any, command: Command) -> None:
    output, done = finished
    model = Path(done.stdout.splitlines()[-1])
    assert model == output / "serving" / "1"
    assert report(output)["saved_model"] == str(model)
    neighbors = command("neighbors", model, "ship", "bread", "-k", "5")
    assert neighbors.returncode == 0
    found = [line.split("\t")[:2] for line in neighbors.stdout.splitlines()]
    assert {near for word, near in found if word == "ship"} <= set(TOPICS["sea"])
    assert {near for word, near in found if word == "bread"} <= set(TOPICS["kitchen"])


def test_a_normal_run_says_nothing_that_worries_beside_what_is_odd_in_its_corpus(
    finished: Any,
) -> None:
    output, done = finished
    lines = done.stderr.replace("\r", "\n").splitlines()
    stages = tuple(report(output)["stages"])
    unexpected = [
        line for line in lines if line.strip() and not line.startswith((*stages, "epoch "))
    ]
    (notice,) = unexpected
    assert re.fullmatch(r"warning: 0\.\d\d % of the documents .1 of .* hold NUL bytes, .*", notice)
    assert any("words/s" in line for line in lines)


def test_a_run_leaves_nothing_where_temporary_files_go(finished: Any) -> None:
    output, _ = finished
    assert not list((output.parent / "tmp").iterdir())


def test_a_run_leaves_a_page_for_a_person(finished: Any) -> None:
    output, _ = finished
    page = (output / "report.html").read_text()
    assert "</span> Version 1 is what is served.</p>" in page
    assert '"tokens":["' in page
    uses = json.loads((output / "store.json").read_text())["uses"].values()
    assert all(use["took"] and use["peak_memory_bytes"] > 30_000_000 for use in uses)


def test_run_json_reports_every_stage(finished: Any) -> None:
    output, _ = finished
    stages = report(output)["stages"]
    assert list(stages) == [
        "example_gen",
        "transform",
        "statistics_gen",
        "trainer",
        "exporter",
        "evaluator",
        "infra_validator",
        "pusher",
    ]
    assert not any(stage["reused"] for stage in stages.values())
    assert all((Path(stage["artifact"]) / "manifest.json").exists() for stage in stages.values())
    assert stages["trainer"]["words_per_second"] > 0
    assert stages["transform"]["documents"] == 4000 + 302


def test_manifests_lead_back_to_the_corpus(finished: Any) -> None:
    output, _ = finished
    manifests = {
        path.parent.relative_to(output).as_posix(): json.loads(path.read_text())
        for path in output.glob("*/*/manifest.json")
    }
    assert {name.partition("/")[0] for name in manifests} == set(report(output)["stages"])
    for name, manifest in manifests.items():
        stage, _, fingerprint = name.partition("/")
        key = json.dumps([stage, manifest["made_of"]], sort_keys=True)
        assert hashlib.sha256(key.encode()).hexdigest()[:16] == fingerprint
        inputs = manifest["made_of"]["inputs"].values()
        assert {f"{source['stage']}/{source['fingerprint']}" for source in inputs} <= set(manifests)
        assert inputs or stage == "example_gen"
        assert manifest["run"] and manifest["finished"]


def test_the_same_files_elsewhere_and_at_another_time_reuse_every_stage(
    corpus: Path, finished: Any, tmp_path: Path, command: Command
) -> None:
    output, first = finished
    shutil.copytree(corpus.parent, tmp_path / "copy", copy_function=shutil.copyfile)
    (tmp_path / "copy" / AWKWARD).rename(tmp_path / "copy" / "b.txt")
    again = command("run", "--input", tmp_path / "copy/*", "--output", output, *SETTINGS)
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert all(stage["reused"] for stage in report(output)["stages"].values())
    assert [path.name for path in (output / "serving").glob("[0-9]*")] == ["1"]


def test_one_changed_setting_reruns_what_depends_on_it(
    corpus: Path, finished: Any, command: Command
) -> None:
    output, _ = finished
    changed = command(
        "run", "--input", corpus, "--output", output, *SETTINGS, "evaluator.max_loss=3.9"
    )
    assert changed.returncode == 0
    reused = {name: stage["reused"] for name, stage in report(output)["stages"].items()}
    assert reused == dict.fromkeys(reused, True) | {"evaluator": False, "pusher": False}


@pytest.mark.usefixtures("probe_here")
def test_the_stages_behind_the_transform_build_alone_what_a_run_builds(
    corpus: Path, finished: Any, tmp_path: Path, command: Command
) -> None:
    whole, _ = finished
    common = ["--input", corpus, "--output", tmp_path, *SETTINGS]
    early = command("train", *common)
    assert early.returncode == 1
    assert "run 'skipstream transform' with the same settings first" in early.stderr
    for name in ("example_gen", "transform"):  # A job of Beam takes seconds.
        shutil.copytree(whole / name, tmp_path / name, dirs_exist_ok=True)
    assert command("transform", *common).returncode == 0
    assert report(tmp_path)["stages"]["transform"]["reused"]
    common.append("trainer.threads=1")  # It is part of no fingerprint.
    for stage in ("train", "evaluate", "validate", "push"):
        done = command(stage, *common)
        assert done.returncode == 0, done.stderr
    first, second = (next(path.glob("trainer/*/vectors.npy")) for path in (whole, tmp_path))
    assert first.parent.name == second.parent.name  # The fingerprint.
    assert first.read_bytes() == second.read_bytes()
    assert (tmp_path / "serving" / "1" / "saved_model.pb").exists()


@pytest.mark.usefixtures("probe_here")
def test_the_average_with_the_contexts_is_served(
    corpus: Path, finished: Any, tmp_path: Path, command: Command
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "copy")
    average = [*SETTINGS, "exporter.vectors=average"]
    done = command("run", "--input", corpus, "--output", output, *average)
    assert done.returncode == 0, done.stderr
    stages = report(output)["stages"]
    assert stages["trainer"]["reused"] and not stages["exporter"]["reused"]
    model = Path(stages["trainer"]["artifact"])
    expected = (np.load(model / "vectors.npy") + np.load(model / "contexts.npy")) / 2
    text = tmp_path / "vectors.txt"
    done = command("export", output / "serving", "--format", "word2vec-text", "--output", text)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(KeyedVectors.load_word2vec_format(text).vectors, expected, atol=1e-6)

    # A person rolls back from it, and the night after ends with the same model.
    assert command("rollback", output).stdout == f"{output / 'serving' / '3'}\n"
    again = command("run", "--input", corpus, "--output", output, *average)
    assert again.returncode == 3
    assert "this model was rolled back from" in again.stderr.splitlines()[-1]
    served = command("run", "--input", corpus, "--output", output, *SETTINGS)
    assert served.stdout.splitlines()[-1] == str(output / "serving" / "3")
    forced = command("push", "--input", corpus, "--output", output, *average, "--force-push")
    assert forced.stdout == f"{output / 'serving' / '4'}\n"
    assert report(output)["stages"]["pusher"]["forced"] is True


NGRAMS = ["trainer.min_ngram=3", "trainer.max_ngram=6", "trainer.buckets=100000"]


@pytest.fixture(scope="module")
def with_ngrams(corpus: Path, finished: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SavedModel of a second night, which trains n-grams, too."""
    output = shutil.copytree(finished[0], tmp_path_factory.mktemp("ngrams") / "out")
    arguments = ["--input", corpus, "--output", output, *SETTINGS, *NGRAMS]
    for stage in ("train", "evaluate"):
        assert cli.run([stage, *map(str, arguments)]) == 0
    stages = report(output)["stages"]
    assert stages["trainer"]["reused"] and stages["evaluator"]["blessed"]
    return Path(stages["exporter"]["artifact"], "saved_model")


def test_unknown_words_have_the_neighbours_of_those_that_they_are_like(
    with_ngrams: Path, command: Command
) -> None:
    done = command("neighbors", with_ngrams, "sailors", "breads", "-k", "5")
    assert done.returncode == 0, done.stderr
    found = [line.split("\t")[:2] for line in done.stdout.splitlines()]
    for word, topic in (("sailors", "sea"), ("breads", "kitchen")):
        near = [other for asked, other in found if asked.startswith(word)]
        assert len(near) == 5
        assert len({*near} & {*TOPICS[topic]}) >= 4
    assert "sailors" in done.stderr  # It is marked as unknown.


def test_what_is_exported_for_fasttext_has_the_same_vectors(
    with_ngrams: Path, command: Command, tmp_path: Path
) -> None:
    fasttext = pytest.importorskip("fasttext", reason="fasttext-numpy2 is not there")
    path = tmp_path / "model.bin"
    done = command("export", with_ngrams, "--format", "fasttext", "--output", path)
    assert done.returncode == 0, done.stderr
    embeddings = Embeddings.load(with_ngrams)
    words = [
        "the",
        *TOPICS["sea"],
        *TOPICS["kitchen"],
        "sailors",
        "breads",
        "unharboured",
        "ship's",
    ]
    expected, known = embeddings.vectors_of(words)
    assert known.tolist() == [True] * (len(words) - 4) + [False] * 4
    assert expected.any(axis=1).all()
    model = fasttext.load_model(str(path))
    vectors = np.stack([model.get_word_vector(word) for word in words])
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(load_facebook_vectors(str(path))[words], vectors, atol=1e-5)
    assert model.get_input_matrix().shape[0] == len(model.get_words()) + 100_000


def test_a_model_that_is_refused_is_not_pushed(
    corpus: Path, finished: Any, command: Command
) -> None:
    output, _ = finished
    versions = sorted(path.name for path in (output / "serving").glob("[0-9]*"))
    done = command(
        "run", "--input", corpus, "--output", output, *SETTINGS, "evaluator.max_loss=0.1"
    )
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("skipstream: error: ")
    assert "must be below 0.100 nats a pair" in last
    assert report(output)["stages"]["evaluator"]["blessed"] is False
    page = (output / "report.html").read_text()
    assert "</span> The model is not served.</p>" in page
    assert "must be below 0.100 nats a pair" in page
    assert sorted(path.name for path in (output / "serving").glob("[0-9]*")) == versions


def test_models_export_embed_and_answer_analogies(
    finished: Any, tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    serving = finished[0] / "serving"
    exported = command("export", serving, "--format", "keyedvectors", "--output", tmp_path / "kv")
    assert exported.returncode == 0, exported.stderr
    vectors = KeyedVectors.load(str(tmp_path / "kv"))
    lines = io.BytesIO(b"The SHIP, the unheardof!\n\n")
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=lines))
    embedded = command("embed", serving)
    assert embedded.returncode == 0, embedded.stderr
    first, empty = map(json.loads, embedded.stdout.splitlines())
    mean = (2 * vectors["the"] + vectors["ship"]) / 3
    np.testing.assert_allclose(first["embedding"], mean, atol=1e-6)
    assert (first["token_count"], first["known_count"]) == (4, 3)
    assert (empty["token_count"], set(empty["embedding"])) == (0, {0.0})
    analogy = command("analogy", serving, "ship", "sail", "bread", "-k", "3")
    assert analogy.returncode == 0
    assert len(analogy.stdout.splitlines()) == 3


def test_awkward_text_is_served(finished: Any, command: Command) -> None:
    output, _ = finished
    statistics = json.loads(next(output.glob("transform/*/statistics.json")).read_text())
    assert statistics["documents_repaired"] == {"invalid_utf8": 1, "nul": 1, "cut": 0}
    assert statistics["files_skipped"] == {"directory": 1}
    known = command("neighbors", output / "serving", "北", "CAFE\u0301", "don't")
    assert known.returncode == 0, known.stderr


def test_a_closed_stderr_keeps_nothing_from_working(corpus: Path, finished: Any) -> None:
    output, _ = finished
    command = [sys.executable, "-m", "pipeline", "run", "--input", str(corpus)]
    command += ["--output", str(output), *SETTINGS]
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" 2>&-', "sh", *command],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1].startswith(str(output / "serving"))


def test_a_moved_output_directory_pushes_nothing_again(
    corpus: Path, finished: Any, tmp_path: Path, command: Command
) -> None:
    output, _ = finished
    shutil.copytree(output, tmp_path / "moved")
    versions = sorted(path.name for path in (output / "serving").iterdir())
    common = ["--input", corpus, "--output", tmp_path / "moved", *SETTINGS]
    done = command("run", *common, "pusher.keep=4")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(str(tmp_path / "moved" / "serving"))
    assert sorted(path.name for path in (tmp_path / "moved" / "serving").iterdir()) == versions


def fails(done: subprocess.CompletedProcess[str], message: str, code: int = 1) -> None:
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr and "while running" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("skipstream: error: ")
    assert message in last


def test_a_divergence(corpus: Path, finished: Any, tmp_path: Path, command: Command) -> None:
    output = shutil.copytree(finished[0], tmp_path / "copy")
    start = tmp_path / "start.txt"
    start.write_text(f"1 24\nship {' '.join(['1e4'] * 24)}\n")
    done = command(
        *("run", "--input", corpus, "--output", output, *SETTINGS),
        f"trainer.start_vectors={start}",
    )
    fails(done, "training diverged: ", code=3)


def test_a_damaged_tfrecord(corpus: Path, finished: Any, tmp_path: Path, command: Command) -> None:
    output = shutil.copytree(finished[0], tmp_path / "copy")
    record = next(output.glob("transform/*/train/*.tfrecord.gz"))
    record.write_bytes(record.read_bytes()[:-100])
    done = command("train", "--input", corpus, "--output", output, *SETTINGS, "trainer.seed=2")
    fails(done, f"{record} is damaged: its content is not what was written: delete ")


def test_a_truncated_gzip(tmp_path: Path, command: Command) -> None:
    path = write_corpus(tmp_path)
    (tmp_path / "a.gz").write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = command("run", "--input", tmp_path / "a.gz", "--output", tmp_path / "o")
    fails(done, f"corrupt or truncated gzip data in {tmp_path}/a.gz")


def test_no_matching_file(tmp_path: Path, command: Command) -> None:
    done = command("run", "--input", tmp_path / "*.txt", "--output", tmp_path / "out")
    fails(done, "no file")


def test_an_unknown_beam_runner(corpus: Path, tmp_path: Path, command: Command) -> None:
    options = ["--", "--runner=FooRunner"]
    done = command("run", "--input", corpus, "--output", tmp_path, *options)
    fails(done, "Beam refuses its options --runner=FooRunner", code=2)


def test_a_model_that_is_none(tmp_path: Path, command: Command) -> None:
    fails(command("neighbors", tmp_path, "word"), "SavedModel")
