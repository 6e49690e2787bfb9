from .centring import centre_keys as centre_keys
from .kernels.cpp_operator import tile_unit as tile_unit, uses_tiles as uses_tiles
from .kernels.forms import CROSSOVERS as CROSSOVERS, measured_crossover as measured_crossover
from .kernels.placement import as_on_gpu as as_on_gpu, on_cpu as on_cpu
from .kernels.torch_operator import is_transformed as is_transformed
from .layers import token_layers as token_layers
from .operator import (
    crossover_flops as crossover_flops,
    crossover_memory as crossover_memory,
    taylor_attention as taylor_attention,
    taylor_efficient as taylor_efficient,
)
from .reference import (
    softmax_attention as softmax_attention,
    taylor_direct as taylor_direct,
    taylor_sums as taylor_sums,
    unit as unit,
)
from .softmax import softmax_fused as softmax_fused, softmax_has_kernels as softmax_has_kernels
