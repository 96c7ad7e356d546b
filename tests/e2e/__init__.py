"""Rewritten programs against their originals: output, exit status, signals, and every system call."""
