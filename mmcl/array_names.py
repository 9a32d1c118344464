"""What the arrays of a pytree are called."""

from typing import Any

import jax


def array_names(tree: Any) -> Any:
    """The path of every array, `image/encoder/blocks_0/up/kernel`, in a pytree like it."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )
