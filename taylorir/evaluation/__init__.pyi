from .files import (
    check_target as check_target,
    check_writable as check_writable,
    upscale_file as upscale_file,
    upscale_folder as upscale_folder,
)
from .memory_limit import parse_memory as parse_memory, peak_resident_memory as peak_resident_memory
from .scores import evaluate as evaluate
from .super_resolution import (
    BICUBIC as BICUBIC,
    NonFiniteError as NonFiniteError,
    default_overlap as default_overlap,
    load_model as load_model,
    super_resolve as super_resolve,
    window_pixels as window_pixels,
)
from .tiles import Axis as Axis, plan_axis as plan_axis
