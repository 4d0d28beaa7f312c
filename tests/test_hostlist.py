"""The first machine of Slurm's short lists."""

import pytest

from dist_train.hosts import hostlist


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("dt0", "dt0"),
        ("dt[0-1]", "dt0"),
        ("gpu[03-05,9],login1", "gpu03"),
        ("a,b[1-2]", "a"),
        ("rack[2,4]n[10-12].example.com,x", "rack2n10.example.com"),
        ("node-[001-128]-ib", "node-001-ib"),
        ("", ""),
    ],
)
def test_the_first_of_a_list(text: str, name: str) -> None:
    assert hostlist.first(text) == name
