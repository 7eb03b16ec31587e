# SPDX-License-Identifier: GPL-2.0-only
"""Native functions: Python that numba compiles, once a machine, into a shared object that is loaded from then on.

numba takes as long to be imported as a small search takes; so its part is the compiler's only.  What it makes of the
functions that Python calls, `entry`, is linked by cc and called with the arguments as its calling convention lays them
out.  Without cc, or if the convention is another, numba's own way to keep and call functions is used.  The text of
all native functions names the place where either is kept.
"""

from __future__ import annotations

import ctypes
import hashlib
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import FunctionType
from typing import Annotated, Any, TypeVar, get_args, get_type_hints

import numpy as np

from tablewalk.machine.native import cache_dir

F = TypeVar("F", bound=Callable[..., Any])

# arrays that Python hands over, contiguous: (type, dimensions)
Ints = Annotated[np.ndarray[Any, Any], ("int64", 1)]
IntRows = Annotated[np.ndarray[Any, Any], ("int64", 2)]
Bytes = Annotated[np.ndarray[Any, Any], ("uint8", 1)]
ByteRows = Annotated[np.ndarray[Any, Any], ("uint8", 2)]
Hashes = Annotated[np.ndarray[Any, Any], ("uint64", 1)]
HashRows = Annotated[np.ndarray[Any, Any], ("uint64", 2)]
ByteBlocks = Annotated[np.ndarray[Any, Any], ("uint8", 3)]
HashBlocks = Annotated[np.ndarray[Any, Any], ("uint64", 3)]

_functions: list[Callable[..., Any]] = []  # callees first
_entries: list[Callable[..., Any]] = []


def jit(f: F) -> F:
    """A function that native ones call; where Python calls it, it is Python."""
    _functions.append(f)
    return f


def entry(f: F) -> F:
    """A function that Python calls and finds compiled.  Its parameters are annotated as above, or int, or bool."""
    _functions.append(f)
    _entries.append(f)

    def call(*arguments: Any) -> Any:
        return _compiled()[f.__name__](*arguments)

    return call  # type: ignore[return-value]


@cache
def _compiled() -> dict[str, Callable[..., Any]]:
    """What is called for each entry."""
    kept = _place() / "search.so"
    if not kept.exists():
        functions = _dispatchers(_nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
        if shutil.which("cc") is None or not _link(functions, kept):
            return _dispatchers(cache=True)
    try:
        library = ctypes.CDLL(str(kept))
    except OSError:
        return _dispatchers(cache=True)
    return {f.__name__: _caller(f, library[_symbol(f)]) for f in _entries}


def _place() -> Path:
    digest = hashlib.sha256(f"{sys.platform} {platform.machine()}".encode())
    texts = {Path(__file__).with_name(name) for name in ("jit.py", "tables.py", "endings.py")}
    texts |= {Path(f.__code__.co_filename) for f in _functions}
    for text in sorted(texts):
        digest.update(text.read_bytes())
    return cache_dir() / f"explore-{digest.hexdigest()[:16]}"


def _symbol(f: Callable[..., Any]) -> str:
    return f"tablewalk_{f.__name__}"


def _parameters(f: Callable[..., Any]) -> list[tuple[str, int]]:
    """(type, dimensions) of each parameter, 0 for a scalar."""
    hints = get_type_hints(f, include_extras=True)
    hints.pop("return")
    return [get_args(hint)[1] if get_args(hint) else (hint.__name__, 0) for hint in hints.values()]


# --- calls --------------------------------------------------------------------------------------------------


def _caller(f: Callable[..., Any], function: Any) -> Callable[..., Any]:
    """Calls a compiled function by numba's convention: places for result and exception, then all arguments."""
    parameters = [(np.dtype(kind), dimensions) if dimensions else None for kind, dimensions in _parameters(f)]
    function.argtypes = [ctypes.c_void_p] * 2 + [
        ctypes.c_int64 for p in parameters for _ in range(5 + 2 * p[1] if p else 1)
    ]

    def words(arguments: tuple[Any, ...]) -> Iterator[int]:
        for argument, parameter in zip(arguments, parameters, strict=True):
            if parameter is None:
                yield int(argument)
                continue
            kind, dimensions = parameter
            if argument.dtype != kind or argument.ndim != dimensions or not argument.flags.c_contiguous:
                raise TypeError(f"{f.__name__}: {kind}, {dimensions} dimensions wanted, contiguous")
            # who owns it, twice; size; and where it lies
            yield from (0, 0, argument.size, argument.itemsize, argument.ctypes.data)
            yield from argument.shape
            yield from argument.strides

    def call(*arguments: Any) -> int:
        result, exception = ctypes.c_int64(), ctypes.c_void_p()
        if function(ctypes.addressof(result), ctypes.addressof(exception), *words(arguments)):
            raise AssertionError(f"{f.__name__}: an exception in native code")
        return result.value

    return call


# --- compilation --------------------------------------------------------------------------------------------


def _dispatchers(**options: Any) -> dict[str, Any]:
    """numba's function for each native one; they call each other, in copies of their modules' names."""
    import numba

    numba.config.CACHE_DIR = str(_place() / numba.__version__)  # type: ignore[attr-defined]
    made: dict[str, Any] = {}
    modules = {f.__module__: dict(f.__globals__) for f in _functions}
    for f in _functions:
        copy = FunctionType(f.__code__, modules[f.__module__], f.__name__)
        copy.__module__ = f.__module__
        made[f.__name__] = numba.njit(nogil=True, **options)(copy)
        for names in modules.values():
            if f.__name__ in names:
                names[f.__name__] = made[f.__name__]
    return made


def _link(functions: dict[str, Any], target: Path) -> bool:
    """Compile the entries and link them; false if that cannot be done."""
    import llvmlite.binding as llvm

    module = llvm.parse_assembly("")
    for f in _entries:
        compiled = _module(llvm, f, functions[f.__name__])
        if compiled is None:
            return False
        module.link_in(compiled)
    named = {_symbol(f) for f in _entries}
    for value in (*module.functions, *module.global_variables):
        if not value.is_declaration and value.name not in named:
            value.linkage = "internal"  # calls need no table then
    machine = llvm.Target.from_default_triple().create_target_machine(opt=3, reloc="pic", codemodel="default")
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as work:
        made = Path(work) / target.name
        made.with_suffix(".o").write_bytes(machine.emit_object(module))
        done = subprocess.run(["cc", "-shared", "-o", made, made.with_suffix(".o")], capture_output=True)
        if done.returncode == 0:
            made.replace(target)
    return done.returncode == 0


def _module(llvm: Any, f: Callable[..., Any], function: Any) -> Any:
    """What numba makes of an entry, with all that it calls; None if it is called in another way than `_caller` does."""
    from numba import types

    scalars = {"int": types.int64, "bool": types.boolean}
    signature = tuple(
        types.Array(getattr(types, kind), dimensions, "C") if dimensions else scalars[kind]
        for kind, dimensions in _parameters(f)
    )
    function.compile(signature)
    module = llvm.parse_assembly(function.inspect_llvm(signature))
    native = module.get_function(function.overloads[signature].fndesc.llvm_func_name)
    native.name = _symbol(f)
    wanted = "pp" + "".join("ppiip" + "ii" * dimensions if dimensions else "i" for _, dimensions in _parameters(f))
    found = "".join("i" if str(a.type).startswith("i") and "*" not in str(a.type) else "p" for a in native.arguments)
    return module if found == wanted else None
