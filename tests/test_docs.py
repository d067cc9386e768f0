"""README.md, docs/ and the runbook: links lead somewhere, code runs, commands are what they say.

All pages share one folder: texts/ with a made-up corpus, and OUT, which the README's own command
made of it. Commands that only ask, and those that would train the same again, run there. Recipes
for reading and for pretrained vectors run on small files, as far as the stage that they are about;
what else would train another model is parsed, with its settings. Whatever else a shell would run is
listed in ELSEWHERE with the reason why it is not run here. The corpus is read without Beam
(`plain_job`).
"""

import contextlib
import csv
import gzip
import io
import itertools
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import plain_job
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import settings_page
import tensorflow as tf
from commands import Command, probe_in_this_process
from fasttext import FastText as fasttext
from pages import DOCS, README, ROOT, RUNBOOK, anchors, commands, parts, shell, write_corpus

import skipstream
from components import defaults
from components.example_gen.build import find
from components.example_gen.units import plan
from components.transform.token_cache import TokenCache
from components.transform.tokenise import TokeniseUnit
from pipeline import cli, config
from pipeline.commands import report
from pipeline.definition import Chain

PAGES = [README, *DOCS, RUNBOOK]

# What is not run here, by its first word.
ELSEWHERE = {
    ".": "an environment of the user's",
    "aws": "a cloud",
    "cd": "for what follows",
    "docker": "no Docker engine",
    "gcloud": "a cloud",
    "java": "a job server, which has to be fetched",
    "kubectl": "no cluster; tests/test_kubernetes.py checks the files",
    "kustomize": "no cluster; tests/test_kubernetes.py checks the files",
    "pip": "tests/test_end_to_end.py installs the wheel",
    "python": "another package's program, or a client of a server",
    "tensorboard": "a server",
}
# Those that ask, and change nothing that other blocks see.
ASKING = ("analogy", "embed", "export", "gc", "neighbors", "report", "stats", "versions")
TRAINING = ("run", "transform", "train", "evaluate", "validate", "push")


def test_the_readme_is_short_enough_to_be_read() -> None:
    assert len(README.read_text().splitlines()) <= 200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", parts(page)[0])
    for link in links:
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


def test_every_page_is_linked_from_the_readme() -> None:
    links = {link.partition("#")[0] for link in re.findall(r"\]\(([^)\s]+)\)", README.read_text())}
    assert {page.relative_to(ROOT).as_posix() for page in DOCS} <= links


@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_names_in_the_text_are_those_of_the_code(page: Path) -> None:
    text = parts(page)[0]
    settings = dict(config.fields())
    stages = "|".join({name.partition(".")[0] for name in settings})
    for name, value in re.findall(rf"`(?:--set )?((?:{stages})\.\w+)(?:=([^`\s]+))?", text):
        assert name in settings
        if value not in ("", "FILE"):
            assert config.override(name, value)
    for path in re.findall(r"`((?:components|tests|deploy|pipeline)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), path
    for line in re.findall(r"`(skipstream [^`\[…]+)`", text):
        check(shlex.split(line))
    for line in re.findall(r"`(make [^`…]+)`", text):
        check_make(shlex.split(line))


def test_the_page_of_settings_is_up_to_date() -> None:
    page = settings_page.page()
    shown = re.findall(r"^\| `([\w.]+)`", page, re.MULTILINE)
    assert shown == [name for name, _ in config.fields()]
    assert (ROOT / "docs" / "settings.md").read_text() == page, "run `make docs`"


def check(words: list[str]) -> None:
    """That skipstream takes a command line, and its settings."""
    assert words[0] == "skipstream"
    with contextlib.redirect_stderr(io.StringIO()) as errors:
        try:
            arguments = cli._parse([word for word in words[1:] if word != "…"])
        except SystemExit as stop:
            assert stop.code == 0, errors.getvalue()
            return
    if words[1] in (*TRAINING, "settings"):
        config.load(None, arguments.set, arguments.input)


def check_make(words: list[str]) -> None:
    """That there is such a target, and that what it starts has such options."""
    done = subprocess.run(
        ["make", "--dry-run", *words[1:]],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={
            name: value for name, value in os.environ.items() if name not in ("ARGS", "MAKEFLAGS")
        },
    )
    assert done.returncode == 0, done.stderr
    for line in done.stdout.replace("\\\n", " ").splitlines():
        for script in re.findall(r"tests/(?:benchmarks|campaigns)/\w+\.py", line):
            source = (ROOT / script).read_text()
            shared = (ROOT / "tests" / "benchmarks" / "report.py").read_text()
            for option in re.findall(r"--[\w-]+", line.partition(script)[2]):
                assert f'"{option}"' in source + shared, f"{script} has no {option}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_are_ones_that_are_there(page: Path) -> None:
    for words in shell(page):
        starts = [0, *(at + 1 for at, word in enumerate(words) if word == "|")]
        for start, end in zip(starts, [*(at - 1 for at in starts[1:]), len(words)], strict=True):
            one = words[start:end]
            one = one[: one.index(">")] if ">" in one else one
            if one[0] == "skipstream":
                check(one)
            elif one[0] == "make":
                check_make(one)
            else:
                assert one[0] in {*ELSEWHERE, "echo"}, one


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where readers are: texts/, and what the README's command made of it."""
    path = tmp_path_factory.mktemp("reader")
    write_corpus(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(path)
        patch.setattr(defaults, "_MOST_EPOCHS", 10)  # Small texts get up to 60.
        # What a user has who segments Chinese: here words of two characters each.
        patch.setitem(sys.modules, "jieba", SimpleNamespace(lcut=re.compile("..").findall))
        plain_job.use(patch)
        with pytest.MonkeyPatch.context() as for_the_run:
            probe_in_this_process(for_the_run)
            assert cli.run(["run", "--input", "texts/*.txt", "--output", "OUT"]) == 0
        (path / "build").mkdir()
        (path / "build" / "run").symlink_to(path / "OUT")
        yield path


def runs_here(words: list[str], folder: Path) -> bool:
    """Whether a command of skipstream asks what is there, or makes what is there already."""
    known = {path.as_posix() for path in map(Path, ("OUT", "OUT/serving/1", "build/run"))}
    if words[1] in TRAINING:
        return words[2:] == ["--input", "texts/*.txt", "--output", "OUT"]
    return words[1] == "settings" or (words[1] in ASKING and words[2] in known)


def run_shell(words: list[str], folder: Path, command: Command) -> None:
    piped = b""
    if "|" in words:
        at = words.index("|")
        assert words[0] == "echo"
        piped = (" ".join(words[1:at]) + "\n").encode()
        words = words[at + 1 :]
    words = words[: words.index(">")] if ">" in words else words
    if words[0] == "skipstream" and runs_here(words, folder):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(piped)))
            done = command(*words[1:])
        assert done.returncode == 0, f"{words}: {done.stderr}"
        assert done.stdout


def run_until(stage: str, patch: pytest.MonkeyPatch) -> None:
    """Let `skipstream run` stop as the command of that stage does: the rest takes seconds."""
    whole = Chain.run
    patch.setattr(Chain, "run", lambda chain, _: whole(chain, stage))
    patch.setattr(report, "write_if_possible", lambda _: None)


def train_here(arguments: Sequence[str], *, progress: bool) -> str:
    """What `pipeline.child.run` does, in this process, where TensorFlow and Beam are loaded.

    Other models than that of OUT are not published: their last stage is the exporter.
    """
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(io.StringIO()) as out,
    ):
        if "OUT" not in arguments:
            run_until("train", patch)
        assert cli.run(arguments) == 0
    return out.getvalue().splitlines()[-1]


@pytest.mark.filterwarnings("ignore:Your input ran out of data")  # Keras, of any dataset's end.
@pytest.mark.usefixtures("probe_here")
@pytest.mark.parametrize("page", [README, *DOCS], ids=lambda page: page.name)
def test_code_runs_as_it_stands(
    page: Path, folder: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    scope: dict[str, Any] = {}
    for block in parts(page)[1]:
        if block.language == "sh":
            for words in commands(block.text):
                run_shell(words, folder, command)
        elif block.language == "python":
            monkeypatch.setattr("pipeline.child.run", train_here)
            exec(compile(block.text, page.name, "exec"), scope)
        elif block.language == "console":
            first, _, answer = block.text.partition("\n")
            done = command(*shlex.split(first.removeprefix("$ skipstream ")))
            assert done.stdout + done.stderr == answer


def test_the_file_for_keras_has_the_served_vectors(folder: Path, command: Command) -> None:
    assert command("export", "OUT", "--format", "npz", "--output", "vectors.npz").returncode == 0
    (block,) = (
        block for block in parts(ROOT / "docs" / "python.md")[1] if "StringLookup" in block.text
    )
    scope: dict[str, Any] = {}
    exec(block.text, scope)
    served = tf.saved_model.load("OUT/serving/1").signatures["serving_default"]
    words = tf.constant(["zzzznotaword", "king"])
    expected = served(words=words)["embedding"]
    found = scope["classifier"].layers[1](scope["look_up"](words))
    np.testing.assert_array_equal(found, expected)
    assert scope["classifier"](tf.constant([["king", "queen"]])).shape == (1, 1)


# The files that the recipes speak of: what is in them, and the words of each document that is read.
def files_of_recipes(folder: Path) -> dict[str, list[str]]:
    def put(name: str) -> Path:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return path

    put("sessions.txt").write_text("P81 p7 p23 p7\np4 P81 p90\n")
    put("letters/old/a.txt").write_text("dear king\n\nyours\n")
    put("books/a.txt").write_text("the king\nof all\n\nthe queen\n")
    with gzip.open(put("reviews/a.csv.gz"), "wt", newline="") as file:
        csv.writer(file).writerows([["id", "review"], ["1", "good, really"], ["2", "bad"]])
    put("posts/a.jsonl").write_text('{"body": "good"}\n{"body": "bad", "id": 1}\n')
    pq.write_table(pa.table({"id": [1, 2], "text": ["good", "bad"]}), put("crawl/a.parquet"))
    put("table.txt").write_text("id\ttext\n1\tgood\n2\tbad\n")
    return {
        "sessions.txt": ["P81 p7 p23 p7", "p4 P81 p90"],
        "letters/**/*.txt": ["dear king yours"],
        "books/*.txt": ["the king of all", "the queen"],
        "reviews/*.csv.gz": ["good really", "bad"],
        "posts/*.jsonl": ["good", "bad"],
        "crawl/*.parquet": ["good", "bad"],
        "table.txt": ["good", "bad"],
    }


def runs_of(name: str) -> list[list[str]]:
    """The `skipstream run` commands of a page, without their first word."""
    pages = (words[1:] for words in shell(ROOT / "docs" / name) if words[0] == "skipstream")
    return [words for words in pages if words[0] == "run"]


def documents_of(words: list[str], work: Path) -> list[str]:
    """The words of each document that `skipstream run WORDS` would read."""
    arguments = cli._parse(words)
    settings = config.load(None, arguments.set, arguments.input)
    _, listing = find(settings.example_gen)
    do = TokeniseUnit(TokenCache(str(work), found_again=False), settings.transform, 0.0)
    found = []
    for segment in (ref.load() for unit in plan(listing) for ref in do.process(unit)):
        tokens = iter(segment.types.take(pa.array(segment.tokens)).to_pylist())
        found += [b" ".join(itertools.islice(tokens, length)) for length in segment.lengths]
    return [document.decode() for document in found]


def test_recipes_read_what_they_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = files_of_recipes(tmp_path)
    monkeypatch.chdir(tmp_path)
    for number, words in enumerate(runs_of("recipes.md")):
        assert words[1] == "--input"
        if words[2] in expected:
            (work := tmp_path / f"work-{number}").mkdir()
            assert sorted(documents_of(words, work)) == sorted(expected.pop(words[2]))
    assert not expected


@pytest.fixture
def again(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """texts/ and OUT once more, for commands that train another model."""
    shutil.copytree(folder / "texts", tmp_path / "texts")
    shutil.copytree(folder / "OUT", tmp_path / "OUT")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_recipes_start_from_pretrained_vectors(
    again: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    Path("glove.6B.100d.txt").write_text("king " + " ".join(["0.5"] * 100) + "\n")
    whole = fasttext.train_unsupervised(
        "texts/a.txt", dim=300, minn=5, maxn=5, bucket=500, epoch=1, thread=10, verbose=0
    )
    whole.save_model("cc.de.300.bin")
    run_until("train", monkeypatch)
    quick = ["trainer.epochs=1", "trainer.learning_rate=1e-6", "trainer.buckets=500"]
    expected = [np.full(100, 0.5), whole.get_word_vector("king")]
    for words in runs_of("recipes.md"):
        if any("start_vectors" in word for word in words):
            done = command(*words, *quick)
            assert done.returncode == 0, f"{words}: {done.stderr}"
            found = skipstream.load(done.stdout.splitlines()[-1])["king"]
            np.testing.assert_allclose(found, expected.pop(0), atol=1e-3)
    assert not expected


def test_versions_are_compared_and_rolled_back_as_the_page_says(
    again: Path, command: Command
) -> None:
    shutil.copytree("OUT/serving/1", "OUT/serving/2")  # In place of the night that would make it.
    night, *_ = parts(ROOT / "docs" / "retraining.md")[1]
    run, *others = commands(night.text)
    assert run[:2] == ["skipstream", "run"]
    assert [words[1] for words in others] == ["drift", "versions", "rollback"]
    for words in others:
        done = command(*words[1:])
        assert done.returncode == 0, f"{words}: {done.stderr}"
    assert sorted(path.name for path in Path("OUT/serving").glob("[0-9]*")) == ["1", "2", "3"]
