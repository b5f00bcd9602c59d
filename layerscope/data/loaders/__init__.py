"""Loaders: what reads, decodes and prepares the images of a source, batch by batch.

One file each, behind one protocol: the same rows in the same order, whoever reads them. A loader
registers a function that makes it from a :class:`ReadRequest`, which is usually its class.
"""

from layerscope.data.loaders.loader import BadImage, Loader, ReadRequest, loaders

__all__ = ["BadImage", "Loader", "ReadRequest", "loaders"]
