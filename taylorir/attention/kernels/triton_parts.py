"""What the GPU kernels are made of: loads of tokens, products and roundings; see :mod:`triton_kernels`.

Shape legend: BN tokens of a tile, W columns. PRECISION as in :mod:`triton_taylor`.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_span(table_ptr, t, N, BN: tl.constexpr, ORDERED: tl.constexpr):
    """Tile t: its segment and window, its first token, the end and the number of the segment's tokens."""
    if ORDERED:
        segment = tl.load(table_ptr + 5 * t)
        window = tl.load(table_ptr + 5 * t + 1)
        start = tl.load(table_ptr + 5 * t + 2)
        end = tl.load(table_ptr + 5 * t + 3)
        count = tl.load(table_ptr + 5 * t + 4)
    else:
        segment = t * 0
        window = t * 0
        start = t * BN
        end = t * 0 + N
        count = t * 0 + N
    return segment, window, start, end, count


@triton.jit
def load_tokens(order_ptr, window, first, end, N, BN: tl.constexpr, ORDERED: tl.constexpr):
    """Rows of the tokens first .. first + BN - 1, and which of them lie before the end."""
    n = first + tl.arange(0, BN)
    inside = n < end
    if ORDERED:
        n = tl.load(order_ptr + window * N + n, mask=inside, other=0)
    return n, inside


@triton.jit
def load_rows(ptr, row, inside, stride: tl.constexpr, width: tl.constexpr, first, W: tl.constexpr):
    """Columns first .. first + W - 1 of the rows: [BN, W], zero outside."""
    column = first + tl.arange(0, W)
    mask = inside[:, None] & (column[None, :] < width)
    return tl.load(ptr + row[:, None] * stride + column[None, :], mask=mask, other=0.0)


@triton.jit
def load_columns(ptr, row, inside, stride: tl.constexpr, width: tl.constexpr, first, W: tl.constexpr):
    """The same as [W, BN]."""
    column = first + tl.arange(0, W)
    mask = inside[None, :] & (column[:, None] < width)
    return tl.load(ptr + row[None, :] * stride + column[:, None], mask=mask, other=0.0)


@triton.jit
def inverse_norm(x):
    """1 / |x| of each row; zero where |x| is not above 1e-12, so that a zero vector stays zero."""
    x = x.to(tl.float32)
    square = tl.sum(x * x, 1)
    safe = square > 1e-24
    return tl.where(safe, tl.rsqrt(tl.where(safe, square, 1.0)), 0.0)


@triton.jit
def operand(x, OP: tl.constexpr, PRECISION: tl.constexpr):
    """x as a matrix product takes it.

    PRECISION "bf16" is for the interpreter, which cannot multiply bfloat16: float32 rounded to its bits.
    """
    x = x.to(OP)
    if PRECISION == "bf16":
        x = ((x.to(tl.int32, bitcast=True) + 0x8000) & -0x10000).to(tl.float32, bitcast=True)
    return x


@triton.jit
def product(a, b, sum, OP: tl.constexpr, PRECISION: tl.constexpr):
    """sum + a b, accumulated in float32."""
    INPUT: tl.constexpr = "ieee" if PRECISION == "bf16" else PRECISION
    return tl.dot(operand(a, OP, PRECISION), operand(b, OP, PRECISION), sum, input_precision=INPUT)


@triton.jit
def exact_product(a, b, sum, OP: tl.constexpr, PRECISION: tl.constexpr):
    """sum + a b for b in float32, taken in two parts where one would round it."""
    sum = product(a, b, sum, OP, PRECISION)
    if OP == tl.bfloat16 or PRECISION == "bf16":
        sum = product(a, b - operand(b, OP, PRECISION).to(tl.float32), sum, OP, PRECISION)
    return sum


@triton.jit
def second_order(
    left_ptr,
    row,
    inside,
    stride: tl.constexpr,
    width: tl.constexpr,
    right,
    a2_ptr,
    right_stride,
    column_stride,
    BN: tl.constexpr,
    D: tl.constexpr,
    R: tl.constexpr,
    W: tl.constexpr,
    EXACT: tl.constexpr,
    OP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """sum over j of left_j (right A2_j): [BN, W], with A2_j [R, W] for each of the D columns j of left.

    Both rows stay as they are stored: right is an operand, and left multiplies the products, in float32.
    EXACT takes A2 in two parts; else it is rounded as an operand is.
    """
    GROUP: tl.constexpr = 64 // W  # columns j whose products fit in registers
    r = tl.arange(0, R)
    m = tl.arange(0, GROUP * W)
    place = (m // W * (R * W) + m % W * column_stride)[None, :] + r[:, None] * right_stride
    sum = tl.zeros((BN, W), tl.float32)
    for first in range(0, D, GROUP):
        a2 = tl.load(a2_ptr + first * (R * W) + place)
        zero = tl.zeros((BN, GROUP * W), tl.float32)
        if EXACT:
            products = exact_product(right, a2, zero, OP, PRECISION)
        else:
            products = product(right, a2, zero, OP, PRECISION)
        left = load_rows(left_ptr, row, inside, stride, width, first, GROUP).to(tl.float32)
        sum += tl.sum(tl.reshape(products, (BN, GROUP, W)) * left[:, :, None], 1)
    return sum


@triton.jit
def rounded(x, ptr, PRECISION: tl.constexpr):
    """x in the dtype that ptr points to, rounded to nearest (the interpreter would cut bfloat16 off)."""
    if PRECISION == "bf16":
        x = operand(x, tl.float32, PRECISION)
    return x.to(ptr.dtype.element_ty)


@triton.jit
def block_pair(pair, BLOCKS: tl.constexpr):
    """The pair-th of (0, 0), (0, 1), (1, 1), (0, 2), ...: block I <= J."""
    J = pair * 0
    for b in tl.static_range(1, BLOCKS):
        J += tl.where(pair >= b * (b + 1) // 2, 1, 0)
    return pair - J * (J + 1) // 2, J
