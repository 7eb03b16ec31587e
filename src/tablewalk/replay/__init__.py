# SPDX-License-Identifier: GPL-2.0-only
"""Replay: the recorded memory activity of a program through the model, under any kernel and architecture."""
