"""The jobs of a sweep: who they are, what happened to them, how one is run."""
