"""Recorded graphs as machine code: made by torch's Inductor and a C++ compiler, once for a machine, and kept on disk.

Inductor fuses what lies between matrix products into loops, and calls them without Python (Ansel et al. 2024,
"PyTorch 2", doi:10.1145/3620665.3640366). What it makes is a shared library that is named by a hash of the graph, of
torch and of the processor. It is loaded from a folder that nobody else can write to, and made in another that
nobody else can read. Inductor's own cache, of pickles, begins empty and is thrown away.
"""

from __future__ import annotations

import os
import platform
import shutil
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import blake2b
from logging import getLogger
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock
from time import perf_counter
from typing import Any

import torch
from torch import Tensor
from torch.fx import Graph, GraphModule, Interpreter, Node

from engine.errors import EngineError
from engine.trust import is_trusted

NAMED = "TORCHINDUCTOR_CACHE_DIR"
"""The variable that names the folder for libraries."""

MOST = 64
"""Libraries that are kept, of some megabytes; those made last."""

OPTIONS = {
    "cpp.threads": 1,  # whatever this process has, since the order of sums hangs on it
    "compile_threads": 1,
    "pattern_matcher": False,  # it would have a softmax of scaled scores look for infinities, at half its price again
    "cpp_cache_precompile_headers": False,  # which would lie where others might have put them before
}
"""Of Inductor, as far as its version knows them."""

LANES = 16
"""Columns of a product that fill a vector of the widest processor."""

NO_COMPILER = (
    "inner.compile needs a C++ compiler: install g++ or clang++, or name one in CXX; "
    "or set inner.compile = false"
)

_ONE_AT_A_TIME = Lock()


def library_of(graph: Graph, inputs: Sequence[Tensor]) -> Callable[..., list[Tensor]]:
    """A graph without constants, for inputs of the shapes and strides of these, as a function in a library.

    Raises:
        EngineError: there is no C++ compiler, or others can write to the folder.
    """
    folder = folder_of_libraries()
    path = folder / f"inner-{name_of(graph, inputs)}.so"
    if not path.exists():
        with _ONE_AT_A_TIME:
            path = _kept(_made(graph, inputs), path)
    runner = torch._C._aoti.AOTIModelContainerRunnerCpu(str(path), 1)  # noqa: SLF001
    layouts = [(value.shape, value.stride()) for value in inputs]

    def call(*values: Tensor) -> list[Tensor]:
        """What is compiled reads memory by the strides that it was made for."""
        laid = [_laid(value, *layout) for value, layout in zip(values, layouts, strict=True)]
        return runner.run(laid)

    return call


def _laid(value: Tensor, shape: torch.Size, stride: tuple[int, ...]) -> Tensor:
    """A value with these strides."""
    if value.shape != shape:
        raise ValueError(f"a library made for {shape} was given {value.shape}")
    return value if value.stride() == stride else value.new_empty_strided(shape, stride).copy_(value)


def folder_of_libraries() -> Path:
    """Where libraries are kept: made if need be for this user alone, and nobody else's to write to."""
    named = os.environ.get(NAMED)
    folder = Path(named) if named else Path("~/.cache/reptide/libraries").expanduser()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_trusted(folder):
        raise EngineError(
            f"inner.compile keeps machine code in {folder}, which others can write to: take that right from them "
            f"(chmod go-w), or name another folder by {NAMED}"
        )
    return folder


def name_of(graph: Graph, inputs: Sequence[Tensor]) -> str:
    """A hash of what a library is made from: the graph, its inputs, torch, and the processor."""
    shapes = [(value.shape, value.stride(), value.dtype) for value in inputs]
    content = repr((str(graph), shapes, torch.__version__, _processor(), OPTIONS))
    return blake2b(content.encode(), digest_size=8).hexdigest()


@cache
def _processor() -> str:
    """What the processor is and can do, as far as this system says."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() + torch.backends.cpu.get_cpu_capability()
    return "".join(sorted({line for line in lines if line.startswith(("flags", "Features", "model name"))}))


def _made(graph: Graph, inputs: Sequence[Tensor]) -> Path:
    """A library, in a folder of this process."""
    if not has_compiler():
        raise EngineError(NO_COMPILER)
    log, began = getLogger(__name__), perf_counter()
    log.warning("compiling a step of the inner loop, once for this machine: about a minute")
    with _in_own_cache(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from torch import _inductor  # a second of imports, which only who compiles needs
        from torch._inductor import config

        known = {name: value for name, value in OPTIONS.items() if name in config.get_config_copy()}
        made = _inductor.aot_compile(wide(graph, inputs), tuple(inputs), options=known)
    log.warning("compiled in %.0f s", perf_counter() - began)
    return Path(str(made))


def wide(graph: Graph, inputs: Sequence[Tensor]) -> GraphModule:
    """The same, with batched products of few columns taken the other way round: a kernel's vectors lie along them."""
    module = GraphModule({}, graph)
    shapes = _Shapes(module)
    shapes.run(*inputs)
    product, turned = torch.ops.aten.bmm.default, torch.ops.aten.transpose.int
    for node in module.graph.find_nodes(op="call_function", target=product):
        first, second = node.args
        if shapes.of[second][2] < LANES <= shapes.of[first][1]:
            with module.graph.inserting_before(node):
                pair = [module.graph.call_function(turned, (one, 1, 2)) for one in (second, first)]
                across = module.graph.call_function(product, tuple(pair))
                back = module.graph.call_function(turned, (across, 1, 2))
                whole: dict[str, Any] = {"memory_format": torch.contiguous_format}
                node.replace_all_uses_with(
                    module.graph.call_function(torch.ops.aten.clone.default, (back,), whole)
                )
            module.graph.erase_node(node)
    module.recompile()
    return module


class _Shapes(Interpreter):
    """Runs a graph, and notes the shapes of what is made."""

    def __init__(self, module: GraphModule) -> None:
        super().__init__(module)
        self.of = dict[Any, torch.Size]()

    def run_node(self, node: Node) -> Any:
        """Run a node, and note its shape."""
        result = super().run_node(node)
        if isinstance(result, Tensor):
            self.of[node] = result.shape
        return result


def has_compiler() -> bool:
    """Whether there is a C++ compiler: the one that CXX names, or g++, or clang++."""
    named = os.environ.get("CXX")
    return any(shutil.which(one) for one in ([named] if named else ["g++", "clang++"]))


@contextmanager
def _in_own_cache() -> Iterator[None]:
    """Let Inductor write, and read, in a folder of this process alone."""
    before = os.environ.get(NAMED)
    os.environ[NAMED] = _own_cache().name
    try:
        yield
    finally:
        if before is None:
            del os.environ[NAMED]
        else:
            os.environ[NAMED] = before


@cache
def _own_cache() -> TemporaryDirectory[str]:
    """Removed when the process ends: Inductor remembers what it has made there."""
    return TemporaryDirectory(prefix="reptide-")


def _kept(made: Path, path: Path) -> Path:
    """Move a library to its place, whole; where nothing can be written it stays, for this process."""
    draft = path.with_suffix(f".{os.getpid()}")
    try:
        shutil.copyfile(made, draft)
        draft.replace(path)
        others = sorted(path.parent.glob("inner-*.so"), key=lambda one: one.stat().st_mtime)
        for old in others[:-MOST]:
            old.unlink(missing_ok=True)
    except OSError as error:
        getLogger(__name__).warning("what was compiled cannot be kept: %s", error)
        return made
    return path
