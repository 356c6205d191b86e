"""An expert on its base: exact, without rewriting a weight, and gone when the block ends."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from tests.conftest import ARCHITECTURES
from umaf.adapters import attach, is_stacked, weight_of
from umaf.errors import ExpertError
from umaf.experts import attached, bounded, decompose, svf_modules
from umaf.models import bare, open_model, weights_hash

ROWS = torch.tensor([[9, 20, 31, 42, 53], [8, 17, 26, 35, 44], [90, 80, 70, 60, 50], [9, 20, 31, 42, 53]])
TARGETS = [name for name in ARCHITECTURES if name != "rwkv"]


def logits(model, ids=ROWS):
    more = {"decoder_input_ids": ids.flip(1)} if model.kind == "encoder-decoder" else {}
    with torch.no_grad():
        return model.net(input_ids=ids, **more).logits


def drawn(factored, *rows, seed=3):
    """Multipliers in (0, 2) for every singular value."""
    source = torch.Generator().manual_seed(seed)
    return {name: 2 * torch.rand(*rows, *f.s.shape, generator=source) for name, f in factored.items()}


def dense(model, factored, z):
    """The model in float64 with W' = u diag(s z) vh in the place of every W, formed whole."""
    changed = replace(model, net=copy.deepcopy(model.net).double())
    with torch.no_grad():
        for name, f in factored.items():
            middle = torch.diag_embed(f.s.double() * z[name].double())
            weight_of(changed, name).copy_(f.u.double() @ middle @ f.vh.double())
    return changed


@pytest.fixture(scope="module")
def llama(pico):
    model = open_model(pico("llama"))
    return model, decompose(model, svf_modules(model))


@pytest.mark.parametrize("model_type", TARGETS)
def test_it_equals_the_dense_weight_in_every_architecture(pico, model_type):
    model = open_model(pico(model_type), dtype="float64")
    if model.family.experts:
        model.net.set_experts_implementation("eager")  # the others have no float64 on a CPU
    factored = decompose(open_model(pico(model_type)), svf_modules(model))
    z = drawn(factored)
    for form in ("change", "whole"):
        with attached(model, factored, z, form=form):
            found = logits(model)
        wanted = logits(dense(model, factored, z))
        # The decomposition is float32's, so that is the agreement there is.
        assert (found - wanted).abs().max() < 1e-3
        assert (found - logits(model)).abs().max() > 0.05


def test_it_equals_the_dense_weight_to_the_last_digits_of_float64(pico):
    model = open_model(pico("llama"), dtype="float64")
    factored = {}
    for name in svf_modules(model):
        u, s, vh = torch.linalg.svd(weight_of(model, name).detach(), full_matrices=False)
        factored[name] = type(next(iter(decompose(model, [name]).values())))(u, s, vh)
    z = {name: 2 * torch.rand(f.s.shape, dtype=torch.float64) for name, f in factored.items()}
    for form in ("change", "whole"):
        with attached(model, factored, z, form=form):
            assert (logits(model) - logits(dense(model, factored, z))).abs().max() < 1e-11


@pytest.mark.parametrize("form", ["auto", "change", "whole"])
def test_rows_of_a_batch_equal_runs_one_by_one(llama, form):
    model, factored = llama
    z = drawn(factored, 4)
    with attached(model, factored, z, form=form):
        together = logits(model)
    for row in range(4):
        with attached(model, factored, {name: each[row] for name, each in z.items()}, form=form):
            alone = logits(model, ROWS[row : row + 1])
        assert torch.allclose(together[row], alone[0], atol=2e-4)
    # The first and the last text are the same: it is z that sets them apart.
    assert (together[0] - together[3]).abs().max() > 0.05


def test_rows_may_share_multipliers_by_number(llama):
    model, factored = llama
    z = drawn(factored, 2)
    with attached(model, factored, z, rows=torch.tensor([1, 0, 1, 1])):
        found = logits(model)
    with attached(model, factored, {name: each[[1, 0, 1, 1]] for name, each in z.items()}):
        assert torch.equal(found, logits(model))


@pytest.mark.parametrize("model_type", TARGETS)
def test_ones_change_no_bit_and_install_nothing(pico, model_type):
    model = open_model(pico(model_type))
    factored = decompose(model, svf_modules(model))
    ones = {name: torch.ones_like(f.s) for name, f in factored.items()}
    before = logits(model)
    with attached(model, factored, ones):
        assert not any("forward" in vars(module) for module in model.net.modules())
        assert torch.equal(logits(model), before)


def test_training_starts_at_the_base_bit_for_bit_and_gradients_reach_every_multiplier(llama):
    model, factored = llama
    p = {name: torch.zeros_like(f.s, requires_grad=True) for name, f in factored.items()}
    before = logits(model)
    with attached(model, factored, {name: bounded(each) for name, each in p.items()}):
        found = model.net(input_ids=ROWS).logits
    assert torch.equal(found, before)
    found.square().mean().backward()
    assert all(each.grad is not None and (each.grad != 0).float().mean() > 0.9 for each in p.values())


def test_both_forms_give_the_same_gradients(llama):
    model, factored = llama
    found = []
    for form in ("change", "whole"):
        z = {name: each.requires_grad_() for name, each in drawn(factored).items()}
        with attached(model, factored, z, form=form):
            model.net(input_ids=ROWS).logits.square().mean().backward()
        found.append(torch.cat([each.grad for each in z.values()]))
    assert torch.allclose(found[0], found[1], rtol=1e-2, atol=1e-3 * float(found[0].abs().max()))


def test_gradients_of_stacked_experts_serve_several_backward_passes(pico):
    model = open_model(pico("mixtral"))
    names = [name for name in svf_modules(model) if is_stacked(model, name)]
    factored = decompose(model, names)
    z = {name: torch.ones_like(f.s, requires_grad=True) for name, f in factored.items()}
    with attached(model, factored, z):
        for _ in range(2):
            model.net(input_ids=ROWS).logits.square().mean().backward()
    assert all(each.grad is not None and each.grad.abs().max() > 0 for each in z.values())
    assert not any("forward" in vars(module) for module in model.net.modules())


def test_a_row_without_an_expert_keeps_its_bits_beside_rows_with_one(llama):
    model, factored = llama
    z = drawn(factored, 4)
    for each in z.values():
        each[1:] = 1
    with attached(model, factored, z, form="change"):
        found = logits(model)
    before = logits(model)
    assert torch.equal(found[1:], before[1:]) and not torch.allclose(found[0], before[0])


def test_a_sparse_expert_multiplies_its_few_directions_only(llama):
    model, factored = llama
    name = "model.layers.0.mlp.up_proj"
    z = torch.ones_like(factored[name].s)
    z[[2, 5]] = 0.25
    seen = []
    with attached(model, factored, {name: z}):
        module = bare(model.net).get_submodule(name)
        seen = [cell.cell_contents for cell in module.forward.__closure__]
        found = logits(model)
    assert any(isinstance(each, torch.Tensor) and each.shape == (2, 32) for each in seen)
    with attached(model, factored, {name: z}, form="whole"):
        assert torch.allclose(found, logits(model), atol=1e-4)


@pytest.mark.parametrize("model_type", ["llama", "gpt2", "t5"])
def test_one_expert_on_many_tokens_is_merged_for_the_time_being(pico, model_type):
    """One matrix per weight, made anew and dropped again: the stored base is never written to."""
    model = open_model(pico(model_type))
    factored = decompose(model, svf_modules(model))
    z, before, bare_logits = drawn(factored), weights_hash(model), logits(model)
    with attached(model, factored, z, form="change"):
        wanted = logits(model)
    calls, inner = [], torch.nn.functional.linear

    def counted(x, weight, *more):
        calls.append(weight)
        return inner(x, weight, *more)

    with attached(model, factored, z, tokens=10**6), pytest.MonkeyPatch.context() as patched:
        patched.setattr("umaf.experts.attach.functional.linear", counted)
        found = logits(model)
        assert all(
            weight_of(model, name).data_ptr() not in {w.data_ptr() for w in calls} for name in factored
        )
        assert weights_hash(model) == before
    assert torch.allclose(found, wanted, atol=1e-4, rtol=1e-3) and not torch.equal(found, bare_logits)
    assert torch.equal(logits(model), bare_logits)


def test_what_is_merged_pays(llama):
    """Few tokens, rows with multipliers of their own, training, low precision: none of them is merged."""
    model, factored = llama
    name = "model.layers.0.mlp.up_proj"
    module, one = model.net.get_submodule(name), drawn(factored)[name]
    own = torch.nn.functional.linear

    def products(z, tokens):
        counted = []
        with attached(model, factored, {name: z}, tokens=tokens), pytest.MonkeyPatch.context() as patched:
            patched.setattr(
                "umaf.experts.attach.functional.linear", lambda *given: counted.append(0) or own(*given)
            )
            module(torch.ones(1, 1, module.in_features))
        return len(counted)

    assert products(one, 10**6) == 1 and products(one, 0) == 2 and products(one, 3) == 2
    assert products(one.expand(1, -1), 10**6) == 2
    assert products(one.clone().requires_grad_(), 10**6) > 1


@pytest.mark.parametrize("model_type", ["llama", "mixtral", "gpt2"])
def test_everything_leaves_after_an_exception(pico, model_type):
    model = open_model(pico(model_type))
    factored = decompose(model, svf_modules(model))
    before, weights = logits(model), weights_hash(model)
    state = {name: dict(vars(module)) for name, module in model.net.named_modules()}
    with pytest.raises(RuntimeError, match="inside"), attached(model, factored, drawn(factored)):
        assert not torch.allclose(logits(model), before)
        assert weights_hash(model) == weights
        raise RuntimeError("inside")
    assert {name: dict(vars(module)) for name, module in model.net.named_modules()} == state
    assert torch.equal(logits(model), before)


def test_everything_leaves_when_a_later_module_is_refused(llama):
    model, factored = llama
    z = drawn(factored)
    z["model.layers.9.mlp.up_proj"] = torch.ones(3)
    with (
        pytest.raises(ExpertError, match=r"\"model.layers.9.mlp.up_proj\" were given, but .* not decomposed"),
        attached(model, factored, z),
    ):
        pass
    assert not any("forward" in vars(module) for module in model.net.modules())


def test_one_inside_the_other_adds_and_leaves_in_order(llama):
    model, factored = llama
    first, second = drawn(factored, seed=1), drawn(factored, seed=2)
    both = {name: 1 + (first[name] - 1) + (second[name] - 1) for name in first}
    with attached(model, factored, first, form="change"):
        one = logits(model)
        with attached(model, factored, second):
            found = logits(model)
        assert torch.equal(logits(model), one)
    with attached(model, factored, both):
        assert torch.allclose(found, logits(model), atol=1e-3)


def test_it_goes_under_an_adapter(llama):
    model, factored = llama
    name = "model.layers.1.mlp.down_proj"
    adapted = attach(model, {name: (torch.randn(2, 48), torch.randn(32, 2))})
    plain = logits(adapted)
    with attached(adapted, factored, drawn(factored)):
        changed = logits(adapted)
        assert not torch.allclose(changed, plain)
    assert torch.equal(logits(adapted), plain)


def test_generation_with_a_cache_equals_one_by_one_and_without(llama):
    model, factored = llama
    z = drawn(factored, 4)
    options = {"max_new_tokens": 6, "min_new_tokens": 6, "do_sample": False, "pad_token_id": 0}
    mask = torch.ones_like(ROWS)
    with attached(model, factored, z):
        together = model.net.generate(ROWS, attention_mask=mask, **options)
        assert torch.equal(
            together, model.net.generate(ROWS, attention_mask=mask, use_cache=False, **options)
        )
    for row in range(4):
        with attached(model, factored, {name: each[row] for name, each in z.items()}):
            alone = model.net.generate(ROWS[row : row + 1], attention_mask=mask[:1], **options)
        assert torch.equal(alone[0], together[row])


@pytest.mark.parametrize(
    "more", [{"num_beams": 2, "do_sample": False}, {"num_return_sequences": 2, "do_sample": True}]
)
def test_samples_and_beams_of_a_row_stay_with_its_multipliers(llama, more):
    model, factored = llama
    z, mask = drawn(factored, 4), torch.ones_like(ROWS)
    with attached(model, factored, z):
        torch.manual_seed(0)
        found = model.net.generate(
            ROWS, attention_mask=mask, max_new_tokens=5, min_new_tokens=5, pad_token_id=0, **more
        )
        share = len(found) // 4
        scores = logits(model, found)
    wide = {name: each.repeat_interleave(share, 0) for name, each in z.items()}
    with attached(model, factored, wide):
        assert torch.equal(scores, logits(model, found))


def test_a_batch_that_the_rows_do_not_fit_is_refused(llama):
    model, factored = llama
    with (
        attached(model, factored, drawn(factored, 3)),
        pytest.raises(ExpertError, match="3 rows met a batch of 4"),
    ):
        logits(model)


def test_stacked_experts_take_one_z_for_all_rows(pico):
    model = open_model(pico("mixtral"))
    factored = decompose(model, svf_modules(model))
    one = drawn(factored)
    same = {name: each.unsqueeze(0).repeat(4, *[1] * each.dim()) for name, each in one.items()}
    with attached(model, factored, one, form="change"):
        wanted = logits(model)
    with attached(model, factored, same, form="change"):
        assert torch.allclose(logits(model), wanted, atol=1e-5)
    with (
        pytest.raises(ExpertError, match="in batches of their own"),
        attached(model, factored, drawn(factored, 4)),
    ):
        pass


def test_a_wrong_number_of_multipliers_is_refused(llama):
    model, factored = llama
    name = "model.layers.0.mlp.up_proj"
    with (
        pytest.raises(ExpertError, match=r"has \[32\] singular values, but its multipliers are \[31\]"),
        attached(model, factored, {name: torch.ones(31)}),
    ):
        pass


def test_low_precision_keeps_the_base_exact_and_the_change_close(pico):
    wide, narrow = open_model(pico("llama")), open_model(pico("llama"), dtype="bfloat16")
    factored = decompose(wide, svf_modules(wide))
    z = drawn(factored)
    with attached(wide, factored, z):
        wanted = logits(wide)
    with attached(narrow, factored, z):
        found = logits(narrow).float()
    assert torch.corrcoef(torch.stack([wanted.flatten(), found.flatten()]))[0, 1] > 0.99
