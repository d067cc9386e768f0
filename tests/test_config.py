import tomllib
from pathlib import Path

import pytest

from components.errors import SkipstreamError
from pipeline import aliases, config
from pipeline.config import Settings


def test_what_is_not_mentioned_keeps_its_default():
    assert config.load(None) == Settings()


def test_input_wins_over_set_and_set_over_the_file(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text(
        '[example_gen]\ninput = ["file"]\n[trainer]\nepochs = 2\nwindow = 3\n', encoding="utf-8"
    )
    settings = config.load(file, ["trainer.epochs=9", "example_gen.input=set"], ["flag", "other"])
    assert settings.example_gen.input == ("flag", "other")
    assert settings.trainer.epochs == 9
    assert settings.trainer.window == 3


def test_the_last_of_two_equal_names_wins():
    assert config.load(None, ["trainer.epochs=2", "trainer.epochs=3"]).trainer.epochs == 3


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("ws353.tsv", ("ws353.tsv",)),
        ("[ab]*.tsv", ("[ab]*.tsv",)),
        ("['a.tsv', 'b.tsv']", ("a.tsv", "b.tsv")),
        ("a=b.tsv", ("a=b.tsv",)),
        ("[]", ()),
    ],
)
def test_a_list_is_toml_or_one_text(text: str, value: tuple[str, ...]):
    assert config.load(None, [f"evaluator.word_pairs={text}"]).evaluator.word_pairs == value


def test_one_text_stands_for_a_list_in_a_file_too(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text('evaluator.analogies = "questions.txt"\n', encoding="utf-8")
    assert config.load(file).evaluator.analogies == ("questions.txt",)


@pytest.mark.parametrize(
    "overrides",
    [
        ["trainer.min_ngram=3"],
        ["trainer.max_ngram=6"],
        ["trainer.min_ngram=4", "trainer.max_ngram=3"],
    ],
)
def test_ngrams_have_two_lengths_or_none(overrides: list[str]):
    with pytest.raises(SkipstreamError, match=r"^trainer.min_ngram and .* must both be 0 .* got"):
        config.load(None, overrides)


@pytest.mark.parametrize("text", [".05", "0.05", "5e-2", " 0.05 "])
def test_numbers_are_read_as_people_write_them(text: str):
    assert config.load(None, [f"trainer.learning_rate={text}"]).trainer.learning_rate == 0.05


def test_none_is_no_limit():
    assert config.load(None, ["transform.max_size=7"]).transform.max_size == 7
    assert config.load(None, ["transform.max_size=none"]).transform.max_size is None


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.window=0", "trainer.window must be at least 1, got 0"),
        ("trainer.window=101", "trainer.window must be at most 100, got 101"),
        ("trainer.shards=0", "trainer.shards must be at least 1, got 0"),
        ("trainer.shards=1025", "trainer.shards must be at most 1024, got 1025"),
        ("trainer.round_tokens=0", "trainer.round_tokens must be at least 1, got 0"),
        ("trainer.learning_rate=0", "trainer.learning_rate must be more than 0, got 0"),
        ("trainer.seed=2147483648", "trainer.seed must be less than 2147483648, got 2147483648"),
        ("trainer.sample=nan", "trainer.sample must be a finite number, got nan"),
        ("trainer.epochs=abc", "trainer.epochs must be a whole number, got 'abc'"),
        ("trainer.epochs='3'", "trainer.epochs must be a whole number, got '3'"),
        ("trainer.epochs=2.5", "trainer.epochs must be a whole number, got 2.5"),
        ("trainer.epochs=true", "trainer.epochs must be a whole number, got True"),
        ("trainer.epochs=", "trainer.epochs must be a whole number, got ''"),
        ("trainer.sample=x", "trainer.sample must be a number, got 'x'"),
        ("transform.lowercase=False", "transform.lowercase must be true or false, got 'False'"),
        ("transform.tokenizer=w", "transform.tokenizer must be 'words' or 'whitespace', got 'w'"),
        ("example_gen.field=3", "example_gen.field must be text, got 3"),
        ("example_gen.field=''", "example_gen.field must not be empty"),
        ("example_gen.input=3", "example_gen.input must be a list, got 3"),
        ("example_gen.input=['']", "example_gen.input.0 must not be empty"),
        ("trainer=3", "trainer must be a table, got 3"),
        ("trainer.windw=3", "unknown setting 'trainer.windw': did you mean 'trainer.window'?"),
        ("windw=3", "unknown setting 'windw': did you mean 'trainer.window'?"),
        ("trainr.window=3", "unknown setting 'trainr.window': use --set trainer.window=3"),
        ("window=3", "unknown setting 'window': use --set trainer.window=3"),
        (
            "trainer.min_count=3",
            "unknown setting 'trainer.min_count': use --set transform.min_count=3",
        ),
        ("minCount=3", "unknown setting 'minCount': use --set transform.min_count=3"),
        ("a.vector_size=50", "unknown setting 'a.vector_size': use --set trainer.dimensions=50"),
        ("negative=0", "unknown setting 'negative': trainer.negatives must be at least 1, got 0"),
        ("lower=False", "unknown setting 'lower': use --set transform.lowercase=false"),
        ("inputCol=a b", "unknown setting 'inputCol': use --set 'example_gen.field=a b'"),
        ("sentences=a b.txt", "unknown setting 'sentences': use --input 'a b.txt'"),
        (
            "hs=1",
            "unknown setting 'hs': skip-gram with negative sampling is the only model: "
            "leave it out",
        ),
        (
            "trainer.min_n=3",
            "unknown setting 'trainer.min_n': use --set trainer.min_ngram=3",
        ),
        ("q.zzzz=3", "unknown setting 'q.zzzz': see 'skipstream settings'"),
        ("trainer.epochs", "--set takes stage.name=value, got 'trainer.epochs'"),
        ("=3", "--set takes stage.name=value, got '=3'"),
    ],
)
def test_a_mistake_is_one_line(override: str, message: str):
    with pytest.raises(SkipstreamError) as caught:
        config.load(None, [override])
    assert str(caught.value) == message


@pytest.mark.parametrize(
    ("overrides", "hint"),
    [
        (["trainer.epochs", "3"], "'trainer.epochs': write trainer.epochs=3"),
        (["min_count", "1"], "'min_count': write transform.min_count=1"),
        (["trainer.epochs", "=", "3"], "'trainer.epochs'"),
        (["trainer.epochs=3", "a b.txt"], "'a b.txt': files are given with --input 'a b.txt'"),
    ],
)
def test_what_is_no_setting_behind_set_is_named(
    overrides: list[str], hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a b.txt").touch()
    with pytest.raises(SkipstreamError) as caught:
        config.load(None, overrides)
    assert str(caught.value) == f"--set takes stage.name=value, got {hint}"


def test_names_in_a_file_are_corrected_as_a_file_has_them(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text(
        'vector_size = 50\ncorpus_file = "a.txt"\n[word2vec]\nsg = 1\nminCount = 3\n'
        "[trainer]\nlr = 0.1\n",
        encoding="utf-8",
    )
    with pytest.raises(SkipstreamError) as caught:
        config.load(file, ["iter=3"])
    assert str(caught.value).split("; ") == [
        "unknown setting 'trainer.lr': write learning_rate = 0.1 below [trainer]",
        "unknown setting 'vector_size': write dimensions = 50 below [trainer]",
        "unknown setting 'corpus_file': write input = \"a.txt\" below [example_gen]",
        "unknown setting 'word2vec.sg': skip-gram with negative sampling is the only model: "
        "leave it out",
        "unknown setting 'word2vec.minCount': write min_count = 3 below [transform]",
        "unknown setting 'iter': use --set trainer.epochs=3",
    ]


@pytest.mark.parametrize(
    "names",
    [
        # gensim's Word2Vec, FastText and Phrases; before version 4: size, iter.
        "sentences corpus_file vector_size alpha window min_count max_vocab_size max_final_vocab "
        "sample seed workers min_alpha sg hs negative ns_exponent cbow_mean epochs sorted_vocab "
        "batch_words compute_loss shrink_windows min_n max_n bucket word_ngrams "
        "size iter threshold",
        # fastText
        "input output dim ws epoch lr minCount minn maxn neg loss bucket thread t lrUpdateRate "
        "pretrainedVectors saveOutput wordNgrams",
        # word2vec.c
        "-train -output -size -window -sample -hs -negative -threads -iter -min-count -alpha "
        "-classes -debug -binary -save-vocab -read-vocab -cbow",
        # Spark, TFX, TensorFlow's tutorial
        "numPartitions maxIter stepSize vectorSize windowSize inputCol minCount maxSentenceLength",
        "input_base pipeline_root push_destination train_steps",
        "vocab_size embedding_dim num_ns window_size sequence_length batch_size",
    ],
)
def test_names_of_other_programs_are_known(names: str):
    assert [name for name in names.split() if not (config.meant(name) or config.absent(name))] == []


def test_all_that_hints_name_is_there():
    settings = {name for name, _ in config.fields()}
    assert set(aliases.HERE.values()) <= settings | {"--input", "--output", "--config"}
    ours = {aliases.normal(name.partition(".")[2]) for name in settings}
    assert len(ours) == len(settings)
    assert not ours & (set(aliases.HERE) | set(aliases.NOT_HERE))
    assert not set(aliases.HERE) & set(aliases.NOT_HERE)


def test_all_mistakes_are_named_unknown_names_first():
    with pytest.raises(SkipstreamError) as caught:
        config.load(None, ["trainer.epochs=0", "pusher.keeep=1"])
    assert str(caught.value) == (
        "unknown setting 'pusher.keeep': did you mean 'pusher.keep'?; "
        "trainer.epochs must be at least 1, got 0"
    )


def test_a_file_that_is_not_toml_is_named_with_the_line(tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text("[trainer]\nepochs = = 3\n", encoding="utf-8")
    with pytest.raises(SkipstreamError, match=r"settings.toml is not TOML: .* \(at line 2, "):
        config.load(file)
    file.write_bytes(b"\xff")
    with pytest.raises(SkipstreamError, match=r"settings.toml is not TOML: .* byte 0xff"):
        config.load(file)


_BEYOND = (
    r"^(trainer\.seed|settings) must be .*, got |^config file .* is (not TOML|nested too deeply): "
)


@pytest.mark.parametrize("value", ["[" * 3000 + "]" * 3000, "9" * 5000, "0x" + "f" * 5000])
def test_values_beyond_measure_are_refused(value: str, tmp_path: Path):
    file = tmp_path / "settings.toml"
    file.write_text(f"[trainer]\nseed = {value}\n")
    for arguments in (None, [f"trainer.seed={value}"]), (file,):
        with pytest.raises(SkipstreamError, match=_BEYOND):
            config.load(*arguments)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path):
    with pytest.raises(SkipstreamError, match=r"config file .*none.toml does not exist"):
        config.load(tmp_path / "none.toml")
    with pytest.raises(SkipstreamError, match="is not readable: Is a directory"):
        config.load(tmp_path)


@pytest.mark.parametrize(
    ("overrides", "lowered"),
    [
        ([], True),
        (["transform.lowercase=false"], False),
        (["transform.tokenizer=whitespace"], False),
        (["transform.tokenizer=whitespace", "transform.lowercase=true"], True),
        (["transform.tokenizer=whitespace", "transform.lowercase=none"], False),
    ],
)
def test_letters_are_lowered_by_the_tokenizer_unless_set(
    overrides: list[str], lowered: bool
) -> None:
    assert config.load(None, overrides).transform.lowered == lowered


def test_the_template_names_all_settings_and_reads_back(tmp_path: Path):
    settings = config.load(
        None,
        [
            "trainer.epochs=3",
            "transform.max_size=9",
            "example_gen.input=😀\t\"\x7f'.txt",
            "evaluator.max_score_drop=none",  # The default is a number.
        ],
    )
    text = config.template(settings)
    file = tmp_path / "settings.toml"
    file.write_text(text, encoding="utf-8")
    assert config.load(file) == settings
    for name, field in config.fields():
        stage, _, key = name.partition(".")
        assert key in tomllib.loads(text)[stage] or f"# {key} =" in text
        assert field.description
