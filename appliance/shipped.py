"""Where the files that ship with the code are: pack manifests and the explained settings.

In a checkout they lie at the top of the tree; in an installed wheel, inside the package.
"""

from pathlib import Path

_PACKAGE = Path(__file__).parent


def shipped(relative: str) -> Path:
    """The path of a shipped file or folder.

    Args:
        relative: a path such as `models/edge.toml` or `config/drempel.toml`.

    Raises:
        FileNotFoundError: the installation is incomplete; reinstall Drempel.
    """
    for root in (_PACKAGE.parent, _PACKAGE / "shipped"):
        # A checkout is known by its pyproject: site-packages may hold a stranger's `models/`.
        if root == _PACKAGE.parent and not (root / "pyproject.toml").is_file():
            continue
        path = root / relative
        if path.exists():
            return path
    raise FileNotFoundError(f"{relative} is missing from this installation: install drempel again")
