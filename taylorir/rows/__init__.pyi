from .files import one_line as one_line, write_atomic as write_atomic
from .measured import (
    PROVENANCE_COLUMNS as PROVENANCE_COLUMNS,
    cpu_name as cpu_name,
    git_commit as git_commit,
    provenance as provenance,
)
