"""docs/hooks.md is about the hooks that exist, with the arguments they have, and its examples fit."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from pathlib import Path

import pytest

from volume_core.plugins import hookspecs

DOCS = (Path(__file__).parents[2] / "docs" / "hooks.md").read_text()
HOOKS = {name: function for name, function in vars(hookspecs).items() if name.startswith("volume_")}


def arguments(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def section(hook: str) -> str:
    """What docs/hooks.md says below the heading of *hook*."""
    return re.split(r"^#", DOCS.split(f"### {hook}(", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def implementations(code: str) -> list[tuple[str, list[str]]]:
    """(name, arguments) of each function marked @hookimpl in *code*."""
    return [
        (node.name, [argument.arg for argument in node.args.args])
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.FunctionDef) and any("hookimpl" in ast.unparse(mark) for mark in node.decorator_list)
    ]


def test_there_are_hooks():
    assert len(HOOKS) >= 7


def test_every_heading_is_a_hook_with_its_exact_arguments():
    assert {f"{name}({', '.join(arguments(function))})" for name, function in HOOKS.items()} == set(
        re.findall(r"^### (volume_.*)$", DOCS, re.MULTILINE)
    )


@pytest.mark.parametrize("hook", HOOKS)
def test_the_documented_example_implements_the_hook(hook):
    [code] = re.findall(r"```python\n(.*?)```", section(hook), re.DOTALL)
    [(name, taken)] = implementations(code)

    assert hook == name
    assert set(taken) <= set(arguments(HOOKS[hook]))


@pytest.mark.parametrize("hook", HOOKS)
def test_the_docstring_carries_an_example_too(hook):
    _, _, example = inspect.getdoc(HOOKS[hook]).partition("Example::\n")
    [(name, taken)] = implementations(textwrap.dedent(example))

    assert hook == name
    assert set(taken) <= set(arguments(HOOKS[hook]))
