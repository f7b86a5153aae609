"""Rotations: complex numbers, and dot products that depend on differences alone."""

import torch

from seqrec.nn.rotation import LONGEST, MINUTE, rotate, turn_by_time


def test_a_plane_turns_as_a_complex_number_does() -> None:
    generator = torch.Generator().manual_seed(0)
    x, seconds = torch.randn(5, 2, 6, generator=generator), torch.tensor([0, 30, 60, 4000, 10**8])
    turned = rotate(x, turn_by_time(seconds, 6))
    periods = torch.tensor([MINUTE, (MINUTE * LONGEST) ** 0.5, LONGEST], dtype=torch.float64)
    angles = 2 * torch.pi * seconds.double()[:, None] / periods
    expected = torch.complex(x[..., :3].double(), x[..., 3:].double()) * torch.exp(1j * angles)[:, None]
    torch.testing.assert_close(turned, torch.cat([expected.real, expected.imag], dim=-1).float())


def test_only_time_between_events_matters() -> None:
    generator = torch.Generator().manual_seed(0)
    x, seconds = torch.randn(8, 1, 16, generator=generator), torch.randint(0, 10**9, (8,), generator=generator)
    moments = (seconds, seconds + 123456789, seconds * 2)
    products = [torch.einsum("ihe,jhe->ij", (y := rotate(x, turn_by_time(at, 16))), y) for at in moments]
    torch.testing.assert_close(products[1], products[0], rtol=1e-4, atol=1e-4)
    assert not torch.allclose(products[2], products[0], atol=0.1)
    torch.testing.assert_close(rotate(x, turn_by_time(torch.zeros(8, dtype=torch.int64), 16)), x)
