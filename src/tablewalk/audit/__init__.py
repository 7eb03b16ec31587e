# SPDX-License-Identifier: GPL-2.0-only
"""Checks kernel C source for the page-table access rules.  Stands apart from the model: it reads C, runs nothing."""
