"""Which steps are bad, by the formula, and what a skipped one leaves as it was."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.guard import GOOD, NOT_FINITE, SPIKE, WINDOW, Guard, guarded
from mmcl.state import TrainState


def fresh(guard):
    params = {"image": {"w": jnp.float32(1)}}
    key = jax.random.key(0)
    return TrainState(jnp.int32(0), params, {"m": jnp.float32(0)}, jnp.zeros(3), params, key,
                      guard.init())  # fmt: skip


def step(state, batch):
    """Everything moves with the loss, and so is poisoned by it."""
    loss = batch["loss"]
    moved = jax.tree.map(lambda x: x + loss, (state.params, state.optimizer, state.objective))
    params, optimizer, objective = moved
    new = TrainState(state.step + 1, params, optimizer, objective, params, state.key, state.guard)
    return new, {"loss": loss, "grad_norm/image": batch["norm"]}


def through(guard, losses, norms=None):
    """The states and verdicts of a run."""
    run, state, found = jax.jit(guarded(step, guard)), fresh(guard), []
    for i, loss in enumerate(losses):
        norm = 1.0 if norms is None else norms[i]
        state, metrics = run(state, {"loss": jnp.float32(loss), "norm": jnp.float32(norm)})
        found.append(int(metrics["bad"]))
    return state, found


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("of", ["loss", "gradient"])
def test_what_is_not_finite_is_seen_and_skipped(value, of):
    losses = [1.0, value if of == "loss" else 1.0, 2.0]
    norms = [1.0, value if of == "gradient" else 1.0, 1.0]
    state, bad = through(Guard(not_finite="skip"), losses, norms)
    assert bad == [GOOD, NOT_FINITE, GOOD]
    assert state.params["image"]["w"] == 4.0 and state.step == 3
    assert (
        state.optimizer["m"] == 3.0 and np.all(state.objective == 3) and state.guard["steps"] == 2
    )
    state, bad = through(Guard(), losses, norms)
    assert bad[1] == NOT_FINITE
    if of == "loss":
        assert not np.isfinite(state.params["image"]["w"])  # "stop" costs nothing


def spikes(losses, deviations):
    """The rule, by hand."""
    mean, variance, steps, found = np.float32(0), np.float32(0), 0, []
    for loss in np.float32(losses):
        if not np.isfinite(loss):
            found.append(NOT_FINITE)
            continue
        if steps >= WINDOW and loss > mean + deviations * np.sqrt(variance):
            found.append(SPIKE)
            continue
        found.append(GOOD)
        share = np.float32(1 / (min(steps, WINDOW - 1) + 1))
        variance = (1 - share) * (variance + share * (loss - mean) ** 2)
        mean = mean + share * (loss - mean)
        steps += 1
    return found, mean, variance


def test_spikes_are_those_of_the_formula():
    rng = np.random.default_rng(0)
    losses = 3 - np.linspace(0, 1, 400) + 0.05 * rng.normal(size=400)
    losses[[50, 150, 151, 300]] += 2  # the first comes before anything is known
    losses[[20, 200]] = np.nan
    want, mean, variance = spikes(losses, 6.0)
    state, bad = through(Guard(not_finite="skip", spike="skip"), losses)
    assert bad == want and [i for i, one in enumerate(bad) if one == SPIKE] == [150, 151, 300]
    np.testing.assert_allclose(state.guard["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(state.guard["variance"], variance, rtol=1e-4)
    good = losses[[one == GOOD for one in bad]]
    np.testing.assert_allclose(state.params["image"]["w"], 1 + good.sum(), rtol=1e-5)
    assert SPIKE not in through(Guard(not_finite="skip"), losses)[1]
    few = through(Guard(not_finite="skip", spike="stop", deviations=60.0), losses)[1]
    assert SPIKE not in few


def test_the_first_hundred_are_their_plain_mean_and_variance():
    losses = np.random.default_rng(1).normal(size=WINDOW)
    state, _ = through(Guard(spike="skip"), losses)
    np.testing.assert_allclose(state.guard["mean"], losses.mean(), rtol=1e-4)
    np.testing.assert_allclose(state.guard["variance"], losses.var(), rtol=1e-3)
