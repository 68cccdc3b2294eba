"""Source code as what it does: a hash of it does not change with a comment."""

import ast


def code_alone(source: str) -> str:
    """Return the syntax tree of Python source as text, without comments and docstrings: what a result can depend on.

    Two sources with the same text run the same, so a hash of it tells changed code from mended prose. A text that
    stands as a statement, such as the explanation below a field, counts as a docstring.
    """
    # Comments are not part of the tree; docstrings are, and are taken out of every body.
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(body := getattr(node, "body", None), list):
            node.body = [statement for statement in body if not _is_prose(statement)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_prose(statement: ast.stmt) -> bool:
    if not isinstance(statement, ast.Expr) or not isinstance(statement.value, ast.Constant):
        return False
    return isinstance(statement.value.value, str)
