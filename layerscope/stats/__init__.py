"""Tensor mathematics: sufficient statistics in, frozen results out; no files, no models."""
