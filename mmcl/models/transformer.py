"""The transformer encoder that every token sequence goes through."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, Literal, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
from einops import rearrange

from data_pipelines.errors import InputError
from mmcl.mesh import examples_split

Remat = Literal["none", "dots", "full"]
POLICIES = {
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    "full": jax.checkpoint_policies.nothing_saveable,
}
Activation = Literal["gelu_tanh", "gelu", "quick_gelu"]
ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "gelu_tanh": nn.gelu,
    "gelu": functools.partial(nn.gelu, approximate=False),
    "quick_gelu": lambda x: x * nn.sigmoid(1.702 * x),
}
Projection = Literal["linear", "affine", "none"]


class Heads(nn.Module):
    """Queries, keys and values of every head, by one product.

    Its kernel is (D, 3D), whose columns are all queries, then all keys, then all values; it is used
    as (D, 3, heads, K), so that heads can be shared out over devices.
    """

    heads: int

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        width = x_BxTxD.shape[-1]
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (width, 3 * width))
        bias = self.param("bias", nn.initializers.zeros_init(), (3 * width,))
        kernel = rearrange(kernel, "d (three h k) -> d three h k", three=3, h=self.heads)
        bias = rearrange(bias, "(three h k) -> three h k", three=3, h=self.heads)
        qkv = jnp.einsum("btd,dchk->btchk", x_BxTxD, kernel) + bias
        q, k, v = (examples_split(qkv[:, :, i], tensor=2) for i in range(3))
        return q, k, v


class Block(nn.Module):
    """Pre-norm transformer block: self-attention and a two-layer GELU network, each residual.

    Attributes:
        activation: GELU by its tanh approximation ("gelu_tanh"), exactly ("gelu"), or as
            x · sigmoid(1.702 x) ("quick_gelu"; Hendrycks and Gimpel 2016, arXiv:1606.08415).
        epsilon: of the norms.
        causal: no token sees those after it.
    """

    heads: int
    mlp_ratio: float = 4.0
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6
    causal: bool = False

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
        h_BxTxD = examples_split(nn.LayerNorm(self.epsilon, name="norm_1")(x_BxTxD))
        x_BxTxD = examples_split(x_BxTxD + self._attention(h_BxTxD, mask_BxT))
        h_BxTxD = examples_split(nn.LayerNorm(self.epsilon, name="norm_2")(x_BxTxD))
        return examples_split(x_BxTxD + mlp(h_BxTxD, self.mlp_ratio, self.activation))

    def _attention(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
        q, k, v = Heads(self.heads, name="qkv")(x_BxTxD)  # each BxTxHxK
        mask = None if mask_BxT is None else mask_BxT[:, None, None, :]  # who may be looked at
        out_BxTxHxK = jax.nn.dot_product_attention(q, k, v, mask=mask, is_causal=self.causal)
        out_BxTxHxK = examples_split(out_BxTxHxK, tensor=2)
        return nn.Dense(x_BxTxD.shape[-1], name="out")(
            rearrange(out_BxTxHxK, "b t h k -> b t (h k)")
        )


class Encoder(nn.Module):
    """`depth` blocks and a final norm.

    Args of the call: x_BxTxD tokens; mask_BxT bool, False where there is only padding.

    Attributes:
        remat: what the backward pass computes again in place of keeping it: "none"; "dots", all
            but the products with parameters; "full", everything inside a block.
        scan: one block is compiled, and run `depth` times. Parameters are called the same, and are
            stacked in the call, which takes their memory once more; compiling takes less time, and
            with `remat` the compiler cannot keep more than one block's activations.
        activation, epsilon, causal: of the blocks.
    """

    depth: int
    heads: int
    mlp_ratio: float = 4.0
    remat: Remat = "none"
    scan: bool = False
    activation: Activation = "gelu_tanh"
    epsilon: float = 1e-6
    causal: bool = False

    @nn.compact
    def __call__(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None = None) -> jax.Array:
        x_BxTxD = examples_split(x_BxTxD)
        if self.scan and not self.is_initializing():
            x_BxTxD = self._scanned(x_BxTxD, mask_BxT)
        else:
            block = Block
            if self.remat != "none":
                block = nn.remat(Block, policy=POLICIES[self.remat])
            for i in range(self.depth):
                x_BxTxD = block(**shared(self, Block), name=f"blocks_{i}")(x_BxTxD, mask_BxT)
        return nn.LayerNorm(self.epsilon, name="norm")(x_BxTxD)

    def _scanned(self, x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
        params = self.variables["params"]
        stacked = jax.tree.map(
            lambda *layers: jnp.stack(layers), *(params[f"blocks_{i}"] for i in range(self.depth))
        )
        block = Block(**shared(self, Block), parent=None)

        def layer(x_BxTxD: jax.Array, params: Any) -> tuple[jax.Array, None]:
            return cast(jax.Array, block.apply({"params": params}, x_BxTxD, mask_BxT)), None

        if self.remat != "none":
            layer = jax.checkpoint(layer, policy=POLICIES[self.remat], prevent_cse=False)
        return jax.lax.scan(layer, x_BxTxD, stacked)[0]


def shared(module: nn.Module, part: type[nn.Module]) -> dict[str, Any]:
    """The options of a part that the module it belongs to has too, under the same names."""
    fields = {field.name for field in dataclasses.fields(part)} - {"parent", "name"}
    return {name: getattr(module, name) for name in sorted(fields) if hasattr(module, name)}


def mlp(x_BxTxD: jax.Array, ratio: float, activation: Activation) -> jax.Array:
    """The two layers `up` and `down` of the module that calls it."""
    width = x_BxTxD.shape[-1]
    h_BxTxF = nn.Dense(int(width * ratio), name="up")(x_BxTxD)
    h_BxTxF = ACTIVATIONS[activation](examples_split(h_BxTxF, tensor=2))
    return nn.Dense(width, name="down")(h_BxTxF)


def projection(kind: Projection, width: int, embed_dim: int) -> Callable[[jax.Array], jax.Array]:
    """From a tower's width to the shared space, as the layer `projection` of the module that calls
    it: a matrix ("linear"), with a bias ("affine"), or nothing ("none").

    Raises:
        InputError: nothing, between two widths.
    """
    if kind != "none":
        return nn.Dense(embed_dim, use_bias=kind == "affine", name="projection")
    if width != embed_dim:
        raise InputError(
            f"A tower of width {width} without projection gives no embedding of {embed_dim}: set "
            f"config.embed_dim to {width}, or the tower's projection to 'linear'."
        )
    return lambda x: x


def masked_mean(x_BxTxD: jax.Array, mask_BxT: jax.Array | None) -> jax.Array:
    """Mean over the tokens that are there; zero where none is."""
    if mask_BxT is None:
        return x_BxTxD.mean(axis=1)
    weight_BxT = mask_BxT.astype(x_BxTxD.dtype)
    total_BxD = jnp.einsum("btd,bt->bd", x_BxTxD, weight_BxT)
    return total_BxD / jnp.maximum(weight_BxT.sum(axis=1, keepdims=True), 1)


def positions(module: nn.Module, length: int, width: int) -> Any:
    """Learned position embeddings in `module`, small beside the tokens they are added to."""
    return module.param("positions", nn.initializers.normal(0.01), (length, width))
