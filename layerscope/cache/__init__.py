"""The feature cache: HDF5 with the pooled features of every cut, safe to kill and checked."""

from layerscope.cache.collection import Collection, divisions
from layerscope.cache.existing import Standing, standing, stored_as
from layerscope.cache.features import Features
from layerscope.cache.fingerprint import differences, fingerprint_of, ingredients
from layerscope.cache.header import Header
from layerscope.cache.integrity import CacheCheck, check_cache, count_rows, repair
from layerscope.cache.layout import cache_name
from layerscope.cache.merge import merge
from layerscope.cache.reader import Cache, View, find_caches, open_cache
from layerscope.cache.series import series_in, with_series
from layerscope.cache.statistics import (
    Statistics,
    open_statistics,
    statistics_name,
    statistics_stored_as,
)
from layerscope.cache.storage import Stored, choose_storage
from layerscope.cache.streaming import (
    StatisticsUndertaking,
    StatisticsWriter,
    statistics_standing,
)
from layerscope.cache.writer import (
    CacheWriter,
    Share,
    ShareWriter,
    Undertaking,
    annotate,
    divided,
    whole_units,
)

__all__ = [
    "Cache",
    "CacheCheck",
    "CacheWriter",
    "Collection",
    "Features",
    "Header",
    "Share",
    "ShareWriter",
    "Standing",
    "Statistics",
    "StatisticsUndertaking",
    "StatisticsWriter",
    "Stored",
    "Undertaking",
    "View",
    "annotate",
    "cache_name",
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
    "standing",
    "statistics_name",
    "statistics_standing",
    "statistics_stored_as",
    "stored_as",
    "whole_units",
    "with_series",
]
