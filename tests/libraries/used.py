"""What each library makes of its process: it trains a little, and tells who it takes the process for.

One function for each library, written as its users write it; each returns rank, size, local rank and device by the
library's own words, and the sum of the weights, which all ranks must end with alike.
"""

import tempfile
from collections.abc import Callable, Iterator
from importlib import import_module
from typing import Any

import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from colossalai_env import DistSpec, Job

distributed: Any = torch.distributed
Who = Job | DistSpec
Told = dict[str, Any]

STEPS = 3


def linear() -> Any:
    """Return a model that is another one on each rank, until somebody broadcasts it."""
    torch.random.seed()
    return nn.Linear(4, 1)


def batches() -> Iterator[torch.Tensor]:
    """Return data that is each rank's own."""
    torch.random.seed()
    yield from (torch.randn(8, 4) for _ in range(STEPS))


def sgd(model: Any) -> Any:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def weights(model: Any) -> float:
    return float(sum(parameter.detach().sum() for parameter in model.parameters()))


def train(model: Any, optimizer: Any, backward: Callable[[Any], object] | None = None) -> None:
    for inputs in batches():
        optimizer.zero_grad()
        loss = model(inputs).square().mean()
        loss.backward() if backward is None else backward(loss)
        optimizer.step()


def by_torch() -> Told:
    """Say what torch.distributed does, which knows no local rank."""
    return {"rank": distributed.get_rank(), "size": distributed.get_world_size()}


def ddp(who: Who) -> Told:
    del who
    if not distributed.is_initialized():
        distributed.init_process_group("gloo")
    model = DistributedDataParallel(linear())
    train(model, sgd(model))
    return {**by_torch(), "weights": weights(model)}


def device_mesh(who: Who) -> Told:
    mesh = distributed.device_mesh.init_device_mesh("cpu", (who.world_size,), mesh_dim_names=("data",))
    total = torch.ones(1)
    distributed.all_reduce(total, group=mesh.get_group())
    return {"rank": mesh.get_rank(), "size": mesh.size(), "device": mesh.device_type, "weights": total.item()}


def fsdp2(who: Who) -> Told:
    fsdp: Any = import_module("torch.distributed.fsdp")
    mesh = distributed.device_mesh.init_device_mesh("cpu", (who.world_size,))
    model = linear()
    fsdp.fully_shard(model, mesh=mesh)
    train(model, sgd(model))
    whole = [parameter.full_tensor().detach().sum() for parameter in model.parameters()]
    return {**by_torch(), "weights": float(sum(whole))}


def dcp(who: Who) -> Told:
    """Save a checkpoint, at once and in the background, and load it again."""
    checkpoint: Any = import_module("torch.distributed.checkpoint")
    states: Any = import_module("torch.distributed.checkpoint.state_dict")
    folder = [tempfile.mkdtemp()]
    distributed.broadcast_object_list(folder)
    model = DistributedDataParallel(linear())
    checkpoint.save({"model": states.get_model_state_dict(model)}, checkpoint_id=f"{folder[0]}/1")
    checkpoint.async_save({"model": states.get_model_state_dict(model)}, checkpoint_id=f"{folder[0]}/2").result()
    distributed.barrier()
    again = DistributedDataParallel(linear())
    state = {"model": states.get_model_state_dict(again)}
    checkpoint.load(state, checkpoint_id=f"{folder[0]}/2")
    states.set_model_state_dict(again, state["model"])
    assert weights(again) == weights(model)
    del who
    return {**by_torch(), "weights": weights(again)}


def torchmetrics(who: Who) -> Told:
    metric = import_module("torchmetrics").MeanMetric()
    metric.update(torch.tensor(float(who.rank)))
    assert metric.compute().item() == (who.world_size - 1) / 2
    return by_torch()


def accelerate(who: Who) -> Told:
    accelerator = import_module("accelerate").Accelerator(cpu=True)
    model = linear()
    model, optimizer = accelerator.prepare(model, sgd(model))
    train(model, optimizer, accelerator.backward)
    del who
    return {
        "rank": accelerator.process_index,
        "size": accelerator.num_processes,
        "local_rank": accelerator.local_process_index,
        "device": accelerator.device.type,
        "weights": weights(model),
    }


class Losses(nn.Module):
    """A model as the Trainer of transformers takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def forward(self, inputs: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"loss": self.inner(inputs).square().mean()}


def transformers(who: Who) -> Told:
    library = import_module("transformers")
    arguments = library.TrainingArguments(
        output_dir=tempfile.mkdtemp(), use_cpu=True, max_steps=STEPS, per_device_train_batch_size=8,
        learning_rate=0.1, report_to=[], save_strategy="no", disable_tqdm=True, logging_strategy="no",
    )  # fmt: skip
    data = [{"inputs": inputs} for batch in batches() for inputs in batch] * who.world_size
    trainer = library.Trainer(model=Losses(), args=arguments, train_dataset=data)
    trainer.train()
    return {
        "rank": arguments.process_index,
        "size": arguments.world_size,
        "local_rank": arguments.local_process_index,
        "device": arguments.device.type,
        "mode": arguments.parallel_mode.value,
        "weights": weights(trainer.model),
    }


def fabric(who: Who, plugins: tuple[Any, ...] = ()) -> Told:
    library = import_module("lightning.fabric")
    made = library.Fabric(
        accelerator="cpu", devices=who.local_world_size or who.world_size, num_nodes=who.num_nodes or 1,
        strategy="ddp", plugins=list(plugins),
    )  # fmt: skip
    made.launch()
    model = linear()
    model, optimizer = made.setup(model, sgd(model))
    train(model, optimizer, made.backward)
    return {
        "rank": made.global_rank,
        "size": made.world_size,
        "local_rank": made.local_rank,
        "device": made.device.type,
        "weights": weights(model),
    }


def lightning(who: Who, plugins: tuple[Any, ...] = ()) -> Told:
    library = import_module("lightning.pytorch")

    def configure_optimizers(self: Any) -> Any:
        return sgd(self)

    def training_step(self: Any, batch: Any, index: int) -> Any:
        del index
        return self.inner(batch[0]).square().mean()

    steps = {"configure_optimizers": configure_optimizers, "training_step": training_step}
    model: Any = type("Model", (library.LightningModule,), steps)()
    model.inner = linear()
    trainer = library.Trainer(
        accelerator="cpu", devices=who.local_world_size or who.world_size, num_nodes=who.num_nodes or 1, strategy="ddp",
        plugins=list(plugins), max_steps=STEPS, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    data: Any = torch.utils.data.TensorDataset(torch.cat([*batches()] * who.world_size))
    trainer.fit(model, torch.utils.data.DataLoader(data, batch_size=8, num_workers=0))
    return {
        "rank": trainer.global_rank,
        "size": trainer.world_size,
        "local_rank": trainer.local_rank,
        "device": trainer.strategy.root_device.type,
        "weights": weights(model),
    }


def environment(who: Who) -> tuple[Any, ...]:
    return (import_module("colossalai_env.integrations.lightning").cluster_environment(who),)


def fabric_told(who: Who) -> Told:
    return fabric(who, environment(who))


def lightning_told(who: Who) -> Told:
    return lightning(who, environment(who))


def ignite(who: Who) -> Told:
    idist = import_module("ignite.distributed")
    if not distributed.is_initialized():
        idist.initialize("gloo")
    model = idist.auto_model(linear())
    train(model, idist.auto_optim(sgd(model)))
    del who
    return {
        "rank": idist.get_rank(),
        "size": idist.get_world_size(),
        "local_rank": idist.get_local_rank(),
        "device": idist.device().type,
        "weights": weights(model),
    }


def deepspeed(who: Who) -> Told:
    library = import_module("deepspeed")
    # Its extension for CPUs takes a minute to compile at its first use; without it gloo does the same.
    library.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    library.init_distributed(dist_backend="gloo")
    model = linear()
    settings = {
        "train_micro_batch_size_per_gpu": 8,
        "zero_optimization": {"stage": 1},
        "zero_allow_untested_optimizer": True,
    }
    engine, *_ = library.initialize(model=model, optimizer=sgd(model), config=settings)
    for inputs in batches():
        engine.backward(engine(inputs).square().mean())
        engine.step()
    del who
    return {
        "rank": engine.global_rank,
        "size": engine.world_size,
        "local_rank": engine.local_rank,
        "device": engine.device.type,
        "weights": weights(engine),
    }


def jax(who: Who) -> Told:
    arguments = import_module("colossalai_env.integrations.jax").initialize_arguments(who)
    library = import_module("jax")
    library.distributed.initialize(**arguments)
    numbers: Any = import_module("jax.experimental.multihost_utils").process_allgather(library.process_index())
    told = {
        "rank": library.process_index(),
        "size": library.process_count(),
        "device": library.devices()[0].platform,
        "weights": float(numbers.sum()),
    }
    library.distributed.shutdown()
    return told


USED: dict[str, Callable[[Who], Told]] = {
    use.__name__: use
    for use in (
        ddp, device_mesh, fsdp2, dcp, torchmetrics, accelerate, transformers, fabric, fabric_told, lightning,
        lightning_told, ignite, deepspeed, jax,
    )
}  # fmt: skip
