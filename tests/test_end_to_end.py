"""The command itself, each time in a process of its own."""

import gzip
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gensim.models import KeyedVectors

TOPICS = {
    "sea": ["ship", "sail", "wave", "harbour", "captain", "anchor", "tide", "sailor", "deck"],
    "kitchen": ["bread", "oven", "flour", "butter", "knife", "recipe", "soup", "salt", "spoon"],
}
FILLERS = ["the", "a", "of", "and", "in", "to", "it", "was", "for", "on"]
SETTINGS = ["--set", "trainer.dimensions=24", "trainer.epochs=2", "trainer.sample=0.01"]


def skipstream(*arguments: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if "TF_CPP" not in name}
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env=environment,
        **options,
    )


def write_corpus(path: Path, lines: int = 4000) -> Path:
    draw = random.Random(0)
    with gzip.open(path / "corpus.txt.gz", "wt", encoding="utf-8") as file:
        for _ in range(lines):
            words = draw.choices(draw.choice(list(TOPICS.values())), k=10) + draw.choices(
                FILLERS, k=6
            )
            draw.shuffle(words)
            file.write(" ".join(words).capitalize() + ".\n")
    return path / "corpus.txt.gz"


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def finished(
    corpus: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, subprocess.CompletedProcess[str]]:
    output = tmp_path_factory.mktemp("run") / "out"
    done = skipstream("run", "--input", corpus, "--output", output, *SETTINGS)
    assert done.returncode == 0, done.stderr
    return output, done


def report(output: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((output / "run.json").read_text())
    return content


def test_a_run_ends_with_the_path_of_a_model_that_learned(finished: Any) -> None:
    output, done = finished
    model = Path(done.stdout.splitlines()[-1])
    assert model == output / "serving" / "1"
    assert report(output)["saved_model"] == str(model)
    neighbors = skipstream("neighbors", model, "ship", "bread", "-k", "5")
    assert neighbors.returncode == 0
    found = [line.split("\t")[:2] for line in neighbors.stdout.splitlines()]
    assert {near for word, near in found if word == "ship"} <= set(TOPICS["sea"])
    assert {near for word, near in found if word == "bread"} <= set(TOPICS["kitchen"])


def test_a_normal_run_says_nothing_that_worries(finished: Any) -> None:
    output, done = finished
    lines = done.stderr.replace("\r", "\n").splitlines()
    stages = tuple(report(output)["stages"])
    unexpected = [
        line for line in lines if line.strip() and not line.startswith((*stages, "epoch "))
    ]
    assert unexpected == []
    assert any("words/s" in line for line in lines)


def test_run_json_reports_every_stage(finished: Any) -> None:
    output, _ = finished
    stages = report(output)["stages"]
    assert list(stages) == [
        "example_gen",
        "transform",
        "statistics_gen",
        "trainer",
        "evaluator",
        "exporter",
        "infra_validator",
        "pusher",
    ]
    assert not any(stage["reused"] for stage in stages.values())
    assert all((Path(stage["artifact"]) / "manifest.json").exists() for stage in stages.values())
    assert stages["trainer"]["words_per_second"] > 0
    assert stages["transform"]["documents"] == 4000


def test_the_same_command_reuses_every_stage(corpus: Path, finished: Any) -> None:
    output, first = finished
    again = skipstream("run", "--input", corpus, "--output", output, *SETTINGS)
    assert again.returncode == 0
    assert again.stdout == first.stdout
    assert all(stage["reused"] for stage in report(output)["stages"].values())
    assert [path.name for path in (output / "serving").glob("[0-9]*")] == ["1"]


def test_one_changed_setting_reruns_what_depends_on_it(corpus: Path, finished: Any) -> None:
    output, _ = finished
    changed = skipstream(
        "run", "--input", corpus, "--output", output, *SETTINGS, "evaluator.max_loss=3.9"
    )
    assert changed.returncode == 0
    reused = {name: stage["reused"] for name, stage in report(output)["stages"].items()}
    assert reused == dict.fromkeys(reused, True) | {"evaluator": False, "pusher": False}


def test_single_stages_build_what_a_run_builds(corpus: Path, finished: Any, tmp_path: Path) -> None:
    whole, _ = finished
    common = ["--input", corpus, "--output", tmp_path, *SETTINGS]
    early = skipstream("train", *common)
    assert early.returncode == 1
    assert "run 'skipstream transform' with the same settings first" in early.stderr
    for command in ("transform", "train", "evaluate", "validate", "push"):
        done = skipstream(command, *common)
        assert done.returncode == 0, done.stderr
    first, second = (next(path.glob("trainer/*/vectors.npy")) for path in (whole, tmp_path))
    assert first.parent.name == second.parent.name  # The fingerprint.
    assert (np.load(first) == np.load(second)).all()
    assert (tmp_path / "serving" / "1" / "saved_model.pb").exists()


def test_threads_do_not_show_in_the_vectors(corpus: Path, finished: Any, tmp_path: Path) -> None:
    output, _ = finished
    digests = set()
    for threads in (1, 8):
        copy = tmp_path / str(threads)
        for stage in ("example_gen", "transform"):
            shutil.copytree(output / stage, copy / stage)
        setting = f"trainer.threads={threads}"
        done = skipstream("train", "--input", corpus, "--output", copy, *SETTINGS, setting)
        assert done.returncode == 0, done.stderr
        model = Path(report(copy)["stages"]["trainer"]["artifact"])
        digests.add(hashlib.sha256((model / "vectors.npy").read_bytes()).hexdigest())
    model = Path(report(output)["stages"]["trainer"]["artifact"])
    digests.add(hashlib.sha256((model / "vectors.npy").read_bytes()).hexdigest())
    assert len(digests) == 1


def test_the_average_with_the_contexts_is_served(
    corpus: Path, finished: Any, tmp_path: Path
) -> None:
    output = shutil.copytree(finished[0], tmp_path / "copy")
    average = [*SETTINGS, "exporter.vectors=average"]
    done = skipstream("run", "--input", corpus, "--output", output, *average)
    assert done.returncode == 0, done.stderr
    stages = report(output)["stages"]
    assert stages["trainer"]["reused"] and not stages["exporter"]["reused"]
    model = Path(stages["trainer"]["artifact"])
    expected = (np.load(model / "vectors.npy") + np.load(model / "contexts.npy")) / 2
    text = tmp_path / "vectors.txt"
    done = skipstream("export", output / "serving", "--format", "word2vec-text", "--output", text)
    assert done.returncode == 0, done.stderr
    np.testing.assert_allclose(KeyedVectors.load_word2vec_format(text).vectors, expected, atol=1e-6)

    # A person rolls back from it, and the night after ends with the same model.
    assert skipstream("rollback", output).stdout == f"{output / 'serving' / '3'}\n"
    again = skipstream("run", "--input", corpus, "--output", output, *average)
    assert again.returncode == 3
    assert "this model was rolled back from" in again.stderr.splitlines()[-1]
    served = skipstream("run", "--input", corpus, "--output", output, *SETTINGS)
    assert served.stdout.splitlines()[-1] == str(output / "serving" / "3")
    forced = skipstream("push", "--input", corpus, "--output", output, *average, "--force-push")
    assert forced.stdout == f"{output / 'serving' / '4'}\n"
    assert report(output)["stages"]["pusher"]["forced"] is True


def test_a_run_killed_while_training_finishes_when_started_again(
    corpus: Path, tmp_path: Path
) -> None:
    # Long enough that the kill falls into training, with checkpoints all the time.
    settings = ["--set", "trainer.dimensions=24", "trainer.epochs=40"]
    settings += ["trainer.checkpoint_minutes=0.001"]
    command = ["run", "--input", str(corpus), "--output", str(tmp_path), *settings]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 120
    while not any('"epoch": 2' in f.read_text() for f in tmp_path.glob("trainer/*/history.json")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not list(tmp_path.glob("trainer/*/manifest.json"))
    again = skipstream(*command)
    assert again.returncode == 0, again.stderr
    assert "epoch 40/40" in again.stderr
    assert "epoch 1/40" not in again.stderr
    stages = report(tmp_path)["stages"]
    assert stages["transform"]["reused"]
    assert not stages["trainer"]["reused"]


@pytest.mark.parametrize(
    ("number", "moment"),
    [
        (signal.SIGINT, "transform/*/work"),  # TensorFlow traces, Beam starts.
        (signal.SIGINT, "transform/*/work/*"),
        (signal.SIGTERM, "transform/*/transform_graph"),
        (signal.SIGINT, "trainer/*/logs/train"),
    ],
)
def test_a_signal_ends_a_run_in_one_line(
    corpus: Path, tmp_path: Path, number: signal.Signals, moment: str
) -> None:
    command = ["run", "--input", str(corpus), "--output", str(tmp_path)]
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *command, "--set", "trainer.epochs=500"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not list(tmp_path.glob(moment)):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 128 + number
    assert errors.splitlines()[-1] == ("skipstream: error: interrupted: the same command resumes")
    assert "bug" not in errors


def test_a_model_that_is_refused_is_not_pushed(corpus: Path, finished: Any) -> None:
    output, _ = finished
    done = skipstream(
        "run", "--input", corpus, "--output", output, *SETTINGS, "evaluator.max_loss=0.1"
    )
    assert done.returncode == 3
    last = done.stderr.splitlines()[-1]
    assert last.startswith("skipstream: error: ")
    assert "must be below 0.100 nats a pair" in last
    assert report(output)["stages"]["evaluator"]["blessed"] is False


def test_models_export_embed_and_answer_analogies(finished: Any, tmp_path: Path) -> None:
    serving = finished[0] / "serving"
    exported = skipstream(
        "export", serving, "--format", "keyedvectors", "--output", tmp_path / "kv"
    )
    assert exported.returncode == 0, exported.stderr
    vectors = KeyedVectors.load(str(tmp_path / "kv"))
    embedded = skipstream("embed", serving, input="The SHIP, the unheardof!\n\n")
    assert embedded.returncode == 0, embedded.stderr
    first, empty = map(json.loads, embedded.stdout.splitlines())
    mean = (2 * vectors["the"] + vectors["ship"]) / 3
    np.testing.assert_allclose(first["embedding"], mean, atol=1e-6)
    assert (first["token_count"], first["known_count"]) == (4, 3)
    assert (empty["token_count"], set(empty["embedding"])) == (0, {0.0})
    analogy = skipstream("analogy", serving, "ship", "sail", "bread", "-k", "3")
    assert analogy.returncode == 0
    assert len(analogy.stdout.splitlines()) == 3


def test_an_awkward_corpus_is_served(tmp_path: Path) -> None:
    folder = tmp_path / "texts"
    folder.mkdir()
    lines = "\r\n".join(f"我爱北京 smile😀 cafe\u0301 don’t nul\0byte {i}" for i in range(300))
    (folder / "a.txt").write_bytes(b"\xef\xbb\xbf" + lines.encode() + b"\r\nbad \xff\xfe bytes\n")
    (folder / "empty.txt").write_bytes(b"")
    (folder / "folder").mkdir()
    done = skipstream("run", "--input", folder / "*", "--output", tmp_path / "out", *SETTINGS)
    assert done.returncode == 0, done.stderr
    statistics = json.loads(next(tmp_path.glob("out/transform/*/statistics.json")).read_text())
    assert statistics["documents_repaired"]["invalid_utf8"] == 1
    assert statistics["files_skipped"]
    known = skipstream("neighbors", tmp_path / "out" / "serving", "北", "CAFE\u0301", "don't")
    assert known.returncode == 0, known.stderr


def fails(done: subprocess.CompletedProcess[str], message: str) -> None:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith("skipstream: error: ")
    assert message in last


def test_no_matching_file(tmp_path: Path) -> None:
    fails(skipstream("run", "--input", tmp_path / "*.txt", "--output", tmp_path / "o"), "no file")


def test_an_unknown_setting() -> None:
    fails(skipstream("run", "--set", "trainer.windw=3"), "did you mean 'trainer.window'?")


def test_an_unknown_beam_runner(corpus: Path, tmp_path: Path) -> None:
    options = ["--", "--runner=FooRunner"]
    done = skipstream("run", "--input", corpus, "--output", tmp_path, *options)
    fails(done, "Beam refuses its options --runner=FooRunner")


def test_a_divergence(corpus: Path, tmp_path: Path) -> None:
    start = tmp_path / "start.txt"
    start.write_text(f"1 100\nship {' '.join(['1e4'] * 100)}\n")
    common = ["--input", corpus, "--output", tmp_path / "out"]
    done = skipstream("run", *common, "--set", f"trainer.start_vectors={start}")
    fails(done, "training diverged: ")


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
    corpus: Path, finished: Any, tmp_path: Path
) -> None:
    output, _ = finished
    shutil.copytree(output, tmp_path / "moved")
    versions = sorted(path.name for path in (output / "serving").iterdir())
    common = ["--input", corpus, "--output", tmp_path / "moved", *SETTINGS]
    done = skipstream("run", *common, "pusher.keep=4")
    assert done.returncode == 0
    assert done.stdout.splitlines()[-1].startswith(str(tmp_path / "moved" / "serving"))
    assert sorted(path.name for path in (tmp_path / "moved" / "serving").iterdir()) == versions


def test_a_truncated_gzip(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(random.Random(0).randbytes(99_999))[:50_000])
    done = skipstream("run", "--input", tmp_path / "a.gz", "--output", tmp_path / "o")
    fails(done, f"corrupt or truncated gzip data in {tmp_path}/a.gz")


def test_an_empty_vocabulary(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("once upon a time\n")
    done = skipstream("run", "--input", tmp_path / "a.txt", "--output", tmp_path / "o")
    fails(done, "no token occurs at least transform.min_count = 5 times")


def test_an_output_directory_in_use(corpus: Path, tmp_path: Path) -> None:
    holder = (
        "import pathlib, sys\n"
        "from pipeline.config import load\n"
        "from pipeline.runner import Runner\n"
        "with Runner(pathlib.Path(sys.argv[1]), load(None)): print('held', flush=True); input()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", holder, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    done = skipstream("run", "--input", corpus, "--output", tmp_path)
    process.communicate("\n")
    fails(done, f"is in use by process {process.pid}")


def test_a_damaged_tfrecord(corpus: Path, tmp_path: Path) -> None:
    common = ["--input", corpus, "--output", tmp_path, *SETTINGS]
    assert skipstream("transform", *common).returncode == 0
    record = next(tmp_path.glob("transform/*/train/*.tfrecord.gz"))
    record.write_bytes(record.read_bytes()[:-100])
    fails(skipstream("run", *common), "run transform again")


def test_a_model_that_is_none(tmp_path: Path) -> None:
    fails(skipstream("neighbors", tmp_path, "word"), "SavedModel")


def test_a_full_disk(corpus: Path, tmp_path: Path) -> None:
    if (
        os.geteuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(tmp_path)], check=False
        ).returncode
    ):
        pytest.skip("needs root, to mount a small file system")
    try:
        done = skipstream("run", "--input", corpus, "--output", tmp_path, *SETTINGS)
        fails(done, "disk full")
    finally:
        subprocess.run(["umount", str(tmp_path)], check=True)
