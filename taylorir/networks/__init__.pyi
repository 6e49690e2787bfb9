from . import anatomy as anatomy
from .checkpoint import (
    Checkpoint as Checkpoint,
    checkpoint_files as checkpoint_files,
    latest_checkpoint as latest_checkpoint,
    load_checkpoint as load_checkpoint,
    pack_state as pack_state,
    read_record as read_record,
    remove_leftovers as remove_leftovers,
    remove_old_checkpoints as remove_old_checkpoints,
    save_checkpoint as save_checkpoint,
    save_weights as save_weights,
    unpack_state as unpack_state,
)
from .config import ModelConfig as ModelConfig, config_from_json as config_from_json
from .conversion import taylorize as taylorize
from .export import (
    TOLERANCE as TOLERANCE,
    export_network as export_network,
    exported_difference as exported_difference,
)
from .fitting import fit_weights as fit_weights
from .foreign import (
    CONVERTED as CONVERTED,
    ForeignConfig as ForeignConfig,
    ForeignNetwork as ForeignNetwork,
    build_foreign as build_foreign,
    image_channels as image_channels,
    is_transformers_folder as is_transformers_folder,
    read_transformers_config as read_transformers_config,
    swin2sr_class as swin2sr_class,
    wrap_swin2sr as wrap_swin2sr,
)
from .original import as_in_original as as_in_original
from .swinir import (
    RSTB as RSTB,
    PatchEmbed as PatchEmbed,
    SwinIR as SwinIR,
    SwinTransformerBlock as SwinTransformerBlock,
)
from .taylorswinir import (
    TaylorSwinIR as TaylorSwinIR,
    TaylorWindowAttention as TaylorWindowAttention,
    taylor_efficient_published as taylor_efficient_published,
)
from .tensor_files import RECORD_KEY as RECORD_KEY, read_tensors as read_tensors
from .variants import VARIANTS as VARIANTS, build_from_config as build_from_config, build_model as build_model
from .weights import (
    default_model as default_model,
    load_network as load_network,
    weights_digest as weights_digest,
)
from .window_attention import WindowAttention as WindowAttention
from .windows import (
    kept_apart as kept_apart,
    merge as merge,
    partition as partition,
    window_regions as window_regions,
)
