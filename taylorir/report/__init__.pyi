from . import (
    cost as cost,
    fidelity as fidelity,
    gallery as gallery,
    networks as networks,
    protocol as protocol,
    quality as quality,
    tables as tables,
)
from .attribution import (
    Box as Box,
    difference_text as difference_text,
    diffusion_summary as diffusion_summary,
    label as label,
    paired_differences as paired_differences,
    plot_diffusion as plot_diffusion,
    plot_fields as plot_fields,
    plot_maps as plot_maps,
    verdict as verdict,
)
from .tables import plot_pictures as plot_pictures, save_figure as save_figure, use_style as use_style
