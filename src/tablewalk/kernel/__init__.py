# SPDX-License-Identifier: GPL-2.0-only
"""The model: Linux's mm by the kernel's own file names, at its newest modelled release."""
