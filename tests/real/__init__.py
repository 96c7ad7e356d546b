"""Real programs inside of a rewritten Debian tree, each beside the same program in the original tree: `make real`."""
