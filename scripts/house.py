"""`python scripts/house.py [--list] CHECKOUT ...`: how the code of a checkout is kept, as figures.

In: folders of this project, each with `pyproject.toml` and `smolvlm/`; without any, the working
folder. Out: a Markdown table with a column a folder, for `docs/decisions/`. Files are parsed and
never imported, so an old commit needs no environment: `git worktree add FOLDER COMMIT` is enough.
`--list` also names what the figures of the last folder count.

A figure says where to look, not what is good: a file of 320 lines may be right as it stands.
"""

import argparse
import ast
import re
import sys
import tomllib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PACKAGE = "smolvlm"
MAX_FILE_LINES = 300
MAX_FUNCTION_LINES = 60
MAX_PARAMETERS = 6
KINDS: Mapping[str, str] = {
    "a preference loss (`simpo`)": r'"simpo"',
    "a training method (`dpo`, its rows and its reference)": r"dpo|[Pp]reference|rejected",
    "a row format (`texts`)": r'"texts"',
    "a vision tower (`read_dinov2`)": r"read_dinov2",
    "a language model (`read_llama_gguf`)": r"read_llama_gguf",
    "a video decoder (`torchcodec`)": r"torchcodec",
    "a kind of adapter (`pissa`)": r"pissa",
    "a setting of data (`average_frames`)": r"average_frames",
    "a setting of the model (`rope_scaling`)": r"rope_scaling",
    "a setting of the trainer (`log_sample_ids`)": r"log_sample_ids",
}
"""One thing of each kind that was added, and the words that every file of it holds."""

Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """One Python file of the package."""

    name: str
    """Its path in the checkout."""
    module: str
    """Its dotted name."""
    text: str
    tree: ast.Module

    @property
    def num_lines(self) -> int:
        return len(self.text.splitlines())

    @property
    def functions(self) -> list[Function]:
        """Functions, methods and functions within functions."""
        return [node for node in ast.walk(self.tree) if isinstance(node, Function)]


@dataclass(frozen=True, kw_only=True, slots=True)
class House:
    """What is counted of a checkout; a place is `file:line name`."""

    num_files: int
    num_lines: int
    num_functions: int
    long_files: tuple[str, ...]
    long_functions: tuple[str, ...]
    wide_functions: tuple[str, ...]
    """Functions of more than `MAX_PARAMETERS` parameters, `self` and `cls` not counted."""
    num_any: int
    """Times that `Any` stands in the code, imports apart."""
    where_parameters: tuple[str, ...]
    """Parameters called `where`."""
    upward_imports: tuple[str, ...]
    """Imports against the layers in the checkout's `pyproject.toml`."""
    lines_of_folder: Mapping[str, int]
    """Lines of the files that lie in each folder itself, not in folders within it."""
    files_of_kind: Mapping[str, tuple[str, ...]]
    """For each of `KINDS` the files that hold its words."""

    @property
    def any_per_1000_lines(self) -> float:
        return 1000 * self.num_any / max(self.num_lines, 1)

    @property
    def num_where_files(self) -> int:
        return len({place.split(":")[0] for place in self.where_parameters})


def main(arguments: Sequence[str]) -> int:
    """Print the table and return the exit status."""
    parser = argparse.ArgumentParser(description="how the code of checkouts is kept, in figures")
    parser.add_argument("checkouts", nargs="*", type=Path, default=[Path(".")], metavar="CHECKOUT")
    parser.add_argument("--list", action="store_true", help="name what the last column counts")
    given = parser.parse_args(arguments)
    houses = [measure(folder) for folder in given.checkouts]
    print(table([str(folder) for folder in given.checkouts], houses))
    if given.list:
        print(listing(houses[-1]))
    return 0


def measure(checkout: Path) -> House:
    """Return the figures of a checkout.

    Raises:
        FileNotFoundError: it has no `pyproject.toml`, or no package.
    """
    project = tomllib.loads((checkout / "pyproject.toml").read_text(encoding="utf-8"))
    sources = read_sources(checkout)
    if not sources:
        raise FileNotFoundError(f"no Python files under {checkout / PACKAGE}")
    functions = [(source, function) for source in sources for function in source.functions]
    return House(
        num_files=len(sources),
        num_lines=sum(source.num_lines for source in sources),
        num_functions=len(functions),
        long_files=tuple(
            f"{source.name}:1 {source.num_lines} lines"
            for source in sources
            if source.num_lines > MAX_FILE_LINES
        ),
        long_functions=_places(functions, lambda own: num_lines(own) > MAX_FUNCTION_LINES),
        wide_functions=_places(functions, lambda own: len(parameters(own)) > MAX_PARAMETERS),
        num_any=sum(count_any(source.tree) for source in sources),
        where_parameters=_places(functions, lambda own: "where" in parameters(own)),
        upward_imports=tuple(upward_imports(sources, layer_contracts(project))),
        lines_of_folder=lines_of_folder(sources),
        files_of_kind={
            kind: tuple(source.name for source in sources if re.search(words, source.text))
            for kind, words in KINDS.items()
        },
    )


def read_sources(checkout: Path) -> list[Source]:
    """Parse every Python file of the package, sorted by path."""
    sources = []
    for path in sorted((checkout / PACKAGE).rglob("*.py")):
        relative = path.relative_to(checkout)
        text = path.read_text(encoding="utf-8")
        module = ".".join(relative.with_suffix("").parts).removesuffix(".__init__")
        tree = ast.parse(text, filename=str(path))
        sources.append(Source(name=relative.as_posix(), module=module, text=text, tree=tree))
    return sources


def _places(
    functions: Iterable[tuple[Source, Function]], holds: Callable[[Function], bool]
) -> tuple[str, ...]:
    return tuple(
        f"{source.name}:{function.lineno} {function.name}"
        for source, function in functions
        if holds(function)
    )


def lines_of_folder(sources: Iterable[Source]) -> dict[str, int]:
    """Return for each folder the lines of its own files."""
    lines: Counter[str] = Counter()
    for source in sources:
        lines[source.name.rpartition("/")[0]] += source.num_lines
    return dict(lines)


def num_lines(function: Function) -> int:
    """Return the lines of a function from `def` to its end, its docstring included."""
    assert function.end_lineno is not None
    return function.end_lineno - function.lineno + 1


def parameters(function: Function) -> list[str]:
    """Return a function's parameters; `self`, `cls`, `*args` and `**kwargs` are left out."""
    arguments = function.args
    every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
    return [argument.arg for argument in every if argument.arg not in ("self", "cls")]


def count_any(tree: ast.Module) -> int:
    """Return how often the name `Any` is used; its import is no use."""
    return sum(isinstance(node, ast.Name) and node.id == "Any" for node in ast.walk(tree))


# ---- imports


Layers = Sequence[Sequence[str]]
"""From the top; the modules of one layer do not import each other."""


def layer_contracts(pyproject: Mapping[str, Any]) -> list[Layers]:
    """Return the contracts of kind `layers` in `[tool.importlinter]`."""
    settings = pyproject.get("tool", {}).get("importlinter", {})
    return [
        [[name.strip() for name in layer.split("|")] for layer in contract["layers"]]
        for contract in settings.get("contracts", ())
        if contract["type"] == "layers"
    ]


def upward_imports(sources: Sequence[Source], contracts: Sequence[Layers]) -> Iterator[str]:
    """Yield the imports of a module in a higher layer, or beside the importer in the same one."""
    for source in sources:
        for line, names in imports(source.tree):
            if any(
                _points_up(source.module, name, layers) for name in names for layers in contracts
            ):
                yield f"{source.name}:{line} {names[0]}"


def imports(tree: ast.Module) -> Iterator[tuple[int, list[str]]]:
    """Yield (line, dotted names) of every import statement, those within functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield node.lineno, [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.lineno, [f"{node.module}.{alias.name}" for alias in node.names]


def _points_up(importer: str, imported: str, layers: Layers) -> bool:
    below, above = _room(importer, layers), _room(imported, layers)
    if below is None or above is None:
        return False
    return above[0] < below[0] or (above[0] == below[0] and above[1] != below[1])


def _room(module: str, layers: Layers) -> tuple[int, str] | None:
    """Return (number of the layer, its member) that a module lies in, or None."""
    for number, members in enumerate(layers):
        for member in members:
            if module == member or module.startswith(f"{member}."):
                return number, member
    return None


# ---- what is printed


def table(headings: Sequence[str], houses: Sequence[House]) -> str:
    """Return a Markdown table with a row a figure and a column a checkout."""
    columns = [figures(house) for house in houses]
    lines = ["| | " + " | ".join(headings) + " |", "|---|" + "---|" * len(headings)]
    lines += [
        f"| {name} | " + " | ".join(column[name] for column in columns) + " |"
        for name in columns[0]
    ]
    return "\n".join(lines)


def figures(house: House) -> dict[str, str]:
    """Return what each row of the table is called and says."""
    largest, lines = max(house.lines_of_folder.items(), key=lambda item: item[1])
    where = f"{len(house.where_parameters)} in {house.num_where_files} files"
    return {
        f"files under {PACKAGE}/": f"{house.num_files:,}",
        "lines": f"{house.num_lines:,}",
        "functions": f"{house.num_functions:,}",
        "folders": f"{len(house.lines_of_folder)}",
        "largest folder, share of the lines": f"`{largest}/`, {100 * lines / house.num_lines:.1f} "
        "%",
        f"files over {MAX_FILE_LINES} lines": f"{len(house.long_files)}",
        f"functions over {MAX_FUNCTION_LINES} lines": f"{len(house.long_functions)}",
        f"functions of more than {MAX_PARAMETERS} parameters": f"{len(house.wide_functions)}",
        "`Any` per 1,000 lines": f"{house.any_per_1000_lines:.1f}",
        "parameters named `where`": where,
        "imports that point up": f"{len(house.upward_imports)}",
        **{f"files that know {kind}": f"{len(own)}" for kind, own in house.files_of_kind.items()},
    }


def listing(house: House) -> str:
    """Return the places behind the figures, a paragraph a figure."""
    lists: dict[str, Sequence[str]] = {
        f"files over {MAX_FILE_LINES} lines": house.long_files,
        f"functions over {MAX_FUNCTION_LINES} lines": house.long_functions,
        f"functions of more than {MAX_PARAMETERS} parameters": house.wide_functions,
        "parameters named `where`": house.where_parameters,
        "imports that point up": house.upward_imports,
        **{f"files that know {kind}": own for kind, own in house.files_of_kind.items()},
    }
    return "".join(
        f"\n{name}:\n" + "".join(f"  {place}\n" for place in places)
        for name, places in lists.items()
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
