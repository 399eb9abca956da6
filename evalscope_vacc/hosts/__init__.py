"""Hooks into EvalScope and MTEB, and nothing else."""
