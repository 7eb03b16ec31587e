# SPDX-License-Identifier: GPL-2.0-only
"""The architectures that kernels run on: how Debian, the compilers and QEMU name them, and which machine QEMU makes."""

from __future__ import annotations

import os
from dataclasses import dataclass

from tablewalk.errors import TablewalkError

# QEMU's options for the devices behind the console and the answers.
SERIALS = ("-serial", "chardev:console", "-serial", "chardev:answers")
PCI_SERIAL = ("-serial", "chardev:console", "-device", "pci-serial,chardev=answers")  # the board has one port only
SCLP = ("-device", "sclplmconsole,chardev=console", "-device", "sclpconsole,chardev=answers")


@dataclass(frozen=True, slots=True)
class Target:
    """One architecture.  The guest prints its messages on `console` and gives its answers on the device `answers`."""

    debian: str  # the architecture's name in Debian
    triplet: str  # and its compiler's
    zig: str
    qemu: str  # qemu-system-...
    qemu_package: str
    machine: tuple[str, ...]
    console: str
    answers: str
    ports: tuple[str, ...] = SERIALS
    memory: str = "2G"
    options: str = ""  # more of the kernel's command line
    firmware: str = ""  # in a flash of the machine; its directory has the Debian package's name
    model: str = ""  # the model's name of the machine that QEMU makes, where it is not the architecture's


ARM = Target(
    "armhf",
    "arm-linux-gnueabihf",
    "arm-linux-musleabihf",
    "qemu-system-arm",
    "qemu-system-arm",
    ("-M", "virt,highmem=off", "-cpu", "cortex-a15"),
    "ttyAMA0",
    "ttyS0",
    PCI_SERIAL,
)
X86_32 = Target(
    "i386",
    "i686-linux-gnu",
    "x86-linux-musl",
    "qemu-system-i386",
    "qemu-system-x86",
    ("-M", "q35", "-cpu", "max,erms=off,fsrm=off"),
    "ttyS0",
    "ttyS1",
    options="no_timer_check",
)

# Keyed by the model's names.  The CPUs are as large as QEMU emulates, but page tables as deep as on common machines,
# and without what takes long to emulate: copies byte by byte (erms, fsrm), signed return addresses (pauth).
TARGETS: dict[str, Target] = {
    "x86_64": Target(
        "amd64",
        "x86_64-linux-gnu",
        "x86_64-linux-musl",
        "qemu-system-x86_64",
        "qemu-system-x86",
        ("-M", "q35", "-cpu", "max,la57=off,erms=off,fsrm=off"),
        "ttyS0",
        "ttyS1",
        options="no_timer_check",  # where the machine is busy the timer comes too late for the check
    ),
    "arm64": Target(
        "arm64",
        "aarch64-linux-gnu",
        "aarch64-linux-musl",
        "qemu-system-aarch64",
        "qemu-system-arm",
        ("-M", "virt", "-cpu", "max,pauth=off"),
        "ttyAMA0",
        "ttyS0",
        PCI_SERIAL,
    ),
    "s390x": Target(
        "s390x",
        "s390x-linux-gnu",
        "s390x-linux-musl",
        "qemu-system-s390x",
        "qemu-system-misc",
        ("-M", "s390-ccw-virtio", "-cpu", "max"),
        "ttyS0",
        "ttysclp0",
        SCLP,
        model="s390x-no-edat1",
    ),
    "ppc64le": Target(
        "ppc64el",
        "powerpc64le-linux-gnu",
        "powerpc64le-linux-musl",
        "qemu-system-ppc64",
        "qemu-system-ppc",
        ("-M", "pseries", "-cpu", "power9"),
        "hvc0",
        "hvc1",
        memory="4G",
    ),
    "riscv64": Target(
        "riscv64",
        "riscv64-linux-gnu",
        "riscv64-linux-musl",
        "qemu-system-riscv64",
        "qemu-system-misc",
        ("-M", "virt"),
        "ttyS0",
        "ttyS1",
        PCI_SERIAL,
    ),
    "loongarch64": Target(
        "loong64",
        "loongarch64-linux-gnu",
        "loongarch64-linux-musl",
        "qemu-system-loongarch64",
        "qemu-system-misc",
        ("-M", "virt", "-cpu", "la464"),
        "ttyS0",
        "ttyS1",
        firmware="/usr/share/qemu-efi-loongarch64/QEMU_EFI.fd",  # as of Debian 13, which has the QEMU for it
    ),
    "arm-lpae": ARM,
    "arm": ARM,
    "x86-pae": X86_32,
    "x86-2level": X86_32,
    "mips64": Target(
        "mips64el",
        "mips64el-linux-gnuabi64",
        "mips64el-linux-muslabi64",
        "qemu-system-mips64el",
        "qemu-system-mips",
        ("-M", "malta", "-cpu", "5KEf"),  # caches without aliases: a shared mapping can be anywhere
        "ttyS0",
        "ttyS1",
    ),
    "mips32": Target(
        "mipsel",
        "mipsel-linux-gnu",
        "mipsel-linux-musleabi",
        "qemu-system-mipsel",
        "qemu-system-mips",
        ("-M", "malta", "-cpu", "24Kf"),
        "ttyS0",
        "ttyS1",
        memory="1G",
    ),
}


def target(arch: str) -> Target:
    """The target of the model's architecture `arch`.  Raises TablewalkError if no kernel is compared there."""
    if found := TARGETS.get(arch):
        return found
    raise TablewalkError(f"{arch}: no real kernel to compare with on this architecture; there are {', '.join(TARGETS)}")


def host_arch() -> str:
    """The model's name of this machine's architecture, or what uname calls it where nothing is compared on it."""
    machine = os.uname().machine
    return {"aarch64": "arm64", "armv7l": "arm-lpae"}.get(machine, machine)
