"""The mid tier as data: networks of 230,000 parameters whose transformer matters, on one core in hours.

A network is trained at a constant rate (its trunk), and what it is worth after 3,000, 8,000 and 24,000 steps
is told by branches in which the rate falls to 0 over another tenth as many steps. Those last steps see crops
of 96 pixels, so that windows of 48 have neighbours to shift into; an image too small for them (of T91, most)
is not drawn there. A step on such a crop costs four times as much, so a decay costs 40 % of its trunk.
"""

from __future__ import annotations

from dataclasses import replace

from taylorir.experiments.plan import Comparison, Run
from taylorir.networks import ModelConfig
from taylorir.training import TrainConfig

#: Steps at a constant rate after which decays are branched off.
BUDGETS = (3000, 8000, 24_000)

#: Steps of a decay for each of those before it.
DECAY_SHARE = 0.1

#: Side of its crops by scale: at x4 no image of BSDS has room for 96.
DECAY_CROPS = {2: 96, 3: 96, 4: 80}

#: Seeds of the main comparison, fixed before its runs.
SEEDS = tuple(range(6))

#: Learning rates that are tried, on runs of ``RATE_STEPS`` steps, with seed 0.
RATES = (1e-3, 2e-3, 4e-3)
RATE_STEPS = 800

#: The rate of each kind: the one of ``RATES`` with the best held-out PSNR after its decay, so that none is
#: held back by another's, the floor least of all. SwinIR's would be 4e-3, but there one of ``UNSTABLE_SEEDS``
#: ended below the floor after the smallest budget: it has the next lower one.
LEARNING_RATES = {"swinir": 2e-3, "taylorswinir": 2e-3, "linear": 1e-3}

#: Seeds of SwinIR that were trained at ``UNSTABLE_RATE`` for the smallest budget before it was given up.
UNSTABLE_RATE, UNSTABLE_SEEDS = 4e-3, (0, 1, 2)

_SWINIR = ModelConfig(
    upscale=2, embed_dim=48, depths=(4, 4), num_heads=6, window_size=8, img_size=48, drop_path_rate=0.0,
    softmax_backend="fused",
)  # fmt: skip

#: The arms of the main comparison.
ARMS: dict[str, ModelConfig] = {
    "swinir": _SWINIR,
    "taylorswinir": replace(_SWINIR, attention="taylor", position="none", window_size=48),
    "linear": replace(_SWINIR, depths=(), num_heads=()),
}

#: The kind of a network, by its attention.
KINDS = {"softmax": "swinir", "taylor": "taylorswinir"}

_TRUNK = TrainConfig(
    model=_SWINIR, datasets=("BSDS400", "T91"), crop_size=48, batch_size=1, num_iters=BUDGETS[0],
    betas=(0.9, 0.99), schedule="constant", warmup_iters=100, ema_decay=0.995,
    eval_every=250, log_every=50, checkpoint_every=250, keep_checkpoints=1,
)  # fmt: skip


def _decayed(trunk: Run, name: str, **changes: object) -> Run:
    """The branch of a trunk in which the rate falls, on larger crops."""
    steps = round(trunk.config.num_iters * DECAY_SHARE)
    config = replace(
        trunk.config, num_iters=trunk.config.num_iters + steps, decay_iters=steps,
        crop_size=DECAY_CROPS[trunk.config.model.upscale], checkpoint_every=100,
    )  # fmt: skip
    return Run(name, trunk.experiments, config, branched_from=trunk.name, **changes)


def _rate(arm: str, rate: float, steps: int = RATE_STEPS, seed: int = 0) -> tuple[Run, Run]:
    longer = "" if steps == RATE_STEPS else f"_{steps // 1000}k_s{seed}"
    name = f"{arm}_mid_rate_{1000 * rate:g}e-3{longer}"
    config = replace(_TRUNK, model=ARMS[arm], num_iters=steps, learning_rate=rate, seed=seed)
    trunk = Run(f"{name}_trunk", ("rates",), config, measured=False)
    return trunk, _decayed(trunk, name, measured=False)


def mid_run(arm: str, seed: int, budget: int, upscale: int = 2) -> str:
    """The name of a network that was decayed after ``budget`` steps."""
    return f"{arm}_mid_x{upscale}_{budget // 1000}k_s{seed}"


def trained(
    arm: str, model: ModelConfig, seed: int, budget: int, experiments: tuple[str, ...], **changes: object
) -> tuple[Run, Run]:
    """A trunk up to ``budget`` steps, gone on with from that of the budget before, and its decayed branch.

    Args:
        arm: beginning of the names.
        model: the network; its kind says the learning rate.
        seed: of the run.
        budget: one of ``BUDGETS``.
        experiments: keys of ``EXPERIMENTS``.
        changes: ``upcycled_from`` of the first trunk, and ``keep_weights`` of the branch.
    """
    before = BUDGETS[: BUDGETS.index(budget)]
    name = mid_run(arm, seed, budget, model.upscale)
    kind = KINDS[model.attention] if model.depths else "linear"
    config = replace(_TRUNK, model=model, num_iters=budget, learning_rate=LEARNING_RATES[kind], seed=seed)
    parent = changes.pop("upcycled_from", "")
    source = f"{mid_run(arm, seed, before[-1], model.upscale)}_trunk" if before else ""
    trunk = Run(
        f"{name}_trunk", experiments, config, branched_from=source, measured=False,
        upcycled_from="" if source else parent,
    )  # fmt: skip
    return trunk, _decayed(trunk, name, **changes)


def _main(arm: str, seed: int, budget: int) -> tuple[Run, Run]:
    keys = ("floor",) if arm == "linear" else ("main", "floor")
    return trained(arm, ARMS[arm], seed, budget, keys, keep_weights=True)


# Four seeds at the two smaller budgets first: what an early stop leaves can be read.
_ORDER = (
    *((seed, budget) for budget in BUDGETS[:2] for seed in SEEDS[:4]),
    *((seed, budget) for seed in SEEDS[4:] for budget in BUDGETS[:2]),
    *((seed, BUDGETS[2]) for seed in SEEDS),
)

MID_RUNS: tuple[Run, ...] = (
    *(run for rate in RATES for arm in ARMS for run in _rate(arm, rate)),
    *(run for seed in UNSTABLE_SEEDS for run in _rate("swinir", UNSTABLE_RATE, BUDGETS[0], seed)),
    *(run for seed, budget in _ORDER for arm in ARMS for run in _main(arm, seed, budget)),
)


def seeds_of(arm: str, budget: int, seeds: tuple[int, ...] = SEEDS, upscale: int = 2) -> tuple[str, ...]:
    """The names of an arm's networks, one a seed."""
    return tuple(mid_run(arm, seed, budget, upscale) for seed in seeds)


def _gains(budget: int) -> tuple[Comparison, ...]:
    swinir, ours, linear = (seeds_of(arm, budget) for arm in ARMS)
    after = f"{budget:,} steps"
    return (
        Comparison("main", f"TaylorSwinIR, window 48, over SwinIR, window 8, {after}", swinir, ours, linear),
        Comparison("floor", f"SwinIR over no transformer, {after}", linear, swinir, linear),
        Comparison("floor", f"TaylorSwinIR over no transformer, {after}", linear, ours, linear),
    )


#: What is compared with what at each budget, the main difference first.
MID_COMPARISONS: tuple[Comparison, ...] = tuple(entry for budget in BUDGETS for entry in _gains(budget))
