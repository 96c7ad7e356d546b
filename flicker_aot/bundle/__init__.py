"""The command ``bundle``. In: a program. Out: a folder with it and what it loads, rewritten, with a manifest."""

from .check import Checked, check_bundle
from .run import BundleRequest, Listener, make_bundle

__all__ = ["BundleRequest", "Checked", "Listener", "check_bundle", "make_bundle"]
