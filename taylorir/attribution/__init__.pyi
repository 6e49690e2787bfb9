from .maps import (
    Attribution as Attribution,
    Patch as Patch,
    centre_patch as centre_patch,
    diffusion_index as diffusion_index,
    effective_receptive_field as effective_receptive_field,
    field_width as field_width,
    local_attribution as local_attribution,
)
from .rows import (
    Crop as Crop,
    describe_network as describe_network,
    detailed_crops as detailed_crops,
    named_networks as named_networks,
)
