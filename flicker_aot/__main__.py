"""``python -m flicker_aot``."""

import sys

from .cli import main

sys.exit(main())
