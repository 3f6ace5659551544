import pytest
import torch
from torch.nn.functional import linear

from latentcap.inference.product import Product


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("beams", [1, 3])
def test_a_product_is_linear(dtype: torch.dtype, beams: int) -> None:
    weight, bias = torch.randn(22, 13, dtype=dtype), torch.randn(22, dtype=dtype)
    with torch.inference_mode():
        for batch in (1, 2, 7, 41, 130):
            values = torch.randn(batch, beams, 13, dtype=dtype)
            for given in (bias, None):
                found = Product(weight, given)(values)
                torch.testing.assert_close(found, linear(values, weight, given), rtol=0.02, atol=0.02)


def test_products_are_compiled_for_few_numbers_of_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    rows, original = set(), torch.ops.mkldnn._linear_pointwise
    product = Product(torch.randn(8, 4), torch.randn(8))
    if product._packed is None:
        pytest.skip("this PyTorch has no oneDNN")

    def counted(values: torch.Tensor, *more: object) -> torch.Tensor:
        rows.add(len(values))
        found: torch.Tensor = original(values, *more)
        return found

    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", counted)
    for count in range(1, 129):
        product(torch.randn(count, 3, 4))
    assert len(rows) <= 36


def test_what_onednn_cannot_pack_is_computed_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, values = torch.randn(8, 4), torch.randn(2, 3, 4)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    product = Product(weight)
    assert product._packed is None
    torch.testing.assert_close(product(values), linear(values, weight))
    assert Product(torch.zeros(0, 4))(values).shape == (2, 3, 0)
