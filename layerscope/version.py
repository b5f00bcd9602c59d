"""The version of LayerScope, which files that it writes are stamped with."""

__version__ = "0.1.0"
