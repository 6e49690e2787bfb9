from .calibration import (
    Calibration as Calibration,
    CalibrationResult as CalibrationResult,
    calibrate as calibrate,
    converted_layers as converted_layers,
)
from .conversion import taylorize as taylorize
from .files import save_converted as save_converted
from .folders import load_any as load_any
from .operator import TaylorAttention as TaylorAttention
from .sites import survey as survey
from .windows import DATBlock as DATBlock
