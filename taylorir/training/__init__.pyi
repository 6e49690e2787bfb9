from .allocator import keep_freed_memory as keep_freed_memory
from .config import TrainConfig as TrainConfig
from .crops import HeldOut as HeldOut, PatchPool as PatchPool, load_training_images as load_training_images
from .curve import Curve as Curve, read_curve as read_curve
from .loop import TrainResult as TrainResult, train as train
from .run_control import (
    Processes as Processes,
    Watch as Watch,
    deferred_signals as deferred_signals,
    end_by as end_by,
    join_processes as join_processes,
)
from .run_folder import claimed as claimed
from .settings import check_types as check_types, parse_setting as parse_setting
