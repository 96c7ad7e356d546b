"""Test suites that nobody here wrote, run against rewritten programs (`make suites`; not part of `make test`)."""
