"""The rules of the code base that a machine can check; `p2pnode/README.md` has the reasons."""

from __future__ import annotations

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "p2pnode"
SOURCES = sorted(PACKAGE.rglob("*.py"))

TOP_LEVEL = {
    "pyproject.toml",
    "README.md",
    "LICENSE",
    "bootstrap_peers.txt",
    "p2pnode",
    "tests",
    "examples",
}
MADE_BY_TOOLS = {"build", "dist", "venv", "p2pnode.egg-info"}

FLOORS = (
    {"sampling"},
    {"types", "version", "numerics", "trend"},
    {"errors", "sizes"},
    {"log", "tasks"},
    {"config", "wire", "model", "routing", "plan"},
    {"net", "trust"},
    {"dht", "gossip", "serving", "pipeline"},
    {"swarm"},
    {"node", "client"},
    {"gateway", "batch"},
    {"lab"},
    {"bench", "doctor", "demo"},
    {"cli"},
)
"""Who may import whom: only what is further up in this list, and a package itself."""

MAY_IMPORT = {
    "torch": {"model", "bench", "lab"},
    "transformers": {"model", "bench", "lab"},
    "hivemind": {"net", "dht"},
    "libp2p": {"net", "dht", "trust"},
    "bitsandbytes": {"model"},
    "nacl": {"trust"},
    "llguidance": {"model"},
    "msgpack": {"wire"},
    "typer": {"cli"},
    "rich": {"cli"},
    "fastapi": {"gateway"},
    "starlette": {"gateway"},
    "pydantic": {"gateway"},
    "pydantic_core": {"gateway"},
    "uvicorn": {"gateway"},
    "prometheus_client": {"gateway"},
    "zeroconf": {"net"},
    "opentelemetry": {"gateway"},
}
PURE = {"sampling", "types", "numerics", "sizes", "trend", "errors", "version"}
PURE |= {"wire", "routing", "plan"}
NOT_IN_PURE = {"asyncio", "time", "random", "socket", "threading", "subprocess", "logging"}
NEVER = {"pickle", "marshal", "shelve", "dill", "cloudpickle", "atexit"}

BROAD_HANDLERS = {"serving/handler.py", "serving/requests.py", "cli/main.py"}
"""The boundary of each stream, and the last line of each command; test support is the third."""

BARE_EXCEPTIONS = {"model/text.py"}
"""Where a library (tokenizers) raises nothing narrower than `Exception`: translated at the call."""

MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef


@functools.cache
def tree(file: Path) -> ast.Module:
    return ast.parse(file.read_text())


def part(file: Path) -> str:
    """The package or module of p2pnode that a file belongs to; empty for p2pnode itself."""
    name = file.relative_to(PACKAGE).parts[0].removesuffix(".py")
    return "" if name.startswith("__") else name


def imports(file: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(tree(file)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module, node.lineno
            if node.module == "p2pnode":
                yield from ((f"p2pnode.{alias.name}", node.lineno) for alias in node.names)


def where(file: Path, line: int) -> str:
    return f"{file.relative_to(ROOT)}:{line}"


def floor(name: str) -> int:
    return next(index for index, names in enumerate(FLOORS) if name in names)


def dotted(node: ast.expr) -> str:
    """``a.b.c`` of a name or attribute, else empty."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return ""


def calls() -> Iterator[tuple[Path, ast.Call, str]]:
    for file in SOURCES:
        for node in ast.walk(tree(file)):
            if isinstance(node, ast.Call):
                yield file, node, dotted(node.func)


def test_the_visible_top_level_is_what_a_visitor_needs() -> None:
    visible = {path.name for path in ROOT.iterdir() if not path.name.startswith(".")}
    assert visible - MADE_BY_TOOLS == TOP_LEVEL


def test_every_part_has_its_floor() -> None:
    parts = {part(file) for file in SOURCES} - {""}
    assert parts <= set().union(*FLOORS)


def test_imports_go_down_only() -> None:
    wrong = []
    for file in SOURCES:
        for name, line in imports(file):
            own, target = part(file), name.removeprefix("p2pnode.").partition(".")[0]
            if not name.startswith("p2pnode.") or own in ("", target):
                continue
            if floor(target) >= floor(own):
                wrong.append(f"{where(file, line)}: {own} imports {target}")
    assert wrong == []


@pytest.mark.parametrize("library", MAY_IMPORT)
def test_a_library_is_imported_by_its_packages_only(library: str) -> None:
    wrong = [
        where(file, line)
        for file in SOURCES
        for name, line in imports(file)
        if name.partition(".")[0] == library and part(file) not in MAY_IMPORT[library]
    ]
    assert wrong == []


def test_pure_packages_know_no_clock_and_no_loop() -> None:
    wrong = [
        f"{where(file, line)}: {name}"
        for file in SOURCES
        if part(file) in PURE and file.name != "__main__.py"
        for name, line in imports(file)
        if name.partition(".")[0] in NOT_IN_PURE
    ]
    assert wrong == []


def test_nothing_that_runs_a_strangers_code_is_used() -> None:
    wrong = [
        f"{where(file, line)}: {name}"
        for file in SOURCES
        for name, line in imports(file)
        if name.partition(".")[0] in NEVER
    ]
    for file, call, name in calls():
        trusts = any(
            keyword.arg == "trust_remote_code"
            and not (isinstance(keyword.value, ast.Constant) and keyword.value.value is False)
            for keyword in call.keywords
        )
        if trusts or name in ("torch.load", "eval", "exec"):
            wrong.append(f"{where(file, call.lineno)}: {name}")
    assert wrong == []


def test_only_config_reads_the_environment() -> None:
    wrong = [
        where(file, node.lineno)
        for file in SOURCES
        if part(file) != "config"
        for node in ast.walk(tree(file))
        if isinstance(node, ast.expr) and dotted(node) in ("os.environ", "os.getenv", "os.putenv")
    ]
    assert wrong == []


def test_files_are_small() -> None:
    sizes = {str(file.relative_to(ROOT)): len(file.read_text().splitlines()) for file in SOURCES}
    assert {name: size for name, size in sizes.items() if size > MAX_FILE_LINES} == {}


def test_functions_are_small() -> None:
    wrong = [
        f"{where(file, node.lineno)}: {node.name} has {body_lines(node)} lines"
        for file in SOURCES
        for node in ast.walk(tree(file))
        if isinstance(node, Function) and body_lines(node) > MAX_FUNCTION_LINES
    ]
    assert wrong == []


def body_lines(function: Function) -> int:
    """Lines after the signature and the docstring."""
    body = function.body
    begins = body[1:] if ast.get_docstring(function) is not None else body
    return (function.end_lineno or 0) - begins[0].lineno + 1 if begins else 0


def test_broad_handlers_are_at_the_boundaries_only() -> None:
    wrong = [
        where(file, node.lineno)
        for file in SOURCES
        if str(file.relative_to(PACKAGE)) not in BROAD_HANDLERS | BARE_EXCEPTIONS
        for node in ast.walk(tree(file))
        if isinstance(node, ast.ExceptHandler) and is_broad(node)
    ]
    assert wrong == []


def is_broad(handler: ast.ExceptHandler) -> bool:
    """Whether it may swallow a bug; one that raises again at its end cannot."""
    if isinstance(handler.body[-1], ast.Raise) and handler.body[-1].exc is None:
        return False
    caught = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    return any(each is None or dotted(each) in ("Exception", "BaseException") for each in caught)


def test_input_is_checked_by_errors_not_by_assertions() -> None:
    wrong = [
        where(file, node.lineno)
        for file in SOURCES
        for node in ast.walk(tree(file))
        if isinstance(node, ast.Assert)
    ]
    assert wrong == []


def test_only_the_command_line_prints() -> None:
    wrong = [
        where(file, call.lineno)
        for file, call, name in calls()
        if name == "print" and part(file) != "cli" and file.name != "__main__.py"
    ]
    assert wrong == []


def test_every_task_has_an_owner() -> None:
    """Only a task group starts tasks; `tasks` is one of ours."""
    wrong = [
        f"{where(file, call.lineno)}: {name}"
        for file, call, name in calls()
        if part(file) != "tasks"
        and (
            name in ("asyncio.create_task", "asyncio.ensure_future", "asyncio.gather")
            or (name.endswith(".create_task") and "loop" in name)
        )
    ]
    assert wrong == []


def test_nothing_waits_for_the_garbage_collector() -> None:
    wrong = [
        where(file, node.lineno)
        for file in SOURCES
        for node in ast.walk(tree(file))
        if isinstance(node, Function) and node.name == "__del__"
    ]
    assert wrong == []


def test_no_file_names_a_place_of_one_machine() -> None:
    places = ("/" + "work/", "/" + "root/", "../" + "shared")
    files = [
        *SOURCES,
        *(ROOT / "tests").rglob("*.py"),
        *(ROOT / "examples").rglob("*.py"),
        *ROOT.rglob("*.md"),
        ROOT / "pyproject.toml",
        ROOT / ".ci" / "run",
    ]
    wrong = [
        f"{file.relative_to(ROOT)}: {place}"
        for file in files
        if not any(part.startswith(".venv") for part in file.parts)
        for place in places
        if place in file.read_text()
    ]
    assert wrong == []
