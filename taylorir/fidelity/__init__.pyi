from . import distances as distances, rows as rows
from .numerics import error_rows as error_rows, range_rows as range_rows
from .rows import collect_qkv as collect_qkv, cut_windows as cut_windows
