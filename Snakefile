# notebooks -> executed notebooks -> book.
#
#   snakemake -j2                                          the book at preset "cpu", into _build/html
#   snakemake -j2 --config preset=smoke                    the same in a minute, into _build/smoke/html
#   snakemake -j2 --config pdf=true                        with all pages as one PDF beside them; needs Chromium
#   snakemake -j2 --config 'parameters={04_training: {seed: 1}}'
#   snakemake -j20 --executor slurm --config preset=paper  on a cluster (pip install snakemake-executor-plugin-slurm)
#
# A notebook is run again when its content, its runner, a module of taylorir that it imports, a data file that
# notebooks/reads.yaml says it reads, or requirements.txt has changed. After a failure the same command goes on with
# what is missing; after a kill too, with --rerun-incomplete.

import json
import os
import shlex
import sys
from pathlib import Path

from taylorir.pipeline import MINUTES, end_with_parent, inputs_of, only_build, parameters_by_notebook

PRESET = config.get("preset", "cpu")
try:
    if unknown := set(config) - {"preset", "parameters", "pdf"}:
        raise ValueError(f"unknown config key {', '.join(sorted(unknown))}; known: preset, parameters, pdf")
    PARAMETERS = parameters_by_notebook(config.get("parameters"), PRESET, Path("notebooks"))
    if workflow.is_main_process:
        BUILD_LOCK = only_build()
except (ValueError, TypeError, OSError) as error:
    sys.exit(f"taylorir: error: {error}")
NOTEBOOKS = list(PARAMETERS)

# make is the parent that counts: a Snakemake that is started by hand may outlive its shell.
if "MAKELEVEL" in os.environ:
    end_with_parent(os.getppid(), lambda: os._exit(1))

# Notebooks that time something have the machine to themselves (both cores of two), but for preset "smoke", whose times
# mean nothing; the longest ones start first.
WHOLE_MACHINE = {"08_runtime"} if PRESET != "smoke" else set()
LONGEST_FIRST = ["04_training"]
GPU = {"gpu": 1} if PRESET == "paper" else {}

# The real book is built from book/ as it stands; any other preset from a copy, so that it cannot get in its way.
BUILD = "_build" if PRESET == "cpu" else f"_build/{PRESET}"
SOURCE = "book" if PRESET == "cpu" else f"{BUILD}/source"
PAGES = [str(p) for p in sorted(Path("book").rglob("*")) if p.is_file() and not {"_executed", "__pycache__"} & set(p.parts)]
PACKAGE = [str(path) for path in sorted(Path("taylorir").rglob("*")) if path.suffix in (".py", ".pyi")]

PDF = f"{BUILD}/taylorir.pdf" if config.get("pdf") else []

# Every job ends with the process that runs it, even if that is killed.
PYTHON = sys.executable
PARENT = os.getpid()


def arguments_of(wildcards):
    given = {"preset", *(config.get("parameters") or {}).get(wildcards.name, {})}
    values = PARAMETERS[wildcards.name]
    return shlex.join(word for name in sorted(given) for word in ("-p", name, json.dumps(values[name])))


rule all:
    input:
        f"{BUILD}/html/index.html",


rule notebook:
    input:
        lambda wildcards: inputs_of(Path(f"notebooks/{wildcards.name}.ipynb"), PARAMETERS[wildcards.name]),
    output:
        f"{SOURCE}/_executed/{{name}}.ipynb",
    params:
        given=arguments_of,
    threads: lambda wildcards: 2 if wildcards.name in WHOLE_MACHINE else 1
    priority: lambda wildcards: 1 if wildcards.name in LONGEST_FIRST else 0
    resources:
        mem_mb=8000,
        runtime=MINUTES[PRESET],
        **GPU,
    shell:
        "exec {PYTHON:q} -m taylorir.pipeline.run_notebook notebooks/{wildcards.name}.ipynb {output:q} "
        "--parent {PARENT} --threads {threads} {params.given}"


rule book:
    input:
        pages=[*PAGES, *PACKAGE, "_config.yml", *expand(f"{SOURCE}/_executed/{{name}}.ipynb", name=NOTEBOOKS)],
        pdf=PDF,
    output:
        f"{BUILD}/html/index.html",
    params:
        pdf=["--pdf", PDF] if PDF else [],
    shell:
        "exec {PYTHON:q} -m taylorir.pipeline.book {SOURCE} {BUILD} --parent {PARENT} {params.pdf:q}"


rule pdf:
    input:
        rules.book.input.pages,
    output:
        f"{BUILD}/taylorir.pdf",
    shell:
        "exec {PYTHON:q} -m taylorir.pipeline.pdf {SOURCE} {output:q} --parent {PARENT}"
