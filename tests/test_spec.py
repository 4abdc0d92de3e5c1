"""DistSpec: what it takes, what it refuses, and how it travels."""

import pickle
import socket
from typing import Any

import attrs
import pytest
from hypothesis import given

from colossalai_env import DistSpec, resolve
from colossalai_env.errors import InvalidSpec
from colossalai_env.resolver import host_name, whole_number
from colossalai_env.testing import dist_specs


@given(dist_specs())
def test_it_pickles_compares_hashes_and_prints_on_one_line(spec: DistSpec) -> None:
    again = pickle.loads(pickle.dumps(spec))
    assert again == spec
    assert hash(again) == hash(spec)
    assert again.sources == spec.sources
    assert "\n" not in str(spec)
    assert f"rank {spec.rank} of {spec.world_size}" in str(spec)


def test_sources_are_no_part_of_equality_and_cannot_be_changed() -> None:
    spec = DistSpec(rank=0, world_size=1, sources={"rank": "RANK"})
    assert spec == DistSpec(rank=0, world_size=1)
    sources: Any = spec.sources
    with pytest.raises(TypeError):
        sources["rank"] = "OTHER"


def test_it_is_frozen() -> None:
    spec: Any = DistSpec(rank=0, world_size=1)
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        spec.rank = 1


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"rank": 2, "world_size": 2}, "rank counts from 0 and must be below world_size"),
        ({"rank": -1, "world_size": 2}, "rank is -1"),
        ({"rank": True, "world_size": 2}, "rank is True"),
        ({"rank": "0", "world_size": 2}, "rank is '0'"),
        ({"rank": 0, "world_size": 0}, "world_size is 0"),
        ({"rank": 0, "world_size": 2**31}, "world_size is 2147483648"),
        (
            {"rank": 0, "world_size": 4, "local_rank": 2, "local_world_size": 2},
            "local_rank counts from 0 and must be below",
        ),
        ({"rank": 0, "world_size": 4, "node_rank": 2, "num_nodes": 2}, "node_rank counts from 0 and must be below"),
        ({"rank": 0, "world_size": 4, "num_nodes": 5}, "more nodes than processes"),
        ({"rank": 0, "world_size": 4, "local_world_size": 4, "num_nodes": 2}, "more processes on the nodes"),
        ({"rank": 0, "world_size": 4, "local_world_size": 2, "num_nodes": 1}, "must be equal"),
        ({"rank": 0, "world_size": 4, "port": 0}, "port is 0"),
        ({"rank": 0, "world_size": 4, "port": 65536}, "port is 65536"),
        ({"rank": 0, "world_size": 4, "host": "a:29500"}, "without port"),
        ({"rank": 0, "world_size": 4, "host": "[::1]"}, "brackets"),
        ({"rank": 0, "world_size": 4, "host": ""}, "not empty"),
        ({"rank": 0, "world_size": 4, "resolver": ""}, "resolver"),
    ],
)
def test_what_cannot_be_is_refused(fields: dict[str, Any], named: str) -> None:
    with pytest.raises(InvalidSpec, match=named):
        DistSpec(**fields)


@given(dist_specs())
def test_other_libraries_get_what_is_known(spec: DistSpec) -> None:
    variables = spec.to_env()
    assert variables["RANK"] == str(spec.rank)
    assert variables["WORLD_SIZE"] == str(spec.world_size)
    assert variables["LOCAL_RANK"] == str(spec.local_rank)
    assert (variables["MASTER_ADDR"], variables["MASTER_PORT"]) == (spec.host, str(spec.port))
    assert "LOCAL_RANK" not in DistSpec(rank=0, world_size=2).to_env()


@given(dist_specs())
def test_who_reads_the_variables_of_a_spec_gets_the_same_spec(spec: DistSpec) -> None:
    read = resolve(env=spec.to_env())
    for name in ("rank", "world_size", "local_rank", "local_world_size", "node_rank", "num_nodes", "host", "port"):
        assert getattr(read, name) == getattr(spec, name)
    assert read.job_id == spec.job_id


@pytest.mark.parametrize("known", [{}, {"host": "no-such-node", "job_id": "212.0"}])
def test_a_single_process_gets_loopback_and_a_port_that_is_free(known: dict[str, Any]) -> None:
    variables = DistSpec(rank=0, world_size=1, **known).to_env()
    assert variables["MASTER_ADDR"] == "127.0.0.1"
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", int(variables["MASTER_PORT"])))
    read = resolve(env=variables)
    assert (read.rank, read.world_size, read.job_id) == (0, 1, known.get("job_id"))


@pytest.mark.parametrize(
    "text", [" 3", "3.0", "\uff11", "1_0", "", "-1", "4294967296", "2147483648", "0" * 5000, "+1", "3 "]
)
def test_only_plain_decimals_are_numbers(text: str) -> None:
    with pytest.raises(ValueError, match="whole number from 0 to 2147483647"):
        whole_number(text)


@pytest.mark.parametrize("text", ["node1", "gpu-a01.cluster.example", "10.0.0.1", "::1", "fe80::1%eth0", "a_b", "n1."])
def test_names_and_addresses_are_hosts(text: str) -> None:
    assert host_name(text) == text


@pytest.mark.parametrize(
    "text", ["", "a b", "a:1", "[::1]", "::g", "1.2.3", "300.1.1.1", "http://a", "-a", "a..b", "é", "a" * 254]
)
def test_what_carries_more_than_a_host_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="host name or an IP address alone"):
        host_name(text)
