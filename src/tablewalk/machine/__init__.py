# SPDX-License-Identifier: GPL-2.0-only
# ruff: noqa: F403, I001
"""The machine: cells, locks, RCU, interrupts, TLBs; the only layer that knows how it is being run.

`kernel` and `arch` import their primitives from here by relative import.  What they get is a driver: this
package binds the sequential one; `drivers.load` loads the same model text again on another.
"""

from .views import struct as struct  # first: it specialises the primitives
from .memory import *
from .containers import *
from .sequential import *
from .stat import *
from .layout import all_of as all_of
from .layout import any_of as any_of
from .layout import atomic as atomic
from .layout import const as const
from .layout import container as container
from .layout import counter as counter
from .layout import entries as entries
from .layout import lockdep_map as lockdep_map
from .layout import marked as marked
from .layout import mutex as mutex
from .layout import plain as plain
from .layout import rwsem as rwsem
from .layout import spinlock as spinlock
