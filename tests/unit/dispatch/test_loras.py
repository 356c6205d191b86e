"""LoRAs made elsewhere: on a shelf like experts, row by row, and routed per token by Arrow; against PEFT."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import PeftModel, create_arrow_model
from peft.tuners.lora.config import ArrowConfig

from tests.unit.dispatch.conftest import make_expert
from umaf import seeds
from umaf.adapters import lora_modules, weight_of, write_lora
from umaf.dispatch.adaptive import AdaptiveModel, shelf_from
from umaf.dispatch.arrow import arrow, prototypes, shares
from umaf.dispatch.decode import Drawing
from umaf.dispatch.dispatchers import Material, make_dispatcher
from umaf.dispatch.loras import lora_shelf, open_lora_shelf
from umaf.errors import ConfigError, ExpertError
from umaf.experts.expert import save_expert
from umaf.models import open_model
from umaf.models.quiet import quiet
from umaf.search import CrossEntropy
from umaf.tasks.task import Example

NAMES = ("sums", "lists", "moods")


def factors(model, name, *, rank=2, modules=None, size=0.4):
    made = {}
    for module in modules or lora_modules(model):
        out, inner = weight_of(model, module).shape
        draw = seeds.generator(0, name, module)
        a = torch.randn(rank, inner, generator=draw) / inner**0.5
        made[module] = (a, size * torch.randn(out, rank, generator=draw))
    return made


@pytest.fixture(scope="module")
def folders(base, tmp_path_factory):
    place = tmp_path_factory.mktemp("loras")
    return [write_lora(place / name, base, factors(base, name), provenance={}) for name in NAMES]


@pytest.fixture
def ids():
    return torch.randint(4, 100, (3, 6), generator=torch.Generator().manual_seed(0))


def logits(net, ids):
    with torch.inference_mode():
        return net(input_ids=ids, use_cache=False).logits


def test_each_row_answers_as_peft_with_its_lora(base, folders, ids):
    shelf = shelf_from(base, folders)
    assert shelf.names == NAMES and shelf.descriptions == ("", "", "")
    with shelf.applied(torch.tensor([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])) as model:
        mixed = logits(model.net, ids)
    assert torch.allclose(mixed[1], logits(base.net, ids)[1], atol=1e-6)
    for row, name in ((0, 1), (2, 2)):
        with quiet():
            peft = PeftModel.from_pretrained(copy.deepcopy(base.net), folders[name])
        assert torch.allclose(mixed[row], logits(peft, ids)[row], atol=1e-4)


def test_mixtures_add_the_changes(base, folders, ids):
    """Half of one and twice another, per module too, against weights that were really changed."""
    shelf = shelf_from(base, folders)
    changed = copy.deepcopy(base.net)
    for module in shelf.modules:
        for share, name in ((0.5, "sums"), (2.0, "moods")):
            a, b = factors(base, name)[module]
            changed.get_submodule(module).weight.data += share * b @ a
    weights = torch.tensor([[0.5, 0.0, 2.0]])
    with shelf.applied(weights) as model:
        assert torch.allclose(logits(model.net, ids), logits(changed, ids), atol=1e-4)
    wide = weights.unsqueeze(-1).expand(-1, -1, len(shelf.modules))
    with shelf.applied(wide) as model:
        assert torch.allclose(logits(model.net, ids), logits(changed, ids), atol=1e-4)


def test_hooks_leave_after_a_fault(base, folders, ids):
    shelf, before = shelf_from(base, folders), logits(base.net, ids)
    for attempt in (shelf.applied(torch.ones(1, 3)), arrow(shelf)):
        with pytest.raises(RuntimeError), attempt:
            raise RuntimeError
    assert torch.equal(logits(base.net, ids), before)


def test_the_same_dispatchers_route_loras(base, folders):
    shelf = shelf_from(base, folders)
    texts = ("the film was good", "rain fell on the hills")
    examples = {name: tuple(f"{name} {word}" for word in ("one", "two", "three")) for name in NAMES}
    shots = Material(
        shots=(Example("is", "good"),),
        cue="answer",
        search=CrossEntropy(population=4, elites=2, iterations=2),
    )
    for by, material in (("prompt", None), ("probe", Material(examples=examples)), ("few-shot", shots)):
        adaptive = AdaptiveModel(shelf, make_dispatcher(by, shelf, material))
        replies = adaptive.generate(texts, drawing=Drawing(max_new_tokens=4))
        assert len(replies) == 2 and set(replies[0].weights) == set(NAMES)


def test_loras_of_several_ranks_and_modules_share_a_shelf(base, ids):
    few = lora_modules(base)[:2]
    shelf = lora_shelf(base, {"a": factors(base, "a", rank=1), "b": factors(base, "b", rank=3, modules=few)})
    changed = copy.deepcopy(base.net)
    for module in few:
        a, b = factors(base, "b", rank=3, modules=few)[module]
        changed.get_submodule(module).weight.data += b @ a
    with shelf.applied(torch.tensor([[0.0, 1.0]])) as model:
        assert torch.allclose(logits(model.net, ids), logits(changed, ids), atol=1e-4)


def test_a_lora_of_another_base(base, pico, tmp_path):
    other = open_model(pico("gpt2"))
    folder = write_lora(tmp_path / "far", other, factors(other, "far"), provenance={})
    with pytest.raises(ExpertError, match=r'The LoRA "far" changes .* which .* does not have'):
        open_lora_shelf(base, {"far": folder})
    module = lora_modules(base)[0]
    with pytest.raises(ExpertError, match=r"fits a weight of \[3, 5\]"):
        lora_shelf(base, {"odd": {module: (torch.zeros(1, 5), torch.zeros(3, 1))}})


def test_stacked_experts_are_refused(pico):
    model = open_model(pico("mixtral"))
    name = next(name for name in lora_modules(model, experts=True) if name.endswith("down_proj"))
    shape = weight_of(model, name).shape
    pair = (torch.zeros(shape[0], 1, shape[2]), torch.zeros(shape[0], shape[1], 1))
    with pytest.raises(ExpertError, match="stacked experts"):
        lora_shelf(model, {"a": {name: pair}})


def test_one_kind_on_a_shelf(base, folders, tmp_path):
    expert = save_expert(make_expert(base, "svf"), tmp_path / "svf")
    with pytest.raises(ExpertError, match="one kind on a shelf"):
        shelf_from(base, [*folders, expert])


def test_prototypes_are_top_right_singular_vectors(base):
    shelf = lora_shelf(base, {name: factors(base, name, rank=3) for name in NAMES})
    module, pool = next(iter(shelf.pools.items()))
    for row, name in enumerate(NAMES):
        a, b = factors(base, name, rank=3)[module]
        wanted = torch.linalg.svd(b @ a).Vh[0]
        assert torch.allclose((prototypes(pool)[row] @ wanted).abs(), torch.tensor(1.0), atol=1e-5)


def test_shares_keep_the_top_and_ignore_signs():
    x = torch.randn(2, 4, 5, generator=torch.Generator().manual_seed(0))
    directions = torch.eye(5)[:4]
    kept = shares(x, directions, top=2)
    assert torch.equal(kept, shares(-x, directions, top=2))
    assert ((kept > 0).sum(-1) == 2).all() and torch.allclose(kept.sum(-1), torch.ones(2, 4))
    assert torch.allclose(
        shares(x, directions, top=4, temperature=1e6), torch.full((2, 4, 4), 0.25), atol=1e-4
    )


def test_arrow_answers_as_peft_does(base, tmp_path, ids):
    """PEFT finds prototypes by power iteration, which is exact for rank 1."""
    loras = {name: factors(base, name, rank=1) for name in NAMES}
    paths = [str(write_lora(tmp_path / name, base, one, provenance={})) for name, one in loras.items()]
    with quiet():
        peft = create_arrow_model(
            copy.deepcopy(base.net), paths, ArrowConfig(top_k=2, router_temperature=0.7, rng_seed=0)
        ).eval()
    with arrow(lora_shelf(base, loras), top=2, temperature=0.7) as model:
        ours = logits(model.net, ids)
    assert torch.allclose(ours, logits(peft, ids), atol=1e-4)
    assert not torch.allclose(ours, logits(base.net, ids), atol=1e-2)


def test_arrow_settings_that_cannot_be(base, folders):
    with pytest.raises(ConfigError, match="must be above 0"), arrow(shelf_from(base, folders), top=0):
        pass
