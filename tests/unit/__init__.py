"""Tests of single stages."""
