"""Names of the text model's tensors in a multimodal folder."""

_TEXT_PREFIXES = {
    "language_model.lm_head.": "lm_head.",
    "language_model.model.": "model.",
    "model.language_model.": "model.",
}
"""Names in multimodal folders: as saved by transformers up to 4.51 (and 5), and as in its model."""
_OTHER_PREFIXES = (
    "vision_tower.",
    "multi_modal_projector.",
    "model.vision_tower.",
    "model.multi_modal_projector.",
)


def text_tensor(name: str) -> str | None:
    """Return the name that a tensor of a multimodal folder has in a text folder, None for none."""
    for prefix, replacement in _TEXT_PREFIXES.items():
        if name.startswith(prefix):
            return replacement + name.removeprefix(prefix)
    return None if name.startswith(_OTHER_PREFIXES) else name
