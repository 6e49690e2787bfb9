from .build import end_with_parent as end_with_parent, only_build as only_build
from .notebook_inputs import inputs_of as inputs_of
from .parameters import (
    PRESETS as PRESETS,
    check_preset as check_preset,
    parameters_by_notebook as parameters_by_notebook,
)
from .reads import declared_reads as declared_reads
from .run_notebook import MINUTES as MINUTES
