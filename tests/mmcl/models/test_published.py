"""Towers of CLIP and SigLIP against transformers' models with the same weights, carried over here.

Values, and the gradients of the input pixels or of the token embeddings.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mmcl.models import text, vit

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers")

B, SIDE, PATCH, WIDTH, HEADS, DEPTH, EMBED, VOCAB, LENGTH = 3, 8, 4, 16, 2, 2, 12, 20, 6
SIZES = dict(
    hidden_size=WIDTH,
    intermediate_size=3 * WIDTH,
    num_hidden_layers=DEPTH,
    num_attention_heads=HEADS,
    attn_implementation="eager",
)
PICTURE = dict(image_size=SIDE, patch_size=PATCH)
TEXT = dict(vocab_size=VOCAB, max_position_embeddings=LENGTH)
OURS = dict(embed_dim=EMBED, width=WIDTH, depth=DEPTH, heads=HEADS, mlp_ratio=3.0)
CLIP = dict(activation="quick_gelu", epsilon=1e-5)
SIGLIP = dict(activation="gelu_tanh", epsilon=1e-6)
CLIP_PICTURE = dict(**OURS, **CLIP, patch=PATCH, pool="cls", patch_bias=False, pre_norm=True)
SIGLIP_PICTURE = {**OURS, **SIGLIP, "embed_dim": WIDTH, "projection": "none"}
SIGLIP_PICTURE |= dict(patch=PATCH, pool="map")
CLIP_TEXT = dict(**OURS, **CLIP, vocab_size=VOCAB, causal=True, pool="eot")
SIGLIP_TEXT = dict(**OURS, **SIGLIP, vocab_size=VOCAB, attend_padding=True, pool="last")
SIGLIP_TEXT |= dict(projection="affine")


def shaken(model: Any) -> Any:
    """A model whose every parameter matters: none at zero, no scale at one."""
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn_like(parameter))
    return model.eval()


def pixels() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(B, SIDE, SIDE, 3)).astype("f4")


def words() -> tuple[np.ndarray, np.ndarray]:
    """Ids that end in the largest, their mask; padding is 0."""
    ids_BxL = np.random.default_rng(0).integers(3, VOCAB - 1, (B, LENGTH)).astype("i4")
    length_B = np.array([[6], [2], [4]])
    places_L = np.arange(LENGTH)
    mask_BxL = places_L < length_B
    ids_BxL = np.where(places_L == length_B - 1, VOCAB - 1, ids_BxL)
    return np.where(mask_BxL, ids_BxL, 0), mask_BxL


def dense(p: dict[str, Any], name: str) -> dict[str, Any]:
    made = {"kernel": p[f"{name}.weight"].T}
    return {**made, "bias": p[f"{name}.bias"]} if f"{name}.bias" in p else made


def norm(p: dict[str, Any], name: str) -> dict[str, Any]:
    return {"scale": p[f"{name}.weight"], "bias": p[f"{name}.bias"]}


def joined(layers: list[dict[str, Any]]) -> dict[str, Any]:
    return {k: np.concatenate([layer[k] for layer in layers], -1) for k in ("kernel", "bias")}


def encoder(p: dict[str, Any], part: str, last: str) -> dict[str, Any]:
    made: dict[str, Any] = {"norm": norm(p, f"{part}.{last}")}
    for i in range(DEPTH):
        at = f"{part}.encoder.layers.{i}"
        made[f"blocks_{i}"] = {
            "norm_1": norm(p, f"{at}.layer_norm1"),
            "qkv": joined([dense(p, f"{at}.self_attn.{x}_proj") for x in "qkv"]),
            "out": dense(p, f"{at}.self_attn.out_proj"),
            "norm_2": norm(p, f"{at}.layer_norm2"),
            "up": dense(p, f"{at}.mlp.fc1"),
            "down": dense(p, f"{at}.mlp.fc2"),
        }
    return made


def weights(model: Any) -> dict[str, Any]:
    return {name: value.detach().numpy() for name, value in model.state_dict().items()}


def patches(p: dict[str, Any], name: str) -> dict[str, Any]:
    kernel = p[f"{name}.weight"].transpose(2, 3, 1, 0).reshape(-1, WIDTH)
    return {"kernel": kernel, **({"bias": p[f"{name}.bias"]} if f"{name}.bias" in p else {})}


def clip_picture() -> tuple[Any, dict[str, Any]]:
    config = transformers.CLIPVisionConfig(**SIZES, **PICTURE, projection_dim=EMBED)
    model = shaken(transformers.CLIPVisionModelWithProjection(config))
    p, at = weights(model), "vision_model"
    return model, {
        "patches": patches(p, f"{at}.embeddings.patch_embedding"),
        "cls": p[f"{at}.embeddings.class_embedding"],
        "positions": p[f"{at}.embeddings.position_embedding.weight"],
        "norm_pre": norm(p, f"{at}.pre_layrnorm"),
        "encoder": encoder(p, at, "post_layernorm"),
        "projection": dense(p, "visual_projection"),
    }


def siglip_picture() -> tuple[Any, dict[str, Any]]:
    model = shaken(
        transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**SIZES, **PICTURE))
    )
    p = {f"vision_model.{k.removeprefix('vision_model.')}": x for k, x in weights(model).items()}
    at, head = "vision_model", "vision_model.head"
    qkv = p[f"{head}.attention.in_proj_weight"].T, p[f"{head}.attention.in_proj_bias"]
    (q_kernel, kv_kernel), (q_bias, kv_bias) = (np.split(x, [WIDTH], axis=-1) for x in qkv)
    return model, {
        "patches": patches(p, f"{at}.embeddings.patch_embedding"),
        "positions": p[f"{at}.embeddings.position_embedding.weight"],
        "encoder": encoder(p, at, "post_layernorm"),
        "pool": {
            "probe": p[f"{head}.probe"][0, 0],
            "q": {"kernel": q_kernel, "bias": q_bias},
            "kv": {"kernel": kv_kernel, "bias": kv_bias},
            "out": dense(p, f"{head}.attention.out_proj"),
            "norm": norm(p, f"{head}.layernorm"),
            "up": dense(p, f"{head}.mlp.fc1"),
            "down": dense(p, f"{head}.mlp.fc2"),
        },
    }


def text_params(p: dict[str, Any], at: str, head: str) -> dict[str, Any]:
    return {
        "embed": {"embedding": p[f"{at}.embeddings.token_embedding.weight"]},
        "positions": p[f"{at}.embeddings.position_embedding.weight"],
        "encoder": encoder(p, at, "final_layer_norm"),
        "projection": dense(p, head),
    }


def clip_text() -> tuple[Any, dict[str, Any]]:
    config = transformers.CLIPTextConfig(
        **SIZES, **TEXT, projection_dim=EMBED, bos_token_id=1, eos_token_id=VOCAB - 1
    )
    model = shaken(transformers.CLIPTextModelWithProjection(config))
    return model, text_params(weights(model), "text_model", "text_projection")


def siglip_text() -> tuple[Any, dict[str, Any]]:
    config = transformers.SiglipTextConfig(**SIZES, **TEXT, projection_size=EMBED)
    model = shaken(transformers.SiglipTextModel(config))
    p = {f"text_model.{k.removeprefix('text_model.')}": x for k, x in weights(model).items()}
    return model, text_params(p, "text_model", "text_model.head")


def close(found: Any, expected: Any) -> None:
    expected = expected.detach().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())


def same_structure(tower: Any, params: Any, inputs: Any) -> None:
    """Nothing is left over on either side."""
    made = jax.eval_shape(tower.init, jax.random.key(0), inputs)["params"]
    assert jax.tree.map(lambda x: x.shape, made) == jax.tree.map(lambda x: x.shape, params)


@pytest.mark.parametrize(
    ("theirs", "options"), [(clip_picture, CLIP_PICTURE), (siglip_picture, SIGLIP_PICTURE)]
)
def test_pictures(theirs: Any, options: dict[str, Any]) -> None:
    model, params = theirs()
    tower, value = vit.Tower(**options), pixels()
    same_structure(tower, params, {"value": value})

    def squares(value: jax.Array) -> Any:
        z = tower.apply({"params": params}, {"value": value}).z
        return jnp.sum(z**2), z

    (_, z), gradient = jax.jit(jax.value_and_grad(squares, has_aux=True))(value)
    given = torch.tensor(value.transpose(0, 3, 1, 2), requires_grad=True)
    out = model(pixel_values=given)
    expected = out.image_embeds if hasattr(out, "image_embeds") else out.pooler_output
    (expected**2).sum().backward()
    close(z, expected)
    close(gradient.transpose(0, 3, 1, 2), given.grad)


@pytest.mark.parametrize(
    ("theirs", "options"), [(clip_text, CLIP_TEXT), (siglip_text, SIGLIP_TEXT)]
)
def test_texts(theirs: Any, options: dict[str, Any]) -> None:
    model, params = theirs()
    tower, (ids, mask) = text.Tower(**options), words()
    inputs = {"value": ids, "mask": mask}
    same_structure(tower, params, inputs)

    def squares(params: Any) -> Any:
        z = tower.apply({"params": params}, inputs).z
        return jnp.sum(z**2), z

    (_, z), gradient = jax.jit(jax.value_and_grad(squares, has_aux=True))(params)
    out = model(input_ids=torch.tensor(ids, dtype=torch.int64))
    expected = out.text_embeds if hasattr(out, "text_embeds") else out.pooler_output
    (expected**2).sum().backward()
    close(z, expected)
    close(gradient["embed"]["embedding"], model.get_input_embeddings().weight.grad)
