# SPDX-License-Identifier: GPL-2.0-only
"""Recordings of real programs: made with perf, imported, stored as one Parquet file, read back."""
