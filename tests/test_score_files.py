"""Word pairs and analogies as their authors publish them; what is none of these; the remedies."""

import gzip
import os
import subprocess
from pathlib import Path

import pytest

from components.errors import SkipstreamError
from components.evaluator.score_files import read_analogies, read_word_pairs

HEADING = "word1\tword2\tPOS\tSimLex999\tconc(w1)\tconc(w2)\tconcQ\tAssoc(USF)\n"


@pytest.mark.parametrize(
    "content",
    [
        "the\tcat\t3\ncat\tcafé\t1.5\n",
        "# comment\nword1,word2,score\nthe,cat,3\ncat,café,1.5\n",
        "\ufeffthe cat 3\r\n\r\ncat café 1.5\r\n",
        HEADING + "the\tcat\tA\t3\t2.72\t2.81\t2\t7\ncat\tcafé\tN\t1.5\t1\t2\t3\t4\n",  # SimLex-999
        "Word 1,Word 2,Human (mean)\nthe,cat,3\ncat,café,1.50\n",  # WordSim-353, combined.csv
        "Word 1,Word 2,Human (mean),1,2\nthe,cat,3,9,8\ncat,café,1.5,7,6\n",  # its set1.csv
        "the-n cat-n 3.000000\ncat-n café-j 1.500000\n",  # MEN's lemmas
        "the\tcat\t3\t7\t4\t6\ncat\tcafé\t1.5\t1\t2\t3\n",  # Rare Words
        "the\tcat\tV\t3\tSYNONYMS\ncat\tcafé\tV\t1.5\tNONE\n",  # SimVerb-3500
        "the;cat;3\ncat;café;1.5\n",  # RG-65
        '"the","cat","3"\n"cat","café","1.5"\n',
        "the,cat,3.0\ncat,café,1.500000000000000\n",  # MTurk-771
        "the  cat   3\ncat  café   1.5\n",
        "the\tcat\tx\t3\ncat\tcafé\t\t1.5",  # A column that is not always filled.
    ],
)
def test_word_pairs_are_read_as_they_are_published(tmp_path: Path, content: str) -> None:
    (tmp_path / "pairs").write_bytes(content.encode())
    assert read_word_pairs(tmp_path / "pairs") == (["the", "cat"], ["cat", "café"], [3, 1.5])


def test_one_pair_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("the\tcat\t3\n")
    assert read_word_pairs(tmp_path / "pairs") == (["the"], ["cat"], [3])


def test_tags_stay_where_not_all_words_have_one(tmp_path: Path) -> None:
    (tmp_path / "pairs").write_text("plan-b cat-n 3\nvitamin-n sun 2\n")
    assert read_word_pairs(tmp_path / "pairs")[0] == ["plan-b", "vitamin-n"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("\n", "{path} must hold word pairs, got none"),
        ("word1 word2 score\n", "{path}:1 must be two words and a number, got 'word1 word2 score'"),
        ("a b\nc d\n", "{path}:2 must be two words and a number, got 'c d'"),
        (
            "a\tb\t1\na\tb\n",
            "{path}:2 must have a number in column 3, as line 1 has, got 2 columns: "
            "mend the line or delete it",
        ),
        (
            "a\tb\tA\t1\t2\nc\td\tA\t1\t2\n\ne\tf\tA\tmuch\t3\n",
            "{path}:4 must have a number in column 4, as line 2 has, got 'much': mend the line or "
            "delete it, or keep another column that has numbers (5): "
            "cut -f1,2,5 < '{path}' > '{new}'",
        ),
        (
            "a b 1 2\nc d nan 2\n",
            "{path}:2 must have a number in column 3, as line 1 has, got 'nan': mend the line or "
            "delete it, or keep another column that has numbers (4): "
            "awk '{{print $1, $2, $4}}' < '{path}' > '{new}'",
        ),
        (
            "12\ta\tn\tb\tn\t7.5\n13\tc\tn\td\tn\t2.5\n",
            "{path}:1 must begin with two words, got '12': keep the words and the score: "
            "cut -f2,3,6 < '{path}' > '{new}'",
        ),
        (
            "a;b;7,5\nc;d;2,5\n",
            "{path}:2 must be two words and a number, got 'c;d;2,5': write numbers with a point: "
            "tr , . < '{path}' > '{new}'",
        ),
        (
            ": capitals\nAthens Greece Oslo Norway\n",
            "{path}:2 must be two words and a number, got 'Athens Greece Oslo Norway': "
            "it holds analogies: --set 'evaluator.analogies={path}'",
        ),
    ],
)
def test_what_are_no_word_pairs_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "word pairs.tsv"
    path.write_text(content)
    with pytest.raises(SkipstreamError) as caught:
        read_word_pairs(path)
    assert str(caught.value) == message.format(path=path, new=tmp_path / "word pairs.new.tsv")


def test_analogies_come_by_section(tmp_path: Path) -> None:
    path = tmp_path / "analogies.txt"
    path.write_bytes("\ufeffa b\tc d\r\n: x y\r\n# e\r\n\r\ne f g h\r\n".encode())
    assert read_analogies(path) == {"": [["a", "b", "c", "d"]], "x y": [["e", "f", "g", "h"]]}


@pytest.mark.parametrize(
    ("content", "end"),
    [
        ("", "must hold analogies, got none"),
        (": x\na b c d e\n", ":2 must be four words, A is to B as C is to D, got 'a b c d e'"),
        ("album\talbums\n", "got 'album\\talbums': make each line of two pairs of one relation"),
        ("love\tsex\t6.77\n", "it holds word_pairs: --set 'evaluator.word_pairs={path}'"),
        (HEADING + "old\tnew\tA\t1.58\n", "word_pairs: --set 'evaluator.word_pairs={path}'"),
    ],
)
def test_what_are_no_analogies_is_named(tmp_path: Path, content: str, end: str) -> None:
    path = tmp_path / "my analogies.txt"
    path.write_text(content)
    with pytest.raises(SkipstreamError) as caught:
        read_analogies(path)
    assert str(caught.value).endswith(end.format(path=path))


PAIRS = "naïve\tcafé\t3\n"


@pytest.mark.parametrize(
    "content",
    [
        "“naïve\tcafé\t3\n".encode("cp1252"),
        PAIRS.encode("utf-16"),
        PAIRS.encode("utf-16-le"),
        PAIRS.encode("utf-16-be"),
        b"1\tnaive\tx\tcafe\t3\n2\tnaive\tx\tcafe\t3\n",
        b"1,naive,n,cafe,n,3\n",
        b"1 naive cafe 3\n",
        b"naive;cafe;7,5\n",
        b"naive cafe 7,5\n",
    ],
)
def test_remedies_of_word_pairs_work(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a b's ü.txt"
    path.write_bytes(content)
    with pytest.raises(SkipstreamError) as caught:
        read_word_pairs(path)
    paste(caught.value)
    (mended,) = set(tmp_path.iterdir()) - {path}
    first, _, _ = read_word_pairs(mended)
    assert first[0].strip("“") in ("naive", "naïve")


@pytest.mark.parametrize("content", [b"a,b,c,d\n", b"a;b;c;d\n", b"a b c\n"])
def test_remedies_of_analogies_work(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a b's ü.txt"
    path.write_bytes(content)
    (tmp_path / "ANSWERS").write_text("JJ_JJR d\n")
    with pytest.raises(SkipstreamError) as caught:
        read_analogies(path)
    paste(caught.value, tmp_path)
    assert read_analogies(tmp_path / "a b's ü.new.txt") == {"": [["a", "b", "c", "d"]]}


def test_a_packed_file_is_unpacked_as_told(tmp_path: Path) -> None:
    path = tmp_path / "my pairs.tsv.gz"
    path.write_bytes(gzip.compress(PAIRS.encode()))
    with pytest.raises(SkipstreamError, match="must be text, got gzip data") as caught:
        read_word_pairs(path)
    paste(caught.value)
    assert read_word_pairs(tmp_path / "my pairs.tsv") == (["naïve"], ["café"], [3])


def test_a_directory_is_named(tmp_path: Path) -> None:
    with pytest.raises(SkipstreamError, match=r"is a directory: name its files, as in '.*/\*'"):
        read_analogies(tmp_path)


def test_a_workbook_is_no_archive_to_unpack(tmp_path: Path) -> None:
    path = tmp_path / "pairs.xlsx"
    path.write_bytes(b"PK\x03\x04" + bytes(26) + b"xl/workbook.xml")
    with pytest.raises(SkipstreamError) as caught:
        read_word_pairs(path)
    assert str(caught.value) == (
        f"{path} must be text, got an Excel workbook (.xlsx): save it as text, a line for each "
        "pair or analogy"
    )


def paste(error: SkipstreamError, place: Path | None = None) -> None:
    """Run the command that an error ends with."""
    command = str(error).rpartition(": ")[2]
    environment = {"PATH": os.environ["PATH"], "LANG": "C"}
    subprocess.run(command, shell=True, check=True, env=environment, cwd=place)
