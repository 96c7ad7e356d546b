"""Tests of flicker-aot."""
