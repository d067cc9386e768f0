"""Patterns of files as people write them: what they match, and what is said of the others."""

import functools
import http.server
import os
import re
import shutil
import subprocess
import threading
from pathlib import Path

import pytest
from shells import words

from components.errors import SettingsError, SkipstreamError
from components.example_gen.files import list_files
from pipeline import config


def names(*patterns: str) -> list[str]:
    return [os.path.basename(file.path) for file in list_files(patterns)[0]]


def message(pattern: str, kind: type[SkipstreamError] = SkipstreamError) -> str:
    with pytest.raises(SkipstreamError) as caught:
        list_files([pattern])
    assert type(caught.value) is kind
    return str(caught.value)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def write(*paths: str) -> None:
    for path in map(Path, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("text")


def test_braces_are_alternatives_of_which_each_must_match():
    write("a1.txt", "a2.txt", "b.txt", "c10.txt", "x{1,2}.txt")
    assert names("a{1,2}.txt") == ["a1.txt", "a2.txt"]
    assert names("{a{2..1},b}.t{xt,x*}") == ["a1.txt", "a2.txt", "b.txt"]
    assert names("{a..b}*.txt") == ["a1.txt", "a2.txt", "b.txt"]
    assert names("x{1,2}.txt") == ["x{1,2}.txt"]
    assert "pattern 'a3.txt'" in message("a{1..9000000000}.txt")
    assert "pattern 'c09.txt'" in message("c{09..10}.txt")
    assert "pattern 'a{1'" in message("a{1")


def test_names_may_be_any_bytes():
    awkward = [b"-dash", b"[br]", b"caf\xe9", b"new\nline", b"quo'te \"", "😀".encode()]
    for name in awkward:
        Path(os.fsdecode(name)).write_text("text")
    expected = [os.fsdecode(name) for name in awkward]
    assert names("*") == expected
    # As a shell hands them over, which keeps what is not UTF-8.
    assert names(*config.load(None, input=expected).example_gen.input) == expected
    assert names(r"caf\xe9") == ["caf\udce9"]
    assert names(r"*\xe9") == ["caf\udce9"]
    assert r"pattern 'no\xe8\n'" in message("no\udce8\n")


def test_a_directory_says_how_its_files_are_named():
    write("flat/a", "deep/er/a", "br[1]/a", "it's/a", "two/1/a", "two/2/a", ".hidden/a")
    Path("none").mkdir()
    Path(os.fsdecode(b"caf\xe9")).mkdir()
    write("caf\udce9/a")
    start = "no file matches example_gen.input pattern "
    assert message("flat/") == (
        f"{start}'flat/', which is a directory: name its files, as in 'flat/*'"
    )
    assert message("none") == f"{start}'none', which is a directory without files: name files"
    assert message("tw*/*") == (
        f"{start}'tw*/*', only 2 directories: name its files, as in 'tw*/*/*'"
    )
    for directory in (
        "flat",
        "deep",
        "br[1]",
        "it's",
        "tw*",
        ".hidden",
        "caf\udce9",
        r"caf\xe9",
        "~/flat",
    ):
        told = message(directory).rpartition("as in ")[2]
        assert names(*words(told)) in (["a"], ["a", "a"])
    told = message("br[1]/*").rpartition("name it ")[2]
    assert names(*words(told)) == ["a"]


@pytest.mark.parametrize("pattern", ["a.txt,b*.txt", "a.txt b*.txt", " a.txt, b*.txt"])
def test_files_in_one_word_are_named_apart(pattern: str):
    write("a.txt", "b1.txt")
    told = message(pattern)
    assert told == (
        f"no file matches example_gen.input pattern '{pattern}': patterns are separated by "
        "spaces, as in --input a.txt 'b*.txt'"
    )
    assert names(*words(told.rpartition("--input ")[2])) == ["a.txt", "b1.txt"]
    assert "check the path" in message("a.txt,c.txt")


def test_what_is_no_file_is_named():
    Path("broken").symlink_to("nowhere")
    assert message("broken") == (
        "no file matches example_gen.input pattern 'broken', which is a link to 'nowhere', "
        "which is not there: name the files"
    )
    assert message("b*") == (
        "no file matches example_gen.input pattern 'b*', only 1 broken link or pipe: name the files"
    )
    assert message("/dev/null").endswith("'/dev/null', which is a device: name files")
    assert message("~nobody's/a").endswith("there is no home directory ~nobody's")
    assert message("none*").endswith(
        "'none*': check the path, and that the quotes keep the shell from expanding it"
    )


def test_one_of_several_patterns_without_a_file_is_enough():
    write("a.txt")
    with pytest.raises(SkipstreamError, match=r"pattern 'b\*': check"):
        list_files(["a.txt", "b*"])


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("-", "(cat > corpus.txt)"),
        ("/dev/stdin", "(cat > corpus.txt)"),
        ("/dev/fd/63", "('> corpus.txt' in place of '<( )')"),
        ("/proc/self/fd/0", "('> corpus.txt' in place of '<( )')"),
    ],
)
def test_a_stream_is_refused_with_a_remedy(pattern: str, remedy: str):
    assert message(pattern, SettingsError) == (
        f"example_gen.input takes files, got '{pattern}', a stream, which can be read once, while "
        f"a corpus is read several times: write it to a file first {remedy}, and name that; "
        ".gz, .bz2 and .zst files are read as they are"
    )


def test_the_command_for_a_pipe_works():
    os.mkfifo("a pipe")
    (command,) = re.findall(r"\((cat .*)\)", message("a pipe", SettingsError))
    writer = threading.Thread(target=lambda: Path("a pipe").write_text("text"))
    writer.start()
    subprocess.run(["sh", "-c", command], check=True, env={"LANG": "C", "PATH": os.environ["PATH"]})
    writer.join()
    assert Path("corpus.txt").read_text() == "text"


def test_the_command_for_a_download_works(folder: Path):
    if not shutil.which("curl"):
        pytest.skip("no curl")

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    write("served/a.txt")
    handler = functools.partial(Quiet, directory=str(folder / "served"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        told = message(f"http://127.0.0.1:{server.server_port}/a.txt?x=1&y=2", SettingsError)
        command = told.partition("as by: ")[2]
        environment = {"LANG": "C", "PATH": os.environ["PATH"]}
        subprocess.run(["sh", "-c", command], check=True, env=environment, capture_output=True)
        server.shutdown()
    assert Path("a.txt").read_text() == "text"


@pytest.mark.parametrize(
    ("pattern", "remedy"),
    [
        ("hdfs://node/a b", "copy it first, as by: hdfs dfs -get 'hdfs://node/a b'"),
        ("file:///data/a.txt", "name it /data/a.txt"),
        ("s3a://bucket/*", "name it 's3://bucket/*'"),
        ("azfs://account/a", "copy the files to one of these first"),
    ],
)
def test_other_places_are_refused_with_a_remedy(pattern: str, remedy: str):
    assert message(pattern, SettingsError) == (
        f"example_gen.input takes local files, gs:// and s3://, got '{pattern}': {remedy}"
    )
    assert message("ftpx://a/b", SettingsError) == (
        "no file system for example_gen.input pattern 'ftpx://a/b': use a local path, gs:// or "
        "s3://"
    )


def test_a_path_of_windows_is_refused_with_the_one_of_wsl():
    assert message("C:\\Users\\me\\*.txt", SettingsError) == (
        "example_gen.input takes paths of Linux, got 'C:\\Users\\me\\*.txt', one of Windows: "
        "WSL has its drives below /mnt, as in '/mnt/c/Users/me/*.txt'"
    )
    write("D:/a.txt")
    assert names("D:/a.txt") == ["a.txt"]


def test_an_empty_pattern_is_refused():
    with pytest.raises(SettingsError, match=r"^example_gen\.input\.0 must not be empty$"):
        config.load(None, input=[""])


def test_other_settings_are_utf8():
    with pytest.raises(SettingsError) as caught:
        config.load(None, ["pusher.destination=/srv/caf\udce9"])
    assert str(caught.value) == (
        r"--set takes text in UTF-8, got pusher.destination=/srv/caf\xe9: rename the file or "
        "directory"
    )
