"""What to do at each site. In: ``Image``, ``Code``, ``Options``. Out: a ``Plan``.

One tactic a file; ``planner`` has their order.
"""

from .planner import make_plan

__all__ = ["make_plan"]
