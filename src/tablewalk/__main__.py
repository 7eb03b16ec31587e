# SPDX-License-Identifier: GPL-2.0-only
from tablewalk.cli import main

main()
