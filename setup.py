"""What pyproject.toml cannot say: the folder ``data`` is ``taylorir.data`` in a wheel."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["taylorir*"]),
        *("taylorir.data", "taylorir.data.results", "taylorir.data.weights"),
    ],
    package_dir={"taylorir.data": "data"},
)
