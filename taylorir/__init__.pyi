from . import (
    attention as attention,
    attribution as attribution,
    convert as convert,
    cost as cost,
    datasets as datasets,
    evaluation as evaluation,
    experiments as experiments,
    fidelity as fidelity,
    images as images,
    networks as networks,
    pipeline as pipeline,
    report as report,
    rows as rows,
    training as training,
)
from .attention import taylor_attention as taylor_attention
from .convert import taylorize as taylorize
from .evaluation import evaluate as evaluate, upscale as upscale
from .networks import build_model as build_model

__version__: str
