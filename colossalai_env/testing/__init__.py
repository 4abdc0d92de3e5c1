"""What tests of resolvers need: layouts of whole launches, and recorded environments of real ones."""

from .captures import Capture, Task, captures
from .layouts import Layout
from .strategies import dist_specs, layouts

__all__ = ["Capture", "Layout", "Task", "captures", "dist_specs", "layouts"]
