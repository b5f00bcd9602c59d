"""The sections of the report, each one file that registers itself."""
