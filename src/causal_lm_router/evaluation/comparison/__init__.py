"""The body of the `compare` command: read evaluations on the same queries, compare them pair by pair, print, write."""
