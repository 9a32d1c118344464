"""Learning rates as pure functions of the step, which may be traced.

Each function takes the number of `steps` of the stage, the `peak` and the steps of linear `warmup`
from zero, and returns `schedule(step) -> learning rate`, a scalar: 0 at step 0 if there is a
warm-up, `peak` at step `warmup`, and after the last step what it is at `steps`.
"""

import jax
import jax.numpy as jnp
import optax

from data_pipelines.errors import InputError


def constant(*, steps: int, peak: float, warmup: int = 0) -> optax.Schedule:
    """`peak` after the warm-up."""
    _check_warmup(steps, warmup)
    return _warm_up(peak, warmup, optax.constant_schedule(peak))


def warmup_cosine(*, steps: int, peak: float, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """Half a cosine from `peak` to `end` (Loshchilov and Hutter 2017, arXiv:1608.03983)."""
    _check_warmup(steps, warmup)
    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup, steps, end)


def warmup_linear(*, steps: int, peak: float, warmup: int = 0, end: float = 0.0) -> optax.Schedule:
    """A straight line from `peak` to `end`."""
    _check_warmup(steps, warmup)
    return _warm_up(peak, warmup, optax.linear_schedule(peak, end, steps - warmup))


def warmup_rsqrt(
    *, steps: int, peak: float, warmup: int = 0, timescale: int = 10_000, cooldown: int = 0
) -> optax.Schedule:
    """peak / sqrt(1 + t / timescale), t steps after the warm-up (Zhai et al. 2022, 2106.04560).

    The last `cooldown` steps multiply it by a straight line from 1 to 0, so that one long run can
    be cooled down from several of its checkpoints. `timescale = warmup` is the schedule of Vaswani
    et al. 2017.
    """
    _check_warmup(steps, warmup)
    after = steps - warmup
    if timescale <= 0:
        raise InputError(f"config.schedule.timescale: {timescale} should be more than 0.")
    if not 0 <= cooldown <= after:
        raise InputError(
            f"config.schedule.cooldown: {cooldown} should be between 0 and {after}, the steps that"
            " the warm-up leaves."
        )
    cool_down = optax.linear_schedule(1.0, 0.0, cooldown, after - cooldown)

    def rsqrt(t: jax.typing.ArrayLike) -> jax.Array:
        return peak / jnp.sqrt(1 + jnp.clip(t, 0, after) / timescale) * cool_down(t)

    return _warm_up(peak, warmup, rsqrt)


def _warm_up(peak: float, warmup: int, then: optax.Schedule) -> optax.Schedule:
    """From 0 to `peak` in a straight line, and `then` of the steps since."""
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), then], [warmup])


def _check_warmup(steps: int, warmup: int) -> None:
    if not 0 <= warmup < steps:
        raise InputError(
            f"config.schedule.warmup: {warmup} should be 0 or more and less than {steps} steps."
        )
