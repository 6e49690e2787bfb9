from . import allocations as allocations
from .flops import (
    cost_parity as cost_parity,
    flop_rows as flop_rows,
    form_rows as form_rows,
    held_numbers as held_numbers,
    network_flop_rows as network_flop_rows,
    parity_rows as parity_rows,
    product_flops as product_flops,
)
from .memory import NETWORK_METHODS as NETWORK_METHODS, MemoryPeak as MemoryPeak, MemoryPoint as MemoryPoint
from .memory_real import (
    LARGE_POINTS as LARGE_POINTS,
    VALIDATION_POINTS as VALIDATION_POINTS,
    validation_rows as validation_rows,
)
from .memory_rows import (
    LR_SIZES as LR_SIZES,
    UPSCALES as UPSCALES,
    WINDOWS as WINDOWS,
    limit_points as limit_points,
    limit_rows as limit_rows,
    memory_points as memory_points,
    memory_table as memory_table,
    with_savings as with_savings,
)
from .network_flops import cost_rows as cost_rows, flops_of as flops_of
from .network_memory import memory_of as memory_of
from .runtime import (
    RUNTIME_MODES as RUNTIME_MODES,
    TimedNetwork as TimedNetwork,
    attention_methods as attention_methods,
    attention_rows as attention_rows,
    network_rows as network_rows,
)
from .timing import Timing as Timing, machine_load as machine_load, time_calls as time_calls
from .tracing import windows_as_wholes as windows_as_wholes
