from . import (
    attribution as attribution,
    conversion as conversion,
    cost as cost,
    explorers as explorers,
    fidelity as fidelity,
    gallery as gallery,
    networks as networks,
    protocol as protocol,
    quality as quality,
)
from .evidence import (
    BELOW_FLOOR as BELOW_FLOOR,
    LEAST_IMAGES as LEAST_IMAGES,
    Estimate as Estimate,
    detectable_in_words as detectable_in_words,
    estimate as estimate,
    exclusions as exclusions,
    exclusions_in_words as exclusions_in_words,
    interval_in_words as interval_in_words,
    judge as judge,
    needed_in_words as needed_in_words,
    result_in_words as result_in_words,
    seeds_needed as seeds_needed,
)
from .glued import glue_figure as glue_figure, glue_values as glue_values
from .tables import (
    MethodStyle as MethodStyle,
    Table as Table,
    measured_on as measured_on,
    plot_methods as plot_methods,
    plot_pictures as plot_pictures,
    save_figure as save_figure,
    style_of as style_of,
    table as table,
    use_style as use_style,
)
