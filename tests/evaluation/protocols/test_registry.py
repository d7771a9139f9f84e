from evaluation.prompts import biomistral as biomistral_prompts
from evaluation.prompts import chat as chat_prompts
from evaluation.prompts import lm_eval as lm_eval_prompts
from evaluation.prompts import meditron as meditron_prompts
from evaluation.prompts import mmedbench as mmedbench_prompts
from evaluation.prompts.registry import TEMPLATES
from evaluation.protocols import biomistral, chat, lm_eval, meditron, mmedbench
from evaluation.protocols.registry import PROTOCOLS, get_protocol


def test_no_source_replaces_a_name_of_another():
    sources = [
        lm_eval_prompts,
        meditron_prompts,
        mmedbench_prompts,
        biomistral_prompts,
        chat_prompts,
    ]
    assert len(TEMPLATES) == sum(len(source.TEMPLATES) for source in sources)
    sources = [lm_eval, meditron, mmedbench, biomistral, chat]
    assert len(PROTOCOLS) == sum(len(source.PROTOCOLS) for source in sources)


def test_every_protocol_has_its_template():
    used = {settings.template for settings in PROTOCOLS.values()}
    for name, settings in PROTOCOLS.items():
        if settings.answer_format:
            used |= {
                get_protocol(name, answer_format=answer_format).template
                for answer_format in chat_prompts.FORMATS
            }
    assert used == set(TEMPLATES)
