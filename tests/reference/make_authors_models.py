"""Make `authors_models.safetensors`: small whole models merged by the programs of the methods' authors.

Run as `python -m tests.reference.make_authors_models SOURCES` with fusion-bench 0.2.33 and peft 0.21.2 installed,
SOURCES being a folder with the authors' repositories as OWNER+NAME: prateeky2806/ties-merging (commit 44e7891),
yule-BUAA/MergeLM (6d49ad9) and MergeLLM (9178ef9), gstoica27/KnOTS (baa35e8), harveyhuang18/EMR_Merging (cc225ec),
nik-dim/tall_masks (d10af8b), AntoAndGar/task_singular_vectors (a6c9718), danielm1405/iso-merging (d34010a),
nathanielyvo/WUDI-Merging (dc3cd12), WalkerWorldPeace/MLLMerging (5f8a458), LZY-the-boys/Twin-Merging (f481c60),
declare-lab/della (8067515), duguodong7/pcb-merging (5897888), fanqiwan/FuseAI (7d9a307) and
xinykou/safety_realignment (5a80593).

Only definitions of their files are run, as they are, in float64 on float32 weights where the program allows. The file
holds the models (`base/...`, `expert.0/...`) and what each program adds to the base (`KEY/...`).
"""

from __future__ import annotations

import contextlib
import sys
from collections import OrderedDict
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from safetensors.torch import save_file

from tests.reference.programs import (
    Named,
    Silent,
    State,
    as_module,
    definitions,
    flat,
    on_this_machine,
    unflat,
)

EXPERTS = 3
WEIGHTS = [0.5, 1.0, 0.25]


def models() -> list[State]:
    """Make a base and its experts: two layers, a table, norms, a bias; deltas with falling spectra."""
    draw = torch.Generator().manual_seed(2106)
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (20, 12), "model.norm.weight": (12,)}
    for layer in range(2):
        head = f"model.layers.{layer}."
        shapes |= {f"{head}self_attn.q_proj.weight": (12, 12), f"{head}self_attn.q_proj.bias": (12,)}
        shapes |= {f"{head}mlp.up_proj.weight": (30, 12), f"{head}mlp.down_proj.weight": (12, 30)}
        shapes[f"{head}input_layernorm.weight"] = (12,)
    base = {name: 0.3 * torch.randn(shape, generator=draw) for name, shape in shapes.items()}
    made = [base]
    for number in range(EXPERTS):
        expert = {}
        for name, weight in base.items():
            falling = 0.9 ** torch.arange(weight.shape[-1])
            expert[name] = weight + 0.02 * (1 + number) * torch.randn(weight.shape, generator=draw) * falling
        made.append(expert)
    return made


def deltas(made: list[State]) -> list[State]:
    """Give what the experts changed, in float64."""
    base, *experts = made
    return [{name: one[name].double() - base[name].double() for name in base} for one in experts]


def matrices(state: State) -> State:
    """Leave the matrices of the layers."""
    return {name: one for name, one in state.items() if "layers" in name and one.ndim == 2}


def ties(root: Path, made: list[State]) -> dict[str, State]:
    """Merge by the four meanings of TIES."""
    from fusion_bench.method.ties_merging.ties_merging_utils import ties_merging
    from peft.utils.merge_utils import ties as of_peft

    changed = deltas(made)
    stack, like = flat(changed), changed[0]
    authors = definitions(
        root / "prateeky2806+ties-merging/src/utils/merge_utils.py", stubs={"logger": Silent()}
    )
    found = {
        "ties.authors": unflat(authors.merge_methods("topk", stack, 20, "mass", "dis-mean"), like),
        "ties.fusion_bench": unflat(ties_merging(stack, reset_thresh=20, merge_func="sum"), like),
    }
    for name in ("MergeLM", "MergeLLM"):
        folder = root / f"yule-BUAA+{name}/model_merging_methods"
        names = {
            "get_param_names_to_merge": lambda input_param_names, exclude_param_names_regex: input_param_names
        }
        vector = definitions(folder / "task_vector.py", stubs=names).TaskVector
        program = definitions(folder / "merging_methods.py", stubs={"TaskVector": vector}).MergingMethod
        zero = Named({key: torch.zeros_like(one) for key, one in like.items()})
        experts = [Named(one) for one in changed]
        found[f"ties.{name.lower()}"] = program.ties_merging(None, zero, experts, [], 0.8, 1.0)
    weights = torch.tensor(WEIGHTS, dtype=torch.float64)
    found["ties.peft"] = {key: of_peft([one[key] for one in changed], weights, 0.2) for key in like}
    return found


def knots(root: Path, made: list[State]) -> dict[str, State]:
    """Merge the matrices by KnOTS with TIES, as its configurations for images say, but for the factor."""
    folder = root / "gstoica27+KnOTS"
    masking = definitions(folder / "masking_ops.py")
    merging = definitions(folder / "merging_functions.py")
    stubs = {
        "masked_merge": masking.masked_merge,
        "get_mask_fn": lambda name: getattr(masking, f"{name}_masking"),
        "get_merging_fn": lambda name: getattr(merging, f"{name}_merging"),
        "time": None,
    }
    program = definitions(folder / "task_merger.py", stubs=stubs)
    helper = SimpleNamespace()
    for name in ("directions_to_reps", "rep_to_state_dict"):
        setattr(helper, name, getattr(program.VectorOps, name).__get__(helper))
    experts = [
        SimpleNamespace(get_ft_parameters=lambda one=one: OrderedDict(sorted(one.items())))
        for one in map(matrices, deltas(made))
    ]
    zero = Named({name: torch.zeros(one.shape) for name, one in matrices(made[0]).items()})

    def handler(model: Named) -> SimpleNamespace:
        return SimpleNamespace(get_ft_parameters=lambda: OrderedDict(sorted(model.state_dict().items())))

    merger = program.SVDMerger.__new__(program.SVDMerger)
    merger.__dict__ |= {
        "device": "cpu",
        "scaling_coeffs": torch.tensor([1.0] * EXPERTS),
        "param_handler": handler,
        "ftms_params": experts,
        "pretrained_model": zero,
        "representation_helper": helper,
        "ingredients": None,
    }
    config = {
        "merge_method": "ties",
        "topK": 20,
        "merging_type": "mean",
        "sign_resolve_mode": "sum_of_values",
        "concat_across_output": True,
    }
    merger.transform(config)
    return {"knots": merger.merge(config).state_dict()}


def doge(root: Path, made: list[State]) -> dict[str, State]:
    """Merge the matrices by DOGE as FusionBench has it."""
    import copy
    import logging

    import fusion_bench

    path = Path(fusion_bench.__file__).parent / "method/doge_ta/doge_ta.py"
    import time

    program = definitions(path, stubs={"log": logging.getLogger("doge"), "time": time, "BaseModelPool": dict})
    whole = [{f"encoder.{name}": one.double() for name, one in matrices(state).items()} for state in made]
    names = ["_pretrained_", *map(str, range(EXPERTS))]
    pool = type(
        "Pool",
        (dict,),
        {"load_model": lambda self, name: copy.deepcopy(self[name]), "model_names": names[1:]},
    )
    run = program.DOGE_TA_Algorithm.__new__(program.DOGE_TA_Algorithm)
    settings = SimpleNamespace(subspace=6, K=30, lamda=0.07)
    fabric = SimpleNamespace(device="cpu", backward=lambda loss: loss.backward())
    run.__dict__ |= {"delta": None, "config": settings, "fabric": fabric}
    run.profile = lambda name: contextlib.nullcontext()
    run.print_profile_summary = lambda: None
    program.DOGE_TA_Algorithm.run.__globals__["BaseModelPool"] = dict
    merged = run.run(pool(zip(names, map(Named, whole), strict=True)))
    base = whole[0]
    return {
        "doge": {name.removeprefix("encoder."): merged.state[name].detach() - base[name] for name in base}
    }


def opcm(root: Path, made: list[State]) -> dict[str, State]:
    """Merge whole models by OPCM as FusionBench has it, in the order of the experts."""
    import fusion_bench
    import numpy
    from fusion_bench.models.utils import named_leaf_modules
    from fusion_bench.utils.parameters import state_dict_to_vector
    from fusion_bench.utils.state_dict_arithmetic import state_dict_sub

    folder = Path(fusion_bench.__file__).parent / "method/opcm"
    stubs = {"state_dict_to_vector": state_dict_to_vector, "state_dict_sub": state_dict_sub}
    tools = definitions(folder / "utils.py", stubs=stubs)
    more = {"named_leaf_modules": named_leaf_modules, "np": numpy, "svd": tools.svd}
    more["get_task_vector_norm"] = tools.get_task_vector_norm
    program = definitions(folder / "opcm_general.py", stubs=more).OPCM
    run = program.__new__(program)
    run.fabric = SimpleNamespace(device="cpu", log=lambda *_, **__: None)
    run.alpha, run.shuffle_order, run.seed, run.save_on_every_step, run.num_ray_actors = (
        0.5,
        False,
        None,
        False,
        0,
    )
    run.profile = lambda name: contextlib.nullcontext()
    run.print_profile_summary, run.log_dir = lambda: None, None
    experts = {str(number): as_module(state) for number, state in enumerate(made[1:])}
    pool = SimpleNamespace(
        load_pretrained_model=lambda: as_module(made[0]), load_model=experts.get, model_names=list(experts)
    )
    merged = dict(run.run(pool).named_parameters())
    return {"opcm": {name: merged[name].detach() - one.double() for name, one in made[0].items()}}


def stores(root: Path, made: list[State]) -> dict[str, State]:
    """Bring every expert back by EMR (both programs), TALL masks at 0.4, and Twin-Merging's tenth of the rank."""
    changed = deltas(made)
    vectors = [SimpleNamespace(vector=one) for one in changed]
    folder = root / "harveyhuang18+EMR_Merging/merge_vit/src"
    found: dict[str, State] = {}
    unified, masks, scales = definitions(folder / "main_emr_merging.py").emr_merge(vectors)
    found["emr.unified"] = unified
    for number in range(EXPERTS):
        found[f"emr.{number}"] = {
            name: unified[name] * masks[name][number] * scales[number] for name in unified
        }
    whole, marks, factors = definitions(folder / "main_emr_30_vits.py").emr_merge(flat(changed))
    for number in range(EXPERTS):
        found[f"emr.flat.{number}"] = unflat(whole * marks[number] * factors[number], changed[0])
    tall = definitions(
        root / "nik-dim+tall_masks/src/utils/tallmask_utils.py",
        stubs={
            "log_wandb_mask_sparsity": lambda mask: None,
            "state_dict_to_vector": lambda one, **_: flat([one])[0],
        },
    )
    program = tall.generate_task_masks
    program.__globals__["log_wandb_mask_sparsity"] = lambda mask: None
    stack, zero = flat(changed), torch.zeros_like(flat(changed)[0])
    of_ties = definitions(root / "nik-dim+tall_masks/src/utils/utils.py")
    ties_of = definitions(
        root / "nik-dim+tall_masks/src/utils/ties_utils.py",
        stubs={"topk_values_mask": of_ties.topk_values_mask},
    )
    totals = {"ta": stack.sum(0), "ties": ties_of.ties_merging(stack, reset_thresh=20, merge_func="dis-sum")}
    for key, total in totals.items():
        own = program(stack, stack, zero, tv=total, tall_mask_lambda=0.4)
        loaded = {str(number): unflat(mask, changed[0]) for number, mask in enumerate(own)}
        tall.construct_consensus_mask.__globals__["load_tall_mask"] = lambda *_, loaded=loaded: loaded
        agreed = tall.construct_consensus_mask(changed[0], 2, None)
        found[f"consensus_{key}"] = unflat(total * agreed, changed[0])
        if key == "ta":
            for number, mask in enumerate(own):
                found[f"tall_masks.{number}"] = unflat(total * mask, changed[0])
    cut = definitions(root / "LZY-the-boys+Twin-Merging/discriminative/sparsify.py").svd
    for number in range(EXPERTS):
        shared = {name: 0.3 * sum(one[name] for one in changed) for name in changed[0]}
        rest = {name: cut(changed[number][name] - shared[name], 1 - 0.9) for name in shared}
        found[f"twin.{number}"] = {name: shared[name] + rest[name] for name in shared}
    return found


def spectral(root: Path, made: list[State]) -> dict[str, State]:
    """Merge by TSV-M (both forms), Iso-C and Iso-CTS, WUDI, and OptMerge for full experts and for LoRAs."""
    changed = deltas(made)
    vectors = [SimpleNamespace(vector=one) for one in changed]
    config = SimpleNamespace(
        DATASETS=list(range(EXPERTS)),
        device="cpu",
        num_tasks=EXPERTS,
        method=SimpleNamespace(common_space_fraction=0.8),
    )
    tsv = definitions(root / "AntoAndGar+task_singular_vectors/src/utils/TSVM_utils.py")
    iso = definitions(root / "danielm1405+iso-merging/src/utils/iso.py")
    found = {
        "tsv_m": tsv.compute_and_sum_svd_mem_reduction(vectors, config),
        "tsv_m.gram": tsv.compute_and_sum_svd_mem_reduction_2(vectors, config),
        "iso_c": iso.iso_c(vectors, config),
        "iso_cts": iso.iso_cts(vectors, config),
    }
    whole = {"wudi": "vit/wudi_main.py", "wudi.plain": "vit/coef.py"}
    for key, file in whole.items():
        program = definitions(root / "nathanielyvo+WUDI-Merging" / file).get_redundant_task_vector
        found[key] = {
            name: program(name, torch.stack([one[name] for one in changed])) for name in matrices(changed[0])
        }
    files = {
        "optmerge": "InternVL/internvl_chat/model_merging.py",
        "optmerge.lora": "LLaMA-Factory/model_merging.py",
    }
    for key, file in files.items():
        names = {
            "get_param_names_to_merge": lambda input_param_names, exclude_param_names_regex: input_param_names
        }
        program = definitions(root / "WalkerWorldPeace+MLLMerging" / file, stubs=names)
        zero = Named({name: torch.zeros(one.shape) for name, one in matrices(changed[0]).items()})
        experts = [Named({name: one.float() for name, one in matrices(state).items()}) for state in changed]
        found[key] = program.wudi_merging2(zero, experts, [], 1.0)
    return found


def sparse(root: Path, made: list[State]) -> dict[str, State]:
    """Merge by PCB, by SCE, and by DELLA where chance drops nothing: what its rescaling and election make."""
    changed = deltas(made)
    pcb = definitions(root / "duguodong7+pcb-merging/pcb-merging.py").PCB_merge
    found = {"pcb": unflat(pcb(flat(changed))[0], changed[0])}
    path = root / "fanqiwan+FuseAI/FuseChat/mergekit/mergekit/merge_methods/sce_merging.py"
    task = definitions(path, stubs={"ImmutableMap": dict, "WeightInfo": Any})
    zero = {name: torch.zeros_like(one) for name, one in changed[0].items()}
    found["sce"] = {}
    for name in zero:
        run = SimpleNamespace(out_tensor_name=name, base_model="base", select_topk=0.1)
        tensors = {"base": zero[name], **{str(number): one[name] for number, one in enumerate(changed)}}
        program = next(value for value in vars(task).values() if hasattr(value, "execute"))
        found["sce"][name] = program.execute(run, tensors)
    folder = root / "declare-lab+della/mergekit/mergekit"
    tools = definitions(folder / "sparsify.py")
    rules = definitions(
        folder / "merge_methods/generalized_task_arithmetic.py",
        stubs={
            "sparsify": lambda tensor, density, method, epsilon, rescale: tools.rank_magnitude(
                tensor, density, rescale, epsilon
            )
        },
    )
    bernoulli, torch.bernoulli = torch.bernoulli, torch.ones_like
    try:
        found["della"] = {}
        for name in zero:
            # Weights of the method are float32 in the program unless its tensors are float64.
            options = {"density": 0.7, "window_size": 0.14, "rescale": True, "lambda": 1.1}
            each = {str(number): {**options, "weight": WEIGHTS[number]} for number in range(EXPERTS)}
            method = SimpleNamespace(
                sparsification_method="rank", consensus_method="sum", lambda_type="Constant"
            )
            run = SimpleNamespace(
                out_tensor_name=name,
                base_model="base",
                tensor_parameters=SimpleNamespace(data=each),
                method=method,
                int8_mask=False,
                normalize=True,
            )
            tensors = {
                "base": zero[name],
                **{str(number): one[name].clone() for number, one in enumerate(changed)},
            }
            found["della"][name] = rules.GTATask.execute(run, tensors)
    finally:
        torch.bernoulli = bernoulli
    return found


def somf(root: Path, made: list[State]) -> dict[str, State]:
    """Merge by a given mask as the programs of SOMF do: rescaled by its mean, and the tasks added at 0.3."""
    draw = torch.Generator().manual_seed(77)
    changed = deltas(made)[:2]
    mask = {name: torch.rand(one.shape, generator=draw) for name, one in made[0].items()}
    path = root / "xinykou+safety_realignment/llama_factory/src/llmtuner/model/concrete_mask.py"
    apply = definitions(path).ConcreteMask._apply_mask
    soft = {name: one.double() for name, one in mask.items()}
    hard = {name: (one > 0.5).double() for name, one in soft.items()}
    found: dict[str, State] = {"somf.mask": mask}
    for key, gate in {"somf": soft, "somf.binary": hard}.items():
        masked = [apply(None, gate, one) for one in changed]
        found[key] = {name: sum(0.3 * one[name] for one in masked) for name in gate}
    return found


def make(root: Path) -> State:
    """Merge the models by every program."""
    made = models()
    found = {"base": made[0], **{f"expert.{number}": one for number, one in enumerate(made[1:])}}
    for program in (ties, knots, doge, opcm, stores, spectral, sparse, somf):
        with on_this_machine():
            for key, state in program(root, made).items():
                found[key] = {name: one.detach().float().contiguous().clone() for name, one in state.items()}
    return {f"{key}/{name}": one for key, state in found.items() for name, one in state.items()}


if __name__ == "__main__":
    save_file(make(Path(sys.argv[1])), Path(__file__).with_name("authors_models.safetensors"))
