"""Extraction: one network over one image source, read once, into what is kept of its features."""
