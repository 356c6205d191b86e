"""Ways of packing experts: what comes back, and in how many bytes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from umaf import seeds
from umaf.errors import ConfigError, RegistryError
from umaf.merging.stores import PACKERS, packer_of
from umaf.merging.stores.bits import count_bits, pack_bits, unpack_bits
from umaf.merging.stores.compeft import compeft, inner, majority
from umaf.merging.stores.rmm import rmm
from umaf.merging.stores.tall_masks import tall_masks


def deltas(experts, *shape, name="deltas"):
    return 0.01 * torch.randn(experts, *shape, generator=seeds.generator(0, name))


def low_rank(experts, out, into, rank):
    draw = seeds.generator(0, "low rank")
    return torch.randn(experts, out, rank, generator=draw) @ torch.randn(experts, rank, into, generator=draw)


def there_and_back(name, stack, weights, **options):
    packer = packer_of(name)
    found = {}
    if packer.measure:
        found = packer.measure(
            lambda: iter([("w", stack.reshape(len(stack), -1))]), models=len(stack), **options
        )
        parts = packer.pack(stack, totals=found, **options)
    else:
        parts = packer.pack(stack, **options)
    if packer.total:
        found = packer.total([parts])
    return packer.unpack(parts, torch.tensor(weights), stack.shape[1:], found)


@given(st.lists(st.booleans(), max_size=70))
def test_bits_come_back(wanted):
    mask = torch.tensor(wanted, dtype=torch.bool)
    packed = pack_bits(mask)
    assert packed.numel() == -(-len(wanted) // 8)
    assert torch.equal(unpack_bits(packed, mask.shape), mask)
    assert count_bits(packed) == sum(wanted)


@pytest.mark.parametrize("name", PACKERS.names())
@pytest.mark.parametrize("shape", [(6, 5), (7,), (), (2, 3, 4), (0,)])
def test_every_way_gives_the_shape_back_and_leaves_its_input(name, shape):
    stack = deltas(3, *shape)
    before = stack.clone()
    delta = there_and_back(name, stack, [0.0, 1.0, 0.0]) if stack.numel() else None
    assert torch.equal(stack, before)
    if delta is not None:
        assert delta.shape == torch.Size(shape)
        assert delta.dtype == torch.float32
        assert torch.isfinite(delta).all()


@pytest.mark.parametrize("name", PACKERS.names())
def test_deltas_of_zero_come_back_as_zero(name):
    assert not there_and_back(name, torch.zeros(2, 4, 4), [1.0, 0.0]).any()


@pytest.mark.parametrize("name", ["tall_masks", "emr", "twin", "rmm"])
def test_a_lone_expert_comes_back(name):
    options = {"share": 1.0} if name == "twin" else {}
    stack = deltas(1, 12, 12)
    back = there_and_back(name, stack, [1.0], **options)
    torch.testing.assert_close(back, stack[0], rtol=1e-5, atol=1e-7)


def test_experts_that_touch_different_weights_come_back_from_tall_masks():
    stack = torch.zeros(3, 9)
    for number in range(3):
        stack[number, 3 * number : 3 * number + 3] = number + 1.0
    for number in range(3):
        weights = [float(number == other) for other in range(3)]
        assert torch.equal(there_and_back("tall_masks", stack, weights), stack[number])


@settings(deadline=None, max_examples=30)
@given(st.floats(0, 2), st.floats(0, 2))
def test_masks_only_shrink_as_the_share_grows(low, more):
    stack = deltas(3, 40)
    counts = [
        sum(count_bits(tall_masks(stack, share=share)[f"mask.{n}"]) for n in range(3))
        for share in (low, low + more)
    ]
    assert counts[1] <= counts[0]


def test_emr_gives_each_expert_its_own_mean_magnitude():
    stack = deltas(3, 30, 30)
    for number in range(3):
        weights = [float(number == other) for other in range(3)]
        back = there_and_back("emr", stack, weights)
        assert back.abs().mean().item() == pytest.approx(stack[number].abs().mean().item(), rel=1e-4)
        assert (back * stack[number] >= 0).all()


def test_twin_with_all_singular_values_gives_every_expert_back():
    stack = deltas(3, 10, 6)
    for number in range(3):
        weights = [float(number == other) for other in range(3)]
        back = there_and_back("twin", stack, weights, share=1.0)
        torch.testing.assert_close(back, stack[number], rtol=1e-4, atol=1e-7)


def test_twin_with_no_weights_is_the_shared_expert():
    stack = deltas(3, 10, 6)
    back = there_and_back("twin", stack, [0.0, 0.0, 0.0], scale=0.3)
    torch.testing.assert_close(back, 0.3 * stack.sum(0), rtol=1e-6, atol=1e-9)


def test_compeft_keeps_the_share_it_was_asked_for_and_packs_to_the_same_bits_again():
    stack = deltas(2, 1000)
    back = there_and_back("compeft", stack, [1.0, 0.0], density=0.3)
    # The authors' program: `kthvalue(n - int(n density))`, `>=`, times `std()`.
    largest = stack[0].abs() >= stack[0].abs().kthvalue(1000 - 300).values
    assert int(largest.sum()) == 301
    torch.testing.assert_close(back, stack[0].std() * stack[0].sign() * largest)
    again = there_and_back("compeft", back[None], [1.0], density=0.3)
    assert torch.equal(again.sign(), back.sign())
    parts = compeft(stack, density=0.3)
    assert sum(part.numel() for part in parts.values()) == 4 * 125


def test_compeft_counts_on_bits_what_signs_give():
    parts = compeft(deltas(2, 500), density=0.5)
    signs = [
        unpack_bits(parts[f"plus.{n}"], (500,)).int() - unpack_bits(parts[f"minus.{n}"], (500,)).int()
        for n in range(2)
    ]
    assert inner(parts, 0, 1) == int((signs[0] * signs[1]).sum())
    votes = majority(parts, 2)
    total = sum(signs)
    assert torch.equal(unpack_bits(votes["plus"], (500,)), total > 0)
    assert torch.equal(unpack_bits(votes["minus"], (500,)), total < 0)


def test_rmm_with_a_full_basis_is_exact_and_with_less_is_near():
    stack = low_rank(4, 20, 15, 3)
    sizes = []
    for basis in (0, 1, 3):
        parts = rmm(stack, rank=3, basis=basis)
        back = there_and_back("rmm", stack, [0.0, 0.0, 1.0, 0.0], rank=3, basis=basis)
        sizes.append(
            (sum(p.numel() for p in parts.values()), float((back - stack[2]).norm() / stack[2].norm()))
        )
    assert sizes[2][1] < 1e-5
    assert sizes[0][1] > sizes[1][1] > sizes[2][1]
    # per row of a factor: the mean, p directions of r numbers, and p numbers for each of n experts
    assert [size for size, _ in sizes] == [35 * (3 + p * (3 + 4)) for p in (0, 1, 3)]


def test_rmm_mixes_whole_experts():
    stack = low_rank(3, 8, 8, 2)
    back = there_and_back("rmm", stack, [0.5, 0.0, -1.0], rank=2, basis=2)
    torch.testing.assert_close(back, 0.5 * stack[0] - stack[2], rtol=1e-4, atol=1e-4)


def test_an_unknown_way_is_a_sentence_with_a_suggestion():
    with pytest.raises(RegistryError, match="tall_masks"):
        packer_of("tallmasks")


def test_options_are_read_from_the_function():
    option = packer_of("compeft").options["density"]
    with pytest.raises(ConfigError, match=r"density must lie in \(0, 1\]"):
        option.check("compeft", 1.7)


def test_twin_counts_directions_as_the_authors_program_does():
    # 1 - 0.9 is a little less than a tenth.
    ranks = {
        side: packer_of("twin").pack(deltas(2, side, side), share=0.1)["up.0"].shape[1]
        for side in (8, 12, 40, 64)
    }
    assert ranks == {8: 1, 12: 1, 40: 3, 64: 6}


def test_numbers_are_kept_in_the_format_that_is_asked_for():
    for name, part in (("emr", "elected"), ("tall_masks", "sum"), ("twin", "shared")):
        packer = packer_of(name)
        assert packer.keeps_numbers
        assert packer.pack(deltas(2, 4, 4))[part].dtype == torch.float32
        assert packer.pack(deltas(2, 4, 4), dtype=torch.bfloat16)[part].dtype == torch.bfloat16
    assert not packer_of("compeft").keeps_numbers
