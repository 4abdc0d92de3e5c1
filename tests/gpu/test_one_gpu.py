"""On a machine with a GPU: NCCL, what variables leave, sharing, forks, and what stays behind."""

import json
import re
import shutil
import sys
from importlib.util import find_spec

import pytest

from colossalai_env import _machine as machine
from tests.devices import SHOWN, count
from tests.gpu.running import BOTH, at_once, command, on_gpu, ranks, told
from tests.processes import TORCHRUN, Ended, run

pytestmark = pytest.mark.gpu

SUMS = """
with init_from_env(timeout=120) as job:
    sums = [total(job.device), total("cpu")]
    tell(device=str(job.device), backend=job.backend, sums=sums, current=torch.cuda.current_device(), on=contexts(),
         peers=[peer.device for peer in job.topology])
assert not distributed.is_initialized()
"""

NAMED = "tell(backend=job.backend, device=str(job.device), sum=total(job.device))"

ALONE = {
    "sums": SUMS,
    "closes nothing": "job = init_from_env(); tell(sum=total(job.device))",
    "launch": f"job = colossalai_env.launch({{}}, 0, 1, 'localhost', 29500); {NAMED}",
    "nccl": f"job = init_from_env(backend='nccl', device='cuda'); {NAMED}",
    "gloo": f"job = init_from_env(backend='gloo', device=0); {NAMED}",
    "both": f"job = init_from_env(backend={BOTH!r}); {NAMED}",
    "timeout": """
job = init_from_env()
group = distributed.distributed_c10d._get_default_group()
tell(seconds=group._get_backend(torch.device("cuda")).options._timeout.total_seconds())
""",
    "on the cpu": """
with init_from_env(device="cpu") as job:
    facts = dict(initialised=torch.cuda.is_initialized(), child=in_a_fork())
    tell(backend=job.backend, device=str(job.device), sum=total("cpu"), **facts)
""",
    "counting": """
from colossalai_env._devices import Accelerators
seen = Accelerators.here()
tell(kind=seen.kind, visible=seen.visible, child=in_a_fork())
""",
    "before the group": """
from colossalai_env import _hardware as hardware
from colossalai_env.resolver import Environ
from colossalai_env._devices import choose, index_of, named
accelerators, backend = choose(None, None, Environ(), 0)
hardware.select(named(accelerators, index_of(None, 0, accelerators, 0)))
tell(visible=accelerators.visible, ids=accelerators.ids, on=contexts())
""",
    "data loader": """
from torch.utils.data import DataLoader, TensorDataset
with init_from_env() as job:
    data = TensorDataset(torch.arange(64.0))
    loader = DataLoader(data, batch_size=8, num_workers=2, multiprocessing_context="fork", pin_memory=True)
    found = sum(batch[0].to(job.device).sum().item() for batch in loader)
    tell(found=found, sum=total(job.device))
""",
    "training": """
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel
with init_from_env(seed=7) as job:
    losses = []
    for wrap in (lambda model: DistributedDataParallel(model, device_ids=[job.device.index]), fully_shard):
        model = wrap(torch.nn.Linear(8, 1).to(job.device))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        inputs = torch.randn(64, 8, device=job.device)
        for _ in range(20):
            optimizer.zero_grad()
            loss = (model(inputs) - inputs.sum(1, keepdim=True)).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(loss.item())
    tell(losses=losses)
""",
    "nccl fails": """
os.environ["NCCL_SOCKET_IFNAME"] = "absent0"
try:
    init_from_env()
except colossalai_env.ColossalaiEnvError as error:
    tell(kind=type(error).__name__, text=str(error))
""",
}
"""Programs that need nothing of each other: each takes seconds to import torch, so all run at once."""


@pytest.fixture(scope="module")
def alone() -> dict[str, Ended]:
    """Run them all, and return how each ended."""
    return dict(zip(ALONE, at_once([(program, {}) for program in ALONE.values()]), strict=True))


def test_alone_a_process_gets_the_gpu_and_both_kinds_of_tensors_have_a_backend(alone: dict[str, Ended]) -> None:
    found = told(alone["sums"])
    assert (found["device"], found["backend"], found["sums"]) == ("cuda:0", BOTH, [1.0, 1.0])
    assert (found["current"], found["on"]) == (0, [0])
    assert found["peers"] == ["cuda:0"]


def test_a_program_that_closes_nothing_ends_in_silence(alone: dict[str, Ended]) -> None:
    assert told(alone["closes nothing"])["sum"] == 1.0


@pytest.mark.parametrize(("name", "backend"), [("launch", "nccl"), ("nccl", "nccl"), ("gloo", "gloo"), ("both", BOTH)])
def test_a_backend_that_is_named_is_the_one(name: str, backend: str, alone: dict[str, Ended]) -> None:
    assert told(alone[name]) == {"backend": backend, "device": "cuda:0", "sum": 1.0}


def test_a_group_with_nccl_has_nccls_timeout(alone: dict[str, Ended]) -> None:
    assert told(alone["timeout"])["seconds"] == 600


def test_a_job_on_the_cpu_leaves_the_gpu_alone_and_its_forks_free_to_use_it(alone: dict[str, Ended]) -> None:
    found = told(alone["on the cpu"])
    assert found == {"backend": "gloo", "device": "cpu", "sum": 1.0, "initialised": False, "child": "2.0"}


def test_counting_devices_leaves_forks_free_to_use_them(alone: dict[str, Ended]) -> None:
    assert told(alone["counting"]) == {"kind": "cuda", "visible": count(), "child": "2.0"}


def test_before_the_group_is_made_no_device_has_a_context(alone: dict[str, Ended]) -> None:
    found = told(alone["before the group"])
    assert found["on"] == []
    assert len(found["ids"]) == found["visible"] == count()


def test_workers_of_a_data_loader_that_are_forked_after_init_do_their_work(alone: dict[str, Ended]) -> None:
    assert told(alone["data loader"]) == {"found": 64 * 63 / 2, "sum": 1.0}


def test_ddp_and_fsdp2_train_after_init(alone: dict[str, Ended]) -> None:
    assert alone["training"].code == 0, alone["training"].err
    (line,) = alone["training"].lines("TOLD ")
    assert all(loss < 0.5 for loss in json.loads(line)["losses"])


def test_nccls_own_failure_is_our_error_with_its_last_line_and_the_setting(alone: dict[str, Ended]) -> None:
    found = told(alone["nccl fails"])
    assert found["kind"] == "GroupFailed"
    assert "no socket interface found" in found["text"]
    assert found["text"].endswith("(NCCL_SOCKET_IFNAME is 'absent0').")


def test_under_torchrun_it_is_the_same() -> None:
    torchrun = [*TORCHRUN, "--standalone", "--nproc-per-node=1", "--no-python"]
    found = told(run([*torchrun, *command(SUMS)], SHOWN))
    assert (found["device"], found["backend"], found["sums"]) == ("cuda:0", BOTH, [1.0, 1.0])


def test_in_torchs_debug_level_detail_it_works_too() -> None:
    program = "job = init_from_env(); tell(sum=total(job.device)); job.close()"
    ended = on_gpu(program, {"TORCH_DISTRIBUTED_DEBUG": "DETAIL"})
    assert ended.code == 0, ended.err
    assert '"sum": 1.0' in ended.out


def test_init_and_close_four_times_take_no_more_memory_than_twice() -> None:
    program = """
used = []
for _ in range(4):
    with init_from_env() as job:
        assert total(job.device) == 1.0
        free, whole = torch.cuda.mem_get_info()
        used.append((whole - free) >> 20)
tell(used=used)
"""
    used = told(on_gpu(program))["used"]
    assert used[3] - used[1] < 64, used


@pytest.mark.skipif(find_spec("accelerate") is None, reason="Accelerate is not installed")
def test_accelerate_takes_the_group_over() -> None:
    program = """
from accelerate import Accelerator
with init_from_env(timeout=120) as job:
    accelerator = Accelerator()
    model = accelerator.prepare(torch.nn.Linear(2, 1))
    accelerator.backward(model(torch.ones(1, 2, device=accelerator.device)).sum())
    tell(device=str(accelerator.device), gathered=accelerator.gather(torch.ones(1, device=job.device)).tolist())
"""
    ended = ranks(program, [{"LOCAL_WORLD_SIZE": "1"}])[0]
    assert ended.code == 0, ended.err
    assert '"gathered": [1.0]' in ended.out


COMMAND = [sys.executable, "-m", "colossalai_env"]


def test_check_sums_over_nccl_and_draws_the_map() -> None:
    ended = run([*COMMAND, "check"], SHOWN)
    assert ended.code == 0, ended.err
    assert ended.out.startswith(f"1 rank on 1 node, {BOTH}, by single-process")
    assert re.search(r"cuda:0 \(.+\)", ended.out)
    assert "All ranks met, and their sums are right." in ended.out


def test_doctor_names_the_gpus() -> None:
    ended = run([*COMMAND, "doctor", "--json"], SHOWN)
    found = {one["topic"]: one for one in json.loads(ended.out)}
    assert found["devices"]["state"] == "ok"
    assert re.match(rf"{count()} of kind cuda: (GPU|MIG)-", found["devices"]["found"])
    assert found["NCCL"]["state"] == "ok"
    ended = run([*COMMAND, "doctor", "--json"], {**SHOWN, "CUDA_VISIBLE_DEVICES": "foo"})
    found = {one["topic"]: one for one in json.loads(ended.out)}
    assert (ended.code, found["devices"]["state"]) == (1, "wrong")
    assert "CUDA_VISIBLE_DEVICES is 'foo', and 'foo' is neither a number nor a UUID" in found["devices"]["found"]


UUIDS = machine.nvml().ids
UUID = UUIDS[0] if UUIDS else "GPU-0"
BEYOND = str(len(UUIDS) or 1)
ELSEWHERE = "GPU-00000000-0000-0000-0000-000000000000"

MISTAKEN = {
    "0,0": "it names '0' twice",
    f"{BEYOND},0": f"'{BEYOND}' is none of its devices",
    BEYOND: f"'{BEYOND}' is none of its devices",
    "foo": "'foo' is neither a number nor a UUID",
    "all": "'all' is neither a number nor a UUID",
    "none": "'none' is neither a number nor a UUID",
    UUID.lower(): f"'{UUID.lower()}' is neither a number nor a UUID",
    ELSEWHERE: f"no device here is '{ELSEWHERE}'",
}
RIGHT = [f"0,{BEYOND}", "0,foo", "0,-1,0", " 0", "0", UUID, UUID[:12]]
MEANT = ["", "-1", "NoDevFiles", "10000"]


@pytest.fixture(scope="module")
def by_value() -> dict[str, Ended]:
    """Run the same program with each value of CUDA_VISIBLE_DEVICES, all at once."""
    program = """
try:
    with init_from_env() as job:
        tell(device=str(job.device), backend=job.backend, sum=total(job.device))
except colossalai_env.ColossalaiEnvError as error:
    tell(kind=type(error).__name__, text=str(error))
"""
    values = [*MISTAKEN, *RIGHT, *MEANT]
    ended = at_once([(program, {"CUDA_VISIBLE_DEVICES": value}) for value in values])
    return dict(zip(values, ended, strict=True))


@pytest.mark.parametrize("value", RIGHT)
def test_a_list_that_leaves_a_gpu_is_right(value: str, by_value: dict[str, Ended]) -> None:
    assert told(by_value[value]) == {"device": "cuda:0", "backend": BOTH, "sum": 1.0}


@pytest.mark.parametrize("value", MEANT)
def test_where_no_gpu_is_meant_there_is_none_and_nothing_is_said(value: str, by_value: dict[str, Ended]) -> None:
    assert told(by_value[value]) == {"device": "cpu", "backend": "gloo", "sum": 1.0}
    assert "accelerator" not in by_value[value].err


@pytest.mark.parametrize("value", MISTAKEN)
def test_a_list_that_leaves_none_by_mistake_is_an_error_that_names_the_entry(
    value: str, by_value: dict[str, Ended]
) -> None:
    found = told(by_value[value])
    assert found["kind"] == "UnusableDevices"
    assert f"CUDA_VISIBLE_DEVICES is {value!r}, and {MISTAKEN[value]}" in found["text"]
    assert "device='cpu'" in found["text"]


def test_a_slice_of_a_gpu_by_its_uuid_is_a_device() -> None:
    listed = run(["nvidia-smi", "-L"], SHOWN).out if shutil.which("nvidia-smi") else ""
    slices = re.findall(r"\(UUID: (MIG-[^)]+)\)", listed)
    if not slices:
        pytest.skip("no GPU here is in MIG mode, as far as nvidia-smi says")
    found = told(on_gpu(SUMS, {"CUDA_VISIBLE_DEVICES": slices[0]}))
    assert (found["device"], found["sums"]) == ("cuda:0", [1.0, 1.0])


FAILS = """
try:
    with init_from_env(timeout=120) as job:
        tell(device=str(job.device), sum=total(job.device, job.rank + 1.0))
except colossalai_env.ColossalaiEnvError as error:
    tell(kind=type(error).__name__, text=str(error))
"""
ONE = {"CUDA_VISIBLE_DEVICES": "0"}


def test_two_ranks_on_one_gpu_are_refused_by_name_with_every_way_out() -> None:
    found = [told(ended) for ended in ranks(FAILS, [ONE, ONE])]
    assert [one["kind"] for one in found] == ["SharedDevice"] * 2
    assert found[0]["text"] == found[1]["text"]
    assert UUID[:17] in found[0]["text"] or "MIG-" in found[0]["text"]
    for way in ("one process per device", "--gpus-per-task=1", "backend='gloo'", "device='cpu'"):
        assert way in found[0]["text"]


def test_two_ranks_share_a_gpu_over_gloo_with_one_warning() -> None:
    ended = ranks(FAILS.replace("timeout=120", "timeout=30, backend='gloo'"), [ONE, ONE])
    assert [told(one) for one in ended] == [{"device": "cuda:0", "sum": 3.0}] * 2
    assert ["share device" in one.err for one in ended] == [True, False]


def test_two_ranks_with_one_local_rank_on_one_host_sum_on_cpus() -> None:
    ended = ranks(FAILS.replace("timeout=120", "timeout=30, device='cpu'"), [{"LOCAL_RANK": "0"}] * 2)
    assert [told(one) for one in ended] == [{"device": "cpu", "sum": 3.0}] * 2


def test_where_one_of_two_ranks_sees_no_gpu_both_learn_who_sees_what() -> None:
    found = [told(ended) for ended in ranks(FAILS, [ONE, {"CUDA_VISIBLE_DEVICES": ""}])]
    assert [one["kind"] for one in found] == ["InconsistentRanks"] * 2
    assert "sees no accelerator (CUDA_VISIBLE_DEVICES is '') and takes gloo" in found[0]["text"]
    assert "sees 1 cuda device(s) (CUDA_VISIBLE_DEVICES is '0')" in found[0]["text"]


def test_where_one_of_two_ranks_hides_its_gpu_by_mistake_both_learn_the_entry() -> None:
    found = [told(ended) for ended in ranks(FAILS, [ONE, {"CUDA_VISIBLE_DEVICES": "foo"}])]
    assert [one["kind"] for one in found] == ["RankFailed", "UnusableDevices"]
    assert all("'foo' is neither a number nor a UUID" in one["text"] for one in found)
