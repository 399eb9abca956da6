"""The command `evalscope-vacc`: one small module a command."""
