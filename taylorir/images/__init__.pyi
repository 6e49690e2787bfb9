from .degradations import (
    DEGRADATIONS as DEGRADATIONS,
    check_degradation as check_degradation,
    degrade as degrade,
)
from .images import (
    PADDING_MODES as PADDING_MODES,
    READABLE_SUFFIXES as READABLE_SUFFIXES,
    WRITABLE_SUFFIXES as WRITABLE_SUFFIXES,
    imresize as imresize,
    mod_crop as mod_crop,
    open_picture as open_picture,
    pad_to_multiple as pad_to_multiple,
    read_image as read_image,
    rgb_to_y as rgb_to_y,
    to_image as to_image,
    to_tensor as to_tensor,
    write_image as write_image,
)
from .metrics import PEAK as PEAK, psnr as psnr, ssim as ssim
