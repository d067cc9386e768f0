"""`import skipstream`: trained models in Python, beside gensim and Keras."""

import builtins
import gzip
import json
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import write_corpus
from gensim.models import KeyedVectors
from test_served import save

import skipstream
from components.near import near
from components.subwords import Buckets, Subwords
from pipeline import child, documents, face

NAMES = [f"{letter}{number}" for letter in "abc" for number in range(70)]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> skipstream.Embeddings:
    path = tmp_path_factory.mktemp("model") / "1"
    vectors = np.random.default_rng(1).normal(size=(len(NAMES), 9)).astype(np.float32)
    save(path, NAMES, vectors)
    (path / "assets.extra").mkdir()
    counts = "".join(f"{count}\n" for count in range(len(NAMES) + 5, 5, -1))
    (path / "assets.extra" / "counts.txt").write_text(counts)
    return skipstream.load(path)


@pytest.fixture(scope="module")
def with_ngrams(tmp_path_factory: pytest.TempPathFactory) -> skipstream.Embeddings:
    draw = np.random.default_rng(2)
    rows, ids = draw.normal(size=(300, 9)), np.sort(draw.choice(500, 300, replace=False))
    buckets = Buckets(Subwords(3, 5, 500), ids.astype(np.int32), rows.astype(np.float32))
    vectors = draw.normal(size=(len(NAMES), 9)).astype(np.float32)
    return skipstream.load(save(tmp_path_factory.mktemp("ngrams") / "1", NAMES, vectors, buckets))


@pytest.fixture(scope="module")
def gensim(model: skipstream.Embeddings) -> KeyedVectors:
    vectors = KeyedVectors(9)
    vectors.add_vectors(model.words, model.vectors)
    return vectors


def test_words_and_vectors_are_looked_up(model: skipstream.Embeddings) -> None:
    assert (len(model), model.words, model.dimensions) == (210, NAMES, 9)
    assert model["a3"].shape == (9,)
    np.testing.assert_array_equal(model["a3"], model.vectors[3], strict=True)
    np.testing.assert_array_equal(model[["A3", "b0"]], model.vectors[[3, 70]], strict=True)
    assert "a3" in model and " A3" in model and "d1" not in model and 3 not in model
    assert model.counts is not None and model.counts[:2].tolist() == [215, 214]
    with pytest.raises(ValueError, match="read-only"):
        model.vectors[0] = 0
    with pytest.raises(KeyError, match=r"not in the model's vocabulary: cc69 \(did you mean c69\?"):
        model["cc69"]


def test_unknown_words_have_vectors_of_ngrams_but_are_no_words(
    with_ngrams: skipstream.Embeddings,
) -> None:
    assert with_ngrams["a3a3a3"].any() and "a3a3a3" not in with_ngrams
    assert len(with_ngrams.most_similar("a3a3a3", topn=4)) == 4
    with pytest.raises(skipstream.UnknownWordError, match="nor was any of the n-grams trained"):
        with_ngrams.most_similar(["</s>"])


@pytest.mark.parametrize(
    "question",
    [
        {"positive": "a1"},
        {"positive": ["a1", "b2"], "negative": ["c3"], "topn": 5},
        {"positive": [("a1", 0.5), "b2"], "negative": [("c3", -2.0)], "topn": 300},
        {"positive": np.arange(9.0)},
        {"positive": [np.arange(9, dtype=np.float32), "c7"], "negative": "c8"},
        {"positive": [(np.arange(9.0), 3), ("c7", 1)]},
        {"positive": [], "negative": ["a1"]},
        {"negative": ["a1"]},
        {"positive": None, "negative": "a1"},
        {"positive": "a1", "negative": None},
    ],
)
def test_most_similar_is_gensim_s(
    model: skipstream.Embeddings, gensim: KeyedVectors, question: dict[str, Any]
) -> None:
    found, expected = model.most_similar(**question), gensim.most_similar(**question)
    assert [word for word, _ in found] == [word for word, _ in expected]
    np.testing.assert_allclose([c for _, c in found], [c for _, c in expected], atol=1e-6)


def test_other_answers_are_gensim_s(model: skipstream.Embeddings, gensim: KeyedVectors) -> None:
    draw = np.random.default_rng(3)
    for _ in range(30):
        words = draw.choice(NAMES, 4, replace=False).tolist()
        assert model.doesnt_match(words) == gensim.doesnt_match(words)
        assert model.similarity(*words[:2]) == pytest.approx(
            gensim.similarity(*words[:2]), abs=1e-6
        )


@pytest.mark.parametrize(
    ("ask", "message"),
    [
        (lambda m: m.most_similar("a1", topn=0), r"\(topn\) must be at least 1, got 0"),
        (lambda m: m.most_similar([]), "needs a word or a vector"),
        (lambda m: m.most_similar(np.zeros(4)), r"must have the shape \(9,\), got \(4,\)"),
        (lambda m: m.doesnt_match("a1"), "words must be a list of them, got the text 'a1'"),
        (lambda m: m.doesnt_match(iter([])), "needs a list of words, got none"),
        (lambda m: m[0], "words must be text, got int"),
        (lambda m: m[None], "words must be text, got NoneType"),
        (lambda m: m[["a1", 3]], "got int at place 1"),
        (lambda m: m.most_similar("a1", topn=None), "must be a whole number, got None"),
        (lambda m: m.most_similar("a1", topn=2.5), "must be a whole number, got 2.5"),
        (lambda m: m.most_similar(3), "takes words and vectors, got int"),
        (lambda m: m.most_similar([{}]), "takes words and vectors, got dict"),
        (lambda m: m.most_similar(np.full(9, np.nan)), "must hold finite numbers"),
        (lambda m: m.most_similar([("a1", np.inf)]), "weights must be finite"),
        (lambda m: m.embed([None]), "texts must be text, got NoneType at place 0"),
        (lambda m: m[["z" * 2000]], "^not in the model's vocabulary: z{59}…: occurs fewer than"),
        (lambda m: m[["z1", *["z2"] * 99]], r"z2, and 90 more: occurs"),
        (lambda m: m.embed("a1"), "a list of them, got the text 'a1'"),
        (lambda m: m.similarity("a1", "zz9"), "vocabulary: zz9"),
    ],
)
def test_mistaken_questions_are_refused(
    model: skipstream.Embeddings, ask: Any, message: str
) -> None:
    with pytest.raises(skipstream.SkipstreamError, match=message):
        ask(model)


def test_words_and_texts_may_come_one_by_one(model: skipstream.Embeddings) -> None:
    assert list(model) == NAMES
    words = NAMES[:9:2]
    expected = model.doesnt_match(words)
    assert model.doesnt_match(np.array(words)) == model.doesnt_match(iter(words)) == expected
    np.testing.assert_array_equal(model[iter(words)], model.vectors[:9:2])
    np.testing.assert_array_equal(model.embed(iter(words)), model.embed(words))


def test_long_words_are_near_none() -> None:
    started = time.process_time()
    words = ["a" * 2000] * 50
    assert near("a" * 1990, words) == near("a" * 59, words) == []
    assert time.process_time() - started < 1


def test_gensim_answers_the_same_from_what_it_is_given(model: skipstream.Embeddings) -> None:
    vectors = model.to_gensim()
    assert type(vectors) is KeyedVectors
    assert vectors.index_to_key == NAMES
    assert vectors.get_vecattr("a1", "count") == 214
    assert [word for word, _ in vectors.most_similar("b5")] == [
        word for word, _ in model.most_similar("b5")
    ]
    vectors.add_vectors(["new"], np.ones((1, 9)))
    assert "new" in vectors and len(model) == 210


def test_gensim_composes_the_same_from_ngrams(with_ngrams: skipstream.Embeddings) -> None:
    vectors = with_ngrams.to_gensim()
    for word in ("a3", "a3a3", "c69b1", "zzz", "東京東京"):
        expected = with_ngrams.vectors_of([word])[0][0]
        np.testing.assert_allclose(vectors.get_vector(word), expected, atol=1e-6)
    vectors.adjust_vectors()  # As gensim does when it trains on: own parts and n-grams.
    np.testing.assert_allclose(vectors.vectors, with_ngrams.vectors, atol=1e-5)


def test_without_gensim_the_error_says_what_to_install(
    model: skipstream.Embeddings, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def fails(name: str, *arguments: Any) -> Any:
        if name.startswith("gensim"):
            raise ImportError(f"No module named {name!r}")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", fails)
    with pytest.raises(skipstream.SkipstreamError, match="pip install 'gensim>=4.4,<5'"):
        model.to_gensim()


# Of Keras's own, with numpy 2.
@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
def test_a_keras_layer_looks_tokens_up_and_is_saved(
    model: skipstream.Embeddings, tmp_path: Path
) -> None:
    layer = model.keras_layer()
    texts = [["a1", "c9", "zz"], ["b2", "", ""], ["zz", "", ""]]
    rows = np.array([[model[word] if word in model else np.zeros(9) for word in t] for t in texts])
    np.testing.assert_array_equal(layer(tf.constant(texts)).numpy(), rows)
    mean = keras.Sequential(
        [keras.Input([None], dtype="string"), layer, keras.layers.GlobalAveragePooling1D()]
    )
    np.testing.assert_allclose(mean(tf.constant(texts)).numpy(), rows.mean(axis=1), atol=1e-6)
    mean.save(tmp_path / "mean.keras")
    loaded = keras.models.load_model(tmp_path / "mean.keras")
    np.testing.assert_array_equal(
        loaded(tf.constant(texts)).numpy(), mean(tf.constant(texts)).numpy()
    )
    assert not layer.trainable_weights
    assert [list(w.shape) for w in model.keras_layer(trainable=True).trainable_weights] == [
        [211, 9]
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"vector_size": 50}, "no keyword 'vector_size': dimensions is meant"),
        ({"alpha": 0.1}, "no keyword 'alpha': learning_rate is meant"),
        ({"iter": 3}, "no keyword 'iter': epochs is meant"),
        ({"sg": 1}, "skip-gram with negative sampling is the only model"),
        ({"sentences": []}, "give file patterns first, or texts as documents="),
        ({"windw": 3}, "no keyword 'windw': did you mean window?"),
        ({"dimension": 3}, "no keyword 'dimension': did you mean dimensions?"),
        ({"settings": {"epochs": 3}}, """'epochs': settings={"trainer.epochs": …} is meant"""),
        ({"settings": {3: 3}}, "names of settings must be text, got 3"),
        ({"settings": [1]}, "settings must be as {"),
        ({"input": 3}, "input takes file patterns, got int"),
        ({"input": ["text one"]}, "no file matches 'text one': texts themselves are given as"),
        ({"documents": 3}, "got int: documents=[text, …]"),
        (
            {"output": ""},
            "output must be a directory, gs://bucket/path or s3://bucket/path, got ''",
        ),
        ({"output": "gs://", "documents": ["a"]}, "output must be a directory, gs://"),
        ({"output": "/dev/null/x", "documents": ["a"]}, "/dev/null/x/documents cannot be written"),
        ({"window": 0}, "trainer.window must be at least 1, got 0"),
        ({"settings": {"trainer.epochs": "x"}}, "trainer.epochs must be a whole number, got 'x'"),
        ({"settings": {"example_gen.input": math.inf}}, "a number, text or a list, got inf"),
        ({"settings": {"example_gen.input": [None]}}, "a number, text or a list, got [None]"),
        ({"window": np.arange(2)}, "trainer.window must be a whole number, got [0, 1]"),
        ({"settings": {"trainer": {"epoch": 1}}}, "unknown setting 'trainer.epoch'"),
        ({"settings": "/none.toml"}, "config file /none.toml does not exist"),
        ({"input": [["a", "b"]]}, "got list at place 0: texts themselves are given as documents="),
        ({"documents": ["a", 3]}, "got int at place 1"),
        ({"documents": "a text"}, "got one text alone"),
        ({"documents": iter([])}, "must hold a text, got none"),
        ({"documents": ["a"], "input": "x.txt"}, "two corpora"),
        ({"documents": ["a"], "settings": {"example_gen.input": "x.txt"}}, "two corpora"),
    ],
)
def test_mistakes_are_told_before_anything_starts(
    given: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(child, "run", None)
    with pytest.raises(skipstream.SkipstreamError) as caught:
        skipstream.train(**{"output": tmp_path / "out", **given})
    assert message in str(caught.value)


@pytest.mark.parametrize("texts", [[], "abc", 3, [3]])
def test_what_is_no_corpus_leaves_nothing_behind(texts: Any, tmp_path: Path) -> None:
    with pytest.raises(skipstream.SkipstreamError):
        skipstream.train(documents=texts, output=tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_documents_beside_an_input_in_a_file_are_refused(tmp_path: Path) -> None:
    toml = tmp_path / "settings.toml"
    toml.write_text('[example_gen]\ninput = "x.txt"\n')
    with pytest.raises(skipstream.SkipstreamError, match="two corpora"):
        skipstream.train(documents=["a"], settings=toml, output=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("model", ["", 3, b"x"])
def test_what_is_no_address_is_refused(model: Any) -> None:
    with pytest.raises(skipstream.SkipstreamError, match="model must be a directory"):
        skipstream.load(model)


def test_errors_of_the_texts_are_as_they_are(tmp_path: Path) -> None:
    texts = (Path(name).read_text() for name in [__file__, "/none.txt"])
    with pytest.raises(FileNotFoundError, match=r"/none\.txt"):
        documents.write(texts, str(tmp_path))
    assert [path.name for path in (tmp_path / "documents").iterdir()] == [".lock"]


def test_keywords_settings_and_files_become_the_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    commands = []
    monkeypatch.setattr(child, "run", lambda command, progress: commands.append(command) or "OUT")
    monkeypatch.setattr(face, "load", str)
    toml = tmp_path / "settings.toml"
    toml.write_text("[trainer]\nwindow = 3\n")
    skipstream.train(["a*.txt", Path("b.txt")], settings=toml, epochs=2, max_loss_increase=None)
    given = {"trainer": {"seed": 3}, "evaluator.analogies": ["q.txt"], "example_gen.field": "a\x7f"}
    skipstream.train(settings=given, seed=4)
    skipstream.train("-x.txt", output="-o")
    assert commands == [
        [
            "run",
            "--output",
            "skipstream-output",
            "--config",
            str(toml),
            "--input",
            "a*.txt",
            "b.txt",
        ]
        + ["--set", "trainer.epochs=2", "evaluator.max_loss_increase=none"],
        ["run", "--output", "skipstream-output"]
        + ["--set", "trainer.seed=4", 'evaluator.analogies=["q.txt"]']
        + ['example_gen.field="a\\u007f"'],
        ["run", "--output", "./-o", "--input", "./-x.txt"],
    ]


def test_documents_are_written_alike_however_they_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = ["one\ntwo", "", "東 \udc80", *map(str, range(100))]
    monkeypatch.setattr(documents, "_FILE_BYTES", 500)
    made = documents.write((text for text in texts), str(tmp_path / "o[1]"))
    content = {path.name: path.read_bytes() for path in made.iterdir()}
    assert len(content) > 3
    lines = b"".join(gzip.decompress(content[name]) for name in sorted(content)).splitlines()
    assert lines[:3] == [
        b'{"text": "one\\ntwo"}',
        b'{"text": ""}',
        '{"text": "東 ?"}'.encode(),
    ]
    assert len(lines) == len(texts)
    assert documents.write(texts, str(tmp_path / "o[1]")) == made
    assert {path.name: path.read_bytes() for path in made.iterdir()} == content
    import glob

    assert len(glob.glob(documents.pattern(made))) == len(content)
    left = made.parent / ".scratch-documents"  # Of a process that was killed.
    left.mkdir()
    (left / "00000.jsonl.gz").touch()
    other = documents.write(["x"], str(tmp_path / "o[1]"))
    assert [path.name for path in other.iterdir()] == ["00000.jsonl.gz"]
    documents.forget_others(other)
    assert sorted(other.parent.iterdir()) == [other.parent / ".lock", other]


def test_importing_is_quick_and_loads_no_framework(model: skipstream.Embeddings) -> None:
    program = f"""if True:
        import sys, time
        started = time.process_time()
        import skipstream
        seconds = time.process_time() - started
        assert "numpy" not in sys.modules and seconds < 0.3, seconds
        model = skipstream.load({str(model.path)!r})
        model.most_similar("a1"), model.embed(["a1 Ünknown"]), "ä" in model
        assert not {{"tensorflow", "apache_beam", "keras"}} & set(sys.modules)
        assert set(skipstream.__all__) <= set(dir(skipstream))
    """
    subprocess.run([sys.executable, "-c", program], check=True)
    with pytest.raises(AttributeError, match="no attribute 'trian'"):
        skipstream.trian  # noqa: B018


@pytest.mark.parametrize("name", ["pipeline", "components"])
def test_a_folder_that_hides_ours_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / name).mkdir()
    (tmp_path / name / "__init__.py").touch()
    done = subprocess.run(
        [sys.executable, "-c", "import skipstream; skipstream.train()"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(Path(skipstream.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr.splitlines()[-1] == (
        f"ImportError: skipstream needs its own package {name}, and {tmp_path / name} hides it: "
        "rename that, or start Python in another directory"
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    path = write_corpus(tmp_path_factory.mktemp("corpus"), lines=2000)
    rare = " ".join(f"rare{number}" for number in range(1000))
    return [*gzip.decompress(path.read_bytes()).decode().splitlines(), rare]


QUICK = {"dimensions": 16, "epochs": 1, "sample": 0.01, "max_loss": 9.0}


@pytest.fixture(scope="module")
def trained(corpus: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An output of `train`."""
    output = tmp_path_factory.mktemp("trained") / "out"
    model = skipstream.train(documents=iter(corpus), output=output, **QUICK)
    assert model.path == output / "serving" / "1"
    return output


def test_a_model_is_trained_and_found_again(
    trained: Path, corpus: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    model = skipstream.train(documents=corpus, output=trained, **QUICK)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert [line.split()[:2] for line in shown.err.splitlines()][-2:] == [
        ["infra_validator", "reused"],
        ["pusher", "reused"],
    ]
    again = skipstream.load(trained)
    assert (again.path, len(again), again.dimensions) == (model.path, 28, 16)
    skipstream.train(documents=corpus, output=trained, progress=False, **QUICK)
    assert capfd.readouterr() == ("", "")


def test_failures_are_the_errors_that_the_command_shows(trained: Path, corpus: list[str]) -> None:
    quiet: dict[str, Any] = {"output": trained, "progress": False, **QUICK}
    with pytest.raises(skipstream.NotBlessedError, match="statistics_gen.min_kept_share"):
        skipstream.train(documents=corpus, min_kept_share=0.99, **quiet)
    with pytest.raises(
        skipstream.SkipstreamError, match="no file matches .* '/none.txt'"
    ) as caught:
        skipstream.train("/none.txt", **quiet)
    assert type(caught.value) is skipstream.SkipstreamError


def test_a_notebook_shows_progress_and_survives_an_interrupt(
    trained: Path, corpus: list[str], tmp_path: Path
) -> None:
    pytest.importorskip("ipykernel")
    from jupyter_client.manager import start_new_kernel

    text, output = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("\n".join(corpus))
    (trained.parent / "corpus.json").write_text(json.dumps(corpus))
    kernel, client = start_new_kernel(cwd=str(trained.parent))
    shown: list[str] = []

    def hear(message: dict[str, Any]) -> None:
        content = message["content"]
        if "text" in content or "data" in content:
            shown.append(content.get("text") or str(content["data"]))

    def execute(code: str) -> dict[str, Any]:
        answer = client.execute_interactive(code, output_hook=hear, timeout=60)
        return answer["content"]

    try:
        execute("import json, skipstream\ncorpus = json.load(open('corpus.json'))")
        done = execute(f"model = skipstream.train(documents=corpus, output='out', **{QUICK})")
        assert done["status"] == "ok", shown
        assert "pusher          reused" in "".join(shown)
        assert "%|" in "".join(shown)  # the bar
        assert execute("print(model.most_similar('ship', topn=1)[0][0] in model)")["status"] == "ok"
        assert shown[-1] == "True\n"

        client.execute(f"skipstream.train({str(text)!r}, output={str(output)!r})")
        wait_for(lambda: (output / "run.json").exists())
        kernel.interrupt_kernel()
        assert client.get_shell_msg(timeout=60)["content"]["ename"] == "KeyboardInterrupt"
        assert '"exit_code": 130' in (output / "run.json").read_text()
        execute("print(len(model))")
        assert shown[-1] == "28\n"
        assert list(children(kernel.provisioner.process.pid)) == []
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)


PROGRAM = """if True:
    import sys, skipstream
    try:
        skipstream.train({pattern!r}, output={output!r}, dimensions=16, progress=False)
    except KeyboardInterrupt:
        print("alive")
"""


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupt_ends_the_run_and_leaves_no_process(
    corpus: list[str], tmp_path: Path, end: signal.Signals
) -> None:
    text, output = tmp_path / "text.txt", tmp_path / "out"
    text.write_text("\n".join(corpus))
    program = PROGRAM.format(pattern=str(text), output=str(output))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        wait_for(lambda: (output / "run.json").exists())
        (run,) = children(process.pid)
        process.send_signal(end)
        shown, _ = process.communicate(timeout=60)
    assert shown == (b"alive\n" if end == signal.SIGINT else b"")
    wait_for(lambda: not Path(f"/proc/{run}").exists())
    assert '"exit_code": 130' in (output / "run.json").read_text()


def wait_for(what: Any) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def children(process: int) -> Iterator[int]:
    return map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
