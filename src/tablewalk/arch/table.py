# SPDX-License-Identifier: GPL-2.0-only
"""Architectures by name: what `--arch` accepts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Final

from tablewalk.errors import TablewalkError

from . import Arch, UpperLevels, variant
from .arm import arm, arm_lpae
from .arm64 import arm64
from .ia64 import ia64
from .loongarch import loongarch64
from .m68k import m68k, m68k_coldfire
from .mips import mips32, mips64
from .parisc import parisc64
from .powerpc import ppc64le, ppc64le_4k, ppc64le_64k, ppc64le_hash_4k, ppc64le_hash_64k
from .riscv import riscv64
from .s390 import s390x
from .sparc import sparc64
from .two_levels import microblaze, sh, sh_x2tlb, xtensa
from .x86 import x86_2level, x86_64, x86_64_5level, x86_pae

Release = tuple[int, int]


def _arm64(name: str, page_shift: int, va_bits: int, release: Release) -> Arch:
    return arm64(name, page_shift, va_bits)


def _riscv64(name: str, va_bits: int, release: Release) -> Arch:
    return riscv64(name, va_bits, release)


_ARM64: Final = (
    ("arm64", 12, 48),
    ("arm64-39bit", 12, 39),
    ("arm64-52bit", 12, 52),
    ("arm64-16k", 14, 48),
    ("arm64-16k-36bit", 14, 36),
    ("arm64-16k-47bit", 14, 47),
    ("arm64-16k-52bit", 14, 52),
    ("arm64-64k", 16, 52),
    ("arm64-64k-42bit", 16, 42),
    ("arm64-64k-48bit", 16, 48),
)
_RISCV64: Final = (("riscv64", 48), ("riscv64-sv39", 39), ("riscv64-sv57", 57))

_MAKERS: Final[dict[str, Callable[[Release], Arch]]] = {
    "x86_64": x86_64,
    "x86_64-5level": x86_64_5level,
    "x86-pae": x86_pae,
    "x86-2level": x86_2level,
    **{name: partial(_arm64, name, shift, bits) for name, shift, bits in _ARM64},
    "s390x": partial(s390x, "s390x", True),
    "s390x-no-edat1": partial(s390x, "s390x-no-edat1", False),
    "ppc64le": ppc64le,
    "ppc64le-4k": ppc64le_4k,
    "ppc64le-64k": ppc64le_64k,
    "ppc64le-hash-4k": ppc64le_hash_4k,
    "ppc64le-hash-64k": ppc64le_hash_64k,
    **{name: partial(_riscv64, name, bits) for name, bits in _RISCV64},
    "arm-lpae": arm_lpae,
    "arm": arm,
    "ia64": ia64,
    "loongarch64": loongarch64,
    "m68k": m68k,
    "m68k-coldfire": m68k_coldfire,
    "microblaze": microblaze,
    "mips64": mips64,
    "mips32": mips32,
    "parisc64": parisc64,
    "sh": sh,
    "sh-x2tlb": sh_x2tlb,
    "sparc64": sparc64,
    "xtensa": xtensa,
}

_ALIASES: Final = {  # what Debian, uname and others say
    "amd64": "x86_64",
    "i386": "x86-pae",
    "i686": "x86-pae",
    "aarch64": "arm64",
    "s390": "s390x",
    "ppc64el": "ppc64le",
    "powerpc64le": "ppc64le",
    "riscv": "riscv64",
    "riscv64-sv48": "riscv64",
    "armhf": "arm-lpae",
    "armel": "arm",
    "mips64el": "mips64",
    "mipsel": "mips32",
    "hppa": "parisc64",
    "loong64": "loongarch64",
    "sh4": "sh",
}


def names() -> tuple[str, ...]:
    """The names that `by_name` knows, without the other spellings."""
    return tuple(_MAKERS)


def by_name(name: str, release: Release) -> Arch:
    """The architecture `name` as kernel `release` has it.  Raises TablewalkError for a name that is not known."""
    base, _, bits = name.partition("/")
    make = _MAKERS.get(_ALIASES.get(base, base))
    if make is None:
        raise TablewalkError(f"--arch {name}: no such architecture; there are {', '.join(names())}")
    return small(make(release), int(bits)) if bits in ("1", "2", "3") else make(release)


def small(base: Arch, bits: int) -> Arch:
    """`base` with three levels, tables of 2^`bits` entries below a PGD of 16: `x86_64/1`; for exploring.

    It has no tables from the beginning, and none that stay.
    """
    levels: UpperLevels = {"pmd_bits": bits, "pud_bits": 0, "p4d_bits": 0, "pgd_bits": 4}
    return variant(
        base,
        name=f"{base.name}/{bits}",
        pte_bits=bits,
        task_size=1 << base.page_shift + 2 * bits + 4,
        preallocated_pmds=(),
        first_user_address=0,
        user_pgtables_ceiling=0,
        pud_folded_below=0,
        **levels,
    )
