"""The corpus as tensorflow-metadata's statistics, for TensorFlow Data Validation and Facets.

One dataset of two features: `tokens`, the strings of a document, also those outside the vocabulary,
and `tokens_per_document`, how many there are. What settings leave out (duplicates, short documents,
long tokens) is not in it; a document without any token is one where both are missing.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow.compute as pc
from tensorflow_metadata.proto.v0 import statistics_pb2 as pb

from components.statistics_gen.counts import Counts

FILE = "FeatureStats.pb"  # As TFX's StatisticsGen names it.
# The defaults of TFDV's StatsOptions.
_TOP_VALUES = 20
_RANKS = 1000


def to_proto(statistics: Mapping[str, Any], counts: Counts) -> pb.DatasetFeatureStatisticsList:
    """Statistics in the terms of TFDV.

    Exact are all numbers of documents, tokens and types. Of `tokens`, `avg_length` (bytes) is
    that of the kept tokens, and the rank histogram ends at rank 1,000. Of the documents' lengths
    only the histogram is known: minimum, maximum, median and standard deviation are those of
    documents spread evenly within its buckets.

    Args:
        statistics: The content of statistics.json.
        counts: The vocabulary.
    """
    lengths = _buckets(statistics["document_lengths"])
    some = sum(int(bucket.sample_count) for bucket in lengths)  # Documents that hold a token.
    missing = statistics["documents_dropped"].get("no_token", 0)
    values = statistics["tokens"] - statistics["tokens_dropped"].get("too_long", 0)
    dataset = pb.DatasetFeatureStatistics(name="corpus", num_examples=some + missing)

    tokens = dataset.features.add(type=pb.FeatureNameStatistics.STRING)
    tokens.path.step.append("tokens")
    tokens.string_stats.common_stats.CopyFrom(
        _common(
            some,
            missing,
            values=values,
            lowest=int(lengths[0].low_value),
            highest=int(lengths[-1].high_value),
        )
    )
    tokens.string_stats.common_stats.num_values_histogram.CopyFrom(_histogram(lengths))
    _describe_tokens(tokens.string_stats, statistics["types"], counts)

    length = dataset.features.add(type=pb.FeatureNameStatistics.INT)
    length.path.step.append("tokens_per_document")
    length.num_stats.common_stats.CopyFrom(_common(some, missing, some, lowest=1, highest=1))
    _describe_lengths(length.num_stats, values / some, lengths)
    return pb.DatasetFeatureStatisticsList(datasets=[dataset])


def _common(
    some: int, missing: int, values: int, *, lowest: int, highest: int
) -> pb.CommonStatistics:
    return pb.CommonStatistics(
        num_non_missing=some,
        num_missing=missing,
        tot_num_values=values,
        min_num_values=lowest,
        max_num_values=highest,
        avg_num_values=values / some,
    )


def _describe_tokens(stats: pb.StringStatistics, types: int, counts: Counts) -> None:
    stats.unique = types
    sizes = pc.binary_length(counts.tokens).to_numpy()
    stats.avg_length = float(sizes @ counts.shares)
    for rank, (token, count) in enumerate(counts.top(_RANKS)):
        stats.rank_histogram.buckets.add(
            low_rank=rank, high_rank=rank, label=token, sample_count=count
        )
        if rank < _TOP_VALUES:
            stats.top_values.add(value=token, frequency=count)


def _describe_lengths(
    stats: pb.NumericStatistics, mean: float, lengths: list[pb.Histogram.Bucket]
) -> None:
    documents = np.array([bucket.sample_count for bucket in lengths])
    low = np.array([bucket.low_value for bucket in lengths])
    high = np.array([bucket.high_value for bucket in lengths])
    centre, width = (low + high) / 2, high - low
    share = documents / documents.sum()
    variance = share @ (centre**2 + width**2 / 12) - (share @ centre) ** 2
    median = np.interp(0.5, np.concatenate([[0], share.cumsum()]), np.append(low, high[-1]))
    stats.mean = mean
    stats.std_dev = float(np.sqrt(variance))
    stats.min = lengths[0].low_value
    stats.median = float(median)
    stats.max = lengths[-1].high_value
    stats.histograms.append(_histogram(lengths))


def _histogram(buckets: list[pb.Histogram.Bucket]) -> pb.Histogram:
    return pb.Histogram(type=pb.Histogram.STANDARD, buckets=buckets)


def _buckets(lengths: list[dict[str, int]]) -> list[pb.Histogram.Bucket]:
    """Buckets [low, high) without gaps; the last one holds its high value, as the proto wants it.

    >>> lengths = [{"up_to": 1, "documents": 5}, {"up_to": 4, "documents": 2}]
    >>> [(b.low_value, b.high_value, b.sample_count) for b in _buckets(lengths)]
    [(1.0, 2.0, 5.0), (2.0, 3.0, 0.0), (3.0, 4.0, 2.0)]
    """
    documents = {bucket["up_to"]: bucket["documents"] for bucket in lengths}
    buckets = []
    bound = min(documents)
    while bound <= max(documents):
        high = bound + (bound < max(documents))
        buckets.append(
            pb.Histogram.Bucket(
                low_value=bound // 2 + 1, high_value=high, sample_count=documents.get(bound, 0)
            )
        )
        bound *= 2
    return buckets
