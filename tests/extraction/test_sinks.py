"""A sink is all that a kind of file has to be: extraction asks nothing else about it."""

from dataclasses import replace

import numpy as np

from layerscope.cache import FeatureSink, StatisticsSink, open_cache, split_rows
from tests.extraction.test_extract import model, plan, source

__all__ = ["model", "source"]


class Norms(FeatureSink):
    """Keeps what a cache keeps, and the norm of every row beside it."""

    def __init__(self, key):
        self.key, self.norms = key, {}

    def writer(self, path, header, assignment):
        writer = FeatureSink.writer(path, header, assignment)
        write = writer.write

        def write_norms(rows, features, valid):
            self.norms |= dict(
                zip(rows.tolist(), np.linalg.norm(features[self.key], axis=1), strict=True)
            )
            write(rows, features, valid)

        writer.write = write_norms
        return writer


def test_another_sink_gets_every_row_once(model, source, tmp_path):
    job = plan(model, source, tmp_path, device="cpu", batch_size=4)
    sink = Norms(job.header.keys[1])
    report = replace(job, sink=sink).run()
    with open_cache(report.path) as cache:
        norms = np.linalg.norm(cache[sink.key], axis=1)
    assert sorted(sink.norms) == list(range(job.header.rows))
    np.testing.assert_allclose([sink.norms[row] for row in range(len(norms))], norms, rtol=1e-6)


def test_the_stream_chooses_the_sink(model, source, tmp_path):
    features = plan(model, source, tmp_path)
    statistics = plan(model, source, tmp_path, stream="statistics")
    assert isinstance(features.sink, FeatureSink)
    assert isinstance(statistics.sink, StatisticsSink)
    assert features.path.suffixes == [".h5"]
    assert statistics.path.suffixes == [".statistics", ".hdf5"]


def test_statistics_take_no_row_twice_where_features_take_whole_batches(model, source, tmp_path):
    features = plan(model, source, tmp_path)
    statistics = plan(model, source, tmp_path, stream="statistics")
    missing = np.array([5, 6])
    assert features.sink.rows_due(features.header, missing, 4).tolist() == [4, 5, 6, 7]
    assert statistics.sink.rows_due(statistics.header, missing, 4).tolist() == [5, 6]


def test_units_stay_together_when_rows_are_split():
    parts = split_rows(np.array([0, 1, 2, 5, 8, 9]), 2, 4)
    assert [part.tolist() for part in parts] == [[0, 1, 2, 5], [8, 9]]
