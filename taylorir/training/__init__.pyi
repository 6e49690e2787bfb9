from .config import TrainConfig as TrainConfig
from .crops import HeldOut as HeldOut, load_training_images as load_training_images
from .curve import read_curve as read_curve
from .loop import TrainResult as TrainResult, train as train
from .run_control import Processes as Processes, join_processes as join_processes
from .settings import parse_setting as parse_setting
