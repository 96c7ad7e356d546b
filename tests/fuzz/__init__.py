"""The coverage-guided fuzzer: `python -m tests.fuzz`; no part of the test suite."""
