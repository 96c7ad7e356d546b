"""What the tests share: building test programs, rewriting them, running them, and the ptrace oracle."""
