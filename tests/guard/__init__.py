"""The ptrace oracle and the tests of it."""
