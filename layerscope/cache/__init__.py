"""The feature cache: HDF5 with the pooled features of every cut, safe to kill and checked."""

from layerscope.cache.checkpoint_settings import series_in, with_series
from layerscope.cache.collection import Collection, divisions
from layerscope.cache.existing import CacheStatus, cache_status, stored_as
from layerscope.cache.features import Features
from layerscope.cache.fingerprint import differences, fingerprint_of, ingredients
from layerscope.cache.header import Header
from layerscope.cache.integrity import CacheCheck, check_cache, count_rows, repair
from layerscope.cache.layout import cache_name
from layerscope.cache.reader import Cache, View, find_caches, open_cache
from layerscope.cache.shard_merge import merge
from layerscope.cache.statistics import (
    Statistics,
    open_statistics,
    statistics_name,
    statistics_stored_as,
)
from layerscope.cache.storage import Stored, choose_storage
from layerscope.cache.streaming import (
    StatisticsBuild,
    StatisticsWriter,
    statistics_status,
)
from layerscope.cache.writer import (
    AssignmentWriter,
    CacheBuild,
    CacheWriter,
    WriteAssignment,
    annotate,
    divided,
    whole_units,
)

__all__ = [
    "AssignmentWriter",
    "Cache",
    "CacheBuild",
    "CacheCheck",
    "CacheStatus",
    "CacheWriter",
    "Collection",
    "Features",
    "Header",
    "Statistics",
    "StatisticsBuild",
    "StatisticsWriter",
    "Stored",
    "View",
    "WriteAssignment",
    "annotate",
    "cache_name",
    "cache_status",
    "check_cache",
    "choose_storage",
    "count_rows",
    "differences",
    "divided",
    "divisions",
    "find_caches",
    "fingerprint_of",
    "ingredients",
    "merge",
    "open_cache",
    "open_statistics",
    "repair",
    "series_in",
    "statistics_name",
    "statistics_status",
    "statistics_stored_as",
    "stored_as",
    "whole_units",
    "with_series",
]
