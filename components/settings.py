"""Every setting of every stage: its unit, its range, its default and where that comes from.

The classes are frozen and validated by pydantic; `pipeline.config` reads them from TOML and
from `--set`. Nothing here imports TensorFlow or Beam, so a mistake is reported at once.
"""

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

Storage = Literal["float32", "float16", "int8"]
Glob = Annotated[str, StringConstraints(min_length=1)]


class StageSettings(BaseModel):
    """Base of all settings: immutable, and an unknown name is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)
    # Names of those that no artifact's content depends on, or not by their value: files, say, count
    # by what they hold.
    NEUTRAL: ClassVar[frozenset[str]] = frozenset()

    def counting(self) -> dict[str, Any]:
        """Those that the content of an artifact depends on, as JSON."""
        return self.model_dump(mode="json", exclude=set(self.NEUTRAL))


class ExampleGenSettings(StageSettings):
    """Which files are the corpus, and what in them is a document."""

    NEUTRAL = frozenset({"input"})

    input: tuple[Glob, ...] = Field(
        (),
        description="File patterns (local, gs://, s3://). None: the docstrings of the "
        "installed dependencies.",
    )
    format: Literal["auto", "lines", "paragraphs", "files", "jsonl", "csv", "tsv", "parquet"] = (
        Field(
            "auto",
            description="What a document is: a line, a paragraph (separated by blank lines), a "
            "whole file, a JSON Lines record, or a row of CSV, TSV (with a header) or Parquet. "
            "auto: by the file's name, else lines; files with mark-up are refused.",
        )
    )
    field: str = Field(
        "text",
        min_length=1,
        description="The JSON field, or the column of a table, that holds the text.",
    )
    eval_share: float = Field(
        0.01,
        ge=0,
        le=0.5,
        description="Share of documents held out for the loss, chosen by a hash of their content.",
    )
    max_unreadable: float = Field(
        0.01,
        ge=0,
        le=1,
        description="Share of documents that may be unreadable (invalid JSON or CSV, field "
        "missing or no text) before the run fails.",
    )
    max_invalid_utf8: float = Field(
        0.1,
        ge=0,
        le=1,
        description="Share of documents that may hold invalid UTF-8, which is read as separators, "
        "before the run fails. A file with invalid UTF-8 in most of its first lines is refused at "
        "once, unless this is higher.",
    )
    max_expansion: float = Field(
        200.0,
        ge=1,
        description="Bytes that each byte of a compressed or Parquet file may unpack to, above 64 "
        "MiB in all, before the file is refused: a file made to fill memory or disk unpacks to "
        "1,000 or more, text to 3 to 20, the most monotonous logs to 100.",
    )
    damaged_files: Literal["fail", "skip"] = Field(
        "fail",
        description="What to do with a file that is truncated, corrupt, not text or gone. fail: "
        "stop and name it. skip: leave it out, with a warning (of plain text above 24 MB, only "
        "the damaged pieces).",
    )


class TransformSettings(StageSettings):
    """How text becomes tokens, and which tokens become the vocabulary."""

    NEUTRAL = frozenset({"cache", "work_directory"})

    tokenizer: Literal["words", "whitespace"] = Field(
        "words",
        description="words: Unicode's words, and one token per Han or kana character. whitespace: "
        "for text that was segmented before; its tokens stay as they are.",
    )
    lowercase: bool | None = Field(
        None,
        description="Whether letters become lower case; none: with tokenizer words, yes, with "
        "whitespace, no.",
    )
    min_count: int = Field(
        5, ge=1, description="Occurrences a token needs to be kept (word2vec.c and gensim: 5)."
    )
    max_size: int | None = Field(
        None, ge=1, description="Most tokens in the vocabulary; none: no limit."
    )
    deduplicate: bool = Field(
        False, description="Keep only the first of documents that are equal byte by byte."
    )
    min_tokens: int = Field(1, ge=1, description="Tokens a document needs to be kept.")
    max_token_length: int | None = Field(
        None, ge=1, description="Most characters in a token; longer ones are dropped. none: all."
    )
    phrase_passes: int = Field(
        0,
        ge=0,
        le=4,
        description="How often pairs of tokens that stand together more than by chance are joined "
        "(new york -> new_york), counted anew each time, so that 2 passes make phrases of up to 4 "
        "tokens; 0: never.",
    )
    phrase_threshold: float = Field(
        100.0,
        gt=0,
        description="Score above which a pair is a phrase: (count - min_count) / count of first / "
        "count of second x tokens (word2phrase.c: 100). Higher: fewer phrases.",
    )
    work_directory: str | None = Field(
        None,
        min_length=1,
        description="Where workers on other machines write: a directory that all of them see, or "
        "gs://; none: below the output, which must be such a place then. A job in this process "
        "writes below the output's local files.",
    )
    cache: bool = Field(
        True,
        description="Keep the tokenised text (about half its bytes) so that the next run "
        "tokenises only what is new.",
    )

    @property
    def lowered(self) -> bool:
        """Whether letters become lower case, unset or not."""
        return self.tokenizer == "words" if self.lowercase is None else self.lowercase

    def counting(self) -> dict[str, Any]:
        """Also the case of letters where it is left open."""
        return super().counting() | {"lowercase": self.lowered}


class StatisticsGenSettings(StageSettings):
    """What a corpus must be like to be trained on; without limits, any is."""

    NEUTRAL = frozenset({"reference"})

    reference: Glob | None = Field(
        None,
        description="Output or transform artifact that the corpus is compared with; "
        "none: what the newest pushed version was trained on, other than this corpus.",
    )
    min_kept_share: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Lowest share of the tokens that the vocabulary holds; none: no limit.",
    )
    max_l_infinity: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest change of a word's share of the kept tokens since the reference; "
        "none: no limit.",
    )
    max_jensen_shannon: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Largest Jensen-Shannon distance (0: the same, 1: no word in common) between "
        "the reference's shares of tokens and this corpus's; none: no limit.",
    )
    max_damaged_parts: int | None = Field(
        None,
        ge=0,
        description="Most files, or pieces of large ones, that may have been skipped under "
        "example_gen.damaged_files = skip; none: no limit.",
    )


class TrainerSettings(StageSettings):
    """Skip-gram with negative sampling (Mikolov et al. 2013), defaults as word2vec.c's."""

    NEUTRAL = frozenset(
        {
            "checkpoint_minutes",
            "distributed",
            "start_vectors",
            "threads",
            "warm_start",
            "warm_epochs",
            "warm_learning_rate",
        }
    )

    dimensions: int = Field(100, ge=1, le=4096, description="Length of a vector.")
    window: int = Field(
        5, ge=1, le=100, description="Most tokens between target and context, on either side."
    )
    shrink_windows: bool = Field(
        True,
        description="Whether a window's reach is drawn from 1 to window, so that near words count "
        "more (word2vec.c); else every reach is the whole window.",
    )
    negatives: int = Field(5, ge=1, le=100, description="Noise words for each pair.")
    sample: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of the corpus above which a word is subsampled; 0: never. Unset: chosen "
        "from the counts of the words, 1e-4 from 20 million tokens on.",
    )
    noise_exponent: float = Field(
        0.75, ge=-2, le=2, description="Power of the counts that noise words are drawn by."
    )
    epochs: int | None = Field(
        None,
        ge=1,
        description="Passes over the corpus. Unset: chosen from its size, 5 from 20 million tokens "
        "on (word2vec.c, gensim: 5).",
    )
    patience: int | None = Field(
        None,
        ge=1,
        description="Stop after so many epochs in which the held-out loss has not fallen, and keep "
        "the vectors of the best one; none: train all epochs.",
    )
    learning_rate: float = Field(
        0.05,
        gt=0,
        le=1,
        description="Rate of the first step; falls in a straight line to 1e-4 of itself (fastText, "
        "BlazingText: 0.05).",
    )
    start_vectors: tuple[Glob, ...] = Field(
        (),
        description="Files in word2vec's text or binary format, GloVe's, or models of fastText "
        "(.bin), whose vectors known words start from, later files winning; none: small random "
        "ones.",
    )
    warm_start: Glob | None = Field(
        None,
        description="A model whose vectors and context vectors the words start from: latest (that "
        "of the last pushed version, if there is one), a trainer artifact, or another output; "
        "none: start anew. Words that it does not know start from start_vectors, or anew.",
    )
    warm_epochs: int | None = Field(
        None,
        ge=1,
        description="Passes over the corpus, in place of epochs, after a warm start. Unset: two "
        "fifths of the epochs that are chosen where those are unset.",
    )
    warm_learning_rate: float = Field(
        0.025,
        gt=0,
        le=1,
        description="Rate of the first step, in place of learning_rate, after a warm start: about "
        "where it is in a cold one when as many epochs are left (docs/retraining.md).",
    )
    min_ngram: int = Field(
        0,
        ge=0,
        le=20,
        description="Characters of the shortest n-grams of words, counting the < and > around a "
        "word (fastText: 3). 0: none, and only words of the vocabulary have vectors.",
    )
    max_ngram: int = Field(
        0, ge=0, le=20, description="Characters of the longest n-grams (fastText: 6); 0: none."
    )
    buckets: int = Field(
        2_000_000,
        ge=1,
        lt=2**31,
        description="Buckets that n-grams are hashed to (fastText: 2,000,000). The n-grams of a "
        "bucket share a vector.",
    )
    seed: int = Field(1, ge=0, lt=2**31, description="Everything random is a function of it.")
    shards: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="Parts of a round that are trained in parallel, and then merged. Unset: chosen "
        "from the size of the corpus, 32 at most. More can use more CPUs, and cost a little "
        "quality.",
    )
    round_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens that a shard trains on between two merges. Unset: chosen from the size "
        "of the corpus.",
    )
    checkpoint_minutes: float = Field(
        5.0, gt=0, description="Longest time that an interrupted run has to repeat."
    )
    threads: int | None = Field(
        None,
        ge=1,
        description="CPU threads that TensorFlow takes, in all stages; none: one for each CPU. "
        "The result is the same.",
    )
    distributed: bool = Field(
        False,
        description="Train as a Beam job, where the options behind -- say, with the files below "
        "transform.work_directory, or below the output. The result is the same.",
    )

    @model_validator(mode="after")
    def _ngrams(self) -> Self:
        if (self.min_ngram == 0) != (self.max_ngram == 0) or self.min_ngram > self.max_ngram:
            raise ValueError(
                "trainer.min_ngram and trainer.max_ngram must both be 0 (no n-grams), or min_ngram "
                f"from 1 to max_ngram, got {self.min_ngram} and {self.max_ngram}: fastText has 3 "
                "and 6"
            )
        return self


class Chosen(TrainerSettings):
    """Settings that leave nothing open."""

    sample: float
    epochs: int
    warm_epochs: int
    shards: int
    round_tokens: int

    def warm(self) -> Self:
        """The settings of a training that goes on from another model."""
        changes = {"epochs": self.warm_epochs, "learning_rate": self.warm_learning_rate}
        return self.model_copy(update=changes)


class ExporterSettings(StageSettings):
    """What is served."""

    vectors: Literal["target", "average"] = Field(
        "target",
        description="The targets' vectors (as word2vec.c, gensim), or the average of each with its "
        "context vector.",
    )
    storage: Storage = Field(
        "float32",
        description="Numbers that the SavedModel stores: float16 takes half the bytes, int8 a "
        "quarter (one scale a word). Answers are float32.",
    )
    align: bool = Field(
        True,
        description="Rotate the vectors onto those of the last pushed version of another training "
        "(orthogonal Procrustes over the 10,000 most frequent words of both), so that stored "
        "vectors stay of use. No length and no cosine changes.",
    )


class EvaluatorSettings(StageSettings):
    """What a candidate is measured by. Without files, by its loss and the version before it."""

    NEUTRAL = frozenset({"word_pairs", "analogies"})

    word_pairs: tuple[Glob, ...] = Field(
        (),
        description="Files of word<TAB>word<TAB>score, for Spearman's correlation; also as "
        "SimLex-999, WordSim-353 and MEN are published.",
    )
    analogies: tuple[Glob, ...] = Field(
        (), description="Files in the format of Google's questions-words.txt."
    )
    max_loss: float | None = Field(
        None,
        gt=0,
        description="Highest loss, in nats a pair, that is blessed: the held-out one, or where no "
        "document is held out, the training's. none: 0.02 less than guessing by frequency costs.",
    )
    # What follows holds a candidate against the last pushed version of another training.
    require_comparison: bool = Field(
        True,
        description="Whether that version must be there as a whole: its SavedModel, tables and "
        "examples. False: what is gone of it is not compared.",
    )
    max_loss_increase: float | None = Field(
        0.1,
        ge=0,
        description="Largest increase of the loss since the version before, in nats a pair, on the "
        "held-out documents of either, over the words that both know; none: no limit.",
    )
    max_score_drop: float | None = Field(
        0.05,
        ge=0,
        le=2,
        description="Largest drop of the score of a file of word_pairs or analogies since the "
        "version before, if both know the words of 100 questions; none: no limit.",
    )
    min_neighbor_overlap: float | None = Field(
        0.1,
        ge=0,
        le=1,
        description="Lowest mean share of the 10 nearest words that the 1,000 most frequent words "
        "keep; none: no limit.",
    )
    min_coverage: float | None = Field(
        0.8,
        ge=0,
        le=1,
        description="Lowest share of the words of the version before that the candidate knows; "
        "none: no limit.",
    )
    max_norm_ratio: float | None = Field(
        2.0,
        ge=1,
        description="Most times that the median length of frequent words' vectors may grow or "
        "shrink; none: no limit.",
    )
    max_cosine_increase: float | None = Field(
        0.2,
        ge=0,
        le=2,
        description="Most that the mean cosine of two frequent words may rise (a space that "
        "collapses into a cone); none: no limit.",
    )


class PusherSettings(StageSettings):
    """Where blessed models go."""

    destination: Glob | None = Field(
        None,
        description="Where versions are served from: a directory, gs://bucket/path or "
        "s3://bucket/path; none: serving below the output.",
    )
    keep: int = Field(
        5,
        ge=1,
        description="Versions that stay there. With 1, a version may go while a server that has "
        "just seen it still loads it.",
    )
