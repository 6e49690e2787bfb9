from . import protocol_choices as protocol_choices, protocol_restoration as protocol_restoration
from .budgets import (
    SHOWN as SHOWN,
    Stage as Stage,
    decisive as decisive,
    shown_pair as shown_pair,
    spent as spent,
    stages_with_rows as stages_with_rows,
)
from .differences import (
    below_floor as below_floor,
    beside_published as beside_published,
    compare as compare,
    floor_of as floor_of,
    image_differences as image_differences,
    with_rows as with_rows,
)
from .few_crops import gains_over_floor as gains_over_floor
from .gallery import (
    Panel as Panel,
    crop_panels as crop_panels,
    judge_crops as judge_crops,
    over_seeds as over_seeds,
    pick_both_ways as pick_both_ways,
    rank_crops as rank_crops,
)
from .growing import (
    FILTERS as FILTERS,
    enlarge as enlarge,
    models_by_kind as models_by_kind,
    named_models as named_models,
)
from .ladder import LADDER_ROUNDS as LADDER_ROUNDS, LADDER_STEPS as LADDER_STEPS
from .patches import patch_table as patch_table
from .photographs import agreement as agreement, compare_scores as compare_scores
from .plan import Comparison as Comparison
from .protocol import COMPARISONS as COMPARISONS, EXPERIMENTS as EXPERIMENTS
from .protocol_mid import LEARNING_RATES as LEARNING_RATES, MID_COMPARISONS as MID_COMPARISONS, RATES as RATES
from .protocol_parts import PART_COMPARISONS as PART_COMPARISONS
from .restoration import (
    compare_restoration as compare_restoration,
    restoration_means as restoration_means,
    said as said,
)
from .robustness import paired_gain as paired_gain, robustness_rows as robustness_rows
