import json
import logging
import os
import re
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from components.errors import NotBlessedError, SettingsError, SkipstreamError
from pipeline import cli, config, logs, usage
from pipeline.commands import run


def skipstream(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pipeline", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


@pytest.mark.parametrize(
    ("error", "code", "last"),
    [
        (SkipstreamError("no file a\nb"), 1, r"no file a\nb"),
        (SettingsError("window must be 1"), 2, "window must be 1"),
        (NotBlessedError("loss 3 above 2"), 3, "loss 3 above 2"),
        (KeyboardInterrupt(), 130, "interrupted: the same command resumes"),
        (PermissionError(13, "Permission denied", "/x"), 1, "/x: Permission denied"),
        (OSError("two\nlines"), 1, "two lines"),
        (
            MemoryError(),
            1,
            "out of memory: MemoryError: give it more, or less text at a time",
        ),
        (
            RuntimeError("OutOfRangeError: a/b; File too large"),
            1,
            "disk full: File too large: make room or allow larger files (ulimit -f) and run the "
            "same command again",
        ),
        (
            RuntimeError(
                "Traceback (most recent call last): … RuntimeError: can't start new thread"
            ),
            1,
            "out of memory or threads: can't start new thread: give it more, or less text at a "
            "time",
        ),
        (OSError("Not a gzipped file (b'ab')"), 1, "Not a gzipped file (b'ab')"),
        (
            RuntimeError("Traceback:\n  RuntimeError: Channel closed prematurely."),
            1,
            "a thread of the Beam job ended before its work did (Channel closed prematurely), as "
            "they do where memory or threads run out: run the same command again, or give it more",
        ),
        (
            RuntimeError("job failed: OSError: [Errno 28] No space left on device"),
            1,
            "disk full: No space left on device: make room and run the same command again",
        ),
    ],
)
def test_a_failure_is_one_line_and_a_code(
    error: BaseException,
    code: int,
    last: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(config, "load", fail)
    assert cli.run(["settings"]) == code
    assert capsys.readouterr().err == f"skipstream: error: {last}\n"


def test_damaged_records_are_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    import tensorflow as tf

    def read(*_: object) -> None:
        path = tmp_path / "a.tfrecord"
        path.write_bytes(b"\1" * 40)
        list(tf.data.TFRecordDataset(str(path)))

    monkeypatch.setattr(config, "load", read)
    assert cli.run(["settings"]) == 1
    error = capsys.readouterr().err
    assert error.startswith("skipstream: error: damaged data: ")
    assert error.count("\n") == 1
    assert "{{" not in error


def test_a_bug_shows_its_traceback_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(config, "load", lambda *_: 1 // 0)
    assert cli.run(["settings"]) == 1
    first, *_, last = capsys.readouterr().err.splitlines()
    assert first == "Traceback (most recent call last):"
    assert last.startswith("skipstream: error: this is a bug")
    assert "ZeroDivisionError" in last


@pytest.mark.parametrize(
    "arguments",
    [
        *([], ["frob"], ["run", "--frob"], ["run", "--conf", "x"], ["neighbors"]),
        *(["neighbors", "model", "-k", number, "x"] for number in ("0", "-1", "2.5")),
    ],
)
def test_wrong_usage_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as caught:
        cli.run(arguments)
    assert caught.value.code == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("skipstream: error: ")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run ten.txt", "files are given with --input: skipstream run --input ten.txt"),
        ("transform ten.txt", "files are given with --input: skipstream transform --input ten.txt"),
        (
            "run 'a b.txt' '*.gz' gs://b/x --output OUT -- --runner=DirectRunner",
            "files are given with --input: skipstream run --output OUT --input 'a b.txt' '*.gz' "
            "gs://b/x -- --runner=DirectRunner",
        ),
        (
            "train ten.txt",
            "files are given with --input; 'train' is one stage of 'run': "
            "skipstream run --input ten.txt",
        ),
        (
            "train corpus.txt model.bin",
            "files are given with --input; 'train' is one stage of 'run': "
            "skipstream run --input corpus.txt --output model",
        ),
        (
            "run corpus.txt OUT",
            "files are given with --input: skipstream run --input corpus.txt --output OUT",
        ),
        (
            "run a.txt OUT --output=other",
            "files are given with --input: skipstream run --output=other --input a.txt OUT",
        ),
        (
            "settings a.txt OUT",
            "files are given with --input: skipstream settings --input a.txt OUT",
        ),
        (
            "skipgram -input x.txt -output y.bin",
            "no command is called 'skipgram'; -input is --input here; "
            "-output is --output here, a directory: skipstream run --input x.txt --output y",
        ),
        (
            "-train x.txt -output y.bin -size 200",
            "a command comes first; -train is --input here; -output is --output here, a "
            "directory; -size is trainer.dimensions here: "
            "skipstream run --input x.txt --output y --set trainer.dimensions=200",
        ),
        (
            "ten.txt",
            "a command comes first; files are given with --input: skipstream run --input ten.txt",
        ),
        (
            "run --min-count 1 --force-push",
            "settings are given with --set: "
            "skipstream run --set transform.min_count=1 --force-push",
        ),
        (
            "run --trainer.epochs=3 --set trainer.window=2",
            "settings are given with --set: "
            "skipstream run --set trainer.epochs=3 --set trainer.window=2",
        ),
        (
            "run -dim 100",
            "-dim is trainer.dimensions here: skipstream run --set trainer.dimensions=100",
        ),
        (
            "run -hs 0 --input x.txt",
            "-hs: skip-gram with negative sampling is the only model: leave it out: "
            "skipstream run --input x.txt",
        ),
        (
            "settings --workers 8",
            "--workers is trainer.threads here: skipstream settings --set trainer.threads=8",
        ),
        (
            "run \N{EN DASH}input a.txt \N{EM DASH}dim=50",
            "\N{EN DASH}input begins with a dash that is no hyphen; \N{EM DASH}dim=50 begins with "
            "a dash that is no hyphen; --dim is trainer.dimensions here: "
            "skipstream run --input a.txt --set trainer.dimensions=50",
        ),
        ("run --force", "--force is --force-push here: skipstream run --force-push"),
    ],
)
def test_a_mistaken_command_is_answered_with_the_right_one(
    line: str,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    with pytest.raises(SystemExit) as caught:
        cli.run(shlex.split(line))
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"skipstream: error: {message}\n"
    program, *words = shlex.split(message.rpartition(": ")[2])
    assert program == "skipstream"
    monkeypatch.setattr(run, "stages", run.settings)  # Which reads the same words.
    assert cli.run(words) == 0


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("run --negative 0", "--negative: trainer.negatives must be at least 1, got 0"),
        ("run --epochs", "--epochs is trainer.epochs here, and needs a value"),
        ("run --windw 3", "unrecognized arguments: --windw: did you mean 'trainer.window'?"),
        ("run --frob x.txt", "unrecognized arguments: --frob: see 'skipstream settings'"),
        ("nn model.bin", "no command is called 'nn': 'skipstream neighbors' is meant"),
        ("evalute", "no command is called 'evalute': did you mean 'skipstream evaluate'?"),
        ("frob", "no command is called 'frob': see 'skipstream --help'"),
    ],
)
def test_a_mistake_that_is_half_understood_is_one_line(
    line: str, message: str, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit) as caught:
        cli.run(shlex.split(line))
    assert caught.value.code == 2
    assert capsys.readouterr().err == f"skipstream: error: {message}\n"


def test_many_files_that_a_shell_named_become_a_pattern_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    names = [f"texts/{name}.txt" for name in "abcd"]
    (tmp_path / "texts").mkdir()
    for name in names:
        (tmp_path / name).touch()
    options = {"--input": None}
    mistake = "files are given with --input: skipstream run --input "
    assert usage.corrected("run", names, options) == f"{mistake}'texts/*.txt'"
    assert usage.corrected("run", ["texts/"], options) == f"{mistake}'texts/*'"
    (tmp_path / "texts" / "e.txt").touch()
    assert usage.corrected("run", names, options) == mistake + " ".join(names)


def test_a_directory_with_a_run_in_it_is_the_output(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    for name in ("texts", "out.1"):
        (tmp_path / name).mkdir()
    (tmp_path / "out.1" / "store.json").touch()
    options = {"--input": None, "--output": 1}
    mistake = "files are given with --input: skipstream run --input "
    answer = usage.corrected("run", ["texts", "out.1"], options)
    assert answer == f"{mistake}'texts/*' --output out.1"
    assert usage.corrected("run", ["a.txt", "texts"], options) == f"{mistake}a.txt 'texts/*'"


@pytest.mark.parametrize(
    "arguments",
    [
        ["run", "--set", "trainer.window=0"],
        ["run", "--set", "trainer.window"],
        ["settings", "--config", "/none.toml"],
        ["run", "--set", "pusher.destination=ftp://a/b"],
        ["run", "--input", "ftpx://a/b"],
        ["run", "--", "--runner=Frob"],
        ["run", "--", "--frob=1"],
        ["versions", "ftp://a/b"],
        ["analogy", "model", "a", "b"],
    ],
)
def test_what_can_never_work_exits_with_2(
    arguments: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    monkeypatch.chdir(tmp_path)
    assert cli.run(arguments) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith("skipstream: error: ")


def test_what_stands_behind_the_dashes_goes_to_beam(monkeypatch: pytest.MonkeyPatch):
    seen = []
    monkeypatch.setattr(run, "stages", seen.append)
    assert cli.run(["run", "--input", "a", "b", "--", "--runner=DirectRunner", "--", "x"]) == 0
    (arguments,) = seen
    assert arguments.input == ["a", "b"]
    assert arguments.beam_options == ["--runner=DirectRunner", "--", "x"]


def test_mistakes_and_help_are_answered_without_tensorflow_or_beam(tmp_path: Path):
    program = """if True:
        import sys
        from pipeline import cli
        code = cli.run(sys.argv[1:])
        assert not {"tensorflow", "apache_beam", "numpy"} & set(sys.modules)
        sys.exit(code)
    """
    command = [sys.executable, "-c", program, "run", "--output", str(tmp_path / "out")]
    done = subprocess.run(
        [*command, "--set", "trainer.windw=3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == (
        "skipstream: error: unknown setting 'trainer.windw': did you mean 'trainer.window'?\n"
    )
    assert not (tmp_path / "out").exists()
    assert skipstream("run", "--help").returncode == 0


def test_a_run_that_may_open_few_files_says_so(tmp_path: Path):
    done = skipstream(
        "run",
        "--output",
        str(tmp_path / "out"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (24, 24)),
    )
    assert done.returncode == 1
    assert done.stderr == (
        "skipstream: error: a run must be allowed to open at least 64 files at once, got 24: allow "
        "more with 'ulimit -n 1024'\n"
    )
    assert not (tmp_path / "out").exists()


def test_settings_are_a_file_for_config(tmp_path: Path):
    printed = skipstream("settings", "--set", "trainer.epochs=3").stdout
    assert "\nepochs = 3\n" in printed
    file = tmp_path / "settings.toml"
    file.write_text(printed, encoding="utf-8")
    assert skipstream("settings", "--config", str(file)).stdout == printed


def test_a_missing_evaluation_file_is_reported_before_anything_runs(tmp_path: Path):
    done = skipstream("run", "--output", str(tmp_path), "--set", "evaluator.analogies=/none/*.txt")
    assert done.returncode == 1
    assert done.stderr == (
        "skipstream: error: evaluator.analogies must match a file, got '/none/*.txt', "
        "which does not\n"
    )
    assert json.loads((tmp_path / "run.json").read_text())["stages"] == {}


@pytest.mark.parametrize(
    ("logger", "news"), [("apache_beam.utils.retry", False), ("apache_beam.io.gcp.auth", True)]
)
def test_tries_that_beam_repeats_are_no_news(logger: str, news: bool):
    record = logging.LogRecord(logger, logging.WARNING, "x.py", 1, "no credentials", (), None)
    assert logs.is_news(record) is news


def test_a_closed_pipe_ends_in_silence():
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "pipeline", "settings"],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)
    assert (done.returncode, done.stderr) == (141, b"")


def test_commands_that_messages_name_are_there(capsys: pytest.CaptureFixture[str]):
    root = Path(cli.__file__).parents[1]
    texts = [
        path.read_text()
        for place in ("components", "pipeline")
        for path in root.glob(f"{place}/**/*.py")
    ]
    named = set(re.findall(r"'skipstream ([a-z]+)", "\n".join(texts)))
    assert {"settings", "transform"} <= named
    for command in named:
        with pytest.raises(SystemExit) as caught:
            cli.run([command, "--help"])
        assert caught.value.code == 0, command


def test_the_process_ends_before_its_interpreter_does() -> None:
    """By then a thread of gRPC's may abort it; what is to be done at exit is done."""
    program = """if True:
        import atexit, sys
        from pipeline import cli

        class Late:
            def __del__(self):
                print("the interpreter ends")

        late = Late()
        cli.run = lambda *_: atexit.register(print, "at exit") and 2
        cli.main()
    """
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (2, "at exit\n")
