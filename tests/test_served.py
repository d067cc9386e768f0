"""Models read and asked without TensorFlow answer what TensorFlow answers."""

import json
import shutil
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import tensorflow as tf
from commands import skipstream

from components import spelling, text
from components.errors import SkipstreamError
from components.exporter import tensor_bundle
from components.exporter.embeddings import Embeddings
from components.exporter.signatures import EmbeddingModel
from components.subwords import Buckets


def save(path: Path, words: list[str], vectors: np.ndarray, buckets: Buckets | None = None) -> Path:
    """A SavedModel of lower-case words, as the exporter writes it."""
    vocabulary = path.with_name("vocabulary.txt")
    vocabulary.write_text("".join(f"{word}\n" for word in words))
    options: dict[str, Any] = {"tokenizer": "words", "lowercase": True, "buckets": buckets}
    module = EmbeddingModel(vectors, vocabulary, **options)
    tf.saved_model.save(module, str(path), signatures=dict(module.signatures))
    return path


def words_of(draw: np.random.Generator, number: int) -> list[str]:
    """Words of characters that the tokeniser treats in different ways."""
    alphabet = [*"aZéİΣσςiIıﬁßאב東のक्가각각०9½ \t\x1c\x85_-’'ʼ\"״·‧՚՛։"]
    alphabet += [*"\u0301\u0307\u0323\u0328\u0345\u00ad\u200c\u200d\ufe0f\ufeff\u0387\u05f3\x00"]
    lengths = draw.integers(1, 8, number)
    return ["".join(draw.choice(alphabet, length)) for length in lengths]


@pytest.mark.parametrize(("tokenizer", "lowercase"), [("words", True), ("whitespace", False)])
def test_words_are_spelled_and_split_as_in_the_graph(
    tokenizer: spelling.Tokenizer, lowercase: bool
) -> None:
    options: dict[str, Any] = {"tokenizer": tokenizer, "lowercase": lowercase}
    # All that are assigned, but of letters without case (Han, Hangul) every seventh.
    characters = [chr(code) for code in range(0x110000)]
    left_out = ("Cn", "Co", "Cs")
    characters = [
        c for c in characters if unicodedata.category(c) != "Lo" or ord(c) % 7 == 0 or c < "\u3000"
    ]
    words = [f"{c}a{c}'{c}ב{c}" for c in characters if unicodedata.category(c) not in left_out]
    words += words_of(np.random.default_rng(1), 5_000)
    in_bytes = tf.constant([word.encode() for word in words])
    spelled = text.spell(tf.strings.strip(in_bytes), **options).numpy()
    assert spelling.spell(words, **options) == [word.decode() for word in spelled]
    flat = text.tokenize(in_bytes, **options)
    tokens = np.array([token.decode() for token in flat.flat_values.numpy()], object)
    expected = np.split(tokens, flat.row_splits.numpy()[1:-1])
    assert spelling.tokenize(words, **options) == [list(row) for row in expected]


def test_all_code_points_are_split_as_in_the_graph() -> None:
    """Also those that Python does not know yet: Arrow's RE2 and TensorFlow's have other tables.

    Of the planes that nothing is assigned in, a few.

    If TensorFlow is imported first, Arrow uses its RE2, and there is nothing to compare.
    """
    options: dict[str, Any] = {"tokenizer": "words", "lowercase": True}
    codes = [*range(1, 0x40000), *range(0xE0000, 0xF0000), *range(0x40000, 0x110000, 17)]
    characters = [chr(code) for code in codes if not 0xD800 <= code < 0xE000]
    texts = [" ".join(characters[start:][:5000]) for start in range(0, len(characters), 5000)]
    in_graph = text.tokenize(tf.constant([text.encode() for text in texts]), **options)
    expected = [[token.decode() for token in tokens] for tokens in in_graph.to_list()]
    assert spelling.tokenize(texts, **options) == expected
    assert [len(tokens) for tokens in expected[-2:]] == [0, 0]  # Of private use.
    assert spelling.tokenize(["\U0002ebf0\U0002ee5d"], **options) == [[*"\U0002ebf0\U0002ee5d"]]


def test_bytes_that_are_no_text_are_spelled_as_in_the_graph() -> None:
    draw = np.random.default_rng(2)
    parts = [b"a", b"\xff", b"\xe6\x9d", b"\xed\xa0\x80", b"\xc3\xa9", b"\xf0\x9f", b"\x80"]
    words = [b"".join(draw.choice(np.array(parts, object), 4)) for _ in range(2000)]
    given = [word.decode("utf-8", "surrogateescape") for word in words]
    for tokenizer in get_args(spelling.Tokenizer):
        options: dict[str, Any] = {"tokenizer": tokenizer, "lowercase": True}
        expected = text.spell(tf.constant(words), **options).numpy()
        assert spelling.spell(given, **options) == [word.decode() for word in expected]


def test_a_checkpoint_is_read_as_tensorflow_reads_it(tmp_path: Path) -> None:
    draw = np.random.default_rng(4)
    dtypes = [np.float32, np.float16, np.int8, np.int32, np.int64]
    module = tf.Module()
    # Keys fill more than one block of the index, and begin alike.
    names = [f"{draw.bytes(2).hex()}{n % 3:0800}_{n}" for n in range(400)]
    module.many = {
        name: tf.Variable(draw.integers(0, 9, draw.integers(0, 4, n % 4)).astype(dtypes[n % 5]))
        for n, name in enumerate(names)
    }
    prefix = tf.train.Checkpoint(m=module).write(str(tmp_path / "variables"))
    reader = tf.train.load_checkpoint(prefix)
    found = tensor_bundle.read(Path(prefix))
    assert found.keys() == reader.get_variable_to_shape_map().keys() - {
        "_CHECKPOINTABLE_OBJECT_GRAPH"
    }
    for name, tensor in found.items():
        np.testing.assert_array_equal(tensor, reader.get_tensor(name), strict=True)
        assert not tensor.flags.writeable


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    vectors = np.random.default_rng(5).normal(size=(40, 4)).astype(np.float32)
    return save(tmp_path_factory.mktemp("exported") / "1", [f"word{n}" for n in range(40)], vectors)


@pytest.mark.parametrize("file", ["variables.index", "variables.data-00000-of-00001"])
def test_a_byte_that_was_flipped_is_found(exported: Path, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "1"
    shutil.copytree(exported, copy)
    content = (copy / "variables" / file).read_bytes()
    tensors = 40 * 4 * 4  # Bytes of vectors; what follows may be of the graph, which is not read.
    for place in range(
        0, len(content) if "index" in file else tensors, 1 if "index" in file else 37
    ):
        damaged = bytearray(content)
        damaged[place] ^= 0x10
        (copy / "variables" / file).write_bytes(damaged)
        try:
            model = Embeddings.load(copy)
        except SkipstreamError as error:
            assert "MODEL must be a whole SavedModel" in str(error)
        else:  # In what nothing is read from: the empty block, padding.
            np.testing.assert_array_equal(model.vectors, Embeddings.load(exported).vectors)
            assert "index" in file


def test_quick_answers_come_without_tensorflow(exported: Path, tmp_path: Path) -> None:
    commands = [
        ["neighbors", exported, "word1", "WORD2", "-k", "2"],
        ["neighbors", exported, "w99"],
        ["analogy", exported, "word1", "word2", "word3"],
        ["embed", exported],
        ["export", exported, "--format", "npz", "--output", tmp_path / "x.npz"],
        ["versions", tmp_path],
        ["stats", tmp_path],
        ["settings"],
        ["settings", "--set", "trainer.windw=3"],
    ]
    program = """if True:
        import json, sys
        from pipeline import cli
        for command in json.loads(sys.argv[1]):
            code = cli.run(command)
            assert not {"tensorflow", "apache_beam", "keras"} & set(sys.modules), command
            print("code", code)
    """
    done = subprocess.run(
        [sys.executable, "-c", program, json.dumps(commands, default=str)],
        capture_output=True,
        text=True,
        input="",
        check=False,
    )
    codes = [line for line in done.stdout.splitlines() if line.startswith("code ")]
    assert codes == [f"code {code}" for code in (0, 1, 0, 0, 0, 1, 1, 0, 2)], done.stderr


def test_an_unknown_word_has_three_near_spellings(exported: Path) -> None:
    done = skipstream("neighbors", exported, "wordx1")
    assert done.stderr == (
        "skipstream: error: not in the model's vocabulary: wordx1 "
        "(did you mean word1 or word10 or word11?)\n"
    )
