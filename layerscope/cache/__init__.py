"""The feature cache: one HDF5 file with the pooled features of every cut, safe to kill."""

from layerscope.cache.existing import Standing, standing
from layerscope.cache.fingerprint import differences, fingerprint_of, ingredients
from layerscope.cache.header import Header
from layerscope.cache.layout import cache_name
from layerscope.cache.reader import Cache, View, find_caches, open_cache
from layerscope.cache.writer import CacheWriter, annotate

__all__ = [
    "Cache",
    "CacheWriter",
    "Header",
    "Standing",
    "View",
    "annotate",
    "cache_name",
    "differences",
    "find_caches",
    "fingerprint_of",
    "ingredients",
    "open_cache",
    "standing",
]
