"""The kernel: event logs, deciders and projections. It knows nothing of machine learning.

Its face is listed in `__init__.pyi`: whatever is built on the kernel imports these names from here, and
`eventstore.jetstream` to open a log. Each is imported when it is first used, so that a program that needs the errors
only, such as a pod, does not load a database driver.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
