"""What pyproject.toml cannot say: ``data`` is ``taylorir.data`` in a wheel; the README's links are whole."""

import re
import tomllib
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
REPOSITORY = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["urls"]["Repository"]


def whole(link: re.Match[str]) -> str:
    """A link as a package index needs it, which shows the README without the repository around it."""
    kind = "raw" if link[1].endswith((".svg", ".webp")) else "blob"
    return f"]({REPOSITORY}/{kind}/HEAD/{link[1]})"


setup(
    long_description=re.sub(
        r"\]\((?!https://)([^)]+)\)", whole, (ROOT / "README.md").read_text(encoding="utf-8")
    ),
    long_description_content_type="text/markdown",
    packages=[
        *find_packages(include=["taylorir*"]),
        *("taylorir.data", "taylorir.data.results", "taylorir.data.weights"),
    ],
    package_dir={"taylorir.data": "data"},
)
