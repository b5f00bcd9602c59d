"""The feature cache: HDF5 with the pooled features of every cut, safe to kill and checked."""

from layerscope.cache.build import CacheBuild, CacheWriter
from layerscope.cache.cache_file import storage_of
from layerscope.cache.feature_sink import FeatureSink
from layerscope.cache.features import Features
from layerscope.cache.fingerprint import differences, fingerprint_of, ingredients
from layerscope.cache.header import Header
from layerscope.cache.integrity import CacheCheck, check_cache, count_rows, repair
from layerscope.cache.layout import cache_name
from layerscope.cache.reader import Cache, View, find_caches, open_cache
from layerscope.cache.records import series_in, with_series
from layerscope.cache.shard_merge import merge
from layerscope.cache.shards import annotate
from layerscope.cache.sink import RowWriter, Sink
from layerscope.cache.statistics import Statistics, open_statistics
from layerscope.cache.statistics_sink import StatisticsSink
from layerscope.cache.status import CacheStatus, cache_status
from layerscope.cache.storage import StorageChoice, choose_storage
from layerscope.cache.writer import AssignmentWriter, WriteAssignment, split_rows

__all__ = [
    "AssignmentWriter",
    "Cache",
    "CacheBuild",
    "CacheCheck",
    "CacheStatus",
    "CacheWriter",
    "FeatureSink",
    "Features",
    "Header",
    "RowWriter",
    "Sink",
    "Statistics",
    "StatisticsSink",
    "StorageChoice",
    "View",
    "WriteAssignment",
    "annotate",
    "cache_name",
    "cache_status",
    "check_cache",
    "choose_storage",
    "count_rows",
    "differences",
    "find_caches",
    "fingerprint_of",
    "ingredients",
    "merge",
    "open_cache",
    "open_statistics",
    "repair",
    "series_in",
    "split_rows",
    "storage_of",
    "with_series",
]
