"""The renderers, one file each; importing them loads no rendering library."""
