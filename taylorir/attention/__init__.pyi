from .forms import (
    crossover_flops as crossover_flops,
    crossover_memory as crossover_memory,
    softmax_attention as softmax_attention,
    taylor_attention as taylor_attention,
    taylor_direct as taylor_direct,
    taylor_efficient as taylor_efficient,
)
