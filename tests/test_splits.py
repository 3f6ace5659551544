"""A share of train as val, where data have none."""

from __future__ import annotations

import pytest

from latentcap.data.errors import UserError
from latentcap.data.example import Example, ImageRef
from latentcap.data.readers.splits import share_for_validation


def example(number: int, **more: str) -> Example:
    return Example(id=f"{number}", images=(ImageRef(f"{number // 2}.jpg"),), **more)


def val(examples: list[Example]) -> set[str]:
    return {one.id for one in examples if one.split == "val"}


def test_a_share_goes_to_val_by_seed_and_image_and_whatever_the_order() -> None:
    examples = [example(number) for number in range(400)] + [example(1000, split="test")]
    chosen = share_for_validation(examples, share=0.1, seed=1)
    assert 20 < len(val(chosen)) < 60
    assert val(share_for_validation(examples[::-1], share=0.1, seed=1)) == val(chosen)
    assert val(share_for_validation(examples, share=0.1, seed=2)) != val(chosen)
    assert {str(int(id) ^ 1) for id in val(chosen)} == val(chosen)  # two examples share an image: both or none
    assert chosen[-1].split == "test"


def test_patients_are_not_divided_and_neither_split_is_empty() -> None:
    patients = [example(number, group=f"p{number % 3}") for number in range(30)]
    moved = share_for_validation(patients, share=0.01)
    assert len({one.group for one in moved if one.split == "val"}) == 1
    assert len(val(moved)) == 10
    assert len(val(share_for_validation(patients, share=1.0))) == 20
    with pytest.raises(UserError, match="all of one image, patient or case"):
        share_for_validation([example(0, group="p"), example(5, group="p")])


def test_the_choice_does_not_depend_on_where_the_data_are() -> None:
    here = [Example(id=f"{n}.jpg", images=(ImageRef(f"/here/{n}.jpg"),)) for n in range(50)]
    there = [Example(id=f"{n}.jpg", images=(ImageRef(f"there/{n}.jpg"),)) for n in range(50)]
    assert val(share_for_validation(here)) == val(share_for_validation(there))
