from .expected import expectation as expectation
from .files import upscale_file as upscale_file
from .folders import upscale_folder as upscale_folder
from .hub import (
    from_pretrained as from_pretrained,
    push_to_hub as push_to_hub,
    save_pretrained as save_pretrained,
)
from .memory_limit import parse_memory as parse_memory, peak_resident_memory as peak_resident_memory
from .picture import upscale as upscale
from .scores import evaluate as evaluate
from .stored import stored_models as stored_models, stored_record as stored_record
from .super_resolution import (
    BICUBIC as BICUBIC,
    NonFiniteError as NonFiniteError,
    check_upscale as check_upscale,
    default_overlap as default_overlap,
    load_model as load_model,
    super_resolve as super_resolve,
    window_pixels as window_pixels,
)
from .targets import (
    check_source as check_source,
    check_target as check_target,
    check_writable as check_writable,
)
from .tiles import Axis as Axis, plan_axis as plan_axis
