# SPDX-License-Identifier: GPL-2.0-only
"""Reports of a replay: tables on a terminal, an HTML page, JSON."""
