"""The model, built of Megatron Core's layers."""
