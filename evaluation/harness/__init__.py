"""Tasks of lm-evaluation-harness (the package `lm_eval`, optional) through Galen's backends."""
