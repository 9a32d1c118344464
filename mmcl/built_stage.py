"""One stage of an experiment, built: its data, towers, objective, optimiser and compiled step."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import Any, cast

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data_pipelines.errors import InputError
from data_pipelines.loader import AnyOrder, Source, numeric, train_batches
from data_pipelines.mixed_order import MixedOrder, Weights
from data_pipelines.order import Order
from data_pipelines.pipeline import Pipeline, first_usable, stack
from data_pipelines.sources.mixture import Source as Mixture
from mmcl import experiment, optimizers, sharding
from mmcl.evals.embed import make_encoders
from mmcl.experiment import Stage
from mmcl.guard import guarded
from mmcl.mesh import AnyMesh, batch_devices, places
from mmcl.mixing.moment import Mixing
from mmcl.model import Model
from mmcl.models.towers import Towers
from mmcl.objectives.term import reads_tokens
from mmcl.state import TrainState
from mmcl.step import Metrics, make_train_step
from mmcl.teacher import of_towers

TrainStep = Callable[[TrainState, Mapping[str, Any]], tuple[TrainState, Metrics]]


@dataclasses.dataclass(frozen=True)
class BuiltStage:
    stage: Stage
    mesh: Mesh
    source: Source
    pipeline: Pipeline
    mixing: Mixing | None
    placed: Any  # where every array of the state lies: `sharding.Placed`s, laid out like it
    init: Callable[[], TrainState]  # a fresh state, placed on the mesh
    train_step: TrainStep  # compiled; the state it is given is used up
    example: Mapping[str, Any]  # a batch of one record
    towers: Towers
    encoders: Mapping[str, Callable[[Any, Any], jax.Array]]

    def order(self, weights: Weights | None = None) -> AnyOrder:
        """Which record comes when in this stage, from its first step on.

        Args:
            weights: those of the mixture, where the source is one; None: those of the config.
        """
        seed, number = self.stage.settings.seed, self.stage.number
        if isinstance(self.source, Mixture):
            weights = weights or Weights(self.source.weights)
            return MixedOrder(self.source.records, seed, number, weights)
        return Order(len(self.source), seed, number)

    def batches(self, start: int, order: AnyOrder) -> Iterator[dict[str, Any]]:
        """This process's batches from step `start` to the end of the stage."""
        settings = self.stage.settings
        return train_batches(
            self.source,
            self.pipeline,
            order,
            batch_size=settings.batch_size,
            start=start - self.stage.start,
            stop=self.stage.stop - self.stage.start,
            places=places(self.mesh, settings.batch_size),
            threads=settings.threads,
            workers=settings.workers,
        )

    def enter(self, before: TrainState) -> TrainState:
        """The first state of this stage: the towers (and what `carry` names) of the one before.

        Raises:
            InputError: a tower's parameters do not fit this stage's.
        """
        fresh = self.init()
        params = dict(fresh.params)
        for name in self.encoders:
            if not _alike(before.params[name], params[name]):
                raise InputError(
                    f"config.stages.{self.stage.number}: its '{name}' tower has other parameters "
                    "than that of the stage before; stages share their towers."
                )
            params[name] = before.params[name]
        carry = self.stage.carry
        objective = fresh.objective
        if "objective" in carry and _alike(before.params["objective"], params["objective"]):
            params["objective"] = before.params["objective"]
            if _alike(before.objective, objective):
                objective = before.objective
        optimizer = fresh.optimizer
        if "optimizer" in carry and _alike(before.optimizer, optimizer):
            optimizer = before.optimizer
        ema = fresh.ema
        if ema is not None:
            averaged = before.ema if _alike(before.ema, params) else params
            ema = jax.tree.map(jnp.copy, averaged)
        teacher = fresh.teacher
        if teacher is not None:
            teacher = jax.tree.map(jnp.copy, of_towers(self.towers, params))
            if "teacher" in carry and before.teacher is not None:
                teacher = before.teacher
        return fresh._replace(
            step=before.step,
            params=params,
            optimizer=optimizer,
            objective=objective,
            ema=ema,
            teacher=teacher,
        )

    def model(self, state: TrainState) -> Model:
        """The model as evaluation sees it: the averaged parameters where there are some."""
        params = state.params if state.ema is None else state.ema
        read = {modality: self.pipeline.transforms[modality] for modality in self.encoders}
        pipeline = dataclasses.replace(self.pipeline, transforms=read)
        return Model(self.stage.settings, pipeline, self.towers, self.encoders, params, self.mesh)


def build(stage: Stage, mesh: AnyMesh) -> BuiltStage:
    """Open the data and make every part; nothing is computed or compiled yet.

    Args:
        mesh: the devices; of an abstract mesh, shapes and the step's program are all there is.

    Raises:
        InputError: a part refuses its options.
    """
    settings = stage.settings
    devices = batch_devices(mesh)
    if settings.batch_size % devices:
        raise InputError(
            f"config.batch_size: {settings.batch_size} does not divide over {devices} devices; "
            f"take a multiple of {devices}."
        )
    if settings.batch_size % (devices * settings.micro_batches):
        raise InputError(
            f"config.micro_batches: {settings.batch_size} records on {devices} devices do not "
            f"divide into {settings.micro_batches}; make config.batch_size a multiple of "
            f"{devices * settings.micro_batches}."
        )
    source = experiment.open_source(settings)
    pipeline = experiment.build_pipeline(settings, source)
    towers = experiment.build_towers(settings)
    objective = experiment.build_objective(settings)
    mixing = experiment.build_mixing(settings)
    if mixing is not None and not isinstance(source, Mixture):
        raise InputError("config.mixing: there is nothing to mix; config.source is no 'mixture'.")
    remembers = jax.eval_shape(objective.init_state, jax.random.key(0)) is not None
    if settings.micro_batches > 1 and reads_tokens(objective) and remembers:
        raise InputError(
            "config.micro_batches: this objective reads tokens and remembers from step to step, "
            "which cannot be done part by part; set it to 1."
        )
    seed = (settings.seed,)
    example = first_usable(source, lambda raw, i: stack([pipeline(raw, i, seed=seed, train=True)]))
    for modality in towers.modules:
        _check_inputs(modality, example[modality])
    key = jax.random.key(settings.seed)

    def init_params() -> dict[str, Any]:
        params = towers.init(jax.random.fold_in(key, 0), numeric(example))
        return {**params, "objective": objective.init(jax.random.fold_in(key, 1))}

    shapes = jax.eval_shape(init_params)
    optimizer = optimizers.make(shapes, **settings.optimizer)

    def init_state() -> TrainState:
        params = init_params()
        return TrainState(
            step=jnp.int32(0),
            params=params,
            optimizer=optimizer.init(params),
            objective=objective.init_state(jax.random.fold_in(key, 2)),
            ema=None if settings.ema is None else jax.tree.map(jnp.copy, params),
            key=jax.random.fold_in(key, 3),
            guard=settings.guard.init(),
            teacher=None
            if settings.teacher is None
            else jax.tree.map(jnp.copy, of_towers(towers, params)),
        )

    step = make_train_step(
        towers,
        objective,
        optimizer,
        experiment.build_schedule(settings),
        frozen=optimizers.frozen(shapes, settings.optimizer.get("freeze", ())),
        ema=settings.ema,
        start=stage.start,
        sources=source.label_names["source"] if isinstance(source, Mixture) else (),
        micro_batches=settings.micro_batches,
        teacher=settings.teacher,
    )
    placed = sharding.placements(jax.eval_shape(init_state), mesh, settings.sharding)
    state = sharding.shardings(placed, mesh)
    everywhere = NamedSharding(mesh, PartitionSpec())
    return BuiltStage(
        stage,
        cast(Mesh, mesh),
        source,
        pipeline,
        mixing,
        placed,
        init=jax.jit(init_state, out_shardings=state),
        train_step=jax.jit(
            guarded(step, settings.guard), donate_argnums=0, out_shardings=(state, everywhere)
        ),
        example=example,
        towers=towers,
        encoders=make_encoders(towers, mesh),
    )


def _check_inputs(modality: str, inputs: Any) -> None:
    """That a tower can take what the transforms of its modality give."""
    if not isinstance(inputs, Mapping):
        raise InputError(
            f"config.transforms.{modality}: a tower takes named arrays (a 'value', a 'mask'), "
            "which the last transform does not give; end with one that does, as image.resize or "
            "text.tokenize do."
        )


def _alike(a: Any, b: Any) -> bool:
    """Same structure, same shapes."""

    def layout(tree: Any) -> Any:
        return jax.tree.map(lambda x: (x.shape, x.dtype), tree)

    return layout(a) == layout(b)
