"""Slurm's host lists, against their own grammar and against two other readers of it."""

from importlib import import_module
from typing import Any

import pytest
from ClusterShell.NodeSet import NodeSet
from colossalai_env_slurm.hostlist import HostList
from colossalai_env_slurm.tasks import TaskCounts
from hypothesis import given
from hypothesis import strategies as st

from colossalai_env.testing import host_lists

HANDMADE = {
    "gpu-a[01-02],gpu-b07,rack1-n[9-10],rack2-n010": [
        "gpu-a01",
        "gpu-a02",
        "gpu-b07",
        "rack1-n9",
        "rack1-n10",
        "rack2-n010",
    ],
    "n[08-11]": ["n08", "n09", "n10", "n11"],
    "n[098-101]": ["n098", "n099", "n100", "n101"],
    "n[9-10]": ["n9", "n10"],
    "n[007]": ["n007"],
    "n[3,1-2]": ["n3", "n1", "n2"],
    "r[1-2]n[1-2]-ib": ["r1n1-ib", "r1n2-ib", "r2n1-ib", "r2n2-ib"],
    "b,a": ["b", "a"],
    "login1": ["login1"],
}


@pytest.mark.parametrize("text", HANDMADE)
def test_a_list_is_read_in_the_order_given(text: str) -> None:
    hosts = HostList.parse(text)
    assert list(hosts) == HANDMADE[text]
    assert len(hosts) == len(HANDMADE[text])
    assert [hosts[index] for index in range(len(hosts))] == HANDMADE[text]


@pytest.mark.parametrize(
    "text", ["", ",", "a,", "n[", "n[]", "n[1-", "n[a]", "n[2-1]", "n]1[", "a b", "n[1-2", "n[\uff11]", "n[1,]"]
)
def test_what_is_no_list_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="host list"):
        list(HostList.parse(text))


@given(host_lists())
def test_it_reads_what_is_meant_and_what_two_other_readers_read(drawn: tuple[str, tuple[str, ...]]) -> None:
    text, meant = drawn
    hosts = list(HostList.parse(text))
    assert hosts == list(meant)
    hostlist: Any = import_module("hostlist")
    assert hosts == hostlist.expand_hostlist(text, allow_duplicates=True)
    if "0" not in text:  # ClusterShell takes 08 and 8 in one list for one width
        assert set(hosts) == set(NodeSet(text))


@given(host_lists())
def test_any_host_is_found_without_the_others(drawn: tuple[str, tuple[str, ...]]) -> None:
    hosts = HostList.parse(drawn[0])
    assert [hosts[index] for index in range(len(hosts))] == list(hosts)
    assert hosts[-1] == list(hosts)[-1]
    with pytest.raises(IndexError):
        hosts[len(hosts)]


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 5)), min_size=1))
def test_task_counts_are_read_without_expanding_them(runs: list[tuple[int, int]]) -> None:
    text = ",".join(f"{count}(x{repeat})" if repeat > 1 else str(count) for count, repeat in runs)
    expanded = [count for count, repeat in runs for _ in range(repeat)]
    counts = TaskCounts.parse(text)
    assert (len(counts), counts.total) == (len(expanded), sum(expanded))
    assert [counts[node] for node in range(len(counts))] == expanded


@pytest.mark.parametrize("text", ["", "2(x", "2x3", "2(x3", "a", "2,", "2(3)", "-1"])
def test_what_are_no_task_counts_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match=r"2\(x3\),1"):
        TaskCounts.parse(text)
