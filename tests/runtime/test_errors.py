"""The error tree and its drawing agree."""

from __future__ import annotations

import inspect

from patchline.runtime import errors


def test_the_docstring_lists_every_error_below_its_parent() -> None:
    drawn: dict[str, tuple[int, str]] = {}
    path: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        words = line.lstrip(" │├└─").split()
        if not words or not words[0].endswith("Error"):
            continue
        depth = (len(line) - len(line.lstrip(" │├└─"))) // 4 - 1
        path[depth:] = [words[0]]
        drawn[words[0]] = (depth, path[depth - 1] if depth else "Exception")
    classes = dict(inspect.getmembers(errors, inspect.isclass))
    assert drawn.keys() == classes.keys()
    for name, (_, parent) in drawn.items():
        assert classes[name].__bases__[0].__name__ == parent


def test_every_error_is_documented_and_caught_by_its_base() -> None:
    for _, error in inspect.getmembers(errors, inspect.isclass):
        assert issubclass(error, errors.PatchlineError)
        assert error.__doc__
