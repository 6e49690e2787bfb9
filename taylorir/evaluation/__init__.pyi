from .scores import (
    evaluate as evaluate,
    load_model as load_model,
)
from .super_resolution import (
    BICUBIC as BICUBIC,
    default_overlap as default_overlap,
    super_resolve as super_resolve,
    window_pixels as window_pixels,
)
from .tiles import (
    parse_memory as parse_memory,
    peak_resident_memory as peak_resident_memory,
    plan_axis as plan_axis,
)
from .upscale import (
    check_target as check_target,
    check_writable as check_writable,
    upscale_file as upscale_file,
    upscale_folder as upscale_folder,
)
