"""Everything that a training step reads and writes."""

from typing import Any, NamedTuple

import jax


class TrainState(NamedTuple):
    """One pytree: what a checkpoint holds beside the data state and the clock."""

    step: jax.Array  # () int32: steps done
    params: dict[str, Any]  # modality -> tower parameters; "objective" -> the objective's own
    optimizer: Any
    objective: Any  # what the objective remembers without a gradient; None for nothing
    ema: dict[str, Any] | None  # averaged params, for evaluation
    key: jax.Array  # every random choice of a step is folded out of it
    guard: Any = None  # what `mmcl.guard` remembers of the losses before
    teacher: dict[str, Any] | None = None  # modality -> tower parameters, see `mmcl.teacher`
