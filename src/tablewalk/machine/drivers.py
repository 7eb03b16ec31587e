# SPDX-License-Identifier: GPL-2.0-only
"""The model bound to a driver, an architecture, and a kernel release.

The text of `kernel/`, `arch/` and `patches/` is loaded once a driver, as a package of its own whose `machine` is that
driver's: relative imports do the binding.  `Model.configure` then selects architecture and options, and puts the
overrides of the patches that a release lacks in the place of their sites, in every module that has imported them.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from tablewalk.errors import TablewalkError

from . import native

ROOT = Path(__file__).resolve().parent.parent
NEWEST = "7.x"
NEWEST_MAJOR = 7
FAULT_AROUND_MAX = 2 << 20  # bytes, a page table's worth
HYPERVISORS = ("none", "kvm", "hyperv", "xen")
THP_CHOICES = ("always", "madvise", "never", "within_size", "advise", "deny", "force")
HPAGE_PMD_NR_MAX = 8192  # pages of the largest huge page
RELEASES = ("6.1", "6.12", "6.18", NEWEST)


@dataclass(frozen=True, slots=True)
class KernelConfig:
    """Which kernel to model: a release (`6.1` .. `7.x`), an architecture's name, options, patches left out or kept in.

    `6.1` is the newest stable release of that series; `6.1.176` is an older one.
    `options` are Kconfig and sysfs names with their values as text; `without` are ids of the catalogue.
    """

    release: str = NEWEST
    arch: str = "x86_64"
    options: tuple[tuple[str, str], ...] = ()
    without: tuple[str, ...] = ()

    def __str__(self) -> str:
        parts = [self.release, *(f"{k}={v}" for k, v in self.options), *(f"-{p}" for p in self.without)]
        return " ".join(parts)


@dataclass(slots=True)
class Model:
    """The model's modules on one driver: `model.kernel("mmap")` is the module kernel/mmap.py of it."""

    package: str
    machine: Any
    _replaced: list[tuple[dict[str, Any], str, Any]] = field(default_factory=list)

    def module(self, name: str) -> Any:
        """The module `name` (dotted, below the package)."""
        path = f"{self.package}.{name}"
        return sys.modules.get(path) or import_module(path)

    def kernel(self, name: str) -> Any:
        """The module kernel/`name`.py."""
        return self.module(f"kernel.{name}")

    @property
    def arch(self) -> Any:
        """The architecture in use (`arch.Arch`)."""
        return self.module("arch").arch

    def boot(self) -> None:
        """An empty memory, and in it what exists once."""
        self.machine.reset()
        self.kernel("page_alloc").boot()
        self.kernel("ksm_tree").ksm_init()

    def configure(self, config: KernelConfig) -> None:
        """Become the kernel that `config` describes, and boot.

        Raises TablewalkError for a release, architecture, option or patch that does not exist.
        """
        self._restore()
        version = version_of(config.release)
        release = version[:2]
        architecture = self.module("arch.table").by_name(config.arch, release)
        self.module("arch").use(architecture)
        self.kernel("config").use(self._options(config, release, architecture))
        rows = self.module("patches").overrides()
        unknown = set(config.without) - {row.id for row in rows}
        if unknown:
            named = ", ".join(sorted(unknown))
            raise TablewalkError(f"no such patch, or none to leave out: {named}; `tablewalk patches` lists them")
        lacking = [r for r in rows if r.id in config.without or (r.since > version and not r.mutant)]
        mutants = sorted({row.id for row in lacking if row.mutant})
        if mutants and self.package == native.PACKAGE:
            raise TablewalkError(f"the compiled model cannot leave out {', '.join(mutants)}; use --driver sequential")
        # of two overrides of a site the older stays, and a mutant's before all
        for row in sorted(lacking, key=lambda row: (not row.mutant, row.since), reverse=True):
            self._replace(row.site, row.override)
        self.boot()

    def _options(self, config: KernelConfig, release: tuple[int, int], architecture: Any) -> Any:
        kconfig = self.kernel("config").Kconfig()
        for option in ("pt_reclaim", "per_vma_lock"):
            since = getattr(architecture, f"{option}_since")
            setattr(kconfig, option, since is not None and release >= since)
        pages = architecture.hpage_pmd_nr
        kconfig.max_ptes_none = pages - 1
        kconfig.max_ptes_swap = pages // 8
        kconfig.max_ptes_shared = pages // 2
        has_reclaim, has_vma_lock = kconfig.pt_reclaim, kconfig.per_vma_lock
        for name, value in config.options:
            set_option(kconfig, name, value)
        has_option = {"pt_reclaim": has_reclaim, "per_vma_lock": has_vma_lock, "highpte": architecture.highpte}
        for name, has in has_option.items():
            if getattr(kconfig, name) and not has:
                where = f"Linux {config.release} on {config.arch}"
                raise TablewalkError(f"--set {name.upper()}=y: {where} does not have it")
        return kconfig

    def _replace(self, site: str, override: str) -> None:
        where, _, name = override.rpartition(".")
        self.replace(site, getattr(self.module(f"patches.{where}"), name), f"{self.package}.patches.{where}")

    def resolve(self, site: str) -> tuple[ModuleType, str]:
        """The module and the name of a site (see `replace`).  Raises TablewalkError if there is none."""
        module, _, function = site.replace(":", ".").rpartition(".")
        try:
            found: ModuleType = self.module(module if module.startswith("patches.") else f"kernel.{module}")
            getattr(found, function)
        except (ImportError, AttributeError):
            raise TablewalkError(f"no such site: {site}; module.function of kernel/ is wanted") from None
        return found, function

    def replace(self, site: str, replacement: Any, where: str = "") -> None:
        """Put `replacement` in the place of `site`, until the next `configure`; not in its own module `where`.

        A site is `module.function` of kernel/, `module:function` for the calls from that module only, or
        `patches.module.function`.  Raises TablewalkError if there is none.
        """
        module, function = self.resolve(site)
        original = getattr(module, function)
        if ":" in site:
            self._replaced.append((vars(module), function, original))
            setattr(module, function, replacement)
            return
        for path, loaded in list(sys.modules.items()):
            if not path.startswith((f"{self.package}.kernel.", f"{self.package}.patches.")):
                continue
            if path == where:
                continue  # an override may call what it overrides
            namespace = vars(loaded)
            for key, value in list(namespace.items()):
                if value is original:
                    self._replaced.append((namespace, key, value))
                    namespace[key] = replacement

    def _restore(self) -> None:
        for namespace, key, value in reversed(self._replaced):
            namespace[key] = value
        self._replaced.clear()


def release_of(text: str) -> tuple[int, int]:
    """The series of a release, as a pair.  Raises TablewalkError for one that is not modelled."""
    return version_of(text)[:2]


def version_of(text: str) -> tuple[int, int, int]:
    """A release as three numbers (`patches.parse_version`).  Raises TablewalkError for one that is not modelled."""
    from tablewalk.patches import parse_version

    try:
        version = parse_version(text)
    except ValueError:
        raise TablewalkError(f"kernel {text!r}: not a release; try one of {', '.join(RELEASES)}") from None
    if version < (6, 1):
        raise TablewalkError(f"kernel {text}: releases before 6.1 are not modelled")
    if version[0] > NEWEST_MAJOR:
        raise TablewalkError(f"kernel {text}: not known; {NEWEST} is the newest that is modelled")
    return version


def set_option(kconfig: Any, name: str, value: str) -> None:
    """Set the option of a Kconfig by its name in any case.  Raises TablewalkError for an unknown name or value."""
    key = name.lower().removeprefix("config_")
    if key == "thp":
        key = "transparent_hugepage"
    current = getattr(kconfig, key, None)
    if current is None or key.startswith("_"):
        raise TablewalkError(f"--set {name}: no such option; there are {', '.join(sorted(kconfig.__slots__))}")
    if isinstance(current, bool):
        if value.lower() not in ("y", "n"):
            raise TablewalkError(f"--set {name}={value}: y or n is wanted")
        setattr(kconfig, key, value.lower() == "y")
    elif isinstance(current, int):
        if not value.isdecimal():
            raise TablewalkError(f"--set {name}={value}: a number is wanted")
        limit = FAULT_AROUND_MAX if key == "fault_around_bytes" else HPAGE_PMD_NR_MAX
        if int(value) > limit:
            raise TablewalkError(f"--set {name}={value}: {limit} is the most")
        setattr(kconfig, key, int(value))
    else:
        choices = HYPERVISORS if key == "hypervisor" else THP_CHOICES
        if value not in choices:
            raise TablewalkError(f"--set {name}={value}: one of {', '.join(choices)} is wanted")
        setattr(kconfig, key, value)


@cache
def load(driver: str = "sequential") -> Model:
    """The model on a driver: `sequential` (plain Python), `native` (compiled), `checked` (rules are looked at), or
    `searched` (operations are somebody else's).

    Raises TablewalkError if `native` has not been compiled from this text.
    """
    if driver == "sequential":
        return _complete(Model("tablewalk", import_module("tablewalk.machine")))
    if driver == "native":
        place = native.built()
        if place is None:
            raise TablewalkError("the model is not compiled; `tablewalk compile` does it")
        sys.path.insert(0, str(place))
        return _complete(Model(native.PACKAGE, import_module(f"{native.PACKAGE}.machine")))
    package = f"tablewalk_{driver}"
    root = ModuleType(package)
    root.__path__ = [str(ROOT)]
    root.__spec__ = ModuleSpec(package, None, is_package=True)
    sys.modules[package] = root
    machine = _load_as(f"{package}.machine", ROOT / "machine" / f"{driver}.py")
    return _complete(Model(package, machine))


def _load_as(name: str, path: Path) -> ModuleType:
    """Load a driver as the package `name`; its relative imports find fresh copies of the other machine modules."""
    spec = spec_from_file_location(name, path, submodule_search_locations=[str(path.parent)])
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _complete(m: Model) -> Model:
    """Import every module of the model, so that an override reaches each place that imported its site."""
    for part in ("kernel", "patches"):
        for found in iter_modules(m.module(part).__path__):
            m.module(f"{part}.{found.name}")
    return m


def fastest() -> str:
    """`native` if the model is compiled, `sequential` otherwise."""
    return "native" if native.built() else "sequential"


def model(config: KernelConfig, driver: str = "sequential") -> Model:
    """The model on `driver`, configured and booted."""
    m = load(driver)
    m.configure(config)
    return m
