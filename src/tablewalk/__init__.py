# SPDX-License-Identifier: GPL-2.0-only
"""An executable model of the Linux page-table life cycle."""

__version__ = "0.1.0"
