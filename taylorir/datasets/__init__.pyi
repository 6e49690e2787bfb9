from .cards import dataset_card as dataset_card
from .download import fetch_set as fetch_set
from .manifest import (
    ImageHash as ImageHash,
    SetEntry as SetEntry,
    check_root as check_root,
    manifest_entry as manifest_entry,
    read_manifest as read_manifest,
    set_files as set_files,
)
from .sets import (
    DATA_ROOT_VARIABLE as DATA_ROOT_VARIABLE,
    REAL as REAL,
    SAMPLE_SETS as SAMPLE_SETS,
    NamedImage as NamedImage,
    data_root as data_root,
    image_files as image_files,
    iterate_images as iterate_images,
    load_images as load_images,
    make_pair as make_pair,
    sample_split as sample_split,
)
