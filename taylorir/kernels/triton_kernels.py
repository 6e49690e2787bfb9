"""GPU kernels of the efficient form: three programs that serve forward and backward alike.

The features x_i x_j of a token are products of two of its columns. They are formed in registers, as one operand of a
matrix product, used there and dropped: no feature is written to memory, neither shared nor global.

Algorithm. With x = tau q / |q|, k normalised likewise, w = 1 + x.k + (x.k)^2 / 2 and sums over the tokens of a segment:

    (K1)  moments of (k, v, 1):    s = sum v,   A1_i = sum k_i v,   A2_ij = sum k_i k_j v
                                   t = sum k,   G_ij = sum k_i k_j
    (K2)  read-out of x:           num = s + x_i A1_i + x_i x_j A2_ij / 2
                                   den = n + x_i t_i  + x_i x_j G_ij / 2,      y = num / den
    (K3)  gradient of num, den:    g = dy / den,   h = - dy.y / den
    (K4)  pull-back to x:          dx_i = A1_i.g + x_j A2_ij.g + h (t_i + G_ij x_j)
    (K5)  dual moments of (x, g, h), by (K1) with G_ij = sum h x_i x_j and t = sum h x
    (K6)  dv = read-out (K2) of k from the dual moments, dk = pull-back (K4) of (k, v, 1) to them
    (K7)  through x = tau u, u = q / |q|:   dq = tau (du - u (u.du)) / |q|,   dtau = sum u.du,   du = dx here

so ``moments_kernel`` is (K1) and (K5), ``readout_kernel`` (K2) and dv, ``pullback_kernel`` (K4) and (K7) for q and for k.
A2 is symmetric: ``moments_kernel`` and ``readout_kernel`` visit only the pairs I <= J of blocks of 16 columns.
Every sum has a fixed order: results are the same bits on every run.

Shape legend
    B windows of all images, H heads, N tokens, d width of q and k, d_v width of v
    D, C     d and d_v padded to 16, 32 or 64; columns beyond d and d_v read as zero
    BN       tokens of a tile;  PAIRS of 16-column blocks I <= J, 256 features each
    segment  tokens that see each other: a window, or one region of it (rows gathered through ``order``)
    high     [states, H, D * D + D, C]  A2 in rows i * D + j, then A1; in the operand dtype OP
    low      [states, H, D * D + D + C] G, t, s; float32
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _span(table_ptr, t, N, BN: tl.constexpr, ORDERED: tl.constexpr):
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
def _tokens(order_ptr, window, first, end, N, BN: tl.constexpr, ORDERED: tl.constexpr):
    """Rows of the tokens first .. first + BN - 1, and which of them lie before the end."""
    n = first + tl.arange(0, BN)
    inside = n < end
    if ORDERED:
        n = tl.load(order_ptr + window * N + n, mask=inside, other=0)
    return n, inside


@triton.jit
def _rows(ptr, row, inside, stride: tl.constexpr, width: tl.constexpr, first, W: tl.constexpr):
    """Columns first .. first + W - 1 of the rows as [BN, W] in float32, zero outside."""
    column = first + tl.arange(0, W)
    mask = inside[:, None] & (column[None, :] < width)
    return tl.load(ptr + row[:, None] * stride + column[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _columns(ptr, row, inside, stride: tl.constexpr, width: tl.constexpr, first, W: tl.constexpr):
    """The same as [W, BN]."""
    column = first + tl.arange(0, W)
    mask = inside[None, :] & (column[:, None] < width)
    return tl.load(ptr + row[None, :] * stride + column[:, None], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _inverse_norm(square):
    """1 / |x| from |x|^2; zero where |x| is not above 1e-12, so that a zero vector stays zero."""
    safe = square > 1e-24
    return tl.where(safe, tl.rsqrt(tl.where(safe, square, 1.0)), 0.0)


@triton.jit
def _values(
    z_ptr, den_ptr, row, inside, z_sn: tl.constexpr, dv: tl.constexpr, C: tl.constexpr, QUERY: tl.constexpr
):
    """v of a key, or g = dy / den of a query (K3): [BN, C]."""
    z = _rows(z_ptr, row, inside, z_sn, dv, 0, C)
    if QUERY:
        z = z * (1.0 / tl.load(den_ptr + row, mask=inside, other=1.0))[:, None]
    return z


@triton.jit
def _weights(
    z, y_ptr, row, inside, y_sn: tl.constexpr, dv: tl.constexpr, C: tl.constexpr, QUERY: tl.constexpr
):
    """1 of a key, or h = - g.y of a query (K3): [BN]."""
    if QUERY:
        return -tl.sum(z * _rows(y_ptr, row, inside, y_sn, dv, 0, C), 1)
    else:
        return tl.where(inside, 1.0, 0.0)


@triton.jit
def _block_pair(pair, BLOCKS: tl.constexpr):
    """The pair-th of (0, 0), (0, 1), (1, 1), (0, 2), ...: block I <= J."""
    J = pair * 0
    for b in tl.static_range(1, BLOCKS):
        J += tl.where(pair >= b * (b + 1) // 2, 1, 0)
    return pair - J * (J + 1) // 2, J


@triton.jit
def moments_kernel(
    x_ptr,  # k, or q
    z_ptr,  # v, or dy
    y_ptr,
    den_ptr,
    tau_ptr,
    table_ptr,
    order_ptr,
    high_ptr,
    low_ptr,
    x_sb,
    x_sh,
    z_sb,
    z_sh,
    y_sb,
    y_sh,
    N,
    H,
    windows,
    segments,
    x_sn: tl.constexpr,
    z_sn: tl.constexpr,
    y_sn: tl.constexpr,
    d: tl.constexpr,
    dv: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    BN: tl.constexpr,
    SPLITS: tl.constexpr,
    ORDERED: tl.constexpr,
    QUERY: tl.constexpr,
    OP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(K1), (K5). One program a (segment, split of its tokens, head, job): each pair of blocks is a job, A1 and low the last."""
    BLOCKS: tl.constexpr = D // 16
    PAIRS: tl.constexpr = BLOCKS * (BLOCKS + 1) // 2
    pid = tl.program_id(0)
    job = pid % (PAIRS + 1)
    head = pid // (PAIRS + 1) % H
    split = pid // ((PAIRS + 1) * H) % SPLITS
    state = pid // ((PAIRS + 1) * H * SPLITS)  # repetition of the windows * segments + segment
    segment, window, start, end, count = _span(table_ptr, state % segments, N, 0, ORDERED)
    batch = (state // segments * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    z_ptr += batch * z_sb + head * z_sh
    y_ptr += batch * y_sb + head * y_sh
    den_ptr += (batch * H + head) * N
    place = ((state * SPLITS + split) * H + head).to(tl.int64)
    high_ptr += place * ((D * D + D) * C)
    low_ptr += place * (D * D + D + C)
    share = tl.cdiv(count, SPLITS * BN) * BN
    begin = start + split * share
    end = tl.minimum(end, begin + share)
    scale = tl.load(tau_ptr + head) if QUERY else 1.0
    c = tl.arange(0, C)

    if job < PAIRS:
        I, J = _block_pair(job, BLOCKS)
        a2 = tl.zeros((256, C), tl.float32)
        for first in range(begin, end, BN):
            row, inside = _tokens(order_ptr, window, first, end, N, BN, ORDERED)
            z = _values(z_ptr, den_ptr, row, inside, z_sn, dv, C, QUERY)
            x = _columns(x_ptr, row, inside, x_sn, d, 0, D)
            norm = (_inverse_norm(tl.sum(x * x, 0)) * scale)[None, :]
            if D == 16:
                left = x * norm
                right = left
            else:
                left = _columns(x_ptr, row, inside, x_sn, d, I * 16, 16) * norm
                right = _columns(x_ptr, row, inside, x_sn, d, J * 16, 16) * norm
            features = (left[:, None, :] * right[None, :, :]).to(OP)
            a2 = tl.dot(tl.reshape(features, (256, BN)), z.to(OP), a2, input_precision=PRECISION)
        r = tl.arange(0, 256)
        i = I * 16 + r // 16
        j = J * 16 + r % 16
        tl.store(high_ptr + (i * D + j)[:, None] * C + c[None, :], a2.to(high_ptr.dtype.element_ty))
        if I != J:
            tl.store(high_ptr + (j * D + i)[:, None] * C + c[None, :], a2.to(high_ptr.dtype.element_ty))
    else:
        i = tl.arange(0, D)
        a1 = tl.zeros((D, C), tl.float32)
        gram = tl.zeros((D, D), tl.float32)
        s = tl.zeros((C,), tl.float32)
        t = tl.zeros((D,), tl.float32)
        for first in range(begin, end, BN):
            row, inside = _tokens(order_ptr, window, first, end, N, BN, ORDERED)
            z = _values(z_ptr, den_ptr, row, inside, z_sn, dv, C, QUERY)
            weight = _weights(z, y_ptr, row, inside, y_sn, dv, C, QUERY)
            x = _columns(x_ptr, row, inside, x_sn, d, 0, D)
            x = x * (_inverse_norm(tl.sum(x * x, 0)) * scale)[None, :]
            weighted = x * weight[None, :]
            a1 = tl.dot(x.to(OP), z.to(OP), a1, input_precision=PRECISION)
            gram = tl.dot(weighted.to(OP), tl.trans(x).to(OP), gram, input_precision=PRECISION)
            s += tl.sum(z, 0)
            t += tl.sum(weighted, 1)
        tl.store(high_ptr + (D * D + i)[:, None] * C + c[None, :], a1.to(high_ptr.dtype.element_ty))
        tl.store(low_ptr + i[:, None] * D + tl.arange(0, D)[None, :], gram)
        tl.store(low_ptr + D * D + i, t)
        tl.store(low_ptr + D * D + D + c, s)


@triton.jit
def readout_kernel(
    x_ptr,  # q, or k
    tau_ptr,
    table_ptr,
    order_ptr,
    high_ptr,
    low_ptr,
    out_ptr,  # y, or dv
    den_ptr,
    x_sb,
    x_sh,
    out_sb,
    out_sh,
    N,
    H,
    windows,
    segments,
    tiles,
    x_sn: tl.constexpr,
    out_sn: tl.constexpr,
    d: tl.constexpr,
    dv: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    BN: tl.constexpr,
    ORDERED: tl.constexpr,
    QUERY: tl.constexpr,
    OP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(K2) with the division and den for queries, (K6) without for keys. One program a (tile, head)."""
    BLOCKS: tl.constexpr = D // 16
    PAIRS: tl.constexpr = BLOCKS * (BLOCKS + 1) // 2
    pid = tl.program_id(0)
    head = pid % H
    tile = pid // H % tiles
    repetition = pid // (H * tiles)
    segment, window, start, end, count = _span(table_ptr, tile, N, BN, ORDERED)
    batch = (repetition * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    out_ptr += batch * out_sb + head * out_sh
    place = ((repetition * segments + segment) * H + head).to(tl.int64)
    high_ptr += place * ((D * D + D) * C)
    low_ptr += place * (D * D + D + C)
    row, inside = _tokens(order_ptr, window, start, end, N, BN, ORDERED)
    i = tl.arange(0, D)
    c = tl.arange(0, C)
    r = tl.arange(0, 256)

    x = _rows(x_ptr, row, inside, x_sn, d, 0, D)
    scale = _inverse_norm(tl.sum(x * x, 1))
    if QUERY:
        scale *= tl.load(tau_ptr + head)
    x = x * scale[:, None]
    a1 = tl.load(high_ptr + (D * D + i)[:, None] * C + c[None, :])
    s = tl.load(low_ptr + D * D + D + c)
    num = tl.dot(x.to(OP), a1, input_precision=PRECISION) + s[None, :]
    for pair in range(PAIRS):
        I, J = _block_pair(pair, BLOCKS)
        if D == 16:
            left = x * 0.5
            right = x
        else:
            factor = scale * tl.where(
                I == J, 0.5, 1.0
            )  # off the diagonal a pair stands for (I, J) and (J, I)
            left = _rows(x_ptr, row, inside, x_sn, d, I * 16, 16) * factor[:, None]
            right = _rows(x_ptr, row, inside, x_sn, d, J * 16, 16) * scale[:, None]
        a2 = tl.load(high_ptr + ((I * 16 + r // 16) * D + J * 16 + r % 16)[:, None] * C + c[None, :])
        features = (left[:, :, None] * right[:, None, :]).to(OP)
        num = tl.dot(tl.reshape(features, (BN, 256)), a2, num, input_precision=PRECISION)
    if QUERY:
        t = tl.load(low_ptr + D * D + i)
        gram = tl.load(low_ptr + i[:, None] * D + tl.arange(0, D)[None, :])
        xg = tl.dot(x.to(OP), gram.to(OP), input_precision=PRECISION)
        den = count + tl.sum(x * (t[None, :] + 0.5 * xg), 1)
        tl.store(den_ptr + (batch * H + head) * N + row, den, mask=inside)
        num = num * (1.0 / den)[:, None]
    mask = inside[:, None] & (c[None, :] < dv)
    tl.store(out_ptr + row[:, None] * out_sn + c[None, :], num.to(out_ptr.dtype.element_ty), mask=mask)


@triton.jit
def pullback_kernel(
    x_ptr,  # q, or k
    z_ptr,  # dy, or v
    y_ptr,
    den_ptr,
    tau_ptr,
    table_ptr,
    order_ptr,
    high_ptr,
    low_ptr,
    dx_ptr,  # dq, or dk
    dtau_ptr,  # [repetitions * tiles, H]
    x_sb,
    x_sh,
    z_sb,
    z_sh,
    y_sb,
    y_sh,
    dx_sb,
    dx_sh,
    N,
    H,
    windows,
    segments,
    tiles,
    x_sn: tl.constexpr,
    z_sn: tl.constexpr,
    y_sn: tl.constexpr,
    dx_sn: tl.constexpr,
    d: tl.constexpr,
    dv: tl.constexpr,
    D: tl.constexpr,
    C: tl.constexpr,
    BN: tl.constexpr,
    ORDERED: tl.constexpr,
    QUERY: tl.constexpr,
    OP: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """(K4), (K7): dq from the moments, or dk from the dual moments (K6). One program a (tile, head)."""
    STEP: tl.constexpr = 256 // C  # columns j whose products x_j z_c make 256 features
    pid = tl.program_id(0)
    head = pid % H
    tile = pid // H % tiles
    repetition = pid // (H * tiles)
    segment, window, start, end, count = _span(table_ptr, tile, N, BN, ORDERED)
    batch = (repetition * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    z_ptr += batch * z_sb + head * z_sh
    y_ptr += batch * y_sb + head * y_sh
    dx_ptr += batch * dx_sb + head * dx_sh
    den_ptr += (batch * H + head) * N
    place = ((repetition * segments + segment) * H + head).to(tl.int64)
    high_ptr += place * ((D * D + D) * C)
    low_ptr += place * (D * D + D + C)
    row, inside = _tokens(order_ptr, window, start, end, N, BN, ORDERED)
    i = tl.arange(0, D)
    c = tl.arange(0, C)
    r = tl.arange(0, 256)

    x = _rows(x_ptr, row, inside, x_sn, d, 0, D)
    inverse = _inverse_norm(tl.sum(x * x, 1))
    tau = tl.load(tau_ptr + head) if QUERY else 1.0
    unit = x * inverse[:, None]
    scale = inverse * tau
    z = _values(z_ptr, den_ptr, row, inside, z_sn, dv, C, QUERY)
    weight = _weights(z, y_ptr, row, inside, y_sn, dv, C, QUERY)

    t = tl.load(low_ptr + D * D + i)
    gram = tl.load(low_ptr + i[:, None] * D + tl.arange(0, D)[None, :])
    xg = tl.dot((unit * tau).to(OP), gram.to(OP), input_precision=PRECISION)
    du = weight[:, None] * (t[None, :] + xg)
    a1 = tl.load(high_ptr + (D * D + i)[None, :] * C + c[:, None])
    du = tl.dot(z.to(OP), a1, du, input_precision=PRECISION)
    for first in range(0, D, STEP):
        left = _rows(x_ptr, row, inside, x_sn, d, first, STEP) * scale[:, None]
        a2 = tl.load(high_ptr + (first * C + r)[:, None] + i[None, :] * (D * C))  # rows (j, c), columns i
        features = (left[:, :, None] * z[:, None, :]).to(OP)
        du = tl.dot(tl.reshape(features, (BN, 256)), a2, du, input_precision=PRECISION)

    along = tl.sum(unit * du, 1)
    if QUERY:
        tl.store(dtau_ptr + (repetition * tiles + tile) * H + head, tl.sum(along, 0))
    dx = (du - unit * along[:, None]) * scale[:, None]
    mask = inside[:, None] & (i[None, :] < d)
    tl.store(dx_ptr + row[:, None] * dx_sn + i[None, :], dx.to(dx_ptr.dtype.element_ty), mask=mask)
