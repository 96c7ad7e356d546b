"""Frozen values that pass between the stages: read -> discover -> plan -> lay out -> emit -> verify -> report.

Nothing in here computes; a stage takes the values of the stage before it and returns its own.
"""
