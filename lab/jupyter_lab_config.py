"""JupyterLab for the notebooks of this checkout: ``make lab`` has it found through JUPYTER_CONFIG_PATH.

Prose is shown as the book shows it (``taylorir-prose``, beside this file). Outputs stay in your files, and
``.ci/strip`` takes them out of what git looks at, so that running a notebook changes nothing for git.
"""

import subprocess
from pathlib import Path

LAB = Path(__file__).resolve().parent


def git(*command):
    """What git prints; empty where there is no git, or this is no clone."""
    try:
        return subprocess.run(
            ["git", *command], cwd=LAB.parent, capture_output=True, text=True, check=True
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return ""


def tell_git_that_nothing_changed(os_path, model, **_):
    """Git takes a file of another size for a changed one until it is told that nothing else differs."""
    if model["type"] == "notebook" and (known := git("ls-files", "--stage", os_path).split()):
        if known[1] == git("hash-object", os_path).strip():
            git("add", os_path)


git("config", "filter.nbstripout.clean", ".ci/strip")

c = get_config()  # noqa: F821
c.LabApp.extra_labextensions_path = [str(LAB)]
c.FileContentsManager.post_save_hook = tell_git_that_nothing_changed
