"""What computes log-likelihoods and answers: transformers, vLLM."""
