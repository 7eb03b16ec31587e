# SPDX-License-Identifier: GPL-2.0-only
from __future__ import annotations

import shutil
from pathlib import Path

import pytest

ECHO = """\
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	char line[256];
	int index = 0;

	if (argc > 2)
		printf(" %s %s\\n", argv[1], argv[2]);
	while (fgets(line, sizeof(line), stdin)) {
		fflush(stdout);
		if (!strcmp(line, "signal\\n"))
			raise(SIGSEGV);
		if (!strcmp(line, "exit\\n"))
			return fputs("no such operation\\n", stderr), 3;
		if (!strcmp(line, "hang\\n"))
			pause();
		if (!strcmp(line, "fork and hang\\n") && !fork())
			pause();
		if (!strcmp(line, "panic\\n")) {
			FILE *trigger = fopen("/proc/sysrq-trigger", "w");
			fputs("c", trigger);
			fflush(trigger);
		}
		printf("%d 0 0 %s", index++, line);
	}
	return 0;
}
"""


@pytest.fixture(scope="session")
def echo_agent(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources of an agent that answers each line by itself, or does what the line says."""
    if not shutil.which("gcc"):
        pytest.skip("no gcc")
    sources = tmp_path_factory.mktemp("sources") / "echo"
    sources.mkdir()
    (sources / "echo.c").write_text(ECHO)
    return sources
