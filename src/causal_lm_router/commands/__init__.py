"""Commands: what is typed, parsed and checked before the work begins."""
