"""The built-in levels, one file each."""
