"""All towers of a model as two pure functions: `init` and `encode`."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from data_pipelines.errors import InputError
from mmcl.mesh import examples_split
from mmcl.models.embedding import Embedding, unit


@dataclasses.dataclass(frozen=True)
class Towers:
    """One flax module a modality, computed in `dtype` with parameters kept in float32.

    A module is called as `module(inputs, train=...)` with inputs `{"value": ..., "mask": ...}` and
    returns an `Embedding`. In training, `inputs["key"]` (B,) is there too, a key a record for what
    is random. What it makes of a record should
    hang on that record alone: one that looks at others sees its micro-batch.

    Inputs with `present` (B, K) are K views a record, (B, K, ...) each: the module gets them as
    B·K records, each with a key of its own.
    """

    modules: Mapping[str, nn.Module]
    dtype: jnp.dtype = jnp.dtype("float32")

    def init(self, key: jax.Array, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Fresh parameters: modality -> pytree, from one batch's shapes.

        Raises:
            InputError: a module keeps more than parameters, as batch normalisation does.
        """
        made = {}
        for i, (modality, module) in enumerate(sorted(self.modules.items())):
            inputs = jax.tree.map(self._narrow, dict(batch[modality]))
            if "present" in inputs:
                inputs = _apart(inputs)
            variables = module.init(jax.random.fold_in(key, i), inputs, train=False)
            others = sorted(set(variables) - {"params"})
            if others:
                raise InputError(
                    f"config.towers.{modality}: it keeps {', '.join(others)} beside its params; "
                    "what a tower makes of a record may not hang on other records. Take layer or "
                    "group normalisation."
                )
            made[modality] = variables.get("params", {})
        return made

    def encode(
        self, params: Mapping[str, Any], modality: str, inputs: Mapping[str, Any], *, train: bool
    ) -> Embedding:
        """Encode a batch of one modality; float outputs are float32 (or wider).

        uint8 inputs are pixels: the module gets them as floats from -1 to 1.
        """
        variables = {"params": jax.tree.map(self._narrow, params[modality])}
        inputs = jax.tree.map(self._narrow, dict(inputs))
        present_BxK = inputs.get("present")
        if present_BxK is not None:
            inputs = _apart(inputs)
        embedding: Any = self.modules[modality].apply(variables, inputs, train=train)
        if present_BxK is not None:
            embedding = _of_views(_widen(embedding.z), present_BxK)
        return jax.tree.map(lambda x: examples_split(_widen(x)), embedding)

    def encode_all(
        self, params: Mapping[str, Any], batch: Mapping[str, Any], *, train: bool
    ) -> dict[str, Embedding]:
        """Encode what a batch has of every modality."""
        return {
            modality: self.encode(params, modality, batch[modality], train=train)
            for modality in self.modules
        }

    def _narrow(self, x: jax.Array) -> jax.Array:
        if x.dtype == jnp.uint8:
            return (x.astype(jnp.float32) / 127.5 - 1.0).astype(self.dtype)
        return x.astype(self.dtype) if x.dtype == jnp.float32 else x


def _widen(x: jax.Array) -> jax.Array:
    return x.astype(jnp.promote_types(x.dtype, jnp.float32)) if x.dtype != jnp.bool_ else x


def _apart(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The views of all records, (B·K, ...), as records of their own."""
    views = inputs["present"].shape[1]
    apart = {
        name: jax.tree.map(lambda x: rearrange(x, "b k ... -> (b k) ..."), leaf)
        for name, leaf in inputs.items()
        if name not in ("present", "key")
    }
    if "key" in inputs:
        keys_BxK = jax.vmap(lambda key: jax.random.split(key, views))(inputs["key"])
        apart["key"] = keys_BxK.reshape(-1)
    return apart


def _of_views(z_NxD: jax.Array, present_BxK: jax.Array) -> Embedding:
    """N = B·K views as B records."""
    views_BxKxD = z_NxD.reshape(*present_BxK.shape, -1)
    there_BxKx1 = present_BxK[..., None]
    sum_BxD = jnp.where(there_BxKx1, unit(views_BxKxD), 0.0).sum(axis=1)
    return Embedding(sum_BxD / jnp.maximum(there_BxKx1.sum(axis=1), 1), views=views_BxKxD)
