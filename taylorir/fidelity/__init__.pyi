from .distances import (
    cosine_scores as cosine_scores,
    kl_bound as kl_bound,
    max_weight_ratio as max_weight_ratio,
    monotone_from as monotone_from,
    softmax_weights as softmax_weights,
    taylor_weights as taylor_weights,
    total_variation as total_variation,
    total_variation_bound as total_variation_bound,
)
from .numerics import error_rows as error_rows, range_rows as range_rows
from .rows import (
    collect_qkv as collect_qkv,
    cut_windows as cut_windows,
    fidelity_rows as fidelity_rows,
    gaussian_qkv as gaussian_qkv,
    scene_rows as scene_rows,
    weight_curves as weight_curves,
    worst_case_rows as worst_case_rows,
)
