"""Every operation of a kernel, evaluated piece by piece, has the values of the program itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import topologies
from jax.extend.core import jaxprs_in_params
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from pallas_kernels.pair_reduce import pallas_tpu
from pallas_kernels.pair_reduce.in_kernel import evaluate, operations
from pallas_kernels.pair_reduce.pieces import MOST, Place
from pallas_kernels.pair_reduce.sweep import State
from pallas_kernels.pair_reduce.types import At

R, C, D, T, U = 32, 16, 24, 3, 2
SHAPES = {"r": (R,), "rd": (R, D), "rtd": (R, T, D), "c": (C,), "cd": (C, D), "cud": (C, U, D)}
SHAPES |= {"d": (D,), "td": (T, D), "": ()}  # what does not begin with r or c is a parameter


def numbers(name, low=0.2, high=0.9):
    rng = np.random.default_rng([ord(letter) for letter in name])
    return rng.uniform(low, high, SHAPES[name])


def integers(name, low=1, high=9):
    return np.asarray(10 * numbers(name, low / 10, high / 10)).astype(np.int32)


def flags(name):
    return np.asarray(numbers(name) > 0.5)


UNARY = {
    "neg": lax.neg,
    "sign": lax.sign,
    "abs": lax.abs,
    "floor": lambda x: lax.floor(5 * x),
    "ceil": lambda x: lax.ceil(5 * x),
    "round": lambda x: lax.round(5 * x),
    "integer_pow": lambda x: lax.integer_pow(x, 3),
    "square": lax.square,
    "sqrt": lax.sqrt,
    "rsqrt": lax.rsqrt,
    "exp": lax.exp,
    "exp2": lax.exp2,
    "log": lax.log,
    "log1p": lax.log1p,
    "expm1": lambda x: 1e6 * lax.expm1(1e-6 * x),
    "tanh": lax.tanh,
    "logistic": lax.logistic,
    "sin": lax.sin,
    "cos": lax.cos,
    "tan": lax.tan,
    "erf": lax.erf,
    "is_finite": lax.is_finite,
    "convert_element_type": lambda x: [
        (7 * x - 3).astype(kind) for kind in (jnp.int32, jnp.bfloat16, jnp.float32, bool)
    ],
    "copy": jnp.copy,
    "stop_gradient": lax.stop_gradient,
    "optimization_barrier": lax.optimization_barrier,
    "jit": jax.jit(jnp.cos),
    "remat2": jax.checkpoint(jnp.sin),
    "custom_jvp_call": jax.nn.relu,
}
BINARY = {
    "add": lax.add,
    "sub": lax.sub,
    "mul": lax.mul,
    "div": lax.div,
    "rem": lax.rem,
    "max": lax.max,
    "min": lax.min,
    "pow": lax.pow,
    "clamp": lambda x, y: lax.clamp(0.3, x, y),
    "eq": lambda x, y: (3 * x).astype(int) == (3 * y).astype(int),
    "ne": lambda x, y: (3 * x).astype(int) != (3 * y).astype(int),
    "lt": lax.lt,
    "le": lax.le,
    "gt": lax.gt,
    "ge": lax.ge,
    "add_any": lambda x, y: jax.vjp(lambda x: x * x, x)[1](y),
    "select_n": lambda x, y: lax.select(x > y, x, y),
}
OF_FLAGS = {"and": jnp.logical_and, "or": jnp.logical_or, "xor": jnp.logical_xor}
# Names of other versions of jax, or inside a mesh only.
ELSEWHERE = {"pjit", "closed_call", "core_call", "custom_vjp_call_jaxpr", "remat", "checkpoint"}
ELSEWHERE |= {"reshard", "pvary", "pcast"}


@jax.custom_vjp
def doubled(x):
    return 2 * x


doubled.defvjp(lambda x: (doubled(x), None), lambda _, ct: (2 * ct,))


def elementwise(rd, d):
    d = jnp.broadcast_to(d, rd.shape)
    return {name: f(rd) for name, f in UNARY.items()}, {
        name: f(rd, d) for name, f in BINARY.items()
    }


def of_integers(r, c):
    r, c = jnp.broadcast_arrays(r[:, None], c)
    same = {name: BINARY[name](r, c) for name in ("add", "mul", "div", "rem", "max", "ne", "lt")}
    return same, r & c, r | 6, r ^ c, ~r, jnp.sign(r - c), r.astype(jnp.float32)


def of_flags(r, c, rd, d):
    both = {name: (f(r[:, None], c), f(rd, d)) for name, f in OF_FLAGS.items()}
    chosen = jnp.where(r[:, None], c, True), jnp.where(rd, d, 0.5), jnp.where(c, 1, 2)
    return both, chosen, ~rd, r[:, None] == c, c.astype(jnp.float32), jnp.maximum(rd, d)


def broadcasts(r, rd, rtd, c, cd, d, td, scalar):
    """A product on arrays of every form that there is in a tile."""
    return {
        "r": r * r,
        "r, c": r[:, None] * c,
        "c, r": c * r[:, None],
        "c, r transposed": c[:, None] * r,
        "scalars": (c * scalar, scalar * rd, scalar * scalar, 2.0 * scalar),
        "vector": (rd * d, d * rd, rtd * td, td * td.sum(), td.T * d[:, None]),
        "rtd, r": rtd * r[:, None, None],
        "rd, cd": rd[:, None] * cd,
        "cd, rd": cd[:, None, :4] * rd[:, :4],
        "r in vain": jnp.broadcast_to(d, (R, 1, D)) * rd[:, None],
        "of size 1": jnp.broadcast_to(rd[:, :1], (R, C)) * jnp.broadcast_to(rtd[:, 1, :1], (R, C)),
        "whole": jnp.broadcast_to(rtd[:, :1], (R, U, D)),
    }


def sums(r, rd, rtd, c, cd, td, flag):
    grid = r[:, None] * c
    four = jnp.einsum("rtd,cd->rtcd", rtd[..., :5], cd[:, :5])
    return {
        "reduce_sum": [x.sum(i) for x in (rd, rtd, grid, td, four) for i in range(x.ndim)],
        "several": (rtd.sum((0, 2)), rtd.sum((1, 2)), grid.sum(), rtd.sum(), four.sum((0, 2))),
        "reduce_max": (rd.max(0), rtd.max((1, 2)), grid.max(1), grid.max(), four.max(3)),
        "reduce_min": (rd.min(1), rtd.min(1), grid.min(0), jnp.min(jnp.full((R, 2), 3.0), 1)),
        "integers": [f((9 * rd).astype(jnp.int32), 1) for f in (jnp.max, jnp.min)],
        "counts": jnp.sum(rd > 0.5, axis=1, dtype=jnp.int32),
        "reduce_and": (flag.all(0), flag.all(1), (grid > 0.1).all(), (grid > 0.1).all(1)),
        "reduce_or": (flag.any(0), flag.any((0, 1)), (grid > 0.7).any(1)),
        "flags": (jnp.max(flag, axis=1), jnp.min(flag, axis=0)),
        "of the same": (jnp.sum(jnp.broadcast_to(r[:, None], (R, 7)), 1), jnp.ones((R, 3)).sum()),
    }


DOTS = [
    "rd,cd->rc",
    "cd,rd->rc",
    "cd,rd->cr",
    "rd,d->r",
    "rtd,cud->rtcu",
    "rtd,td->r",
    "rtd,td->rt",
    "rtd,cd->rct",
    "rtd,rd->rt",
    "rd,rd->r",
    "r,c->rc",
    "td,ud->tu",
]


def products(**given):
    def one(form):
        left, right = form.split("->")[0].split(",")
        right = given["td"][:U] if right == "ud" else given[right]
        return jnp.einsum(form, given[left], right)

    grid = one("rd,cd->rc")
    tokens = one("rtd,cud->rtcu")
    return {form: one(form) for form in DOTS} | {
        "rc,cd->rd": grid @ given["cd"],
        "rc,rd->cd": grid.T @ given["rd"],
        "rc,cud->rud": jnp.einsum("rc,cud->rud", grid, given["cud"]),
        "rtcu,cud->rtd": jnp.einsum("rtcu,cud->rtd", tokens, given["cud"]),
        "rtc,rt->rc": jnp.einsum("rtc,rt->rc", tokens[..., 0], given["rtd"][..., 0]),
        "rc,c->r": grid @ given["c"],
        "with ones": (grid @ jnp.ones(C), given["rd"] @ jnp.ones((D, 2)), jnp.ones(R) @ grid),
        "by position": (grid @ jnp.arange(C, dtype=grid.dtype), given["d"] @ jnp.arange(24.0)),
        "integers": (7 * given["rd"]).astype(jnp.int32) @ (7 * given["cd"]).astype(jnp.int32).T,
        "doubled": doubled(grid),
    }


def shapes(r, rd, rtd, c, cd, d, td):
    x = rtd[:, :1]
    spaced = lax.pad(rtd, 0.5, [(0, 0, 0), (2, 1, 2), (0, 0, 0)])
    return {
        "transpose": (rtd.transpose(2, 0, 1), rd.T, td.T, td.T + td.T, rd.T * cd[3][:, None]),
        "reshape": (rd.reshape(R, 1, D, 1), rd.reshape(1, R, D)[0], x.reshape(R, D)),
        "squeeze": (lax.squeeze(rtd[:, 1:2], (1,)), lax.squeeze(rd[:, 4:5], (1,))),
        "slice": (
            rtd[:, 1:],
            rtd[:, ::2],
            rd[:, ::5],
            rd[:, 3],
            d[5],
            c[2:9],
            r[4],
            td[:2],
            td[1, 2],
        ),
        "slice where pieces end": (rd[:, :16], rd[:, 16:], rd[:, :3], rtd[..., 16:].sum(2)),
        "split": lax.split(rd, (16, 8), 1) + lax.split(rtd, (1, 2), 1),
        "concatenate": (
            jnp.concatenate([rtd[:, 1:], rd[:, None], rtd], axis=1),
            jnp.concatenate([rd[:, :16], rd], axis=1),
            jnp.concatenate([rd[:, :16], jnp.broadcast_to(d[:16], (R, 16))], axis=1).sum(0),
            jnp.concatenate([jnp.ones((R, 2)), rd[:, 3:4], r[:, None] > 0.5], axis=1).sum(0),
            jnp.concatenate([rtd > 0.5, jnp.ones((R, 2, 1), bool) & (d > 0.5)], axis=1),
        ),
        "stack": (jnp.stack([r, rd[:, 0]], axis=1), jnp.stack([rd, rd * 2, rd[::1]], axis=1)),
        "unstack": (jnp.unstack(rtd, axis=1), jnp.unstack(td), jnp.unstack(rd[:, :3], axis=1)),
        "pad": (
            jnp.pad(rtd, ((0, 0), (1, 2), (0, 0))).sum(0),
            jnp.pad(rd[:, :16], ((0, 0), (16, 8)), constant_values=2.0),
            lax.pad(rtd, 0.5, [(0, 0, 0), (-1, 1, 0), (0, 0, 0)]),
            jnp.pad(r[:, None], ((0, 0), (0, 1))) @ td[:2],
        ),
        "pad between": (
            spaced,
            spaced.sum(1) * d,
            lax.pad(x, 0.5, [(0, 0, 0), (0, 0, 3), (0, 0, 0)]),
        ),
        "iota": (
            rd + jnp.arange(D),
            jnp.arange(C) < 10 * c,
            lax.iota(jnp.int32, R)[:, None] + rd,
            lax.broadcasted_iota(jnp.int32, (R, C), 0) * c,
            jnp.arange(1),
            jnp.arange(float(T))[:, None] * rtd,
        ),
    }


FAMILIES = {
    "elementwise": (elementwise, {"rd": numbers("rd"), "d": numbers("d")}),
    "integers": (of_integers, {"r": integers("r"), "c": integers("c")}),
    "flags": (of_flags, {name: flags(name) for name in ("r", "c", "rd", "d")}),
    "broadcasts": (
        broadcasts,
        {name: numbers(name) for name in ("r", "rd", "rtd", "c", "cd", "d", "td", "")},
    ),
    "sums": (
        sums,
        {name: numbers(name) for name in ("r", "rd", "rtd", "c", "cd", "td")}
        | {"rows": flags("rtd")[:, 1]},
    ),
    "products": (
        lambda *args: products(**dict(zip(SHAPES, args))),
        {name: numbers(name) for name in SHAPES},
    ),
    "shapes": (
        shapes,
        {name: numbers(name) for name in ("r", "rd", "rtd", "c", "cd", "d", "td")},
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_an_operation_has_its_values_on_arrays_of_every_form(family, pieces, by_pieces):
    function, inputs = FAMILIES[family]
    by_pieces(function, inputs, pieces)


def test_rows_lie_along_the_first_axis_of_a_product(pieces, held):
    given = [held(name, np.ones(SHAPES[name], np.float32), pieces) for name in ("cd", "rd")]
    program = jax.make_jaxpr(lambda cd, rd: cd @ rd.T)(*(np.ones(v.shape) for v in given))
    (product,) = evaluate(pieces, program, given)
    assert [axis.place for axis in product.axes] == [Place.SECOND, Place.FIRST]


def test_every_operation_is_in_one_of_these_programs():
    def primitives(jaxpr):
        for equation in jaxpr.eqns:
            yield equation.primitive.name
            for inner in jaxprs_in_params(equation.params):
                yield from primitives(inner)

    with jax.enable_x64(True):
        found = {
            name
            for function, inputs in FAMILIES.values()
            for name in primitives(jax.make_jaxpr(function)(*inputs.values()).jaxpr)
        }
    assert set(operations()) - ELSEWHERE == found - ELSEWHERE


REFUSED = {
    "sort": lambda x: jnp.sort(x, axis=1),
    "cumsum": lambda x: jnp.cumsum(x, axis=1),
    "argmax": lambda x: jnp.argmax(x, axis=1),
    "gather": lambda x: x[jnp.arange(3)],
    "dynamic_slice": lambda x: lax.dynamic_slice(x, (jnp.int32(x[0, 0]), 0), (2, 2)),
    "while": lambda x: lax.while_loop(lambda x: x[0, 0] > 1, lambda x: x / 2, x),
    "scan": lambda x: lax.scan(lambda a, y: (a + y, None), x[0], x)[0],
    "cond": lambda x: lax.cond(x[0, 0] > 0, jnp.sin, jnp.cos, x),
    "conv_general_dilated": lambda x: lax.conv(x[None, None], x[None, None], (1, 1), "SAME"),
    "top_k": lambda x: lax.top_k(x, 2),
    "scatter": lambda x: x.at[0, 1].set(3.0),
    "atan2": lambda x: jnp.arctan2(x, x),
}


def refusal(function, inputs, pieces, held):
    inputs = {name: np.asarray(x, np.float32) for name, x in inputs.items()}
    program = jax.make_jaxpr(function)(*inputs.values())
    values = [held(name, x, pieces) for name, x in inputs.items()]
    with pytest.raises(NotImplementedError) as error:
        evaluate(pieces, program, values)
    return str(error.value)


@pytest.mark.parametrize("name", REFUSED)
def test_an_operation_that_no_kernel_does_is_named(name, pieces, held):
    says = refusal(REFUSED[name], {"rd": np.ones((16, 24), np.float32)}, pieces, held)
    assert says.startswith(f"{pieces.target.name}: the tile or a reduction uses {name}")
    assert 'impl="xla"' in says


def test_merging_axes_is_refused(pieces, held):
    says = refusal(lambda x: x.reshape(R, T * D), {"rtd": numbers("rtd")}, pieces, held)
    assert f"reshape ({R}, {T}, {D}) to ({R}, {T * D})" in says


def test_an_array_of_too_many_matrices_is_refused(pieces, held):
    inputs = {"rd": np.ones((16, MOST + 8)), "cd": np.ones((16, MOST + 8))}
    says = refusal(lambda x, y: jnp.abs(x[:, None] - y).sum(-1), inputs, pieces, held)
    assert f"{MOST + 8} matrices" in says and f"{MOST} is the most" in says


def test_an_array_of_constants_is_refused(pieces, held):
    table = jnp.arange(24.0)
    says = refusal(lambda x: x * table, {"rd": np.ones((16, 24))}, pieces, held)
    assert "array of constants" in says


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x[:, 3:20],
        lambda x: x[:, 4:8],
        lambda x: x[:, 16:20],
        lambda x: x[:, :16],
        lambda x: jnp.concatenate([x, x], axis=1),
        lambda x: jnp.concatenate([x[:, :16], x], axis=1),
        lambda x: jnp.concatenate([x[:, :8], x[:, :8]], axis=1),
        lambda x: jnp.concatenate([x[:, :8], x[:, :16]], axis=1),
        lambda x: jnp.pad(x, ((0, 0), (1, 0))),
        lambda x: jnp.pad(x, ((0, 0), (32, 16)), constant_values=2),
    ],
)
def test_vectors_are_cut_and_joined_at_any_place(function, cut, by_pieces):
    by_pieces(function, {"rd": numbers("rd")}, cut)


# The same programs, compiled for a TPU that need not be there.


@pytest.fixture(scope="module")
def tpu():
    """A mesh of one TPU v5e."""
    pytest.importorskip("libtpu", reason="no compiler for TPUs is installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
        patch.setenv("TPU_SKIP_MDS_QUERY", "1")
        patch.setenv("TPU_ACCELERATOR_TYPE", "v5litepod-4")
        patch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
        devices = topologies.get_topology_desc("v5e:2x2", platform="tpu").devices
        yield Mesh(np.array(devices[:1]), ("data",), axis_types=(AxisType.Auto,))


def compiled(visit, rows, cols, params, state, blocks, mesh):
    """A sweep of visit(row, col, params, state) over these arrays, compiled for a mesh."""

    def run(rows, cols, params, state):
        def tile(row, col, state, at, valid):
            return visit(row, col, params, state)

        start = At(jnp.int32(0), jnp.int32(0))
        return pallas_tpu.sweep(tile, rows, cols, state, start, blocks=blocks)

    def shape(x):
        x = jnp.asarray(x)
        everywhere = NamedSharding(mesh, PartitionSpec())
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere)

    args = jax.tree.map(shape, (rows, cols, params, state))
    with jax.set_mesh(mesh):
        return jax.jit(run).lower(*args).compile()


def with_derivative(function):
    def both(*given):
        floats = [i for i, x in enumerate(given) if jnp.issubdtype(x.dtype, jnp.floating)]

        def of_floats(*some):
            whole = list(given)
            for i, x in zip(floats, some):
                whole[i] = x
            made = jax.tree.leaves(function(*whole))
            return [x for x in made if jnp.issubdtype(x.dtype, jnp.floating)]

        made, pull = jax.vjp(of_floats, *(given[i] for i in floats))
        return function(*given), pull([jnp.cos(x) for x in made])

    return both


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_a_tpu_does_every_operation_and_its_derivative(family, tpu):
    function, inputs = FAMILIES[family]

    def visit(row, col, params, state):
        given = {**row, **col, **params}
        made = jax.tree.leaves(with_derivative(function)(*(given[name] for name in inputs)))
        return State((), (), state.all + sum(jnp.sum(x.astype(jnp.float32)) for x in made))

    sides = {"r": {"r0": np.zeros(R)}, "c": {"c0": np.zeros(C)}, "": {}}
    for name, x in inputs.items():
        sides[name[:1] if name[:1] in "rc" else ""][name] = x
    compiled(visit, *sides.values(), State((), (), jnp.zeros(())), (R, C), tpu)


PRECISIONS = ["default", "high", "highest", "BF16_BF16_F32", "BF16_BF16_F32_X3", "F32_F32_F32"]


@pytest.mark.long
def test_a_tpu_multiplies_at_every_precision(tpu):
    def visit(row, col, params, state):
        made = [jnp.dot(row, col.T, precision=precision) for precision in PRECISIONS]
        half = row.astype(jnp.bfloat16), col.T.astype(jnp.bfloat16)
        made += [jnp.dot(*half, precision=precision) for precision in ("default", "highest")]
        return State((), (), state.all + sum(jnp.sum(x.astype(jnp.float32)) for x in made))

    state = State((), (), jnp.zeros(()))
    compiled(visit, numbers("rd"), numbers("cd"), {}, state, (R, C), tpu)


@pytest.mark.long
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16", "int32", "int8", "bool"])
def test_a_tpu_reads_and_writes_pages_of_every_rank(dtype, tpu):
    inner = [(), (D,), (T, D), (T, 1), (1,), (1, D), (U, T, D), (T,)]
    whole = [(), (1,), (D,), (T, D), (1, D), (T, 1), (T, U, D), (D, T)]

    def visit(row, col, params, state):
        row, col, params = jax.tree.map(lambda x: x.astype(jnp.float32), (row, col, params))
        near = jnp.tanh(row[1] @ col[1].T)

        def added(old, x, by):
            return old * 2 + x * by.reshape(-1, *(1,) * (x.ndim - 1))

        return State(
            [added(old, x, jnp.sum(near, axis=1)) for old, x in zip(state.row, row)],
            [added(old, x, jnp.sum(near, axis=0)) for old, x in zip(state.col, col)],
            [old + jnp.cos(x) for old, x in zip(state.all, params)],
        )

    def arrays(dtype):
        sides = ([(n, *s) for s in inner] for n in (3 * R, 3 * C))
        return [[jnp.ones(s, dtype) for s in side] for side in (*sides, whole)]

    compiled(visit, *arrays(dtype), State(*arrays("float32")), (R, C), tpu)
