"""`make bench`: what a call, a start and a rewriting cost, interleaved in one run. Nothing passes or fails."""
