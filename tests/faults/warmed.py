"""Imported last by the process that is forked, to do once what every fork would do again.

The files of all modules, which Faust has `inspect` look up when a timer is added; and the cyclic collector's walk over what was
imported, which `FeastFeatures` asks for: each fork would pay it with memory pages of its own.
"""

import gc
import inspect

inspect.getmodule(inspect.currentframe())
gc.collect()
gc.freeze()
