# SPDX-License-Identifier: GPL-2.0-only
"""Every interleaving of a scenario's threads: thread automata learned from the model, and a native search over them."""
