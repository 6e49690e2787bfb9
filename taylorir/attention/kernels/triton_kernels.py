"""GPU kernels of the efficient form: three programs that serve forward and backward alike.

The features x_i x_j of a token are products of two of its columns. ``moments_kernel`` forms them in
registers, as operand of a matrix product, and drops them; the other two need none, see ``second_order``.
None is written to memory, neither shared nor global.

Algorithm. q stands for tau q / |q| and k for k / |k|; the weight of a pair is 1 + q.k + (q.k)^2 / 2; sums run
over the n tokens of a segment, and over repeated i, j:

    (K1)  moments of (k, v, 1):    s = sum v,   A1_i = sum k_i v,   A2_ij = sum k_i k_j v
                                   t = sum k,   G_ij = sum k_i k_j
    (K2)  read-out of q:           num = s + q_i A1_i + q_i q_j A2_ij / 2
                                   den = n + q_i t_i  + q_i q_j G_ij / 2,      y = num / den
    (K3)  gradient of num, den:    g = dy / den,   h = - g.num / den
    (K4)  pull-back to q:          dq_i = A1_i.g + q_j A2_ij.g + h (t_i + G_ij q_j)
    (K5)  dual moments:            those of (q, g, h), with t = sum h q, G_ij = sum h q_i q_j
    (K6)  keys, from the dual:     dv = num of the read-out of k,   dk = pull-back of (k, v, 1)
    (K7)  through x = tau u, u = q / |q|:   dq = tau (dx - u (u.dx)) / |q|,   dtau = sum u.dx

``moments_kernel`` is (K1) and (K5), ``readout_kernel`` (K2) and dv, ``pullback_kernel`` (K4), dk and (K7).

Precision. Sums and states are float32. Rows enter the products as they are stored; 1 / |x|, tau, 1 / den and
x_j in (K2) and (K4) multiply rows of the result, or the features before they are rounded. So in bfloat16 two
things are rounded: the features of (K1), and A2 in (K2). A1, G and the A2 of (K4), whose results cancel most,
are taken in two parts, high and low. (K3) takes num from the products of (K4), not from a rounded y, so that
what these round cancels in dtau. Against the direct form, which rounds its results only, that errs at most
twice as much; tests hold it.
Every sum has a fixed order: results are the same bits on every run.

A2 is symmetric: ``moments_kernel`` visits only pairs I <= J of blocks of 16 columns.

Shape legend
    B windows of all images, H heads, N tokens of x (keys: those of k), d width of q and k, d_v width of v
    D, C     d and d_v padded to 16, 32 or 64; columns beyond d and d_v read as zero
    BN       tokens of a tile;  W columns;  PAIRS of 16-column blocks I <= J, 256 features each
    segment  tokens that see each other: a window, or one region of it (rows gathered through ``order``)
    high     [states, H, D * D * C]              A2 in rows i * D + j; float32
    low      [states, H, D * (C + D) + D + C]    A1, G, t, s; float32

Constants
    QUERY tells q from k;  ORDERED, whether regions are given;  INDEX, the integers of a row's offset
    OP, the dtype of the operands of matrix products;  PRECISION, how those in float32 are multiplied
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def load_span(table_ptr, t, N, keys, BN: tl.constexpr, ORDERED: tl.constexpr):
    """Tile t: its segment and window, its first token, the end and the number of the segment's keys."""
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
        count = t * 0 + keys
    return segment, window, start, end, count


@triton.jit
def load_tokens(
    order_ptr, window, first, end, N, BN: tl.constexpr, ORDERED: tl.constexpr, INDEX: tl.constexpr
):  # fmt: skip
    """Rows of the tokens first .. first + BN - 1 as INDEX, and which of them lie before the end."""
    n = first + tl.arange(0, BN)
    inside = n < end
    if ORDERED:
        n = tl.load(order_ptr + window.to(tl.int64) * N + n, mask=inside, other=0)
    return n.to(INDEX), inside


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
    left_ptr, row, inside, stride: tl.constexpr, width: tl.constexpr, right, a2_ptr, right_stride,
    column_stride, BN: tl.constexpr, D: tl.constexpr, R: tl.constexpr, W: tl.constexpr,
    EXACT: tl.constexpr, OP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
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


@triton.jit
def moments_kernel(
    x_ptr, z_ptr, den_ptr, h_ptr, tau_ptr, table_ptr, order_ptr, high_ptr, low_ptr, x_sb, x_sh, z_sb, z_sh,
    N, H, windows, segments, x_sn: tl.constexpr, z_sn: tl.constexpr, d: tl.constexpr, dv: tl.constexpr,
    D: tl.constexpr, C: tl.constexpr, BN: tl.constexpr, SPLITS: tl.constexpr, ORDERED: tl.constexpr,
    QUERY: tl.constexpr, INDEX: tl.constexpr, OP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(K1) of x = k, z = v; (K5) of x = q, z = dy. den and h are those of (K2) and (K3).

    One program a (segment, split of its tokens, head, job): pairs of blocks, then low.
    """
    BLOCKS: tl.constexpr = D // 16
    PAIRS: tl.constexpr = BLOCKS * (BLOCKS + 1) // 2
    pid = tl.program_id(0)
    job = pid % (PAIRS + 1)
    head = (pid // (PAIRS + 1) % H).to(tl.int64)
    split = pid // ((PAIRS + 1) * H) % SPLITS
    state = pid // ((PAIRS + 1) * H * SPLITS)  # repetition of the windows * segments + segment
    _segment, window, start, end, count = load_span(table_ptr, state % segments, N, N, 0, ORDERED)
    batch = (state // segments * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    z_ptr += batch * z_sb + head * z_sh
    den_ptr += (batch * H + head) * N
    h_ptr += (batch * H + head) * N
    place = (state * SPLITS + split).to(tl.int64) * H + head
    high_ptr += place * (D * D * C)
    low_ptr += place * (D * (C + D) + D + C)
    share = tl.cdiv(count, SPLITS * BN) * BN
    begin = start + split * share
    end = tl.minimum(end, begin + share)
    tau = tl.load(tau_ptr + head) if QUERY else 1.0
    c = tl.arange(0, C)

    if job < PAIRS:
        I, J = block_pair(job, BLOCKS)
        a2 = tl.zeros((256, C), tl.float32)
        for first in range(begin, end, BN):
            row, inside = load_tokens(order_ptr, window, first, end, N, BN, ORDERED, INDEX)
            scale = inverse_norm(load_rows(x_ptr, row, inside, x_sn, d, 0, D)) * tau
            scale *= scale
            if QUERY:
                scale /= tl.load(den_ptr + row, mask=inside, other=1.0)
            z = load_rows(z_ptr, row, inside, z_sn, dv, 0, C)
            left = load_columns(x_ptr, row, inside, x_sn, d, I * 16, 16).to(tl.float32) * scale[None, :]
            right = load_columns(x_ptr, row, inside, x_sn, d, J * 16, 16).to(tl.float32)
            features = tl.reshape(left[:, None, :] * right[None, :, :], (256, BN))
            a2 = product(features, z, a2, OP, PRECISION)
        r = tl.arange(0, 256)
        ij = (I * 16 + r // 16) * D + J * 16 + r % 16
        ji = (J * 16 + r % 16) * D + I * 16 + r // 16
        tl.store(high_ptr + ij[:, None] * C + c[None, :], a2)
        if I != J:
            tl.store(high_ptr + ji[:, None] * C + c[None, :], a2)
    else:
        i = tl.arange(0, D)
        a1 = tl.zeros((D, C), tl.float32)
        gram = tl.zeros((D, D), tl.float32)
        s = tl.zeros((C,), tl.float32)
        t = tl.zeros((D,), tl.float32)
        for first in range(begin, end, BN):
            row, inside = load_tokens(order_ptr, window, first, end, N, BN, ORDERED, INDEX)
            x = load_rows(x_ptr, row, inside, x_sn, d, 0, D)
            scale = inverse_norm(x) * tau
            z = load_rows(z_ptr, row, inside, z_sn, dv, 0, C).to(tl.float32)
            weight = tl.where(inside, 1.0, 0.0)
            if QUERY:
                z *= (1.0 / tl.load(den_ptr + row, mask=inside, other=1.0))[:, None]
                weight = tl.load(h_ptr + row, mask=inside, other=0.0)
            weighted = x.to(tl.float32) * (weight * scale)[:, None]
            transposed = tl.trans(x)
            a1 = exact_product(transposed, z * scale[:, None], a1, OP, PRECISION)
            gram = exact_product(transposed, weighted * scale[:, None], gram, OP, PRECISION)
            s += tl.sum(z, 0)
            t += tl.sum(weighted, 0)
        tl.store(low_ptr + i[:, None] * C + c[None, :], a1)
        tl.store(low_ptr + D * C + i[:, None] * D + tl.arange(0, D)[None, :], gram)
        tl.store(low_ptr + D * (C + D) + i, t)
        tl.store(low_ptr + D * (C + D) + D + c, s)


@triton.jit
def readout_kernel(
    x_ptr, tau_ptr, table_ptr, order_ptr, high_ptr, low_ptr, out_ptr, den_ptr, x_sb, x_sh, out_sb, out_sh,
    N, keys, H, windows, segments, tiles, x_sn: tl.constexpr, out_sn: tl.constexpr, d: tl.constexpr,
    dv: tl.constexpr, D: tl.constexpr, C: tl.constexpr, BN: tl.constexpr, ORDERED: tl.constexpr,
    QUERY: tl.constexpr, INDEX: tl.constexpr, OP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """(K2): x = q, out = y, and den is written; or (K6): x = k, out = dv. One program a (tile, head)."""
    pid = tl.program_id(0)
    head = (pid % H).to(tl.int64)
    tile = pid // H % tiles
    repetition = pid // (H * tiles)
    segment, window, start, end, count = load_span(table_ptr, tile, N, keys, BN, ORDERED)
    batch = (repetition * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    out_ptr += batch * out_sb + head * out_sh
    place = (repetition * segments + segment).to(tl.int64) * H + head
    high_ptr += place * (D * D * C)
    low_ptr += place * (D * (C + D) + D + C)
    row, inside = load_tokens(order_ptr, window, start, end, N, BN, ORDERED, INDEX)
    i = tl.arange(0, D)
    c = tl.arange(0, C)

    x = load_rows(x_ptr, row, inside, x_sn, d, 0, D)
    scale = inverse_norm(x)
    if QUERY:
        scale *= tl.load(tau_ptr + head)
    second = second_order(
        x_ptr, row, inside, x_sn, d, x, high_ptr, C, 1, BN, D, D, C, False, OP, PRECISION
    )  # fmt: skip
    a1 = tl.load(low_ptr + i[:, None] * C + c[None, :])
    s = tl.load(low_ptr + D * (C + D) + D + c)
    num = exact_product(x, a1, tl.zeros((BN, C), tl.float32), OP, PRECISION)
    num = s[None, :] + scale[:, None] * (num + 0.5 * scale[:, None] * second)
    if QUERY:
        t = tl.load(low_ptr + D * (C + D) + i)
        gram = tl.load(low_ptr + D * C + i[:, None] * D + tl.arange(0, D)[None, :])
        xg = exact_product(x, gram, tl.zeros((BN, D), tl.float32), OP, PRECISION) * scale[:, None]
        den = count + scale * tl.sum(x.to(tl.float32) * (t[None, :] + 0.5 * xg), 1)
        tl.store(den_ptr + (batch * H + head) * N + row, den, mask=inside)
        num = num * (1.0 / den)[:, None]
    mask = inside[:, None] & (c[None, :] < dv)
    tl.store(out_ptr + row[:, None] * out_sn + c[None, :], rounded(num, out_ptr, PRECISION), mask=mask)


@triton.jit
def pullback_kernel(
    x_ptr, z_ptr, den_ptr, h_ptr, tau_ptr, table_ptr, order_ptr, high_ptr, low_ptr, dx_ptr, dtau_ptr, x_sb,
    x_sh, z_sb, z_sh, dx_sb, dx_sh, N, H, windows, segments, tiles, x_sn: tl.constexpr, z_sn: tl.constexpr,
    dx_sn: tl.constexpr, d: tl.constexpr, dv: tl.constexpr, D: tl.constexpr, C: tl.constexpr,
    BN: tl.constexpr, ORDERED: tl.constexpr, QUERY: tl.constexpr, INDEX: tl.constexpr, OP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """(K4), (K7): x = q, z = dy, dx = dq, and h and dtau [repetitions * tiles, H] are written.

    Or (K6): x = k, z = v, dx = dk, from the dual moments. One program a (tile, head).
    """
    pid = tl.program_id(0)
    head = (pid % H).to(tl.int64)
    tile = pid // H % tiles
    repetition = pid // (H * tiles)
    segment, window, start, end, _count = load_span(table_ptr, tile, N, N, BN, ORDERED)
    batch = (repetition * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    z_ptr += batch * z_sb + head * z_sh
    dx_ptr += batch * dx_sb + head * dx_sh
    den_ptr += (batch * H + head) * N
    h_ptr += (batch * H + head) * N
    place = (repetition * segments + segment).to(tl.int64) * H + head
    high_ptr += place * (D * D * C)
    low_ptr += place * (D * (C + D) + D + C)
    row, inside = load_tokens(order_ptr, window, start, end, N, BN, ORDERED, INDEX)
    i = tl.arange(0, D)
    c = tl.arange(0, C)

    z = load_rows(z_ptr, row, inside, z_sn, dv, 0, C)
    weight = tl.where(inside, 1.0, 0.0)  # 1 of a key, 1 / den of a query
    h = weight
    if QUERY:
        weight /= tl.load(den_ptr + row, mask=inside, other=1.0)
    x = load_rows(x_ptr, row, inside, x_sn, d, 0, D)
    inverse = inverse_norm(x)
    tau = tl.load(tau_ptr + head) if QUERY else 1.0
    scale = inverse * tau

    second = second_order(
        x_ptr, row, inside, x_sn, d, z, high_ptr, 1, C, BN, D, C, D, True, OP, PRECISION
    )  # fmt: skip
    a1 = tl.load(low_ptr + i[None, :] * C + c[:, None])
    first = exact_product(z, a1, tl.zeros((BN, D), tl.float32), OP, PRECISION)
    if QUERY:  # (K3), with num from the products at hand: what they round cancels in u.dx, thus in dtau
        s = tl.load(low_ptr + D * (C + D) + D + c)
        num = tl.sum(z.to(tl.float32) * s[None, :], 1)
        num += scale * tl.sum(x.to(tl.float32) * (first + 0.5 * scale[:, None] * second), 1)
        h = -weight * weight * num
        tl.store(h_ptr + row, h, mask=inside)
    t = tl.load(low_ptr + D * (C + D) + i)
    gram = tl.load(low_ptr + D * C + i[:, None] * D + tl.arange(0, D)[None, :])
    xg = exact_product(x, gram, tl.zeros((BN, D), tl.float32), OP, PRECISION)
    du = weight[:, None] * (first + scale[:, None] * second) + h[:, None] * (t[None, :] + scale[:, None] * xg)
    unit = x.to(tl.float32) * inverse[:, None]

    along = tl.sum(unit * du, 1)
    if QUERY:
        dtau = tl.sum(along[None, :], 1)  # [1]; Triton 3.7 cannot sum one axis to a scalar on sm_100
        tl.store(dtau_ptr + (repetition * tiles + tile) * H + head + tl.arange(0, 1), dtau)
    dx = (du - unit * along[:, None]) * scale[:, None]
    mask = inside[:, None] & (i[None, :] < d)
    tl.store(dx_ptr + row[:, None] * dx_sn + i[None, :], rounded(dx, dx_ptr, PRECISION), mask=mask)
