from .committed import read_rows as read_rows
from .errors import is_out_of_memory as is_out_of_memory
from .files import (
    one_line as one_line,
    part_path as part_path,
    sweep_parts as sweep_parts,
    write_atomic as write_atomic,
    write_rows as write_rows,
)
from .folders import (
    DATA_FOLDER as DATA_FOLDER,
    RESULTS_FOLDER as RESULTS_FOLDER,
    WEIGHTS_FOLDER as WEIGHTS_FOLDER,
)
from .measured import (
    PROVENANCE_COLUMNS as PROVENANCE_COLUMNS,
    commit_of as commit_of,
    cpu_name as cpu_name,
    git_commit as git_commit,
    provenance as provenance,
)
