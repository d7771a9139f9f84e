from evaluation.prompts import biomistral as biomistral_prompts
from evaluation.prompts import lm_eval as lm_eval_prompts
from evaluation.prompts import meditron as meditron_prompts
from evaluation.prompts import mmedbench as mmedbench_prompts
from evaluation.prompts.registry import TEMPLATES
from evaluation.protocols import biomistral, lm_eval, meditron, mmedbench
from evaluation.protocols.registry import PROTOCOLS


def test_no_source_replaces_a_name_of_another():
    sources = [lm_eval_prompts, meditron_prompts, mmedbench_prompts, biomistral_prompts]
    assert len(TEMPLATES) == sum(len(source.TEMPLATES) for source in sources)
    sources = [lm_eval, meditron, mmedbench, biomistral]
    assert len(PROTOCOLS) == sum(len(source.PROTOCOLS) for source in sources)


def test_every_protocol_has_its_template():
    assert {settings.template for settings in PROTOCOLS.values()} == set(TEMPLATES)
