"""The exponential moving average of the parameters, which is often the better model."""

from typing import Any

import jax
import jax.numpy as jnp


def ema_update(ema: Any, params: Any, decay: float, step: jax.typing.ArrayLike) -> Any:
    """One step of the average: ema + (1 - d) (params - ema), in the dtype of `ema`: float32.

    d = min(decay, (1 + step) / (10 + step)): early on, the average looks back over a tenth of the
    training so far, so the initial values are soon forgotten and nothing needs debiasing.

    Args:
        ema: pytree of the average; a float32 copy of the initial parameters before the first step.
        params: pytree of the parameters after this step.
        decay: in [0, 1]; the average looks back over about 1 / (1 - decay) steps.
        step: 0 at the first update; an integer, traced or not.
    """
    d = jnp.minimum(decay, (1 + step) / (10 + step))

    def average(e: jax.Array, p: jax.Array) -> jax.Array:
        return e + (1 - d).astype(e.dtype) * (p.astype(e.dtype) - e)

    return jax.tree.map(average, ema, params)
