"""A runtime in a few lines that stands in for the real one where only plan, layout and emit are under test."""
