"""Some of the cases of tests/fuzz.py: no crash, no hang, no wrong answer, and every refusal is one line."""

import fuzz
import pytest
from mutations import KINDS as DAMAGES

FEW = {"tar": 60, "index": 60, "wav": 150, "configuration": 100, "checkpoint": 80}


@pytest.fixture(autouse=True)
def _unchanged(monkeypatch):
    monkeypatch.setattr(fuzz.intact, "SMALL", fuzz.intact.SMALL)  # the cases change it


@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_damaged_input_is_read_right_or_refused(kind):
    outcomes, failed = fuzz.run(kind, 0, FEW[kind])
    assert failed == []
    assert outcomes[fuzz.REFUSED] > FEW[kind] // 10, "the damages do damage"
    assert outcomes[fuzz.READ] > 0, "and not everything is refused"


@pytest.mark.full
@pytest.mark.parametrize("kind", fuzz.KINDS)
def test_many_damaged_inputs_are_read_right_or_refused(kind):
    assert fuzz.run(kind, 1000, 2000)[1] == []


def test_every_damage_changes_bytes():
    raw = bytes(range(256)) * 8
    for damage in DAMAGES:
        changed = [bytearray(raw) for _ in range(20)]
        for seed, one in enumerate(changed):
            damage(one, fuzz.Random(seed))
        assert any(one != raw for one in changed), damage.__name__
