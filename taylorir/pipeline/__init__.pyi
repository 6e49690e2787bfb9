from .notebook_inputs import inputs_of as inputs_of
from .run_notebook import PRESETS as PRESETS
