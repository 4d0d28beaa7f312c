"""Folds keep what belongs together together, share out every class, and never change for the same samples."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dist_train.sources import folds


def _alone(count: int) -> list[list[int]]:
    return [[sample] for sample in range(count)]


@given(st.lists(st.integers(0, 5), min_size=10, max_size=120), st.integers(2, 7))
def test_separate_clips_are_shared_out_class_by_class(classes: list[int], k: int) -> None:
    labels = [(str(label),) for label in classes]
    found = folds.assign([f"{clip}.wav" for clip in range(len(labels))], labels, _alone(len(labels)), k)
    for label in set(labels):
        counts = Counter(fold for fold, other in zip(found, labels, strict=True) if other == label)
        sizes = [counts[fold] for fold in range(1, k + 1)]
        assert max(sizes) - min(sizes) <= 1
    assert set(found) <= set(range(1, k + 1))


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 9), st.integers(0, 30)), min_size=30, max_size=80))
def test_a_group_and_equal_bytes_stay_in_one_fold(clips: list[tuple[int, int, int]]) -> None:
    labels = [(str(label),) for label, _, _ in clips]
    bonds = [[("group", group), ("bytes", digest)] for _, group, digest in clips]
    bonds += [[("group", 100 + extra)] for extra in range(2)]  # so that two folds are possible
    names = [str(clip) for clip in range(len(bonds))]
    found = folds.assign(names, [*labels, ("a",), ("b",)], bonds, 2)
    for bond in {bond for held in bonds for bond in held}:
        assert len({fold for fold, held in zip(found, bonds, strict=True) if bond in held}) == 1


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=6), min_size=6, max_size=25), st.integers(2, 5))
def test_groups_of_several_classes_are_dealt_no_worse_than_at_random(groups: list[list[int]], k: int) -> None:
    """Sum over classes and folds of count² / total, beside its mean over all ways to deal the groups out."""
    labels = [(str(label),) for group in groups for label in group]
    bonds = [[("group", number)] for number, group in enumerate(groups) for _ in group]
    found = folds.assign([str(clip) for clip in range(len(labels))], labels, bonds, k)
    spent, random = 0.0, 0.0
    for label in set(labels):
        total = labels.count(label)
        counts = Counter(fold for fold, other in zip(found, labels, strict=True) if other == label)
        together = sum(group.count(int(label[0])) ** 2 for group in groups)
        spent += sum(count**2 for count in counts.values()) / total
        random += (together + (total**2 - together) / k) / total
    assert spent <= random + 1e-9


def test_groups_of_different_size_still_balance() -> None:
    labels = [(f"class {clip % 4}",) for clip in range(400)]
    bonds = [[("group", clip // 10 if clip < 200 else clip // 3)] for clip in range(400)]
    found = folds.assign([str(clip) for clip in range(400)], labels, bonds, 5)
    counts = Counter(zip(labels, found, strict=True))
    assert all(14 <= count <= 26 for count in counts.values())
    assert all(70 <= count <= 90 for count in Counter(found).values())


def test_the_same_samples_get_the_same_folds_for_ever() -> None:
    names = [f"{clip}.wav" for clip in range(12)]
    found = folds.assign(names, [("a", "b") if clip % 3 else ("a",) for clip in range(12)], _alone(12), 3)
    assert found == [2, 3, 3, 1, 1, 2, 1, 3, 2, 2, 1, 1]


def test_more_folds_than_recordings_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"5 folds are not possible: .*: 2; give --folds 2, or --folds 0 for none"):
        folds.assign(["a", "b", "c"], [("x",)] * 3, [["one"], ["one"], ["two"]], 5)


def test_thin_names_the_classes_that_a_fold_lacks() -> None:
    assert folds.thin([("a",), ("a",), ("b", "a")], [1, 2, 1], 2) == ["b"]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 9)), min_size=8, max_size=40), st.integers(2, 5))
def test_groups_of_one_class_each_differ_by_the_largest_at_most(groups: list[tuple[int, int]], k: int) -> None:
    labels = [(str(label),) for label, size in groups for _ in range(size)]
    bonds = [[("group", number)] for number, (_, size) in enumerate(groups) for _ in range(size)]
    found = folds.assign([str(clip) for clip in range(len(labels))], labels, bonds, k)
    for label in {label for label, _ in groups}:
        counts = Counter(fold for fold, (other,) in zip(found, labels, strict=True) if other == str(label))
        sizes = [counts[fold] for fold in range(1, k + 1)]
        assert max(sizes) - min(sizes) <= max(size for other, size in groups if other == label)
