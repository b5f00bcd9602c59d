"""The command line: the only room that parses, prints and leaves with an exit code."""
