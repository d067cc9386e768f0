"""What people who come from gensim, fastText, word2vec.c, Spark or TensorFlow call our settings.

The names stand in hints alone: none of them is taken for a setting. Case, hyphens and underscores
make no difference, so `minCount` is `min_count` is `-min-count`.
"""

import re

_HERE = {
    "--input": "i inputs infile sentences corpus corpus_file corpus_iterable train data files "
    "data_root input_base text_file",
    "--output": "output o out outdir output_dir save save_model pipeline_root",
    "--config": "c settings config_file yaml",
    "example_gen.field": "input_col text_col text_column text_field json_field",
    "transform.min_count": "min_freq min_frequency vocab_min_count",
    "transform.max_size": "max_vocab_size max_final_vocab max_vocab vocab_size max_tokens top_k "
    "max_features",
    "transform.lowercase": "lower do_lower_case to_lower",
    "transform.phrase_threshold": "threshold",
    "trainer.dimensions": "vector_size size dim dims embed_dim embedding_dim embedding_size",
    "trainer.window": "ws window_size",
    "trainer.negatives": "negative neg num_ns num_negatives negative_samples",
    "trainer.sample": "t subsample",
    "trainer.noise_exponent": "ns_exponent",
    "trainer.epochs": "epoch iter iterations max_iter num_epochs",
    "trainer.learning_rate": "alpha lr step_size start_alpha",
    "trainer.min_ngram": "min_n minn",
    "trainer.max_ngram": "max_n maxn",
    "trainer.buckets": "bucket",
    "trainer.threads": "workers thread num_workers num_threads",
    "trainer.seed": "random_state random_seed",
    "trainer.start_vectors": "pretrained_vectors pretrained",
    "trainer.warm_start": "base_model",
    "pusher.destination": "serving_model_dir push_destination",
}
_ONLY_MODEL = "skip-gram with negative sampling is the only model"
_NOT_HERE = {
    _ONLY_MODEL: "sg hs cbow cbow_mean skipgram loss model architecture",
    "there are no n-grams of words, but phrases (transform.phrase_passes)": "word_ngrams",
    "there are no labels": "label min_count_label",
    "there are no word classes": "classes",
    "the rate falls to 1e-4 of trainer.learning_rate": "min_alpha end_alpha",
    "the rate falls at each step": "lr_update_rate",
    "steps have one size": "batch_size batch_words",
    "an epoch is the whole corpus (trainer.epochs)": "train_steps num_steps num_train_steps",
    "the vocabulary is always sorted by count": "sorted_vocab",
    "losses are always in run.json": "compute_loss verbose debug",
    "nothing is cut into partitions": "num_partitions",
    "documents have any length": "max_sentence_length sequence_length",
    "'skipstream export' writes vectors in other formats": "binary save_output",
    "each run writes its vocabulary to OUT/transform": "save_vocab read_vocab",
}


def normal(name: str) -> str:
    """A name without what makes no difference.

    >>> normal("-min-count") == normal("minCount") == normal("min_count")
    True
    """
    return re.sub(r"[^a-z0-9]", "", name.lower())


def _by_name(table: dict[str, str]) -> dict[str, str]:
    return {normal(name): key for key, names in table.items() for name in names.split()}


HERE = _by_name(_HERE)  # The setting or the option, by the normal form of another name for it.
NOT_HERE = _by_name(_NOT_HERE)  # Why there is no such setting.
