"""The feature cache: HDF5 with the pooled features of every cut, safe to kill and checked."""

from layerscope.cache.existing import Standing, standing, stored_as
from layerscope.cache.features import Features
from layerscope.cache.fingerprint import differences, fingerprint_of, ingredients
from layerscope.cache.header import Header
from layerscope.cache.integrity import CacheCheck, check_cache, count_rows, repair
from layerscope.cache.layout import cache_name
from layerscope.cache.merge import merge
from layerscope.cache.reader import Cache, View, find_caches, open_cache
from layerscope.cache.storage import Stored, choose_storage
from layerscope.cache.writer import CacheWriter, Share, ShareWriter, Undertaking, annotate

__all__ = [
    "Cache",
    "CacheCheck",
    "CacheWriter",
    "Features",
    "Header",
    "Share",
    "ShareWriter",
    "Standing",
    "Stored",
    "Undertaking",
    "View",
    "annotate",
    "cache_name",
    "check_cache",
    "choose_storage",
    "count_rows",
    "differences",
    "find_caches",
    "fingerprint_of",
    "ingredients",
    "merge",
    "open_cache",
    "repair",
    "standing",
    "stored_as",
]
