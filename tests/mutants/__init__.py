"""Rewritten files with something wrong in them: which of them the verifier rejects."""
