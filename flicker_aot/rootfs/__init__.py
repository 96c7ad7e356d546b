"""The command ``rootfs``. In: a tree, options. Out: the same tree with every ELF file rewritten, and a manifest."""

from .run import Listener, TreeRequest, rewrite_tree

__all__ = ["Listener", "TreeRequest", "rewrite_tree"]
