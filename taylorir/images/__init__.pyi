from .decode import Picture as Picture
from .degradations import (
    DEGRADATIONS as DEGRADATIONS,
    check_degradation as check_degradation,
    degrade as degrade,
)
from .depth import to_8_bits as to_8_bits
from .io import (
    READABLE_SUFFIXES as READABLE_SUFFIXES,
    WRITABLE_SUFFIXES as WRITABLE_SUFFIXES,
    open_picture as open_picture,
    picture_size as picture_size,
    read_image as read_image,
    write_image as write_image,
)
from .metrics import PEAK as PEAK, psnr as psnr, shaved_border as shaved_border, ssim as ssim
from .naturalness import niqe as niqe
from .pixels import (
    PADDING_MODES as PADDING_MODES,
    centre_crop as centre_crop,
    mod_crop as mod_crop,
    pad_to_multiple as pad_to_multiple,
    padded_indices as padded_indices,
    rgb_to_y as rgb_to_y,
    to_grey as to_grey,
    to_image as to_image,
    to_tensor as to_tensor,
)
from .resize import imresize as imresize
from .transparency import bleed_colours as bleed_colours
