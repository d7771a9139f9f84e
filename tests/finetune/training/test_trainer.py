import torch
from transformers import AutoConfig, AutoModelForCausalLM

from finetune.training.trainer import AnswerTrainer


def test_learned_activations_have_no_weight_decay():
    config = AutoConfig.for_model(
        "apertus",
        vocab_size=32,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    decayed = AnswerTrainer.get_decay_parameter_names(object.__new__(AnswerTrainer), model)
    names = {name.removesuffix(".weight").rsplit(".", 1)[-1] for name in decayed}
    projections = {"q_proj", "k_proj", "v_proj", "o_proj", "up_proj", "down_proj"}
    assert names == {*projections, "embed_tokens", "lm_head"}
