from .centring import centre_keys as centre_keys
from .kernels.forms import CROSSOVERS as CROSSOVERS, measured_crossover as measured_crossover
from .kernels.torch_operator import is_transformed as is_transformed
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
