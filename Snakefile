# notebooks -> executed notebooks -> book.
#
#   snakemake -j2                                          the book at preset "cpu", into _build/html
#   snakemake -j2 --config preset=smoke                    the same in a minute, into _build/smoke/html
#   snakemake -j2 --config 'parameters={04_training: {seed: 1}}'
#   snakemake -j20 --executor slurm --config preset=paper  on a cluster (pip install snakemake-executor-plugin-slurm)
#
# A notebook is run again when its content, a module of taylorir that it imports, or a data file that it names has
# changed. After a failure the same command goes on with what is missing.

import json
import shlex
import sys
from pathlib import Path

from taylorir.pipeline.notebook_inputs import inputs_of
from taylorir.pipeline.run_notebook import PRESETS

PRESET = config.get("preset", "cpu")
PARAMETERS = config.get("parameters", {}) or {}
NOTEBOOKS = sorted(path.stem for path in Path("notebooks").glob("[0-9][0-9]_*.ipynb"))

# Notebooks that time something have the machine to themselves (both cores of two), but for preset "smoke", whose times
# mean nothing; the longest ones start first.
WHOLE_MACHINE = {"08_runtime"} if PRESET != "smoke" else set()
LONGEST_FIRST = ["04_training"]

unknown = [f"config key {key}" for key in set(config) - {"preset", "parameters"}]
unknown += [f"notebook {name}" for name in PARAMETERS if name not in NOTEBOOKS]
unknown += [f"preset {PRESET}"] if PRESET not in PRESETS else []
if unknown:
    raise WorkflowError(f"unknown {', '.join(unknown)}; presets: {', '.join(PRESETS)}; notebooks: {', '.join(NOTEBOOKS)}")

# The real book is built from book/ as it stands; any other preset from a copy, so that it cannot get in its way.
BUILD = "_build" if PRESET == "cpu" else f"_build/{PRESET}"
SOURCE = "book" if PRESET == "cpu" else f"{BUILD}/source"
PAGES = [str(p) for p in sorted(Path("book").rglob("*")) if p.is_file() and not {"_executed", "__pycache__"} & set(p.parts)]
JUPYTER_BOOK = Path(sys.executable).with_name("jupyter-book")
PACKAGE = [str(path) for path in sorted(Path("taylorir").rglob("*")) if path.suffix in (".py", ".pyi")]


def parameters_of(wildcards):
    given = {"preset": PRESET, **PARAMETERS.get(wildcards.name, {})}
    return shlex.join(word for name, value in given.items() for word in ("-p", name, json.dumps(value)))


rule all:
    input:
        f"{BUILD}/html/index.html",


rule notebook:
    input:
        lambda wildcards: inputs_of(Path(f"notebooks/{wildcards.name}.ipynb")),
    output:
        f"{SOURCE}/_executed/{{name}}.ipynb",
    params:
        given=parameters_of,
    threads: lambda wildcards: 2 if wildcards.name in WHOLE_MACHINE else 1
    priority: lambda wildcards: 1 if wildcards.name in LONGEST_FIRST else 0
    resources:
        mem_mb=8000,
        runtime={"smoke": 5, "cpu": 30, "paper": 24 * 60}[PRESET],
    shell:
        "{sys.executable} -m taylorir.pipeline.run_notebook notebooks/{wildcards.name}.ipynb {output} --threads {threads} {params.given}"


rule book:
    input:
        PAGES,
        PACKAGE,
        "_config.yml",
        expand(f"{SOURCE}/_executed/{{name}}.ipynb", name=NOTEBOOKS),
    output:
        f"{BUILD}/html/index.html",
    params:
        part=f"{BUILD}/.part",
        stage="true"
        if SOURCE == "book"
        else f"find {SOURCE} -mindepth 1 -maxdepth 1 ! -name _executed -exec rm -rf {{}} + && "
        f"tar -C book --exclude=_executed --exclude=__pycache__ -cf - . | tar -C {SOURCE} -xf -",
    shell:
        "rm -rf {params.part} && {params.stage} && "
        "{JUPYTER_BOOK} build {SOURCE} --config _config.yml --path-output {params.part} --all -W -n --keep-going && "
        "rm -rf {BUILD}/html && mv {params.part}/_build/html {BUILD}/html && rm -rf {params.part} && "
        "echo 'The book: {BUILD}/html/index.html'"
