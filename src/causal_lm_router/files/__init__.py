"""Files: written whole or not at all, owned by one process at a time, checked for damage when they are read."""
