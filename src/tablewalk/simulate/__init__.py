# SPDX-License-Identifier: GPL-2.0-only
"""The model in virtual time: who waits for whom, for how long, on how many CPUs."""
