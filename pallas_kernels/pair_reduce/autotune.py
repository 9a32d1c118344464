"""Which implementation and which tile are fastest on this device: tried, not guessed.

    tuned = autotune(jax.value_and_grad(loss, (0, 1)), (a_BxD, b_BxD))
    with choices(tuned):
        train_step.lower(...)

Each call of the engine in a function is tuned in turn, the others being as they are best so far.
The search begins with the engine's own tile, in every implementation that runs here, and halves or
doubles one side of it at a time until that helps no more.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, get_args

import jax

from pallas_kernels.pair_reduce.benchmark import best
from pallas_kernels.pair_reduce.choices import Choice, Implementation, choices
from pallas_kernels.pair_reduce.layout import Comm

SIZES = (128, 256, 512, 1024)  # of a tile's side, beside what the engine chooses by itself
STEP = 4 / 3  # what is nearer makes too little difference to lead on


class Trial(NamedTuple):
    """One thing that was tried for a call, and how long the whole function took with it."""

    call: str
    choice: Choice
    seconds: float  # inf where it failed
    error: Exception | None


def autotune(
    function: Callable[..., Any],
    args: Sequence[Any],
    *,
    repeats: int = 3,
    tried: Callable[[Trial], Any] = lambda trial: None,
) -> dict[str, Any]:
    """The fastest choice for every call of the engine in `function(*args)`.

    What counts is the time of the whole function, compilation left out: processor time of all
    threads on a CPU, else the clock. What does not compile or run is passed over.

    Args:
        function: what jax can jit, e.g. the value and gradients of a loss. Calls are named by
            their sizes and devices: where it runs on a mesh, call this under `jax.set_mesh`.
        repeats: runs of each candidate after a first one that does not count; the best counts.
        tried: hears of every trial as it ends.

    Returns:
        the name of a call -> its choice, as `choices` takes them. A call of which nothing ran is
        left out; a function that makes no call gives {}.
    """
    with choices() as made:
        jax.eval_shape(lambda *args: function(*args), *args)  # a trace nobody reuses
    settled, tuned = dict(made), {}
    for call, own in made.items():

        def cost(choice: Choice, call: str = call) -> float:
            seconds, error = math.inf, None
            try:
                following = {**settled, call: choice._asdict()}
                seconds = _seconds(function, args, call, following, repeats)
            except Exception as failure:  # whatever it is, the others are tried
                error = failure.with_traceback(None)  # whose frames would hold arrays
            tried(Trial(call, choice, seconds, error))
            return seconds

        first = Choice(own["impl"], own["comm"], tuple(own["blocks"]))
        starts = [
            first._replace(impl=impl, comm=comm)
            for impl in implementations()
            for comm in communications(impl, first.comm)
        ]
        costs = search(cost, list(dict.fromkeys([first, *starts])), _sides(call))
        fastest = min(costs, key=costs.__getitem__)
        if costs[fastest] < math.inf:
            settled[call] = tuned[call] = fastest._asdict()
    return tuned


def implementations() -> list[Implementation]:
    """Those that are worth trying on the device at hand: `xla`, and the kernels written for it."""
    own = f"pallas_{jax.default_backend()}"
    return [name for name in get_args(Implementation) if name in ("xla", own)]


def communications(impl: Implementation, own: Comm | None) -> list[Comm | None]:
    """What is worth trying where the engine's own way would be `own`; None on one device."""
    if own is None:
        return [None]
    ways: list[Comm | None] = [own, "gather"]
    return [*ways, "fused"] if impl == "pallas_tpu" else ways


def search(
    cost: Callable[[Choice], float], starts: Sequence[Choice], sides: tuple[int, int]
) -> dict[Choice, float]:
    """Walk downhill over the sizes of a tile, from each start.

    Args:
        cost: what a choice costs, inf where it cannot be had; asked once for each.
        starts: a start that cannot be had is halved on both sides until it can.
        sides: rows and columns of the grid; no tile is larger.

    Returns:
        all that was tried, in that order, with its cost.
    """
    costs: dict[Choice, float] = {}

    def of(choice: Choice) -> float:
        if choice not in costs:
            costs[choice] = cost(choice)
        return costs[choice]

    for here in starts:
        while of(here) == math.inf and (smaller := _halved(here)) != here:
            here = smaller
        while of(nearest := min(_neighbours(here, sides), key=of, default=here)) < of(here):
            here = nearest
    return costs


def _neighbours(choice: Choice, sides: tuple[int, int]) -> list[Choice]:
    """The tiles that differ in one side by one step."""
    (r, c), (n, m) = choice.blocks, sides
    rows = [(size, c) for size in _smaller(r) + _larger(r, n)]
    cols = [(r, size) for size in _smaller(c) + _larger(c, m)]
    return [choice._replace(blocks=blocks) for blocks in rows + cols]


def _halved(choice: Choice) -> Choice:
    """Both sides a step smaller, where there is one."""
    r, c = ((_smaller(size) or [size])[0] for size in choice.blocks)
    return choice._replace(blocks=(r, c))


def _smaller(size: int) -> list[int]:
    return [s for s in SIZES if s * STEP <= size][-1:]


def _larger(size: int, side: int) -> list[int]:
    return [min(s, side) for s in SIZES if min(s, side) >= size * STEP][:1]


def _seconds(
    function: Callable[..., Any],
    args: Sequence[Any],
    call: str,
    following: dict[str, Any],
    repeats: int,
) -> float:
    """How long the function takes with these choices.

    Raises:
        ValueError: the engine did not follow that of `call`; or whatever compiling and running do.
    """
    with choices(following) as followed:
        compiled = jax.jit(lambda *args: function(*args)).lower(*args).compile()
    ran, asked = followed[call]["impl"], following[call]["impl"]
    if ran != asked:
        raise ValueError(f"the engine ran {ran} instead of {asked}")
    (spent,) = best([lambda: jax.block_until_ready(compiled(*args))], repeats)
    return spent.cpu_s if jax.default_backend() == "cpu" else spent.wall_s


def _sides(call: str) -> tuple[int, int]:
    """Rows and columns of the grid, which stand in a call's name."""
    n, m = call.split(" ")[1].split("x")
    return int(n), int(m)
