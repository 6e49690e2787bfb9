"""GPU kernels of the efficient form: three programs that serve forward and backward alike.

The features x_i x_j of a token are products of two of its columns. ``moments_kernel`` forms them in
registers, as operand of a matrix product, and drops them; the other two need none, see ``second_order`` in
:mod:`triton_parts`. None is written to memory, neither shared nor global.

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
    B windows of all images, H heads, N tokens, d width of q and k, d_v width of v
    D, C     d and d_v padded to 16, 32 or 64; columns beyond d and d_v read as zero
    BN       tokens of a tile;  PAIRS of 16-column blocks I <= J, 256 features each
    segment  tokens that see each other: a window, or one region of it (rows gathered through ``order``)
    high     [states, H, D * D * C]              A2 in rows i * D + j; float32
    low      [states, H, D * (C + D) + D + C]    A1, G, t, s; float32
"""

from __future__ import annotations

import triton
import triton.language as tl

from taylorir.attention.kernels.triton_parts import (
    block_pair,
    exact_product,
    inverse_norm,
    load_columns,
    load_rows,
    load_span,
    load_tokens,
    product,
    rounded,
    second_order,
)


@triton.jit
def moments_kernel(
    x_ptr,  # k, or q
    z_ptr,  # v, or dy
    den_ptr,
    h_ptr,
    tau_ptr,
    table_ptr,
    order_ptr,
    high_ptr,
    low_ptr,
    x_sb,
    x_sh,
    z_sb,
    z_sh,
    N,
    H,
    windows,
    segments,
    x_sn: tl.constexpr,
    z_sn: tl.constexpr,
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
    """(K1), (K5). One program a (segment, split of its tokens, head, job): pairs of blocks, then low."""
    BLOCKS: tl.constexpr = D // 16
    PAIRS: tl.constexpr = BLOCKS * (BLOCKS + 1) // 2
    pid = tl.program_id(0)
    job = pid % (PAIRS + 1)
    head = pid // (PAIRS + 1) % H
    split = pid // ((PAIRS + 1) * H) % SPLITS
    state = pid // ((PAIRS + 1) * H * SPLITS)  # repetition of the windows * segments + segment
    _segment, window, start, end, count = load_span(table_ptr, state % segments, N, 0, ORDERED)
    batch = (state // segments * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    z_ptr += batch * z_sb + head * z_sh
    den_ptr += (batch * H + head) * N
    h_ptr += (batch * H + head) * N
    place = ((state * SPLITS + split) * H + head).to(tl.int64)
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
            row, inside = load_tokens(order_ptr, window, first, end, N, BN, ORDERED)
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
            row, inside = load_tokens(order_ptr, window, first, end, N, BN, ORDERED)
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
    pid = tl.program_id(0)
    head = pid % H
    tile = pid // H % tiles
    repetition = pid // (H * tiles)
    segment, window, start, end, count = load_span(table_ptr, tile, N, BN, ORDERED)
    batch = (repetition * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    out_ptr += batch * out_sb + head * out_sh
    place = ((repetition * segments + segment) * H + head).to(tl.int64)
    high_ptr += place * (D * D * C)
    low_ptr += place * (D * (C + D) + D + C)
    row, inside = load_tokens(order_ptr, window, start, end, N, BN, ORDERED)
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
    x_ptr,  # q, or k
    z_ptr,  # dy, or v
    den_ptr,
    h_ptr,  # written for queries
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
    dx_sb,
    dx_sh,
    N,
    H,
    windows,
    segments,
    tiles,
    x_sn: tl.constexpr,
    z_sn: tl.constexpr,
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
    pid = tl.program_id(0)
    head = pid % H
    tile = pid // H % tiles
    repetition = pid // (H * tiles)
    segment, window, start, end, _count = load_span(table_ptr, tile, N, BN, ORDERED)
    batch = (repetition * windows + window).to(tl.int64)
    x_ptr += batch * x_sb + head * x_sh
    z_ptr += batch * z_sb + head * z_sh
    dx_ptr += batch * dx_sb + head * dx_sh
    den_ptr += (batch * H + head) * N
    h_ptr += (batch * H + head) * N
    place = ((repetition * segments + segment) * H + head).to(tl.int64)
    high_ptr += place * (D * D * C)
    low_ptr += place * (D * (C + D) + D + C)
    row, inside = load_tokens(order_ptr, window, start, end, N, BN, ORDERED)
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
        tl.store(dtau_ptr + (repetition * tiles + tile) * H + head, tl.sum(along, 0))
    dx = (du - unit * along[:, None]) * scale[:, None]
    mask = inside[:, None] & (i[None, :] < d)
    tl.store(dx_ptr + row[:, None] * dx_sn + i[None, :], rounded(dx, dx_ptr, PRECISION), mask=mask)
