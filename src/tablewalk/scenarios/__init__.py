# SPDX-License-Identifier: GPL-2.0-only
"""Scenarios for `explore`; see `explore/scenario.py` for what they are written in."""
